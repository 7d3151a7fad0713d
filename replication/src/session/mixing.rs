//! A fixed, fast mixing function: the same on every machine, every run and every version of the program. Not keyed, so
//! of no use against somebody who chooses the input; it compares replicas and derives seeds.

const ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
const LANES: [u64; 4] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// Mixes a short list of words into one.
pub(crate) fn mix(words: &[u64]) -> u64 {
    let mut state = ROUND;
    for &word in words {
        state = fold(state ^ word, ROUND) ^ word.rotate_left(32);
    }
    finish(state ^ words.len() as u64)
}

/// Mixes bytes into one word.
pub(crate) fn mix_bytes(bytes: &[u8]) -> u64 {
    let mut lanes = [ROUND, !ROUND];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
        lanes[0] = fold(word(0) ^ LANES[0], word(8) ^ lanes[0]);
        lanes[1] = fold(word(16) ^ LANES[1], word(24) ^ lanes[1]);
    }
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    let word = |at: usize| u64::from_le_bytes(last[at..at + 8].try_into().expect("eight bytes"));
    lanes[0] = fold(word(0) ^ LANES[2], word(8) ^ lanes[0]);
    lanes[1] = fold(word(16) ^ LANES[3], word(24) ^ lanes[1]);
    mix(&[lanes[0], lanes[1], bytes.len() as u64])
}

/// The two halves of the product, folded: every bit of the result depends on every bit of both factors.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn finish(mut word: u64) -> u64 {
    word ^= word >> 30;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^= word >> 27;
    word = word.wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn values_are_fixed() {
        // Seeds and hashes cross versions in snapshots: these must never change.
        assert_eq!(mix(&[]), FIXED[0]);
        assert_eq!(mix(&[1, 2, 3]), FIXED[1]);
        assert_eq!(mix_bytes(b""), FIXED[2]);
        assert_eq!(mix_bytes(b"HovercRaft"), FIXED[3]);
        assert_eq!(mix_bytes(&[7; 100]), FIXED[4]);
    }

    #[test]
    fn order_length_and_every_byte_count() {
        let mut seen = BTreeSet::new();
        for len in 0..100 {
            assert!(seen.insert(mix_bytes(&vec![0; len])), "length {len}");
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert!(seen.insert(mix_bytes(&bytes)), "byte {at} of {len}");
            }
        }
        assert_ne!(mix(&[1, 2]), mix(&[2, 1]));
        assert_ne!(mix(&[0]), mix(&[0, 0]));
    }

    const FIXED: [u64; 5] = [
        0xe220_a839_7b1d_cdaf,
        0x179d_1437_7154_68f3,
        0x444e_4271_5c91_25f9,
        0xcbeb_e3a3_4074_71da,
        0xefe5_3ecd_4434_fc93,
    ];
}
