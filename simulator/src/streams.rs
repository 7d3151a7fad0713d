//! Independent streams of randomness from one seed: what is drawn from one never shifts what is drawn from another, so
//! that a run with one fault less is otherwise the same run.

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The stream of this name and number.
pub fn stream(seed: u64, name: &str, number: u64) -> SmallRng {
    // FNV-1a, and a finalizer that makes neighbours strangers.
    let name = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    SmallRng::seed_from_u64(scramble(scramble(seed ^ name).wrapping_add(number)))
}

/// A bijection in which every bit depends on every bit.
pub fn scramble(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_stream_depends_on_all_that_names_it() {
        let first = |seed, name, number| stream(seed, name, number).random::<u64>();
        assert_eq!(first(1, "loss", 0), first(1, "loss", 0));
        let mut all = vec![first(1, "loss", 0), first(2, "loss", 0), first(1, "kill", 0), first(1, "loss", 1)];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
