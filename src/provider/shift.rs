//! Moving what a provider said to another time: ids, dates and stamps by one and the same delta.

use bytes::Bytes;

use super::Provider;
use crate::model::{TweetId, UnixMicros};

/// A move in time by whole milliseconds, the unit of post ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    by_ms: i64,
}

impl Shift {
    /// A move by so many milliseconds; 0 leaves every byte as it is.
    pub fn by_millis(by_ms: i64) -> Self {
        Self { by_ms }
    }

    /// By how many milliseconds.
    pub fn millis(self) -> i64 {
        self.by_ms
    }

    /// The move that undoes this one.
    #[must_use]
    pub fn back(self) -> Self {
        Self { by_ms: self.by_ms.saturating_neg() }
    }

    /// A post's id, moved; one that does not tell its time, or would leave the range, stays.
    pub fn tweet_id(self, id: TweetId) -> TweetId {
        let moved = i128::from(id.0) + (i128::from(self.by_ms) << 22);
        let moved = u64::try_from(moved).ok().map(TweetId).filter(|moved| moved.published_at().is_some());
        moved.filter(|_| id.published_at().is_some()).unwrap_or(id)
    }

    /// Where an instant is moved to.
    pub fn instant(self, at: UnixMicros) -> UnixMicros {
        UnixMicros(at.0.saturating_add(self.by_ms.saturating_mul(1_000)))
    }

    /// An envelope, moved.
    pub fn envelope(self, _provider: Provider, envelope: &Bytes) -> Bytes {
        envelope.clone()
    }
}
