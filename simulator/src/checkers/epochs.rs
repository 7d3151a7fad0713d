//! An epoch names one membership: of all that are committed, no two have the same, and nobody is told of one that is not
//! committed (protocol.md §7.6).

use std::collections::BTreeMap;

use hovercraft::{Membership, NodeId};

use super::{Result, Violation};

/// Every membership that is committed.
#[derive(Debug)]
pub struct Epochs {
    committed: BTreeMap<u64, Membership>,
}

impl Epochs {
    /// The group begins with this one.
    pub fn new(first: &Membership) -> Self {
        Self { committed: [(first.epoch, first.clone())].into() }
    }

    /// A node has committed a membership.
    ///
    /// # Errors
    /// Another one has the same epoch.
    pub fn committed(&mut self, node: NodeId, membership: &Membership) -> Result {
        let known = self.committed.entry(membership.epoch).or_insert_with(|| membership.clone());
        if known == membership {
            return Ok(());
        }
        let (found, known) = (Box::new(membership.clone()), Box::new(known.clone()));
        Err(Violation::EpochTwice { node, found, known })
    }

    /// A node tells another one of a membership.
    ///
    /// # Errors
    /// It is not committed.
    pub fn told(&self, node: NodeId, membership: &Membership) -> Result {
        // Of those who have left, only the one who is told may be in it.
        let is_that = |committed: &Membership| {
            let mut removed = membership.removed.iter();
            committed.members == membership.members
                && removed.all(|(node, last)| committed.removed.get(node) == Some(last))
        };
        if self.committed.get(&membership.epoch).is_some_and(is_that) {
            return Ok(());
        }
        Err(Violation::ToldTooEarly { node, told: Box::new(membership.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use hovercraft::Incarnation;

    use super::super::samples::{N1, N2, group};
    use super::*;

    #[test]
    fn what_is_committed_may_be_told() {
        let mut checker = Epochs::new(&group(3));
        assert_eq!(checker.told(N1, &group(3)), Ok(()));
        let next = Membership { epoch: 2, ..group(2) };
        assert_eq!(checker.committed(N1, &next), Ok(()));
        assert_eq!(checker.committed(N2, &next), Ok(()));
        assert_eq!(checker.told(N2, &next), Ok(()));
        let left = |node| Membership { epoch: 3, removed: [(node, Incarnation(1))].into(), ..group(2) };
        assert_eq!(checker.committed(N1, &left(N1)), Ok(()));
        assert_eq!(checker.told(N1, &Membership { epoch: 3, ..group(2) }), Ok(()), "those who have left aside");
        assert!(checker.told(N1, &left(N2)).is_err());
    }

    #[test]
    fn another_one_of_the_same_epoch_and_what_is_not_committed_are_found() {
        let mut checker = Epochs::new(&group(3));
        assert!(matches!(checker.committed(N2, &group(2)), Err(Violation::EpochTwice { node: N2, .. })));
        assert!(matches!(checker.told(N1, &group(2)), Err(Violation::ToldTooEarly { node: N1, .. })));
        let next = Membership { epoch: 2, ..group(3) };
        assert!(matches!(checker.told(N1, &next), Err(Violation::ToldTooEarly { .. })));
    }
}
