//! Post ids of a block, packed.

/// A set of post ids as ascending LEB128 differences: three to five bytes an id.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdSet {
    packed: Vec<u8>,
    range: Option<(u64, u64)>,
}

impl IdSet {
    /// Packs ids given in any order, with repeats.
    pub fn pack(ids: &mut Vec<u64>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        let mut packed = Vec::with_capacity(ids.len() * 5);
        let mut last = 0;
        for &id in ids.iter() {
            let mut rest = id - last;
            while rest >= 0x80 {
                packed.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            packed.push(rest as u8);
            last = id;
        }
        let range = ids.first().copied().zip(ids.last().copied());
        Self { packed, range }
    }

    /// Takes a packed set; one that was cut or bent reads as far as it goes.
    pub fn from_packed(packed: Vec<u8>) -> Self {
        let mut set = Self { packed, range: None };
        let ends = set.iter().fold(None, |ends: Option<(u64, u64)>, id| Some((ends.map_or(id, |e| e.0), id)));
        set.range = ends;
        set
    }

    /// The packed form.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Smallest and largest id.
    pub fn range(&self) -> Option<(u64, u64)> {
        self.range
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut rest = self.packed.as_slice();
        let mut last = 0u64;
        std::iter::from_fn(move || {
            let (mut step, mut shift) = (0u64, 0);
            loop {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                step |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            last = last.wrapping_add(step);
            Some(last)
        })
    }

    /// Whether `id` is in it.
    pub fn contains(&self, id: u64) -> bool {
        self.range.is_some_and(|(min, max)| min <= id && id <= max) && self.iter().take_while(|&i| i <= id).any(|i| i == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back(mut ids in prop::collection::vec(any::<u64>(), 0..50)) {
            let set = IdSet::pack(&mut ids.clone());
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), ids.clone());
            prop_assert_eq!(IdSet::from_packed(set.packed().to_vec()), set.clone());
            for id in ids {
                prop_assert!(set.contains(id));
                for near in [id.wrapping_sub(1), id.wrapping_add(1)] {
                    prop_assert_eq!(set.contains(near), set.iter().any(|i| i == near));
                }
            }
        }

        #[test]
        fn bent_sets_never_panic(packed in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(IdSet::from_packed(packed).iter().count() <= 50);
        }
    }
}
