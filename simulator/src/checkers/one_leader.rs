//! Raft's election safety: at most one leader per term (protocol.md §6.1).

use std::collections::BTreeMap;

use hovercraft::{MemberId, Term};

use super::{Result, Violation, bound};

/// Who led which term.
#[derive(Debug, Default)]
pub struct OneLeader {
    leaders: BTreeMap<Term, MemberId>,
}

impl OneLeader {
    /// A node believes to lead.
    ///
    /// # Errors
    /// Another one did in this term.
    pub fn leads(&mut self, node: MemberId, term: Term) -> Result {
        let first = *self.leaders.entry(term).or_insert(node);
        bound(&mut self.leaders);
        if first == node { Ok(()) } else { Err(Violation::TwoLeaders { term, first, second: node }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{M1, M2, M2_AGAIN};
    use super::*;

    #[test]
    fn each_term_has_its_leader() {
        let mut checker = OneLeader::default();
        assert_eq!(checker.leads(M1, 1), Ok(()));
        assert_eq!(checker.leads(M1, 1), Ok(()));
        assert_eq!(checker.leads(M2, 2), Ok(()));
    }

    #[test]
    fn another_incarnation_is_another_leader() {
        let mut checker = OneLeader::default();
        assert_eq!(checker.leads(M2, 1), Ok(()));
        let two = Violation::TwoLeaders { term: 1, first: M2, second: M2_AGAIN };
        assert_eq!(checker.leads(M2_AGAIN, 1), Err(two));
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut checker = OneLeader::default();
        assert_eq!(checker.leads(M1, 1), Ok(()));
        assert_eq!(checker.leads(M2, 1), Err(Violation::TwoLeaders { term: 1, first: M1, second: M2 }));
    }
}
