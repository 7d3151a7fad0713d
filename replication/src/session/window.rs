//! [`Window`]: which of a session's recent seqs have been executed, one bit each.

/// Remembers every executed seq in [first, first + width) and nothing else.
#[derive(Clone, Debug)]
pub(super) struct Window {
    first: u64,
    width: u64,
    executed: u64,
    /// A ring of bits, a power of two of them and at least `width`: the bit of a seq is the same wherever `first` is.
    words: Box<[u64]>,
}

/// Where a seq lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Below,
    Inside,
    Above,
}

impl Window {
    pub(super) fn new(width: u64) -> Self {
        let bits = usize::try_from(width).expect("a window fits into memory").next_power_of_two().max(64);
        Self { first: 0, width, executed: 0, words: vec![0; bits / 64].into() }
    }

    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) const fn place(&self, seq: u64) -> Place {
        if seq < self.first {
            Place::Below
        } else if seq - self.first < self.width {
            Place::Inside
        } else {
            Place::Above
        }
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        let (word, bit) = self.bit(seq);
        self.place(seq) == Place::Inside && self.words[word] & bit != 0
    }

    /// Remembers `seq`, which lies inside and is not remembered yet.
    pub(super) fn insert(&mut self, seq: u64) {
        debug_assert!(self.place(seq) == Place::Inside && !self.contains(seq));
        let (word, bit) = self.bit(seq);
        self.words[word] |= bit;
        self.executed += 1;
    }

    /// Moves the window up to begin at `first` (never down), telling each seq it forgets, in order.
    pub(super) fn advance(&mut self, first: u64, mut forget: impl FnMut(u64)) {
        while self.first < first && self.executed > 0 {
            let (word, bit) = self.bit(self.first);
            if self.words[word] & bit != 0 {
                self.words[word] &= !bit;
                self.executed -= 1;
                forget(self.first);
            }
            self.first += 1;
        }
        self.first = self.first.max(first);
    }

    /// The remembered seqs, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        (0..self.width).map_while(|offset| self.first.checked_add(offset)).filter(|&seq| self.contains(seq))
    }

    /// How many are remembered.
    pub(super) const fn len(&self) -> u64 {
        self.executed
    }

    fn bit(&self, seq: u64) -> (usize, u64) {
        let at = seq as usize & (self.words.len() * 64 - 1);
        (at / 64, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn at_the_limit_and_one_past_it() {
        let mut window = Window::new(3);
        assert_eq!([0, 2, 3].map(|seq| window.place(seq)), [Place::Inside, Place::Inside, Place::Above]);
        window.insert(2);
        window.advance(2, |_| panic!("0 and 1 were never there"));
        assert_eq!(
            [1, 2, 4, 5].map(|seq| window.place(seq)),
            [Place::Below, Place::Inside, Place::Inside, Place::Above]
        );
        assert!(window.contains(2));
        let mut forgotten = Vec::new();
        window.advance(3, |seq| forgotten.push(seq));
        assert_eq!((forgotten, window.len(), window.first()), (vec![2], 0, 3));
    }

    #[test]
    fn the_end_of_all_seqs() {
        let mut window = Window::new(1024);
        window.insert(1023);
        let mut forgotten = Vec::new();
        window.advance(u64::MAX, |seq| forgotten.push(seq));
        assert_eq!(forgotten, [1023]);
        assert_eq!(window.place(u64::MAX), Place::Inside);
        window.insert(u64::MAX);
        assert_eq!(window.iter().collect::<Vec<_>>(), [u64::MAX]);
        window.advance(u64::MAX, |_| panic!("the window did not move"));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(width in 1u64..200, steps in prop::collection::vec((any::<bool>(), 0u64..300), 0..300)) {
            let mut window = Window::new(width);
            let mut model = BTreeSet::new();
            for (advance, by) in steps {
                if advance {
                    // Seldom further than the window is wide.
                    let first = window.first() + by * by / 300;
                    let mut forgotten = Vec::new();
                    window.advance(first, |seq| forgotten.push(seq));
                    let kept = model.split_off(&first);
                    prop_assert!(forgotten.into_iter().eq(std::mem::replace(&mut model, kept)));
                } else {
                    let seq = window.first() + by;
                    prop_assert_eq!(window.place(seq) == Place::Inside, by < width);
                    prop_assert_eq!(window.contains(seq), model.contains(&seq));
                    if by < width && model.insert(seq) {
                        window.insert(seq);
                    }
                }
                prop_assert!(window.iter().eq(model.iter().copied()));
                prop_assert_eq!(window.len(), model.len() as u64);
            }
        }
    }
}
