//! Raft's election safety: at most one leader per term (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::{NodeId, Term};

use super::{Result, Violation, bound};

/// Who led which term.
#[derive(Debug, Default)]
pub struct OneLeader {
    leaders: BTreeMap<Term, NodeId>,
}

impl OneLeader {
    /// A node believes to lead.
    ///
    /// # Errors
    /// Another one did in this term.
    pub fn leads(&mut self, node: NodeId, term: Term) -> Result {
        let first = *self.leaders.entry(term).or_insert(node);
        bound(&mut self.leaders);
        if first == node { Ok(()) } else { Err(Violation::TwoLeaders { term, first, second: node }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    #[test]
    fn each_term_has_its_leader() {
        let mut checker = OneLeader::default();
        assert_eq!(checker.leads(N1, 1), Ok(()));
        assert_eq!(checker.leads(N1, 1), Ok(()));
        assert_eq!(checker.leads(N2, 2), Ok(()));
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut checker = OneLeader::default();
        assert_eq!(checker.leads(N1, 1), Ok(()));
        assert_eq!(checker.leads(N2, 1), Err(Violation::TwoLeaders { term: 1, first: N1, second: N2 }));
    }
}
