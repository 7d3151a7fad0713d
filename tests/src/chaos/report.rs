//! What is said at the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::judge::Judgement;
use super::schedule::Kind;
use super::setup::Setup;

/// Violations that are written out: the first ones tell.
pub const SHOWN_MAX: usize = 20;

/// How a fault went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// It happened.
    Done,
    /// It was left out, because the cluster does not promise to survive it just then, or there was nobody to hit.
    Skipped,
    /// It is a request to the cluster, which refused it or did not do it in time.
    Refused,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}

/// Everything that was counted.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the run was about.
    pub setup: Setup,
    /// How delays were made.
    pub delays: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Rounds that were judged.
    pub rounds: u64,
    /// Faults, by kind and fate.
    pub faults: BTreeMap<(Kind, Fate), u64>,
    /// Datagrams that the rules dropped: to a group, and to one host.
    pub dropped: (u64, u64),
    /// Operations, by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Copies of requests beyond the first.
    pub repeated: u64,
    /// Clients that were replaced with everything they had in flight.
    pub client_crashes: u64,
    /// All histories.
    pub judgement: Judgement,
    /// Keys that were read again at the end of the run.
    pub read_again: u64,
    /// The longest time without a completed operation.
    pub longest_gap: Duration,
    /// When that was over.
    pub longest_gap_until: Duration,
    /// The longest time from the healing of everything until every client had been answered again, several times.
    pub longest_recovery: Duration,
    /// Terms in which somebody led, and who. Beyond the first, each is a change of leader.
    pub led: BTreeSet<(u64, u16)>,
    /// Rounds after which all replicas were compared and equal.
    pub equal_states: u64,
    /// Snapshots that nodes went on from.
    pub snapshots_installed: u64,
    /// Nodes that gave up joining and were started again, as their supervisor would.
    pub gave_up_joining: u64,
    /// Whatever must not be.
    pub violations: Vec<String>,
}

impl Report {
    /// Nothing has happened yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            delays: "none",
            took: Duration::ZERO,
            rounds: 0,
            faults: BTreeMap::new(),
            dropped: (0, 0),
            outcomes: BTreeMap::new(),
            repeated: 0,
            client_crashes: 0,
            judgement: Judgement::default(),
            read_again: 0,
            longest_gap: Duration::ZERO,
            longest_gap_until: Duration::ZERO,
            longest_recovery: Duration::ZERO,
            led: BTreeSet::new(),
            equal_states: 0,
            snapshots_installed: 0,
            gave_up_joining: 0,
            violations: Vec::new(),
        }
    }

    /// Counts a fault.
    pub fn fault(&mut self, kind: Kind, fate: Fate) {
        *self.faults.entry((kind, fate)).or_default() += 1;
    }

    /// How many faults had that fate.
    pub fn count(&self, fate: Fate) -> u64 {
        self.faults.iter().filter(|((_, other), _)| *other == fate).map(|(_, count)| count).sum()
    }

    /// Whether all is well.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.judgement.violations.is_empty() && self.rounds > 0
    }

    /// How often leadership changed.
    pub fn leader_changes(&self) -> usize {
        self.led.len().saturating_sub(1)
    }

    /// What does not hold, all of it.
    pub fn all_violations(&self) -> Vec<String> {
        let keys = self.judgement.violations.iter().map(|finding| finding.what.clone());
        self.violations.iter().cloned().chain(keys).collect()
    }

    /// For programs: one object.
    pub fn to_json(&self) -> Value {
        let mut faults = BTreeMap::<_, BTreeMap<_, u64>>::new();
        for ((kind, fate), count) in &self.faults {
            faults.entry(kind.name()).or_default().insert(fate.name(), *count);
        }
        let judgement = &self.judgement;
        json!({
            "passed": self.passed(),
            "seed": self.setup.seed,
            "nodes": self.setup.nodes,
            "mode": self.setup.mode.name(),
            "fan_out": format!("{:?}", self.setup.fan_out).to_lowercase(),
            "durability": self.setup.durability.name(),
            "clients": self.setup.clients,
            "in_flight": self.setup.in_flight,
            "delays": self.delays,
            "seconds": self.took.as_secs_f64(),
            "rounds": self.rounds,
            "faults": faults,
            "faults_injected": self.count(Fate::Done),
            "datagrams_dropped_multicast": self.dropped.0,
            "datagrams_dropped_unicast": self.dropped.1,
            "operations": judgement.operations,
            "outcomes": self.outcomes,
            "repeated": self.repeated,
            "client_crashes": self.client_crashes,
            "acknowledged_writes": judgement.acknowledged_writes,
            "acknowledged_increments": judgement.increments,
            "lost_increments": judgement.lost.to_string(),
            "doubled_increments": judgement.doubled.to_string(),
            "keys": judgement.keys,
            "keys_undecided": judgement.undecided.len(),
            "keys_read_again": self.read_again,
            "longest_gap_ms": self.longest_gap.as_secs_f64() * 1e3,
            "longest_gap_until_s": self.longest_gap_until.as_secs_f64(),
            "longest_recovery_ms": self.longest_recovery.as_secs_f64() * 1e3,
            "leader_changes": self.leader_changes(),
            "equal_states": self.equal_states,
            "snapshots_installed": self.snapshots_installed,
            "gave_up_joining": self.gave_up_joining,
            "violations": self.all_violations(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judgement = &self.judgement;
        let operations = self.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}"));
        let operations: Vec<_> = operations.collect();
        writeln!(f, "run              {}", self.setup)?;
        writeln!(f, "rounds           {} in {:.0} s", self.rounds, self.took.as_secs_f64())?;
        writeln!(f, "faults           {} (delays by {})", self.count(Fate::Done), self.delays)?;
        for kind in Kind::ALL {
            let of = |fate| self.faults.get(&(kind, fate)).copied().unwrap_or(0);
            let counts = [Fate::Done, Fate::Skipped, Fate::Refused].map(of);
            if counts != [0; 3] {
                let [done, skipped, refused] = counts;
                write!(f, "  {:<14} {done}", kind.name())?;
                for (count, what) in [(skipped, "skipped"), (refused, "refused")] {
                    if count > 0 {
                        write!(f, ", {count} {what}")?;
                    }
                }
                writeln!(f)?;
            }
        }
        writeln!(f, "dropped          {} datagrams to groups, {} to one host", self.dropped.0, self.dropped.1)?;
        writeln!(f, "operations       {}", operations.join(", "))?;
        writeln!(f, "                 {} repeated, {} clients crashed", self.repeated, self.client_crashes)?;
        writeln!(
            f,
            "longest gap      {:.0} ms without a completed operation, until {:.1} s",
            self.longest_gap.as_secs_f64() * 1e3,
            self.longest_gap_until.as_secs_f64()
        )?;
        writeln!(
            f,
            "healed           all clients served again within {:.0} ms",
            self.longest_recovery.as_secs_f64() * 1e3
        )?;
        writeln!(f, "leader changes   {}", self.leader_changes())?;
        writeln!(
            f,
            "replicas         in the same state after {} of {} rounds; {} went on from snapshots, {} gave up joining at first",
            self.equal_states, self.rounds, self.snapshots_installed, self.gave_up_joining
        )?;
        writeln!(
            f,
            "writes           {} acknowledged; {} keys, {} of them read again at the end",
            judgement.acknowledged_writes, judgement.keys, self.read_again
        )?;
        writeln!(
            f,
            "increments       {} acknowledged, {} lost, {} executed twice",
            judgement.increments, judgement.lost, judgement.doubled
        )?;
        let undecided = match judgement.undecided.len() {
            0 => String::new(),
            count => format!(" ({count} of {} keys undecided)", judgement.keys),
        };
        let linearizable = if judgement.violations.is_empty() { "yes" } else { "NO" };
        writeln!(f, "linearizable     {linearizable}{undecided}")?;
        let violations = self.all_violations();
        for violation in violations.iter().take(SHOWN_MAX) {
            writeln!(f, "VIOLATION        {violation}")?;
        }
        if violations.len() > SHOWN_MAX {
            writeln!(f, "                 and {} more", violations.len() - SHOWN_MAX)?;
        }
        write!(f, "{}", if self.passed() { "PASSED" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::setup::Told;
    use super::*;

    #[test]
    fn one_violation_is_a_failure_and_so_is_a_run_without_a_round() {
        let mut report = Report::new(Setup::draw(7, Told::default()));
        assert!(!report.passed());
        report.rounds = 1;
        report.fault(Kind::Kill, Fate::Done);
        report.fault(Kind::Kill, Fate::Done);
        report.fault(Kind::Kill, Fate::Skipped);
        report.led = BTreeSet::from([(1, 1), (2, 3), (5, 1)]);
        assert!(report.passed());
        let text = report.to_string();
        assert!(text.ends_with("PASSED") && text.contains("  kill           2, 1 skipped\n"), "{text}");
        let json = report.to_json();
        assert_eq!((&json["faults"]["kill"]["done"], &json["faults_injected"]), (&json!(2), &json!(2)));
        assert_eq!((&json["leader_changes"], &json["passed"]), (&json!(2), &json!(true)));

        report.violations.push("n2 panicked".to_owned());
        assert!(!report.passed());
        assert!(report.to_string().contains("VIOLATION        n2 panicked\n"));
        assert_eq!(report.to_json()["violations"], json!(["n2 panicked"]));
    }
}
