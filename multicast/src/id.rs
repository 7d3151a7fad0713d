//! Names of things: nodes, their lives, groups.

use std::fmt;

/// A position in the log; the first entry has index 1.
pub type LogIndex = u64;
/// A Raft term; 0 means "none".
pub type Term = u64;

/// A node of a group, as the configuration names it (1 to [`NodeId::MAX`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u16);

impl NodeId {
    /// No node: the replier of an entry nobody answers (a term's first entry).
    pub const NONE: Self = Self(0);
    /// The highest id a configuration may use.
    pub const MAX: u16 = 255;
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One life of a node's storage. A memory-mode node that restarts has forgotten its vote and its acknowledgements, so
/// it must come back as somebody else (protocol.md §7.5): same node id, next incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Incarnation(pub u32);

/// A voter as Raft sees it: (node id, incarnation) packed into the `u64` that the `raft` crate wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

impl MemberId {
    /// The member that `node` is in its life `incarnation`.
    pub const fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self((node.0 as u64) << 32 | incarnation.0 as u64)
    }

    /// From the `raft` crate's id.
    pub const fn from_raft(id: u64) -> Self {
        Self(id)
    }

    /// For the `raft` crate; never 0 (its "nobody"), because node ids start at 1.
    pub const fn raft(self) -> u64 {
        self.0
    }

    /// The node.
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 32) as u16)
    }

    /// Its life.
    pub const fn incarnation(self) -> Incarnation {
        Incarnation(self.0 as u32)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.incarnation().0)
    }
}

/// A replication group. One host can serve many; the id is in every internal message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);
