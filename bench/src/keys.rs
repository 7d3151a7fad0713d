//! Which record an operation is about: the distributions that the Yahoo! Cloud Serving Benchmark uses.

use rand::Rng;
use rand::rngs::SmallRng;

/// How popular records are.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// Record k is asked for in proportion to 1 / k^theta; which one is the k-th is scattered over all of them.
    Zipf {
        /// From 0 (uniform) to below 1 (skewed).
        theta: f64,
    },
    /// The younger the more popular, by the same law.
    Latest {
        /// From 0 (uniform) to below 1 (skewed).
        theta: f64,
    },
}

/// What YCSB takes unless told otherwise.
pub const THETA_DEFAULT: f64 = 0.99;

/// Chooses records. There may come more of them.
#[derive(Clone, Debug)]
pub struct Keys {
    popularity: Popularity,
    records: u64,
    zipf: Option<Zipf>,
}

impl Keys {
    /// Chooses from `records` records, numbered from 0.
    ///
    /// # Panics
    /// If there are none, or theta is not from 0 to below 1.
    pub fn new(popularity: Popularity, records: u64) -> Self {
        assert!(records > 0, "there must be a record to choose");
        let zipf = match popularity {
            Popularity::Uniform => None,
            Popularity::Zipf { theta } | Popularity::Latest { theta } => Some(Zipf::new(records, theta)),
        };
        Self { popularity, records, zipf }
    }

    /// A record.
    pub fn choose(&self, rng: &mut SmallRng) -> u64 {
        let rank = match &self.zipf {
            None => return rng.random_range(0..self.records),
            Some(zipf) => zipf.draw(rng).min(self.records - 1),
        };
        match self.popularity {
            Popularity::Latest { .. } => self.records - 1 - rank,
            _ => scatter(rank) % self.records,
        }
    }

    /// Makes one more record and says its number.
    pub fn insert(&mut self) -> u64 {
        self.records += 1;
        if let Some(zipf) = &mut self.zipf {
            zipf.grow(self.records);
        }
        self.records - 1
    }

    /// How many there are.
    pub fn records(&self) -> u64 {
        self.records
    }
}

/// Draws ranks in constant time by the method of Gray et al., "Quickly generating billion-record synthetic databases".
#[derive(Clone, Debug)]
struct Zipf {
    theta: f64,
    /// The sum of 1 / k^theta over all ranks.
    zeta: f64,
    ranks: u64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(ranks: u64, theta: f64) -> Self {
        assert!((0.0..1.0).contains(&theta), "theta lies from 0 to below 1");
        let zeta = (1..=ranks).map(|rank| (rank as f64).powf(-theta)).sum();
        let mut zipf = Self { theta, zeta, ranks, alpha: 1.0 / (1.0 - theta), eta: 0.0 };
        zipf.derive();
        zipf
    }

    fn grow(&mut self, ranks: u64) {
        self.zeta += (self.ranks + 1..=ranks).map(|rank| (rank as f64).powf(-self.theta)).sum::<f64>();
        self.ranks = ranks;
        self.derive();
    }

    fn derive(&mut self) {
        let zeta_two = 1.0 + 0.5_f64.powf(self.theta);
        self.eta = (1.0 - (2.0 / self.ranks as f64).powf(1.0 - self.theta)) / (1.0 - zeta_two / self.zeta);
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        let uniform = rng.random::<f64>();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 || self.ranks == 1 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(self.theta) || self.ranks == 2 {
            1
        } else {
            (self.ranks as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha)) as u64
        }
    }
}

/// FNV-1a of a number: what is popular lies all over the place.
fn scatter(rank: u64) -> u64 {
    rank.to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const DRAWS: usize = 200_000;

    #[test]
    fn the_first_ranks_have_the_share_that_the_law_gives_them() {
        let zipf = Zipf::new(1000, THETA_DEFAULT);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = vec![0_u64; 1000];
        for _ in 0..DRAWS {
            counts[zipf.draw(&mut rng).min(999) as usize] += 1;
        }
        for rank in [0, 1] {
            let share = 1.0 / ((rank + 1) as f64).powf(THETA_DEFAULT) / zipf.zeta;
            let found = counts[rank] as f64 / DRAWS as f64;
            assert!((found / share - 1.0).abs() < 0.03, "rank {rank}: {found} instead of {share}");
        }
        let top: u64 = counts[..100].iter().sum();
        let share: f64 = (1..=100).map(|rank| f64::from(rank).powf(-THETA_DEFAULT)).sum::<f64>() / zipf.zeta;
        // The method is exact for the first two ranks and close for the rest.
        assert!((top as f64 / DRAWS as f64 / share - 1.0).abs() < 0.05);
    }

    #[test]
    fn the_latest_is_the_most_popular_and_new_ones_count() {
        let mut keys = Keys::new(Popularity::Latest { theta: THETA_DEFAULT }, 100);
        let mut rng = SmallRng::seed_from_u64(1);
        assert_eq!(keys.insert(), 100);
        let mut counts = vec![0_u64; 101];
        for _ in 0..DRAWS {
            counts[keys.choose(&mut rng) as usize] += 1;
        }
        assert_eq!(counts.iter().max(), Some(&counts[100]));
        assert!(counts[100] > 2 * counts[98]);
    }

    #[test]
    fn growing_is_the_same_as_beginning_with_more() {
        let mut grown = Zipf::new(10, 0.5);
        grown.grow(1000);
        let whole = Zipf::new(1000, 0.5);
        assert!((grown.zeta - whole.zeta).abs() < 1e-9 && (grown.eta - whole.eta).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn records_exist(records in 1..2000_u64, theta in 0.0..0.999, seed: u64, which in 0..3) {
            let popularity = match which {
                0 => Popularity::Uniform,
                1 => Popularity::Zipf { theta },
                _ => Popularity::Latest { theta },
            };
            let keys = Keys::new(popularity, records);
            let mut rng = SmallRng::seed_from_u64(seed);
            for _ in 0..50 {
                prop_assert!(keys.choose(&mut rng) < records);
            }
        }
    }
}
