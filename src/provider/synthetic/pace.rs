//! When envelopes arrive: slots around a mean rate, the shape of a day, and when bursts begin and end.
//!
//! Floats stand only here, and only in `+ - * /` and comparisons, which are exact by IEEE 754 on every machine. What the
//! rate is multiplied with is a whole number of thousandths that holds for a stretch of time; a wait is spent stretch by
//! stretch, so that even a slow world meets its bursts.

use std::time::Duration;

use super::Burst;
use super::dice::Dice;

/// The slots in which envelopes arrive.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    start: i64,
    /// Mean distance of slots in microseconds.
    mean: f64,
    /// The next slot, in microseconds after the start.
    offset: f64,
    day_curve: bool,
    bursts: Option<Bursts>,
}

/// When it bursts. All times in microseconds after the start.
#[derive(Clone, Debug)]
struct Bursts {
    /// How many times the rate.
    times: u32,
    every: u64,
    lasts: i64,
    begins: i64,
    ends: i64,
    n: u64,
    dice: Dice,
}

/// Thousandths of the mean rate at each full hour of UTC: asleep at five, peaks at one in the afternoon and at eight.
///
/// They add up to 24,000, so that a whole day has the mean rate.
const DAY: [u32; 24] = [
    840, 660, 560, 430, 350, 330, 420, 620, 810, 1_000, 1_110, 1_200, 1_300, 1_400, 1_360, 1_260, 1_190, 1_220, 1_330, 1_480,
    1_550, 1_400, 1_200, 980,
];

/// How long one value of the day's curve holds.
const STEP_US: i64 = 600_000_000;

const STEPS_PER_HOUR: i64 = 6;

impl Pace {
    /// Sixteen equally likely waits of an exponential distribution, in thousandths of the mean; they add up to 16,000.
    ///
    /// A table and not a logarithm: the last bit of `ln` differs between machines.
    const WAITS: [u32; 16] = [32, 100, 173, 251, 336, 430, 533, 647, 777, 925, 1_099, 1_309, 1_574, 1_934, 2_494, 3_386];

    /// `rate` is above 0; `dice` are for the times of bursts and nothing else.
    pub(super) fn new(start: i64, rate: f64, day_curve: bool, burst: Option<Burst>, dice: Dice) -> Self {
        let bursts = burst.map(|burst| Bursts::new(burst, dice));
        Self { start, mean: 1_000_000.0 / rate, offset: 0.0, day_curve, bursts }
    }

    /// Lets the first slot be that many microseconds after the start.
    pub(super) fn begin_after(&mut self, micros: u32) {
        self.offset = f64::from(micros);
    }

    pub(super) fn slot(&self) -> i64 {
        self.start + self.offset as i64
    }

    /// Which burst the next slot lies in, if any.
    pub(super) fn burst(&self) -> Option<u64> {
        let at = self.offset as i64;
        self.bursts.as_ref().filter(|bursts| (bursts.begins..bursts.ends).contains(&at)).map(|bursts| bursts.n)
    }

    pub(super) fn advance(&mut self, dice: &mut Dice) {
        let wait = dice.pick(&Self::WAITS);
        let wait = self.mean * f64::from(wait) / 1_000.0;
        if self.day_curve || self.bursts.is_some() {
            self.spend(wait);
        } else {
            self.offset += wait;
        }
    }

    /// Moves on by a wait at the mean rate, which is shorter where the rate is higher.
    fn spend(&mut self, mut wait: f64) {
        // Stretches last at least 0.1 s and waits under an hour, so this ends.
        loop {
            let (thousandths, until) = self.stretch();
            let factor = f64::from(thousandths) / 1_000.0;
            let room = (until as f64 - self.offset) * factor;
            if wait < room {
                self.offset += wait / factor;
                return;
            }
            wait -= room;
            self.offset = until as f64;
        }
    }

    /// The factor of the rate in thousandths, and when the next one holds; that is always later than now.
    fn stretch(&mut self) -> (u32, i64) {
        let at = self.offset as i64;
        let (mut thousandths, mut until) = (1_000, i64::MAX);
        if self.day_curve {
            let step = (self.start + at).div_euclid(STEP_US);
            thousandths = of_the_day(step);
            until = (step + 1) * STEP_US - self.start;
        }
        if let Some(bursts) = &mut self.bursts {
            let (times, ends) = bursts.stretch(at);
            thousandths *= times;
            until = until.min(ends);
        }
        (thousandths, until)
    }
}

impl Bursts {
    fn new(burst: Burst, dice: Dice) -> Self {
        let micros = |length: Duration, least: u64| u64::try_from(length.as_micros()).unwrap_or(u64::MAX).clamp(least, 1 << 50);
        let every = micros(burst.every, 1_000_000);
        let lasts = micros(burst.lasts, 100_000) as i64;
        let mut bursts = Self { times: burst.times.clamp(1, 10_000), every, lasts, begins: 0, ends: 0, n: 0, dice };
        bursts.plan();
        bursts
    }

    /// The next one begins half to one and a half times the usual distance after the last one began, but not within it.
    fn plan(&mut self) {
        let wait = self.dice.between(self.every / 2, self.every + self.every / 2) as i64;
        self.begins = (self.begins + wait).max(self.ends);
        self.ends = self.begins + self.lasts;
        self.n += 1;
    }

    fn stretch(&mut self, at: i64) -> (u32, i64) {
        while at >= self.ends {
            self.plan();
        }
        if at < self.begins { (1, self.begins) } else { (self.times, self.ends) }
    }
}

/// The curve between two full hours is a straight line, cut into steps of ten minutes.
fn of_the_day(step: i64) -> u32 {
    let (hour, part) = (step.div_euclid(STEPS_PER_HOUR), step.rem_euclid(STEPS_PER_HOUR) as u32);
    let at = |hour: i64| DAY[hour.rem_euclid(24) as usize];
    (at(hour) * (STEPS_PER_HOUR as u32 - part) + at(hour + 1) * part) / STEPS_PER_HOUR as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_US: i64 = 1_767_614_400_000_000;

    /// Slots until `until_us` after the start.
    fn slots(mut pace: Pace, until_us: i64) -> Vec<(i64, Option<u64>)> {
        let mut dice = Dice::new(3);
        let mut slots = Vec::new();
        while pace.slot() < pace.start + until_us {
            slots.push((pace.slot() - pace.start, pace.burst()));
            pace.advance(&mut dice);
        }
        slots
    }

    #[test]
    fn a_day_has_the_mean_rate_a_trough_and_two_peaks() {
        assert_eq!(DAY.iter().sum::<u32>(), 24_000);
        let curve: Vec<_> = (0..144).map(of_the_day).collect();
        assert!((143_000..=144_000).contains(&curve.iter().sum::<u32>()));
        let peaks = (0..144).filter(|&n| curve[n] > curve[(n + 143) % 144] && curve[n] >= curve[(n + 1) % 144]).count();
        assert_eq!((peaks, curve.iter().min()), (2, Some(&330)));

        let of_day = slots(Pace::new(NOON_US, 2.0, true, None, Dice::new(1)), 86_400_000_000);
        assert!((165_000..180_000).contains(&of_day.len()), "{}", of_day.len());
        let in_hour = |utc: i64| of_day.iter().filter(|(at, _)| (at / 3_600_000_000 + 12) % 24 == utc).count();
        assert!(in_hour(20) > 4 * in_hour(5) && in_hour(13) > in_hour(16), "{} {}", in_hour(20), in_hour(5));
    }

    #[test]
    fn bursts_come_about_as_often_and_as_dense_as_asked() {
        let burst = Burst { times: 20, every: Duration::from_secs(600), lasts: Duration::from_secs(15) };
        for rate in [0.01, 5.0] {
            let found = slots(Pace::new(NOON_US, rate, false, Some(burst), Dice::new(1)), 10 * 3_600_000_000);
            type Slots = Vec<(i64, Option<u64>)>;
            let (within, outside): (Slots, Slots) = found.iter().copied().partition(|(_, burst)| burst.is_some());
            let n_bursts = within.last().unwrap().1.unwrap();
            assert!((50..72).contains(&n_bursts), "{n_bursts}");
            let (dense, thin) = (within.len() as f64 / (n_bursts as f64 * 15.0), outside.len() as f64 / 36_000.0);
            assert!((14.0..26.0).contains(&(dense / thin)), "{dense} and {thin} a second");
        }
    }

    #[test]
    fn odd_bursts_end() {
        for (times, every, lasts) in [(0, 0, 0), (u32::MAX, 1, u64::MAX), (3, u64::MAX, 1)] {
            let burst = Burst { times, every: Duration::from_secs(every), lasts: Duration::from_secs(lasts) };
            let mut pace = Pace::new(NOON_US, 0.001, true, Some(burst), Dice::new(1));
            let mut dice = Dice::new(2);
            for _ in 0..100 {
                let before = pace.slot();
                pace.advance(&mut dice);
                assert!(pace.slot() >= before);
            }
        }
    }
}
