//! Who belongs to a group: [`Membership`], and the steps from one to the next (protocol.md §7.6).
//!
//! # Contract
//! A log entry of kind [`Membership`](crate::entry::EntryKind::Membership) carries the *whole* membership from there on,
//! and a node uses the latest in its log, committed or not, as Raft's dissertation has it (§4.1 there); if the entry is
//! replaced, the one before counts again. So nobody can campaign, vote or count under a configuration older than what it
//! has acknowledged, and a restart needs to know nothing but the log. (The `raft` crate would rather change when an entry
//! is applied; that is safe only with a commit index that survives restarts, which ours does not.)
//!
//! One change is under way at a time. Voters come and go by joint consensus only: `Joining` and `Leaving` voters make a
//! membership joint, and then a decision needs a majority of those before *and* of those after. Whoever joins is a learner
//! first. The functions here say what the next membership would be, or why there is none; [`crate::Node`] decides when.

mod codec;
mod error;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

pub use error::ChangeError;
pub use steps::MEMBERS_MAX;

use crate::id::{Incarnation, MemberId, NodeId};

/// Who belongs to a group, and since how many changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// How many memberships there were before this one. Clients and peers compare them by it.
    pub epoch: u64,
    /// The members, by identity.
    pub members: BTreeMap<MemberId, Member>,
    /// The last incarnation of each node that is no longer a member: its next is another.
    pub removed: BTreeMap<NodeId, Incarnation>,
}

/// What a group knows of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// What it is.
    pub role: MemberRole,
    /// Where it is.
    pub addresses: Addresses,
}

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MemberRole {
    /// Votes.
    Voter,
    /// Votes with those after the change that is under way.
    Joining,
    /// Votes with those before the change that is under way.
    Leaving,
    /// Gets the log and does not count. `promote` says that it is to vote once it has caught up.
    Learner {
        /// Whether it is to vote.
        promote: bool,
    },
}

/// Where a node is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addresses {
    /// Where it receives from other nodes, and what it sends to them from.
    pub peers: SocketAddrV4,
    /// Where it receives requests meant for it alone, and what it answers from.
    pub requests: SocketAddrV4,
    /// Where it receives requests meant for all nodes, if these do not come by multicast.
    pub group_requests: Option<SocketAddrV4>,
}

impl MemberRole {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
            Self::Learner { .. } => "learner",
        }
    }

    /// Whether it votes after the change that is under way, if one is.
    pub fn is_incoming(self) -> bool {
        matches!(self, Self::Voter | Self::Joining)
    }

    /// Whether it votes before the change that is under way, if one is.
    pub fn is_outgoing(self) -> bool {
        matches!(self, Self::Voter | Self::Leaving)
    }
}

impl Membership {
    /// The first membership of a group.
    pub fn of_voters(voters: impl IntoIterator<Item = (MemberId, Addresses)>) -> Self {
        let member = |(id, addresses)| (id, Member { role: MemberRole::Voter, addresses });
        Self { epoch: 1, members: voters.into_iter().map(member).collect(), removed: BTreeMap::new() }
    }

    /// A member.
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member that a node is; there is never more than one.
    pub fn of_node(&self, node: NodeId) -> Option<(MemberId, &Member)> {
        self.members.iter().find(|(id, _)| id.node() == node).map(|(id, member)| (*id, member))
    }

    /// Whether two majorities decide.
    pub fn is_joint(&self) -> bool {
        self.members.values().any(|member| matches!(member.role, MemberRole::Joining | MemberRole::Leaving))
    }

    /// Those who vote, in either half of a joint membership.
    pub fn voters(&self) -> impl Iterator<Item = MemberId> {
        self.with_role(|role| !matches!(role, MemberRole::Learner { .. }))
    }

    /// Those who vote after the change that is under way, if one is; else those who vote.
    pub fn incoming(&self) -> impl Iterator<Item = MemberId> {
        self.with_role(MemberRole::is_incoming)
    }

    /// Those who vote before the change that is under way, if one is; else those who vote.
    pub fn outgoing(&self) -> impl Iterator<Item = MemberId> {
        self.with_role(MemberRole::is_outgoing)
    }

    /// Those who get the log and do not vote.
    pub fn learners(&self) -> impl Iterator<Item = MemberId> {
        self.with_role(|role| matches!(role, MemberRole::Learner { .. }))
    }

    /// Whether these are enough to decide: a majority, or two.
    pub fn is_quorum(&self, those: &BTreeSet<MemberId>) -> bool {
        let majority = |half: &mut dyn Iterator<Item = MemberId>| {
            let (mut all, mut here) = (0, 0);
            for id in half {
                all += 1;
                here += usize::from(those.contains(&id));
            }
            here > all / 2
        };
        majority(&mut self.incoming()) && majority(&mut self.outgoing())
    }

    /// Whether this one votes when the change that is under way is done, if one is: only then it is to lead.
    pub fn may_lead(&self, id: MemberId) -> bool {
        self.get(id).is_some_and(|member| member.role.is_incoming())
    }

    /// Exactly three vote and no change is under way: what two of them hold is committed (protocol.md §5.6).
    pub fn is_plain_three(&self) -> bool {
        self.incoming().count() == 3 && !self.is_joint()
    }

    /// Whether this identity was a member and is none any more.
    pub fn was_removed(&self, id: MemberId) -> bool {
        match self.of_node(id.node()) {
            Some((now, _)) => id.incarnation() < now.incarnation(),
            None => self.removed.get(&id.node()).is_some_and(|last| id.incarnation() <= *last),
        }
    }

    /// The same without those who have left, but for what `node` was: so that it fits a datagram whatever has happened.
    #[must_use]
    pub fn as_told_to(&self, node: NodeId) -> Self {
        let removed = self.removed.get(&node).map(|was| (node, *was)).into_iter().collect();
        Self { epoch: self.epoch, members: self.members.clone(), removed }
    }

    /// As bytes, which [`Membership::parse`] reads.
    pub fn emit(&self) -> Vec<u8> {
        codec::emit(self)
    }

    /// Reads a membership; `None` if this is not one that could be.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        codec::parse(bytes)
    }

    fn with_role(&self, is: impl Fn(MemberRole) -> bool) -> impl Iterator<Item = MemberId> {
        self.members.iter().filter(move |(_, member)| is(member.role)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;
