//! Sums over the runs of a swarm.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::swarm::Report;
use simulator::swarm::coverage::STATES;
use simulator::world::KINDS;

use super::report;
use crate::output::{Table, grouped};

/// Sums over the runs of a swarm.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) runs: u64,
    pub(super) delivered: u64,
    operations: u64,
    answered: u64,
    pub(super) virtual_time: Duration,
    modes: BTreeMap<&'static str, u64>,
    /// Per kind of fault.
    faults: BTreeMap<&'static str, Count>,
    /// Per kind of message: delivered, reordered, lost, duplicated, corrupted.
    messages: BTreeMap<&'static str, [Count; 5]>,
    /// Per counter of a core.
    tally: BTreeMap<&'static str, Count>,
    /// Seeds of runs whose history was too hard to check.
    pub(super) undecided: Vec<u64>,
}

/// How often something was, and in how many runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    sum: u64,
    runs: u64,
}

impl Count {
    fn add(&mut self, count: u64) {
        self.sum += count;
        self.runs += u64::from(count > 0);
    }

    /// For a table. What never happened stands out.
    fn cells(self) -> [String; 2] {
        if self.sum == 0 { ["never".to_owned(), String::new()] } else { [grouped(self.sum), grouped(self.runs)] }
    }

    fn to_json(self) -> Value {
        json!({ "count": self.sum, "runs": self.runs })
    }
}

/// What can become of a message, in the order of the table.
const FATES: [&str; 5] = ["delivered", "reordered", "lost", "duplicated", "corrupted"];

impl Summary {
    pub(super) fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.delivered += report.delivered;
        self.operations += report.operations;
        self.answered += report.answered;
        self.virtual_time += report.time;
        *self.modes.entry(report.mode.name()).or_default() += 1;
        for (name, count) in report::struck(report) {
            self.faults.entry(name).or_default().add(count);
        }
        for (kind, fates) in report.traffic.iter() {
            let counts = self.messages.entry(kind).or_default();
            let fates = [fates.delivered, fates.reordered, fates.lost, fates.duplicated, fates.corrupted];
            for (count, fate) in counts.iter_mut().zip(fates) {
                count.add(fate);
            }
        }
        for (&name, &count) in &report.tally {
            self.tally.entry(name).or_default().add(count);
        }
    }

    /// Tables of faults, messages and states, one after the other.
    pub(super) fn tables(&self) -> [Table; 3] {
        let mut faults = Table::new(&["injected", "in all", "in runs"]);
        for (name, count) in &self.faults {
            faults.row([(*name).to_owned()].into_iter().chain(count.cells()));
        }
        let mut messages = Table::new(&[&["message"], &FATES[..], &["in runs"]].concat());
        for kind in KINDS {
            let counts = self.messages.get(kind).copied().unwrap_or_default();
            let [delivered, runs] = counts[0].cells();
            let others = counts[1..].iter().map(|count| count.cells()[0].clone());
            messages.row([kind.to_owned(), delivered].into_iter().chain(others).chain([runs]));
        }
        let mut states = Table::new(&["reached", "in all", "in runs"]);
        for (mode, runs) in &self.modes {
            states.row([format!("mode {mode}"), String::new(), grouped(*runs)]);
        }
        for (name, counter) in STATES {
            let count = self.tally.get(counter).copied().unwrap_or_default();
            states.row([(*name).to_owned()].into_iter().chain(count.cells()));
        }
        [faults, messages, states]
    }

    pub(super) fn to_json(&self, swarm_seed: u64) -> Value {
        let counts = |counts: &BTreeMap<&'static str, Count>| -> BTreeMap<&'static str, Value> {
            counts.iter().map(|(name, count)| (*name, count.to_json())).collect()
        };
        let message = |counts: &[Count; 5]| -> BTreeMap<&'static str, Value> {
            FATES.into_iter().zip(counts).map(|(fate, count)| (fate, count.to_json())).collect()
        };
        let messages: BTreeMap<_, _> = self.messages.iter().map(|(kind, of)| (*kind, message(of))).collect();
        json!({
            "seed": swarm_seed,
            "runs": self.runs,
            "modes": self.modes,
            "delivered": self.delivered,
            "operations": self.operations,
            "answered": self.answered,
            "virtual_seconds": self.virtual_time.as_secs_f64(),
            "faults": counts(&self.faults),
            "messages": messages,
            "counters": counts(&self.tally),
            "undecided": self.undecided,
        })
    }
}

#[cfg(test)]
mod tests {
    use simulator::swarm;

    use super::*;

    #[test]
    fn every_run_counts() {
        let seed = (0..).map(|number| swarm::seed_of(1, number)).find(|seed| swarm::Options::draw(*seed).nodes >= 3);
        let report = swarm::run(seed.expect("some run of several nodes"));
        let mut summary = Summary::default();
        summary.add(&report);
        summary.add(&report);
        assert_eq!((summary.runs, summary.delivered), (2, 2 * report.delivered));
        assert_eq!(summary.faults.len(), report::struck(&report).len());
        let [_, messages, states] = summary.tables().map(|table| table.to_string());
        assert!(messages.lines().any(|line| line.starts_with("feedback") && line.contains("never")), "{messages}");
        assert_eq!(messages.lines().count(), 1 + KINDS.len());
        assert_eq!(states.lines().count(), 1 + 1 + STATES.len());
        let json = summary.to_json(1);
        assert_eq!(json["messages"]["append"]["delivered"]["runs"], 2);
        assert_eq!(json["counters"]["writes_applied"]["count"], 2 * report.tally["writes_applied"]);
    }
}
