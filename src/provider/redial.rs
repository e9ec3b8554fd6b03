//! When to dial again: capped exponential back-off with jitter above a floor.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Counts attempts and draws waits; one per connection.
#[derive(Debug)]
pub struct Redial {
    floor: Duration,
    base: Duration,
    cap: Duration,
    attempts: u32,
    rng: Pcg64Mcg,
}

impl Redial {
    /// A base above the cap counts as the cap. Waits lie in `[max(floor, half the step), max(floor, step)]` with step = `min(base × 2^attempts, cap)`.
    pub fn new(floor: Duration, base: Duration, cap: Duration, seed: u64) -> Self {
        Self { floor, base: base.min(cap), cap, attempts: 0, rng: Pcg64Mcg::seed_from_u64(seed) }
    }

    /// The next wait; each call counts as one failed attempt.
    pub fn wait(&mut self) -> Duration {
        let step = self.base.saturating_mul(1 << self.attempts.min(20)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        let jittered = step.mul_f64(self.rng.random_range(0.5..=1.0));
        // Above a floor the jitter goes on top, so that many recorders do not come back in the same instant.
        self.floor + jittered.saturating_sub(self.floor).max(self.floor.mul_f64(self.rng.random_range(0.0..=0.05)))
    }

    /// The instant of the next dial.
    pub fn not_before(&mut self, now: Instant) -> Instant {
        now + self.wait()
    }

    /// A connection proved good: the next wait starts small again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Failed attempts since the last good connection.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_below_the_floor_never_far_above_the_cap() {
        let secs = Duration::from_secs;
        for seed in 0..200 {
            let mut redial = Redial::new(secs(90), secs(1), secs(600), seed);
            for _ in 0..40 {
                let wait = redial.wait();
                assert!(wait >= secs(90) && wait <= secs(605), "{wait:?}");
            }
            let mut redial = Redial::new(Duration::ZERO, secs(1), secs(30), seed);
            let first = redial.wait();
            assert!(first >= secs(1) / 2 && first <= secs(1), "{first:?}");
            (0..30).for_each(|_| assert!(redial.wait() <= secs(30)));
            redial.reset();
            assert!(redial.wait() <= secs(1));
        }
    }
}
