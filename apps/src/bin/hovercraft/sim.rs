//! `hovercraft sim`: whole clusters in a virtual world under one seed, with every fault and every invariant.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use r2p2::udp::Clock;
use serde_json::{Value, json};
use simulator::swarm::{self, Options, Report, Verdict};

use crate::output::{Failure, Table, grouped, say, tell};

/// A run broke an invariant.
const EXIT_SAFETY: u8 = 1;
/// A run did not recover.
const EXIT_LIVENESS: u8 = 3;
/// A run panicked.
const EXIT_PANIC: u8 = 4;
/// A run's history was too hard to check.
const EXIT_UNDECIDED: u8 = 5;

/// What happened last is shown this far back.
const RECENT: usize = 30;

/// Run whole clusters in a virtual world: real node and client cores, every fault, one seed.
///
/// A seed draws cluster size, mode, limits, workload and faults. First there are faults and every invariant is checked
/// at every step; then the faults stop, and a majority must come together and answer everybody. What clients saw must
/// be linearizable.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 clean, 1 an invariant was violated, 2 wrong use, 3 no recovery after the faults, \
    4 a panic, 5 a history too hard to check.\n\n\
    Examples:\n  \
        hovercraft sim run --seed 7\n  \
        hovercraft sim replay --seed 7             the same run again, with the last things that happened\n  \
        hovercraft sim swarm --minutes 5           as many runs as fit\n  \
        hovercraft sim swarm --runs 1000 --seed 1  the same thousand runs every time"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// One run.
    Run(One),
    /// The same run again, and what happened last.
    Replay(One),
    /// Many runs on all cores, until one fails.
    Swarm(Many),
}

#[derive(clap::Args, Debug)]
struct One {
    /// The run.
    #[arg(long)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Many {
    /// How many runs [default: 1000, or as many as fit into --minutes].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// For how long, in minutes.
    #[arg(long, value_parser = parse_minutes)]
    minutes: Option<Duration>,
    /// Decides which runs [default: drawn at random].
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number of minutes above 0, such as 5 or 0.5".to_owned();
    let minutes: f64 = text.parse().map_err(|_| wrong())?;
    if minutes > 0.0 { Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| wrong()) } else { Err(wrong()) }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Run(one) => Ok(run_one(one, false)),
        Command::Replay(one) => Ok(run_one(one, true)),
        Command::Swarm(many) => Ok(run_many(many)),
    }
}

fn run_one(one: &One, recent: bool) -> ExitCode {
    let options = Options::draw(one.seed);
    if !one.json {
        say(&options);
    }
    let report = swarm::run_options(&options);
    if one.json {
        say(report_to_json(&report));
    } else {
        tell_report(&report, recent);
    }
    exit_code(&report.verdict)
}

fn exit_code(verdict: &Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Clean => 0,
        Verdict::Safety(_) => EXIT_SAFETY,
        Verdict::Liveness(_) => EXIT_LIVENESS,
        Verdict::Panic(_) => EXIT_PANIC,
        Verdict::Undecided(_) => EXIT_UNDECIDED,
    })
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::Safety(_) => "safety",
        Verdict::Liveness(_) => "liveness",
        Verdict::Panic(_) => "panic",
        Verdict::Undecided(_) => "undecided",
    }
}

fn replay_command(seed: u64) -> String {
    format!("hovercraft sim replay --seed {seed}")
}

fn tell_report(report: &Report, recent: bool) {
    if recent || report.verdict != Verdict::Clean {
        say(format!("the last of what happened ({:.3} ms of virtual time in all):", report.time.as_secs_f64() * 1e3));
        for line in &report.recent[report.recent.len().saturating_sub(RECENT)..] {
            say(line);
        }
    }
    say(format!(
        "trace {:016x}: {} datagrams delivered, {} operations, {} answers",
        report.trace,
        grouped(report.delivered),
        grouped(report.operations),
        grouped(report.answered)
    ));
    say(&report.verdict);
    if report.verdict != Verdict::Clean {
        say(format!("seed {}; replay with: {}", report.seed, replay_command(report.seed)));
    }
}

fn report_to_json(report: &Report) -> Value {
    let detail = (report.verdict != Verdict::Clean).then(|| report.verdict.to_string());
    json!({
        "seed": report.seed,
        "verdict": verdict_name(&report.verdict),
        "detail": detail,
        "draw": Options::draw(report.seed).to_string().lines().collect::<Vec<_>>(),
        "replay": replay_command(report.seed),
        "trace": format!("{:016x}", report.trace),
        "delivered": report.delivered,
        "virtual_seconds": report.time.as_secs_f64(),
        "operations": report.operations,
        "answered": report.answered,
        "elections": report.elections,
        "faults": faults_of(report).into_iter().collect::<BTreeMap<_, _>>(),
        "recent": report.recent,
    })
}

fn faults_of(report: &Report) -> [(&'static str, u64); 6] {
    let faults = &report.faults;
    [
        ("datagrams lost", faults.lost),
        ("datagrams cut off", faults.cut),
        ("datagrams duplicated", faults.duplicated),
        ("datagrams corrupted", faults.corrupted),
        ("nodes killed", faults.kills),
        ("nodes paused", faults.pauses),
    ]
}

/// Sums over the runs of a swarm.
#[derive(Debug, Default)]
struct Summary {
    runs: u64,
    delivered: u64,
    operations: u64,
    answered: u64,
    elections: u64,
    virtual_time: Duration,
    /// Per kind of fault: how many, and in how many runs.
    faults: BTreeMap<&'static str, (u64, u64)>,
    undecided: Vec<u64>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.delivered += report.delivered;
        self.operations += report.operations;
        self.answered += report.answered;
        self.elections += report.elections;
        self.virtual_time += report.time;
        for (name, count) in faults_of(report) {
            let (sum, runs) = self.faults.entry(name).or_default();
            *sum += count;
            *runs += u64::from(count > 0);
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["what", "in all", "in runs"]);
        let mut row = |name: &str, sum: u64, runs: u64| table.row([name.to_owned(), grouped(sum), grouped(runs)]);
        for (name, (sum, runs)) in &self.faults {
            row(name, *sum, *runs);
        }
        row("elections won", self.elections, self.runs);
        row("datagrams delivered", self.delivered, self.runs);
        row("operations", self.operations, self.runs);
        row("answers", self.answered, self.runs);
        table
    }
}

fn run_many(many: &Many) -> ExitCode {
    let clock = Clock::new();
    let swarm_seed = many.seed.unwrap_or_else(rand_seed);
    let runs_max = many.runs.unwrap_or(if many.minutes.is_some() { u64::MAX } else { 1000 });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if !many.json {
        let runs = many.runs.or((many.minutes.is_none()).then_some(runs_max)).map(|runs| format!("{runs} runs"));
        let time = many.minutes.map(|time| format!("{time:?}"));
        let bounds: Vec<String> = [runs, time].into_iter().flatten().collect();
        say(format!("swarm of seed {swarm_seed}: {} on {threads} threads", bounds.join(" or ")));
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
                    let late = many.minutes.is_some_and(|limit| clock.now().since(r2p2::Instant::ZERO) >= limit);
                    if number >= runs_max || late {
                        break;
                    }
                    let report = swarm::run(swarm::seed_of(swarm_seed, number));
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
            if !many.json && io::stderr().is_terminal() {
                let summary = summary.lock().expect("nobody panics with it");
                let (runs, delivered) = (grouped(summary.runs), grouped(summary.delivered));
                eprint!("\r{runs} runs, {delivered} datagrams, {:.0?} ", clock.now().since(r2p2::Instant::ZERO));
            }
        }
    });
    if !many.json && io::stderr().is_terminal() {
        tell("");
    }
    let summary = summary.into_inner().expect("nobody panicked with it");
    let failed = failed.into_inner().expect("nobody panicked with it");
    if many.json {
        let faults: BTreeMap<_, _> = summary.faults.iter().map(|(name, (sum, _))| (*name, *sum)).collect();
        say(json!({
            "seed": swarm_seed,
            "runs": summary.runs,
            "delivered": summary.delivered,
            "operations": summary.operations,
            "answered": summary.answered,
            "elections": summary.elections,
            "virtual_seconds": summary.virtual_time.as_secs_f64(),
            "faults": faults,
            "undecided": summary.undecided,
            "failed": failed.as_ref().map(report_to_json),
        }));
    } else {
        say(summary.table());
        for seed in &summary.undecided {
            say(format!("too hard to check: {}", replay_command(*seed)));
        }
        match &failed {
            Some(report) => {
                say(Options::draw(report.seed));
                tell_report(report, true);
            }
            None => say(format!(
                "{} runs, {:.0} s of virtual time: {}",
                grouped(summary.runs),
                summary.virtual_time.as_secs_f64(),
                if summary.undecided.is_empty() { "all clean" } else { "none failed, some undecided" }
            )),
        }
    }
    match failed {
        Some(report) => exit_code(&report.verdict),
        None if summary.undecided.is_empty() => ExitCode::SUCCESS,
        None => ExitCode::from(EXIT_UNDECIDED),
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

    #[test]
    fn a_run_is_told_whole() {
        let report = swarm::run(swarm::seed_of(1, 2));
        let json = report_to_json(&report);
        assert_eq!(json["verdict"], "clean");
        assert_eq!(json["trace"], format!("{:016x}", report.trace));
        let mut summary = Summary::default();
        summary.add(&report);
        assert_eq!((summary.runs, summary.delivered), (1, report.delivered));
        assert_eq!(summary.faults.len(), faults_of(&report).len());
    }
}
