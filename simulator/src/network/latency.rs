//! How long a datagram takes: distributions, drawn with nothing but additions, multiplications, divisions and square
//! roots, which are the same on every machine. `exp` and `ln` of the platform need not be.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

/// How long a datagram takes across the network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Latency {
    /// Always as long.
    Constant(Duration),
    /// Anything in between is as likely as anything else; the longest is never drawn, if there is more than one.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Most are near the median, few take much longer: the logarithm is normally distributed.
    LogNormal {
        /// Half take longer.
        median: Duration,
        /// Of the logarithm: 0.5 is a calm network, 1.5 a wild one.
        sigma: f64,
        /// What would take longer takes as long as this.
        max: Duration,
    },
    /// A Pareto distribution with exponent 1: one in ten takes ten times the shortest, one in a hundred a hundred times.
    HeavyTail {
        /// The shortest.
        min: Duration,
        /// What would take longer takes as long as this.
        max: Duration,
    },
}

impl Latency {
    /// The shortest time, and up to `jitter` more.
    pub fn jittered(min: Duration, jitter: Duration) -> Self {
        Self::Uniform { min, max: min + jitter }
    }

    /// Draws one.
    pub(super) fn draw(&self, rng: &mut SmallRng) -> Duration {
        match *self {
            Self::Constant(latency) => latency,
            Self::Uniform { min, max } => {
                let span = max.saturating_sub(min).as_nanos() as u64;
                min + Duration::from_nanos(if span == 0 { 0 } else { rng.random_range(0..span) })
            }
            Self::LogNormal { median, sigma, max } => scaled(median, exp(sigma * normal(rng)), max),
            Self::HeavyTail { min, max } => scaled(min, 1.0 / (1.0 - rng.random::<f64>()), max),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(latency) => write!(f, "{latency:?}"),
            Self::Uniform { min, max } => write!(f, "{min:?} to {max:?}"),
            Self::LogNormal { median, sigma, max } => {
                write!(f, "log-normal around {median:?} (sigma {sigma:.2}, at most {max:?})")
            }
            Self::HeavyTail { min, max } => write!(f, "heavy-tailed from {min:?} to {max:?}"),
        }
    }
}

/// `duration` times `factor`, at most `max`.
fn scaled(duration: Duration, factor: f64, max: Duration) -> Duration {
    let nanos = duration.as_nanos() as f64 * factor;
    if nanos >= max.as_nanos() as f64 { max } else { Duration::from_nanos(nanos as u64) }
}

/// A number from almost the standard normal distribution: the sum of twelve uniform ones, of 16 bits each.
fn normal(rng: &mut SmallRng) -> f64 {
    let sum: u64 = [rng.random::<u64>(), rng.random(), rng.random()]
        .into_iter()
        .map(|word| (0..4).map(|at| word >> (16 * at) & 0xffff).sum::<u64>())
        .sum();
    // The mean of a 16-bit number is 32767.5.
    (sum as f64 - 12.0 * 32_767.5) / 65_536.0
}

/// e to the power of `x`, for moderate `x`: the series where it converges at once, then squared.
fn exp(x: f64) -> f64 {
    const HALVINGS: i32 = 6;
    let x = x.clamp(-40.0, 40.0) / f64::from(1 << HALVINGS);
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..=14 {
        term *= x / f64::from(n);
        sum += term;
    }
    (0..HALVINGS).fold(sum, |power, _| power * power)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn draws(latency: Latency) -> Vec<Duration> {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut draws: Vec<Duration> = (0..10_000).map(|_| latency.draw(&mut rng)).collect();
        draws.sort_unstable();
        draws
    }

    #[test]
    fn a_constant_latency_is_constant() {
        assert!(draws(Latency::Constant(5 * US)).iter().all(|draw| *draw == 5 * US));
        assert!(draws(Latency::jittered(5 * US, Duration::ZERO)).iter().all(|draw| *draw == 5 * US));
    }

    #[test]
    fn a_uniform_latency_fills_its_range() {
        let draws = draws(Latency::jittered(10 * US, 100 * US));
        assert!(draws[0] >= 10 * US && draws[0] < 11 * US);
        assert!(draws[9_999] < 110 * US && draws[9_999] > 109 * US);
        assert!(draws[5_000] > 55 * US && draws[5_000] < 65 * US, "{:?}", draws[5_000]);
    }

    #[test]
    fn a_log_normal_latency_has_its_quantiles() {
        let max = Duration::from_secs(1);
        let draws = draws(Latency::LogNormal { median: 100 * US, sigma: 1.0, max });
        let near = |at: usize, expected: Duration| {
            let ratio = draws[at].as_secs_f64() / expected.as_secs_f64();
            assert!((0.9..1.1).contains(&ratio), "quantile {at}: {:?} for {expected:?}", draws[at]);
        };
        near(5_000, 100 * US);
        // One standard deviation, and what one in a hundred exceeds.
        near(8_413, 272 * US);
        near(1_587, 37 * US);
        near(9_900, 1024 * US);
    }

    #[test]
    fn a_heavy_tail_has_its_quantiles_and_its_end() {
        let draws = draws(Latency::HeavyTail { min: 10 * US, max: 5000 * US });
        assert!(draws[0] >= 10 * US);
        let tenth = draws[9_000].as_secs_f64() * 1e6;
        assert!((90.0..110.0).contains(&tenth), "one in ten takes ten times as long: {tenth}");
        let capped = draws.iter().filter(|draw| **draw == 5000 * US).count();
        assert!((10..40).contains(&capped), "one in five hundred: {capped}");
        assert_eq!(draws[9_999], 5000 * US);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let latency = Latency::LogNormal { median: 20 * US, sigma: 0.7, max: 9000 * US };
        assert_eq!(draws(latency), draws(latency));
        // Written down: another machine, and the next version, have to draw this too.
        let mut rng = SmallRng::seed_from_u64(3);
        let first: Vec<u128> = (0..4).map(|_| latency.draw(&mut rng).as_nanos()).collect();
        assert_eq!(first, [50_611, 18_695, 30_520, 7_098]);
    }

    #[test]
    fn the_exponential_is_one() {
        for x in [-3.0, -0.5, 0.0, 0.1, 1.0, 4.9, 7.0] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 1e-12, "{x}");
        }
    }
}
