//! What must hold at every step, checked while a world runs (protocol.md §6.1, §6.4, §6.10).

use std::collections::BTreeMap;

use hovercraft::applier::{Applier, Committed, Work};
use hovercraft::consensus::Role;
use hovercraft::entry::Entry;
use hovercraft::{LogIndex, Node, NodeId, Service, Term};
use r2p2::Digest;

/// The one history that all nodes must agree on.
#[derive(Debug, Default)]
pub(crate) struct Safety {
    leaders: BTreeMap<Term, NodeId>,
    entries: BTreeMap<LogIndex, Entry>,
    hashes: BTreeMap<LogIndex, u64>,
    applied: BTreeMap<u16, LogIndex>,
    executed: BTreeMap<Digest, LogIndex>,
}

/// How much history is kept for nodes that lag behind.
const HISTORY_MAX: usize = 1 << 20;

impl Safety {
    /// Entries come in order on every node, and are the same everywhere, replier included.
    pub(crate) fn check_work(&mut self, node: u16, work: &Work) {
        let Work::Apply(Committed { index, entry, .. }) = work else { return };
        let previous = self.applied.insert(node, *index).unwrap_or(0);
        assert!(*index == previous + 1 || *index == 1, "n{node} applies {index} after {previous}");
        let agreed = self.entries.entry(*index).or_insert(*entry);
        assert_eq!(agreed, entry, "n{node} applies another entry at {index} than others (state-machine safety)");
        if self.entries.len() > HISTORY_MAX {
            self.entries.pop_first();
        }
        let _ = self.executed.entry(entry.request.identity).or_insert(*index);
    }

    /// Equal indices, equal states.
    pub(crate) fn check_state<S: Service>(&mut self, node: u16, applier: &Applier<S>) {
        let Some(hash) = applier.state_hash() else { return };
        let index = applier.applied();
        let agreed = *self.hashes.entry(index).or_insert(hash);
        assert_eq!(agreed, hash, "n{node} has diverged at {index}");
        if self.hashes.len() > HISTORY_MAX {
            self.hashes.pop_first();
        }
    }

    /// One leader per term.
    pub(crate) fn check_node(&mut self, node: &Node) {
        let consensus = node.consensus();
        if consensus.role() == Role::Leader {
            let leader = *self.leaders.entry(consensus.term()).or_insert(node.me().node());
            assert_eq!(leader, node.me().node(), "two leaders in term {}", consensus.term());
        }
    }
}
