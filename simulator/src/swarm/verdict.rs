//! How a run ends, and what there is to say about it.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use hovercraft::Mode;

use crate::checkers::Violation;
use crate::world::{Faults, Tally, Traffic};

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was wrong.
    Clean,
    /// An invariant did not hold.
    Safety(Violation),
    /// The faults have stopped, and the system did not recover.
    Liveness(String),
    /// Something panicked.
    Panic(String),
    /// A history was too hard to check: no statement, and no pass.
    Undecided(String),
}

/// What two verdicts have in common when they are about the same mistake: the checker, or the place of a panic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sort {
    /// Nothing was wrong.
    Clean,
    /// The same kind of violation.
    Safety(Discriminant<Violation>),
    /// No recovery, whatever was waited for.
    Liveness,
    /// A panic at the same place.
    Panic(String),
    /// No statement.
    Undecided,
}

impl Verdict {
    /// Its name, in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Safety(_) => "safety",
            Self::Liveness(_) => "liveness",
            Self::Panic(_) => "panic",
            Self::Undecided(_) => "undecided",
        }
    }

    /// What kind of verdict it is.
    pub fn sort(&self) -> Sort {
        match self {
            Self::Clean => Sort::Clean,
            Self::Safety(violation) => Sort::Safety(discriminant(violation)),
            Self::Liveness(_) => Sort::Liveness,
            // The place comes last, in parentheses.
            Self::Panic(message) => Sort::Panic(message.rsplit('(').next().unwrap_or(message).to_owned()),
            Self::Undecided(_) => Sort::Undecided,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => write!(f, "clean"),
            Self::Safety(violation) => write!(f, "safety violation: {violation}"),
            Self::Liveness(what) => write!(f, "liveness violation: {what}"),
            Self::Panic(message) => write!(f, "panic: {message}"),
            Self::Undecided(what) => write!(f, "undecided: {what}"),
        }
    }
}

/// What there is to say about a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The mode of its cluster.
    pub mode: Mode,
    /// How it ended.
    pub verdict: Verdict,
    /// What was done to it.
    pub faults: Faults,
    /// What became of every kind of message.
    pub traffic: Traffic,
    /// What the cores have counted.
    pub tally: Tally,
    /// Datagrams delivered.
    pub delivered: u64,
    /// A hash of everything delivered, in order.
    pub trace: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Operations that may have been executed.
    pub operations: u64,
    /// Operations answered.
    pub answered: u64,
    /// What happened last.
    pub recent: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_known_by_its_place() {
        let sort = |message: &str| Verdict::Panic(message.to_owned()).sort();
        assert_eq!(sort("index 7 (of 3) (a.rs:12)"), sort("index 8 (of 3) (a.rs:12)"));
        assert_ne!(sort("index 7 (a.rs:12)"), sort("index 7 (a.rs:13)"));
    }

    #[test]
    fn a_violation_is_known_by_its_checker() {
        let sort = |what: &str| Verdict::Safety(Violation::Nonsense { what: what.to_owned() }).sort();
        assert_eq!(sort("a"), sort("b"));
        assert_ne!(sort("a"), Verdict::Safety(Violation::ErrorEvent { what: "a".to_owned() }).sort());
        assert_ne!(sort("a"), Verdict::Liveness("a".to_owned()).sort());
    }
}
