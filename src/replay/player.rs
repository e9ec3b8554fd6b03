//! Plays one provider's envelopes to its clients: when they are due, or as fast as the slowest client takes them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::chunk::{Chunk, Slice};
use super::clock::{Due, Timeline};
use super::feed::{Origin, Piece, Pieces, Remarks};
use super::happening::Happening;
use super::queue::{self, Item, Queue};
use super::{SlowClients, Speed};
use crate::model::{Provider, Response, UnixMicros};

/// Lateness from which on the player waits for every client that reads and has a full queue: nobody can take so much so fast.
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
    pub(super) injected: AtomicU64,
    /// Nothing more will come.
    pub(super) finished: AtomicBool,
    /// When what was played last was received, in microseconds.
    pub(super) played_to: AtomicI64,
    /// What the next attempts to connect are answered, as it happened.
    pub(super) refusals: Mutex<VecDeque<Response>>,
    /// Whether each of them counts for one attempt only, because the time between them does not pass.
    pub(super) refuse_once: AtomicBool,
}

pub(super) struct Player {
    pub(super) provider: Provider,
    pub(super) timeline: Timeline,
    pub(super) origin: Arc<Origin>,
    pub(super) remarks: Arc<Remarks>,
    pub(super) pieces: Pieces,
    pub(super) newcomers: mpsc::Receiver<Newcomer>,
    pub(super) tally: Arc<Tally>,
    /// Told when the last envelope was played.
    pub(super) changed: watch::Sender<u64>,
    /// Clients to wait for before the first envelope; 0 begins at once.
    pub(super) wait_for_clients: usize,
    pub(super) slow_clients: Option<SlowClients>,
    /// Where a round begins.
    pub(super) start_at: UnixMicros,
    pub(super) head: Head,
    pub(super) clients: Vec<Arc<Queue>>,
    /// What is being given is not for newcomers.
    pub(super) is_giving: bool,
    pub(super) has_begun: bool,
    /// The round of the clock this player is in.
    pub(super) epoch: u64,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Head {
    /// To be received.
    Unknown,
    /// This envelope of the chunk.
    Envelope(Arc<Chunk>, usize),
    /// Something that happened.
    Happening(UnixMicros, Happening),
    /// Nothing.
    End,
}

impl Head {
    pub(super) fn of(piece: Option<Piece>) -> Self {
        match piece {
            Some(Piece::Chunk(chunk)) => Self::Envelope(Arc::new(chunk), 0),
            Some(Piece::Happening(at, happening)) => Self::Happening(at, happening),
            None => Self::End,
        }
    }

    pub(super) fn at(&self) -> Option<UnixMicros> {
        match self {
            Self::Envelope(chunk, next) => Some(chunk.at(*next)),
            Self::Happening(at, _) => Some(*at),
            Self::Unknown | Self::End => None,
        }
    }
}

/// What to do next.
enum Next {
    Give(Slice),
    Happen,
    /// Something changed: look again.
    Again,
    /// Nobody can come any more.
    Deserted,
}

impl Player {
    /// Plays, and after the end greets those who come too late, until nobody can come any more.
    pub(super) async fn run(mut self) {
        let mut changes = self.timeline.changes();
        loop {
            changes.mark_unchanged();
            if self.timeline.with(|clock, _| clock.epoch()) != self.epoch {
                self.begin_again().await;
                continue;
            }
            match self.next(&mut changes).await {
                Next::Give(slice) => self.give(slice).await,
                Next::Happen => self.happen().await,
                Next::Again => {}
                Next::Deserted => return,
            }
        }
    }

    /// What to do now; waits where there is nothing.
    async fn next(&mut self, changes: &mut watch::Receiver<u64>) -> Next {
        if matches!(self.head, Head::Unknown) {
            tokio::select! {
                piece = self.pieces.recv() => self.head = Head::of(piece),
                newcomer = self.newcomers.recv() => return self.came(newcomer),
                _ = changes.changed() => return Next::Again,
            }
        }
        let n_clients = self.n_clients();
        if !self.has_begun && n_clients >= self.wait_for_clients {
            self.begin();
        }
        let due = self.due(n_clients);
        match due {
            Some(Due::Now) => self.take(),
            Some(Due::At(due)) => {
                tokio::select! {
                    () = sleep_until(due) => Next::Again,
                    newcomer = self.newcomers.recv() => self.came(newcomer),
                    _ = changes.changed() => Next::Again,
                }
            }
            Some(Due::Held) | None => {
                tokio::select! {
                    newcomer = self.newcomers.recv() => self.came(newcomer),
                    _ = changes.changed() => Next::Again,
                }
            }
        }
    }

    /// When what comes next is due; `None` when there is nothing.
    fn due(&mut self, n_clients: usize) -> Option<Due> {
        let at = match self.head.at() {
            Some(at) => at,
            None => {
                self.finish();
                return None;
            }
        };
        if !self.has_begun {
            return Some(Due::Held);
        }
        let is_envelope = matches!(self.head, Head::Envelope(..));
        let provider = self.provider;
        let (due, tell) = self.timeline.with(|clock, now| {
            if clock.speed() == Speed::Max && n_clients == 0 && is_envelope && !clock.is_paused() {
                // Without clients there is a pause at full speed.
                return (Due::Held, false);
            }
            match clock.due(at, now) {
                Due::Now => (Due::Now, false),
                Due::At(_) | Due::Held => {
                    let changed = clock.wait(provider, at, now);
                    let due = if clock.may_step(provider) { Due::Now } else { clock.due(at, now) };
                    (due, changed)
                }
            }
        });
        if tell {
            self.timeline.tell();
        }
        Some(due)
    }

    /// Takes what is due off the head: all envelopes that are, or one if the clock is held.
    fn take(&mut self) -> Next {
        let Head::Envelope(chunk, next) = &self.head else { return Next::Happen };
        let (chunk, next) = (Arc::clone(chunk), *next);
        let provider = self.provider;
        let (end, steps) = self.timeline.with(|clock, now| {
            let end = if clock.is_paused() {
                next + 1
            } else if clock.speed() == Speed::Max {
                chunk.len()
            } else {
                (next + 1..chunk.len()).find(|idx| clock.due(chunk.at(*idx), now) != Due::Now).unwrap_or(chunk.len())
            };
            let steps = clock.is_paused();
            clock.play(provider, chunk.at(end - 1));
            (end, steps)
        });
        if steps {
            self.timeline.tell();
        }
        Next::Give(Slice::new(&chunk, next..end))
    }

    fn begin(&mut self) {
        self.has_begun = true;
        let provider = self.provider;
        let has_feed = self.head.at().is_some();
        self.timeline.change(|clock, now| {
            if has_feed {
                clock.begin(provider);
            }
            clock.start(now);
        });
    }

    fn n_clients(&mut self) -> usize {
        self.clients.retain(|client| !client.is_gone());
        self.clients.len()
    }

    fn came(&mut self, newcomer: Option<Newcomer>) -> Next {
        match newcomer {
            Some(newcomer) => {
                self.welcome(newcomer);
                Next::Again
            }
            None => Next::Deserted,
        }
    }

    fn welcome(&mut self, newcomer: Newcomer) {
        let begun = self.is_giving || self.tally.played.load(Relaxed) > 0;
        // Where it is long in coming, a client must not wait for what opens a connection.
        let comes_now = |at: UnixMicros| !begun && self.timeline.with(|clock, now| clock.is_near(at, now));
        let first = match &self.head {
            Head::Envelope(chunk, idx) if comes_now(chunk.at(*idx)) => Some(chunk.body(*idx)),
            _ => None,
        };
        // Who left before the answer came is noticed at the next look at the queues.
        if newcomer.first.send(first).is_ok() {
            self.clients.push(newcomer.queue);
        }
    }

    /// Everything was played, unless another round is wanted.
    fn finish(&mut self) {
        if self.tally.finished.load(Relaxed) {
            return;
        }
        let (provider, start) = (self.provider, self.start_at);
        let has_begun = self.has_begun;
        // Others may wait for the last one that could be earlier than they are.
        if !self.timeline.change(|clock, now| has_begun && clock.finish(provider, start, now)) {
            self.tally.finished.store(true, Relaxed);
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Goes to where the clock was set.
    async fn begin_again(&mut self) {
        let (origin, remarks, provider) = (Arc::clone(&self.origin), Arc::clone(&self.remarks), self.provider);
        let (epoch, from) = self.timeline.with(|clock, now| (clock.epoch(), clock.moment(now)));
        self.epoch = epoch;
        let opened = tokio::task::spawn_blocking(move || origin.play(provider, Some(from), &remarks)).await;
        match opened {
            Ok(Ok(pieces)) => {
                self.pieces = pieces;
                self.head = Head::Unknown;
                lock(&self.tally.refusals).clear();
                self.tally.finished.store(false, Relaxed);
                self.changed.send_modify(|n| *n += 1);
            }
            Ok(Err(error)) => self.remarks.damaged(format!("{provider}: {error}")),
            Err(error) => tracing::error!(%error, "the feed broke off"),
        }
    }

    /// What happened to the connection happens again, to everybody who is there.
    async fn happen(&mut self) {
        let Head::Happening(at, happening) = std::mem::replace(&mut self.head, Head::Unknown) else { return };
        let provider = self.provider;
        let is_max = self.timeline.with(|clock, _| {
            clock.play(provider, at);
            clock.speed() == Speed::Max
        });
        self.tally.refuse_once.store(is_max, Relaxed);
        let item = match happening {
            // At full speed nobody had time to be refused: that is kept for those who come next.
            Happening::Opened if is_max => return,
            Happening::Opened => return lock(&self.tally.refusals).clear(),
            Happening::Refused(response) => return lock(&self.tally.refusals).push_back(response),
            Happening::Closed { code, reason } => Item::Close { code: code.unwrap_or(1000), reason },
            Happening::Reset => Item::Reset,
            Happening::Stalled => Item::Stall,
        };
        if !matches!(item, Item::Stall) {
            // Who comes back meets what the recorder met when it did, however soon that is.
            self.head = Head::of(self.pieces.recv().await);
            while let Head::Happening(_, Happening::Refused(response)) = &self.head {
                lock(&self.tally.refusals).push_back(response.clone());
                self.head = Head::of(self.pieces.recv().await);
            }
        }
        for client in self.clients.drain(..) {
            client.add(item.clone());
        }
    }

    /// Gives envelopes to everybody who is there now; who comes meanwhile gets what comes next.
    async fn give(&mut self, slice: Slice) {
        let n_clients = self.n_clients();
        let waits = match self.slow_clients {
            Some(SlowClients::Wait) => true,
            Some(SlowClients::Drop) => false,
            None => self.timeline.with(|clock, _| clock.speed() == Speed::Max || clock.is_paused()),
        };
        self.is_giving = true;
        if waits {
            for client in 0..n_clients {
                self.wait_for_room(client).await;
            }
        } else {
            self.wait_at_pace(n_clients, &slice).await;
        }
        self.is_giving = false;
        if self.timeline.with(|clock, _| clock.epoch()) != self.epoch {
            return;
        }
        let (now, bytes) = (Instant::now(), slice.framed().len());
        let mut n_given = 0;
        for client in &self.clients[..n_clients] {
            if client.push(slice.clone(), bytes, now, !waits) {
                n_given += 1;
            } else if client.was_given_up() {
                self.tally.too_slow.fetch_add(1, Relaxed);
            }
        }
        // At full speed what nobody got is played again.
        if n_given > 0 || self.timeline.with(|clock, _| clock.speed() != Speed::Max || clock.is_paused()) {
            self.tally.played.fetch_add(slice.len() as u64, Relaxed);
            self.tally.played_to.fetch_max(slice.last_at().0, Relaxed);
            let passed = match &mut self.head {
                Head::Envelope(chunk, next) => {
                    *next += slice.len();
                    *next >= chunk.len()
                }
                _ => false,
            };
            if passed {
                self.head = Head::Unknown;
            }
        }
    }

    async fn wait_for_room(&mut self, client: usize) {
        let client = Arc::clone(&self.clients[client]);
        while !client.has_room() {
            tokio::select! {
                biased;
                () = client.emptied() => {}
                Some(newcomer) = self.newcomers.recv() => self.welcome(newcomer),
            }
        }
    }

    async fn wait_at_pace(&mut self, n_clients: usize, slice: &Slice) {
        let is_late = self.timeline.with(|clock, now| clock.lateness(slice.at(), now) >= CATCHING_UP);
        while let Some((clients, until)) = queue::waits_for(&self.clients[..n_clients], is_late, Instant::now()) {
            let emptied = select_all(clients.iter().map(|client| client.emptied().boxed())).map(drop);
            tokio::select! {
                biased;
                () = emptied => {}
                () = sleep_until(until) => {}
                Some(newcomer) = self.newcomers.recv() => self.welcome(newcomer),
            }
        }
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tokio::task::JoinHandle;
    use tokio::time::{advance, sleep};

    use super::super::Feed;
    use super::super::chunk::Filling;
    use super::super::clock::Clock;
    use super::*;
    use crate::archive::RealDisk;

    const PROVIDER: Provider = Provider::Tweetstream;
    const SLICES: u32 = 80;
    const SLICE_BYTES: usize = 100;
    const LIMIT: usize = 200;

    /// A player of slices that are `apart`, its clients, and what one of them got that takes `each` so long for one.
    struct Played {
        begun: Instant,
        others: Vec<Arc<Queue>>,
        tally: Arc<Tally>,
        reader: JoinHandle<u32>,
        _newcomers: mpsc::Sender<Newcomer>,
    }

    /// The time stands still as long as somebody has something to do, so whatever passes was waited for.
    async fn play(others: usize, late: Duration, apart: Duration, each: Duration) -> Played {
        let mut clock = Clock::new(UnixMicros(0), Speed::Times(1.0), None);
        clock.start(Instant::now());
        advance(late).await;
        let begun = Instant::now();
        let (pieces, received) = mpsc::channel(SLICES as usize);
        for nth in 0..SLICES {
            let at = UnixMicros((late / 2 + apart * nth).as_micros().try_into().unwrap());
            let mut filling = Filling::new(PROVIDER);
            filling.push(at, &[b'x'; SLICE_BYTES - 2]);
            pieces.send(Piece::Chunk(filling.take())).await.unwrap();
        }
        let (newcomers, receiver) = mpsc::channel(others + 1);
        let tally = Arc::new(Tally::default());
        let clients: Vec<_> = (0..=others).map(|_| Arc::new(Queue::new(LIMIT))).collect();
        let feed = Feed::Lines { envelopes: Vec::new() };
        let player = Player {
            provider: PROVIDER,
            timeline: Timeline::new(clock),
            origin: Arc::new(Origin::open(feed, Arc::new(RealDisk), &[], false).unwrap()),
            remarks: Arc::default(),
            pieces: received,
            newcomers: receiver,
            tally: Arc::clone(&tally),
            changed: watch::channel(0).0,
            wait_for_clients: 0,
            slow_clients: None,
            start_at: UnixMicros(0),
            head: Head::Unknown,
            clients: clients.clone(),
            is_giving: false,
            has_begun: false,
            epoch: 0,
        };
        tokio::spawn(player.run());
        let (good, others) = clients.split_last().unwrap();
        let good = Arc::clone(good);
        let reader = tokio::spawn(async move { take(&good, each).await });
        Played { begun, others: others.to_vec(), tally, reader, _newcomers: newcomers }
    }

    /// Takes everything, one slice after the other; gives how many there were.
    async fn take(queue: &Queue, each: Duration) -> u32 {
        let mut n = 0;
        while n < SLICES {
            tokio::select! {
                biased;
                () = queue.given_up() => break,
                _ = queue.next() => {}
            }
            if !each.is_zero() {
                sleep(each).await;
            }
            queue.sent(SLICE_BYTES, Instant::now());
            n += 1;
        }
        n
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_clients_that_read_nothing() {
        let ms = Duration::from_millis;
        // All at once, on time and long overdue; and one after the other.
        for (late, apart) in [(ms(0), ms(0)), (ms(1_000), ms(0)), (ms(0), ms(5))] {
            let played = play(100, late, apart, ms(0)).await;
            assert_eq!(played.reader.await.unwrap(), SLICES);
            let waited = played.begun.elapsed().saturating_sub(apart * (SLICES - 1));
            // Timers go by the millisecond.
            assert!(waited <= ms(1), "{late:?}, {apart:?}: {waited:?}");
            assert!(played.others.iter().all(|other| !other.is_gone()), "they have their time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_read_slowly_are_waited_for() {
        let ms = Duration::from_millis;
        // In all it takes much longer than a full queue is borne with.
        let played = play(1, ms(1_000), ms(0), ms(30)).await;
        let n = take(&played.others[0], ms(300)).await;
        assert_eq!((n, played.reader.await.unwrap(), played.tally.too_slow.load(Relaxed)), (SLICES, SLICES, 0));
        assert!(played.begun.elapsed() >= ms(300) * SLICES);
    }
}
