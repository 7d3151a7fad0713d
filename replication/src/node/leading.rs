//! The leader's side: ordering, the shared Append, acknowledgements, repairing what was lost (protocol.md §5.3-§5.6).
//!
//! A follower is *in step* when everything up to the shared cursor has been sent to it; new entries then go out once
//! for all of them. Whoever is not is brought there by unicast: first Raft probes for the common point, then bursts
//! follow its acknowledgements.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use r2p2::{Digest, Instant, RttEstimator};

use super::Node;
use super::aggregation::Aggregation;
use super::handover::Handover;
use crate::config::{Limits, Mode, NodeConfig, Timing};
use crate::entry::{ENTRY_LEN, RequestHead};
use crate::id::{LogIndex, MemberId, NodeId, Term};
use crate::membership::Membership;
use crate::message::{
    APPEND_LEN, Append, AppendAck, AppendEntries, AppendEntry, CommitNotice, ENVELOPE_LEN, Heartbeat, Hint, Message,
};
use crate::repliers::Repliers;

/// What a leader knows in its term.
#[derive(Debug)]
pub(super) struct Leading {
    elected: Instant,
    /// Log time at the election: the latest timestamp of any entry this node ever held.
    log_time: Instant,
    /// Requests to order, in order of arrival, each with the number of its stay in the unordered set: one that left and
    /// came back is there for its new place only, so nothing is ordered twice.
    pub(super) pending: VecDeque<(Digest, u64)>,
    pub(super) repliers: Repliers,
    /// Requests that only a follower heard of.
    pub(super) by_hint: BTreeSet<Digest>,
    peers: Vec<Peer>,
    /// First index that has not been sent to those in step.
    next: LogIndex,
    /// Largest commit index, and largest own persisted index, that those in step were told of.
    commit_told: LogIndex,
    persisted_told: LogIndex,
    pub(super) heartbeat_due: bool,
    /// Bytes of bodies announced and not applied everywhere they must be: bounded by `window_bytes_max`.
    pub(super) window_bytes: VecDeque<(LogIndex, usize)>,
    pub(super) window_bytes_sum: usize,
    pub(super) handover: Handover,
    pub(super) aggregation: Aggregation,
}

/// A follower as its leader sees it.
#[derive(Debug)]
pub(super) struct Peer {
    member: MemberId,
    /// When it last acknowledged in this term.
    heard: Option<Instant>,
    matched: LogIndex,
    applied: LogIndex,
    /// Highest index sent to it.
    sent: LogIndex,
    in_step: bool,
    /// When to repeat what it has not acknowledged.
    repeat_at: Option<Instant>,
    /// How long that wait is.
    wait: Duration,
    rtt: RttEstimator,
    /// An index whose acknowledgement is being timed, and since when.
    timed: Option<(LogIndex, Instant)>,
    /// Further behind than the log is kept.
    needs_snapshot: bool,
    /// It receives a snapshot of this index, or has done so a moment ago, and will need the log behind it.
    pub(super) hold: Option<LogIndex>,
    /// Its last acknowledgement was of less than it had acknowledged before.
    acknowledged_less: bool,
    /// The version of its service, once it has said so.
    version: Option<u32>,
}

impl Leading {
    /// Who has been heard within `within`. A new leader's votes count as heard.
    pub(super) fn heard(&self, now: Instant, within: Duration) -> impl Iterator<Item = MemberId> {
        let fresh = move |peer: &&Peer| now.since(peer.heard.unwrap_or(self.elected)) <= within;
        self.peers.iter().filter(fresh).map(|peer| peer.member)
    }

    /// Who has acknowledged something in this term within `within`.
    pub(super) fn acknowledging(&self, now: Instant, within: Duration) -> impl Iterator<Item = MemberId> {
        self.peers.iter().filter(move |peer| peer.is_fresh(now, within)).map(|peer| peer.member)
    }

    /// Whether a majority, `me` included, has been heard within `within`.
    fn heard_quorum(&self, me: MemberId, membership: &Membership, now: Instant, within: Duration) -> bool {
        membership.is_quorum(&self.heard(now, within).chain([me]).collect())
    }

    /// These are the followers now, and those who answer.
    pub(super) fn serve(&mut self, peers: &[MemberId], voters: &[NodeId], timing: &Timing) {
        self.peers.retain(|peer| peers.contains(&peer.member));
        for member in peers {
            if self.peers.iter().all(|peer| peer.member != *member) {
                self.peers.push(Peer::new(*member, timing));
            }
        }
        self.repliers.set_nodes(voters);
    }

    /// The version that the services of all followers have, if all have said so.
    pub(super) fn version_of_all(&self) -> Option<u32> {
        let said = self.peers.iter().map(|peer| peer.version.ok_or(()));
        said.collect::<Result<Vec<u32>, ()>>().ok().map(|all| all.into_iter().min().unwrap_or(u32::MAX))
    }

    /// Whether a follower has almost all of the log.
    pub(super) fn has_caught_up(
        &self,
        member: MemberId,
        now: Instant,
        fresh: Duration,
        last: LogIndex,
        lag_max: u64,
    ) -> bool {
        let peer = self.keeping_up(now, fresh).find(|peer| peer.member == member);
        peer.is_some_and(|peer| peer.matched + lag_max >= last)
    }

    pub(super) fn next_repeat(&self) -> Option<Instant> {
        self.peers.iter().filter_map(|peer| peer.repeat_at).min()
    }

    pub(super) fn peer_status(&self, member: MemberId) -> Option<super::status::PeerView> {
        let peer = self.peers.iter().find(|peer| peer.member == member)?;
        Some(super::status::PeerView {
            matched: peer.matched,
            applied: peer.applied,
            in_step: peer.in_step,
            needs_snapshot: peer.needs_snapshot,
            heard: peer.heard,
        })
    }

    /// Log time now: never the wall clock, never backwards (§3.3).
    pub(super) fn time(&self, now: Instant) -> Instant {
        let start = if mutated!(LogTimeRestarts) { Instant::ZERO } else { self.log_time };
        start + now.since(self.elected)
    }

    /// Who has executed most, of those that keep up and may lead, and how far it is.
    pub(super) fn furthest(
        &self,
        now: Instant,
        fresh: Duration,
        may: impl Fn(MemberId) -> bool,
    ) -> Option<(MemberId, LogIndex)> {
        let able = self.keeping_up(now, fresh).filter(|peer| may(peer.member));
        able.max_by_key(|peer| peer.applied).map(|peer| (peer.member, peer.applied))
    }

    /// Who has most of the log, of those that keep up and may lead.
    pub(super) fn successor(&self, now: Instant, fresh: Duration, may: impl Fn(MemberId) -> bool) -> Option<MemberId> {
        let able = self.keeping_up(now, fresh).filter(|peer| may(peer.member));
        able.max_by_key(|peer| peer.matched).map(|peer| peer.member)
    }

    fn keeping_up(&self, now: Instant, fresh: Duration) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |peer| peer.in_step && peer.is_fresh(now, fresh))
    }

    /// From where on those who are heard and receive a snapshot will need the log.
    pub(super) fn holds(&self, now: Instant, within: Duration) -> impl Iterator<Item = LogIndex> {
        self.peers.iter().filter(move |peer| peer.is_fresh(now, within)).filter_map(|peer| peer.hold)
    }

    /// Whether the log is kept for this follower.
    fn is_held_for(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.member.node() == node && peer.hold.is_some())
    }

    pub(super) fn peer(&mut self, member: MemberId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.member == member)
    }
}

impl Peer {
    fn new(member: MemberId, timing: &Timing) -> Self {
        let min = timing.append_retry_min;
        Self {
            member,
            heard: None,
            matched: 0,
            applied: 0,
            sent: 0,
            in_step: false,
            repeat_at: None,
            wait: min,
            rtt: RttEstimator::new(min * 4, min, timing.append_retry_max),
            timed: None,
            needs_snapshot: false,
            hold: None,
            acknowledged_less: false,
            version: None,
        }
    }

    /// What it has said last of itself: what it has applied, and the version of its service.
    pub(super) fn said(&self) -> (LogIndex, u32) {
        (self.applied, self.version.unwrap_or(0))
    }

    fn is_fresh(&self, now: Instant, fresh: Duration) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) <= fresh)
    }

    fn was_sent(&mut self, now: Instant, last: LogIndex) {
        self.sent = self.sent.max(last);
        if self.timed.is_none() {
            self.timed = Some((last, now));
        }
        if self.repeat_at.is_none() {
            self.wait = self.rtt.timeout();
            self.repeat_at = Some(now + self.wait);
        }
    }

    fn acknowledged(&mut self, now: Instant, matched: LogIndex) {
        if matched > self.matched {
            self.matched = matched;
            self.wait = self.rtt.timeout();
            self.repeat_at = Some(now + self.wait);
        }
        if let Some((index, at)) = self.timed
            && matched >= index
        {
            self.rtt.sample(now.since(at));
            self.timed = None;
        }
        if self.matched >= self.sent {
            self.repeat_at = None;
        }
    }
}

impl Node {
    /// Whether this node leads and has heard a majority within `within`.
    pub(super) fn heard_quorum(&self, now: Instant, within: Duration) -> bool {
        let me = self.config.me;
        let membership = self.consensus.membership();
        self.leading.as_ref().is_some_and(|leading| leading.heard_quorum(me, membership, now, within))
    }

    pub(super) fn start_leading(&mut self, now: Instant) {
        let expired = self.unordered.expire_older(now, self.config.timing.order_age_max);
        self.counters.unordered_expired += expired as u64;
        let config = &self.config;
        let log = self.consensus.log();
        let last = log.last();
        let mut repliers = Repliers::new(
            self.consensus.membership().incoming().map(MemberId::node),
            config.replier_choice,
            config.limits.replier_queue_max,
            config.seed ^ self.consensus.term(),
        );
        for index in log.first()..=last {
            let Some(record) = log.get(index) else { continue };
            if index > self.applied {
                repliers.announce(record.entry.replier, index);
            }
        }
        let waiting = self.unordered.in_arrival_order().filter(|_| !mutated!(WaitingForgotten));
        let pending = waiting.map(|waiting| (waiting.head.identity, waiting.stay)).collect();
        self.leading = Some(Leading {
            elected: now,
            log_time: self.log_time,
            pending,
            repliers,
            by_hint: BTreeSet::new(),
            peers: self.peers.iter().map(|peer| Peer::new(*peer, &config.timing)).collect(),
            next: last + 1,
            commit_told: 0,
            persisted_told: 0,
            heartbeat_due: true,
            window_bytes: VecDeque::new(),
            window_bytes_sum: 0,
            handover: Handover::default(),
            // The term's first entry is there already.
            aggregation: Aggregation::new(now, last, &config.timing),
        });
    }

    /// Puts what waits into the log, as far as repliers and window allow, in one proposal per batch.
    pub(super) fn order(&mut self, now: Instant) {
        while let Some(batch) = self.next_batch(now) {
            let first = self.consensus.log().last() + 1;
            let count = batch.len();
            let entries = batch.iter().map(|(_, data)| crate::consensus::proposal(data.clone())).collect();
            let proposed = self.consensus.propose(entries);
            let Some(leading) = &mut self.leading else { return };
            if !proposed {
                // Leadership is being handed over. The bodies stay and are ordered by whoever leads next.
                leading.repliers.retract(first);
                leading.window_bytes.retain(|(index, _)| *index < first);
                leading.window_bytes_sum = leading.window_bytes.iter().map(|(_, len)| len).sum();
                self.counters.proposals_dropped += 1;
                return;
            }
            leading.pending.drain(..count);
            self.counters.batches_proposed += 1;
            for (head, _) in &batch {
                self.counters.requests_ordered += 1;
                let by_hint = leading.by_hint.remove(&head.identity);
                leading.handover.ordered(by_hint);
                self.counters.requests_ordered_by_hint += u64::from(by_hint);
            }
            self.advance(now);
        }
    }

    /// The next entries to propose: heads and bytes of requests from the front of the queue, announced to their
    /// repliers. `None` if nothing can be ordered now.
    fn next_batch(&mut self, now: Instant) -> Option<Vec<(RequestHead, Bytes)>> {
        self.drop_unorderable(now);
        // What a request does is not known before the version of the service is, nor by a program that does not have it: that
        // one stops when it comes to execute.
        let version = self.consensus.log().version();
        if version == 0 || version > self.config.service_version {
            return None;
        }
        // In a group of one no vote is waited for, and a node leads before its term is safe. If it crashed it would lead
        // the same term again, with other entries in the same places.
        if !self.persistence.is_term_safe() {
            return None;
        }
        let (timing, limits, mode) = (self.config.timing, self.config.limits, self.config.mode);
        let me = self.config.me.node();
        let (mut index, applied) = (self.consensus.log().last(), self.applied);
        let leading = self.leading.as_mut()?;
        let waiting = leading.pending.len();
        if waiting == 0 {
            return None;
        }
        while leading.window_bytes.front().is_some_and(|(index, _)| *index <= applied) {
            leading.window_bytes_sum -= leading.window_bytes.pop_front().map_or(0, |(_, len)| len);
        }
        if !self.heard_quorum(now, timing.election_min()) {
            self.counters.ordering_waited += 1;
            return None;
        }
        let mut raw = Vec::new();
        let mut heads = Vec::new();
        for at in 0..waiting.min(limits.batch_entries_max) {
            let leading = self.leading.as_mut()?;
            let (identity, stay) = leading.pending[at];
            // What has gone is dropped when it comes to the front.
            let Some(waiting) = self.unordered.get(&identity).filter(|waiting| waiting.stay == stay) else { break };
            let (head, body) = (waiting.head, waiting.body.clone());
            let len = body.len();
            let window_full = index - applied >= limits.window_entries_max as u64
                || leading.window_bytes_sum + len > limits.window_bytes_max;
            let replier = match mode {
                _ if window_full && !mutated!(WindowUnbounded) => None,
                Mode::Raft | Mode::Unreplicated => Some(me),
                Mode::Hovercraft | Mode::HovercraftPlusPlus => {
                    leading.choose(now, me, index, applied, &timing, &limits)
                }
            };
            let Some(replier) = replier else {
                self.counters.ordering_waited += 1;
                break;
            };
            index += 1;
            leading.repliers.announce(replier, index);
            leading.window_bytes.push_back((index, len));
            leading.window_bytes_sum += len;
            let time = leading.time(now);
            self.entry_for(&head, &body, replier, time).emit(&mut raw);
            heads.push(head);
        }
        if heads.is_empty() {
            return None;
        }
        let raw = Bytes::from(raw);
        let slices = (0..heads.len()).map(|at| raw.slice(at * ENTRY_LEN..(at + 1) * ENTRY_LEN));
        Some(heads.into_iter().zip(slices).collect())
    }

    /// Drops from the front of the queue what has been ordered or has expired, and what is too old to be ordered:
    /// followers may have forgotten the body (§7.1).
    fn drop_unorderable(&mut self, now: Instant) {
        let age_max = self.config.timing.order_age_max;
        while let Some((identity, stay)) = self.leading.as_ref().and_then(|leading| leading.pending.front().copied()) {
            let waiting = self.unordered.get(&identity).filter(|waiting| waiting.stay == stay);
            if let Some((head, at)) = waiting.map(|waiting| (waiting.head, waiting.at)) {
                if now.since(at) < age_max {
                    return;
                }
                self.counters.requests_refused_old += 1;
                self.unordered.take(&identity);
                self.refuse_request(&head, None);
            }
            if let Some(leading) = &mut self.leading {
                leading.pending.pop_front();
                leading.by_hint.remove(&identity);
            }
        }
    }

    /// Sends what is new: entries once for all in step, or else the commit index, or else a heartbeat if one is due.
    pub(super) fn replicate(&mut self, now: Instant) {
        let (last, commit, persisted) =
            (self.consensus.log().last(), self.consensus.commit(), self.consensus.persisted());
        let fresh = self.config.timing.fresh;
        let in_step_max = self.config.limits.in_step_entries_max;
        let Some(leading) = &mut self.leading else { return };
        for peer in &mut leading.peers {
            if peer.in_step && (!peer.is_fresh(now, fresh) || last - peer.matched > in_step_max) {
                peer.in_step = false;
                peer.repeat_at = None;
            }
        }
        let from = std::mem::replace(&mut leading.next, last + 1);
        let in_step: Vec<NodeId> = leading.in_step().collect();
        let mut told = false;
        if from <= last && !in_step.is_empty() {
            for peer in leading.peers.iter_mut().filter(|peer| peer.in_step) {
                peer.was_sent(now, last);
            }
            leading.persisted_told = persisted;
            let arm = leading.aggregation.arm();
            if arm.is_some() {
                leading.aggregation.sent(now, last, persisted);
            }
            self.send_entries(&in_step, from, last, arm.unwrap_or(0));
            told = true;
        }
        let Some(leading) = &mut self.leading else { return };
        // The aggregator has told everybody.
        let announced = leading.aggregation.announced().min(commit);
        leading.commit_told = leading.commit_told.max(announced);
        if commit > leading.commit_told && !in_step.is_empty() {
            leading.commit_told = commit;
            // With three voters a follower that holds what the leader has said it persisted needs no notice (§5.6).
            let membership = self.consensus.membership();
            let all_know = membership.is_plain_three() && membership.members.len() == 3;
            let knows = self.config.early_commit && all_know && commit <= leading.persisted_told;
            if !told && !knows {
                self.counters.notices_sent += 1;
                self.send_to_group(&Message::CommitNotice(CommitNotice { commit }));
            }
        }
        self.send_heartbeat(now, last, commit);
        self.catch_up(now);
    }

    fn send_heartbeat(&mut self, now: Instant, last: LogIndex, commit: LogIndex) {
        let Some(leading) = &mut self.leading else { return };
        if !std::mem::take(&mut leading.heartbeat_due) || self.peers.is_empty() {
            return;
        }
        // Heartbeats that reach some followers but bring no acknowledgement would keep them from electing a leader
        // that does have a quorum (§7.7).
        if self.heard_quorum(now, self.config.timing.election_min()) {
            self.counters.heartbeats_sent += 1;
            self.send_to_group(&Message::Heartbeat(Heartbeat { last, commit }));
        }
    }

    pub(super) fn handle_ack(&mut self, now: Instant, from: MemberId, term: Term, ack: &AppendAck) {
        self.counters.acks_received += 1;
        let ours = self.consensus.term();
        if term > ours {
            // Only says that our time is over; its figures are about another leader's log.
            self.consensus.step_ack(from, term, &AppendAck::default());
            self.advance(now);
            return;
        }
        if term < ours || self.leading.is_none() {
            return;
        }
        let last = self.consensus.log().last();
        if ack.matched > last || ack.applied > last {
            self.counters.acks_inflated += 1;
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        if leading.peer(from).is_none() {
            return;
        }
        leading.repliers.applied(from.node(), ack.applied);
        let Some(peer) = leading.peer(from) else { return };
        peer.heard = Some(now);
        // It may go back: a node that was restarted executes its log again, and is no good replier meanwhile.
        peer.applied = ack.applied;
        peer.version = Some(ack.version);
        // Once a peer's log is known to match up to somewhere, a rejection is only a gap behind that, and our own
        // repair starts from there; Raft would fall back to probing, one datagram per round trip.
        let known = self.consensus.peer(from).is_some_and(|(_, replicating)| replicating);
        let is_gap = known && ack.reject.is_some();
        if is_gap {
            peer.in_step = false;
            peer.repeat_at = None;
        }
        let counted = AppendAck { reject: ack.reject.filter(|_| !is_gap), ..*ack };
        self.consensus.step_ack(from, term, &counted);
        self.advance(now);
        if self.leading.is_none() {
            return;
        }
        if ack.reject.is_none() {
            self.consensus.confirm(from, ack.matched);
        }
        if ack.heartbeat && self.consensus.peer(from).is_some_and(|(_, replicating)| !replicating) {
            self.consensus.step_heartbeat_ack(from, term);
            self.advance(now);
        }
        let Some((matched, replicating)) = self.consensus.peer(from) else { return };
        let first = self.consensus.log().first();
        // Where the next entries would have to come from, or the next probe, nothing is kept.
        let out_of_reach = self.consensus.next(from).is_some_and(|next| next < first);
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.peer(from)) else { return };
        peer.acknowledged(now, matched);
        let needed = peer.needs_snapshot;
        peer.needs_snapshot = matched + 1 < first && (out_of_reach || needed);
        // Once per heartbeat, and when it is new.
        let tell = peer.needs_snapshot && (ack.heartbeat || !needed);
        // A restarted node has what it acknowledged, but must hear in this term that it matches before it may commit it.
        // Where nothing is new, nothing else would tell it.
        // (Once may be an acknowledgement that was overtaken.)
        let behind = replicating && ack.heartbeat && ack.reject.is_none() && ack.matched < matched;
        let remind = behind && peer.acknowledged_less && matched + 1 >= first;
        peer.acknowledged_less = behind;
        if !replicating {
            peer.in_step = false;
            peer.repeat_at = None;
        } else if !peer.in_step && peer.repeat_at.is_none() {
            // What was sent to it before it fell out of step may have been lost.
            peer.sent = peer.sent.min(matched);
        }
        if tell {
            self.tell_behind(from);
        }
        if remind {
            let append = self.append_after(matched);
            self.counters.appends_unicast += 1;
            self.emit_append(Some(from.node()), append);
        }
    }

    /// Raft wants to know whether `to` agrees at `prev`: an Append from there, with as much as fits a datagram.
    pub(super) fn probe(&mut self, to: MemberId, prev: LogIndex) {
        let last = self.consensus.log().last();
        let appends = self.appends(prev + 1, last, 1, false);
        let append = appends.into_iter().next().unwrap_or_else(|| self.append_after(prev));
        if let Some(leading) = &mut self.leading
            && let Some(peer) = leading.peer(to)
        {
            peer.timed = None;
            peer.sent = append.last();
        }
        self.counters.appends_unicast += 1;
        self.send(to.node(), self.consensus.term(), &Message::Append(append));
    }

    /// Sends to whoever is behind the next burst, once the one before is acknowledged.
    fn catch_up(&mut self, now: Instant) {
        let (first, last, burst) =
            (self.consensus.log().first(), self.consensus.log().last(), self.config.limits.burst_entries_max);
        let fresh = self.config.timing.fresh;
        let Some(leading) = &self.leading else { return };
        let behind: Vec<MemberId> = leading
            .peers
            .iter()
            .filter(|peer| !peer.in_step && peer.is_fresh(now, fresh) && peer.matched >= peer.sent)
            .map(|peer| peer.member)
            .collect();
        for member in behind {
            let Some((matched, true)) = self.consensus.peer(member) else { continue };
            let Some(peer) = self.leading.as_mut().and_then(|leading| leading.peer(member)) else { continue };
            if matched + 1 < first {
                peer.needs_snapshot = true;
                continue;
            }
            peer.needs_snapshot = false;
            let end = last.min(matched + burst);
            if end == last {
                peer.in_step = true;
                peer.hold = None;
            }
            if end > matched {
                peer.was_sent(now, end);
                self.send_entries_to(member.node(), matched + 1, end);
            }
        }
    }

    /// Repeats what was not acknowledged in time: to everybody at once if several miss the same, else by unicast.
    pub(super) fn repeat_unacknowledged(&mut self, now: Instant) {
        let (first, burst) = (self.consensus.log().first(), self.config.limits.burst_entries_max);
        let fresh = self.config.timing.fresh;
        let Some(leading) = &mut self.leading else { return };
        if mutated!(AppendNotRepeated) {
            leading.peers.iter_mut().for_each(|peer| peer.repeat_at = None);
        }
        let mut due = Vec::new();
        for peer in &mut leading.peers {
            if peer.repeat_at.is_none_or(|at| now < at) {
                continue;
            }
            peer.timed = None;
            if !peer.is_fresh(now, fresh) || peer.matched + 1 < first {
                // Silent: it is brought back when it is heard again.
                peer.in_step = false;
                peer.repeat_at = None;
                peer.sent = peer.matched;
                continue;
            }
            peer.rtt.timed_out(peer.wait);
            peer.wait = peer.rtt.doubled(peer.wait);
            peer.repeat_at = Some(now + peer.wait);
            due.push((peer.member.node(), peer.matched, peer.sent));
        }
        let from = due.iter().map(|(_, matched, _)| matched + 1).min();
        let to = due.iter().map(|(_, _, sent)| *sent).max();
        let (Some(from), Some(to)) = (from, to) else { return };
        self.counters.appends_repeated += due.len() as u64;
        if let [(node, ..)] = due[..] {
            self.send_entries_to(node, from, to.min(from + burst - 1));
        } else {
            let nodes: Vec<NodeId> = due.iter().map(|(node, ..)| *node).collect();
            // Without arm id: nothing depends on the aggregator.
            let arm = self.leading.as_ref().and_then(|leading| leading.aggregation.arm());
            let arm = if mutated!(AggregatorWaitedFor) { arm.unwrap_or(0) } else { 0 };
            self.send_entries(&nodes, from, to.min(from + burst - 1), arm);
        }
    }

    /// Repeats what is not acknowledged, without waiting any longer.
    pub(super) fn repeat_now(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        for peer in leading.peers.iter_mut().filter(|peer| peer.repeat_at.is_some()) {
            peer.repeat_at = Some(now);
        }
        self.repeat_unacknowledged(now);
    }

    /// A follower has said this to the aggregator, which has told. It does not say when: so nothing here counts as having
    /// heard of it.
    pub(super) fn take_figures(&mut self, now: Instant, from: MemberId, matched: LogIndex, applied: LogIndex) {
        let term = self.consensus.term();
        let Some(leading) = &mut self.leading else { return };
        let Some(peer) = leading.peer(from) else { return };
        let is_new = matched > peer.matched;
        peer.applied = peer.applied.max(applied);
        leading.repliers.applied(from.node(), applied);
        if !is_new {
            return;
        }
        self.consensus.step_ack(from, term, &AppendAck { matched, ..AppendAck::default() });
        self.advance(now);
        let Some((matched, _)) = self.consensus.peer(from) else { return };
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.peer(from)) {
            peer.acknowledged(now, matched);
        }
    }

    /// A follower has requests that nobody ordered: what is unknown here was lost on the way to this node alone.
    pub(super) fn handle_hint(&mut self, now: Instant, from: MemberId, term: Term, hint: &Hint) {
        if self.leading.is_none() || term != self.consensus.term() {
            self.counters.peer_messages_unexpected += 1;
            return;
        }
        self.counters.hints_received += 1;
        let may_lead = self.consensus.membership().may_lead(from);
        for identity in &hint.identities {
            if !self.has_body(identity) {
                self.want_body(now, *identity, 0, Some(from));
                if let Some(leading) = self.leading.as_mut().filter(|_| may_lead) {
                    leading.handover.hinter = Some(from);
                }
            }
        }
        self.ask_for_bodies(now);
    }

    /// Sends entries to several nodes: by one copy, except in mode `raft`, which is the baseline without multicast.
    fn send_entries(&mut self, nodes: &[NodeId], from: LogIndex, to: LogIndex, arm: u64) {
        match self.config.mode {
            Mode::Raft | Mode::Unreplicated => {
                for node in nodes {
                    self.send_entries_to(*node, from, to);
                }
            }
            Mode::Hovercraft | Mode::HovercraftPlusPlus => {
                for append in self.appends(from, to, usize::MAX, false) {
                    self.counters.appends_shared += 1;
                    self.emit_append(None, Append { arm, ..append });
                }
            }
        }
    }

    fn send_entries_to(&mut self, node: NodeId, from: LogIndex, to: LogIndex) {
        // What is kept for those who receive a snapshot, the others may not keep: they could not give the bodies.
        let inline = self.leading.as_ref().is_some_and(|leading| leading.is_held_for(node));
        for append in self.appends(from, to, usize::MAX, inline) {
            self.counters.appends_unicast += 1;
            self.emit_append(Some(node), append);
        }
    }

    fn emit_append(&mut self, to: Option<NodeId>, append: Append) {
        let message = Message::Append(append);
        match to {
            Some(node) => self.send(node, self.consensus.term(), &message),
            None => self.send_to_group(&message),
        }
    }

    /// The entries of a range as Appends that fit a datagram each, at most `count` of them; with their
    /// bodies if `inline`, as always in mode `raft`.
    fn appends(&self, from: LogIndex, to: LogIndex, count: usize, inline: bool) -> Vec<Append> {
        let inline = inline || self.config.mode == Mode::Raft;
        let budget = entries_budget(&self.config);
        let log = self.consensus.log();
        let mut appends: Vec<Append> = Vec::new();
        let mut len = 0;
        for index in from.max(log.first())..=to {
            let Some(record) = log.get(index) else { break };
            let travels = inline && record.entry.needs_body() || record.entry.brings_body();
            let body = travels.then(|| record.body.clone());
            let item_len = ENTRY_LEN + 1 + body.as_ref().map_or(0, Bytes::len);
            let fits =
                appends.last().is_some_and(|append| append.entries_term == record.term) && len + item_len <= budget;
            if !fits {
                if appends.len() == count {
                    break;
                }
                let mut append = self.append_after(index - 1);
                append.entries_term = record.term;
                appends.push(append);
                len = 0;
            }
            len += item_len;
            if let Some(append) = appends.last_mut() {
                append.entries.0.push(AppendEntry { entry: record.entry, raw: record.raw.clone(), body });
            }
        }
        appends
    }

    /// An Append without entries after `prev`.
    fn append_after(&self, prev: LogIndex) -> Append {
        let prev_term = self.consensus.log().term_at(prev).unwrap_or(0);
        Append {
            prev,
            prev_term,
            commit: self.consensus.commit(),
            persisted: self.consensus.persisted(),
            arm: 0,
            entries_term: prev_term,
            entries: AppendEntries::default(),
        }
    }
}

impl Leading {
    #[cfg(feature = "mutations")]
    pub(super) fn is_in_step(&self, node: NodeId) -> bool {
        self.peers.iter().all(|peer| peer.member.node() != node || peer.in_step)
    }

    fn in_step(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|peer| peer.in_step).map(|peer| peer.member.node())
    }

    /// Picks the replier among those in step, fresh, and not too far behind in applying (§5.3).
    fn choose(
        &mut self,
        now: Instant,
        me: NodeId,
        last: LogIndex,
        applied: LogIndex,
        timing: &Timing,
        limits: &Limits,
    ) -> Option<NodeId> {
        let window = limits.window_entries_max as u64;
        let peers = &self.peers;
        self.repliers.choose(me, |node| {
            if node == me {
                return last - applied < window;
            }
            peers.iter().any(|peer| {
                peer.member.node() == node
                    && peer.in_step
                    && peer.is_fresh(now, timing.fresh)
                    && last.saturating_sub(peer.applied) < window
            })
        })
    }
}

/// Bytes of entries that fit one internal datagram.
fn entries_budget(config: &NodeConfig) -> usize {
    config.limits.packet_max.saturating_sub(r2p2::wire::HEADER_LEN + ENVELOPE_LEN + APPEND_LEN)
}
