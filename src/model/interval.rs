//! Sets of half-open intervals of time.

use super::UnixMicros;

/// A set of instants as sorted, disjoint, non-touching intervals `[from, to)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet(Vec<(UnixMicros, UnixMicros)>);

impl IntervalSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One interval `[from, to)`.
    pub fn one(from: UnixMicros, to: UnixMicros) -> Self {
        let mut set = Self::new();
        set.insert(from, to);
        set
    }

    /// Adds everything that is in `other`.
    pub fn add(&mut self, other: &Self) {
        other.iter().for_each(|(from, to)| self.insert(from, to));
    }

    /// Takes everything out that is in `other`.
    pub fn subtract(&mut self, other: &Self) {
        other.iter().for_each(|(from, to)| self.remove(from, to));
    }

    /// Only what lies in `[from, to)`.
    #[must_use]
    pub fn within(&self, from: UnixMicros, to: UnixMicros) -> Self {
        let mut out = Self::new();
        self.iter().for_each(|(a, b)| out.insert(a.max(from), b.min(to)));
        out
    }

    /// The intervals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (UnixMicros, UnixMicros)> + '_ {
        self.0.iter().copied()
    }

    /// Whether no instant is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `at` is in it.
    pub fn contains(&self, at: UnixMicros) -> bool {
        let after = self.0.partition_point(|&(from, _)| from <= at);
        after > 0 && at < self.0[after - 1].1
    }

    /// Adds `[from, to)`; an empty interval changes nothing.
    pub fn insert(&mut self, from: UnixMicros, to: UnixMicros) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|&(_, end)| end < from);
        let last = self.0.partition_point(|&(start, _)| start <= to);
        let (mut from, mut to) = (from, to);
        if first < last {
            from = from.min(self.0[first].0);
            to = to.max(self.0[last - 1].1);
        }
        self.0.splice(first..last, [(from, to)]);
    }

    /// Takes `[from, to)` out.
    pub fn remove(&mut self, from: UnixMicros, to: UnixMicros) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|&(_, end)| end <= from);
        let last = self.0.partition_point(|&(start, _)| start < to);
        if first >= last {
            return;
        }
        let head = (self.0[first].0, from);
        let tail = (to, self.0[last - 1].1);
        let keep = [head, tail].into_iter().filter(|(a, b)| a < b);
        self.0.splice(first..last, keep);
    }

    /// Microseconds in the set.
    pub fn len_us(&self) -> i64 {
        self.0.iter().fold(0, |sum, (from, to)| to.since(*from).saturating_add(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_of_time_has_a_length() {
        let mut set = IntervalSet::one(UnixMicros(i64::MIN), UnixMicros(-1));
        set.insert(UnixMicros(1), UnixMicros(i64::MAX));
        assert_eq!(set.len_us(), i64::MAX);
    }

    proptest! {
        /// Against the plainest model there is: one bool an instant.
        #[test]
        fn agrees_with_a_set_of_bits(steps in prop::collection::vec((any::<bool>(), 0i64..40, 0i64..40), 0..30)) {
            let (mut set, mut bits) = (IntervalSet::new(), [false; 40]);
            for (add, from, to) in steps {
                let (a, b) = (UnixMicros(from), UnixMicros(to));
                if add { set.insert(a, b) } else { set.remove(a, b) }
                for bit in bits.iter_mut().take(to as usize).skip(from as usize) { *bit = add; }
            }
            for (at, &bit) in bits.iter().enumerate() {
                prop_assert_eq!(set.contains(UnixMicros(at as i64)), bit);
            }
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].1 < w[1].0), "sorted, disjoint, not touching: {:?}", all);
            prop_assert_eq!(set.len_us(), bits.iter().filter(|b| **b).count() as i64);
        }
    }
}
