//! A set of small numbers that needs no allocation up to 64.

/// A set of small numbers. Equal sets are equal values: `high` has no trailing zeros.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Bits {
    low: u64,
    high: Vec<u64>,
}

impl Bits {
    pub(super) fn contains(&self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        match word.checked_sub(1) {
            None => self.low & mask != 0,
            Some(word) => self.high.get(word).is_some_and(|bits| bits & mask != 0),
        }
    }

    pub(super) fn insert(&mut self, bit: u32) {
        let (word, mask) = place(bit);
        match word.checked_sub(1) {
            None => self.low |= mask,
            Some(word) => {
                if self.high.len() <= word {
                    self.high.resize(word + 1, 0);
                }
                self.high[word] |= mask;
            }
        }
    }

    /// Returns whether it was in the set.
    pub(super) fn remove(&mut self, bit: u32) -> bool {
        let was_in = self.contains(bit);
        let (word, mask) = place(bit);
        match word.checked_sub(1) {
            None => self.low &= !mask,
            Some(word) if was_in => {
                self.high[word] &= !mask;
                while self.high.last() == Some(&0) {
                    self.high.pop();
                }
            }
            Some(_) => {}
        }
        was_in
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        self.low & !other.low == 0
            && self.high.len() <= other.high.len()
            && self.high.iter().zip(&other.high).all(|(mine, theirs)| mine & !theirs == 0)
    }
}

fn place(bit: u32) -> (usize, u64) {
    (bit as usize / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u32..300), 0..60)) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (insert, bit) in steps {
                let before = bits.clone();
                if insert {
                    bits.insert(bit);
                    set.insert(bit);
                    prop_assert!(before.is_subset_of(&bits));
                } else {
                    prop_assert_eq!(bits.remove(bit), set.remove(&bit));
                    prop_assert!(bits.is_subset_of(&before));
                    prop_assert_eq!(before.is_subset_of(&bits), before == bits);
                }
                prop_assert!((0..300).all(|bit| bits.contains(bit) == set.contains(&bit)));
                let mut again = Bits::default();
                set.iter().for_each(|&bit| again.insert(bit));
                prop_assert_eq!(&again, &bits);
            }
        }
    }
}
