//! Nobody disturbs a group that it could not lead: a node asks for votes only after a majority has said that it would
//! give them, unless the leader itself tells it to (protocol.md §7.7).

use std::collections::{BTreeMap, BTreeSet};

use hovercraft::{NodeId, Term};

use super::{Result, Violation};

/// Terms of which a node's pre-votes are remembered: the real ones may wait for its disk.
const TERMS_MAX: usize = 8;

/// Who was told by whom that it would get a vote.
#[derive(Debug)]
pub struct PreVote {
    voters: usize,
    granted: BTreeMap<NodeId, BTreeMap<Term, BTreeSet<NodeId>>>,
}

impl PreVote {
    /// Of a group of so many voters.
    pub fn new(voters: usize) -> Self {
        Self { voters, granted: BTreeMap::new() }
    }

    /// A node has forgotten everything.
    pub fn started(&mut self, node: NodeId) {
        self.granted.remove(&node);
    }

    /// A node hears that `from` would vote for it in this term.
    pub fn granted(&mut self, node: NodeId, term: Term, from: NodeId) {
        let terms = self.granted.entry(node).or_default();
        terms.entry(term).or_default().insert(from);
        while terms.len() > TERMS_MAX {
            terms.pop_first();
        }
    }

    /// A node asks for votes in this term, of its own accord.
    ///
    /// # Errors
    /// It does not know that a majority would give them.
    pub fn asks(&self, node: NodeId, term: Term) -> Result {
        let granted = self.granted.get(&node).and_then(|terms| terms.get(&term)).map_or(0, BTreeSet::len);
        // Its own counts.
        if granted + 1 > self.voters / 2 { Ok(()) } else { Err(Violation::NotAskedBefore { node, term, granted }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    #[test]
    fn a_majority_of_this_term_is_enough() {
        let mut checker = PreVote::new(3);
        checker.granted(N1, 4, N2);
        assert_eq!(checker.asks(N1, 4), Ok(()));
        assert_eq!(PreVote::new(1).asks(N1, 1), Ok(()));
    }

    #[test]
    fn too_few_and_those_of_another_term_or_life_are_found() {
        let mut checker = PreVote::new(3);
        checker.granted(N1, 3, N2);
        let not_asked = |granted| Err(Violation::NotAskedBefore { node: N1, term: 4, granted });
        assert_eq!(checker.asks(N1, 4), not_asked(0));
        checker.granted(N1, 4, N2);
        checker.started(N1);
        assert_eq!(checker.asks(N1, 4), not_asked(0));
        let mut checker = PreVote::new(5);
        checker.granted(N1, 4, N2);
        checker.granted(N1, 4, N2);
        assert_eq!(checker.asks(N1, 4), not_asked(1));
    }
}
