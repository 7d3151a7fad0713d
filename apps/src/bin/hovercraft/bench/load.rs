//! The load, as the command line describes it.

use std::time::Duration;

use clap::ValueEnum;
use measure::arrivals::Process;
use measure::generator::{Options, Requests};
use measure::keys::{Popularity, THETA_DEFAULT};
use measure::load::Pace;
use measure::workload::{Mix, Operations, ServiceTime, Ycsb};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::requests;
use crate::node::App;
use crate::output::Failure;

/// Most logical clients: each is a socket.
const CLIENTS_MAX: u64 = 512;
/// Most records that a run writes before it begins.
const RECORDS_MAX: u64 = 10_000_000;

/// What is asked for, how often, from where.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// What operations do.
    #[arg(long, value_enum, default_value_t = WorkloadArg::Synthetic, help_heading = "Load")]
    pub(crate) workload: WorkloadArg,
    /// Bytes of a synthetic request, at least 9.
    #[arg(long, value_name = "BYTES", default_value_t = 24, help_heading = "Load")]
    pub(crate) request_size: usize,
    /// Bytes of a synthetic reply.
    #[arg(long, value_name = "BYTES", default_value_t = 8, help_heading = "Load")]
    pub(crate) reply_size: u32,
    /// How long a synthetic operation computes, in µs: `10`, `exp:10` (exponentially distributed), `bimodal:1,100,0.1` (10 %
    /// take 100).
    #[arg(long, value_name = "TIME", value_parser = parse_service_time, default_value = "0", help_heading = "Load")]
    pub(crate) service_time: ServiceTime,
    /// Share of operations that only read: 50%, 0.5. Not for ycsb, which says it itself.
    #[arg(long, value_name = "SHARE", value_parser = parse_whole_share, default_value = "0", help_heading = "Load")]
    pub(crate) reads: f64,
    /// Records of the key-value store, written before.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=RECORDS_MAX), help_heading = "Load")]
    pub(crate) records: u64,
    /// Bytes of a value of the key-value store [default: 24, 1000 for ycsb].
    #[arg(long, value_name = "BYTES", help_heading = "Load")]
    pub(crate) value_size: Option<usize>,
    /// Logical clients, each with a socket and a session.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX), help_heading = "Load")]
    pub(crate) clients: u64,
    /// Threads that they are on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), help_heading = "Load")]
    pub(crate) load_threads: u64,
    /// How operations of an open loop follow each other.
    #[arg(long, value_enum, default_value_t = ProcessArg::Poisson, help_heading = "Load")]
    pub(crate) arrivals: ProcessArg,
    /// Load before anything counts, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::parse_seconds, default_value = "1", help_heading = "Load")]
    pub(crate) warm_up: Duration,
    /// What counts, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::parse_seconds, default_value = "5", help_heading = "Load")]
    pub(crate) duration: Duration,
    /// An operation without an answer is given up after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::parse_seconds, default_value = "2", help_heading = "Load")]
    pub(crate) give_up: Duration,
    /// Decides arrivals, keys and what else is drawn.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(crate) seed: u64,
}

/// What operations do.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WorkloadArg {
    /// Requests that say how long they take and what they answer.
    Synthetic,
    /// Sets and gets of the key-value store, all records alike.
    Kv,
    /// The same, some records much more popular than others (Zipf, 0.99).
    KvZipf,
    /// YCSB A: half reads, half updates.
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates.
    YcsbB,
    /// YCSB C: only reads.
    YcsbC,
    /// YCSB D: 95 % reads of the latest, 5 % inserts.
    YcsbD,
    /// YCSB E: 95 % scans of up to 100 records, 5 % inserts.
    YcsbE,
    /// YCSB F: half reads, half read-modify-write, which counts as one operation.
    YcsbF,
}

/// How operations of an open loop follow each other.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProcessArg {
    /// Exponential gaps, as from very many clients.
    Poisson,
    /// Equal gaps.
    Fixed,
}

impl From<ProcessArg> for Process {
    fn from(process: ProcessArg) -> Self {
        match process {
            ProcessArg::Poisson => Self::Poisson,
            ProcessArg::Fixed => Self::Fixed,
        }
    }
}

impl WorkloadArg {
    fn ycsb(self) -> Option<Ycsb> {
        match self {
            Self::Synthetic | Self::Kv | Self::KvZipf => None,
            Self::YcsbA => Some(Ycsb::A),
            Self::YcsbB => Some(Ycsb::B),
            Self::YcsbC => Some(Ycsb::C),
            Self::YcsbD => Some(Ycsb::D),
            Self::YcsbE => Some(Ycsb::E),
            Self::YcsbF => Some(Ycsb::F),
        }
    }

    /// The service that understands it.
    pub(crate) fn app(self) -> App {
        if self == Self::Synthetic { App::Synthetic } else { App::Kv }
    }
}

impl LoadArgs {
    /// What makes no sense together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = |why: String| Err(Failure::usage(why));
        if self.load_threads > self.clients {
            return wrong(format!("{} threads have nothing to do with {} clients", self.load_threads, self.clients));
        }
        if self.request_size < hovercraft_apps::synthetic::REQUEST_LEN {
            return wrong(format!(
                "a synthetic request has at least {} bytes",
                hovercraft_apps::synthetic::REQUEST_LEN
            ));
        }
        if self.value_len() > hovercraft_apps::kv::VALUE_MAX {
            return wrong(format!("a value has at most {} bytes", hovercraft_apps::kv::VALUE_MAX));
        }
        if self.duration.is_zero() {
            return wrong("--duration 0 measures nothing".to_owned());
        }
        Ok(())
    }

    /// For the generator.
    pub(crate) fn options(&self, pace: Pace, cores: Vec<usize>, ttl: u32, spin: Duration) -> Options {
        Options {
            pace,
            clients: self.clients as usize,
            threads: self.load_threads as usize,
            warm_up: self.warm_up,
            duration: self.duration,
            operations_max: None,
            seed: self.seed,
            cores,
            ttl,
            spin,
        }
    }

    /// The stream of thread `part`.
    pub(crate) fn requests(&self, part: usize, units_per_us: f64) -> Box<dyn Requests> {
        if self.workload == WorkloadArg::Synthetic {
            return Box::new(requests::Synthetic {
                rng: SmallRng::seed_from_u64(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ part as u64),
                time: self.service_time,
                units_per_us,
                request_len: self.request_size,
                reply_len: self.reply_size,
                read_share: self.reads,
            });
        }
        let (mix, popularity) = match self.workload.ycsb() {
            Some(ycsb) => (ycsb.mix(), ycsb.popularity()),
            None => {
                let mix = Mix { read: self.reads, update: 1.0 - self.reads, ..Mix::default() };
                let zipf = Popularity::Zipf { theta: THETA_DEFAULT };
                (mix, if self.workload == WorkloadArg::KvZipf { zipf } else { Popularity::Uniform })
            }
        };
        let (part, parts) = (part as u64, self.load_threads);
        let operations = Operations::new(mix, popularity, self.records, self.seed, part, parts);
        Box::new(requests::Kv { operations, value_len: self.value_len() })
    }

    /// The stream of thread `part` that writes all records once, and how many requests that takes; `None` if there are no
    /// records.
    pub(crate) fn fill(&self, part: usize) -> Option<Box<dyn Requests>> {
        let fill = requests::Fill { next: part as u64, step: self.load_threads, value_len: self.value_len() };
        (self.workload != WorkloadArg::Synthetic).then(|| Box::new(fill) as Box<dyn Requests>)
    }

    /// Bytes of a value of the key-value store.
    pub(crate) fn value_len(&self) -> usize {
        self.value_size.unwrap_or(if self.workload.ycsb().is_some() { 1000 } else { 24 })
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        let what = match self.workload {
            WorkloadArg::Synthetic => {
                let time = match self.service_time {
                    ServiceTime::Fixed { us } => format!("{us} µs"),
                    ServiceTime::Exponential { us } => format!("{us} µs (exponential)"),
                    ServiceTime::Bimodal { us, long_us, share } => {
                        format!("{us} µs, {:.1} % of them {long_us} µs", share * 100.0)
                    }
                };
                format!("synthetic, {time}, {} B requests, {} B replies", self.request_size, self.reply_size)
            }
            _ => format!(
                "{}, {} records of {} B",
                self.workload.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
                self.records,
                self.value_len()
            ),
        };
        let reads = match self.workload.ycsb() {
            None => format!(", {:.0} % reads", self.reads * 100.0),
            Some(_) => String::new(),
        };
        format!("{what}{reads}; {} clients on {} threads", self.clients, self.load_threads)
    }

    /// For the JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "describes": self.describe(),
            "clients": self.clients,
            "threads": self.load_threads,
            "warm_up_s": self.warm_up.as_secs_f64(),
            "duration_s": self.duration.as_secs_f64(),
            "seed": self.seed,
        })
    }
}

/// A share that may be the whole.
fn parse_whole_share(text: &str) -> Result<f64, String> {
    if matches!(text.trim(), "1" | "100%") { Ok(1.0) } else { crate::parse_share(text) }
}

fn parse_service_time(text: &str) -> Result<ServiceTime, String> {
    let number = |text: &str| {
        let number = text.trim().parse::<f64>().ok().filter(|number| (0.0..=100_000.0).contains(number));
        number.ok_or_else(|| format!("{text:?} is no time in µs from 0 to 100000"))
    };
    match text.split_once(':') {
        None => Ok(ServiceTime::Fixed { us: number(text)? }),
        Some(("fixed", us)) => Ok(ServiceTime::Fixed { us: number(us)? }),
        Some(("exp", us)) => Ok(ServiceTime::Exponential { us: number(us)? }),
        Some(("bimodal", rest)) => match rest.split(',').collect::<Vec<_>>()[..] {
            [us, long_us, share] => Ok(ServiceTime::Bimodal {
                us: number(us)?,
                long_us: number(long_us)?,
                share: crate::parse_share(share)?,
            }),
            _ => Err("write bimodal:SHORT,LONG,SHARE, such as bimodal:1,100,10%".to_owned()),
        },
        Some(_) => Err("write 10, exp:10 or bimodal:1,100,10%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_times() {
        assert_eq!(parse_service_time("0"), Ok(ServiceTime::Fixed { us: 0.0 }));
        assert_eq!(parse_service_time("exp:2.5"), Ok(ServiceTime::Exponential { us: 2.5 }));
        assert_eq!(
            parse_service_time("bimodal:1,100,10%"),
            Ok(ServiceTime::Bimodal { us: 1.0, long_us: 100.0, share: 0.1 })
        );
        for wrong in ["", "x", "-1", "exp", "exp:", "bimodal:1,2", "bimodal:1,2,100%", "uniform:3"] {
            assert!(parse_service_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_may_be_reads() {
        assert_eq!(parse_whole_share("100%"), Ok(1.0));
        assert_eq!(parse_whole_share("75%"), Ok(0.75));
        assert!(parse_whole_share("101%").is_err());
    }
}
