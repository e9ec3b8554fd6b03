//! The virtual clock: which moment of the recording is due when. Time is handed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Provider, UnixMicros};

/// How long from now is as good as never: what is due later is waited for in steps of this.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `R = R0 + (S - S0) / rate`: one anchor for all providers, from which every moment is computed anew, so that
/// nothing adds up to a drift.
#[derive(Debug)]
pub(super) struct Clock {
    /// S0.
    from: UnixMicros,
    rate: f64,
    idle_cap: Option<Duration>,
    /// R0, once the first client has subscribed.
    started: Option<Instant>,
    /// Real time cut out of pauses longer than the cap.
    cut: Duration,
    players: [Standing; 4],
}

/// What a player is doing, for the cap on idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not begun, or finished.
    Absent,
    /// Plays or looks for what comes next.
    Busy,
    /// Waits for that moment of the recording.
    Waits(UnixMicros),
}

impl Clock {
    /// A clock at rest on `from`.
    pub(super) fn new(from: UnixMicros, rate: f64, idle_cap: Option<Duration>) -> Self {
        Self { from, rate, idle_cap, started: None, cut: Duration::ZERO, players: [Standing::Absent; 4] }
    }

    /// A player begins; the first one starts the clock.
    pub(super) fn start(&mut self, who: Provider, now: Instant) {
        self.started.get_or_insert(now);
        self.players[who as usize] = Standing::Busy;
    }

    /// A player plays what it waited for.
    pub(super) fn play(&mut self, who: Provider) {
        self.players[who as usize] = Standing::Busy;
    }

    /// A player has nothing more to play.
    pub(super) fn finish(&mut self, who: Provider) {
        self.players[who as usize] = Standing::Absent;
    }

    /// When that moment is due; a moment before the start is due at the start.
    pub(super) fn due(&self, at: UnixMicros, now: Instant) -> Instant {
        let started = self.started.unwrap_or(now);
        let micros = at.0.saturating_sub(self.from.0).max(0) as f64 / self.rate;
        let after = Duration::try_from_secs_f64(micros / 1e6).unwrap_or(NEVER).min(NEVER);
        started + after.saturating_sub(self.cut)
    }

    /// A player waits for that moment. Whether time was cut, so that all waiting players must ask again.
    ///
    /// Only when every player waits is it known that nothing will happen before the earliest of their moments.
    pub(super) fn wait(&mut self, who: Provider, at: UnixMicros, now: Instant) -> bool {
        self.players[who as usize] = Standing::Waits(at);
        let Some(cap) = self.idle_cap else { return false };
        let mut earliest = at;
        for player in self.players {
            match player {
                Standing::Busy => return false,
                Standing::Absent => {}
                Standing::Waits(other) => earliest = earliest.min(other),
            }
        }
        let too_long = self.due(earliest, now).saturating_duration_since(now + cap);
        self.cut += too_long;
        !too_long.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMicros = UnixMicros(1_767_614_400_000_000);

    fn at(ms: i64) -> UnixMicros {
        UnixMicros(START.0 + ms * 1_000)
    }

    #[test]
    fn is_due_by_one_anchor_at_any_rate() {
        let now = Instant::now();
        for (rate, ms, due_us) in [
            (1.0, 0, 0),
            (1.0, -5_000, 0),
            (1.0, 1_500, 1_500_000),
            (10.0, 1_500, 150_000),
            (100.0, 86_400_000, 864_000_000),
            (1_000.0, 1, 1),
            (0.5, 1_500, 3_000_000),
        ] {
            let mut clock = Clock::new(START, rate, None);
            clock.start(Provider::XLive, now);
            // Who comes later changes nothing.
            clock.start(Provider::Tweetstream, now + Duration::from_secs(9));
            assert_eq!(clock.due(at(ms), now), now + Duration::from_micros(due_us), "{ms} ms at {rate}");
        }
        let mut slow = Clock::new(START, 1e-12, None);
        slow.start(Provider::XLive, now);
        assert_eq!(slow.due(UnixMicros(i64::MAX), now), now + NEVER);
    }

    #[test]
    fn does_not_drift() {
        let now = Instant::now();
        let mut clock = Clock::new(START, 3.0, None);
        clock.start(Provider::XLive, now);
        // A year in steps of a third of a millisecond each: the last is as exact as the first.
        for step in [1, 1_000, 1_000_000, 94_608_000_000_i64] {
            let due = clock.due(UnixMicros(START.0 + step * 1_000), now).duration_since(now);
            let wanted = step as f64 / 3_000.0;
            assert!((due.as_secs_f64() - wanted).abs() < 1e-6, "{step}: {due:?}");
        }
    }

    #[test]
    fn cuts_a_pause_only_when_all_wait() {
        let now = Instant::now();
        let mut clock = Clock::new(START, 1.0, Some(Duration::from_secs(2)));
        let (one, two) = (Provider::TwitterapiIo, Provider::XLive);
        clock.start(one, now);
        clock.start(two, now);
        assert!(!clock.wait(one, at(60_000), now), "the other may play earlier");
        assert!(!clock.wait(two, at(1_000), now), "not long");
        clock.play(two);
        assert!(clock.wait(two, at(100_000), now + Duration::from_secs(1)));
        assert_eq!(clock.due(at(60_000), now), now + Duration::from_secs(3), "two seconds from the last thing played");
        assert_eq!(clock.due(at(100_000), now), now + Duration::from_secs(43), "distances behind it stay");
        clock.finish(one);
        assert!(clock.wait(two, at(100_000), now + Duration::from_secs(3)));
        assert_eq!(clock.due(at(100_000), now), now + Duration::from_secs(5));
    }
}
