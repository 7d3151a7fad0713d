//! Sums over the runs of a swarm.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::swarm::Report;

use super::report;
use crate::output::{Table, grouped};

/// Sums over the runs of a swarm.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) runs: u64,
    pub(super) delivered: u64,
    operations: u64,
    answered: u64,
    elections: u64,
    pub(super) virtual_time: Duration,
    /// Per kind of fault: how many, and in how many runs.
    faults: BTreeMap<&'static str, (u64, u64)>,
    /// Seeds of runs whose history was too hard to check.
    pub(super) undecided: Vec<u64>,
}

impl Summary {
    pub(super) fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.delivered += report.delivered;
        self.operations += report.operations;
        self.answered += report.answered;
        self.elections += report.elections;
        self.virtual_time += report.time;
        for (name, count) in report::faults(report) {
            let (sum, runs) = self.faults.entry(name).or_default();
            *sum += count;
            *runs += u64::from(count > 0);
        }
    }

    pub(super) fn table(&self) -> Table {
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

    pub(super) fn to_json(&self, swarm_seed: u64, failed: Option<&Report>) -> Value {
        let faults: BTreeMap<_, _> = self.faults.iter().map(|(name, (sum, _))| (*name, *sum)).collect();
        json!({
            "seed": swarm_seed,
            "runs": self.runs,
            "delivered": self.delivered,
            "operations": self.operations,
            "answered": self.answered,
            "elections": self.elections,
            "virtual_seconds": self.virtual_time.as_secs_f64(),
            "faults": faults,
            "undecided": self.undecided,
            "failed": failed.map(report::to_json),
        })
    }
}

#[cfg(test)]
mod tests {
    use simulator::swarm;

    use super::*;

    #[test]
    fn every_run_counts() {
        let report = swarm::run(swarm::seed_of(1, 2));
        let mut summary = Summary::default();
        summary.add(&report);
        summary.add(&report);
        assert_eq!((summary.runs, summary.delivered), (2, 2 * report.delivered));
        assert_eq!(summary.faults.len(), report::faults(&report).len());
    }
}
