//! What waits for one client: shared slices, counted in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chunk::Slice;

/// How long a client may have a full queue at a given pace before it is sent away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client with a full queue may take nothing at all.
const STUCK: Duration = Duration::from_secs(1);

/// How much further than full a queue may go before that matters. All clients share the same bytes, so a
/// provider's clients together hold little more than the slowest of them.
const OVERFULL: usize = 16;

/// How far it may go whatever the time: nobody waits for a client that takes nothing, so this bounds what it costs.
const BURSTING: usize = 48;

/// Something for the client.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// Envelopes of the feed.
    Slice(Slice),
    /// A message of the fake peer's own.
    Message(Bytes),
    /// The fake peer closes.
    Close {
        /// WebSocket close code.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// The connection breaks off.
    Reset,
    /// Nothing is sent any more, and nothing answered.
    Stall,
}

/// Filled by the player, emptied by the client's connection.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    limit: usize,
    filled: Notify,
    emptied: Notify,
    given_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Of slices that wait or are being sent.
    bytes: usize,
    full_since: Option<Instant>,
    /// When the client last took something, if it did since then.
    taken_at: Option<Instant>,
    /// The connection has ended.
    gone: bool,
}

impl State {
    /// Until when a client with a full queue may yet turn out to be one that reads.
    fn hope(&self) -> Option<Instant> {
        let full_since = self.full_since?;
        Some((self.taken_at.unwrap_or(full_since) + STUCK).min(full_since + PATIENCE))
    }

    /// Notes since when the queue is full, or that it no longer is.
    fn note_fullness(&mut self, limit: usize, now: Instant) {
        if self.bytes < limit {
            self.full_since = None;
        } else if self.full_since.is_none() {
            self.full_since = Some(now);
            self.taken_at = None;
        }
    }
}

/// How a client stands at a given pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// There is room.
    Room,
    /// Its queue goes too far, and it has taken something since it is full: worth to be waited for until then.
    Reading(Instant),
    /// It has taken nothing since, or not for long. Only where nobody has room is it waited for, until then.
    Idle(Instant),
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit: limit.max(1),
            filled: Notify::new(),
            emptied: Notify::new(),
            given_up: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds envelopes, whether there is room or not. `false` when the client is to be sent away for its slowness,
    /// or has gone.
    pub(super) fn push(&self, slice: Slice, bytes: usize, now: Instant, strict: bool) -> bool {
        let mut state = self.state();
        if state.gone {
            return false;
        }
        let too_long = state.full_since.is_some_and(|since| now.saturating_duration_since(since) > PATIENCE);
        let is_stuck = state.hope().is_some_and(|until| now >= until);
        // A single envelope may be larger than any bound.
        let overfull = state.items.len() > 1 && state.bytes > self.times(if is_stuck { OVERFULL } else { BURSTING });
        if strict && (too_long || overfull) {
            state.gone = true;
            drop(state);
            self.given_up.notify_one();
            return false;
        }
        state.items.push_back(Item::Slice(slice));
        state.bytes += bytes;
        state.note_fullness(self.limit, now);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Adds something that is no envelope of the feed.
    pub(super) fn add(&self, item: Item) {
        self.state().items.push_back(item);
        self.filled.notify_one();
    }

    /// Forgets the envelopes that wait: what is played goes on somewhere else.
    pub(super) fn clear(&self, size: impl Fn(&Slice) -> usize) {
        let mut state = self.state();
        let waiting: usize = state.items.iter().map(|item| if let Item::Slice(slice) = item { size(slice) } else { 0 }).sum();
        state.items.retain(|item| !matches!(item, Item::Slice(_)));
        state.bytes = state.bytes.saturating_sub(waiting);
        if state.bytes < self.limit {
            state.full_since = None;
        }
        drop(state);
        self.emptied.notify_one();
    }

    /// Waits for the next item. May be dropped while it waits.
    pub(super) async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.state().items.pop_front() {
                return item;
            }
            self.filled.notified().await;
        }
    }

    /// A slice of so many bytes was sent. Whether nothing is left.
    pub(super) fn sent(&self, bytes: usize, now: Instant) -> bool {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.taken_at = Some(now);
        state.note_fullness(self.limit, now);
        let is_empty = state.bytes == 0;
        drop(state);
        self.emptied.notify_one();
        is_empty
    }

    fn times(&self, full: usize) -> usize {
        self.limit.saturating_mul(full)
    }

    /// Nothing that waits or is being sent will ever be: nobody waits for it any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.items.clear();
        state.bytes = 0;
        state.full_since = None;
        drop(state);
        self.emptied.notify_one();
    }

    /// Whether another envelope need not wait.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.gone || state.bytes < self.limit
    }

    /// Waits until the client has taken something, or has gone.
    pub(super) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// Unless what is played is late already, a queue may go further than full before it is waited for, so that a slow
    /// client slows nobody else.
    fn standing(&self, is_late: bool, now: Instant) -> Standing {
        let state = self.state();
        if state.gone {
            return Standing::Idle(now);
        }
        match state.hope() {
            Some(until) if is_late || state.bytes >= self.times(OVERFULL) => match state.taken_at {
                Some(_) if now < until => Standing::Reading(until),
                _ => Standing::Idle(until),
            },
            _ => Standing::Room,
        }
    }

    /// Whether the client was sent away.
    pub(super) fn was_given_up(&self) -> bool {
        let state = self.state();
        state.gone && state.full_since.is_some()
    }

    /// Ready when the client was too slow.
    pub(super) async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// The connection has ended.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.gone = true;
        state.items.clear();
        state.bytes = 0;
        state.full_since = None;
        drop(state);
        self.emptied.notify_one();
    }

    /// Whether the connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.state().bytes == 0
    }
}

/// Those whom a player waits for at a given pace, until any of them has taken something or that instant has come.
///
/// Whoever reads is waited for. Whoever takes nothing is not, as long as another one has room.
pub(super) fn waits_for(clients: &[Arc<Queue>], is_late: bool, now: Instant) -> Option<(&[Arc<Queue>], Instant)> {
    let (mut has_room, mut hope) = (false, now);
    for (nth, client) in clients.iter().enumerate() {
        match client.standing(is_late, now) {
            Standing::Room => has_room = true,
            Standing::Reading(until) => return Some((&clients[nth..=nth], until)),
            Standing::Idle(until) => hope = hope.max(until),
        }
    }
    (!has_room && hope > now).then_some((clients, hope))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::chunk::Filling;
    use super::*;
    use crate::model::{Provider, UnixMicros};

    fn slice() -> Slice {
        let mut filling = Filling::new(Provider::Tweetstream);
        filling.push(UnixMicros(0), b"{}");
        Slice::new(&Arc::new(filling.take()), 0..1)
    }

    #[test]
    fn is_bounded_and_says_when_there_is_room() {
        let queue = Queue::new(10);
        let now = Instant::now();
        assert!(queue.push(slice(), 6, now, true) && queue.has_room());
        assert!(queue.push(slice(), 6, now, true) && !queue.has_room());
        assert!(matches!(queue.next().now_or_never(), Some(Item::Slice(_))));
        assert!(!queue.has_room() && queue.emptied().now_or_never().is_none(), "what is being sent still counts");
        assert!(!queue.sent(6, now) && queue.has_room() && queue.emptied().now_or_never().is_some());
        queue.add(Item::Close { code: 1000, reason: String::new() });
        assert!(matches!(queue.next().now_or_never(), Some(Item::Slice(_))));
        assert!(matches!(queue.next().now_or_never(), Some(Item::Close { code: 1000, .. })));
        assert!(queue.next().now_or_never().is_none());
        assert!(queue.sent(6, now) && queue.is_empty());
    }

    #[test]
    fn gives_up_a_slow_client_at_a_given_pace_only() {
        let now = Instant::now();
        for (bytes, later, strict, stays) in [
            (5, Duration::from_secs(10), true, true),
            (5, Duration::from_secs(11), true, false),
            (5, Duration::from_secs(11), false, true),
            (81, STUCK, true, false),
            (80, STUCK, true, true),
            (81, Duration::ZERO, true, true),
            (240, Duration::ZERO, true, true),
            (241, Duration::ZERO, true, false),
            (241, Duration::ZERO, false, true),
        ] {
            let queue = Queue::new(10);
            assert!(queue.push(slice(), bytes, now, strict) && queue.push(slice(), bytes, now, strict));
            assert_eq!(queue.push(slice(), 1, now + later, strict), stays, "{bytes} {later:?} {strict}");
            assert_eq!(queue.given_up().now_or_never().is_none(), stays);
            assert_eq!(queue.is_gone(), !stays);
        }
    }

    #[test]
    fn waits_for_those_who_read_and_for_nobody_else_while_one_has_room() {
        let (now, soon) = (Instant::now(), Instant::now() + STUCK / 2);
        let full = || {
            let queue = Arc::new(Queue::new(10));
            assert!(queue.push(slice(), 50, now, true) && queue.push(slice(), 50, now, true));
            queue
        };
        let (empty, idle, reading) = (Arc::new(Queue::new(10)), full(), full());
        reading.sent(50, now + STUCK / 4);
        let waits = |clients: &[&Arc<Queue>], is_late, now| {
            let clients: Vec<_> = clients.iter().copied().cloned().collect();
            waits_for(&clients, is_late, now).map(|(who, until)| (who.len(), until))
        };
        assert_eq!(waits(&[&idle, &empty], true, now), None, "nobody waits for whom reads nothing");
        assert_eq!(waits(&[&idle], true, now), Some((1, now + STUCK)), "without anybody else it has its time");
        assert_eq!(waits(&[&idle], true, now + STUCK), None);
        assert_eq!(waits(&[&idle], false, now), None, "on time there is more room");
        assert_eq!(waits(&[&idle, &reading, &empty], true, soon), Some((1, now + STUCK / 4 + STUCK)));
        assert_eq!(waits(&[&idle, &reading, &empty], false, soon), None);
        assert_eq!(waits(&[&empty, &reading], true, now + 2 * STUCK), None, "it reads no more");
        assert_eq!(waits(&[&idle, &full()], true, now), Some((2, now + STUCK)));
        idle.leave();
        assert_eq!(waits(&[&idle], true, now), None);
        // What was taken before the queue was full says nothing.
        let filled = Arc::new(Queue::new(10));
        assert!(filled.push(slice(), 9, now, true));
        filled.sent(9, now);
        assert!(filled.push(slice(), 90, now, true));
        assert_eq!(waits(&[&filled, &empty], true, now), None);
    }
}
