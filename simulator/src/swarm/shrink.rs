//! Makes a failing run smaller while it goes on failing in the same way: the less there is in it, the sooner somebody
//! understands it.
//!
//! One reduction after the other is tried and kept if the run still fails with a verdict of the same [`Sort`], until
//! none helps any more or whoever waits for it has had enough. Single faults go by delta debugging (Zeller and
//! Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 2002), everything else greedily.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case::Case;
use super::faults::{FaultId, schedule};
use super::overrides::{FEATURES, QUANTITIES};
use super::verdict::{Report, Sort, Verdict};

/// A failing run made smaller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// The smallest run found.
    pub case: Case,
    /// What it comes to.
    pub report: Report,
    /// Runs that were tried.
    pub tried: u64,
    /// Whether nothing that could be tried makes it smaller; else the time or the number of runs was over.
    pub complete: bool,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Runs tried.
    pub tried: u64,
    /// Reductions kept.
    pub kept: u64,
}

/// Makes `case` smaller, which came to `report`. `run` runs a case; `goes_on` is asked before each run. A run that did
/// not fail, or was too hard to check, stays as it is.
pub fn shrink(
    case: &Case,
    report: &Report,
    run: impl FnMut(&Case) -> Report,
    goes_on: impl FnMut(Progress) -> bool,
) -> Shrunk {
    let mut shrinker = Shrinker {
        sort: report.verdict.sort(),
        best: (case.clone(), report.clone()),
        progress: Progress { tried: 0, kept: 0 },
        over: matches!(report.verdict, Verdict::Clean | Verdict::Undecided(_)),
        run,
        goes_on,
    };
    while shrinker.round() {}
    let (case, report) = shrinker.best;
    Shrunk { case, report, tried: shrinker.progress.tried, complete: !shrinker.over }
}

struct Shrinker<R, G> {
    /// What the verdict must be like.
    sort: Sort,
    best: (Case, Report),
    progress: Progress,
    /// Nobody waits any more.
    over: bool,
    run: R,
    goes_on: G,
}

impl<R: FnMut(&Case) -> Report, G: FnMut(Progress) -> bool> Shrinker<R, G> {
    /// Tries everything once; whether anything helped.
    fn round(&mut self) -> bool {
        let kept = self.progress.kept;
        self.end_sooner();
        self.fewer_faults();
        self.fewer_features();
        self.smaller_quantities();
        self.progress.kept > kept && !self.over
    }

    /// Whether this run fails in the same way; if so, it is the best so far.
    fn keeps(&mut self, case: Case) -> bool {
        self.over = self.over || !(self.goes_on)(self.progress);
        if self.over || case == self.best.0 {
            return false;
        }
        self.progress.tried += 1;
        let report = (self.run)(&case);
        let same = report.verdict.sort() == self.sort;
        if same {
            self.progress.kept += 1;
            self.best = (case, report);
        }
        same
    }

    fn with(&self, quantity: usize, value: u64) -> Case {
        let (case, _) = &self.best;
        Case { seed: case.seed, overrides: case.overrides.with(quantity, value) }
    }

    /// No faults after the last one that matters.
    fn end_sooner(&mut self) {
        let Some(quantity) = QUANTITIES.iter().position(|quantity| quantity.name == "fault-time") else { return };
        let (case, report) = &self.best;
        let (options, failed) = (case.options(), report.time);
        // A little later, so that what strikes just then still does.
        let micros = |at: Duration| at.as_micros() as u64 + 1;
        let last = schedule(&options).last().map_or(0, |fault| micros(fault.at));
        for value in [last, micros(failed)] {
            if value >= QUANTITIES[quantity].least && value < QUANTITIES[quantity].of(&options) {
                self.keeps(self.with(quantity, value));
            }
        }
    }

    /// Delta debugging over the faults that come and go.
    fn fewer_faults(&mut self) {
        let mut faults: Vec<FaultId> = schedule(&self.best.0.options()).iter().map(|fault| fault.id).collect();
        let mut parts = 1;
        while !faults.is_empty() && parts <= faults.len() && !self.over {
            let len = faults.len().div_ceil(parts);
            let found = (0..faults.len()).step_by(len).find_map(|from| {
                let mut rest = faults.clone();
                rest.drain(from..(from + len).min(faults.len()));
                let (case, _) = &self.best;
                let only: BTreeSet<FaultId> = rest.iter().copied().collect();
                let case = Case { seed: case.seed, overrides: case.overrides.only(only) };
                self.keeps(case).then_some(rest)
            });
            match found {
                Some(rest) => {
                    faults = rest;
                    parts = parts.saturating_sub(1).max(1);
                }
                None if parts == faults.len() => return,
                None => parts = (parts * 2).min(faults.len()),
            }
        }
    }

    fn fewer_features(&mut self) {
        for at in 0..FEATURES.len() {
            let (case, _) = &self.best;
            let (seed, smaller) = (case.seed, case.overrides.without(case.seed, at));
            if let Some(overrides) = smaller {
                self.keeps(Case { seed, overrides });
            }
        }
    }

    fn smaller_quantities(&mut self) {
        for (at, quantity) in QUANTITIES.iter().enumerate() {
            // The least that may do, and what certainly does: the failing run's.
            let mut low = quantity.least;
            loop {
                let high = quantity.of(&self.best.0.options());
                if low >= high || self.over {
                    break;
                }
                // Not monotonous, so this finds a small one and not always the smallest.
                let candidate = if low == quantity.least { low } else { low + (high - low) / 2 };
                if !self.keeps(self.with(at, candidate)) {
                    // To a tenth is near enough for what is counted in thousands.
                    low = candidate + 1 + if candidate > 1_000 { (high - candidate) / 10 } else { 0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::Violation;
    use crate::swarm::{FaultKind, Options};

    /// A run that comes to this.
    fn report(options: &Options, verdict: Verdict) -> Report {
        Report {
            seed: options.seed,
            mode: options.mode,
            verdict,
            faults: Default::default(),
            traffic: Default::default(),
            tally: Default::default(),
            delivered: 0,
            trace: 0,
            time: Duration::from_secs(1),
            operations: 0,
            answered: 0,
            recent: Vec::new(),
        }
    }

    fn nonsense() -> Verdict {
        Verdict::Safety(Violation::Nonsense { what: String::new() })
    }

    /// Fails if it has two certain faults, loss, and enough operations.
    fn broken(options: &Options, needed: [FaultId; 2]) -> Verdict {
        let ids: Vec<FaultId> = schedule(options).iter().map(|fault| fault.id).collect();
        if needed.iter().all(|id| ids.contains(id)) && options.network.loss > 0.0 && options.operations > 10 {
            nonsense()
        } else if options.clients == 1 {
            Verdict::Liveness("another mistake".to_owned())
        } else {
            Verdict::Clean
        }
    }

    fn needed() -> [FaultId; 2] {
        [FaultId { kind: FaultKind::Pause, number: 2 }, FaultId { kind: FaultKind::Split, number: 1 }]
    }

    fn a_failing_case() -> (Case, Report) {
        (0..)
            .map(Case::of)
            .find_map(|case| {
                let options = case.options();
                let report = report(&options, broken(&options, needed()));
                (report.verdict == nonsense() && schedule(&options).len() > 10 && options.nodes > 3)
                    .then_some((case, report))
            })
            .expect("some seed")
    }

    #[test]
    fn what_does_not_matter_goes() {
        let (case, first) = a_failing_case();
        let run = |case: &Case| {
            let options = case.options();
            report(&options, broken(&options, needed()))
        };
        let shrunk = shrink(&case, &first, run, |_| true);
        assert!(shrunk.complete && shrunk.report.verdict == nonsense());
        let options = shrunk.case.options();
        let left: BTreeSet<FaultId> = schedule(&options).iter().map(|fault| fault.id).collect();
        assert_eq!(left, BTreeSet::from(needed()), "{}", shrunk.case);
        assert_eq!((options.operations, options.nodes, options.pipeline), (11, 1, 1), "{}", shrunk.case);
        assert_eq!((options.plain_clients, options.clients, options.kills), (0, 1, 0), "{}", shrunk.case);
        assert!(options.network.loss > 0.0 && options.network.duplicate == 0.0);
        assert!(shrunk.tried < 400, "{} runs", shrunk.tried);
    }

    #[test]
    fn it_ends_when_nobody_waits() {
        let (case, first) = a_failing_case();
        let shrunk = shrink(&case, &first, |_| first.clone(), |progress| progress.tried < 5);
        assert_eq!((shrunk.tried, shrunk.complete), (5, false));
    }

    #[test]
    fn another_mistake_is_not_taken_for_it() {
        let (case, first) = a_failing_case();
        let other = Report { verdict: Verdict::Liveness(String::new()), ..first.clone() };
        let shrunk = shrink(&case, &first, |_| other.clone(), |_| true);
        assert_eq!((&shrunk.case, &shrunk.report, shrunk.complete), (&case, &first, true));
    }

    #[test]
    fn what_did_not_fail_stays() {
        let clean = report(&Options::draw(1), Verdict::Clean);
        let shrunk = shrink(&Case::of(1), &clean, |_| panic!("there is nothing to run"), |_| true);
        assert_eq!((shrunk.tried, shrunk.case), (0, Case::of(1)));
    }
}
