//! Raft's leader completeness: what is committed is in the log of every later leader (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation, bound};

/// The term of every committed entry.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    committed: BTreeMap<LogIndex, Term>,
}

impl LeaderCompleteness {
    /// A node executes the entry of this index and term.
    ///
    /// # Errors
    /// Another one executed one of another term there.
    pub fn committed(&mut self, node: NodeId, index: LogIndex, term: Term) -> Result {
        let known = *self.committed.entry(index).or_insert(term);
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
        for (&index, &committed) in self.committed.range(first..).rev() {
            let found = term_at(index);
            if committed < term && found != Some(committed) {
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
        assert_eq!(checker.committed(N1, 1, 1), Ok(()));
        assert_eq!(checker.committed(N1, 2, 1), Ok(()));
        assert_eq!(checker.committed(N2, 2, 1), Ok(()));
        checker
    }

    #[test]
    fn a_leader_with_everything_is_fine() {
        let checker = two_committed();
        assert_eq!(checker.leads(N2, 2, 1, |_| Some(1)), Ok(()));
        assert_eq!(checker.leads(N2, 2, 2, |index| (index >= 2).then_some(1)), Ok(()), "compacted");
        assert_eq!(checker.leads(N2, 1, 1, |_| None), Ok(()), "what its own term committed is no matter");
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
        assert_eq!(checker.committed(N2, 2, 3), Err(twice));
    }
}
