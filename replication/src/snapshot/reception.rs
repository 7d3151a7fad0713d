//! Which chunks of a snapshot have come.

use super::{Chunk, Received, Refusal, SnapshotInfo, chunk_checksum};

/// Longest snapshot that is received: 2^44 bytes, for which the bits below take 256 MiB.
const LEN_MAX: u64 = 1 << 44;

/// A snapshot that is being received, without its bytes.
#[derive(Clone, Debug)]
pub(super) struct Reception {
    info: SnapshotInfo,
    /// A bit per chunk; grows with the highest number, so that a name alone takes no memory.
    there: Vec<u64>,
    count: u64,
}

impl Reception {
    pub(super) fn new(info: SnapshotInfo) -> Self {
        Self { info, there: Vec::new(), count: 0 }
    }

    pub(super) fn info(&self) -> SnapshotInfo {
        self.info
    }

    /// What is to become of a chunk; only [`Received::New`] ones are to be kept, and then [`Self::insert`]ed.
    pub(super) fn judge(&self, chunk: &Chunk) -> Received {
        let Chunk { number, checksum, ref bytes } = *chunk;
        if number >= self.info.chunks() || bytes.len() != self.info.chunk_len(number) || self.info.len > LEN_MAX {
            Received::Refused(Refusal::Misfit)
        } else if self.contains(number) {
            Received::Known
        } else if chunk_checksum(number, bytes) != checksum {
            Received::Refused(Refusal::Checksum)
        } else {
            Received::New
        }
    }

    pub(super) fn insert(&mut self, number: u64) {
        debug_assert!(!self.contains(number));
        let word = (number / 64) as usize;
        if word >= self.there.len() {
            self.there.resize(word + 1, 0);
        }
        self.there[word] |= 1 << (number % 64);
        self.count += 1;
    }

    /// The first chunk from `from` on that is not there.
    pub(super) fn missing(&self, from: u64) -> Option<u64> {
        if self.count == self.info.chunks() {
            return None;
        }
        let mut number = from;
        while let Some(word) = self.there.get((number / 64) as usize) {
            let ones = (word >> (number % 64)).trailing_ones();
            number += u64::from(ones);
            if ones == 0 || !number.is_multiple_of(64) {
                break;
            }
        }
        (number < self.info.chunks()).then_some(number)
    }

    fn contains(&self, number: u64) -> bool {
        self.there.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::CHUNK_LEN;

    proptest! {
        #[test]
        fn behaves_like_a_set(chunks in 1..300u64, order in prop::collection::vec(any::<prop::sample::Index>(), 0..600)) {
            let info = SnapshotInfo { id: 1, index: 1, term: 1, len: chunks * CHUNK_LEN as u64 - 5 };
            prop_assert_eq!(info.chunks(), chunks);
            let (mut reception, mut model) = (Reception::new(info), BTreeSet::new());
            for number in order {
                let number = number.index(chunks as usize) as u64;
                prop_assert_eq!(reception.contains(number), model.contains(&number));
                if model.insert(number) {
                    reception.insert(number);
                }
                for from in [0, number, chunks - 1, chunks] {
                    let missing = (from..chunks).find(|number| !model.contains(number));
                    prop_assert_eq!(reception.missing(from), missing);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let info = SnapshotInfo { id: 1, index: 1, term: 1, len: CHUNK_LEN as u64 + 3 };
        let reception = Reception::new(info);
        let chunk = |number, len: usize| {
            let bytes = vec![7; len];
            Chunk { number, checksum: chunk_checksum(number, &bytes), bytes: bytes.into() }
        };
        assert_eq!(reception.judge(&chunk(0, CHUNK_LEN)), Received::New);
        assert_eq!(reception.judge(&chunk(1, 3)), Received::New);
        for (number, len) in [(0, CHUNK_LEN - 1), (0, CHUNK_LEN + 1), (1, 2), (1, CHUNK_LEN), (2, 0), (u64::MAX, 0)] {
            assert_eq!(reception.judge(&chunk(number, len)), Received::Refused(Refusal::Misfit));
        }
        let elsewhere = Chunk { checksum: chunk_checksum(1, &[7; CHUNK_LEN]), ..chunk(0, CHUNK_LEN) };
        assert_eq!(reception.judge(&elsewhere), Received::Refused(Refusal::Checksum));
    }
}
