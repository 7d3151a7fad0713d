//! Nobody disturbs a group that it could not lead: a node asks for votes only if it has one itself, and after those who
//! could elect it have said that they would, unless the leader itself tells it to (protocol.md §7.7). Who that is, its log
//! says when it stands; that may be long before the request leaves, which waits for its disk.

use std::collections::{BTreeMap, BTreeSet};

use hovercraft::{MemberId, Membership, NodeId, Term};

use super::{Result, Violation};

/// Terms of which a node's pre-votes are remembered: the real ones may wait for its disk.
const TERMS_MAX: usize = 8;

/// Who was told by whom that it would get a vote.
#[derive(Debug, Default)]
pub struct PreVote {
    granted: BTreeMap<NodeId, BTreeMap<Term, BTreeSet<MemberId>>>,
    /// By what memberships each node stood in its last terms.
    stood: BTreeMap<NodeId, BTreeMap<Term, Vec<Membership>>>,
}

impl PreVote {
    /// A node has forgotten everything.
    pub fn started(&mut self, node: NodeId) {
        self.granted.remove(&node);
        self.stood.remove(&node);
    }

    /// A node stands for election; its log says that one of these memberships counts.
    pub fn stands<'a>(&mut self, node: NodeId, term: Term, memberships: impl Iterator<Item = &'a Membership>) {
        let terms = self.stood.entry(node).or_default();
        terms.entry(term).or_insert_with(|| memberships.cloned().collect());
        while terms.len() > TERMS_MAX {
            terms.pop_first();
        }
    }

    /// A node hears that `from` would vote for it in this term.
    pub fn granted(&mut self, node: NodeId, term: Term, from: MemberId) {
        let terms = self.granted.entry(node).or_default();
        terms.entry(term).or_default().insert(from);
        while terms.len() > TERMS_MAX {
            terms.pop_first();
        }
    }

    /// A node asks for votes in this term, of its own accord. Its log says that one of these memberships counts.
    ///
    /// # Errors
    /// It has no vote itself, or does not know that enough others would give theirs.
    pub fn asks<'a>(&self, node: MemberId, term: Term, memberships: impl Iterator<Item = &'a Membership>) -> Result {
        let mut granted =
            self.granted.get(&node.node()).and_then(|terms| terms.get(&term)).cloned().unwrap_or_default();
        granted.insert(node);
        let elects =
            |membership: &Membership| membership.voters().any(|voter| voter == node) && membership.is_quorum(&granted);
        let mut stood = self.stood.get(&node.node()).and_then(|terms| terms.get(&term)).into_iter().flatten();
        let mut memberships = memberships;
        if memberships.any(elects) || stood.any(elects) {
            return Ok(());
        }
        Err(Violation::NotAskedBefore { node, term, granted: granted.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::super::samples::{M1, M2, M2_AGAIN, M3, N1, group, with_learner};
    use super::*;

    fn asks(checker: &PreVote, node: MemberId, term: Term, membership: &Membership) -> Result {
        checker.asks(node, term, slice::from_ref(membership).iter())
    }

    #[test]
    fn a_majority_of_this_term_is_enough() {
        let mut checker = PreVote::default();
        checker.granted(N1, 4, M2);
        assert_eq!(asks(&checker, M1, 4, &group(3)), Ok(()));
        assert_eq!(asks(&PreVote::default(), M1, 1, &group(1)), Ok(()));
        let both = [group(5), group(3)];
        assert_eq!(checker.asks(M1, 4, both.iter()), Ok(()), "by one of those it may count by");
    }

    #[test]
    fn a_change_while_the_request_waits_for_the_disk_does_not_matter() {
        let mut checker = PreVote::default();
        checker.granted(N1, 4, M2);
        checker.stands(N1, 4, [group(3)].iter());
        checker.stands(N1, 4, [group(5)].iter());
        assert_eq!(asks(&checker, M1, 4, &group(5)), Ok(()));
        assert!(asks(&checker, M1, 5, &group(5)).is_err(), "another term");
    }

    #[test]
    fn too_few_and_those_of_another_term_or_life_are_found() {
        let mut checker = PreVote::default();
        checker.granted(N1, 3, M2);
        let not_asked = |granted| Err(Violation::NotAskedBefore { node: M1, term: 4, granted });
        assert_eq!(asks(&checker, M1, 4, &group(3)), not_asked(vec![M1]));
        checker.granted(N1, 4, M2);
        checker.started(N1);
        assert_eq!(asks(&checker, M1, 4, &group(3)), not_asked(vec![M1]));
        let mut checker = PreVote::default();
        checker.granted(N1, 4, M2);
        checker.granted(N1, 4, M2);
        assert_eq!(asks(&checker, M1, 4, &group(5)), not_asked(vec![M1, M2]));
    }

    #[test]
    fn those_who_do_not_vote_are_found() {
        let mut checker = PreVote::default();
        checker.granted(N1, 4, M3);
        assert!(asks(&checker, M1, 4, &with_learner(2, 3)).is_err(), "a learner's word");
        checker.granted(N1, 4, M2_AGAIN);
        assert!(asks(&checker, M1, 4, &group(2)).is_err(), "that of another incarnation");
        checker.granted(NodeId(3), 4, M1);
        checker.granted(NodeId(3), 4, M2);
        assert!(asks(&checker, M3, 4, &with_learner(2, 3)).is_err(), "a learner that asks");
    }
}
