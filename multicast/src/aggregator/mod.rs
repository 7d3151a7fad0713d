//! The aggregator: folds what the members of a group acknowledge into one message for all (protocol.md §8).
//!
//! # What it does
//! A leader *arms* it: [`Arm`] says who belongs to the group in this term, and gets an arm id. From then on the leader's
//! Appends carry that id, and followers send their acknowledgements here, with the id, instead of to the leader. As soon as
//! a majority of the voters has something new of that term, everybody is told at once ([`AggCommit`], with what each
//! member has); what else changes is passed on at most every [`AggregatorConfig::forward_after`].
//!
//! # Contract
//! The core is a [`Role`]; see [`crate::role`] for how it is driven. It receives what is sent to all nodes of a group (it
//! has joined their multicast group, or is one of the addresses that they send to), and what is sent to its own address.
//! In one batch Appends may come after the acknowledgements of them: what is beyond the leader's log as it is known here waits
//! for [`AggregatorConfig::early_max`].
//!
//! # Architecture invariants
//! *Soft state only.* What it forgets costs performance. Nothing that it says is evidence that anybody lives.
//!
//! *It counts facts, not messages.* An acknowledgement counts for an arming if its id, term and epoch are those of it and it
//! comes from a member as the leader knows it: that process, at that address. The leader is a member like any other, and is
//! counted by what its Appends say it has *persisted*. The epoch is that of the sender's own log: whoever has a later
//! membership is counted by nobody who does not know it.
//!
//! *It never announces* an index before the first of the term, one beyond the leader's log, or anything that fewer than a
//! majority of the *voters* has acknowledged. Leaders arm for no joint membership.
//!
//! *Ids are never used again*, also not by the next process: so a restart, a second leader, a second aggregator and
//! whatever is late are harmless.
//!
//! *Bounded*: the groups are those of the configuration, each with one arming of at most
//! [`MEMBERS_MAX`](crate::message::MEMBERS_MAX) members and one early acknowledgement of each. Any bytes from anybody are
//! counted by reason ([`Counters`]) and change nothing else.

mod arming;
mod counters;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::message::{MessageHead, write_packets};
use r2p2::wire::{Extensions, HEADER_LEN, Header, MessageType, PAYLOAD_MAX, Packet, Policy};

use crate::id::{GroupId, Incarnation, MemberId, NodeId};
use crate::message::{AggCommit, AppendAck, AppendHead, Arm, Armed, Envelope, MessageError, Seen, Writer, kind};
use crate::role::{Output, Role, To};
use arming::{Arming, Refused};
pub use counters::Counters;

/// What an aggregator needs to know.
#[derive(Clone, Debug)]
pub struct AggregatorConfig {
    /// Drawn at random by whoever starts the process: arm ids derive from it, so that no two processes give out the same.
    pub life: u64,
    /// The groups it serves; others do not exist for it.
    pub groups: Vec<GroupConfig>,
    /// d: changes that commit nothing are passed on at most this often.
    pub forward_after: Duration,
    /// How long an acknowledgement may be here before the Append that it is about.
    pub early_max: Duration,
}

/// A group that an aggregator serves.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its id.
    pub group: GroupId,
    /// Where its nodes speak from, as far as the configuration knows. Whoever else leads later was a member under an
    /// earlier arming, or cannot arm until this process is started with a newer configuration.
    pub nodes: Vec<SocketAddrV4>,
    /// Where all nodes listen, if the network makes the copies; else every member gets one.
    pub multicast: Option<SocketAddrV4>,
}

impl AggregatorConfig {
    /// An aggregator of these groups; d = 100 µs, early for 1 ms at most.
    pub fn new(life: u64, groups: Vec<GroupConfig>) -> Self {
        Self { life, groups, forward_after: Duration::from_micros(100), early_max: Duration::from_millis(1) }
    }
}

/// The core. See the module for its contract.
#[derive(Debug)]
pub struct Aggregator {
    config: AggregatorConfig,
    /// What is armed, in the order of the configuration.
    armed: Vec<Option<Arming>>,
    /// Armings so far.
    count: u64,
    /// Answers to leaders.
    answers: Vec<(SocketAddrV4, Bytes)>,
    rid: u16,
    counters: Counters,
}

/// Most answers to leaders that wait to be taken: what comes in one batch. Leaders ask again.
const ANSWERS_MAX: usize = 64;

impl Aggregator {
    /// Nothing is armed.
    pub fn new(config: AggregatorConfig) -> Self {
        let armed = config.groups.iter().map(|_| None).collect();
        Self { config, armed, count: 0, answers: Vec::new(), rid: 0, counters: Counters::default() }
    }

    /// What has been counted.
    pub fn totals(&self) -> &Counters {
        &self.counters
    }

    /// The id under which a group is armed, if it is.
    pub fn arm_id(&self, group: GroupId) -> Option<u64> {
        let at = self.place(group)?;
        self.armed[at].as_ref().map(|arming| arming.id)
    }

    fn place(&self, group: GroupId) -> Option<usize> {
        self.config.groups.iter().position(|config| config.group == group)
    }

    fn receive(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        let Some(body) = whole_message(packet) else {
            self.counters.packets_malformed += 1;
            return;
        };
        let (envelope, seen) = match Seen::parse(body) {
            Ok(parsed) => parsed,
            Err(MessageError::Version { .. }) => {
                self.counters.messages_other_version += 1;
                return;
            }
            Err(_) => {
                self.counters.messages_malformed += 1;
                return;
            }
        };
        let Some(at) = self.place(envelope.group) else {
            self.counters.messages_other_group += 1;
            return;
        };
        match seen {
            Seen::Append(head) => self.see_append(now, at, from, &envelope, &head),
            Seen::AppendAck(ack) => self.count_ack(now, at, from, &envelope, ack),
            Seen::Arm(arm) => self.arm(at, from, &envelope, &arm),
            Seen::Other => self.counters.messages_of_no_concern += 1,
        }
    }

    fn see_append(&mut self, now: Instant, at: usize, from: SocketAddrV4, envelope: &Envelope, head: &AppendHead) {
        if head.arm == 0 {
            self.counters.appends_not_armed += 1;
            return;
        }
        let Some(arming) = self.armed[at].as_mut().filter(|arming| arming.id == head.arm) else {
            self.counters.appends_other_arm += 1;
            return;
        };
        if !arming.is_leader(from, envelope) {
            self.counters.appends_not_leader += 1;
            return;
        }
        self.counters.appends_seen += 1;
        arming.see_append(now, head, &self.config);
    }

    fn count_ack(&mut self, now: Instant, at: usize, from: SocketAddrV4, envelope: &Envelope, ack: AppendAck) {
        let counted = match &mut self.armed[at] {
            _ if ack.arm == 0 => Err(Refused::NotArmed),
            None => Err(Refused::OtherArm),
            Some(arming) => arming.acknowledge(now, from, envelope, ack, &self.config),
        };
        match counted {
            Ok(()) => self.counters.acks_counted += 1,
            Err(refused) => self.counters.refuse(refused),
        }
    }

    fn arm(&mut self, at: usize, from: SocketAddrV4, envelope: &Envelope, arm: &Arm) {
        let config = &self.config.groups[at];
        let before = self.armed[at].as_ref();
        let is_known = config.nodes.contains(&from) || before.is_some_and(|arming| arming.is_member_at(from));
        if !is_known {
            self.counters.arms_stranger += 1;
            return;
        }
        let leads = |member: &&crate::message::ArmMember| {
            member.id == envelope.from && member.voter && member.address == from && member.life == envelope.life
        };
        if !arm.members.iter().any(|member| leads(&member)) {
            self.counters.arms_not_leader += 1;
            return;
        }
        if let Some(before) = before {
            let (theirs, ours) = ((envelope.term, arm.request), (before.term, before.request));
            let is_other = envelope.term == before.term && envelope.from != before.leader;
            if theirs < ours || is_other {
                self.counters.arms_stale += 1;
                return;
            }
            if theirs == ours {
                // A copy, or its answer was lost.
                let id = before.id;
                self.answer(from, envelope, arm.request, id);
                return;
            }
        }
        self.count += 1;
        let id = arm_id(self.config.life, self.count);
        let to = match config.multicast {
            Some(address) => To::One(address),
            None => To::Each(arm.members.iter().map(|member| member.address).collect::<Arc<[_]>>()),
        };
        let next = Arming::new(id, envelope, arm, to);
        #[cfg(feature = "mutations")]
        let next = next.keeping(self.armed[at].as_ref());
        self.armed[at] = Some(next);
        self.counters.arms_accepted += 1;
        self.answer(from, envelope, arm.request, id);
    }

    fn answer(&mut self, to: SocketAddrV4, asked: &Envelope, request: u64, arm: u64) {
        if self.answers.len() >= ANSWERS_MAX {
            self.counters.answers_dropped += 1;
            return;
        }
        let mut message = self.envelope(asked.group, asked.term).emit(kind::ARMED);
        Armed { request, arm }.emit(&mut message);
        let packet = self.packet(message);
        self.answers.push((to, packet));
    }

    fn envelope(&self, group: GroupId, term: u64) -> Envelope {
        Envelope { group, from: NOBODY, life: self.config.life, term }
    }

    fn packet(&mut self, message: Writer) -> Bytes {
        self.rid = self.rid.wrapping_add(1);
        let head = MessageHead {
            kind: MessageType::RaftMessage,
            policy: Policy::Fixed,
            rid: self.rid,
            extensions: Extensions::default(),
        };
        let mut only = Bytes::new();
        let written = write_packets(&head, &message.finish(), HEADER_LEN + PAYLOAD_MAX, &mut |packet| only = packet);
        debug_assert!(written.is_ok(), "16 members fit");
        only
    }
}

impl Role for Aggregator {
    const NAME: &'static str = "aggregator";

    fn handle_packet(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        self.counters.packets_received += 1;
        self.receive(now, from, packet);
    }

    fn handle_timeout(&mut self, now: Instant) {
        for arming in self.armed.iter_mut().flatten() {
            arming.forget_early(now, &self.config, &mut self.counters);
        }
    }

    fn poll_output(&mut self, now: Instant) -> Output {
        if let Some((to, packet)) = self.answers.pop() {
            return Output::Send { to: To::One(to), packet };
        }
        for at in 0..self.armed.len() {
            let Some(arming) = &mut self.armed[at] else { continue };
            let Some(commit) = arming.take_due(now, &mut self.counters) else { continue };
            let (term, to) = (arming.term, arming.to.clone());
            return Output::Send { to, packet: self.agg_commit(at, term, &commit) };
        }
        let next = self.armed.iter().flatten().filter_map(|arming| arming.next_due(&self.config)).min();
        Output::Timeout(next.unwrap_or(Instant::FAR_FUTURE))
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.counters.iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn gauges(&self) -> Vec<(String, u64)> {
        vec![("armed".to_owned(), self.armed.iter().flatten().count() as u64)]
    }
}

impl Aggregator {
    fn agg_commit(&mut self, at: usize, term: u64, commit: &AggCommit) -> Bytes {
        let group = self.config.groups[at].group;
        let mut message = self.envelope(group, term).emit(kind::AGG_COMMIT);
        commit.emit(&mut message);
        self.packet(message)
    }
}

/// Who sends what no member does.
const NOBODY: MemberId = MemberId::new(NodeId::NONE, Incarnation(0));

/// The internal message in a datagram, if it is one of one datagram.
fn whole_message(packet: &[u8]) -> Option<&[u8]> {
    let view = Packet::new_checked(packet).ok()?;
    let header = Header::parse(&view).ok()?;
    let is_whole = header.kind == MessageType::RaftMessage && header.first && header.last;
    is_whole.then(|| &packet[packet.len() - view.payload().len()..])
}

/// The id of the `count`th arming in a life: different for different counts in one life, and by chance alone the same in
/// two lives. Never 0.
fn arm_id(life: u64, count: u64) -> u64 {
    let mut id = life.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    id = (id ^ id >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ id >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (id ^ id >> 31).max(1)
}
