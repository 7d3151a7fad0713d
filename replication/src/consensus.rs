//! Raft, driven so that nothing in it can panic or surprise (protocol.md §11).
//!
//! We drive `raft::Raft` itself and not `RawNode`: its `Ready` copies every entry twice, and what it adds is a check of
//! an order of calls that this module fixes anyway: step, then [`Consensus::unstable`] is made stable, then persisted,
//! then messages are taken. Without durability all four happen within one call of the node core; with it the third
//! comes later, and the node core keeps back what must not leave before (`node/persistence.rs`).
//!
//! Replication in steady state is ours (one shared Append for everybody), so every peer's window is held at 0: in state
//! Replicate the crate sends nothing, and acknowledgements still count. In state Probe it sends one Append at a time,
//! which is how logs find their common point.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry as RaftEntry, Message, MessageType,
};
use raft::{INVALID_ID, Raft, StateRole};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::config::{NodeConfig, Timing};
use crate::id::{LogIndex, MemberId, Term};
use crate::log::{Log, LogRecord, raft_data};
use crate::membership::{MemberRole, Membership};
use crate::message::{Append, AppendAck, Vote, VoteReply};
use crate::storage::HardState;

/// How often the election timeout is doubled at most, once for every term without a leader after the second.
const PATIENCE_MAX: u32 = 4;

/// Context of a vote request by which the crate knows that the leader asked for the election.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// What a node is in its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election, or asks whether it could.
    Candidate,
    /// Leads.
    Leader,
}

/// Raft with its sharp edges covered. See the module.
pub struct Consensus {
    raft: Raft<Log>,
    config: raft::Config,
    /// The membership that the crate counts by.
    membership: Membership,
    me: MemberId,
    rng: SmallRng,
    /// Term and role in which the election timeout was drawn, and what was drawn.
    drawn: (Term, StateRole, usize),
    /// How many terms in a row have begun of which no leader is known.
    leaderless: u32,
    /// verified(term): see protocol.md §1.
    verified: (Term, LogIndex),
}

impl Consensus {
    /// A follower with this log, in the term and with the vote it was restored with.
    pub fn new(config: &NodeConfig, log: Log) -> Self {
        let raft_config = raft::Config {
            id: config.me.raft(),
            election_tick: Timing::ELECTION_TICKS,
            heartbeat_tick: Timing::HEARTBEAT_TICKS,
            min_election_tick: Timing::ELECTION_TICKS,
            max_election_tick: (2 * Timing::ELECTION_TICKS) << PATIENCE_MAX,
            // One entry per probe; the node core fills the datagram from its log.
            max_size_per_msg: 0,
            max_inflight_msgs: 1,
            check_quorum: true,
            pre_vote: !mutated!(PreVoteIgnored),
            skip_bcast_commit: true,
            ..raft::Config::default()
        };
        let membership = log.membership().clone();
        let mut consensus = Self {
            raft: make(&raft_config, log),
            config: raft_config,
            membership,
            me: config.me,
            rng: SmallRng::seed_from_u64(config.seed),
            drawn: (Term::MAX, StateRole::Follower, 0),
            leaderless: 0,
            verified: (0, 0),
        };
        consensus.after_step();
        consensus
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.raft.term
    }

    /// What must be persisted before this node lets anybody rely on its term or vote.
    pub fn hard_state(&self) -> HardState {
        let vote = (self.raft.vote != INVALID_ID).then(|| MemberId::from_raft(self.raft.vote));
        HardState { term: self.raft.term, vote }
    }

    /// The role in it.
    pub fn role(&self) -> Role {
        match self.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.raft.state == StateRole::Leader
    }

    /// The leader of this term, if known.
    pub fn leader(&self) -> Option<MemberId> {
        (self.raft.leader_id != INVALID_ID).then(|| MemberId::from_raft(self.raft.leader_id))
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.raft.raft_log.store
    }

    /// The log, to change what the crate does not watch: bodies and compaction, and to store what is unstable.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.raft.raft_log.store
    }

    /// Highest index known committed.
    pub fn commit(&self) -> LogIndex {
        self.raft.raft_log.committed
    }

    /// Highest index this node has persisted.
    pub fn persisted(&self) -> LogIndex {
        self.raft.raft_log.persisted
    }

    /// Highest index that may be applied here.
    pub fn applicable(&self) -> LogIndex {
        if mutated!(AppliedBeforeCommit) {
            return self.persisted();
        }
        self.commit().min(self.persisted())
    }

    /// verified(term) of the current term.
    pub fn verified(&self) -> LogIndex {
        if self.verified.0 == self.term() { self.verified.1 } else { 0 }
    }

    /// Whether this term's leader has committed an entry of its own.
    pub fn commit_is_current(&self) -> bool {
        self.raft.commit_to_current_term()
    }

    /// One tick of Raft's clock.
    pub fn tick(&mut self) {
        if self.would_win_unpersisted() {
            self.raft.election_elapsed = 0;
        }
        self.raft.tick();
        self.after_step();
    }

    /// Whether this node would lead at once if it stood for election, before its log is persisted: the crate panics. With
    /// others to ask, their votes come after that.
    fn would_win_unpersisted(&self) -> bool {
        let alone = self.membership.voters().all(|voter| voter == self.me);
        alone && !self.is_leader() && self.persisted() < self.log().last()
    }

    /// Stands for election now (pre-vote first).
    pub fn campaign(&mut self) {
        // The crate would let a learner campaign.
        if !self.is_voter() || self.would_win_unpersisted() {
            return;
        }
        let _ = self.raft.step(Message { msg_type: MessageType::MsgHup, ..Message::default() });
        self.after_step();
    }

    /// Proposes entries in one message, which is one append. False if the crate would not take them.
    pub fn propose(&mut self, entries: Vec<RaftEntry>) -> bool {
        // A follower would forward the proposal, and an empty one panics.
        if !self.is_leader() || entries.is_empty() {
            return false;
        }
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.me.raft(),
            entries: entries.into(),
            ..Message::default()
        };
        let taken = self.raft.step(message).is_ok();
        self.after_step();
        taken
    }

    /// Entries that the log does not hold yet; what the log holds from their first index on is to be replaced.
    pub fn unstable(&self) -> &[RaftEntry] {
        self.raft.raft_log.unstable_entries()
    }

    /// Who belongs to the group, by the latest entry of the log.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether this node votes.
    pub fn is_voter(&self) -> bool {
        self.raft.promotable()
    }

    /// The log may say otherwise now who belongs to the group: from here on that counts. Returns whether it does.
    ///
    /// Called when the log holds all of [`Consensus::unstable`]. A leader, whose log only grows, tells the crate what has
    /// changed, so that it keeps what it knows of its followers. For anybody else the crate is made anew from the log: a
    /// change may have been taken back, or several may have come at once, and a follower knows nothing of others.
    pub fn follow_membership(&mut self) -> bool {
        let next = if mutated!(MembershipWhenCommitted) {
            self.log().membership_at(self.commit())
        } else {
            self.log().membership()
        };
        if *next == self.membership {
            return false;
        }
        let next = next.clone();
        let before = std::mem::replace(&mut self.membership, next);
        if self.is_leader() {
            let change = change(&before, &self.membership);
            // Without its second half a joint membership is not left.
            if !(mutated!(JointHalfIgnored) && before.is_joint()) {
                self.raft.apply_conf_change(&change).expect("a leader proposes steps from what it counts by");
            }
            self.hold_windows();
        } else {
            self.remake(self.raft.raft_log.applied);
        }
        true
    }

    /// The node has everything up to where this log begins by a snapshot; what its own log had is gone. In `known_in` the last
    /// entry before it was known to be committed; see [`Consensus::commit_known`].
    pub fn restore(&mut self, log: Log, known_in: Term) {
        let index = log.last();
        assert!(log.is_empty(), "a snapshot has nothing behind it");
        assert!(!self.is_leader() && index > self.commit(), "a snapshot only takes a follower forward");
        self.catch_up_with_term(known_in);
        self.membership = log.membership().clone();
        *self.log_mut() = log;
        self.raft.raft_log.committed = index;
        // What was to be said was about the log that is gone, and so was what is known of the leader's.
        self.raft.msgs.clear();
        self.verified = (0, 0);
        self.remake(index);
        // The persisted log ends with the snapshot, which is.
        self.raft.raft_log.persisted = index;
    }

    /// What the log has up to `index` is committed, as somebody knew in the term `known_in`. A leader of an earlier one may
    /// not have it, so this node does not follow such a leader any more.
    pub fn commit_known(&mut self, index: LogIndex, known_in: Term) {
        self.catch_up_with_term(known_in);
        self.commit_to(index, None);
    }

    fn catch_up_with_term(&mut self, term: Term) {
        if term > self.term() {
            self.raft.become_follower(term, INVALID_ID);
            self.after_step();
        }
    }

    /// Appends an entry that no leader has proposed, in a term of its own: a person has decided that this node goes on
    /// without a majority. What its log has is what there is from here on.
    pub fn seize(&mut self, record: LogRecord) {
        self.raft.become_follower(record.term, INVALID_ID);
        self.log_mut().append(record);
        self.membership = self.log().membership().clone();
        self.remake(self.raft.raft_log.applied);
    }

    /// Makes the crate's state anew from the log, as of a follower that knows what this one does.
    fn remake(&mut self, applied: LogIndex) {
        let hard_state = self.hard_state();
        let mut log = std::mem::replace(self.log_mut(), Log::new(Membership::default()));
        log.resume_from(hard_state, self.raft.raft_log.committed);
        let last = log.last();
        let mut raft = make(&raft::Config { applied, ..self.config.clone() }, log);
        let before = &mut self.raft;
        raft.leader_id = before.leader_id;
        raft.election_elapsed = before.election_elapsed;
        raft.raft_log.persisted = before.raft_log.persisted.min(last);
        raft.msgs = std::mem::take(&mut before.msgs);
        self.raft = raft;
        self.after_step();
    }

    /// The log now holds all of [`Consensus::unstable`].
    pub fn stored(&mut self) {
        if let Some(last) = self.unstable().last() {
            let (index, term) = (last.index, last.term);
            self.raft.raft_log.stable_entries(index, term);
        }
    }

    /// The log is persisted up to `index`, whose entry is of `term`, as the durability policy demands. Only this makes a
    /// leader count itself. The term is that of what was *written*: if the entry has been replaced meanwhile, the report
    /// is about nothing.
    pub fn persisted_up_to(&mut self, index: LogIndex, term: Term) {
        self.raft.on_persist_entries(index, term);
    }

    /// Everything up to `index` was executed here.
    pub fn applied(&mut self, index: LogIndex) {
        let index = if mutated!(AppliedBeforeCommit) { index.min(self.commit()).min(self.persisted()) } else { index };
        assert!(index <= self.applicable(), "only what was handed out is applied");
        if index > self.raft.raft_log.applied {
            self.raft.commit_apply(index);
        }
    }

    /// Messages that Raft wants sent. Followers' must not leave before what they promise is persisted.
    pub fn take_messages(&mut self) -> Vec<Message> {
        let messages = std::mem::take(&mut self.raft.msgs);
        for message in &messages {
            if message.msg_type == MessageType::MsgAppendResponse && !message.reject && message.term == self.term() {
                self.raise_verified(message.index);
            }
        }
        messages
    }

    /// Appends entries whose bodies are here, or answers that they do not fit.
    pub fn step_append(&mut self, from: MemberId, term: Term, append: &Append) {
        let entries: Vec<RaftEntry> = append
            .entries
            .0
            .iter()
            .zip(append.prev + 1..)
            .map(|(item, index)| {
                let data = raft_data(&item.entry, &item.raw, item.body.as_ref().unwrap_or(&bytes::Bytes::new()));
                RaftEntry { term: append.entries_term, index, data, ..RaftEntry::default() }
            })
            .collect();
        self.step(Message {
            msg_type: MessageType::MsgAppend,
            from: from.raft(),
            term,
            index: append.prev,
            log_term: append.prev_term,
            commit: append.commit,
            entries: entries.into(),
            ..Message::default()
        });
    }

    /// The leader of `term` lives. Carries no commit index: the crate would neither clamp nor term-check it.
    pub fn step_heartbeat(&mut self, from: MemberId, term: Term) {
        self.step(Message { msg_type: MessageType::MsgHeartbeat, from: from.raft(), term, ..Message::default() });
    }

    /// Counts an acknowledgement. The caller has checked that it is of this term and not beyond the log.
    pub fn step_ack(&mut self, from: MemberId, term: Term, ack: &AppendAck) {
        assert!(ack.matched <= self.log().last(), "the crate would count an inflated acknowledgement");
        let mut message = Message {
            msg_type: MessageType::MsgAppendResponse,
            from: from.raft(),
            term,
            index: ack.matched,
            commit: ack.commit,
            ..Message::default()
        };
        if let Some(reject) = ack.reject {
            message.reject = true;
            message.index = reject.index;
            message.reject_hint = reject.hint.min(self.log().last());
            message.log_term = if reject.hint <= self.log().last() { reject.hint_term } else { 0 };
        }
        self.step(message);
        if mutated!(QuorumOffByOne) && self.is_leader() {
            let mut matched: Vec<LogIndex> = self.raft.prs().iter().map(|(_, progress)| progress.matched).collect();
            matched.sort_unstable_by(|a, b| b.cmp(a));
            let short = (matched.len() / 2).saturating_sub(1);
            self.commit_to(matched[short], Some(self.term()));
        }
    }

    /// A peer that is being probed has answered a heartbeat: the probe may be repeated.
    pub fn step_heartbeat_ack(&mut self, from: MemberId, term: Term) {
        self.step(Message {
            msg_type: MessageType::MsgHeartbeatResponse,
            from: from.raft(),
            term,
            ..Message::default()
        });
    }

    /// A vote request. `term` is the term voted for.
    pub fn step_vote(&mut self, from: MemberId, term: Term, vote: &Vote) {
        let msg_type = if vote.pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
        let mut vote = *vote;
        if mutated!(VoteForgotten) && !self.is_leader() {
            self.raft.vote = INVALID_ID;
            self.raft.leader_id = INVALID_ID;
        }
        if mutated!(VoteForShorterLog) {
            vote.last = vote.last.max(self.log().last());
            vote.last_term = vote.last_term.max(self.log().term_at(self.log().last()).unwrap_or(0));
        }
        let context = if vote.transfer { CAMPAIGN_TRANSFER } else { b"" };
        self.step(Message {
            msg_type,
            from: from.raft(),
            term,
            index: vote.last,
            log_term: vote.last_term,
            commit: vote.commit,
            commit_term: vote.commit_term,
            context: context.into(),
            ..Message::default()
        });
    }

    /// A vote.
    pub fn step_vote_reply(&mut self, from: MemberId, term: Term, reply: &VoteReply) {
        // A late pre-vote of an earlier round says nothing about this one; the crate would count it.
        if reply.pre && !reply.reject && term != self.term() + 1 {
            return;
        }
        let msg_type =
            if reply.pre { MessageType::MsgRequestPreVoteResponse } else { MessageType::MsgRequestVoteResponse };
        self.step(Message {
            msg_type,
            from: from.raft(),
            term,
            reject: reply.reject,
            commit: reply.commit,
            commit_term: reply.commit_term,
            ..Message::default()
        });
        if mutated!(ElectionOneVoteShort) && self.raft.state == StateRole::Candidate {
            let granted = self.raft.prs().tally_votes().0;
            if granted + 1 > self.raft.prs().iter().count() / 2 {
                self.raft.become_leader();
                self.after_step();
            }
        }
    }

    /// The leader asks this node to stand for election at once. Skips pre-vote and leases, so it is only taken from the
    /// leader of this very term.
    pub fn step_timeout_now(&mut self, from: MemberId, term: Term) -> bool {
        if term != self.term() || self.leader() != Some(from) {
            return false;
        }
        self.step(Message { msg_type: MessageType::MsgTimeoutNow, from: from.raft(), term, ..Message::default() });
        true
    }

    /// Hands leadership to `to` as soon as it has the whole log.
    pub fn transfer(&mut self, to: MemberId) {
        if self.is_leader() && self.raft.prs().get(to.raft()).is_some() {
            self.step(Message { msg_type: MessageType::MsgTransferLeader, from: to.raft(), ..Message::default() });
        }
    }

    /// Whether leadership is being handed over; the crate refuses proposals meanwhile.
    pub fn is_transferring(&self) -> bool {
        self.raft.lead_transferee.is_some()
    }

    /// What a *notice* of this term (commit notice, heartbeat, another's AggCommit) allows: never beyond what this
    /// node's log is known to share with the leader's (protocol.md §6.6). Returns whether the commit index rose.
    pub fn commit_by_notice(&mut self, commit: LogIndex) -> bool {
        let verified = if mutated!(NoticeBeyondVerified) { self.log().last() } else { self.verified() };
        self.commit_to(commit.min(verified), None)
    }

    /// With three voters: what this node and the leader have both persisted is held by two of three, so an entry of
    /// *this term* is committed (§5.6). Returns whether the commit index rose.
    pub fn commit_with_leader(&mut self, leader_persisted: LogIndex) -> bool {
        let index = leader_persisted.min(self.verified()).min(self.persisted());
        self.commit_to(index, Some(self.term()))
    }

    /// The leader's view of a peer: what it has acknowledged, and whether its log is known to match so far.
    pub fn peer(&self, peer: MemberId) -> Option<(LogIndex, bool)> {
        let progress = self.raft.prs().get(peer.raft())?;
        Some((progress.matched, progress.state == raft::ProgressState::Replicate))
    }

    /// The leader's view of a peer: the next entry to send it, or to probe it with.
    pub fn next(&self, peer: MemberId) -> Option<LogIndex> {
        self.raft.prs().get(peer.raft()).map(|progress| progress.next_idx)
    }

    /// A probed peer has acknowledged again what it already had: its log matches so far. The crate waits for a *new*
    /// acknowledgement before it calls that replicating, which on an idle system would never come.
    pub fn confirm(&mut self, peer: MemberId, matched: LogIndex) {
        let last = self.log().last();
        if self.is_leader()
            && let Some(progress) = self.raft.mut_prs().get_mut(peer.raft())
            && progress.state == raft::ProgressState::Probe
            && matched == progress.matched
            && matched > 0
            && matched <= last
        {
            progress.become_replicate();
        }
    }

    /// A notice that is believed.
    #[cfg(feature = "mutations")]
    pub(crate) fn commit_unverified(&mut self, commit: LogIndex) {
        self.commit_to(commit.min(self.log().last()), None);
    }

    /// The crate's own trap, see [`Consensus::step_heartbeat`].
    #[cfg(feature = "mutations")]
    pub(crate) fn commit_unclamped(&mut self, commit: LogIndex) {
        self.raft.raft_log.commit_to(commit);
    }

    fn commit_to(&mut self, index: LogIndex, only_in_term: Option<Term>) -> bool {
        // Beyond the log the crate takes any term for a match, and panics; see `tests/raft_traps.rs`.
        if index <= self.commit() || index > self.log().last() {
            return false;
        }
        let Some(term) = self.log().term_at(index) else { return false };
        if only_in_term.is_some_and(|wanted| wanted != term) {
            return false;
        }
        self.raft.raft_log.maybe_commit(index, term)
    }

    fn raise_verified(&mut self, index: LogIndex) {
        let term = self.term();
        if self.verified.0 != term {
            self.verified = (term, 0);
        }
        self.verified.1 = self.verified.1.max(index);
    }

    fn step(&mut self, message: Message) {
        // Errors say that a message is not for this state; a datagram network makes that normal.
        let _ = self.raft.step(message);
        self.after_step();
    }

    /// The crate shall send nothing to followers in state Replicate.
    fn hold_windows(&mut self) {
        let peers: Vec<u64> = self.raft.prs().iter().map(|(id, _)| *id).collect();
        for peer in peers {
            self.raft.adjust_max_inflight_msgs(peer, 0);
        }
    }

    fn after_step(&mut self) {
        let (term, role) = (self.raft.term, self.raft.state);
        if self.raft.leader_id != INVALID_ID {
            self.leaderless = 0;
        } else if term > self.drawn.0 {
            self.leaderless += 1;
        }
        if (self.drawn.0, self.drawn.1) != (term, role) {
            // An election may need more time than there is: votes wait for two disks, one after the other.
            let patience = self.leaderless.saturating_sub(2).min(PATIENCE_MAX);
            let timeout = self.rng.random_range(Timing::ELECTION_TICKS..2 * Timing::ELECTION_TICKS) << patience;
            self.drawn = (term, role, timeout);
            if role == StateRole::Leader {
                self.hold_windows();
            }
        }
        // The crate draws from the thread's generator on every reset; ours must win, or a seed would not replay a run.
        self.raft.set_randomized_election_timeout(self.drawn.2);
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("term", &self.term())
            .field("role", &self.role())
            .field("last", &self.log().last())
            .field("commit", &self.commit())
            .finish_non_exhaustive()
    }
}

fn make(config: &raft::Config, log: Log) -> Raft<Log> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Raft::new(config, log, &logger).expect("the configuration is valid and the log in memory cannot fail")
}

/// The step from one membership to the next, for the crate.
fn change(before: &Membership, after: &Membership) -> ConfChangeV2 {
    let is_learner = |membership: &Membership, id| membership.learners().any(|learner| learner == id);
    let mut change = ConfChangeV2::default();
    if before.is_joint() {
        // Without changes it leaves the joint configuration.
        return change;
    }
    let mut add = |change_type, id: MemberId| {
        change.changes.push(ConfChangeSingle { change_type, node_id: id.raft(), ..ConfChangeSingle::default() });
    };
    for (id, member) in &after.members {
        match member.role {
            MemberRole::Joining => add(ConfChangeType::AddNode, *id),
            MemberRole::Leaving => add(ConfChangeType::RemoveNode, *id),
            MemberRole::Learner { .. } if !is_learner(before, *id) && mutated!(LearnerCounted) => {
                add(ConfChangeType::AddNode, *id);
            }
            MemberRole::Learner { .. } if !is_learner(before, *id) => add(ConfChangeType::AddLearnerNode, *id),
            MemberRole::Learner { .. } | MemberRole::Voter => {}
        }
    }
    for id in before.members.keys().filter(|id| after.get(**id).is_none()) {
        add(ConfChangeType::RemoveNode, *id);
    }
    if after.is_joint() && !mutated!(JointHalfIgnored) {
        change.transition = ConfChangeTransition::Explicit;
    }
    change
}

/// A proposal as the crate takes it.
pub(crate) fn proposal(data: bytes::Bytes) -> RaftEntry {
    RaftEntry { data, ..RaftEntry::default() }
}
