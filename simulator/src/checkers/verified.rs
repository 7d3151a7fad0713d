//! No node calls committed what is not: the first to do so must be right that those who can decide have persisted the
//! entry, and one of the current term there or behind it, and all others must mean the same entry (protocol.md §6.1, §6.2,
//! §6.6). (Behind it: a follower that has not got so far may be the first to hear what an aggregator announces.)
//!
//! Who can decide, the log of that node says: a majority of the membership at the entry, two if it is joint, or of one
//! that a later entry of it has put in place.
//!
//! A follower that commits by a notice beyond verified(T) commits whatever its log has there; as soon as that is another
//! entry than the one that is committed, it is found here, before it is executed. The majority is counted over everything
//! that a node has *ever* persisted. That is enough: whoever persisted an entry of the term in which it is committed and
//! replaced it since has done so for a leader of a later term, which then had it too.

use std::collections::{BTreeMap, BTreeSet};

use hovercraft::{LogIndex, MemberId, Membership, NodeId, Term};

use super::{Result, Violation, bound};

/// What is committed, and who holds what might be.
#[derive(Debug, Default)]
pub struct Verified {
    /// Who has persisted which entry that is not committed yet.
    holders: BTreeMap<(LogIndex, Term), BTreeSet<MemberId>>,
    /// The term of every committed entry that is remembered, up to `last`.
    committed: BTreeMap<LogIndex, Term>,
    last: LogIndex,
}

impl Verified {
    /// A node has persisted the entry of this index and term.
    pub fn persisted(&mut self, node: MemberId, index: LogIndex, term: Term) {
        if index <= self.last {
            return;
        }
        self.holders.entry((index, term)).or_default().insert(node);
    }

    /// A node that is in term `current` has committed everything up to `index`; its log has the terms `term_at`, and
    /// these memberships from `index` on.
    ///
    /// # Errors
    /// It has another entry there than the one that is committed, or nobody can know yet that any is.
    pub fn commits<'a>(
        &mut self,
        node: NodeId,
        current: Term,
        index: LogIndex,
        memberships: impl Iterator<Item = &'a Membership>,
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
        let held = self.holders.get(&(index, term)).cloned().unwrap_or_default();
        let memberships: Vec<&Membership> = memberships.collect();
        let decided = |held: &BTreeSet<MemberId>| memberships.iter().any(|membership| membership.is_quorum(held));
        let mut of_this_term = self.holders.range((index, 0)..).filter(|((_, term), _)| *term == current);
        if !decided(&held) || !of_this_term.any(|(_, held)| decided(held)) {
            let voters = memberships.first().into_iter().flat_map(|membership| membership.voters()).collect();
            return Err(Violation::CommitsTooEarly {
                node,
                current,
                index,
                term,
                held: held.into_iter().collect(),
                voters,
            });
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
    use super::super::samples::{M1, M2, M2_AGAIN, M3, M4, N1, N2, group, with_joining, with_learner};
    use super::*;

    const N3: NodeId = NodeId(3);

    /// Of three nodes, one has entries 1 and 2 of term 1, and another the first of them.
    fn two_persisted() -> Verified {
        let mut checker = Verified::default();
        checker.persisted(M1, 1, 1);
        checker.persisted(M1, 2, 1);
        checker.persisted(M2, 1, 1);
        checker.persisted(M2, 1, 1);
        checker
    }

    /// Of two terms: what the leader of the second has of the first is committed with an entry of its own, not before.
    #[test]
    fn an_entry_of_an_earlier_term_is_committed_with_one_of_this_term() {
        let mut checker = two_persisted();
        checker.persisted(M2, 2, 1);
        assert!(matches!(commits(&mut checker, N3, 2, 2, 1), Err(Violation::CommitsTooEarly { .. })));
        checker.persisted(M1, 3, 2);
        assert!(matches!(commits(&mut checker, N3, 2, 2, 1), Err(Violation::CommitsTooEarly { .. })));
        checker.persisted(M2, 3, 2);
        assert_eq!(commits(&mut checker, N3, 2, 2, 1), Ok(()), "by one that has not got the third");
        assert_eq!(commits(&mut checker, N1, 2, 3, 2), Ok(()));
    }

    fn commits(checker: &mut Verified, node: NodeId, current: Term, index: LogIndex, term: Term) -> Result {
        commits_by(checker, node, current, index, term, &[group(3)])
    }

    fn commits_by(
        checker: &mut Verified,
        node: NodeId,
        current: Term,
        index: LogIndex,
        term: Term,
        by: &[Membership],
    ) -> Result {
        checker.commits(node, current, index, by.iter(), |_| Some(term))
    }

    fn too_early(current: Term, index: LogIndex, term: Term, held: &[MemberId], voters: &[MemberId]) -> Result {
        let (held, voters) = (held.to_vec(), voters.to_vec());
        Err(Violation::CommitsTooEarly { node: N1, current, index, term, held, voters })
    }

    #[test]
    fn what_a_majority_has_is_committed_by_everybody() {
        let mut checker = two_persisted();
        assert_eq!(commits(&mut checker, N1, 1, 0, 0), Ok(()));
        assert_eq!(commits(&mut checker, N1, 1, 1, 1), Ok(()));
        assert_eq!(commits(&mut checker, N2, 2, 1, 1), Ok(()), "in a later term too");
        checker.persisted(M3, 2, 1);
        assert_eq!(commits(&mut checker, N3, 1, 2, 1), Ok(()));
    }

    #[test]
    fn what_no_majority_has_is_found() {
        let mut checker = two_persisted();
        let three = [M1, M2, M3];
        assert_eq!(commits(&mut checker, N1, 1, 2, 1), too_early(1, 2, 1, &[M1], &three));
        // One of another term at the same index is another entry.
        checker.persisted(M2, 2, 2);
        assert_eq!(commits(&mut checker, N1, 2, 2, 2), too_early(2, 2, 2, &[M2], &three));
    }

    #[test]
    fn half_is_no_majority() {
        let mut checker = two_persisted();
        let four = [group(4)];
        assert_eq!(commits_by(&mut checker, N1, 1, 1, 1, &four), too_early(1, 1, 1, &[M1, M2], &[M1, M2, M3, M4]));
        checker.persisted(M3, 1, 1);
        assert_eq!(commits_by(&mut checker, N1, 1, 1, 1, &four), Ok(()));
    }

    #[test]
    fn an_entry_of_an_earlier_term_that_is_committed_by_counting_is_found() {
        let mut checker = two_persisted();
        assert_eq!(commits(&mut checker, N1, 2, 1, 1), too_early(2, 1, 1, &[M1, M2], &[M1, M2, M3]));
    }

    #[test]
    fn another_entry_than_the_committed_one_is_found() {
        let mut checker = two_persisted();
        assert_eq!(commits(&mut checker, N1, 1, 1, 1), Ok(()));
        let another = Violation::CommitsAnother { node: N3, current: 3, index: 1, found: 2, known: 1 };
        assert_eq!(commits(&mut checker, N3, 3, 1, 2), Err(another));
    }

    #[test]
    fn learners_and_other_incarnations_do_not_count() {
        let mut checker = Verified::default();
        for member in [M1, M2_AGAIN, M4] {
            checker.persisted(member, 1, 1);
        }
        assert!(commits_by(&mut checker, N1, 1, 1, 1, &[group(3)]).is_err(), "2.2 is not 2.1");
        assert!(commits_by(&mut checker, N1, 1, 1, 1, &[with_learner(3, 4)]).is_err(), "a learner");
    }

    #[test]
    fn both_majorities_of_a_joint_membership_are_asked() {
        let joint = [with_joining(2, 3)];
        let mut checker = Verified::default();
        checker.persisted(M1, 1, 1);
        checker.persisted(M3, 1, 1);
        assert!(commits_by(&mut checker, N1, 1, 1, 1, &joint).is_err(), "one of the two before");
        let settled = [joint[0].clone(), group(3)];
        assert_eq!(commits_by(&mut checker, N1, 1, 1, 1, &settled), Ok(()), "those after the change may decide it");
    }
}
