//! Same log, same state: hashes of service and session table agree at equal indices (protocol.md §6.10).

use std::collections::BTreeMap;

use hovercraft::{LogIndex, NodeId};

use super::{Result, Violation, bound};

/// The state's hash at every index.
#[derive(Debug, Default)]
pub struct SameState {
    hashes: BTreeMap<LogIndex, u64>,
}

impl SameState {
    /// A node's state after it has executed `index`.
    ///
    /// # Errors
    /// Another node's was another.
    pub fn applied(&mut self, node: NodeId, index: LogIndex, hash: u64) -> Result {
        let known = *self.hashes.entry(index).or_insert(hash);
        bound(&mut self.hashes);
        if known == hash { Ok(()) } else { Err(Violation::StatesDiffer { node, index, found: hash, known }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    #[test]
    fn equal_states_are_fine() {
        let mut checker = SameState::default();
        for (node, index, hash) in [(N1, 1, 10), (N1, 2, 20), (N2, 1, 10), (N2, 2, 20)] {
            assert_eq!(checker.applied(node, index, hash), Ok(()));
        }
    }

    #[test]
    fn another_state_is_found() {
        let mut checker = SameState::default();
        assert_eq!(checker.applied(N1, 1, 10), Ok(()));
        let differ = Violation::StatesDiffer { node: N2, index: 1, found: 11, known: 10 };
        assert_eq!(checker.applied(N2, 1, 11), Err(differ));
    }
}
