//! Who belongs to the group, as this node acts on it (protocol.md §7.6; what a step is: [`crate::membership`]).
//!
//! A node counts by the latest membership in its log, and listens to those in it and in the latest committed one: what
//! is not committed may be taken back, by whoever was to leave. One that has been away may not find there whoever leads
//! now: it then asks the stranger, who answers with the latest *committed* membership. That only adds to whom a node
//! listens; it never counts by it. Only committed memberships are told to others, so an epoch that somebody was told
//! never means anything else.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::Instant;

use super::{Destination, Node, Output, StopReason};
use crate::config::Mode;
use crate::consensus::proposal;
use crate::entry::Entry;
use crate::id::{Incarnation, LogIndex, MemberId, NodeId};
use crate::log::LogRecord;
use crate::membership::{Addresses, ChangeError, MemberRole, Membership};
use crate::message::{Envelope, Message, Refusal, Refused};

/// Most strangers that are answered or asked between two ticks.
pub(super) const STRANGERS_MAX: u32 = 16;

/// By how much the term rises when a node goes on alone: whoever is gone may have had leaders since.
const RECOVERY_TERMS: u64 = 1 << 20;

/// Why a node does not do what it was told about its group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// Only a leader can.
    #[error("this node does not lead; {}", leader.map_or("nobody is known to lead, try again".to_owned(), |leader| format!("node {leader} does")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// A leader that has only just been elected, or is handing over.
    #[error("this node has only begun to lead, or is handing over; try again")]
    NotNow,
    /// The membership does not permit it.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The group is not lost.
    #[error(
        "node {leader} leads, so this group has a majority: there is nothing to recover, and what others acknowledge would be \
         lost; remove nodes that are gone with `hovercraft cluster remove`"
    )]
    NotLost {
        /// Who leads, as far as this node knows.
        leader: NodeId,
    },
    /// There is no log.
    #[error("an unreplicated node has no group")]
    Unreplicated,
}

impl Node {
    /// Who belongs to the group by the latest entry of the log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.consensus.membership()
    }

    /// Who belongs to the group by the latest committed entry that says so.
    pub fn committed_membership(&self) -> &Membership {
        self.consensus.log().membership_at(self.consensus.commit())
    }

    /// Whether this node remembers which process a member is, and would not listen to another (protocol.md §7.5).
    pub fn has_heard(&self, member: MemberId) -> bool {
        self.lives.contains_key(&member)
    }

    /// Lets a node into the group, as a learner that becomes a voter when it has caught up, if `promote`. Repeat it until it
    /// says who the node is to be.
    ///
    /// `after` is the last incarnation that the node has lived as, 0 for none: that one is removed first, if it is a member,
    /// because it will not come back (protocol.md §7.5).
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn admit(
        &mut self,
        now: Instant,
        node: NodeId,
        addresses: Addresses,
        promote: bool,
        after: Incarnation,
    ) -> Result<Option<MemberId>, CommandError> {
        self.may_change()?;
        match self.membership().of_node(node).map(|(id, _)| id) {
            Some(there) if there.incarnation() > after => {
                // Known to be there only once that is committed.
                let committed = self.committed_membership().get(there).is_some();
                Ok(committed.then_some(there))
            }
            Some(_) => self.remove(now, node).map(|()| None),
            None => {
                let (_, next) = self.membership().with_learner(node, addresses, promote, after)?;
                self.propose_membership(now, &next)?;
                Ok(None)
            }
        }
    }

    /// Removes a node from the group. A leader does not remove itself: it hands over, and the next one is to be told.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn remove(&mut self, now: Instant, node: NodeId) -> Result<(), CommandError> {
        self.may_change()?;
        let next = self.membership().without(node)?;
        if node == self.config.me.node() {
            self.hand_over_to_voter(now);
            return Err(CommandError::NotNow);
        }
        self.propose_membership(now, &next)
    }

    /// This node goes on alone, with what it has: a majority is gone for good, and a person has decided that what it may
    /// have acknowledged without this node is lost (protocol.md §7.5). What is in this node's log counts, committed or
    /// not; all other members are removed, and are told so if they come back.
    ///
    /// # Errors
    /// [`CommandError::NotLost`] if somebody leads.
    pub fn recover(&mut self, now: Instant) -> Result<(), CommandError> {
        if self.config.mode == Mode::Unreplicated {
            return Err(CommandError::Unreplicated);
        }
        if let Some(leader) = self.consensus.leader() {
            return Err(CommandError::NotLost { leader: leader.node() });
        }
        let me = self.config.me;
        let alone = self.membership().alone(me).ok_or(ChangeError::Unknown(me.node()))?;
        tracing::warn!(
            node = %me.node(),
            last = self.consensus.log().last(),
            members = ?self.membership().members.keys(),
            "going on alone, as told: what the others have acknowledged without this node is lost"
        );
        let body = Bytes::from(alone.emit());
        let entry = Entry::membership(body.len(), self.log_time);
        let mut raw = Vec::new();
        entry.emit(&mut raw);
        self.persistence.changed_from(self.consensus.log().last() + 1);
        let record = LogRecord { term: self.consensus.term() + RECOVERY_TERMS, entry, raw: raw.into(), body, at: now };
        self.consensus.seize(record);
        self.counters.recoveries += 1;
        self.members_due = true;
        self.advance(now);
        self.campaign(now);
        Ok(())
    }

    /// Hands leadership to a voter: `to`, or whoever has most of the log.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn hand_leadership(&mut self, now: Instant, to: Option<NodeId>) -> Result<(), CommandError> {
        self.is_in_charge()?;
        match to {
            None => self.hand_over_to_voter(now),
            Some(to) if to == self.config.me.node() => {}
            Some(to) => {
                let (id, member) = self.membership().of_node(to).ok_or(ChangeError::Unknown(to))?;
                if !member.role.is_incoming() {
                    return Err(ChangeError::NotCaughtUp(id).into());
                }
                self.transfer_leadership(now, id);
            }
        }
        Ok(())
    }

    /// The log says otherwise who belongs to the group, or somebody else has: whom to listen to, and who is served.
    pub(super) fn members_changed(&mut self, now: Instant) {
        let committed = self.committed_membership().epoch;
        // What the log says is committed by now is as late as what others have said.
        self.known = self.known.take().filter(|known| known.epoch >= committed);
        self.committed_epoch = committed;
        if self.committed_membership().was_removed(self.config.me) {
            self.stop(self.removed(self.config.me.node()));
            return;
        }
        let ours = self.consensus.membership();
        tracing::info!(node = %self.config.me.node(), epoch = ours.epoch, members = ?ours.members.keys(), "members");
        self.peers = ours.members.keys().copied().filter(|member| *member != self.config.me).collect();
        let latest = self.known.as_ref().filter(|known| known.epoch > ours.epoch).unwrap_or(ours);
        self.holders = latest.members.keys().copied().filter(|member| *member != self.config.me).collect();
        let mut listened: Vec<&Membership> = self.listened().collect();
        listened.sort_by_key(|membership| membership.epoch);
        let members = listened.iter().flat_map(|membership| &membership.members);
        let addresses = members.map(|(id, member)| (id.node(), member.addresses.peers)).collect();
        let voters: Vec<NodeId> = ours.incoming().map(MemberId::node).collect();
        let heard = self.lives.keys().copied();
        let gone: Vec<MemberId> =
            heard.filter(|id| listened.iter().all(|membership| membership.get(*id).is_none())).collect();
        let output = Output::Members(ours.clone());
        self.addresses = addresses;
        self.other_versions.retain(|at, _| self.addresses.values().any(|address| address == at));
        self.outputs.push_back(output);
        for id in gone {
            self.lives.remove(&id);
        }
        if let Some(leading) = &mut self.leading {
            leading.serve(&self.peers, &voters, &self.config.timing);
        }
        self.server.set_acknowledging(self.acknowledges_handshakes(now));
    }

    /// The memberships of which this node listens to everybody.
    pub(super) fn listened(&self) -> impl Iterator<Item = &Membership> {
        self.known.iter().chain([self.committed_membership(), self.consensus.membership()])
    }

    /// The latest membership that is known to be committed, by this node's log or because somebody has said so.
    fn latest_committed(&self) -> &Membership {
        let committed = self.committed_membership();
        self.known.as_ref().filter(|known| known.epoch > committed.epoch).unwrap_or(committed)
    }

    /// A leader takes the next step of a change that is under way, or makes a voter of a learner that has caught up.
    pub(super) fn advance_membership(&mut self, now: Instant) {
        let membership = self.consensus.membership();
        let is_idle = !membership.is_joint() && !membership.members.values().any(|member| member.role == WANTS_VOTE);
        if is_idle || self.may_change().is_err() {
            return;
        }
        let membership = self.consensus.membership();
        if let Some(next) = membership.settled() {
            if next.get(self.config.me).is_none() && !mutated!(LeaderRemovesItself) {
                // It would lead a group that it does not belong to (and the crate would panic).
                self.hand_over_to_voter(now);
            } else {
                _ = self.propose_membership(now, &next);
            }
            return;
        }
        let last = self.consensus.log().last();
        let (fresh, lag_max) = (self.config.timing.fresh, self.config.limits.batch_entries_max as u64);
        let Some(leading) = &self.leading else { return };
        let ready = membership
            .members
            .iter()
            .filter(|(_, member)| member.role == WANTS_VOTE)
            .find(|(id, _)| leading.has_caught_up(**id, now, fresh, last, lag_max));
        if let Some(next) = ready.and_then(|(id, _)| membership.promoting(*id).ok()) {
            _ = self.propose_membership(now, &next);
        }
    }

    /// A datagram from nobody that this node listens to, in one piece. It may be a member that this node does not know
    /// yet, or one that has been removed and does not know it.
    pub(super) fn handle_stranger(&mut self, from: SocketAddrV4, envelope: &Envelope, message: &Message) {
        self.counters.peer_messages_stranger += 1;
        if let Message::Members(membership) = message {
            self.learn(envelope.from.node(), membership);
            return;
        }
        if self.strangers == 0 {
            return;
        }
        self.strangers -= 1;
        let committed = self.to_be_told();
        let answer = match message {
            // One that has heard this process and knows better than to let it in, but is none of those it knows: they may
            // all have been replaced. Who it is, is no reason to believe it; a later membership is.
            Message::Refused(refused) if refused.life == self.config.life => Message::MembersQuery,
            // What is no node is not asked who it is.
            Message::Refused(_) | Message::Armed(_) | Message::AggCommit(_) => return,
            Message::MembersQuery => Message::Members(committed.as_told_to(envelope.from.node())),
            _ if committed.was_removed(envelope.from) && mutated!(RemovedNotTold) => return,
            _ if committed.was_removed(envelope.from) => {
                let replaced = committed.of_node(envelope.from.node()).is_some();
                let reason = if replaced { Refusal::OtherIncarnation } else { Refusal::Removed };
                Message::Refused(Refused { reason, life: envelope.life })
            }
            _ if mutated!(StrangersNotAsked) => return,
            _ => Message::MembersQuery,
        };
        self.emit(Destination::Peer { node: envelope.from.node(), at: from }, 0, &answer);
    }

    /// Somebody says who belongs to the group. Listened to if that is later than what this node knows, and speaks of it.
    pub(super) fn learn(&mut self, by: NodeId, told: &Membership) {
        let me = self.config.me;
        // Nothing old counts, not even that this node was removed: it is of an epoch before this node was a member, and
        // perhaps of another group that had this number.
        if told.epoch <= self.latest_committed().epoch {
            return;
        }
        if told.was_removed(me) {
            self.stop(self.removed(by));
            return;
        }
        if told.get(me).is_none() {
            return;
        }
        self.known = Some(told.clone());
        self.members_due = true;
    }

    /// One that votes stands for election when it hears no leader, and is told what it does not know. One that does not
    /// vote asks somebody now and then: it may have been removed, or all that it knows may have been replaced.
    pub(super) fn look_for_leader(&mut self, now: Instant) {
        let patience = 2 * self.config.timing.election_min();
        if self.consensus.is_voter() || now.since(self.led_at) < patience || self.holders.is_empty() {
            return;
        }
        self.led_at = now;
        self.searches += 1;
        let to = self.holders[self.searches % self.holders.len()];
        self.send(to.node(), 0, &Message::MembersQuery);
    }

    /// Only to be asked again: answers who belongs to the group.
    pub(super) fn tell_members(&mut self, to: NodeId) {
        let committed = self.to_be_told().as_told_to(to);
        self.send(to, 0, &Message::Members(committed));
    }

    /// The membership that others may be told.
    fn to_be_told(&self) -> &Membership {
        if mutated!(ToldBeforeCommitted) { self.membership() } else { self.latest_committed() }
    }

    /// Proposes a membership whose voters are heard.
    fn propose_membership(&mut self, now: Instant, next: &Membership) -> Result<(), CommandError> {
        let within = self.config.timing.election_min();
        let Some(leading) = &self.leading else { return Err(CommandError::NotLeader { leader: None }) };
        let heard: BTreeSet<MemberId> = leading.acknowledging(now, within).chain([self.config.me]).collect();
        if !next.is_quorum(&heard) {
            let gone = self.membership().members.iter().find(|(id, member)| {
                next.get(**id).is_none_or(|then| then.role == MemberRole::Leaving && then.role != member.role)
            });
            let voters: Vec<MemberId> = next.incoming().collect();
            let here = voters.iter().filter(|id| heard.contains(id)).count();
            let about = gone.map_or(self.config.me, |(id, _)| *id);
            return Err(ChangeError::NoQuorum(about, here, voters.len()).into());
        }
        let body = next.emit();
        let entry = Entry::membership(body.len(), leading.time(now));
        let mut data = Vec::with_capacity(crate::entry::ENTRY_LEN + body.len());
        entry.emit(&mut data);
        data.extend_from_slice(&body);
        if !self.consensus.propose(vec![proposal(Bytes::from(data))]) {
            return Err(CommandError::NotNow);
        }
        self.counters.memberships_proposed += 1;
        self.advance(now);
        self.dirty = true;
        Ok(())
    }

    fn is_in_charge(&self) -> Result<(), CommandError> {
        if self.config.mode == Mode::Unreplicated {
            return Err(CommandError::Unreplicated);
        }
        if self.leading.is_none() {
            return Err(CommandError::NotLeader { leader: self.consensus.leader().map(MemberId::node) });
        }
        Ok(())
    }

    /// One step at a time, and none before an entry of this leader's own is committed: until then it does not know what
    /// an earlier leader has decided.
    fn may_change(&self) -> Result<(), CommandError> {
        self.is_in_charge()?;
        let under_way = self.membership_in_flight() && !mutated!(TwoChangesAtOnce);
        let knows = self.consensus.commit_is_current() || mutated!(ChangeBeforeOwnEntry);
        if self.consensus.is_transferring() || !self.persistence.is_term_safe() || !knows {
            return Err(CommandError::NotNow);
        }
        if under_way { Err(ChangeError::UnderWay.into()) } else { Ok(()) }
    }

    pub(super) fn membership_in_flight(&self) -> bool {
        let log = self.consensus.log();
        let since: LogIndex = log.membership_since();
        since > self.consensus.commit()
    }

    fn hand_over_to_voter(&mut self, now: Instant) {
        let fresh = self.config.timing.fresh;
        let membership = self.consensus.membership();
        let Some(leading) = &self.leading else { return };
        if let Some(to) = leading.successor(now, fresh, |id| membership.may_lead(id)) {
            self.transfer_leadership(now, to);
        }
    }

    /// This node has been removed, says a peer.
    pub(super) fn removed(&self, by: NodeId) -> StopReason {
        StopReason::Removed { by, me: self.config.me }
    }
}

/// A learner that is to vote once it has caught up.
const WANTS_VOTE: MemberRole = MemberRole::Learner { promote: true };
