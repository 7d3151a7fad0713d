//! What a node answers to an operator's command.

use std::net::SocketAddrV4;

use bytes::Bytes;
use prost::Message as _;

use super::command::{VERSION, host};
use crate::id::{MemberId, NodeId};

/// What a node answers to a command that is more than a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminReply {
    /// It is so, or has begun to become so.
    Accepted {
        /// The epoch of the membership in which it is so, or began to become so.
        epoch: u64,
        /// Who the node that was to be added is, once that is certain.
        member: Option<MemberId>,
    },
    /// It is not going to be so.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// For programs.
    pub reason: RefusalReason,
    /// For people: one sentence that says what to do.
    pub text: String,
    /// Who leads, as far as the node knows.
    pub leader: Option<LeaderHint>,
}

/// Why not, for programs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum RefusalReason {
    /// Something else; the text says what. Also what a reason to come is read as.
    Other = 0,
    /// Another node leads, or nobody does: ask there.
    NotLeader = 1,
    /// Another change is under way: ask again later.
    Busy = 2,
    /// There is no such node.
    UnknownNode = 3,
    /// Without it nobody would be left.
    LastVoter = 4,
    /// A majority of the voters to be cannot be heard.
    NoQuorum = 5,
    /// It contradicts what is so: an address or a number that another member has, say.
    Conflict = 6,
    /// This node cannot do that, whoever leads: its mode, or its version.
    Unsupported = 7,
    /// What came is no command that this node understands.
    NotUnderstood = 8,
}

/// Who leads, and where it is to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderHint {
    /// Who.
    pub node: NodeId,
    /// Where it receives requests meant for it alone.
    pub requests: SocketAddrV4,
}

impl AdminReply {
    /// A refusal of somebody who does not know the leader, or need not.
    pub fn refused(reason: RefusalReason, text: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason, text: text.into(), leader: None })
    }

    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let message = match self {
            Self::Accepted { epoch, member } => {
                let accepted = AcceptedMessage { epoch: *epoch, member: member.map_or(0, MemberId::raft) };
                ReplyMessage { version: VERSION, accepted: Some(accepted), refused: None }
            }
            Self::Refused(Refusal { reason, text, leader }) => ReplyMessage {
                version: VERSION,
                accepted: None,
                refused: Some(RefusedMessage {
                    reason: (*reason).into(),
                    text: text.clone(),
                    leader: leader.map_or(0, |leader| leader.node.0.into()),
                    leader_requests: leader.map_or_else(String::new, |leader| leader.requests.to_string()),
                }),
            },
        };
        message.encode_to_vec().into()
    }

    /// Reads what came from outside. Any bytes are safe; `None` if it is no reply.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let reply = ReplyMessage::decode(bytes).ok().filter(|reply| reply.version > 0)?;
        match (reply.accepted, reply.refused) {
            (Some(AcceptedMessage { epoch, member }), None) => {
                let member = Some(member).filter(|id| *id != 0).map(MemberId::from_raft);
                Some(Self::Accepted { epoch, member })
            }
            (None, Some(refused)) => {
                let leader = host(&refused.leader_requests).and_then(|requests| {
                    let node = NodeId(u16::try_from(refused.leader).ok()?);
                    Some(LeaderHint { node, requests })
                });
                let reason = refused.reason();
                Some(Self::Refused(Refusal { reason, text: refused.text, leader }))
            }
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReplyMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    accepted: Option<AcceptedMessage>,
    #[prost(message, optional, tag = "3")]
    refused: Option<RefusedMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedMessage {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    /// As Raft's id.
    #[prost(uint64, tag = "2")]
    member: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RefusedMessage {
    #[prost(enumeration = "RefusalReason", tag = "1")]
    reason: i32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(uint32, tag = "3")]
    leader: u32,
    #[prost(string, tag = "4")]
    leader_requests: String,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::id::Incarnation;

    #[test]
    fn there_and_back() {
        let leader = LeaderHint { node: NodeId(3), requests: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7420) };
        let refusal = Refusal { reason: RefusalReason::NotLeader, text: "n3 leads".into(), leader: Some(leader) };
        for reply in [
            AdminReply::Accepted { epoch: 0, member: None },
            AdminReply::Accepted { epoch: 7, member: Some(MemberId::new(NodeId(4), Incarnation(2))) },
            AdminReply::Refused(refusal),
            AdminReply::refused(RefusalReason::Other, ""),
        ] {
            assert_eq!(AdminReply::decode(&reply.encode()), Some(reply));
        }
    }

    #[test]
    fn bytes_of_version_one() {
        let accepted = AdminReply::Accepted { epoch: 7, member: None };
        assert_eq!(accepted.encode(), b"\x08\x01\x12\x02\x08\x07"[..]);
        let refused = AdminReply::refused(RefusalReason::Busy, "no");
        assert_eq!(refused.encode(), b"\x08\x01\x1a\x06\x08\x02\x12\x02no"[..]);
    }

    #[test]
    fn a_reason_to_come_is_another_reason() {
        let later = AdminReply::refused(RefusalReason::Busy, "no").encode().to_vec();
        let at = later.len() - 5;
        let mut later = later;
        assert_eq!(later[at], RefusalReason::Busy as u8);
        later[at] = 99;
        assert_eq!(AdminReply::decode(&later), Some(AdminReply::refused(RefusalReason::Other, "no")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(reply) = AdminReply::decode(&bytes) {
                prop_assert_eq!(AdminReply::decode(&reply.encode()), Some(reply));
            }
        }
    }
}
