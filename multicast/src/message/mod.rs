//! The messages of nodes that something in the network reads or writes (protocol.md §4, §8): fixed layouts, network byte
//! order, 64-bit terms and indices. What only nodes read is in crate `hovercraft`, which has these too.
//!
//! Every message is one R2P2 message of type RAFT_MSG and begins with an [`Envelope`]. A device that folds
//! acknowledgements needs four kinds of them and no Raft: [`Arm`], the head of an Append ([`AppendHead`]) and
//! [`AppendAck`] come in, [`Armed`] and [`AggCommit`] go out. Parsing never panics and never allocates more than the
//! message is long.

mod acknowledgement;
mod append;
mod arming;
mod codec;

pub use acknowledgement::{AppendAck, Reject};
pub use append::{APPEND_LEN, AppendHead};
pub use arming::{AggCommit, Arm, ArmMember, Armed, Figures, MEMBERS_MAX};
pub use codec::{MessageError, Reader, Writer};

use crate::id::{GroupId, Incarnation, MemberId, NodeId, Term};

/// Version of all layouts. A node refuses others, naming both.
pub const VERSION: u8 = 1;

/// Bytes before the kind-specific part.
pub const ENVELOPE_LEN: usize = 32;

/// Largest term or index taken from the wire: arithmetic on anything below cannot overflow (protocol.md §11).
pub const NUMBER_MAX: u64 = 1 << 62;

/// The numbers of the kinds that are read in the network.
pub mod kind {
    /// [`Append`](super::AppendHead).
    pub const APPEND: u8 = 1;
    /// [`AppendAck`](super::AppendAck).
    pub const APPEND_ACK: u8 = 2;
    /// [`Arm`](super::Arm).
    pub const ARM: u8 = 20;
    /// [`Armed`](super::Armed).
    pub const ARMED: u8 = 21;
    /// [`AggCommit`](super::AggCommit).
    pub const AGG_COMMIT: u8 = 22;
}

/// What every internal message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The replication group.
    pub group: GroupId,
    /// Who sends; node 0, incarnation 0 for what is no member: an aggregator.
    pub from: MemberId,
    /// Which process that is: drawn at start, so that two processes under one identity are told apart (§7.5).
    pub life: u64,
    /// The sender's term. In a request for a vote and its answer it is the term voted for, in [`Armed`] and [`AggCommit`]
    /// the term of the leader that has armed.
    pub term: Term,
}

impl Envelope {
    /// Begins a message of this kind.
    pub fn emit(&self, kind: u8) -> Writer {
        let mut to = Writer::with_capacity(128);
        to.u8(VERSION);
        to.u8(kind);
        to.u16(self.from.node().0);
        to.u32(self.group.0);
        to.u32(self.from.incarnation().0);
        to.u32(0);
        to.u64(self.life);
        to.u64(self.term);
        to
    }

    /// Reads an envelope and the number of the kind that follows.
    ///
    /// # Errors
    /// Names what is wrong with the bytes. A node id is from 1 to [`NodeId::MAX`], and 0 exactly where no member sends.
    pub fn parse(from: &mut Reader<'_>) -> Result<(Self, u8), MessageError> {
        let version = from.u8()?;
        if version != VERSION {
            return Err(MessageError::Version { theirs: version, ours: VERSION });
        }
        let kind = from.u8()?;
        let node = NodeId(from.u16()?);
        let is_aggregator = matches!(kind, kind::ARMED | kind::AGG_COMMIT);
        if (node == NodeId::NONE) != is_aggregator || node.0 > NodeId::MAX {
            return Err(MessageError::BadValue("node id"));
        }
        let group = GroupId(from.u32()?);
        let incarnation = Incarnation(from.u32()?);
        if from.u32()? != 0 {
            return Err(MessageError::BadValue("reserved field"));
        }
        let life = from.u64()?;
        let term = from.number()?;
        Ok((Self { group, from: MemberId::new(node, incarnation), life, term }, kind))
    }
}

/// What an aggregator reads of what nodes send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A leader says what it has sent and persisted. The entries are not looked at.
    Append(AppendHead),
    /// A member says what it has.
    AppendAck(AppendAck),
    /// A leader asks for an arming.
    Arm(Arm),
    /// Something else that nodes say to each other.
    Other,
}

impl Seen {
    /// Reads as much of a message as concerns an aggregator.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<(Envelope, Self), MessageError> {
        let mut from = Reader::new(bytes);
        let (envelope, kind) = Envelope::parse(&mut from)?;
        let seen = match kind {
            // Its entries follow, which concern nobody here.
            kind::APPEND => Self::Append(AppendHead::parse(&mut from)?),
            kind::APPEND_ACK => {
                let ack = AppendAck::parse(&mut from)?;
                from.end()?;
                Self::AppendAck(ack)
            }
            kind::ARM => {
                let arm = Arm::parse(&mut from)?;
                from.end()?;
                Self::Arm(arm)
            }
            _ => Self::Other,
        };
        if envelope.term == 0 && seen != Self::Other {
            return Err(MessageError::BadValue("term"));
        }
        Ok((envelope, seen))
    }
}

#[cfg(test)]
mod tests;
