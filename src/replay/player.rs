//! Plays one provider's envelopes to its clients: when they are due, or as fast as the slowest client takes them.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::chunk::{Chunk, Slice};
use super::clock::Clock;
use super::feed::Chunks;
use super::queue::Queue;
use crate::model::Provider;

/// Lateness from which on the player waits for every client with a full queue: nobody can take so much so fast.
const CATCHING_UP: Duration = Duration::from_millis(200);

/// Somebody who wants everything from now on.
pub(super) struct Newcomer {
    pub(super) queue: Arc<Queue>,
    /// The envelope that will be played first, if none was played yet.
    pub(super) first: oneshot::Sender<Option<Bytes>>,
}

/// What a provider's player and its connections count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) played: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) too_slow: AtomicU64,
    /// Nothing more will come.
    pub(super) finished: AtomicBool,
}

/// When envelopes are played.
#[derive(Clone)]
pub(super) enum Pacing {
    /// As fast as the slowest client takes them; without clients there is a pause.
    Max,
    /// By the clock that all players share; who listens does not matter once it runs.
    Clock {
        clock: Arc<Mutex<Clock>>,
        /// Counts what was cut out of idle time.
        cuts: watch::Sender<u64>,
    },
}

pub(super) struct Player {
    pub(super) provider: Provider,
    pub(super) pacing: Pacing,
    pub(super) chunks: Chunks,
    pub(super) newcomers: mpsc::Receiver<Newcomer>,
    pub(super) tally: Arc<Tally>,
    /// Told when the last envelope was played.
    pub(super) changed: watch::Sender<u64>,
    /// Clients to wait for before the first envelope.
    pub(super) wait_for_clients: usize,
    /// What is being played, and which envelope of it comes next.
    pub(super) current: Option<(Arc<Chunk>, usize)>,
    pub(super) clients: Vec<Arc<Queue>>,
    /// What is being given is not for newcomers.
    pub(super) is_giving: bool,
}

impl Player {
    /// Plays to the end, and then greets those who come too late.
    pub(super) async fn run(mut self) {
        let begun = self.begin().await;
        while begun && let Some(slice) = self.due().await {
            self.give(slice).await;
        }
        if let Pacing::Clock { clock, .. } = &self.pacing {
            lock(clock).finish(self.provider);
        }
        self.tally.finished.store(true, Relaxed);
        self.changed.send_modify(|n| *n += 1);
        while let Some(newcomer) = self.newcomers.recv().await {
            drop(newcomer.first.send(None));
        }
    }

    /// Waits for the first clients and starts the clock. `false` when there is nothing to play, or nobody to come.
    async fn begin(&mut self) -> bool {
        if self.current.is_none() {
            return false;
        }
        while self.n_clients() < self.wait_for_clients.max(1) {
            let Some(newcomer) = self.newcomers.recv().await else { return false };
            self.welcome(newcomer);
        }
        if let Pacing::Clock { clock, .. } = &self.pacing {
            lock(clock).start(self.provider, Instant::now());
        }
        true
    }

    fn n_clients(&mut self) -> usize {
        self.clients.retain(|client| !client.is_gone());
        self.clients.len()
    }

    fn welcome(&mut self, newcomer: Newcomer) {
        let begun = self.is_giving || self.tally.played.load(Relaxed) > 0;
        let first = self.current.as_ref().filter(|_| !begun).map(|(chunk, idx)| chunk.body(*idx));
        // Who left before the answer came is noticed at the next look at the queues.
        if newcomer.first.send(first).is_ok() {
            self.clients.push(newcomer.queue);
        }
    }

    /// The next envelopes, when their time has come; `None` at the end.
    async fn due(&mut self) -> Option<Slice> {
        loop {
            if matches!(self.pacing, Pacing::Max) && self.n_clients() == 0 {
                let newcomer = self.newcomers.recv().await?;
                self.welcome(newcomer);
                continue;
            }
            let Some((chunk, next)) = self.current.clone().filter(|(chunk, next)| *next < chunk.len()) else {
                tokio::select! {
                    chunk = self.chunks.recv() => self.current = Some((Arc::new(chunk?), 0)),
                    Some(newcomer) = self.newcomers.recv() => self.welcome(newcomer),
                }
                continue;
            };
            let Pacing::Clock { clock, cuts } = &self.pacing else { return Some(Slice::new(&chunk, next..chunk.len())) };
            let mut cut = cuts.subscribe();
            let now = Instant::now();
            let due = {
                let mut clock = lock(clock);
                if clock.due(chunk.at(next), now) > now && clock.wait(self.provider, chunk.at(next), now) {
                    cuts.send_modify(|n| *n += 1);
                    cut.mark_unchanged();
                }
                let due = clock.due(chunk.at(next), now);
                if due <= now {
                    clock.play(self.provider);
                    let later = (next..chunk.len()).find(|idx| clock.due(chunk.at(*idx), now) > now);
                    return Some(Slice::new(&chunk, next..later.unwrap_or(chunk.len())));
                }
                due
            };
            tokio::select! {
                () = sleep_until(due) => {}
                Ok(()) = cut.changed() => {}
                Some(newcomer) = self.newcomers.recv() => self.welcome(newcomer),
            }
        }
    }

    /// Gives envelopes to everybody who is there now; who comes meanwhile gets what comes next.
    async fn give(&mut self, slice: Slice) {
        let n_clients = self.n_clients();
        self.is_giving = true;
        for client in 0..n_clients {
            self.wait_for_room(client, &slice).await;
        }
        self.is_giving = false;
        let (now, bytes) = (Instant::now(), slice.framed().len());
        let strict = !matches!(self.pacing, Pacing::Max);
        let mut n_given = 0;
        for client in &self.clients[..n_clients] {
            if client.push(slice.clone(), bytes, now, strict) {
                n_given += 1;
            } else if client.was_given_up() {
                self.tally.too_slow.fetch_add(1, Relaxed);
            }
        }
        // Without clients there is a pause at full speed, so that is played again.
        if n_given > 0 || strict {
            self.tally.played.fetch_add(slice.len() as u64, Relaxed);
            if let Some((_, next)) = &mut self.current {
                *next += slice.len();
            }
        }
    }

    async fn wait_for_room(&mut self, client: usize, slice: &Slice) {
        let client = Arc::clone(&self.clients[client]);
        let is_late = match &self.pacing {
            Pacing::Max => None,
            Pacing::Clock { clock, .. } => {
                let now = Instant::now();
                let due = lock(clock).due(slice.at(), now);
                Some(now.saturating_duration_since(due) >= CATCHING_UP)
            }
        };
        loop {
            let room = async {
                match is_late {
                    None => client.room().await,
                    Some(is_late) => client.room_within_patience(is_late).await,
                }
            };
            tokio::select! {
                biased;
                () = room => return,
                Some(newcomer) = self.newcomers.recv() => self.welcome(newcomer),
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
