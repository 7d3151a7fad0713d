//! A datagram on its way, described for rules that lose some.

use std::fmt;

use bytes::Bytes;
use hovercraft::message::{Envelope, Message};
use r2p2::Instant;
use r2p2::server::Via;
use r2p2::wire::{Header, MessageType, Packet};

/// Who sends or receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Party {
    /// A node, by id.
    Node(u16),
    /// A client, by number.
    Client(usize),
    /// An aggregator, by number.
    Aggregator(u16),
    /// The gateway.
    Gateway,
    /// An address of the test's own.
    Raw,
}

impl From<u16> for Party {
    /// The node of this id.
    fn from(id: u16) -> Self {
        Self::Node(id)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "n{id}"),
            Self::Client(number) => write!(f, "c{number}"),
            Self::Aggregator(number) => write!(f, "a{number}"),
            Self::Gateway => write!(f, "gateway"),
            Self::Raw => write!(f, "raw"),
        }
    }
}

/// A datagram on its way to one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Flight<'a> {
    /// When it was sent.
    pub at: Instant,
    /// Who sent it.
    pub from: Party,
    /// Who would receive it.
    pub to: Party,
    /// Whether it was sent to a group.
    pub via: Via,
    /// What it is: `request`, `response`, `ack`, `drop`, or the name of an internal message such as `append`;
    /// `garbage` if it does not parse.
    pub what: &'static str,
    /// The UDP payload.
    pub packet: &'a Bytes,
}

impl Flight<'_> {
    /// The internal message in it, if it is a whole one.
    pub fn message(&self) -> Option<Message> {
        message(self.packet).map(|(_, message)| message)
    }
}

/// The internal message in a datagram, if it is a whole one.
pub(crate) fn message(datagram: &Bytes) -> Option<(Envelope, Message)> {
    let packet = Packet::new_checked(&datagram[..]).ok()?;
    let header = Header::parse(&packet).ok()?;
    let body = datagram.slice_ref(packet.payload());
    (header.kind == MessageType::RaftMessage && header.first && header.last)
        .then(|| Message::parse(&body).ok())
        .flatten()
}

pub(crate) fn describe<'a>(at: Instant, from: Party, to: Party, via: Via, packet: &'a Bytes) -> Flight<'a> {
    let header = Packet::new_checked(&packet[..]).and_then(|packet| Header::parse(&packet));
    let what = match header.map(|header| header.kind) {
        Err(_) => "garbage",
        Ok(MessageType::Request) => "request",
        Ok(MessageType::Response) => "response",
        Ok(MessageType::Feedback) => "feedback",
        Ok(MessageType::Ack) => "ack",
        Ok(MessageType::Drop) => "drop",
        Ok(MessageType::RaftRequest | MessageType::RaftReply | MessageType::RaftMessage) => internal(packet),
    };
    Flight { at, from, to, via, what, packet }
}

/// The kind of an internal message, read from the one byte that says so: most rules need no more.
pub(crate) fn internal(packet: &Bytes) -> &'static str {
    let Ok(view) = Packet::new_checked(&packet[..]) else { return "garbage" };
    if !view.is_first() {
        return "fragment";
    }
    match view.payload().get(1) {
        Some(1) => "append",
        Some(2) => "append_ack",
        Some(3) => "heartbeat",
        Some(4) => "commit_notice",
        Some(5) => "vote",
        Some(6) => "vote_reply",
        Some(7) => "timeout_now",
        Some(8) => "fetch",
        Some(9) => "bodies",
        Some(10) => "hint",
        Some(11) => "refused",
        Some(12) => "members_query",
        Some(13) => "members",
        Some(14) => "behind",
        Some(15) => "snapshot_fetch",
        Some(16) => "snapshot_chunk",
        Some(17) => "snapshot_missing",
        Some(18) => "receiving",
        Some(19) => "installed",
        Some(20) => "arm",
        Some(21) => "armed",
        Some(22) => "agg_commit",
        _ => "fragment",
    }
}
