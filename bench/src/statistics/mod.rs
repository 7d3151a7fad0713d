//! The tests that a run has to pass. Each is a function of numbers, tested on data of which the answer is known.
//!
//! The method is that of Lancet (Kogias, Mallon, Bugnion, USENIX ATC 2019): percentiles mean something only if the arrivals
//! were what was asked for, if the system was in a steady state, and if the samples do not depend on each other.

pub mod anderson_darling;
pub mod dickey_fuller;
pub mod interval;
pub mod spearman;

/// The value in the middle; the mean of the two in the middle if there are two; 0 if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

#[cfg(test)]
pub(crate) mod known {
    //! Data with known properties.

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    pub(crate) fn rng(seed: u64) -> SmallRng {
        SmallRng::seed_from_u64(seed)
    }

    /// Independent, exponential, mean 1.
    pub(crate) fn exponential(count: usize, seed: u64) -> Vec<f64> {
        let mut rng = rng(seed);
        (0..count).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect()
    }

    /// Each is `memory` times the one before and something new of its own.
    pub(crate) fn autoregressive(count: usize, memory: f64, seed: u64) -> Vec<f64> {
        let mut rng = rng(seed);
        let mut last = 0.0;
        let mut next = || {
            // Sum of uniforms: near enough to normal.
            let new = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            last = memory * last + new;
            last
        };
        (0..count).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
