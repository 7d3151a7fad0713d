//! What is a read the service says, from the body alone; a read changes nothing and runs on its replier only
//! (protocol.md §6.3).

use std::collections::BTreeMap;

use hovercraft::applier::Effect;
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::{Class, LogIndex, NodeId};

use super::{Result, Violation};

/// The service's state on every node, as hashes.
#[derive(Debug, Default)]
pub struct ReadOnly {
    hashes: BTreeMap<NodeId, u64>,
}

/// A node's log holds this entry; of its body the service says `class`.
///
/// # Errors
/// The entry says otherwise.
pub fn marked(node: NodeId, index: LogIndex, entry: &Entry, class: Class) -> Result {
    let is_read = entry.kind == EntryKind::Request && class == Class::Read;
    if entry.read_only == is_read { Ok(()) } else { Err(Violation::ReadMismarked { node, index, class }) }
}

impl ReadOnly {
    /// A process starts as this node, with a service of whatever state.
    pub fn started(&mut self, node: NodeId) {
        self.hashes.remove(&node);
    }

    /// A node has executed an entry with this effect; its service's state then has this hash, if it knows any.
    ///
    /// # Errors
    /// A read ran on another node than its replier, or the state has changed although nothing was written.
    pub fn applied(
        &mut self,
        node: NodeId,
        index: LogIndex,
        entry: &Entry,
        effect: Effect,
        hash: Option<u64>,
    ) -> Result {
        let replier = entry.replier;
        // That it does not run there either is fine: after a restart nobody is answered again.
        if effect == Effect::Queried && replier != node {
            return Err(Violation::ReadMisplaced { node, index, replier });
        }
        let Some(hash) = hash else { return Ok(()) };
        let before = self.hashes.insert(node, hash).unwrap_or(hash);
        if effect == Effect::Wrote || before == hash {
            return Ok(());
        }
        Err(Violation::ReadChangesState { node, index, effect, before, after: hash })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2, write};
    use super::*;

    fn read() -> Entry {
        Entry { read_only: true, ..write(1) }
    }

    #[test]
    fn entries_marked_as_the_service_says_are_fine() {
        assert_eq!(marked(N1, 1, &read(), Class::Read), Ok(()));
        assert_eq!(marked(N1, 1, &write(1), Class::Write), Ok(()));
        let open = Entry { kind: EntryKind::SessionOpen, ..write(1) };
        assert_eq!(marked(N1, 1, &open, Class::Read), Ok(()), "its empty body is nobody's business");
        assert_eq!(marked(N1, 1, &Entry::term_start(), Class::Read), Ok(()));
    }

    #[test]
    fn a_read_marked_as_a_write_and_the_reverse_are_found() {
        let mismarked = |class| Err(Violation::ReadMismarked { node: N1, index: 7, class });
        assert_eq!(marked(N1, 7, &write(1), Class::Read), mismarked(Class::Read));
        assert_eq!(marked(N1, 7, &read(), Class::Write), mismarked(Class::Write));
        let open = Entry { kind: EntryKind::SessionOpen, ..read() };
        assert_eq!(marked(N1, 7, &open, Class::Read), mismarked(Class::Read));
    }

    #[test]
    fn writes_change_the_state_and_reads_run_on_their_replier() {
        let mut checker = ReadOnly::default();
        for (node, effect) in [(N1, Effect::Queried), (N2, Effect::ReadElsewhere)] {
            assert_eq!(checker.applied(node, 1, &write(1), Effect::Wrote, Some(10)), Ok(()));
            assert_eq!(checker.applied(node, 2, &read(), effect, Some(10)), Ok(()));
            assert_eq!(checker.applied(node, 3, &write(1), Effect::Duplicate, Some(10)), Ok(()));
            assert_eq!(checker.applied(node, 4, &write(2), Effect::Wrote, Some(20)), Ok(()));
            assert_eq!(checker.applied(node, 5, &read(), effect, None), Ok(()), "a service without a hash");
        }
        checker.started(N1);
        assert_eq!(checker.applied(N1, 1, &Entry::term_start(), Effect::TermStart, Some(0)), Ok(()));
    }

    #[test]
    fn a_read_that_changes_state_is_found() {
        let mut checker = ReadOnly::default();
        assert_eq!(checker.applied(N1, 1, &write(1), Effect::Wrote, Some(10)), Ok(()));
        let changes =
            Violation::ReadChangesState { node: N1, index: 2, effect: Effect::Queried, before: 10, after: 11 };
        assert_eq!(checker.applied(N1, 2, &read(), Effect::Queried, Some(11)), Err(changes));
    }

    #[test]
    fn a_copy_that_changes_state_is_found() {
        let mut checker = ReadOnly::default();
        assert_eq!(checker.applied(N1, 1, &write(1), Effect::Wrote, Some(10)), Ok(()));
        let changes =
            Violation::ReadChangesState { node: N1, index: 2, effect: Effect::Duplicate, before: 10, after: 20 };
        assert_eq!(checker.applied(N1, 2, &write(1), Effect::Duplicate, Some(20)), Err(changes));
    }

    #[test]
    fn a_read_that_runs_on_another_node_than_its_replier_is_found() {
        let mut checker = ReadOnly::default();
        let misplaced = Violation::ReadMisplaced { node: N2, index: 1, replier: N1 };
        assert_eq!(checker.applied(N2, 1, &read(), Effect::Queried, None), Err(misplaced));
        assert_eq!(checker.applied(N1, 1, &read(), Effect::ReadElsewhere, None), Ok(()), "it has executed it before");
    }
}
