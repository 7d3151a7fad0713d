//! `sim swarm`: many runs on all cores, until one fails.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use r2p2::udp::Clock;
use simulator::swarm::{self, Case, Overrides, Report, Verdict};

use super::departures::{Departures, parse_seed};
use super::report::{self, EXIT_UNDECIDED};
use super::smaller::Smaller;
use super::summary::Summary;
use crate::output::{Failure, grouped, say, tell};

/// Many runs on all cores, until one fails.
#[derive(clap::Args, Debug)]
pub(super) struct Swarm {
    /// How many runs [default: 1000, or as many as fit into --minutes].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// For how long, in minutes.
    #[arg(long, value_parser = parse_minutes)]
    minutes: Option<Duration>,
    /// Decides which runs [default: drawn at random].
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    #[command(flatten)]
    departures: Departures,
    #[command(flatten)]
    smaller: Smaller,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number of minutes above 0, such as 5 or 0.5".to_owned();
    let minutes: f64 = text.parse().map_err(|_| wrong())?;
    if minutes > 0.0 { Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| wrong()) } else { Err(wrong()) }
}

impl Swarm {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let overrides = self.departures.overrides()?;
        let swarm_seed = self.seed.unwrap_or_else(rand_seed);
        let (summary, failed) = self.all(swarm_seed, &overrides);
        let failed = failed.map(|report| (Case { seed: report.seed, overrides: overrides.clone() }, report));
        if !self.json {
            Self::tell(&summary, &overrides, failed.as_ref());
        }
        let shrunk = failed.as_ref().and_then(|(case, report)| self.smaller.of(case, report, self.json));
        match (&failed, &shrunk) {
            _ if self.json => {
                let mut json = summary.to_json(swarm_seed);
                json["failed"] =
                    failed.as_ref().map(|(case, report)| report::to_json(case, report, shrunk.as_ref())).into();
                say(json);
            }
            (Some((case, _)), Some(shrunk)) => report::tell_shrunk(case, shrunk),
            _ => {}
        }
        Ok(match failed {
            Some((_, report)) => report::exit_code(&report.verdict),
            None if summary.undecided.is_empty() => ExitCode::SUCCESS,
            None => ExitCode::from(EXIT_UNDECIDED),
        })
    }

    /// Runs until there have been enough, or one has failed: that one.
    fn all(&self, swarm_seed: u64, overrides: &Overrides) -> (Summary, Option<Report>) {
        let clock = Clock::new();
        let runs_max = self.runs.unwrap_or(if self.minutes.is_some() { u64::MAX } else { 1000 });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if !self.json {
            let runs = self.runs.or((self.minutes.is_none()).then_some(runs_max)).map(|runs| format!("{runs} runs"));
            let time = self.minutes.map(|time| format!("{time:?}"));
            let bounds: Vec<String> = [runs, time].into_iter().flatten().collect();
            say(format!("swarm of seed {swarm_seed}{overrides}: {} on {threads} threads", bounds.join(" or ")));
        }
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (summary, failed) = (Mutex::new(Summary::default()), Mutex::new(None::<Report>));
        let (done, progress) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let done = done.clone();
                let (next, stop, summary, failed, clock) = (&next, &stop, &summary, &failed, &clock);
                scope.spawn(move || {
                    let _done = done;
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let late = self.minutes.is_some_and(|limit| clock.now().since(r2p2::Instant::ZERO) >= limit);
                        if number >= runs_max || late {
                            break;
                        }
                        let report = swarm::run_options(&overrides.draw(swarm::seed_of(swarm_seed, number)));
                        let mut summary = summary.lock().expect("nobody panics with it");
                        summary.add(&report);
                        match report.verdict {
                            Verdict::Clean => {}
                            Verdict::Undecided(_) => summary.undecided.push(report.seed),
                            _ => {
                                stop.store(true, Ordering::Relaxed);
                                failed.lock().expect("nobody panics with it").get_or_insert(report);
                            }
                        }
                    }
                });
            }
            drop(done);
            // Nothing is ever sent: the channel ends when the last thread has.
            while progress.recv_timeout(Duration::from_millis(500)) == Err(mpsc::RecvTimeoutError::Timeout) {
                if !self.json && io::stderr().is_terminal() {
                    let summary = summary.lock().expect("nobody panics with it");
                    let (runs, delivered) = (grouped(summary.runs), grouped(summary.delivered));
                    eprint!("\r{runs} runs, {delivered} datagrams, {:.0?} ", clock.now().since(r2p2::Instant::ZERO));
                }
            }
        });
        if !self.json && io::stderr().is_terminal() {
            tell("");
        }
        let summary = summary.into_inner().expect("nobody panicked with it");
        (summary, failed.into_inner().expect("nobody panicked with it"))
    }

    fn tell(summary: &Summary, overrides: &Overrides, failed: Option<&(Case, Report)>) {
        for table in summary.tables() {
            say(format!("{table}\n"));
        }
        for &seed in &summary.undecided {
            let case = Case { seed, overrides: overrides.clone() };
            say(format!("too hard to check: {}", report::replay_command(&case)));
        }
        match failed {
            Some((case, report)) => {
                say(case.options());
                report::tell(case, report, true);
            }
            None => say(format!(
                "{} runs, {} datagrams, {:.0} s of virtual time: {}",
                grouped(summary.runs),
                grouped(summary.delivered),
                summary.virtual_time.as_secs_f64(),
                if summary.undecided.is_empty() { "all clean" } else { "none failed, some undecided" }
            )),
        }
    }
}

/// A seed nobody chose; it is printed.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to type.
    RandomState::new().hash_one(0) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes() {
        assert_eq!(parse_minutes("0.5"), Ok(Duration::from_secs(30)));
        for wrong in ["", "0", "-1", "NaN", "1e300", "x"] {
            assert!(parse_minutes(wrong).is_err(), "{wrong}");
        }
    }
}
