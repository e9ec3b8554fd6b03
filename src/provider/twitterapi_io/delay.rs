//! How late tweets come, measured over a small window.
//!
//! Three stretches, because they have different causes: author to us on the monitored accounts' lanes, author to us
//! by rules (a poll interval lies in it), and provider to us (the network, our own queue, and both clocks' error).

use std::time::{Duration, Instant};

use crate::model::{Decoded, EventKind, UnixMicros};

/// Samples a window holds.
const WINDOW: usize = 64;

/// Samples needed before a warning: one activation burst of about 20 must not raise it.
const SAMPLES_MIN: usize = 32;

/// A tweet older than this when it came is a late delivery, an activation burst or a replay, not a measure of delay.
const FRESH: Duration = Duration::from_secs(600);

/// A warning is not repeated within this time.
const WARN_EVERY: Duration = Duration::from_secs(900);

/// Bound of the lanes of monitored accounts.
///
/// Documented: about 1.2 s on average, 99 in 100 under 2 s (twitterapi.io, "Twitter Stream", seen 2025-12-18); so a
/// median above 2 s is not what was promised.
const STREAM_BOUND: Duration = Duration::from_secs(2);

/// Bound from the provider's `timestamp` to us: our choice, far above any network's.
const TRANSIT_BOUND: Duration = Duration::from_secs(5);

/// Delays over the last fresh tweets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// From publication to us, tweets of monitored accounts (no rule).
    pub stream: Spread,
    /// From publication to us, tweets of rules.
    pub rules: Spread,
    /// From the provider's stamp to us.
    pub transit: Spread,
}

/// A window in three numbers, in milliseconds; below zero when the clocks disagree, zeros when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Samples in the window, 64 at most.
    pub n_samples: usize,
    /// Half of them are not above.
    pub median_ms: i64,
    /// None is above.
    pub max_ms: i64,
}

/// Takes the measure; a sample costs one store.
#[derive(Debug, Default)]
pub(super) struct Meter {
    stream: Ring,
    rules: Ring,
    transit: Ring,
    n_since_check: usize,
    warned_at: Option<Instant>,
}

impl Meter {
    /// Notes what a frame shows.
    pub(super) fn note(&mut self, decoded: &Decoded, received_at: UnixMicros) {
        let mut fresh = false;
        for event in decoded.events.iter().filter(|event| event.kind == EventKind::Tweet) {
            let Some(published_at) = event.published_at else { continue };
            let micros = received_at.since(published_at);
            if micros.unsigned_abs() > FRESH.as_micros() as u64 {
                continue;
            }
            fresh = true;
            let ring = if event.selector.is_empty() { &mut self.stream } else { &mut self.rules };
            ring.push(micros / 1_000);
        }
        if let (true, Some(provider_at)) = (fresh, decoded.provider_at) {
            self.transit.push(received_at.since(provider_at) / 1_000);
        }
        self.n_since_check += usize::from(fresh);
    }

    pub(super) fn delay(&self) -> Option<Delay> {
        let delay = Delay { stream: self.stream.spread(), rules: self.rules.spread(), transit: self.transit.spread() };
        (delay != Delay::default()).then_some(delay)
    }

    /// A warning when a window's median stands above its bound; looks every 16 frames.
    pub(super) fn warning(&mut self, now: Instant) -> Option<String> {
        if self.n_since_check < 16 {
            return None;
        }
        self.n_since_check = 0;
        let delay = self.delay()?;
        let lanes = [
            ("tweets of monitored accounts", delay.stream, STREAM_BOUND),
            ("tweets of rules", delay.rules, super::LATENESS_HORIZON),
            ("messages, counted from the provider's own stamp,", delay.transit, TRANSIT_BOUND),
        ];
        let late =
            |spread: &Spread, bound: Duration| spread.n_samples >= SAMPLES_MIN && spread.median_ms > bound.as_millis() as i64;
        let (what, spread, bound) = lanes.into_iter().find(|(_, spread, bound)| late(spread, *bound))?;
        let quiet = self.warned_at.is_some_and(|at| now.duration_since(at) < WARN_EVERY);
        if quiet {
            return None;
        }
        self.warned_at = Some(now);
        let (median, max, n) = (spread.median_ms, spread.max_ms, spread.n_samples);
        let bound = bound.as_millis();
        Some(format!(
            "{what} come late: median {median} ms, worst {max} ms over the last {n}, usual is under {bound} ms; recording goes on"
        ))
    }
}

#[derive(Debug)]
struct Ring {
    samples: [i64; WINDOW],
    n_pushed: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { samples: [0; WINDOW], n_pushed: 0 }
    }
}

impl Ring {
    fn push(&mut self, millis: i64) {
        self.samples[self.n_pushed % WINDOW] = millis;
        self.n_pushed += 1;
    }

    fn spread(&self) -> Spread {
        let n_samples = self.n_pushed.min(WINDOW);
        let mut sorted = self.samples;
        let sorted = &mut sorted[..n_samples];
        sorted.sort_unstable();
        let Some(&max_ms) = sorted.last() else { return Spread::default() };
        Spread { n_samples, median_ms: sorted[(n_samples - 1) / 2], max_ms }
    }
}
