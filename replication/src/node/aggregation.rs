//! Mode `hovercraft++`: acknowledgements go to the aggregator, and come back from it as one message for all
//! (protocol.md §8; what the aggregator does: [`multicast::aggregator`]).
//!
//! # The leader
//! It arms the aggregator when it begins to lead, and again whenever it may and is not armed: never while the membership
//! changes. While it is armed, *new* entries go out with the arm id; whatever is repeated goes out without, so that it is
//! acknowledged directly, and nothing ever depends on the aggregator. If no [`AggCommit`] covers an armed Append in time,
//! entries go out without arm id at once, and it arms again later, ever more rarely while that is in vain.
//!
//! It takes an AggCommit only under its own arm id, term and epoch, and of each member only what is new since the one before
//! and within its own log. It never takes the commit index itself: figures go the way of acknowledgements, and Raft counts.
//!
//! # Followers
//! Who has taken an Append with an arm id acknowledges to the aggregator until it takes one without. Answers to heartbeats,
//! rejections and whatever is said in the middle of a change go straight to the leader. An AggCommit of the term, and of
//! the epoch of the node's own log, is a *notice*: it commits nothing that was not verified (§6.6).
//!
//! Nothing that the aggregator says is evidence that anybody lives: heartbeats and their answers are.

use std::collections::BTreeMap;
use std::time::Duration;

use r2p2::{Instant, RttEstimator};

use super::{Destination, Node};
use crate::config::{Mode, Timing};
use crate::id::{LogIndex, MemberId, Term};
use crate::membership::MemberRole;
use crate::message::{AggCommit, AppendAck, Arm, ArmMember, Armed, Envelope, Message};

/// What a leader knows about its aggregator in its term.
#[derive(Debug)]
pub(super) struct Aggregation {
    /// Index of the term's first entry.
    first: LogIndex,
    state: State,
    /// Number of the last request.
    request: u64,
    /// The membership and the number of lives known when it was made.
    epoch: u64,
    heard: usize,
    /// How long to wait before the next request.
    backoff: Duration,
    /// An armed index that no AggCommit has covered yet, and since when.
    awaited: Option<(LogIndex, Instant)>,
    /// How long that takes.
    rtt: RttEstimator,
    /// Last index that was sent with this arm id.
    sent: LogIndex,
    /// Own persisted index that the aggregator was told.
    persisted_told: LogIndex,
    /// What the aggregator has announced under this arm id.
    announced: LogIndex,
    /// What it has said last of each member: match and applied.
    figures: BTreeMap<MemberId, (LogIndex, LogIndex)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Acknowledgements come straight here.
    Off { ask_at: Instant },
    /// Asked, not answered.
    Asked { again_at: Instant },
    /// Acknowledgements go to the aggregator, which answers under this id.
    Armed { id: u64 },
}

impl Aggregation {
    /// Not armed; asks at once. The term's first entry has the index `first`.
    pub(super) fn new(now: Instant, first: LogIndex, timing: &Timing) -> Self {
        let min = timing.aggregate_min;
        Self {
            first,
            state: State::Off { ask_at: now },
            request: 0,
            epoch: 0,
            heard: 0,
            backoff: timing.arm_retry_min,
            awaited: None,
            rtt: RttEstimator::new(min * 4, min, timing.append_retry_max),
            sent: 0,
            persisted_told: 0,
            announced: 0,
            figures: BTreeMap::new(),
        }
    }

    /// The arm id, if the aggregator is armed.
    pub(super) fn arm(&self) -> Option<u64> {
        match self.state {
            State::Armed { id } => Some(id),
            State::Off { .. } | State::Asked { .. } => None,
        }
    }

    /// Everything up to here has been announced to everybody.
    pub(super) fn announced(&self) -> LogIndex {
        self.announced
    }

    /// New entries up to `last` go out under the arm id, and with them how far this node has persisted its log.
    pub(super) fn sent(&mut self, now: Instant, last: LogIndex, persisted: LogIndex) {
        self.sent = last;
        self.persisted_told = persisted;
        self.awaited.get_or_insert((last, now));
    }

    /// When there is something to be done.
    fn next_due(&self) -> Option<Instant> {
        match self.state {
            State::Off { ask_at } => Some(ask_at),
            State::Asked { again_at } => Some(again_at),
            State::Armed { .. } => self.deadline(),
        }
    }

    /// When an AggCommit is overdue.
    fn deadline(&self) -> Option<Instant> {
        let awaited = self.awaited.filter(|_| !mutated!(AggregatorWaitedFor));
        awaited.map(|(_, since)| since + self.rtt.timeout())
    }

    /// From now on without.
    fn disarm(&mut self, ask_at: Instant) {
        self.state = State::Off { ask_at };
        self.awaited = None;
        self.announced = 0;
        self.figures.clear();
    }

    /// The next wait for the aggregator is longer.
    fn back_off(&mut self, timing: &Timing) -> Duration {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(timing.arm_retry_max);
        wait
    }

    /// The aggregator has announced an index.
    fn announce(&mut self, now: Instant, commit: LogIndex, timing: &Timing) {
        self.announced = self.announced.max(commit);
        let Some((index, since)) = self.awaited.filter(|(index, _)| *index <= commit) else { return };
        // Only the first of several that wait is timed.
        debug_assert!(index <= self.sent || mutated!(AggCommitUnchecked));
        self.rtt.sample(now.since(since));
        self.backoff = timing.arm_retry_min;
        self.awaited = (self.sent > commit).then_some((self.sent, now));
    }

    /// What of these figures is new since the last time.
    fn is_new(&mut self, id: MemberId, matched: LogIndex, applied: LogIndex) -> bool {
        let known = self.figures.entry(id).or_default();
        let is_new = matched > known.0 || applied > known.1;
        *known = (matched.max(known.0), applied.max(known.1));
        is_new
    }
}

impl Node {
    /// The leader's side: arms, and does without if that is better. Returns whether what is not acknowledged must be
    /// repeated without arm id now.
    pub(super) fn tend_aggregator(&mut self, now: Instant) -> bool {
        if !self.has_aggregator() || self.leading.is_none() {
            return false;
        }
        let may_arm = self.may_arm();
        let (epoch, heard) = (self.consensus.membership().epoch, self.lives.len());
        let timing = self.config.timing;
        let Some(leading) = &mut self.leading else { return false };
        let it = &mut leading.aggregation;
        let is_off = matches!(it.state, State::Off { .. });
        if !may_arm {
            if !is_off {
                self.counters.disarmed_members += 1;
                it.disarm(now);
                return true;
            }
            return false;
        }
        if !is_off && (it.epoch, it.heard) != (epoch, heard) {
            // Whoever has been heard for the first time counts only under the next arming.
            self.counters.disarmed_members += 1;
            it.disarm(now);
        }
        match it.state {
            State::Armed { .. } if it.deadline().is_some_and(|at| now >= at) => {
                self.counters.agg_commits_missed += 1;
                it.rtt.timed_out(it.rtt.timeout());
                let wait = it.back_off(&timing);
                it.disarm(now + wait);
                return true;
            }
            State::Asked { again_at } if now >= again_at => {
                self.counters.arms_unanswered += 1;
                self.ask_to_arm(now);
            }
            State::Off { ask_at } if now >= ask_at => self.ask_to_arm(now),
            State::Armed { .. } | State::Asked { .. } | State::Off { .. } => {}
        }
        false
    }

    fn ask_to_arm(&mut self, now: Instant) {
        let (me, life, timing) = (self.config.me, self.config.life, self.config.timing);
        let membership = self.consensus.membership();
        let members = membership.members.iter().map(|(id, member)| ArmMember {
            id: *id,
            voter: !matches!(member.role, MemberRole::Learner { .. }),
            life: if *id == me { life } else { self.lives.get(id).copied().unwrap_or(0) },
            address: member.addresses.peers,
        });
        let (members, epoch) = (members.collect(), membership.epoch);
        let heard = self.lives.len();
        let Some(leading) = &mut self.leading else { return };
        let it = &mut leading.aggregation;
        it.request += 1;
        (it.epoch, it.heard) = (epoch, heard);
        let again_at = now + it.back_off(&timing);
        it.state = State::Asked { again_at };
        let arm = Arm { request: it.request, epoch, first: it.first, members };
        self.counters.arms_sent += 1;
        self.send_to_aggregator(&Message::Arm(arm));
    }

    /// Whether acknowledgements may be folded: nobody comes or goes, and the log says no more than what everybody counts by.
    fn may_arm(&self) -> bool {
        let membership = self.consensus.membership();
        let settled = !membership.is_joint() && !self.membership_in_flight() || mutated!(ArmedDuringChange);
        settled && membership.voters().count() > 1 && !self.consensus.is_transferring()
    }

    /// A leader tells the aggregator what it has persisted, if no Append has.
    pub(super) fn tell_persisted(&mut self) {
        let persisted = self.consensus.persisted();
        let (applied, commit, version) = (self.applied, self.consensus.commit(), self.config.service_version);
        let epoch = self.consensus.membership().epoch;
        let Some(it) = self.leading.as_mut().map(|leading| &mut leading.aggregation) else { return };
        let Some(arm) = it.arm() else { return };
        // Nothing waits for it that nobody was sent under this id.
        if persisted <= it.persisted_told || it.persisted_told >= it.sent {
            return;
        }
        it.persisted_told = persisted;
        let ack = AppendAck { matched: persisted, applied, commit, arm, epoch, version, ..AppendAck::default() };
        self.counters.persisted_told += 1;
        self.send_to_aggregator(&Message::AppendAck(ack));
    }

    /// Sends an acknowledgement to the aggregator if it belongs there.
    pub(super) fn acknowledge_folded(&mut self, ack: &AppendAck) -> bool {
        let arm = self.following.arm();
        let membership = self.consensus.membership();
        if arm == 0 || ack.reject.is_some() || !self.has_aggregator() || membership.is_joint() {
            return false;
        }
        let epoch = membership.epoch;
        // A heartbeat is answered to the leader; the aggregator need not hear again what it knows.
        if !self.following.fold(ack.matched, ack.applied) && ack.heartbeat {
            return false;
        }
        let ack = AppendAck { arm, epoch, heartbeat: false, ..*ack };
        self.counters.acks_folded += 1;
        self.send_to_aggregator(&Message::AppendAck(ack));
        true
    }

    /// Something came from the aggregator's address.
    pub(super) fn hear_aggregator(&mut self, now: Instant, envelope: &Envelope, message: Message) {
        match message {
            Message::Armed(armed) => self.handle_armed(envelope.term, armed),
            Message::AggCommit(commit) if self.leading.is_some() => {
                self.handle_agg_commit(now, envelope.term, &commit);
            }
            Message::AggCommit(commit) => self.follow_agg_commit(envelope.term, &commit),
            _ => self.counters.peer_messages_unexpected += 1,
        }
    }

    fn handle_armed(&mut self, term: Term, armed: Armed) {
        let ours = self.consensus.term();
        let Some(it) = self.leading.as_mut().map(|leading| &mut leading.aggregation) else {
            self.counters.armed_unexpected += 1;
            return;
        };
        if term != ours || armed.request != it.request || !matches!(it.state, State::Asked { .. }) {
            self.counters.armed_unexpected += 1;
            return;
        }
        it.disarm(Instant::FAR_FUTURE);
        it.state = State::Armed { id: armed.arm };
        (it.sent, it.persisted_told) = (0, 0);
        self.counters.armings += 1;
    }

    /// What followers have said, as their leader hears it.
    fn handle_agg_commit(&mut self, now: Instant, term: Term, commit: &AggCommit) {
        let (ours, last) = (self.consensus.term(), self.consensus.log().last());
        let (epoch, timing) = (self.consensus.membership().epoch, self.config.timing);
        let unchecked = mutated!(AggCommitUnchecked);
        let Some(it) = self.leading.as_mut().map(|leading| &mut leading.aggregation) else { return };
        let reason = match it.arm() {
            _ if unchecked => None,
            _ if term != ours => Some(&mut self.counters.agg_commits_other_term),
            Some(id) if id == commit.arm && epoch == commit.epoch => None,
            Some(_) | None => Some(&mut self.counters.agg_commits_other_arm),
        };
        if let Some(reason) = reason {
            *reason += 1;
            return;
        }
        self.counters.agg_commits_received += 1;
        it.announce(now, commit.commit.min(last), &timing);
        for of in &commit.members {
            if of.id == self.config.me {
                continue;
            }
            if of.matched > last && !unchecked || of.applied > last {
                self.counters.agg_figures_inflated += 1;
                continue;
            }
            let Some(leading) = &mut self.leading else { return };
            if leading.aggregation.is_new(of.id, of.matched, of.applied) || unchecked {
                self.take_figures(now, of.id, of.matched, of.applied);
            }
        }
    }

    /// A follower hears what a majority has: a notice like any other.
    fn follow_agg_commit(&mut self, term: Term, commit: &AggCommit) {
        let membership = self.consensus.membership();
        let ours = term == self.consensus.term() || mutated!(AggCommitOfAnyTerm);
        if !ours {
            self.counters.agg_commits_other_term += 1;
            return;
        }
        if membership.is_joint() || membership.epoch != commit.epoch && !mutated!(AggCommitOfAnyTerm) {
            self.counters.agg_commits_other_epoch += 1;
            return;
        }
        self.counters.agg_commits_received += 1;
        #[cfg(feature = "mutations")]
        if mutated!(AggCommitUnverified) {
            self.consensus.commit_unverified(commit.commit);
        }
        self.take_notice(commit.commit);
    }

    fn send_to_aggregator(&mut self, message: &Message) {
        let Some(at) = self.config.aggregator else { return };
        self.emit(Destination::Aggregator { at }, self.consensus.term(), message);
    }

    /// When a leader has something to do about its aggregator.
    pub(super) fn aggregator_due(&self) -> Option<Instant> {
        let leading = self.leading.as_ref().filter(|_| self.has_aggregator() && self.may_arm())?;
        leading.aggregation.next_due()
    }

    /// Whether there is one.
    pub(super) fn has_aggregator(&self) -> bool {
        self.config.mode == Mode::HovercraftPlusPlus && self.config.aggregator.is_some()
    }
}
