//! Random choices in whole numbers only, so that every machine rolls the same.

use rand::RngCore;
use rand_pcg::Pcg64;

/// The one source of chance in a world.
#[derive(Clone, Debug)]
pub(super) struct Dice(Pcg64);

impl Dice {
    /// `Pcg64::new` and not `SeedableRng`: its state is given outright, so no crate's idea of seeding matters.
    pub(super) fn new(seed: u64) -> Self {
        let spread = u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Self(Pcg64::new(spread ^ 0x5eed_0000_b12d_7a9e, 0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d))
    }

    /// A second source of chance beside [`Dice::new`]'s, for what is only rolled when it was asked for: it leaves the
    /// first one's numbers as they were.
    pub(super) fn aside(seed: u64, which: u64) -> Self {
        let spread = u128::from(seed).wrapping_mul(0xd134_2543_de82_ef95_2545_f491_4f6c_dd1d);
        Self(Pcg64::new(spread, (u128::from(which) << 64) | 0x0b1d_7a9e_0a51_de00))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 0 to `n - 1`; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Both ends included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + ((u128::from(self.bits()) * u128::from(high - low + 1)) >> 64) as u64
    }

    pub(super) fn per_mille(&mut self, chance: u64) -> bool {
        self.between(0, 999) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A place in 0..`n`, the first far likelier than the last: every doubling of the rank is equally likely, as in Zipf's law.
    pub(super) fn zipf(&mut self, n: usize) -> usize {
        let octave = self.below(n.max(1).ilog2() as usize + 1);
        let low = 1_usize << octave;
        low - 1 + self.below(low.min(n.max(1) + 1 - low))
    }

    /// A number up to `limit` whose order of magnitude is what is random.
    pub(super) fn magnitude(&mut self, limit: u64) -> u64 {
        let octave = self.between(0, u64::from(limit.max(1).ilog2()));
        self.between(1 << octave, ((2 << octave) - 1).min(limit.max(1)))
    }
}

/// How likely something is, of 2³².
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// 0 is never and 1 always; what is not a number is never.
    pub(super) fn of(share: f64) -> Self {
        const WHOLE: f64 = 4_294_967_296.0;
        Self(if share > 0.0 { (share.min(1.0) * WHOLE) as u64 } else { 0 })
    }

    /// Rolls only when it is possible.
    pub(super) fn hits(self, dice: &mut Dice) -> bool {
        self.0 > 0 && dice.bits() >> 32 < self.0
    }
}
