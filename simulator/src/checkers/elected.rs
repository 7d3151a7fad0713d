//! Who leads was elected: those who can decide have voted for it in that term, and it has heard so, whatever it believes
//! to have counted (protocol.md §6.1, §7.6). Who can decide, its own log says, and of two that could its votes may come
//! from either: the latest change may not be committed. Learners, and identities that do not belong to the group, do not
//! count.

use std::collections::{BTreeMap, BTreeSet};

use hovercraft::{MemberId, Membership, NodeId, Term};

use super::{Result, Violation};

/// Terms of which a node's votes are remembered.
const TERMS_MAX: usize = 8;

/// Who has voted for whom, as the candidates have heard.
#[derive(Debug, Default)]
pub struct Elected {
    votes: BTreeMap<NodeId, BTreeMap<Term, BTreeSet<MemberId>>>,
}

impl Elected {
    /// A node has forgotten everything.
    pub fn started(&mut self, node: NodeId) {
        self.votes.remove(&node);
    }

    /// A node hears that `from` votes for it in this term.
    pub fn granted(&mut self, node: NodeId, term: Term, from: MemberId) {
        let terms = self.votes.entry(node).or_default();
        terms.entry(term).or_default().insert(from);
        while terms.len() > TERMS_MAX {
            terms.pop_first();
        }
    }

    /// A node has begun to lead; its log says that one of these memberships counts.
    ///
    /// # Errors
    /// It has not heard enough votes.
    pub fn leads<'a>(&self, node: MemberId, term: Term, memberships: impl Iterator<Item = &'a Membership>) -> Result {
        let mut votes = self.votes.get(&node.node()).and_then(|terms| terms.get(&term)).cloned().unwrap_or_default();
        votes.insert(node);
        let memberships: Vec<&Membership> = memberships.collect();
        if memberships.iter().any(|membership| membership.is_quorum(&votes)) {
            return Ok(());
        }
        let voters = memberships.last().into_iter().flat_map(|membership| membership.voters()).collect();
        Err(Violation::NotElected { node, term, votes: votes.into_iter().collect(), voters })
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::super::samples::{M1, M2, M2_AGAIN, M3, N1, group, with_joining, with_learner};
    use super::*;

    fn leads(checker: &Elected, membership: &Membership) -> Result {
        checker.leads(M1, 4, slice::from_ref(membership).iter())
    }

    #[test]
    fn a_majority_elects_and_one_is_one_of_one() {
        let mut checker = Elected::default();
        assert_eq!(leads(&checker, &group(1)), Ok(()));
        checker.granted(N1, 4, M2);
        assert_eq!(leads(&checker, &group(3)), Ok(()));
        assert_eq!(leads(&checker, &with_joining(2, 3)), Ok(()));
    }

    #[test]
    fn too_few_votes_and_those_of_another_term_or_life_are_found() {
        let mut checker = Elected::default();
        checker.granted(N1, 3, M2);
        let alone = Violation::NotElected { node: M1, term: 4, votes: vec![M1], voters: vec![M1, M2, M3] };
        assert_eq!(leads(&checker, &group(3)), Err(alone));
        checker.granted(N1, 4, M2);
        checker.started(N1);
        assert!(leads(&checker, &group(3)).is_err());
        checker.granted(N1, 4, M2_AGAIN);
        assert!(leads(&checker, &group(3)).is_err(), "2.2 is not 2.1");
    }

    #[test]
    fn learners_and_half_of_a_joint_membership_are_found() {
        let mut checker = Elected::default();
        checker.granted(N1, 4, M3);
        assert!(leads(&checker, &with_learner(2, 3)).is_err());
        assert!(leads(&checker, &with_joining(2, 3)).is_err(), "one of the two before the change");
    }
}
