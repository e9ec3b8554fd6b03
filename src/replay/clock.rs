//! The virtual clock: which moment of the recording is due when. Time is handed in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Speed;
use super::player::lock;
use crate::model::{Provider, UnixMicros};

/// What comes within this time is worth waiting for.
const NEAR: Duration = Duration::from_secs(1);

/// How long from now is as good as never: what is due later is waited for in steps of this.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `S = S0 + (R - R0) x rate`: one anchor for all providers, from which every moment is computed anew, so that
/// nothing adds up to a drift. Whatever changes the clock sets the anchor anew.
#[derive(Debug)]
pub(super) struct Clock {
    /// S0.
    from: UnixMicros,
    /// R0, while the clock runs at a given pace.
    anchor: Option<Instant>,
    speed: Speed,
    started: bool,
    paused: bool,
    idle_cap: Option<Duration>,
    players: [Standing; 4],
    /// Envelopes to play although the clock is held.
    steps: u64,
    /// How often the recording was played from another place.
    epoch: u64,
    /// Rounds still to come after this one.
    loops: u64,
    /// Whether anything was played in this round.
    played: bool,
}

/// What a player is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not begun.
    Absent,
    /// Plays or looks for what comes next.
    Busy,
    /// Waits for that moment of the recording.
    Waits(UnixMicros),
    /// Has played everything.
    Finished,
}

/// When a moment of the recording is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It has come.
    Now,
    /// Then.
    At(Instant),
    /// When the clock runs again.
    Held,
}

impl Clock {
    /// A clock that stands at `from`.
    pub(super) fn new(from: UnixMicros, speed: Speed, idle_cap: Option<Duration>) -> Self {
        Self {
            from,
            anchor: None,
            speed,
            started: false,
            paused: false,
            idle_cap,
            players: [Standing::Absent; 4],
            steps: 0,
            epoch: 0,
            loops: 0,
            played: false,
        }
    }

    /// So many rounds more when everything was played.
    pub(super) fn repeat(&mut self, rounds: u64) {
        self.loops = rounds;
    }

    /// The moment the recording stands at; at full speed that of what was last played.
    pub(super) fn moment(&self, now: Instant) -> UnixMicros {
        match (self.anchor, self.speed) {
            (Some(anchor), Speed::Times(rate)) => {
                let micros = now.saturating_duration_since(anchor).as_secs_f64() * 1e6 * rate;
                UnixMicros(self.from.0.saturating_add(micros as i64))
            }
            _ => self.from,
        }
    }

    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn loops(&self) -> u64 {
        self.loops
    }

    /// The clock may run from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = true;
        if !self.paused {
            self.anchor.get_or_insert(now);
        }
    }

    /// A player begins, or begins again somewhere else.
    pub(super) fn begin(&mut self, who: Provider) {
        self.players[who as usize] = Standing::Busy;
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.from = self.moment(now);
        self.anchor = None;
        self.paused = true;
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.steps = 0;
        if self.started {
            self.anchor.get_or_insert(now);
        }
    }

    pub(super) fn set_speed(&mut self, speed: Speed, now: Instant) {
        self.from = self.moment(now);
        self.anchor = self.anchor.map(|_| now);
        self.speed = speed;
    }

    /// Goes to another moment; every player begins again there.
    pub(super) fn seek(&mut self, to: UnixMicros, now: Instant) {
        self.from = to;
        self.anchor = self.anchor.map(|_| now);
        self.steps = 0;
        self.epoch += 1;
        self.played = false;
        for player in &mut self.players {
            if *player != Standing::Absent {
                *player = Standing::Busy;
            }
        }
    }

    /// Lets so many envelopes through while the clock is held.
    pub(super) fn step(&mut self, n: u64) {
        self.steps = self.steps.saturating_add(n);
    }

    /// A player plays what was received at that moment.
    pub(super) fn play(&mut self, who: Provider, at: UnixMicros) {
        self.players[who as usize] = Standing::Busy;
        self.played = true;
        if self.speed == Speed::Max || self.paused {
            self.from = self.from.max(at);
        }
        if self.paused {
            self.steps = self.steps.saturating_sub(1);
        }
    }

    /// A player has nothing more to play. Whether everybody has who began, and another round is wanted, which is
    /// hereby counted: the clock goes back to `start`.
    pub(super) fn finish(&mut self, who: Provider, start: UnixMicros, now: Instant) -> bool {
        self.players[who as usize] = Standing::Finished;
        let all = self.players.iter().all(|player| matches!(player, Standing::Absent | Standing::Finished));
        if !all || self.loops == 0 || !self.played {
            return false;
        }
        self.loops = if self.loops == u64::MAX { u64::MAX } else { self.loops - 1 };
        self.seek(start, now);
        true
    }

    /// When that moment is due; a moment before the start is due at the start.
    pub(super) fn due(&self, at: UnixMicros, now: Instant) -> Due {
        if self.paused || !self.started {
            return Due::Held;
        }
        match (self.speed, self.anchor) {
            (Speed::Max, _) => Due::Now,
            (Speed::Times(rate), anchor) => {
                let due = self.instant(at, anchor.unwrap_or(now), rate);
                if due <= now { Due::Now } else { Due::At(due) }
            }
        }
    }

    /// Whether that moment comes soon in real time, if the clock starts now at the latest.
    pub(super) fn is_near(&self, at: UnixMicros, now: Instant) -> bool {
        match self.speed {
            _ if self.paused => false,
            Speed::Max => true,
            Speed::Times(rate) => self.instant(at, self.anchor.unwrap_or(now), rate) <= now + NEAR,
        }
    }

    fn instant(&self, at: UnixMicros, anchor: Instant, rate: f64) -> Instant {
        let micros = at.0.saturating_sub(self.from.0).max(0) as f64 / rate;
        anchor + Duration::try_from_secs_f64(micros / 1e6).unwrap_or(NEVER).min(NEVER)
    }

    /// How late it is for something of that moment.
    pub(super) fn lateness(&self, at: UnixMicros, now: Instant) -> Duration {
        match (self.speed, self.anchor) {
            (Speed::Times(rate), Some(anchor)) => now.saturating_duration_since(self.instant(at, anchor, rate)),
            _ => Duration::ZERO,
        }
    }

    /// A player waits for that moment. Whether the clock changed, so that all waiting players must ask again.
    ///
    /// Only when every player waits is it known that nothing will happen before the earliest of their moments: then
    /// a pause longer than the cap is cut.
    pub(super) fn wait(&mut self, who: Provider, at: UnixMicros, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.players[who as usize], Standing::Waits(at));
        let Some(earliest) = self.earliest() else { return false };
        if self.paused {
            // Somebody else may be the one who may take a step.
            return self.steps > 0 && before != Standing::Waits(at);
        }
        let (Some(cap), Speed::Times(rate), Some(anchor)) = (self.idle_cap, self.speed, self.anchor) else { return false };
        let too_long = self.instant(earliest, anchor, rate).saturating_duration_since(now + cap);
        self.from = UnixMicros(self.from.0.saturating_add((too_long.as_secs_f64() * 1e6 * rate) as i64));
        !too_long.is_zero()
    }

    /// Whether the held clock lets this player play one envelope: it waits for the earliest of all.
    pub(super) fn may_step(&self, who: Provider) -> bool {
        let mine = match self.players[who as usize] {
            Standing::Waits(at) => at,
            _ => return false,
        };
        let first = self.players.iter().position(|player| *player == Standing::Waits(mine));
        self.paused && self.steps > 0 && self.earliest() == Some(mine) && first == Some(who as usize)
    }

    /// The earliest moment that is waited for, when nobody is busy.
    fn earliest(&self) -> Option<UnixMicros> {
        let mut earliest = None;
        for player in self.players {
            match player {
                Standing::Busy => return None,
                Standing::Absent | Standing::Finished => {}
                Standing::Waits(at) => earliest = Some(earliest.map_or(at, |other: UnixMicros| other.min(at))),
            }
        }
        earliest
    }
}

/// The clock that all share, and the word that it has changed.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    clock: Arc<Mutex<Clock>>,
    changes: watch::Sender<u64>,
}

impl Timeline {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock: Arc::new(Mutex::new(clock)), changes: watch::channel(0).0 }
    }

    /// Looks at the clock, or changes what concerns nobody else.
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut Clock, Instant) -> R) -> R {
        look(&mut lock(&self.clock), Instant::now())
    }

    /// Changes the clock; whoever waits by it asks again.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Clock, Instant) -> R) -> R {
        let changed = self.with(change);
        self.tell();
        changed
    }

    pub(super) fn tell(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMicros = UnixMicros(1_767_614_400_000_000);
    const ONE: Provider = Provider::TwitterapiIo;
    const TWO: Provider = Provider::XLive;

    fn at(ms: i64) -> UnixMicros {
        UnixMicros(START.0 + ms * 1_000)
    }

    fn clock(rate: f64, idle_cap: Option<u64>, now: Instant) -> Clock {
        let mut clock = Clock::new(START, Speed::Times(rate), idle_cap.map(Duration::from_secs));
        clock.start(now);
        clock
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn is_due_by_one_anchor_at_any_rate() {
        let now = Instant::now();
        for (rate, after_ms, due_us) in [
            (1.0, 0, 0),
            (1.0, -5_000, 0),
            (1.0, 1_500, 1_500_000),
            (10.0, 1_500, 150_000),
            (100.0, 86_400_000, 864_000_000),
            (1_000.0, 1, 1),
            (0.5, 1_500, 3_000_000),
        ] {
            let mut clock = clock(rate, None, now);
            // Who comes later changes nothing.
            clock.start(now + Duration::from_secs(9));
            let due = if due_us == 0 { Due::Now } else { Due::At(now + Duration::from_micros(due_us)) };
            assert_eq!(clock.due(at(after_ms), now), due, "{after_ms} ms at {rate}");
        }
        assert_eq!(clock(1e-12, None, now).due(UnixMicros(i64::MAX), now), Due::At(now + NEVER));
    }

    #[test]
    fn does_not_drift() {
        let now = Instant::now();
        let clock = clock(3.0, None, now);
        // A year in steps of a third of a millisecond each: the last is as exact as the first.
        for step in [1, 1_000, 1_000_000, 94_608_000_000_i64] {
            let Due::At(due) = clock.due(UnixMicros(START.0 + step * 1_000), now) else { panic!("not due later") };
            let wanted = step as f64 / 3_000.0;
            assert!((due.duration_since(now).as_secs_f64() - wanted).abs() < 1e-6, "{step}");
        }
    }

    #[test]
    fn cuts_a_pause_only_when_all_wait() {
        let now = Instant::now();
        let mut clock = clock(1.0, Some(2), now);
        clock.begin(ONE);
        clock.begin(TWO);
        assert!(!clock.wait(ONE, at(60_000), now), "the other may play earlier");
        assert!(!clock.wait(TWO, at(1_000), now), "not long");
        clock.play(TWO, at(1_000));
        assert!(clock.wait(TWO, at(100_000), now + ms(1_000)));
        assert_eq!(clock.due(at(60_000), now), Due::At(now + ms(3_000)), "two seconds from the last thing played");
        assert_eq!(clock.due(at(100_000), now), Due::At(now + ms(43_000)), "distances behind it stay");
        clock.finish(ONE, START, now);
        assert!(clock.wait(TWO, at(100_000), now + ms(3_000)));
        assert_eq!(clock.due(at(100_000), now), Due::At(now + ms(5_000)));
    }

    #[test]
    fn stands_while_paused_and_goes_on_from_there() {
        let now = Instant::now();
        let mut clock = clock(2.0, None, now);
        clock.pause(now + ms(500));
        assert_eq!(clock.moment(now + ms(9_000)), at(1_000));
        assert_eq!(clock.due(START, now), Due::Held);
        clock.resume(now + ms(10_000));
        assert_eq!(clock.due(at(3_000), now), Due::At(now + ms(11_000)));
        clock.set_speed(Speed::Times(4.0), now + ms(10_500));
        assert_eq!(clock.moment(now + ms(10_500)), at(2_000), "a change of speed is no jump");
        assert_eq!(clock.due(at(4_000), now), Due::At(now + ms(11_000)));
        clock.set_speed(Speed::Max, now + ms(10_500));
        assert_eq!(clock.due(at(999_999), now), Due::Now);
        clock.play(ONE, at(7_000));
        assert_eq!(clock.moment(now + ms(99_000)), at(7_000), "full speed stands at what was played");
        clock.set_speed(Speed::Times(1.0), now + ms(20_000));
        assert_eq!(clock.due(at(8_000), now), Due::At(now + ms(21_000)));
    }

    #[test]
    fn does_not_run_before_it_is_started() {
        let now = Instant::now();
        let mut clock = Clock::new(START, Speed::Max, None);
        assert_eq!((clock.due(START, now), clock.moment(now + ms(5_000))), (Due::Held, START));
        clock.pause(now);
        clock.start(now);
        assert_eq!(clock.due(START, now), Due::Held, "paused before the start");
        clock.resume(now);
        assert_eq!(clock.due(START, now), Due::Now);
    }

    #[test]
    fn goes_to_another_moment() {
        let now = Instant::now();
        let mut clock = clock(1.0, None, now);
        clock.begin(ONE);
        clock.seek(at(60_000), now + ms(1_000));
        assert_eq!((clock.epoch(), clock.moment(now + ms(1_500))), (1, at(60_500)));
        assert_eq!(clock.due(at(61_000), now), Due::At(now + ms(2_000)));
        clock.pause(now + ms(2_000));
        clock.seek(START, now + ms(3_000));
        assert_eq!((clock.moment(now + ms(9_000)), clock.due(START, now)), (START, Due::Held), "a seek does not resume");
    }

    #[test]
    fn steps_go_to_the_earliest_of_all() {
        let now = Instant::now();
        let mut clock = clock(1.0, None, now);
        clock.begin(ONE);
        clock.begin(TWO);
        clock.pause(now);
        assert!(!clock.wait(ONE, at(20), now));
        clock.step(2);
        assert!(!clock.may_step(ONE), "the other may be earlier");
        assert!(clock.wait(TWO, at(10), now), "all must ask again");
        assert!(!clock.may_step(ONE) && clock.may_step(TWO));
        clock.play(TWO, at(10));
        assert_eq!(clock.moment(now), at(10));
        clock.wait(TWO, at(20), now);
        assert!(clock.may_step(ONE) && !clock.may_step(TWO), "of equal moments the first provider's");
        clock.play(ONE, at(20));
        clock.wait(ONE, at(30), now);
        assert!(!clock.may_step(ONE) && !clock.may_step(TWO), "two were asked for");
    }

    #[test]
    fn begins_again_when_everybody_who_began_is_through() {
        let now = Instant::now();
        let mut clock = clock(1.0, None, now);
        clock.repeat(1);
        clock.begin(ONE);
        clock.begin(TWO);
        clock.play(ONE, at(5));
        assert!(!clock.finish(ONE, START, now));
        assert!(clock.finish(TWO, START, now + ms(5)));
        assert_eq!((clock.epoch(), clock.loops(), clock.moment(now + ms(6))), (1, 0, at(1)));
        clock.play(ONE, at(5));
        assert!(!clock.finish(ONE, START, now) && !clock.finish(TWO, START, now), "one more round was asked for");
        clock.repeat(u64::MAX);
        clock.seek(START, now);
        assert!(!clock.finish(ONE, START, now) && !clock.finish(TWO, START, now), "nothing was played, nothing ever will");
    }
}
