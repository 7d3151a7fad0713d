//! Exactly once, counted: no acknowledged increment is lost, none takes effect twice.
//!
//! Weaker than linearizability, but its verdict is a number, it needs no search, and it works for any amount of
//! operations of unknown outcome.

use std::fmt;

/// What became of one increment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Increment {
    /// Acknowledged, with the value it left.
    Answered {
        /// How much was added.
        delta: u64,
        /// The value right after it.
        value: i128,
    },
    /// Certainly executed, but the value it left is not known.
    Executed {
        /// How much was added.
        delta: u64,
    },
    /// It may have been executed, or not, or may be yet.
    Unknown {
        /// How much was to be added.
        delta: u64,
    },
}

/// The books of one counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Sum of all acknowledged and otherwise certainly executed increments.
    pub acknowledged: i128,
    /// Sum of all increments of unknown outcome.
    pub unknown: i128,
    /// How far the counter has come.
    pub counted: i128,
    /// How much of what was acknowledged is not in the counter: two answers claim the same step, or the counter did not
    /// come as far as was acknowledged, or not as far as an answer said.
    pub lost_acknowledged: i128,
    /// How much the counter moved that nobody asked for.
    pub duplicated: i128,
}

/// The books do not balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// An acknowledged increment is missing.
    #[error("{0}: {missing} of what was acknowledged is lost", missing = .0.lost_acknowledged)]
    LostAcknowledged(Totals),
    /// An increment took effect more than once.
    #[error("{0}: {excess} more than anybody asked for", excess = .0.duplicated)]
    Duplicated(Totals),
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, counted, .. } = self;
        write!(f, "the counter moved by {counted}, with {acknowledged} acknowledged and {unknown} unknown")
    }
}

impl Totals {
    /// Adds up all increments of one counter that was `initial` before them and `last` after them. Nothing else may
    /// have changed it.
    ///
    /// Every answer claims the steps from `value - delta` to `value` for itself, so this finds a lost increment even if
    /// a duplicated one makes up for it in the sum.
    pub fn new(initial: i128, last: i128, increments: impl IntoIterator<Item = Increment>) -> Self {
        let (mut acknowledged, mut unknown, mut answered, mut claims) = (0, 0, 0, Vec::new());
        for increment in increments {
            match increment {
                Increment::Answered { delta, value } => {
                    acknowledged += i128::from(delta);
                    answered += i128::from(delta);
                    claims.push((value - i128::from(delta), value));
                }
                Increment::Executed { delta } => acknowledged += i128::from(delta),
                Increment::Unknown { delta } => unknown += i128::from(delta),
            }
        }
        claims.sort_unstable();
        let (mut claimed, mut end) = (0, i128::MIN);
        for (from, to) in claims {
            claimed += (to - from.max(end)).max(0);
            end = end.max(to);
        }

        let counted = last - initial;
        let claimed_twice = answered - claimed;
        // What was lost does not move the counter, so it does not make up for anything either.
        let duplicated = (counted - (acknowledged - claimed_twice) - unknown).max(0);
        // Nor may it fall behind what somebody has seen, however little of that was acknowledged.
        let behind = if end == i128::MIN { 0 } else { end - last };
        let lost_acknowledged = claimed_twice.max(acknowledged - counted).max(behind);
        Self { acknowledged, unknown, counted, lost_acknowledged, duplicated }
    }

    /// Whether acknowledged <= counted <= acknowledged + unknown, and no step was given away twice.
    ///
    /// # Errors
    /// What does not balance; a loss first.
    pub fn check(self) -> Result<Self, Violation> {
        if self.lost_acknowledged > 0 {
            Err(Violation::LostAcknowledged(self))
        } else if self.duplicated > 0 {
            Err(Violation::Duplicated(self))
        } else {
            Ok(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Increment::{Answered, Executed, Unknown};
    use super::*;

    #[test]
    fn every_step_once() {
        let increments = [Answered { delta: 1, value: 3 }, Answered { delta: 2, value: 2 }, Executed { delta: 1 }];
        let totals = Totals::new(0, 4, increments).check();
        let expected = Totals { acknowledged: 4, unknown: 0, counted: 4, lost_acknowledged: 0, duplicated: 0 };
        assert_eq!(totals, Ok(expected));
        assert!(Totals::new(-5, -5, []).check().is_ok());
    }

    #[test]
    fn the_unknown_may_or_may_not_count() {
        let increments = [Answered { delta: 1, value: 1 }, Unknown { delta: 1 }, Unknown { delta: 1 }];
        for (last, good) in [(0, false), (1, true), (2, true), (3, true), (4, false)] {
            assert_eq!(Totals::new(0, last, increments).check().is_ok(), good, "{last}");
        }
    }

    #[test]
    fn lost() {
        let increments = [Answered { delta: 1, value: 1 }, Answered { delta: 1, value: 2 }, Unknown { delta: 5 }];
        let violation = Totals::new(0, 1, increments).check().unwrap_err();
        assert!(matches!(violation, Violation::LostAcknowledged(Totals { lost_acknowledged: 1, duplicated: 0, .. })));
        assert_eq!(
            violation.to_string(),
            "the counter moved by 1, with 2 acknowledged and 5 unknown: 1 of what was acknowledged is lost"
        );
    }

    #[test]
    fn fallen_behind_an_answer() {
        let totals = Totals::new(0, 4, [Answered { delta: 1, value: 5 }, Unknown { delta: 4 }]);
        assert_eq!((totals.lost_acknowledged, totals.duplicated), (1, 0));
    }

    #[test]
    fn duplicated() {
        let violation = Totals::new(0, 7, [Executed { delta: 2 }, Unknown { delta: 3 }]).check().unwrap_err();
        assert!(matches!(violation, Violation::Duplicated(Totals { lost_acknowledged: 0, duplicated: 2, .. })));
        assert_eq!(
            violation.to_string(),
            "the counter moved by 7, with 2 acknowledged and 3 unknown: 2 more than anybody asked for"
        );
    }

    #[test]
    fn a_loss_and_a_duplicate_do_not_cancel() {
        let increments = [Answered { delta: 1, value: 1 }, Answered { delta: 1, value: 1 }];
        let totals = Totals::new(0, 2, increments);
        assert_eq!((totals.lost_acknowledged, totals.duplicated), (1, 1));
        assert!(totals.check().is_err());
    }
}
