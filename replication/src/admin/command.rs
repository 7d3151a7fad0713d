//! What an operator wants of a node.

use std::net::SocketAddrV4;

use bytes::Bytes;
use prost::Message as _;

use super::members::is_host;
use crate::id::{Incarnation, NodeId};
use crate::membership::Addresses;

/// The version of commands and replies that this program speaks. A node refuses commands of newer ones.
pub const VERSION: u32 = 1;

/// Longest command in bytes.
pub const COMMAND_LEN_MAX: usize = 1024;

/// What an operator wants of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminCommand {
    /// How it is: answered by a [`StatusReport`](crate::node::StatusReport).
    Status,
    /// Who makes up the group, as far as it knows: answered by a [`MembersReport`](super::MembersReport).
    Members,
    /// This node is to be a member. Repeat it until the answer says who it is to be.
    Add {
        /// Which node.
        node: NodeId,
        /// Where it is to be found.
        addresses: Addresses,
        /// The last incarnation that it has lived as, 0 for none: that one will not come back, and goes if it is a member.
        after: Incarnation,
        /// Whether it stays a learner; otherwise it becomes a voter when it has caught up.
        learner: bool,
    },
    /// This node is to be no member.
    Remove {
        /// Which node.
        node: NodeId,
    },
    /// Another node is to lead.
    Transfer {
        /// Which node; whoever has most of the log if none is named.
        to: Option<NodeId>,
    },
    /// There is to be a snapshot of what is applied now.
    Snapshot,
    /// Which snapshots the node has: answered by a [`SnapshotsReport`](super::SnapshotsReport).
    Snapshots,
    /// A piece of one: answered by a [`ChunkReport`](super::ChunkReport), or a refusal if there is none such.
    Chunk {
        /// Of which snapshot.
        id: u64,
        /// Which one, from 0.
        number: u64,
    },
    /// This node, which is the one that is told, is to go on alone: a majority is gone for good.
    Recover {
        /// Which node.
        node: NodeId,
    },
}

impl AdminCommand {
    /// Its name, as the command line has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Members => "members",
            Self::Add { .. } => "add",
            Self::Remove { .. } => "remove",
            Self::Transfer { .. } => "transfer",
            Self::Snapshot => "snapshot",
            Self::Snapshots => "snapshots",
            Self::Chunk { .. } => "chunk",
            Self::Recover { .. } => "recover",
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let arguments = match *self {
            // A word that every version understands.
            Self::Status | Self::Members | Self::Snapshots => return Bytes::from_static(self.name().as_bytes()),
            Self::Add { node, addresses, after, learner } => Arguments::Add(AddMessage {
                node: node.0.into(),
                after: after.0,
                requests: addresses.requests.to_string(),
                group_requests: addresses.group_requests.map_or_else(String::new, |address| address.to_string()),
                peers: addresses.peers.to_string(),
                learner,
            }),
            Self::Remove { node } => Arguments::Remove(NodeMessage { node: node.0.into() }),
            Self::Transfer { to } => Arguments::Transfer(NodeMessage { node: to.map_or(0, |to| to.0.into()) }),
            Self::Snapshot => Arguments::Snapshot(NoArguments {}),
            Self::Chunk { id, number } => Arguments::Chunk(ChunkMessage { id, number }),
            Self::Recover { node } => Arguments::Recover(NodeMessage { node: node.0.into() }),
        };
        let message = CommandMessage { version: VERSION, name: self.name().to_owned(), arguments: Some(arguments) };
        message.encode_to_vec().into()
    }

    /// Reads what came from outside. Any bytes are safe.
    ///
    /// # Errors
    /// Why it is no command for this node.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        match bytes {
            b"" | b"status" => return Ok(Self::Status),
            b"members" => return Ok(Self::Members),
            b"snapshots" => return Ok(Self::Snapshots),
            _ => {}
        }
        if bytes.len() > COMMAND_LEN_MAX {
            return Err(NotUnderstood::TooLong { len: bytes.len() });
        }
        let message = CommandMessage::decode(bytes).map_err(|_| NotUnderstood::Malformed)?;
        if message.version > VERSION {
            return Err(NotUnderstood::Newer { version: message.version, name: printable(&message.name) });
        }
        if message.version == 0 {
            return Err(NotUnderstood::Malformed);
        }
        let Some(arguments) = message.arguments else {
            return Err(NotUnderstood::Unknown { name: printable(&message.name) });
        };
        Ok(match arguments {
            Arguments::Add(add) => Self::Add {
                node: node_id(add.node)?,
                addresses: add.addresses()?,
                after: Incarnation(add.after),
                learner: add.learner,
            },
            Arguments::Remove(node) => Self::Remove { node: node_id(node.node)? },
            Arguments::Transfer(NodeMessage { node: 0 }) => Self::Transfer { to: None },
            Arguments::Transfer(node) => Self::Transfer { to: Some(node_id(node.node)?) },
            Arguments::Snapshot(NoArguments {}) => Self::Snapshot,
            Arguments::Chunk(ChunkMessage { id, number }) => Self::Chunk { id, number },
            Arguments::Recover(node) => Self::Recover { node: node_id(node.node)? },
        })
    }
}

/// Why bytes are no command for this node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUnderstood {
    /// Too long.
    #[error("a command of {len} bytes; the longest has {COMMAND_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not a command at all.
    #[error("what came is no command")]
    Malformed,
    /// Of a version to come.
    #[error(
        "the command `{name}` is of version {version}, and this node understands up to {VERSION}: upgrade the node, or use \
         the program of its version"
    )]
    Newer {
        /// The command's version.
        version: u32,
        /// Its name.
        name: String,
    },
    /// One that this version does not have.
    #[error("this node does not know the command `{name}`: upgrade it, or use the program of its version")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// An argument that cannot be.
    #[error("the command's `{what}` is missing or impossible")]
    Invalid {
        /// Which.
        what: &'static str,
    },
}

/// The name of a command that is not known: a few characters that cannot spoil a terminal or a log.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(32).collect()
}

fn node_id(number: u32) -> Result<NodeId, NotUnderstood> {
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=NodeId::MAX).contains(number))
        .map(NodeId)
        .ok_or(NotUnderstood::Invalid { what: "node" })
}

/// Where a host can be.
pub(super) fn host(text: &str) -> Option<SocketAddrV4> {
    text.parse().ok().filter(|address| is_host(*address))
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommandMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// So that who does not know it can say what it does not know.
    #[prost(string, tag = "2")]
    name: String,
    #[prost(oneof = "Arguments", tags = "3, 4, 5, 6, 7, 8")]
    arguments: Option<Arguments>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Arguments {
    #[prost(message, tag = "3")]
    Add(AddMessage),
    #[prost(message, tag = "4")]
    Remove(NodeMessage),
    #[prost(message, tag = "5")]
    Transfer(NodeMessage),
    #[prost(message, tag = "6")]
    Snapshot(NoArguments),
    #[prost(message, tag = "7")]
    Recover(NodeMessage),
    #[prost(message, tag = "8")]
    Chunk(ChunkMessage),
}

#[derive(Clone, PartialEq, prost::Message)]
struct NodeMessage {
    #[prost(uint32, tag = "1")]
    node: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkMessage {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NoArguments {}

#[derive(Clone, PartialEq, prost::Message)]
struct AddMessage {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(uint32, tag = "2")]
    after: u32,
    #[prost(string, tag = "3")]
    requests: String,
    #[prost(string, tag = "4")]
    group_requests: String,
    #[prost(string, tag = "5")]
    peers: String,
    #[prost(bool, tag = "6")]
    learner: bool,
}

impl AddMessage {
    fn addresses(&self) -> Result<Addresses, NotUnderstood> {
        let address = |text: &str, what| host(text).ok_or(NotUnderstood::Invalid { what });
        Ok(Addresses {
            requests: address(&self.requests, "requests")?,
            group_requests: match self.group_requests.as_str() {
                "" => None,
                text => Some(address(text, "group_requests")?),
            },
            peers: address(&self.peers, "peers")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 4), port)
    }

    fn all() -> Vec<AdminCommand> {
        let node = NodeId(4);
        let addresses = Addresses { requests: at(1), group_requests: Some(at(2)), peers: at(3) };
        let without = Addresses { group_requests: None, ..addresses };
        vec![
            AdminCommand::Status,
            AdminCommand::Members,
            AdminCommand::Add { node, addresses, after: Incarnation(0), learner: true },
            AdminCommand::Add { node, addresses: without, after: Incarnation(7), learner: false },
            AdminCommand::Remove { node: NodeId(255) },
            AdminCommand::Transfer { to: Some(NodeId(3)) },
            AdminCommand::Transfer { to: None },
            AdminCommand::Snapshot,
            AdminCommand::Recover { node: NodeId(4) },
            AdminCommand::Snapshots,
            AdminCommand::Chunk { id: u64::MAX, number: 7 },
        ]
    }

    #[test]
    fn there_and_back() {
        for command in all() {
            let bytes = command.encode();
            assert!(bytes.len() <= COMMAND_LEN_MAX);
            assert_eq!(AdminCommand::decode(&bytes), Ok(command));
        }
        assert_eq!(AdminCommand::decode(b""), Ok(AdminCommand::Status), "as the first version asked");
    }

    #[test]
    fn bytes_of_version_one() {
        let transfer = AdminCommand::Transfer { to: Some(NodeId(3)) };
        assert_eq!(transfer.encode(), b"\x08\x01\x12\x08transfer\x2a\x02\x08\x03"[..]);
        assert_eq!(AdminCommand::Snapshot.encode(), b"\x08\x01\x12\x08snapshot\x32\x00"[..]);
        assert_eq!(AdminCommand::Remove { node: NodeId(2) }.encode(), b"\x08\x01\x12\x06remove\x22\x02\x08\x02"[..]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_name() {
        let newer = CommandMessage { version: 2, name: "split".into(), arguments: None };
        let error = AdminCommand::decode(&newer.encode_to_vec());
        assert_eq!(error, Err(NotUnderstood::Newer { version: 2, name: "split".into() }));
        let unknown = CommandMessage { version: 1, name: "spl\x1b[it".into(), arguments: None };
        let error = AdminCommand::decode(&unknown.encode_to_vec()).unwrap_err();
        assert_eq!(error, NotUnderstood::Unknown { name: "spl?[it".into() });
        assert!(error.to_string().contains("`spl?[it`"), "{error}");
    }

    #[test]
    fn length_at_the_limit_and_one_past_it() {
        let long = |len| {
            let name = "x".repeat(len);
            CommandMessage { version: 1, name, arguments: None }.encode_to_vec()
        };
        let overhead = long(1000).len() - 1000;
        let known = long(COMMAND_LEN_MAX - overhead);
        assert_eq!(AdminCommand::decode(&known), Err(NotUnderstood::Unknown { name: "x".repeat(32) }));
        let len = COMMAND_LEN_MAX + 1;
        assert_eq!(AdminCommand::decode(&long(len - overhead)), Err(NotUnderstood::TooLong { len }));
    }

    #[test]
    fn impossible_arguments() {
        let add = AddMessage {
            node: 4,
            after: 0,
            requests: "10.0.0.4:1".into(),
            group_requests: String::new(),
            peers: "10.0.0.4:2".into(),
            learner: false,
        };
        let decode = |add: AddMessage| {
            let arguments = Some(Arguments::Add(add));
            AdminCommand::decode(&CommandMessage { version: 1, name: "add".into(), arguments }.encode_to_vec())
        };
        assert!(decode(add.clone()).is_ok());
        let wrong = [
            ("node", AddMessage { node: 0, ..add.clone() }),
            ("node", AddMessage { node: 256, ..add.clone() }),
            ("node", AddMessage { node: 1 << 16 | 1, ..add.clone() }),
            ("requests", AddMessage { requests: String::new(), ..add.clone() }),
            ("requests", AddMessage { requests: "10.0.0.4:0".into(), ..add.clone() }),
            ("requests", AddMessage { requests: "0.0.0.0:1".into(), ..add.clone() }),
            ("group_requests", AddMessage { group_requests: "239.0.0.1:1".into(), ..add.clone() }),
            ("peers", AddMessage { peers: "here".into(), ..add }),
        ];
        for (what, add) in wrong {
            assert_eq!(decode(add), Err(NotUnderstood::Invalid { what }));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = AdminCommand::decode(&bytes) {
                prop_assert_eq!(AdminCommand::decode(&command.encode()), Ok(command));
            }
        }

        #[test]
        fn damaged_commands_are_safe(which in 0..all().len(), at in any::<prop::sample::Index>(), byte: u8, cut in 0..60usize) {
            let mut bytes = all()[which].encode().to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(bytes.len().saturating_sub(cut).max(1));
            if let Ok(command) = AdminCommand::decode(&bytes) {
                prop_assert_eq!(AdminCommand::decode(&command.encode()), Ok(command));
            }
        }
    }
}
