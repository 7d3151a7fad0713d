//! What operations ask for, before anybody has written it as bytes.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::keys::{Keys, Popularity, THETA_DEFAULT};

/// How long a synthetic operation computes, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTime {
    /// Always as long.
    Fixed {
        /// How long.
        us: f64,
    },
    /// Exponentially distributed.
    Exponential {
        /// On average.
        us: f64,
    },
    /// Usually short, sometimes long.
    Bimodal {
        /// Usually.
        us: f64,
        /// Sometimes.
        long_us: f64,
        /// How often, from 0 to 1.
        share: f64,
    },
}

impl ServiceTime {
    /// One operation's.
    pub fn draw(self, rng: &mut SmallRng) -> f64 {
        match self {
            Self::Fixed { us } => us,
            Self::Exponential { us } => -us * (1.0 - rng.random::<f64>()).ln(),
            Self::Bimodal { us, long_us, share } => {
                if rng.random::<f64>() < share {
                    long_us
                } else {
                    us
                }
            }
        }
    }

    /// On average.
    pub fn mean(self) -> f64 {
        match self {
            Self::Fixed { us } | Self::Exponential { us } => us,
            Self::Bimodal { us, long_us, share } => us * (1.0 - share) + long_us * share,
        }
    }
}

/// A kind of operation on records, and how often it occurs.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Mix {
    /// Share of reads of one record.
    pub read: f64,
    /// Share of writes of one record that is there.
    pub update: f64,
    /// Share of writes of a new record.
    pub insert: f64,
    /// Share of reads of several records in a row.
    pub scan: f64,
    /// Share of reads of a record followed by a write of it.
    pub read_modify_write: f64,
}

/// One operation on records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read a record.
    Read(u64),
    /// Write a record.
    Write(u64),
    /// Read so many records from this one on.
    Scan(u64, u64),
    /// Read a record, then write it.
    ReadModifyWrite(u64),
}

/// The core workloads of YCSB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ycsb {
    /// Half reads, half updates, zipf.
    A,
    /// 95 % reads, 5 % updates, zipf.
    B,
    /// Reads, zipf.
    C,
    /// 95 % reads of the latest, 5 % inserts.
    D,
    /// 95 % scans of up to 100 records, 5 % inserts, zipf.
    E,
    /// Half reads, half read-modify-write, zipf.
    F,
}

/// Most records of a scan in YCSB.
pub const SCAN_MAX: u64 = 100;

impl Ycsb {
    /// What it consists of.
    pub fn mix(self) -> Mix {
        let none = Mix::default();
        match self {
            Self::A => Mix { read: 0.5, update: 0.5, ..none },
            Self::B => Mix { read: 0.95, update: 0.05, ..none },
            Self::C => Mix { read: 1.0, ..none },
            Self::D => Mix { read: 0.95, insert: 0.05, ..none },
            Self::E => Mix { scan: 0.95, insert: 0.05, ..none },
            Self::F => Mix { read: 0.5, read_modify_write: 0.5, ..none },
        }
    }

    /// Which records it is about.
    pub fn popularity(self) -> Popularity {
        match self {
            Self::D => Popularity::Latest { theta: THETA_DEFAULT },
            _ => Popularity::Zipf { theta: THETA_DEFAULT },
        }
    }
}

/// A stream of operations on records.
#[derive(Debug)]
pub struct Operations {
    mix: Mix,
    keys: Keys,
    rng: SmallRng,
    /// New records get every `step`-th number, so that several streams never make the same one.
    first_new: u64,
    step: u64,
    inserted: u64,
}

impl Operations {
    /// Stream number `part` of `parts` over `records` records.
    ///
    /// # Panics
    /// If there is no record, or no such part.
    pub fn new(mix: Mix, popularity: Popularity, records: u64, seed: u64, part: u64, parts: u64) -> Self {
        assert!(part < parts, "there is no such part");
        Self {
            mix,
            keys: Keys::new(popularity, records),
            rng: SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part),
            first_new: records + part,
            step: parts,
            inserted: 0,
        }
    }

    /// The next one.
    pub fn draw(&mut self) -> Operation {
        let Mix { read, update, insert, scan, read_modify_write } = self.mix;
        let all = read + update + insert + scan + read_modify_write;
        let dice = self.rng.random::<f64>() * all;
        if dice < read {
            Operation::Read(self.choose())
        } else if dice < read + update {
            Operation::Write(self.choose())
        } else if dice < read + update + insert {
            self.inserted += 1;
            let number = self.keys.insert();
            Operation::Write(self.record(number))
        } else if dice < read + update + insert + scan {
            let first = self.choose();
            Operation::Scan(first, self.rng.random_range(1..=SCAN_MAX))
        } else {
            Operation::ReadModifyWrite(self.choose())
        }
    }

    /// Random bits for what the operation carries.
    pub fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    fn choose(&mut self) -> u64 {
        let number = self.keys.choose(&mut self.rng);
        self.record(number)
    }

    /// The record that this stream has as number `number`: those it made itself are numbered apart from other streams'.
    fn record(&self, number: u64) -> u64 {
        let old = self.keys.records() - self.inserted;
        if number < old { number } else { self.first_new + (number - old) * self.step }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn mixes_are_complete() {
        for workload in [Ycsb::A, Ycsb::B, Ycsb::C, Ycsb::D, Ycsb::E, Ycsb::F] {
            let Mix { read, update, insert, scan, read_modify_write } = workload.mix();
            let all = read + update + insert + scan + read_modify_write;
            assert!((all - 1.0_f64).abs() < 1e-12, "{workload:?}");
        }
    }

    #[test]
    fn shares_are_kept() {
        let mut stream = Operations::new(Ycsb::B.mix(), Ycsb::B.popularity(), 1000, 3, 0, 1);
        let writes = (0..10_000).filter(|_| matches!(stream.draw(), Operation::Write(_))).count();
        // 500 expected; four standard deviations are 87.
        assert!((413..=587).contains(&writes), "{writes}");
    }

    #[test]
    fn two_streams_insert_different_records_and_read_their_own() {
        let mix = Mix { insert: 0.5, read: 0.5, ..Mix::default() };
        let mut seen = Vec::new();
        for part in 0..2 {
            let mut stream = Operations::new(mix, Ycsb::D.popularity(), 10, 3, part, 2);
            let mut written = BTreeSet::new();
            for _ in 0..1000 {
                match stream.draw() {
                    Operation::Write(record) => assert!(record >= 10 && written.insert(record)),
                    Operation::Read(record) => assert!(record < 10 || written.contains(&record)),
                    other => panic!("{other:?} is not in the mix"),
                }
            }
            seen.push(written);
        }
        assert!(seen[0].is_disjoint(&seen[1]));
    }

    #[test]
    fn service_times_have_their_mean() {
        let mut rng = SmallRng::seed_from_u64(5);
        for time in [
            ServiceTime::Fixed { us: 3.0 },
            ServiceTime::Exponential { us: 10.0 },
            ServiceTime::Bimodal { us: 1.0, long_us: 100.0, share: 0.1 },
        ] {
            let mean = (0..100_000).map(|_| time.draw(&mut rng)).sum::<f64>() / 1e5;
            assert!((mean / time.mean() - 1.0).abs() < 0.05, "{time:?}: {mean}");
        }
    }
}
