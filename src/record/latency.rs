//! A small histogram of durations.

use std::time::Duration;

use super::LossWindow;

/// Steps in each doubling.
const STEPS: u64 = 8;

/// Counts of durations in microseconds, in buckets that grow by an eighth of a doubling.
#[derive(Debug)]
pub(super) struct Latency {
    counts: Vec<u64>,
    n: u64,
    max: Duration,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; 64 * STEPS as usize], n: 0, max: Duration::ZERO }
    }

    pub(super) fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.n += 1;
        self.max = self.max.max(took);
    }

    pub(super) fn window(&self) -> LossWindow {
        LossWindow { commits: self.n, p50: self.below(50), p99: self.below(99), max: self.max }
    }

    /// A time that so many in a hundred did not exceed.
    fn below(&self, percent: u64) -> Duration {
        let wanted = self.n.saturating_mul(percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_micros(upper(bucket)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let doubling = u64::from(micros.ilog2());
    let step = (micros >> (doubling - 3)) & (STEPS - 1);
    ((doubling - 2) * STEPS + step) as usize
}

/// The largest number in a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (doubling, step) = (bucket / STEPS + 2, bucket % STEPS);
    // In the last bucket this would be one more than fits.
    (u128::from(STEPS + step + 1) << (doubling - 3)).min(u128::from(u64::MAX)) as u64 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_their_bucket() {
        for micros in (0..5_000).chain([u64::MAX, 1 << 40, (1 << 40) - 1]) {
            let at = bucket(micros);
            assert!(upper(at) >= micros.min(u64::MAX - 1), "{micros} in {at}");
            assert!(at == 0 || upper(at - 1) < micros, "{micros} in {at}");
        }
    }

    #[test]
    fn tells_the_middle_and_the_end() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|ms| latency.note(Duration::from_millis(ms)));
        let window = latency.window();
        assert!(window.p50 >= Duration::from_millis(500) && window.p50 <= Duration::from_millis(570), "{window:?}");
        assert!(window.p99 >= Duration::from_millis(990) && window.max == Duration::from_secs(1), "{window:?}");
        assert_eq!(Latency::new().window(), LossWindow::default());
    }
}
