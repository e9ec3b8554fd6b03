//! What waits for one client: shared slices, counted in bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::chunk::Slice;

/// How long a client may have a full queue at a given pace before it is sent away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a full queue is waited for whose client takes nothing at all.
const STUCK: Duration = Duration::from_secs(1);

/// How much further than full a queue may go within that time. All clients share the same bytes, so a
/// provider's clients together hold little more than the slowest of them.
const OVERFULL: usize = 16;

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
    /// When the client last took something.
    taken_at: Option<Instant>,
    /// The connection has ended.
    gone: bool,
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
        // A single envelope may be larger than any bound.
        let overfull = state.bytes > self.overfull() && state.items.len() > 1;
        if strict && (too_long || overfull) {
            state.gone = true;
            state.items.clear();
            drop(state);
            self.given_up.notify_one();
            return false;
        }
        state.items.push_back(Item::Slice(slice));
        state.bytes += bytes;
        if state.bytes >= self.limit {
            state.full_since.get_or_insert(now);
        }
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
        if state.bytes < self.limit {
            state.full_since = None;
        }
        let is_empty = state.bytes == 0;
        drop(state);
        self.emptied.notify_one();
        is_empty
    }

    fn overfull(&self) -> usize {
        self.limit.saturating_mul(OVERFULL)
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

    /// Waits until the queue is not full, or the client has gone.
    pub(super) async fn room(&self) {
        while self.waits_until(self.limit).is_some() {
            self.emptied.notified().await;
        }
    }

    /// As [`room`](Self::room), but only as long as there is hope. Unless what is played is late already, a queue
    /// may go further than full before it is waited for, so that a slow client slows nobody else.
    pub(super) async fn room_within_patience(&self, is_late: bool) {
        let limit = if is_late { self.limit } else { self.overfull() };
        while let Some(until) = self.waits_until(limit) {
            if timeout_at(until, self.emptied.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Until when a queue that holds more than `limit` is waited for; `None` if it need not be.
    fn waits_until(&self, limit: usize) -> Option<Instant> {
        let state = self.state();
        if state.gone || state.bytes < limit {
            return None;
        }
        let full_since = state.full_since?;
        let moved_at = state.taken_at.map_or(full_since, |taken_at| taken_at.max(full_since));
        Some((moved_at + STUCK).min(full_since + PATIENCE))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        assert!(queue.push(slice(), 6, now, true) && queue.room().now_or_never().is_some());
        assert!(queue.push(slice(), 6, now, true) && queue.room().now_or_never().is_none());
        assert!(matches!(queue.next().now_or_never(), Some(Item::Slice(_))));
        assert!(queue.room().now_or_never().is_none(), "what is being sent still counts");
        assert!(!queue.sent(6, now) && queue.room().now_or_never().is_some());
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
            (81, Duration::ZERO, true, false),
            (80, Duration::ZERO, true, true),
        ] {
            let queue = Queue::new(10);
            assert!(queue.push(slice(), bytes, now, strict) && queue.push(slice(), bytes, now, strict));
            assert_eq!(queue.push(slice(), 1, now + later, strict), stays, "{bytes} {later:?} {strict}");
            assert_eq!(queue.given_up().now_or_never().is_none(), stays);
            assert_eq!(queue.is_gone(), !stays);
        }
    }
}
