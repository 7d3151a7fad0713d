//! When operations are due, whatever becomes of those before: the schedule of an open loop.

use std::time::Duration;

use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How operations follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// As from very many clients that know nothing of each other: exponential gaps.
    Poisson,
    /// Equal gaps.
    Fixed,
}

impl Process {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Fixed => "fixed",
        }
    }
}

/// An endless schedule.
#[derive(Debug)]
pub struct Arrivals {
    process: Process,
    /// Mean gap in nanoseconds.
    mean: f64,
    /// When the next is due, in nanoseconds since the clock's zero; the fraction is kept so that rates are exact.
    next: f64,
    rng: SmallRng,
}

impl Arrivals {
    /// Part number `part` of `parts` of a schedule of `rate` operations per second from `start` on. The parts together are
    /// such a schedule: Poisson processes add up to one, and fixed ones are shifted against each other.
    ///
    /// # Panics
    /// If the rate is not a positive number, or there is no such part.
    pub fn new(process: Process, rate: f64, start: Instant, seed: u64, part: usize, parts: usize) -> Self {
        assert!(rate > 0.0 && rate.is_finite(), "a rate is a positive number");
        assert!(part < parts, "there is no such part");
        let mean = 1e9 * parts as f64 / rate;
        let mut arrivals =
            Self { process, mean, next: start.as_nanos() as f64, rng: SmallRng::seed_from_u64(seed ^ part as u64) };
        arrivals.next += match process {
            Process::Poisson => arrivals.gap(),
            Process::Fixed => mean * (part + 1) as f64 / parts as f64,
        };
        arrivals
    }

    /// When the next operation is due.
    pub fn due(&self) -> Instant {
        Instant::from_nanos(self.next as u64)
    }

    /// The mean time between two.
    pub fn mean_gap(&self) -> Duration {
        Duration::from_nanos(self.mean as u64)
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.next += self.gap();
    }

    fn gap(&mut self) -> f64 {
        match self.process {
            // 1 - [0, 1) is never 0, so the logarithm is finite.
            Process::Poisson => -self.mean * (1.0 - self.rng.random::<f64>()).ln(),
            Process::Fixed => self.mean,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::anderson_darling;

    #[test]
    fn fixed_parts_interleave() {
        let mut due = Vec::new();
        for part in 0..3 {
            let mut arrivals = Arrivals::new(Process::Fixed, 3e6, Instant::ZERO, 1, part, 3);
            for _ in 0..4 {
                due.push(arrivals.due().as_nanos().div_ceil(10) * 10);
                arrivals.advance();
            }
        }
        due.sort_unstable();
        let expected: Vec<u64> = (1..=12).map(|i: u64| (i * 1000).div_ceil(3).div_ceil(10) * 10).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn poisson_parts_are_poisson_together() {
        let mut due = Vec::new();
        for part in 0..4 {
            let mut arrivals = Arrivals::new(Process::Poisson, 1000.0, Instant::ZERO, 7, part, 4);
            while arrivals.due() < Instant::from_nanos(10_000_000_000) {
                due.push(arrivals.due().as_nanos());
                arrivals.advance();
            }
        }
        due.sort_unstable();
        // Ten thousand are expected; four standard deviations are 400.
        assert!((9600..=10_400).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        assert!(anderson_darling::exponential(&gaps).expect("enough") < anderson_darling::CRITICAL);
    }
}
