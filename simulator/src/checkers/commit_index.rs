//! State-machine safety begins with the commit index: it never goes back, never passes the log, and nothing is executed
//! beyond it (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::{LogIndex, NodeId};

use super::{Result, Violation};

/// The commit index of every node.
#[derive(Debug, Default)]
pub struct CommitIndex {
    known: BTreeMap<NodeId, LogIndex>,
}

impl CommitIndex {
    /// A process starts as this node: the commit index is not stored, it learns it anew.
    pub fn started(&mut self, node: NodeId) {
        self.known.remove(&node);
    }

    /// A node has committed up to `commit` and executed up to `applied`; its log ends at `last`.
    ///
    /// # Errors
    /// It had committed more, or has less, or has executed more.
    pub fn check(&mut self, node: NodeId, commit: LogIndex, applied: LogIndex, last: LogIndex) -> Result {
        let known = self.known.entry(node).or_default();
        if commit < *known {
            return Err(Violation::CommitGoesBack { node, found: commit, known: *known });
        }
        *known = commit;
        if commit > last {
            return Err(Violation::CommittedBeyondLog { node, commit, last });
        }
        if applied > commit { Err(Violation::AppliedBeyondCommit { node, applied, commit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    #[test]
    fn forward_and_within_the_log_is_fine() {
        let mut checker = CommitIndex::default();
        assert_eq!(checker.check(N1, 0, 0, 0), Ok(()));
        assert_eq!(checker.check(N1, 5, 5, 5), Ok(()));
        assert_eq!(checker.check(N1, 5, 3, 9), Ok(()));
        assert_eq!(checker.check(N2, 2, 2, 9), Ok(()), "another node");
        checker.started(N1);
        assert_eq!(checker.check(N1, 1, 0, 9), Ok(()), "a new process");
    }

    #[test]
    fn backwards_is_found() {
        let mut checker = CommitIndex::default();
        assert_eq!(checker.check(N1, 5, 5, 9), Ok(()));
        let back = Violation::CommitGoesBack { node: N1, found: 4, known: 5 };
        assert_eq!(checker.check(N1, 4, 4, 9), Err(back));
    }

    #[test]
    fn beyond_the_log_is_found() {
        let beyond = Violation::CommittedBeyondLog { node: N1, commit: 6, last: 5 };
        assert_eq!(CommitIndex::default().check(N1, 6, 0, 5), Err(beyond));
    }

    #[test]
    fn execution_of_what_is_not_committed_is_found() {
        let beyond = Violation::AppliedBeyondCommit { node: N1, applied: 6, commit: 5 };
        assert_eq!(CommitIndex::default().check(N1, 5, 6, 9), Err(beyond));
    }
}
