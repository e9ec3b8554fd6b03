//! How fast a provider is asked: a bucket of tokens for each, which a new run finds empty.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Provider;

/// Requests that may follow each other at once after a pause.
const BURST: u32 = 3;

/// A rate, and how far it may be exceeded for a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    every: Duration,
    burst: u32,
}

impl Rate {
    /// Exactly so far apart.
    pub(super) const fn exactly(every: Duration) -> Self {
        Self { every, burst: 1 }
    }

    /// Below one each `every` where that is counted over twenty or more, as documented limits are, the burst included: two
    /// thirds of it. Requests that were on their way for a third of a second longer than others stay below it, too.
    pub(super) fn below(every: Duration) -> Self {
        Self { every: every * 3 / 2, burst: BURST }
    }
}

/// The buckets of all providers.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<BTreeMap<Provider, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full again.
    full_at: Instant,
    /// Nobody asks before.
    held_until: Instant,
}

impl Paces {
    /// Takes the next place and gives its instant.
    pub(super) fn turn(&self, provider: Provider, rate: Rate, now: Instant) -> Instant {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = rate.every * (rate.burst - 1);
        let bucket = buckets.entry(provider).or_insert(Bucket { full_at: now + depth, held_until: now });
        let at = now.max(bucket.held_until).max(bucket.full_at.checked_sub(depth).unwrap_or(now));
        bucket.full_at = bucket.full_at.max(at) + rate.every;
        at
    }

    /// The provider asked for a pause.
    pub(super) fn hold(&self, provider: Provider, until: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&provider) {
            bucket.held_until = bucket.held_until.max(until);
        }
    }

    /// When a place that was taken is really there: a pause may have come since.
    pub(super) fn held_until(&self, provider: Provider) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&provider).map(|bucket| bucket.held_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(paces: &Paces, rate: Rate, start: Instant, now_ms: u64) -> u128 {
        let at = paces.turn(Provider::Tweetstream, rate, start + Duration::from_millis(now_ms));
        at.duration_since(start).as_millis()
    }

    #[test]
    fn an_empty_bucket_fills_and_then_allows_a_burst() {
        let (paces, start) = (Paces::default(), Instant::now());
        let rate = Rate::below(Duration::from_millis(80));
        assert_eq!([0; 3].map(|at| ms(&paces, rate, start, at)), [0, 120, 240], "empty at first");
        assert_eq!([10_000; 5].map(|at| ms(&paces, rate, start, at)), [10_000, 10_000, 10_000, 10_120, 10_240]);
    }

    #[test]
    fn twenty_places_are_never_nearer_than_documented_nor_when_one_of_them_is_late() {
        let (paces, start, every) = (Paces::default(), Instant::now(), Duration::from_millis(50));
        ms(&paces, Rate::below(every), start, 0);
        let times: Vec<u128> = (0..200).map(|_| ms(&paces, Rate::below(every), start, 60_000)).collect();
        for window in times.windows(21) {
            assert!(window[20] - window[0] >= 1_000 + 300, "{window:?}");
        }
    }

    #[test]
    fn a_pause_and_an_exact_pace_are_kept() {
        let (paces, start) = (Paces::default(), Instant::now());
        let rate = Rate::exactly(Duration::from_secs(1));
        assert_eq!([0, 0, 9_000].map(|at| ms(&paces, rate, start, at)), [0, 1_000, 9_000]);
        paces.hold(Provider::Tweetstream, start + Duration::from_secs(60));
        assert_eq!([9_500, 9_500].map(|at| ms(&paces, rate, start, at)), [60_000, 61_000]);
        assert_eq!(paces.turn(Provider::XLive, rate, start), start, "every provider has its own");
    }
}
