//! Arm, Armed, AggCommit: a leader and its aggregator (protocol.md §8).

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{MessageError, Reader, Writer};
use crate::id::{Incarnation, LogIndex, MemberId, NodeId};

/// Most members of a group that an aggregator serves.
pub const MEMBERS_MAX: usize = 16;

/// A leader asks for acknowledgements to be folded from now on. Its term is the envelope's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arm {
    /// The leader's number for this request, repeated in the answer: one that comes late is not taken for another.
    pub request: u64,
    /// The epoch of the membership: the latest in the leader's log, which is committed and not joint.
    pub epoch: u64,
    /// Index of the term's first entry. Nothing below is ever announced.
    pub first: LogIndex,
    /// All members, the leader included.
    pub members: Vec<ArmMember>,
}

/// A member as its leader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArmMember {
    /// Who.
    pub id: MemberId,
    /// Whether it votes; a learner's figures are passed on and not counted.
    pub voter: bool,
    /// Which process it is (§7.5); 0 if the leader has not heard it: then it is not listened to under this arming.
    pub life: u64,
    /// Where its internal messages come from, and go to if there is no multicast.
    pub address: SocketAddrV4,
}

/// The aggregator's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Armed {
    /// The request.
    pub request: u64,
    /// The id of this arming; never 0, never used before or again.
    pub arm: u64,
}

/// What a majority of voters has, and what every member has said. The term is the envelope's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AggCommit {
    /// The arming under which all of it was said.
    pub arm: u64,
    /// The epoch of its membership.
    pub epoch: u64,
    /// A majority of the voters of that epoch has persisted everything up to here; 0 as long as that is not known of the
    /// term's first entry.
    pub commit: LogIndex,
    /// Each member's figures.
    pub members: Vec<Figures>,
}

/// What a member has said about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Who.
    pub id: MemberId,
    /// The highest index it has acknowledged; of the leader: that it has persisted.
    pub matched: LogIndex,
    /// The highest index it has executed; of the leader 0 unless it has said so.
    pub applied: LogIndex,
}

/// Bytes of a member in an Arm.
const ARM_MEMBER_LEN: usize = 24;

/// Bytes of a member in an AggCommit.
const FIGURES_LEN: usize = 24;

impl Arm {
    /// Writes it.
    pub fn emit(&self, to: &mut Writer) {
        for number in [self.request, self.epoch, self.first] {
            to.u64(number);
        }
        to.u32(self.members.len() as u32);
        for member in &self.members {
            to.u16(member.id.node().0);
            to.u16(u16::from(member.voter));
            to.u32(member.id.incarnation().0);
            to.u64(member.life);
            to.u32(member.address.ip().to_bits());
            to.u16(member.address.port());
            to.u16(0);
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let (request, epoch, first) = (from.u64()?, from.u64()?, from.number()?);
        if first == 0 {
            return Err(MessageError::BadValue("first index of the term"));
        }
        let count = count(from, ARM_MEMBER_LEN)?;
        let mut members: Vec<ArmMember> = Vec::with_capacity(count);
        for _ in 0..count {
            let node = node(from)?;
            let voter = match from.u16()? {
                0 => false,
                1 => true,
                _ => return Err(MessageError::BadValue("flag")),
            };
            let id = MemberId::new(node, Incarnation(from.u32()?));
            let life = from.u64()?;
            let address = SocketAddrV4::new(Ipv4Addr::from_bits(from.u32()?), from.u16()?);
            if from.u16()? != 0 {
                return Err(MessageError::BadValue("reserved field"));
            }
            if members.iter().any(|other| other.id.node() == node) {
                return Err(MessageError::BadValue("member, twice"));
            }
            members.push(ArmMember { id, voter, life, address });
        }
        Ok(Self { request, epoch, first, members })
    }
}

impl Armed {
    /// Writes it.
    pub fn emit(&self, to: &mut Writer) {
        to.u64(self.request);
        to.u64(self.arm);
    }

    /// Reads it.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        Ok(Self { request: from.u64()?, arm: arm_id(from)? })
    }
}

impl AggCommit {
    /// Writes it.
    pub fn emit(&self, to: &mut Writer) {
        for number in [self.arm, self.epoch, self.commit] {
            to.u64(number);
        }
        to.u32(self.members.len() as u32);
        for figures in &self.members {
            to.u16(figures.id.node().0);
            to.u16(0);
            to.u32(figures.id.incarnation().0);
            to.u64(figures.matched);
            to.u64(figures.applied);
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let (arm, epoch, commit) = (arm_id(from)?, from.u64()?, from.number()?);
        let count = count(from, FIGURES_LEN)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let node = node(from)?;
            if from.u16()? != 0 {
                return Err(MessageError::BadValue("reserved field"));
            }
            let id = MemberId::new(node, Incarnation(from.u32()?));
            members.push(Figures { id, matched: from.number()?, applied: from.number()? });
        }
        Ok(Self { arm, epoch, commit, members })
    }
}

fn count(from: &mut Reader<'_>, item_len: usize) -> Result<usize, MessageError> {
    let count = from.u32()? as usize;
    if count > MEMBERS_MAX {
        return Err(MessageError::BadValue("number of members"));
    }
    if count > from.remaining() / item_len {
        return Err(MessageError::Truncated);
    }
    Ok(count)
}

fn node(from: &mut Reader<'_>) -> Result<NodeId, MessageError> {
    let node = NodeId(from.u16()?);
    let good = node != NodeId::NONE && node.0 <= NodeId::MAX;
    if good { Ok(node) } else { Err(MessageError::BadValue("node id")) }
}

fn arm_id(from: &mut Reader<'_>) -> Result<u64, MessageError> {
    match from.u64()? {
        0 => Err(MessageError::BadValue("arm id")),
        id => Ok(id),
    }
}
