//! `sim mutants`: a simulator that has never failed proves nothing, so the swarm has to find deliberate mistakes.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hovercraft::mutation::Mutation;
use r2p2::Instant;
use r2p2::udp::Clock;
use serde_json::{Value, json};
use simulator::swarm::Case;
use simulator::swarm::mutants::{self, Hunt};

use super::report;
use crate::output::{EXIT_FAILED, Table, grouped, say};

/// Deliberate mistakes in the protocol: the swarm must find every one.
///
/// Each core takes one mistake after the other and runs the swarm with it until a run fails that is clean without it.
/// The exit code is 0 only if all are found.
#[derive(clap::Args, Debug)]
pub(super) struct Mutants {
    /// How long to look for one, in seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    seconds_per_mutant: u32,
    /// Decides which runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this one; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<Mutation>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How one search ended, and how long it took.
struct Ended {
    hunt: Hunt,
    real: Duration,
}

impl Mutants {
    pub(super) fn run(&self) -> ExitCode {
        let mutations = if self.only.is_empty() {
            Mutation::ALL.iter().copied().filter(|mutation| mutation.shows_in_swarm()).collect()
        } else {
            self.only.clone()
        };
        let ended = self.hunt(&mutations);
        let missed = ended.iter().filter(|ended| ended.hunt.found.is_none()).count();
        if self.json {
            let mutations: Vec<Value> = ended.iter().map(Ended::to_json).collect();
            say(json!({ "seed": self.seed, "mutations": mutations, "missed": missed }));
        } else {
            let mut table =
                Table::new(&["mutation", "breaks", "found by", "runs", "virtual", "real", "replay with: hovercraft"]);
            ended.iter().for_each(|ended| table.row(ended.row()));
            say(table);
            say(format!("{} of {} mutations found (swarm of seed {})", ended.len() - missed, ended.len(), self.seed));
        }
        ExitCode::from(if missed == 0 { 0 } else { EXIT_FAILED })
    }

    /// Looks for all of them, in their order.
    fn hunt(&self, mutations: &[Mutation]) -> Vec<Ended> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let limit = Duration::from_secs(self.seconds_per_mutant.into());
        let (clock, next) = (Clock::new(), AtomicUsize::new(0));
        let ended = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(&mutation) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let began = clock.now();
                        let real = || clock.now().since(began);
                        let hunt = mutants::hunt(mutation, self.seed, |runs| {
                            self.progress(clock.now(), mutation, runs);
                            real() < limit
                        });
                        let hunted = Ended { hunt, real: real() };
                        let mut ended = ended.lock().expect("nobody panics with it");
                        ended.push(hunted);
                        if let (false, Some(hunted)) = (self.json, ended.last()) {
                            clear_progress();
                            eprintln!("{:>3}/{} {}", ended.len(), mutations.len(), hunted.line());
                        }
                    }
                });
            }
        });
        let mut ended = ended.into_inner().expect("nobody panicked with it");
        ended.sort_by_key(|ended| mutations.iter().position(|mutation| *mutation == ended.hunt.mutation));
        ended
    }

    fn progress(&self, now: Instant, mutation: Mutation, runs: u64) {
        if !self.json && io::stderr().is_terminal() && runs.is_multiple_of(8) {
            clear_progress();
            eprint!("{:.0?}: {mutation}, {} runs", now.since(Instant::ZERO), grouped(runs));
        }
    }
}

impl Ended {
    fn found_by(&self) -> String {
        self.hunt.found.as_ref().map_or("NOT FOUND".to_owned(), |report| mutants::kind(&report.verdict))
    }

    fn line(&self) -> String {
        format!("{}: {} after {} runs, {:.1?}", self.hunt.mutation, self.found_by(), grouped(self.hunt.runs), self.real)
    }

    fn replay(&self) -> Option<String> {
        let seed = self.hunt.found.as_ref()?.seed;
        Some(format!("{} --mutation {}", report::replay_command(&Case::of(seed)), self.hunt.mutation))
    }

    fn row(&self) -> [String; 7] {
        let replay = self.replay().unwrap_or_default();
        [
            self.hunt.mutation.name().to_owned(),
            self.hunt.mutation.section().to_owned(),
            self.found_by(),
            grouped(self.hunt.runs),
            format!("{:.1} s", self.hunt.time.as_secs_f64()),
            format!("{:.1} s", self.real.as_secs_f64()),
            replay.trim_start_matches("hovercraft ").to_owned(),
        ]
    }

    fn to_json(&self) -> Value {
        let (hunt, found) = (&self.hunt, self.hunt.found.as_ref());
        json!({
            "mutation": hunt.mutation.name(),
            "section": hunt.mutation.section(),
            "description": hunt.mutation.description(),
            "found": found.is_some(),
            "found_by": found.map(|report| mutants::kind(&report.verdict)),
            "detail": found.map(|report| report.verdict.to_string()),
            "seed": found.map(|report| report.seed),
            "trace": found.map(|report| format!("{:016x}", report.trace)),
            "replay": self.replay(),
            "runs": hunt.runs,
            "virtual_seconds": hunt.time.as_secs_f64(),
            "real_seconds": self.real.as_secs_f64(),
        })
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
