//! Drawing windows to audit, and what the answers allow to say.
//!
//! Windows are drawn from what is covered live and was not audited yet, without replacement, each by its weight: a window
//! weighs more beside a loss or a reconnection, where seams are, and the more came in it, since load is what drops.
//! The bound on the share of misses is that of Clopper and Pearson (1934), one-sided; a draw that leans to risk makes
//! the share of misses, if anything, too large.

use rand::Rng;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::model::{IntervalSet, UnixMicros};

/// A seam is near when it is within so many windows.
const NEAR: i64 = 3;

/// How much more a window beside a seam weighs.
const SEAM_WEIGHT: f64 = 4.0;

/// Candidates at most: a longer timeline is looked at in steps of several windows.
const CANDIDATES_MAX: i64 = 100_000;

/// A stretch of published time that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First instant.
    pub from: UnixMicros,
    /// First instant behind it.
    pub to: UnixMicros,
}

/// What a draw is made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    /// Covered and not audited.
    pub(super) covered: IntervalSet,
    /// Ends of gaps, openings and ends of connections.
    pub(super) seams: Vec<UnixMicros>,
    /// Stretches of receiving with the number of records in each, ascending.
    pub(super) load: Vec<(UnixMicros, UnixMicros, u64)>,
}

impl Field {
    /// Draws up to `n` windows of that length, ascending; the same seed draws the same ones from the same tape.
    pub(super) fn draw(&self, length_us: i64, n: usize, seed: u64) -> Vec<Window> {
        let length = length_us.max(1);
        let whole: i64 = self.covered.len_us() / length;
        let stride = (whole / CANDIDATES_MAX + 1) * length;
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut drawn = Vec::new();
        for (from, to) in self.covered.iter() {
            let mut at = from.0;
            while at + length <= to.0 {
                let window = Window { from: UnixMicros(at), to: UnixMicros(at + length) };
                // Efraimidis and Spirakis (2006): the largest of u^(1/w) are a weighted sample without replacement.
                let luck: f64 = random.random_range(f64::MIN_POSITIVE..1.0);
                drawn.push((luck.ln() / self.weight(window, length), window));
                at += stride;
            }
        }
        drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut windows: Vec<_> = drawn.into_iter().take(n).map(|(_, window)| window).collect();
        windows.sort();
        windows
    }

    fn weight(&self, window: Window, length: i64) -> f64 {
        let (near_from, near_to) = (window.from.0 - NEAR * length, window.to.0 + NEAR * length);
        let is_near = self.seams.iter().any(|seam| (near_from..near_to).contains(&seam.0));
        let came = |&(from, to, n): &(UnixMicros, UnixMicros, u64)| {
            let common = to.0.min(window.to.0) - from.0.max(window.from.0);
            if common <= 0 { 0.0 } else { n as f64 * common as f64 / (to.0 - from.0).max(1) as f64 }
        };
        let first = self.load.partition_point(|(_, to, _)| *to <= window.from);
        let came: f64 = self.load[first..].iter().take_while(|(from, ..)| *from < window.to).map(came).sum();
        (if is_near { SEAM_WEIGHT } else { 1.0 }) * (1.0 + came).sqrt()
    }
}

/// The largest share of misses that `misses` of `asked` do not exclude at that confidence (one-sided).
pub(super) fn upper_bound(misses: u64, asked: u64, confidence: f64) -> f64 {
    if asked == 0 || misses >= asked {
        return 1.0;
    }
    let (mut low, mut high) = (misses as f64 / asked as f64, 1.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at_most(misses, asked, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// Chance of at most `k` in `n` where each has chance `p`.
fn at_most(k: u64, n: u64, p: f64) -> f64 {
    let (ln_p, ln_q) = (p.ln(), (-p).ln_1p());
    let mut ln_choose = 0.0;
    let mut sum = 0.0;
    for i in 0..=k {
        if i > 0 {
            ln_choose += ((n - i + 1) as f64 / i as f64).ln();
        }
        sum += (ln_choose + i as f64 * ln_p + (n - i) as f64 * ln_q).exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // Rule of three; and quantiles of the beta distribution, from published tables.
        for (misses, asked, bound) in [(0, 300, 0.009_936), (0, 10, 0.258_866), (1, 10, 0.394_163), (5, 100, 0.102_253)] {
            let found = upper_bound(misses, asked, 0.95);
            assert!((found - bound).abs() < 1e-5, "{misses} of {asked}: {found}");
        }
        assert_eq!([upper_bound(0, 0, 0.95), upper_bound(3, 3, 0.95)], [1.0, 1.0]);
        assert!(upper_bound(1_000, 10_000_000, 0.95) < 1.1e-4);
    }

    fn field() -> Field {
        let mut covered = IntervalSet::new();
        covered.insert(UnixMicros(0), UnixMicros(1_000));
        covered.insert(UnixMicros(2_005), UnixMicros(3_000));
        Field { covered, ..Field::default() }
    }

    #[test]
    fn windows_lie_in_what_is_covered_and_a_seed_draws_the_same() {
        let drawn = field().draw(10, 40, 7);
        assert_eq!(drawn, field().draw(10, 40, 7));
        assert_ne!(drawn, field().draw(10, 40, 8));
        assert_eq!(drawn.len(), 40);
        assert!(drawn.windows(2).all(|pair| pair[0].to <= pair[1].from), "{drawn:?}");
        assert!(drawn.iter().all(|w| w.to.0 - w.from.0 == 10 && (w.to.0 <= 1_000 || (2_005..=2_990).contains(&w.from.0))));
        assert_eq!(field().draw(10, 1_000, 7).len(), 100 + 99);
        assert_eq!(field().draw(5_000, 10, 7), []);
    }

    #[test]
    fn seams_and_load_weigh_more() {
        let near = |drawn: &[Window]| drawn.iter().filter(|window| (400..=600).contains(&window.from.0)).count();
        let plain: usize = (0..50).map(|seed| near(&field().draw(10, 20, seed))).sum();
        let seams = vec![UnixMicros(500)];
        let with_seam: usize = (0..50).map(|seed| near(&Field { seams: seams.clone(), ..field() }.draw(10, 20, seed))).sum();
        let load = vec![(UnixMicros(400), UnixMicros(610), 20_000)];
        let with_load: usize = (0..50).map(|seed| near(&Field { load: load.clone(), ..field() }.draw(10, 20, seed))).sum();
        assert!(with_seam > plain + plain / 4 && with_load > plain * 3, "{plain} {with_seam} {with_load}");
    }
}
