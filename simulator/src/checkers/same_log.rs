//! State-machine safety: every node executes the same entries in the order of the log, repliers included
//! (protocol.md §6.1, §6.4).

use std::collections::BTreeMap;

use hovercraft::entry::Entry;
use hovercraft::{LogIndex, NodeId};

use super::{Result, Violation, bound};

/// The one history that all nodes must agree on.
#[derive(Debug, Default)]
pub struct SameLog {
    entries: BTreeMap<LogIndex, Entry>,
    applied: BTreeMap<NodeId, LogIndex>,
}

impl SameLog {
    /// A node has forgotten everything.
    pub fn started(&mut self, node: NodeId) {
        self.applied.remove(&node);
    }

    /// A node has everything up to `index` by a snapshot.
    pub fn installed(&mut self, node: NodeId, index: LogIndex) {
        self.applied.insert(node, index);
    }

    /// A node executes an entry.
    ///
    /// # Errors
    /// It is not the next one, or not what others execute there.
    pub fn applied(&mut self, node: NodeId, index: LogIndex, entry: &Entry) -> Result {
        let previous = self.applied.insert(node, index).unwrap_or(0);
        if index != previous + 1 {
            return Err(Violation::OutOfOrder { node, index, previous });
        }
        let known = *self.entries.entry(index).or_insert(*entry);
        bound(&mut self.entries);
        if known == *entry {
            return Ok(());
        }
        if (Entry { replier: entry.replier, ..known }) == *entry {
            return Err(Violation::RepliersDiffer { node, index, found: entry.replier, known: known.replier });
        }
        Err(Violation::EntriesDiffer { node, index, found: Box::new(*entry), known: Box::new(known) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2, write};
    use super::*;

    #[test]
    fn the_same_entries_everywhere_are_fine() {
        let mut checker = SameLog::default();
        for node in [N1, N2, N1] {
            checker.started(node);
            assert_eq!(checker.applied(node, 1, &write(1)), Ok(()));
            assert_eq!(checker.applied(node, 2, &write(2)), Ok(()));
        }
    }

    #[test]
    fn a_snapshot_goes_on_behind_it() {
        let mut checker = SameLog::default();
        checker.installed(N1, 7);
        assert_eq!(checker.applied(N1, 8, &write(8)), Ok(()));
        assert!(matches!(checker.applied(N1, 8, &write(8)), Err(Violation::OutOfOrder { index: 8, .. })));
    }

    #[test]
    fn another_entry_is_found() {
        let mut checker = SameLog::default();
        assert_eq!(checker.applied(N1, 1, &write(1)), Ok(()));
        assert!(matches!(checker.applied(N2, 1, &write(2)), Err(Violation::EntriesDiffer { index: 1, .. })));
    }

    #[test]
    fn another_replier_is_found() {
        let mut checker = SameLog::default();
        assert_eq!(checker.applied(N1, 1, &write(1)), Ok(()));
        let differ = Violation::RepliersDiffer { node: N2, index: 1, found: N2, known: N1 };
        assert_eq!(checker.applied(N2, 1, &Entry { replier: N2, ..write(1) }), Err(differ));
    }

    #[test]
    fn a_gap_and_a_repetition_are_found() {
        for index in [1, 3] {
            let mut checker = SameLog::default();
            assert_eq!(checker.applied(N1, 1, &write(1)), Ok(()));
            let wrong = Violation::OutOfOrder { node: N1, index, previous: 1 };
            assert_eq!(checker.applied(N1, index, &write(index)), Err(wrong));
        }
    }
}
