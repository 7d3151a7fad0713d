//! Single latencies in the order of their operations: what a histogram forgets, and what tests of independence and
//! stationarity are about.

use r2p2::Instant;

/// Most that one part of a run keeps, 16 bytes each.
pub const SAMPLES_MAX: usize = 1 << 20;

/// When an operation was due, and what it took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sample {
    /// When it was due.
    pub due: Instant,
    /// Nanoseconds from then to its end.
    pub nanos: u64,
}

/// Every `stride`-th operation, in memory that is bounded: when it is full, every second one goes.
#[derive(Debug)]
pub struct Samples {
    kept: Vec<Sample>,
    max: usize,
    stride: u64,
    /// How many more are not kept.
    skip: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self::new(SAMPLES_MAX)
    }
}

impl Samples {
    /// Keeps at most `max`.
    ///
    /// # Panics
    /// If that is fewer than two.
    pub fn new(max: usize) -> Self {
        assert!(max >= 2, "fewer than two cannot be halved");
        Self { kept: Vec::new(), max, stride: 1, skip: 0 }
    }

    /// The next one, in the order in which operations end.
    pub fn push(&mut self, sample: Sample) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.kept.len() == self.max {
            let mut number = 0_usize;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride *= 2;
        }
        self.kept.push(sample);
        self.skip = self.stride - 1;
    }

    /// How many operations there are to each that was kept.
    pub fn stride(&self) -> u64 {
        self.stride
    }

    /// All parts together, in the order in which operations were due. Parts that kept more than others are thinned to the
    /// same stride.
    pub fn merge(parts: Vec<Self>) -> Vec<Sample> {
        let stride = parts.iter().map(Self::stride).max().unwrap_or(1);
        let mut all: Vec<Sample> = Vec::new();
        for part in parts {
            let step = usize::try_from(stride / part.stride).unwrap_or(usize::MAX);
            all.extend(part.kept.into_iter().step_by(step));
        }
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64) -> Sample {
        Sample { due: Instant::from_nanos(number), nanos: number }
    }

    #[test]
    fn at_the_limit_all_are_kept_and_past_it_half() {
        let mut samples = Samples::new(8);
        (0..8).for_each(|number| samples.push(sample(number)));
        assert_eq!((samples.kept.len(), samples.stride()), (8, 1));
        samples.push(sample(8));
        let kept: Vec<u64> = samples.kept.iter().map(|sample| sample.nanos).collect();
        assert_eq!((kept, samples.stride()), (vec![0, 2, 4, 6, 8], 2));
    }

    #[test]
    fn what_is_kept_is_evenly_spaced_however_many_come() {
        let mut samples = Samples::new(100);
        (0..100_000).for_each(|number| samples.push(sample(number)));
        let stride = samples.stride();
        assert!(samples.kept.len() > 40);
        assert!(samples.kept.iter().enumerate().all(|(place, sample)| sample.nanos == place as u64 * stride));
    }

    #[test]
    fn parts_are_merged_in_order_and_to_the_same_stride() {
        let (mut one, mut two) = (Samples::new(4), Samples::new(4));
        (0..8).for_each(|number| one.push(sample(2 * number)));
        (0..4).for_each(|number| two.push(sample(2 * number + 1)));
        let merged: Vec<u64> = Samples::merge(vec![one, two]).iter().map(|sample| sample.nanos).collect();
        assert_eq!(merged, [0, 1, 4, 5, 8, 12]);
    }
}
