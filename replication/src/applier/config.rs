//! What an [`Applier`](super::Applier) needs to know.

use std::net::SocketAddrV4;

use r2p2::wire::{HEADER_LEN, PAYLOAD_MAX};

use crate::id::{LogIndex, NodeId};
use crate::session::SessionLimits;

/// Configuration of an [`Applier`](super::Applier). Everything but `me`, `packet_max`, `epoch` and what is about
/// forwarders decides what is replicated state, so it must be equal on all nodes of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApplierConfig {
    /// The node that this is: it answers the entries whose replier it is.
    pub me: NodeId,
    /// Longest reply in bytes; at most what 65 535 packets of `packet_max` carry.
    pub reply_max: usize,
    /// Longest UDP payload to a client, header included.
    pub packet_max: usize,
    /// The epoch of the membership at first, which answers name; see
    /// [`Applier::set_membership_epoch`](super::Applier::set_membership_epoch).
    pub epoch: u64,
    /// The seeds that the service is given derive from it and from the index.
    pub group_seed: u64,
    /// Limits of the session table; see there for what they must be.
    pub sessions: SessionLimits,
    /// Entries that are not executed: the explicit decision by which a group gets past one on which its service panics
    /// (protocol.md §7.9). Their clients are told so.
    pub skip: Vec<LogIndex>,
    /// Gateways and routers, which are told what this node has answered; see [`Applier::flush_feedback`].
    ///
    /// [`Applier::flush_feedback`]: super::Applier::flush_feedback
    pub forwarders: Vec<SocketAddrV4>,
    /// Under which epoch it counts what it has answered ([`r2p2::feedback`]): another one for each process, and not that
    /// of the node core, which answers from the same address.
    pub feedback_epoch: u64,
}

impl ApplierConfig {
    /// The default configuration for node `me`.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            reply_max: 64 << 10,
            packet_max: HEADER_LEN + PAYLOAD_MAX,
            epoch: 1,
            group_seed: 0,
            sessions: SessionLimits::default(),
            skip: Vec::new(),
            forwarders: Vec::new(),
            feedback_epoch: 0,
        }
    }
}
