//! The queue from the connections to the writer: bounded by bytes, in one order for all.
//!
//! A mutex and a vector that the writer takes as a whole: under load the writer is never woken for a single message,
//! and neither side allocates. The writer waits for it as a thread ([`Queue::take`]) or as a task ([`Queue::taken`]).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

use super::Writing;
use crate::archive::{Closed, Hole, Leaf, Opened, PenError};
use crate::model::{Body, Cause, Decoded, UnixMicros, Via};
use crate::provider::Scope;

/// What an item costs besides its bytes: itself, and roughly what was decoded from it.
const ITEM_BYTES: usize = 512;

/// Room beyond the bound for facts, which are never dropped.
const FACT_BYTES: usize = 4 << 20;

/// Items that wake a lingering writer.
const MANY: usize = 512;

/// One entry of the queue.
#[derive(Debug)]
pub(super) struct Entry {
    /// Which connection, counted over all sources.
    pub(super) slot: u32,
    /// When it reached us.
    pub(super) at: UnixMicros,
    /// The same on the monotonic clock.
    pub(super) arrived: Instant,
    pub(super) item: Item,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Item {
    /// An envelope.
    Frame {
        bytes: Bytes,
        decoded: Arc<Decoded>,
        via: Via,
        /// That a key was taken out of it.
        info: Option<String>,
    },
    /// What came of an envelope before its connection broke.
    Broken {
        bytes: Bytes,
        decoded: Arc<Decoded>,
        via: Via,
        info: String,
    },
    Opened(Box<Opened>),
    Closed(Box<Closed>),
    /// A message of ours.
    Sent(String),
    /// A request and its answer.
    Http {
        info: String,
        body: Bytes,
    },
    /// Proof of life that is no envelope.
    Alive(&'static str),
    Lost {
        scope: String,
        cause: Cause,
        detail: String,
    },
    Live {
        scope: String,
    },
    /// A topic is no longer wanted.
    Dropped {
        scope: String,
    },
    /// What selects the source's stream, all of it.
    Scopes {
        all: Vec<Scope>,
    },
    /// The machine slept; the connection is given up.
    Slept {
        detail: String,
    },
    ClockStep {
        step_us: i64,
    },
    /// Envelopes were dropped from `since` on.
    Overflow {
        since: UnixMicros,
        envelopes: u64,
        bytes: u64,
    },
    /// A page of history and the step of its gap; whoever asked for it is told when it is durable. Of no connection.
    Leaf(Box<Leaf>, oneshot::Sender<Result<(), PenError>>),
    /// What came by webhook; whoever brought it is told when it is durable. Of no connection.
    Delivery(Box<Delivered>, oneshot::Sender<Result<(), PenError>>),
    /// Records that were found lost in a sealed segment. Of no connection.
    Hole(Box<Hole>, oneshot::Sender<Result<(), PenError>>),
}

/// An envelope that came by webhook.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) bytes: Bytes,
    pub(super) decoded: Decoded,
    /// That a key was taken out of it.
    pub(super) info: Option<String>,
}

impl Item {
    /// The bytes of an envelope.
    fn envelope(&self) -> Option<&Bytes> {
        match self {
            Self::Frame { bytes, .. } | Self::Broken { bytes, .. } => Some(bytes),
            Self::Delivery(delivered, _) => Some(&delivered.bytes),
            _ => None,
        }
    }

    /// How many those are; 0 where it is none.
    pub(super) fn envelope_bytes(&self) -> u64 {
        self.envelope().map_or(0, |bytes| bytes.len() as u64)
    }

    /// Whether a connection saw it, and not a filler, a scrubber or a provider's webhook.
    pub(super) fn is_of_connection(&self) -> bool {
        !matches!(self, Self::Leaf(..) | Self::Hole(..) | Self::Delivery(..))
    }

    fn cost(&self) -> usize {
        let bytes = match self {
            Self::Http { body, .. } => body.len(),
            Self::Sent(text) => text.len(),
            Self::Leaf(leaf, _) => match leaf.page.as_ref().map(|(draft, _)| &draft.body) {
                Some(Body::Bytes(bytes)) => bytes.len(),
                _ => 0,
            },
            Self::Scopes { all } => all.iter().map(|scope| scope.id.len() + scope.text.as_ref().map_or(0, String::len)).sum(),
            other => other.envelope().map_or(0, Bytes::len),
        };
        bytes + ITEM_BYTES
    }
}

/// What became of an offer.
#[derive(Debug)]
pub(super) enum Offer {
    Taken,
    /// No room; here it is again.
    Full(Entry),
    /// The writer has ended.
    Gone,
}

/// What the writer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Entries,
    /// The deadline came first.
    Late,
    /// Closed and empty.
    Ended,
}

/// The writer has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bell: Bell,
    room: Notify,
    bytes_max: usize,
}

/// What wakes the writer.
#[derive(Debug)]
enum Bell {
    Thread(Condvar),
    Task(Notify),
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Bytes of what is queued, and of what the writer has taken and not yet worked through.
    used: usize,
    taken: usize,
    /// The writer sleeps until something comes.
    idle: bool,
    /// The writer sleeps until much has come.
    lingers: bool,
    closed: Option<String>,
    gone: bool,
    /// Envelopes that were ever queued, and their bytes, by connection.
    envelopes: Vec<(u64, u64)>,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, writing: Writing) -> Self {
        let bell = match writing {
            Writing::Thread => Bell::Thread(Condvar::new()),
            Writing::Task => Bell::Task(Notify::new()),
        };
        Self { state: Mutex::default(), bell, room: Notify::new(), bytes_max }
    }

    fn ring(&self) {
        match &self.bell {
            Bell::Thread(ready) => ready.notify_one(),
            Bell::Task(ready) => ready.notify_one(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an envelope if there is room; one that is larger than the bound fits into an empty queue.
    pub(super) fn offer(&self, entry: Entry) -> Offer {
        self.offer_below(entry, self.bytes_max)
    }

    fn offer_below(&self, entry: Entry, bytes_max: usize) -> Offer {
        let cost = entry.item.cost();
        let state = self.state();
        if state.gone {
            return Offer::Gone;
        }
        if state.used > 0 && state.used + cost > bytes_max {
            return Offer::Full(entry);
        }
        self.put(state, entry, cost);
        Offer::Taken
    }

    /// Waits until there is room.
    pub(super) async fn push(&self, entry: Entry) -> Result<(), Gone> {
        self.push_below(entry, self.bytes_max).await
    }

    /// Takes a fact: it may use room beyond the bound, and waits when even that is used up.
    pub(super) async fn push_fact(&self, entry: Entry) -> Result<(), Gone> {
        self.push_below(entry, self.bytes_max.saturating_add(FACT_BYTES)).await
    }

    /// Takes what can wait: half of the room stays free for what comes live.
    pub(super) async fn push_behind(&self, entry: Entry) -> Result<(), Gone> {
        self.push_below(entry, self.bytes_max / 2).await
    }

    async fn push_below(&self, mut entry: Entry, bytes_max: usize) -> Result<(), Gone> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            match self.offer_below(entry, bytes_max) {
                Offer::Taken => return Ok(()),
                Offer::Gone => return Err(Gone),
                Offer::Full(again) => entry = again,
            }
            room.await;
        }
    }

    /// Takes a fact whatever the bound says: for the one count a connection leaves when it is cut off.
    pub(super) fn force(&self, entry: Entry) {
        let cost = entry.item.cost();
        let state = self.state();
        if !state.gone {
            self.put(state, entry, cost);
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State>, entry: Entry, cost: usize) {
        state.used += cost;
        if let Some(bytes) = entry.item.envelope() {
            state.count(entry.slot as usize, bytes.len() as u64);
        }
        state.entries.push(entry);
        let much = || state.entries.len() >= MANY || state.used > self.bytes_max / 4;
        let wake = state.idle || (state.lingers && much());
        if wake {
            (state.idle, state.lingers) = (false, false);
        }
        drop(state);
        if wake {
            self.ring();
        }
    }

    /// Whether enough room is free again that dropping may end.
    pub(super) fn is_half_empty(&self) -> bool {
        let state = self.state();
        state.gone || state.used <= self.bytes_max / 2
    }

    /// Nothing more will come.
    pub(super) fn close(&self, reason: &str) {
        self.state().closed.get_or_insert_with(|| reason.to_owned());
        self.ring();
    }

    /// Waits so long without taking anything; whether it was closed meanwhile. For the writer's thread.
    ///
    /// # Panics
    /// When the queue was made for a task.
    pub(super) fn closes_within(&self, wait: Duration) -> bool {
        let Bell::Thread(ready) = &self.bell else { panic!("this queue wakes a task") };
        let waited = ready.wait_timeout_while(self.state(), wait, |state| state.closed.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.closed.is_some()
    }

    /// The same for a task.
    ///
    /// # Panics
    /// When the queue was made for a thread.
    pub(super) async fn closed_within(&self, wait: Duration) -> bool {
        let Bell::Task(ready) = &self.bell else { panic!("this queue wakes a thread") };
        let closed = async {
            while self.state().closed.is_none() {
                ready.notified().await;
            }
        };
        tokio::time::timeout(wait, closed).await.is_ok()
    }

    /// Whether nothing more will come.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed.is_some()
    }

    /// Envelopes that were ever queued by these connections, and their bytes.
    pub(super) fn envelopes(&self, slots: std::ops::Range<usize>) -> (u64, u64) {
        let state = self.state();
        let of_slots = slots.filter_map(|slot| state.envelopes.get(slot));
        of_slots.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Why it was closed.
    pub(super) fn reason(&self) -> String {
        self.state().closed.clone().unwrap_or_default()
    }

    /// The writer has ended: whoever offers hears so.
    pub(super) fn break_off(&self) {
        let mut state = self.state();
        state.gone = true;
        state.entries = Vec::new();
        drop(state);
        self.room.notify_waiters();
    }

    /// Takes everything that is queued, after waiting for the first entry until `until` and then up to `linger` for
    /// more; what was taken before counts as worked through. For the writer's thread.
    ///
    /// # Panics
    /// When the queue was made for a task.
    pub(super) fn take(
        &self,
        out: &mut Vec<Entry>,
        until: Option<Instant>,
        now: impl Fn() -> Instant,
        linger: Duration,
    ) -> Taken {
        let Bell::Thread(ready) = &self.bell else { panic!("this queue wakes a task") };
        self.worked_through(out);
        let mut state = self.state();
        while state.entries.is_empty() {
            if state.closed.is_some() {
                return Taken::Ended;
            }
            state.idle = true;
            state = match until.map(|until| until.saturating_duration_since(now())) {
                Some(Duration::ZERO) => {
                    state.idle = false;
                    return Taken::Late;
                }
                Some(wait) => ready.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.idle = false;
        let much = |state: &State| state.entries.len() >= MANY || state.used > self.bytes_max / 4 || state.closed.is_some();
        if !linger.is_zero() && !much(&state) {
            state.lingers = true;
            let waited = ready.wait_timeout_while(state, linger, |state| !much(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.lingers = false;
        }
        state.hand_over(out)
    }

    /// The same for a task, which never lingers: on a runtime, what comes at one instant is there at one look.
    ///
    /// # Panics
    /// When the queue was made for a thread.
    pub(super) async fn taken(&self, out: &mut Vec<Entry>, until: Option<tokio::time::Instant>) -> Taken {
        let Bell::Task(ready) = &self.bell else { panic!("this queue wakes a thread") };
        self.worked_through(out);
        loop {
            {
                let mut state = self.state();
                state.idle = state.entries.is_empty();
                if !state.idle {
                    return state.hand_over(out);
                }
                if state.closed.is_some() {
                    return Taken::Ended;
                }
            }
            let Some(until) = until else {
                ready.notified().await;
                continue;
            };
            if timeout_at(until, ready.notified()).await.is_err() && self.state().entries.is_empty() {
                return Taken::Late;
            }
        }
    }

    fn worked_through(&self, out: &mut Vec<Entry>) {
        out.clear();
        let mut state = self.state();
        state.used -= state.taken;
        state.taken = 0;
        drop(state);
        self.room.notify_waiters();
    }
}

impl State {
    fn count(&mut self, slot: usize, bytes: u64) {
        if self.envelopes.len() <= slot {
            self.envelopes.resize(slot + 1, (0, 0));
        }
        let counted = &mut self.envelopes[slot];
        *counted = (counted.0 + 1, counted.1 + bytes);
    }

    fn hand_over(&mut self, out: &mut Vec<Entry>) -> Taken {
        std::mem::swap(out, &mut self.entries);
        self.taken = self.used;
        Taken::Entries
    }
}
