//! Raft's log matching: entries of equal index and term are equal, and so is everything before them (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::entry::Entry;
use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation, bound};

/// Every (index, term) that any log ever held.
#[derive(Debug, Default)]
pub struct LogMatching {
    known: BTreeMap<(LogIndex, Term), (Option<Term>, Entry)>,
}

impl LogMatching {
    /// A node's log holds this; `before` is the term of the entry before it, if that is known. Equal terms before equal
    /// entries, all the way down, are equal logs.
    ///
    /// # Errors
    /// Another log holds something else there under the same term.
    pub fn holds(&mut self, node: NodeId, index: LogIndex, term: Term, before: Option<Term>, entry: &Entry) -> Result {
        let (known_before, known) = self.known.entry((index, term)).or_insert((before, *entry));
        let same_before = known_before.is_none() || before.is_none() || *known_before == before;
        if known != entry || !same_before {
            return Err(Violation::LogsDiffer {
                node,
                index,
                term,
                found_before: before.unwrap_or(0),
                found: Box::new(*entry),
                known_before: known_before.unwrap_or(0),
                known: Box::new(*known),
            });
        }
        *known_before = known_before.or(before);
        bound(&mut self.known);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2, write};
    use super::*;

    #[test]
    fn equal_logs_and_logs_of_other_terms_are_fine() {
        let mut checker = LogMatching::default();
        assert_eq!(checker.holds(N1, 7, 2, Some(1), &write(1)), Ok(()));
        assert_eq!(checker.holds(N2, 7, 2, Some(1), &write(1)), Ok(()));
        assert_eq!(checker.holds(N2, 7, 2, None, &write(1)), Ok(()), "compacted away");
        assert_eq!(checker.holds(N2, 7, 3, Some(2), &write(2)), Ok(()), "a divergent tail");
    }

    #[test]
    fn another_entry_under_the_same_term_is_found() {
        let mut checker = LogMatching::default();
        assert_eq!(checker.holds(N1, 7, 2, Some(1), &write(1)), Ok(()));
        assert!(matches!(checker.holds(N2, 7, 2, Some(1), &write(2)), Err(Violation::LogsDiffer { index: 7, .. })));
    }

    #[test]
    fn another_past_is_found() {
        let mut checker = LogMatching::default();
        assert_eq!(checker.holds(N1, 7, 3, None, &write(1)), Ok(()));
        assert_eq!(checker.holds(N1, 7, 3, Some(1), &write(1)), Ok(()));
        assert!(matches!(checker.holds(N2, 7, 3, Some(2), &write(1)), Err(Violation::LogsDiffer { index: 7, .. })));
    }
}
