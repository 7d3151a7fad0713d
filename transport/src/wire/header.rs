//! [`Header`]: everything in front of the body, as a value.

use std::fmt;

use super::packet::field;
use super::{Extensions, HEADER_LEN, HEADER_LEN_MAX, MAGIC, Packet, ParseError};

/// What kind of message (protocol.md §3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MessageType {
    /// From a client.
    Request = 0,
    /// To a client.
    Response,
    /// A server tells a router that it has answered.
    Feedback,
    /// A server asks for the rest of a request of several packets.
    Ack,
    /// A request was not accepted.
    Drop,
    /// Between servers, wants a [`RaftReply`](Self::RaftReply).
    RaftRequest,
    /// Between servers, answers a [`RaftRequest`](Self::RaftRequest).
    RaftReply,
    /// Between servers, one way.
    RaftMessage,
}

/// What routers between client and servers do with a request (protocol.md §3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Policy {
    /// A router chooses the server.
    LoadBalanced = 0,
    /// It goes where it was sent. Everything but requests has this policy.
    Fixed,
    /// It goes to a group that orders it.
    Replicated,
    /// The same, and the client believes it to be read-only: a hint, never trusted (protocol.md §6.3).
    ReplicatedNoSideEffects,
}

/// The value of a packet's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What kind of message.
    pub kind: MessageType,
    /// Where requests are to be routed.
    pub policy: Policy,
    /// Whether it is the first packet of its message.
    pub first: bool,
    /// Whether it is the last packet of its message.
    pub last: bool,
    /// The request's number at its client.
    pub rid: u16,
    /// In the first packet the number of packets, in later ones their index.
    pub order: u16,
    /// Extensions; none for the C implementation.
    pub extensions: Extensions,
}

impl Header {
    /// The value of a packet's header, if its extensions make sense.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, ParseError> {
        Ok(Self {
            kind: packet.kind(),
            policy: packet.policy(),
            first: packet.is_first(),
            last: packet.is_last(),
            rid: packet.rid(),
            order: packet.order(),
            extensions: Extensions::parse(packet.raw_extensions())?,
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn header_len(&self) -> usize {
        self.extensions.header_len()
    }

    /// Writes the header to the front of `buffer`, whatever was there.
    ///
    /// # Panics
    ///
    /// If `buffer` is shorter than [`header_len`](Self::header_len).
    pub fn emit(&self, buffer: &mut [u8]) {
        let len = self.header_len();
        let buffer = &mut buffer[..len];
        let (fixed, extensions) = buffer.split_at_mut(HEADER_LEN);
        fixed[field::MAGIC] = MAGIC;
        fixed[field::HEADER_SIZE] = len as u8; // `Extensions` are shorter than 248 bytes.
        fixed[field::TYPE_POLICY] = (self.kind as u8) << 4 | self.policy as u8;
        fixed[field::FLAGS] = if self.first { field::FIRST } else { 0 } | if self.last { field::LAST } else { 0 };
        fixed[field::RID].copy_from_slice(&self.rid.to_be_bytes());
        fixed[field::ORDER].copy_from_slice(&self.order.to_be_bytes());
        self.extensions.emit(extensions);
    }

    /// Whether its sender waits for an ACK before it sends the rest: the first of several packets of a request that
    /// does not say otherwise (protocol.md §3.2).
    pub const fn wants_ack(&self) -> bool {
        matches!(self.kind, MessageType::Request) && self.first && !self.last && !self.extensions.no_handshake
    }
}

const _: () = assert!(Extensions::HEADER_LEN_MAX <= HEADER_LEN_MAX);

impl MessageType {
    pub(super) const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Request,
            1 => Self::Response,
            2 => Self::Feedback,
            3 => Self::Ack,
            4 => Self::Drop,
            5 => Self::RaftRequest,
            6 => Self::RaftReply,
            7 => Self::RaftMessage,
            _ => return None,
        })
    }

    /// Whether messages of this kind are always one packet.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Feedback | Self::Ack | Self::Drop)
    }
}

impl Policy {
    pub(super) const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::LoadBalanced,
            1 => Self::Fixed,
            2 => Self::Replicated,
            3 => Self::ReplicatedNoSideEffects,
            _ => return None,
        })
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "REQUEST",
            Self::Response => "RESPONSE",
            Self::Feedback => "FEEDBACK",
            Self::Ack => "ACK",
            Self::Drop => "DROP",
            Self::RaftRequest => "RAFT_REQ",
            Self::RaftReply => "RAFT_REP",
            Self::RaftMessage => "RAFT_MSG",
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoadBalanced => "load-balanced",
            Self::Fixed => "fixed",
            Self::Replicated => "replicated",
            Self::ReplicatedNoSideEffects => "replicated-no-se",
        })
    }
}

impl fmt::Display for Header {
    /// One line in the manner of tcpdump.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R2P2 {} {} rid {}", self.kind, self.policy, self.rid)?;
        match (self.first, self.last) {
            (true, true) => {}
            (true, false) => write!(f, ", first of {}", self.order)?,
            (false, false) => write!(f, ", packet {}", self.order)?,
            (false, true) => write!(f, ", packet {} last", self.order)?,
        }
        write!(f, "{}", self.extensions)
    }
}
