//! A membership as bytes, in the log, in messages and in snapshots. Protobuf: rare, structured, and read by other versions.

use std::net::{Ipv4Addr, SocketAddrV4};

use prost::Message;

use super::{Addresses, MEMBERS_MAX, Member, MemberRole, Membership};
use crate::id::{Incarnation, MemberId, NodeId};

/// Most nodes of which the last incarnation is remembered: all there can be.
const REMOVED_MAX: usize = NodeId::MAX as usize;

#[derive(Clone, PartialEq, Message)]
struct MembershipProto {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(message, repeated, tag = "2")]
    members: Vec<MemberProto>,
    /// Members that have left, as Raft's ids.
    #[prost(uint64, repeated, tag = "3")]
    removed: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct MemberProto {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(fixed64, tag = "3")]
    peers: u64,
    #[prost(fixed64, tag = "4")]
    requests: u64,
    #[prost(fixed64, optional, tag = "5")]
    group_requests: Option<u64>,
}

const ROLES: [MemberRole; 5] = [
    MemberRole::Voter,
    MemberRole::Joining,
    MemberRole::Leaving,
    MemberRole::Learner { promote: false },
    MemberRole::Learner { promote: true },
];

pub(super) fn emit(membership: &Membership) -> Vec<u8> {
    let members = membership.members.iter().map(|(id, member)| MemberProto {
        id: id.raft(),
        // From 1: protobuf takes 0 for absent.
        role: ROLES.iter().position(|role| *role == member.role).map_or(0, |at| at as u32 + 1),
        peers: word(member.addresses.peers),
        requests: word(member.addresses.requests),
        group_requests: member.addresses.group_requests.map(word),
    });
    MembershipProto {
        epoch: membership.epoch,
        members: members.collect(),
        removed: membership
            .removed
            .iter()
            .map(|(node, incarnation)| MemberId::new(*node, *incarnation).raft())
            .collect(),
    }
    .encode_to_vec()
}

pub(super) fn parse(bytes: &[u8]) -> Option<Membership> {
    let proto = MembershipProto::decode(bytes).ok()?;
    if proto.members.len() > MEMBERS_MAX || proto.removed.len() > REMOVED_MAX {
        return None;
    }
    let mut membership = Membership { epoch: proto.epoch, ..Membership::default() };
    for member in &proto.members {
        let id = id(member.id)?;
        let role = *ROLES.get((member.role as usize).checked_sub(1)?)?;
        let addresses = Addresses {
            peers: address(member.peers)?,
            requests: address(member.requests)?,
            group_requests: match member.group_requests {
                Some(word) => Some(address(word)?),
                None => None,
            },
        };
        if membership.of_node(id.node()).is_some() {
            return None;
        }
        membership.members.insert(id, Member { role, addresses });
    }
    for removed in &proto.removed {
        let id = id(*removed)?;
        if membership.of_node(id.node()).is_some() || membership.removed.insert(id.node(), id.incarnation()).is_some() {
            return None;
        }
    }
    // Without voters nobody could ever change it again.
    let complete = membership.incoming().next().is_some() && membership.outgoing().next().is_some();
    complete.then_some(membership)
}

fn word(address: SocketAddrV4) -> u64 {
    u64::from(u32::from(*address.ip())) << 16 | u64::from(address.port())
}

fn address(word: u64) -> Option<SocketAddrV4> {
    (word >> 48 == 0).then(|| SocketAddrV4::new(Ipv4Addr::from((word >> 16) as u32), word as u16))
}

fn id(raft: u64) -> Option<MemberId> {
    let (node, incarnation) = (raft >> 32, raft as u32);
    let valid = (1..=u64::from(NodeId::MAX)).contains(&node) && incarnation > 0;
    valid.then(|| MemberId::new(NodeId(node as u16), Incarnation(incarnation)))
}
