//! Names of things: nodes, their lives, groups. They are those of [`multicast::id`]: what sits in the network reads them.

pub use multicast::id::{GroupId, Incarnation, LogIndex, MemberId, NodeId, Term};
