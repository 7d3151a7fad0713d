//! Carries out the schedule: does what it says, undoes it, heals, waits until all is well, has it judged.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::client::{ClientOptions, Operator};
use r2p2::Instant;
use r2p2::udp::Clock;
use simulator::linearizability::kv::{KeyOp, Op, Ret};

use super::clients::{Load, Record};
use super::faults::Undo;
use super::group::Group;
use super::judge::{self, Finding, Judgement};
use super::lab::Lab;
use super::links::Links;
use super::operating::{Job, Replacement};
use super::report::{Report, SHOWN_MAX};
use super::schedule::{self, Kind};
use super::setup::Setup;
use super::watch::Watch;
use crate::HANG;

/// How often is looked at what there is to do.
const PACE: Duration = Duration::from_millis(5);
/// Violations after which a run ends: the first ones tell.
const VIOLATIONS_MAX: usize = 10;

/// What a run is to do.
#[derive(Debug)]
pub struct Plan {
    /// The cluster and its load.
    pub setup: Setup,
    /// How long it goes on beginning rounds.
    pub length: Duration,
    /// How long faults happen in a round.
    pub round: Duration,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
    /// Whether every round has all of them.
    pub always: bool,
    /// The `hovercraft` program.
    pub program: PathBuf,
    /// Where everything is written.
    pub directory: PathBuf,
    /// Whether to say on stderr what is going on.
    pub tell: bool,
}

/// Runs it, in an enclosure. It ends early, and well, when `stop` is set.
///
/// # Errors
/// What the system did not permit: nothing is known about the cluster then.
pub fn run(plan: Plan, stop: &AtomicBool) -> io::Result<Report> {
    let mut chaos = Chaos::begin(plan)?;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed)
        && !chaos.has_seen_enough()
        && (round == 0 || chaos.clock.now() < Instant::ZERO + chaos.plan.length)
    {
        chaos.round(round, stop)?;
        round += 1;
    }
    chaos.end()
}

pub(super) struct Chaos {
    pub(super) plan: Plan,
    pub(super) clock: Clock,
    pub(super) pace: (Sender<()>, Receiver<()>),
    pub(super) log: File,
    pub(super) options: ClientOptions,
    pub(super) lab: Lab,
    pub(super) group: Group,
    pub(super) links: Links,
    pub(super) load: Load,
    pub(super) watch: Watch,
    pub(super) operator: Operator,
    pub(super) undo: Vec<(Instant, Undo)>,
    pub(super) jobs: Vec<Job>,
    pub(super) replacement: Option<Replacement>,
    pub(super) judging: Option<(u64, JoinHandle<Judgement>)>,
    pub(super) report: Report,
}

impl Chaos {
    fn begin(plan: Plan) -> io::Result<Self> {
        let clock = Clock::new();
        let lab = Lab::new(&plan.setup.hosts())?;
        let config = plan.setup.config(&plan.directory);
        let options = config.client_options();
        let mut report = Report::new(plan.setup.clone());
        report.delays = lab.delays.name();
        let mut chaos = Self {
            group: Group::new(&plan.setup, &config, &plan.program, &plan.directory)?,
            log: File::create(plan.directory.join("events.log"))?,
            load: Load::new(&plan.setup, &options, clock),
            watch: Watch::new(&options)?,
            operator: Operator::connect(&options).map_err(io::Error::other)?,
            pace: mpsc::channel(),
            links: Links::default(),
            undo: Vec::new(),
            jobs: Vec::new(),
            replacement: None,
            judging: None,
            plan,
            clock,
            options,
            lab,
            report,
        };
        chaos.note(&format!("{}", chaos.plan.setup));
        chaos.group.start_wanted(clock.now())?;
        Ok(chaos)
    }

    pub(super) fn note(&mut self, what: &str) {
        let line = format!("{:10.3} {what}", self.clock.now().since(Instant::ZERO).as_secs_f64());
        if self.plan.tell {
            eprintln!("{line}");
        }
        _ = writeln!(self.log, "{line}");
    }

    pub(super) fn violation(&mut self, what: String) {
        self.note(&format!("VIOLATION {what}"));
        self.report.violations.push(what);
    }

    fn has_seen_enough(&self) -> bool {
        self.report.violations.len() >= VIOLATIONS_MAX
    }

    pub(super) fn turn(&mut self) -> io::Result<()> {
        _ = self.pace.1.recv_timeout(PACE);
        self.supervise()?;
        self.look_after_jobs()?;
        self.look_after_replacement()
    }

    fn round(&mut self, number: u64, stop: &AtomicBool) -> io::Result<()> {
        let length = self.plan.round;
        let schedule = schedule::round(self.plan.setup.seed, number, length, &self.plan.kinds, self.plan.always);
        self.note(&format!("round {number}: {} faults", schedule.len()));
        let began = self.clock.now();
        self.load.begin(number);
        let mut next = schedule.iter().peekable();
        loop {
            self.turn()?;
            let since = self.clock.now().since(began);
            while let Some(timed) = next.next_if(|timed| timed.at <= since) {
                self.inject(timed)?;
            }
            self.undo_due(self.clock.now())?;
            if since >= length || stop.load(Ordering::Relaxed) || self.has_seen_enough() {
                break;
            }
        }
        self.heal()?;
        let record = self.come_to_rest()?;
        self.judge(number, record)?;
        self.report.rounds += 1;
        Ok(())
    }

    /// Waits until something is so. False, and a violation, if it does not become so.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let end = self.clock.now() + HANG;
        while !is_so(self)? {
            if self.has_seen_enough() {
                return Ok(false);
            }
            if self.clock.now() > end {
                self.violation(format!("{HANG:?} after all faults were undone: {what}"));
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    fn judge(&mut self, round: u64, record: Record) -> io::Result<()> {
        let mut keys: Vec<Bytes> = record
            .history
            .operations()
            .filter_map(|operation| match &operation.input {
                Op::Key { key, .. } => Some(key.clone()),
                Op::Scan { .. } => None,
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut record = record;
        self.load.read(keys);
        self.until("the keys cannot be read", |chaos| Ok(chaos.load.collect(Duration::ZERO, &mut record)))?;
        self.note(&format!("round {round}: {:?}", record.outcomes));
        self.keep(&mut record);
        self.judged();
        let history = record.history;
        self.judging = Some((round, thread::spawn(move || judge::judge(&history))));
        Ok(())
    }

    fn keep(&mut self, record: &mut Record) {
        for (outcome, count) in &record.outcomes {
            *self.report.outcomes.entry(outcome).or_default() += count;
        }
        self.report.repeated += record.repeated;
        self.report.client_crashes += record.crashes;
        for wrong in record.wrong.drain(..) {
            self.violation(wrong);
        }
    }

    /// Takes the verdict on the round before.
    fn judged(&mut self) {
        let Some((round, thread)) = self.judging.take() else { return };
        match thread.join() {
            Ok(judgement) => {
                for (number, Finding { what, history }) in judgement.violations.iter().take(SHOWN_MAX).enumerate() {
                    self.note(&format!("VIOLATION in round {round}: {what}"));
                    let path = self.plan.directory.join(format!("violation-{round}-{number}.txt"));
                    _ = fs::write(path, format!("{what}\n\n{history}"));
                }
                self.report.judgement.add(judgement);
            }
            Err(_) => self.violation(format!("the judge of round {round} panicked")),
        }
    }

    fn end(mut self) -> io::Result<Report> {
        self.judged();
        let settled: Vec<Bytes> = self.report.judgement.settled.keys().cloned().collect();
        self.report.read_again = settled.len() as u64;
        self.load.read(settled);
        let mut record = Record::default();
        self.until("the keys cannot be read again", |chaos| Ok(chaos.load.collect(Duration::ZERO, &mut record)))?;
        for operation in record.history.operations() {
            let Op::Key { key, op: KeyOp::Get } = &operation.input else { continue };
            let before = self.report.judgement.settled.get(key);
            match &operation.output {
                Some(Ret::Value(value)) if Some(value) == before => {}
                now => {
                    let what = format!(
                        "key {}: it was {before:?} after its round, and is {now:?} at the end",
                        key.escape_ascii()
                    );
                    self.report.violations.push(what);
                }
            }
        }
        self.report.violations.append(&mut record.wrong);
        for host in self.plan.setup.hosts() {
            let (multicast, unicast) = self.lab.dropped(host);
            self.report.dropped.0 += multicast;
            self.report.dropped.1 += unicast;
        }
        let gap = self.load.longest_gap();
        self.report.longest_gap = Duration::from_nanos(gap.nanos);
        self.report.longest_gap_until = Duration::from_nanos(gap.until);
        self.report.took = self.clock.now().since(Instant::ZERO);
        let text = self.report.to_string();
        fs::write(self.plan.directory.join("report.txt"), &text)?;
        fs::write(self.plan.directory.join("report.json"), self.report.to_json().to_string())?;
        Ok(self.report)
    }
}

/// The directory of a run: fresh, where it was wanted or among the temporary files.
///
/// # Errors
/// If it cannot be made.
pub fn make_directory(wanted: Option<&Path>) -> io::Result<PathBuf> {
    let path = wanted
        .map_or_else(|| std::env::temp_dir().join(format!("hovercraft-chaos-{}", std::process::id())), Path::to_owned);
    fs::create_dir_all(&path)?;
    fs::canonicalize(path)
}
