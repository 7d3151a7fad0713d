//! How long operations took: a histogram that loses none.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Durations in nanoseconds, each to one part in a thousand, of any length. Merging loses nothing.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// What is printed of it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Mean, µs.
    pub mean_us: f64,
    /// Half took at most so long, µs.
    pub p50_us: f64,
    /// 90 % did.
    pub p90_us: f64,
    /// 99 % did.
    pub p99_us: f64,
    /// 99.9 % did.
    pub p999_us: f64,
    /// The longest, µs.
    pub max_us: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let mut histogram = Histogram::new(3).expect("three digits are possible");
        // Grows with what is recorded, so that nothing is ever cut off or refused.
        histogram.auto(true);
        Self(histogram)
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).expect("the histogram grows");
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the histogram grows");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of them did not exceed; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    /// What is printed of it.
    pub fn summary(&self) -> Summary {
        let us = |share| self.quantile(share).as_nanos() as f64 / 1e3;
        Summary {
            count: self.count(),
            mean_us: self.0.mean() / 1e3,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        }
    }

    /// Upper bound in µs and count of every range in which there are any: all that is known.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        self.0
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to() as f64 / 1e3, bucket.count_at_value()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_too_long() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(10_000));
        let summary = latencies.summary();
        assert_eq!(summary.count, 2);
        assert!((summary.max_us / 1e10 - 1.0).abs() < 1e-3);
        assert_eq!(latencies.buckets().iter().map(|(_, count)| count).sum::<u64>(), 2);
    }

    proptest! {
        #[test]
        fn merging_is_recording_everything(one in durations(), two in durations()) {
            let (mut a, mut b, mut both) = (Latencies::default(), Latencies::default(), Latencies::default());
            one.iter().for_each(|&latency| a.record(latency));
            two.iter().for_each(|&latency| b.record(latency));
            one.iter().chain(&two).for_each(|&latency| both.record(latency));
            a.merge(&b);
            prop_assert_eq!(a.buckets(), both.buckets());
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut all in prop::collection::vec(1..1_000_000_000_u64, 1..300), share in 0.0..=1.0_f64) {
            let mut latencies = Latencies::default();
            all.iter().for_each(|&nanos| latencies.record(Duration::from_nanos(nanos)));
            all.sort_unstable();
            let place = ((share * all.len() as f64).ceil() as usize).clamp(1, all.len()) - 1;
            let found = latencies.quantile(share).as_nanos() as f64;
            prop_assert!((found / all[place] as f64 - 1.0).abs() <= 1e-3, "{} for {}", found, all[place]);
        }
    }

    fn durations() -> impl Strategy<Value = Vec<Duration>> {
        prop::collection::vec((0..u64::MAX / 2).prop_map(Duration::from_nanos), 0..20)
    }
}
