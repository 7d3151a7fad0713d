//! A node votes once per term, and its term never goes back, whatever it has forgotten (protocol.md §6.1). Of another
//! incarnation it is another node.
//!
//! What a process knows may be lost with it; what it has *promised* may not: a node that comes back with its storage must
//! stand by the votes that it ever gave, its own candidacies included, and be of no earlier term than the last of them. A
//! process that comes back with nothing is not the node that it was: nobody listens to it (§7.5), and what would follow
//! if somebody did is found by [`super::one_leader`] and [`super::leader_completeness`].

use std::collections::BTreeMap;

use hovercraft::{MemberId, NodeId, Term};

use super::{Result, Violation};

/// Most terms of which a node's votes are remembered.
const TERMS_MAX: usize = 4096;

/// What every node has ever promised.
#[derive(Debug, Default)]
pub struct Votes {
    nodes: BTreeMap<MemberId, Promised>,
}

#[derive(Debug, Default)]
struct Promised {
    /// The term this process is in.
    term: Term,
    granted: BTreeMap<Term, NodeId>,
}

impl Votes {
    /// A process starts as this node with nothing: neither log nor term nor vote.
    pub fn started(&mut self, node: MemberId) {
        self.nodes.remove(&node);
    }

    /// A process starts as this node with what it has stored.
    pub fn restarted(&mut self, node: MemberId) {
        let promised = self.nodes.entry(node).or_default();
        // It may forget a term in which it promised nothing.
        promised.term = promised.granted.last_key_value().map_or(0, |(term, _)| *term);
    }

    /// A node is in this term.
    ///
    /// # Errors
    /// It was in a later one.
    pub fn is_in(&mut self, node: MemberId, term: Term) -> Result {
        let promised = self.nodes.entry(node).or_default();
        if term < promised.term {
            return Err(Violation::TermGoesBack { node, found: term, known: promised.term });
        }
        promised.term = term;
        Ok(())
    }

    /// A node votes for `candidate`, which may be itself.
    ///
    /// # Errors
    /// It voted for another one in that term.
    pub fn votes(&mut self, node: MemberId, term: Term, candidate: NodeId) -> Result {
        let granted = &mut self.nodes.entry(node).or_default().granted;
        let first = *granted.entry(term).or_insert(candidate);
        if granted.len() > TERMS_MAX {
            granted.pop_first();
        }
        if first == candidate { Ok(()) } else { Err(Violation::VotesTwice { node, term, first, second: candidate }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{M1 as N1, M2 as N2};
    use super::*;

    const C1: NodeId = NodeId(1);
    const C2: NodeId = NodeId(2);
    const C3: NodeId = NodeId(3);

    #[test]
    fn one_vote_per_term_is_fine_however_often_it_is_repeated() {
        let mut checker = Votes::default();
        assert_eq!(checker.votes(N1, 1, C2), Ok(()));
        assert_eq!(checker.votes(N1, 1, C2), Ok(()));
        assert_eq!(checker.votes(N1, 2, C3), Ok(()));
        assert_eq!(checker.votes(N2, 2, C2), Ok(()), "its own");
        checker.restarted(N1);
        assert_eq!(checker.votes(N1, 2, C3), Ok(()), "after a restart");
        checker.started(N1);
        assert_eq!(checker.votes(N1, 2, C2), Ok(()), "another process with nothing of the first");
    }

    #[test]
    fn two_votes_in_a_term_are_found_and_a_restart_excuses_nothing() {
        for restarts in [false, true] {
            let mut checker = Votes::default();
            assert_eq!(checker.votes(N1, 1, C2), Ok(()));
            if restarts {
                checker.restarted(N1);
            }
            let twice = Violation::VotesTwice { node: N1, term: 1, first: C2, second: C3 };
            assert_eq!(checker.votes(N1, 1, C3), Err(twice));
        }
    }

    #[test]
    fn a_candidate_that_votes_for_another_is_found() {
        let mut checker = Votes::default();
        assert_eq!(checker.votes(N1, 1, C1), Ok(()));
        let twice = Violation::VotesTwice { node: N1, term: 1, first: C1, second: C2 };
        assert_eq!(checker.votes(N1, 1, C2), Err(twice));
    }

    #[test]
    fn a_term_that_goes_back_is_found() {
        let mut checker = Votes::default();
        assert_eq!(checker.is_in(N1, 3), Ok(()));
        assert_eq!(checker.is_in(N1, 3), Ok(()));
        assert_eq!(checker.is_in(N1, 2), Err(Violation::TermGoesBack { node: N1, found: 2, known: 3 }));
    }

    #[test]
    fn a_restart_may_forget_a_term_in_which_it_promised_nothing_and_no_other() {
        let mut checker = Votes::default();
        assert_eq!(checker.votes(N1, 2, C2), Ok(()));
        assert_eq!(checker.is_in(N1, 3), Ok(()));
        checker.restarted(N1);
        assert_eq!(checker.is_in(N1, 2), Ok(()));
        checker.restarted(N1);
        assert_eq!(checker.is_in(N1, 1), Err(Violation::TermGoesBack { node: N1, found: 1, known: 2 }));
    }
}
