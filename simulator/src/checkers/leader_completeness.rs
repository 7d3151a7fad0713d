//! Raft's leader completeness: what is committed is in the log of every later leader (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation, bound};

/// Every committed entry: its term, and the lowest term of a node that executed it. In that term or before it was
/// committed, which may be long after its own: only a leader of a later one must have it (Raft, figure 8).
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    committed: BTreeMap<LogIndex, (Term, Term)>,
}

impl LeaderCompleteness {
    /// A node that is in term `now` executes the entry of this index and term.
    ///
    /// # Errors
    /// Another one executed one of another term there.
    pub fn committed(&mut self, node: NodeId, index: LogIndex, term: Term, now: Term) -> Result {
        let (known, committed_in) = self.committed.entry(index).or_insert((term, now));
        *committed_in = now.min(*committed_in);
        let known = *known;
        bound(&mut self.committed);
        if known == term { Ok(()) } else { Err(Violation::CommittedTwice { node, index, found: term, known }) }
    }

    /// A node has begun to lead `term`; its log begins at `first` and has the terms `term_at`.
    ///
    /// # Errors
    /// Something that was committed in an earlier term is not in its log.
    pub fn leads(
        &self,
        node: NodeId,
        term: Term,
        first: LogIndex,
        term_at: impl Fn(LogIndex) -> Option<Term>,
    ) -> Result {
        for (&index, &(committed, committed_in)) in self.committed.range(first..).rev() {
            let found = term_at(index);
            if committed_in < term && found != Some(committed) {
                return Err(Violation::LeaderIncomplete { node, term, index, committed, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    fn two_committed() -> LeaderCompleteness {
        let mut checker = LeaderCompleteness::default();
        assert_eq!(checker.committed(N1, 1, 1, 1), Ok(()));
        assert_eq!(checker.committed(N1, 2, 1, 1), Ok(()));
        assert_eq!(checker.committed(N2, 2, 1, 4), Ok(()));
        checker
    }

    #[test]
    fn a_leader_with_everything_is_fine() {
        let checker = two_committed();
        assert_eq!(checker.leads(N2, 2, 1, |_| Some(1)), Ok(()));
        assert_eq!(checker.leads(N2, 2, 2, |index| (index >= 2).then_some(1)), Ok(()), "compacted");
        assert_eq!(checker.leads(N2, 1, 1, |_| None), Ok(()), "what its own term committed is no matter");
    }

    /// Votes given in term 3 are read long after, when a leader of term 5 has committed an entry of term 1.
    #[test]
    fn a_late_leader_of_an_earlier_term_need_not_have_what_later_ones_committed() {
        let mut checker = two_committed();
        assert_eq!(checker.committed(N1, 3, 1, 5), Ok(()));
        let has_two = |index| (index <= 2).then_some(1);
        assert_eq!(checker.leads(N2, 3, 1, has_two), Ok(()));
        assert!(checker.leads(N2, 6, 1, has_two).is_err());
        assert_eq!(checker.committed(N2, 3, 1, 2), Ok(()), "so it was committed before term 3");
        assert!(checker.leads(N2, 3, 1, has_two).is_err());
    }

    #[test]
    fn a_leader_that_lacks_something_is_found() {
        let checker = two_committed();
        let lacks = Violation::LeaderIncomplete { node: N2, term: 2, index: 2, committed: 1, found: None };
        assert_eq!(checker.leads(N2, 2, 1, |index| (index < 2).then_some(1)), Err(lacks));
    }

    #[test]
    fn two_terms_at_one_committed_index_are_found() {
        let mut checker = two_committed();
        let twice = Violation::CommittedTwice { node: N2, index: 2, found: 3, known: 1 };
        assert_eq!(checker.committed(N2, 2, 3, 3), Err(twice));
    }
}
