//! No node calls committed what is not: the first to do so must be right that a majority has persisted the entry and
//! that it is of the current term, and all others must mean the same entry (protocol.md §6.1, §6.2, §6.6).
//!
//! A follower that commits by a notice beyond verified(T) commits whatever its log has there; as soon as that is another
//! entry than the one that is committed, it is found here, before it is executed. The majority is counted over everything
//! that a node has *ever* persisted. That is enough: whoever persisted an entry of the term in which it is committed and
//! replaced it since has done so for a leader of a later term, which then had it too.

use std::collections::BTreeMap;

use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation, bound};

/// What is committed, and who holds what might be.
#[derive(Debug)]
pub struct Verified {
    voters: usize,
    /// Who has persisted which entry that is not committed yet.
    holders: BTreeMap<(LogIndex, Term), Vec<NodeId>>,
    /// The term of every committed entry that is remembered, up to `last`.
    committed: BTreeMap<LogIndex, Term>,
    last: LogIndex,
}

impl Verified {
    /// Of a group of so many voters, in which nothing is committed yet.
    pub fn new(voters: usize) -> Self {
        Self { voters, holders: BTreeMap::new(), committed: BTreeMap::new(), last: 0 }
    }

    /// A node has persisted the entry of this index and term.
    pub fn persisted(&mut self, node: NodeId, index: LogIndex, term: Term) {
        if index <= self.last {
            return;
        }
        let holders = self.holders.entry((index, term)).or_default();
        if !holders.contains(&node) {
            holders.push(node);
        }
    }

    /// A node that is in term `current` has committed everything up to `index`; its log has the terms `term_at`.
    ///
    /// # Errors
    /// It has another entry there than the one that is committed, or nobody can know yet that any is.
    pub fn commits(
        &mut self,
        node: NodeId,
        current: Term,
        index: LogIndex,
        term_at: impl Fn(LogIndex) -> Option<Term>,
    ) -> Result {
        let Some(term) = term_at(index) else { return Ok(()) };
        if index <= self.last {
            return match self.committed.get(&index) {
                Some(&known) if known != term => {
                    Err(Violation::CommitsAnother { node, current, index, found: term, known })
                }
                _ => Ok(()),
            };
        }
        let held = self.holders.get(&(index, term)).map_or(0, Vec::len);
        if held <= self.voters / 2 || term != current {
            let voters = self.voters;
            return Err(Violation::CommitsTooEarly { node, current, index, term, held, voters });
        }
        for index in self.last + 1..=index {
            if let Some(term) = term_at(index) {
                self.committed.insert(index, term);
            }
        }
        self.last = index;
        self.holders = self.holders.split_off(&(index + 1, 0));
        bound(&mut self.committed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    const N3: NodeId = NodeId(3);

    /// Of three nodes, one has entries 1 and 2 of term 1, and another the first of them.
    fn two_persisted() -> Verified {
        let mut checker = Verified::new(3);
        checker.persisted(N1, 1, 1);
        checker.persisted(N1, 2, 1);
        checker.persisted(N2, 1, 1);
        checker.persisted(N2, 1, 1);
        checker
    }

    #[test]
    fn what_a_majority_has_is_committed_and_then_by_everybody() {
        let mut checker = two_persisted();
        assert_eq!(checker.commits(N1, 1, 1, |_| Some(1)), Ok(()));
        assert_eq!(checker.commits(N3, 2, 1, |_| Some(1)), Ok(()), "later, whatever the term");
        checker.persisted(N3, 2, 1);
        assert_eq!(checker.commits(N3, 1, 2, |_| Some(1)), Ok(()), "a follower may be first");
    }

    #[test]
    fn the_entries_before_are_committed_with_it() {
        let mut checker = two_persisted();
        checker.persisted(N1, 3, 2);
        checker.persisted(N2, 3, 2);
        let terms = |index| Some(if index < 3 { 1 } else { 2 });
        assert_eq!(checker.commits(N1, 2, 3, terms), Ok(()));
        let another = Violation::CommitsAnother { node: N3, current: 2, index: 2, found: 2, known: 1 };
        assert_eq!(checker.commits(N3, 2, 2, |_| Some(2)), Err(another));
    }

    #[test]
    fn what_no_majority_has_is_found() {
        let mut checker = two_persisted();
        let early = Violation::CommitsTooEarly { node: N1, current: 1, index: 2, term: 1, held: 1, voters: 3 };
        assert_eq!(checker.commits(N1, 1, 2, |_| Some(1)), Err(early));
        // One of another term at the same index is another entry.
        checker.persisted(N2, 2, 2);
        let early = Violation::CommitsTooEarly { node: N2, current: 2, index: 2, term: 2, held: 1, voters: 3 };
        assert_eq!(checker.commits(N2, 2, 2, |_| Some(2)), Err(early));
    }

    #[test]
    fn half_is_no_majority() {
        let mut checker = Verified::new(4);
        checker.persisted(N1, 1, 1);
        checker.persisted(N2, 1, 1);
        let early = Violation::CommitsTooEarly { node: N1, current: 1, index: 1, term: 1, held: 2, voters: 4 };
        assert_eq!(checker.commits(N1, 1, 1, |_| Some(1)), Err(early));
        checker.persisted(N3, 1, 1);
        assert_eq!(checker.commits(N1, 1, 1, |_| Some(1)), Ok(()));
    }

    #[test]
    fn an_entry_of_an_earlier_term_that_is_committed_by_counting_is_found() {
        let mut checker = two_persisted();
        let early = Violation::CommitsTooEarly { node: N1, current: 2, index: 1, term: 1, held: 2, voters: 3 };
        assert_eq!(checker.commits(N1, 2, 1, |_| Some(1)), Err(early));
    }

    #[test]
    fn another_entry_than_the_committed_one_is_found() {
        let mut checker = two_persisted();
        assert_eq!(checker.commits(N1, 1, 1, |_| Some(1)), Ok(()));
        let another = Violation::CommitsAnother { node: N3, current: 3, index: 1, found: 2, known: 1 };
        assert_eq!(checker.commits(N3, 3, 1, |_| Some(2)), Err(another));
    }
}
