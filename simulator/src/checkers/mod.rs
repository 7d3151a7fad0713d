//! What must always hold, checked at every step of a run: one file per invariant of protocol.md §6.
//!
//! A checker is fed plain facts and answers with a [`Violation`] or with nothing; it never panics and never decides what
//! to do about one. [`Checkers`] knows which facts concern whom; [`crate::World`] knows when they come up.
//!
//! | §6 | what must hold | checker |
//! |---|---|---|
//! | 1 | one leader per term | [`one_leader`] |
//! | 1 | one vote per node and term; terms never go back, whatever a process forgets | [`votes`] |
//! | 1, 2 | votes and entries are on disk before anybody hears of them | [`persisted`] |
//! | 1 | log matching | [`log_matching`] |
//! | 1 | leader completeness | [`leader_completeness`] |
//! | 1 | who leads was elected by those who vote | [`elected`] |
//! | 1 | state-machine safety: the same entries in the same order, and none before it is committed | [`same_log`], [`commit_index`], [`verified`] |
//! | 2 | an entry in a log has the body it names, and only what is persisted is acknowledged | [`bodies`] |
//! | 2 | the first to commit an entry is right that a majority has persisted it | [`verified`] |
//! | 3 | reads are what the service says; they change nothing and run on their replier only | [`read_only`] |
//! | 4 | one replier, the same on every node, for ever: in every log by [`log_matching`], in every execution by [`same_log`] | |
//! | 5 | at most B entries owed by a replier | [`replier_queue`] |
//! | 5 | at most P entries announced and not applied | [`window`] |
//! | 6 | no follower commits another entry than the committed one | [`verified`] |
//! | 7 | the aggregator says what it was told under its arm id, and announces what a majority of voters has | [`aggregated`] |
//! | 8 | every operation takes effect at most once | [`at_most_once`] |
//! | 8 | what a client has given up takes no effect any more | [`fence`] |
//! | 8 | a plain request is ordered once for as long as it is remembered | [`plain_once`] |
//! | 8 | log time never goes back | [`log_time`] |
//! | 8 | session tables, cached replies and expiry are functions of the log: their hash is part of [`same_state`], their decisions are compared by [`at_most_once`] | |
//! | 9 | all answers to a write are equal, and those to a read that name one entry | [`same_answer`] |
//! | 9 | what clients see is linearizable: judged after a run | [`crate::linearizability`] |
//! | 10 | same log, same state | [`same_state`] |
//! | 11 | nothing is unbounded | [`memory`] |
//! | (§9) | a gateway lets as many pass as it may, and of what it has let pass everything: judged with the packets that it gets and sends | [`admission`] |
//! | (§7.5) | no identity is given out twice | [`identities`] |
//! | (§7.6) | memberships change one step at a time, majorities before and after a step meet, and what is taken back counts no longer | [`changes`] |
//! | (§7.6) | an epoch names one membership, which is committed when anybody is told | [`epochs`] |
//! | (§7.7) | nobody asks for votes without asking before whether it would get them | [`pre_vote`] |
//! | 12 | no bytes make a node panic: corruption is a fault of every [`crate::NetworkConfig`], and a panic ends a run of the [`crate::swarm`] with a verdict of its own | |
//!
//! Whoever counts ([`elected`], [`pre_vote`], [`verified`]) does so by the memberships in the log of the node that is
//! judged, both halves of joint ones, and counts identities: another incarnation of a node is somebody else.

pub mod admission;
pub mod aggregated;
pub mod at_most_once;
pub mod bodies;
pub mod changes;
pub mod commit_index;
pub mod elected;
pub mod epochs;
pub mod fence;
pub mod identities;
pub mod leader_completeness;
pub mod log_matching;
pub mod log_time;
pub mod memory;
pub mod one_leader;
pub mod persisted;
pub mod plain_once;
pub mod pre_vote;
pub mod read_only;
pub mod recent;
pub mod replier_queue;
pub mod same_answer;
pub mod same_log;
pub mod same_state;
pub mod verified;
mod violation;
pub mod votes;
pub mod window;

use std::collections::BTreeMap;

use bytes::Bytes;
use hovercraft::applier::{Applier, Effect};
use hovercraft::consensus::Role;
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::log::Log;
use hovercraft::message::{Envelope, Message};
use hovercraft::{
    Class, Destination, Limits, LogIndex, MemberId, Membership, Mode, Node, NodeConfig, NodeId, Service, Term,
};
use r2p2::DigestKey;

pub use violation::Violation;

/// How much history each checker keeps for nodes that lag behind: twice as much as nodes keep of their logs by default.
pub const HISTORY_MAX: usize = 1 << 17;

/// A checker's answer.
pub type Result = std::result::Result<(), Violation>;

/// All checkers of a world.
#[derive(Debug)]
pub struct Checkers {
    mode: Mode,
    limits: Limits,
    digest_key: DigestKey,
    classify: fn(&[u8]) -> Class,
    votes: votes::Votes,
    pre_vote: pre_vote::PreVote,
    elected: elected::Elected,
    epochs: epochs::Epochs,
    identities: identities::Identities,
    one_leader: one_leader::OneLeader,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    commit_index: commit_index::CommitIndex,
    verified: verified::Verified,
    same_log: same_log::SameLog,
    read_only: read_only::ReadOnly,
    same_state: same_state::SameState,
    replier_queue: replier_queue::ReplierQueue,
    at_most_once: at_most_once::AtMostOnce,
    fence: fence::Fence,
    plain_once: plain_once::PlainOnce,
    log_time: log_time::LogTime,
    same_answer: same_answer::SameAnswer,
    aggregated: aggregated::Aggregated,
    /// What of each node's log has been looked at.
    seen: BTreeMap<NodeId, Seen>,
}

/// What of a node's log has been looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: LogIndex,
    last_term: Term,
    persisted: LogIndex,
    /// The term in which it was last seen leading.
    led: Term,
    /// The last membership that it has proposed, and the last that it has committed.
    proposed: LogIndex,
    committed: LogIndex,
}

impl Checkers {
    /// Nothing seen yet, of a group that begins as `first`, whose nodes have `config` and the service that says `classify`
    /// in common.
    pub fn new(config: &NodeConfig, first: &Membership, classify: fn(&[u8]) -> Class) -> Self {
        Self {
            mode: config.mode,
            limits: config.limits,
            digest_key: config.digest_key,
            classify,
            votes: votes::Votes::default(),
            pre_vote: pre_vote::PreVote::default(),
            elected: elected::Elected::default(),
            epochs: epochs::Epochs::new(first),
            identities: identities::Identities::default(),
            one_leader: one_leader::OneLeader::default(),
            log_matching: log_matching::LogMatching::default(),
            leader_completeness: leader_completeness::LeaderCompleteness::default(),
            commit_index: commit_index::CommitIndex::default(),
            verified: verified::Verified::default(),
            same_log: same_log::SameLog::default(),
            read_only: read_only::ReadOnly::default(),
            same_state: same_state::SameState::default(),
            replier_queue: replier_queue::ReplierQueue::default(),
            at_most_once: at_most_once::AtMostOnce::default(),
            fence: fence::Fence::default(),
            // Half of it: clocks may differ, and so may the moments at which nodes took it.
            plain_once: plain_once::PlainOnce::new(config.limits.plain),
            log_time: log_time::LogTime::default(),
            same_answer: same_answer::SameAnswer::default(),
            aggregated: aggregated::Aggregated::default(),
            seen: BTreeMap::new(),
        }
    }

    /// A process starts as this node. What it promised still holds if it `remembers`, that is, if it has the storage of
    /// the one before; else it is another node, which only has its name.
    pub fn started(&mut self, member: MemberId, remembers: bool) {
        if remembers {
            self.votes.restarted(member);
        } else {
            self.votes.started(member);
        }
        self.identities.started(member);
        let node = member.node();
        self.pre_vote.started(node);
        self.elected.started(node);
        self.seen.remove(&node);
        self.commit_index.started(node);
        self.same_log.started(node);
        self.read_only.started(node);
        self.replier_queue.started(node);
    }

    /// The group lets a node in that has nothing, as this member.
    ///
    /// # Errors
    /// See [`identities`].
    pub fn admitted(&self, member: MemberId) -> Result {
        self.identities.admitted(member)
    }

    /// A message of other nodes reaches a node.
    pub fn received(&mut self, to: NodeId, envelope: &Envelope, message: &Message) {
        let from = envelope.from;
        match message {
            Message::AppendAck(ack) => self.replier_queue.reported(to, from.node(), ack.applied),
            Message::AggCommit(said) => {
                for of in &said.members {
                    self.replier_queue.reported(to, of.id.node(), of.applied);
                }
            }
            Message::VoteReply(reply) if reply.pre && !reply.reject => self.pre_vote.granted(to, envelope.term, from),
            Message::VoteReply(reply) if !reply.pre && !reply.reject => self.elected.granted(to, envelope.term, from),
            _ => {}
        }
    }

    /// A node sends a message to other nodes.
    pub fn sent(&mut self, node: &Node, to: Destination, envelope: &Envelope, message: &Message) -> Result {
        let (me, term) = (node.me(), envelope.term);
        let id = me.node();
        match message {
            Message::Members(membership) => self.epochs.told(id, membership),
            Message::Arm(arm) => {
                let membership = node.membership();
                let committed = node.committed_membership() == membership;
                self.aggregated.asks(id, arm, membership, committed)
            }
            // One of an earlier term is about a log that may have been replaced since.
            Message::AppendAck(ack) if term == node.consensus().term() => {
                bodies::acknowledged(id, ack.matched, node.consensus().persisted())
            }
            Message::Vote(vote) if !vote.pre => {
                self.votes.votes(me, term, id)?;
                let memberships = possible(node);
                if vote.transfer { Ok(()) } else { self.pre_vote.asks(me, term, memberships) }
            }
            Message::VoteReply(reply) if !reply.pre && !reply.reject => match to {
                Destination::Peer { node: candidate, .. } => self.votes.votes(me, term, candidate),
                Destination::Group | Destination::Aggregator { .. } => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether a message of this name, as [`crate::Flight::what`] gives it, is worth parsing for [`Checkers::sent`] and
    /// [`Checkers::received`].
    pub fn cares(what: &str) -> bool {
        matches!(what, "append_ack" | "vote" | "vote_reply" | "members" | "arm" | "agg_commit")
    }

    /// A process starts as this aggregator.
    pub fn aggregator_started(&mut self, number: u16) {
        self.aggregated.started(number);
    }

    /// A datagram reaches an aggregator.
    pub fn aggregator_heard(&mut self, number: u16, packet: &Bytes) {
        self.aggregated.heard(number, packet);
    }

    /// An aggregator sends a datagram.
    ///
    /// # Errors
    /// See [`aggregated`].
    pub fn aggregator_said(&mut self, number: u16, packet: &Bytes) -> Result {
        self.aggregated.says(number, packet)
    }

    /// A node sends a packet to a client.
    pub fn answered(&mut self, node: NodeId, packet: &Bytes) -> Result {
        self.same_answer.answered(node, packet)
    }

    /// A node has executed an entry.
    pub fn applied<S: Service>(
        &mut self,
        node: &Node,
        index: LogIndex,
        entry: &Entry,
        effect: Effect,
        applier: &Applier<S>,
    ) -> Result {
        let id = node.me().node();
        self.scan_log(node)?;
        self.same_log.applied(id, index, entry)?;
        let (consensus, sessions) = (node.consensus(), applier.sessions());
        if let Some(term) = consensus.log().term_at(index) {
            // First how far it is committed: what comes before that may be of earlier terms.
            for index in [consensus.commit(), index] {
                let log = consensus.log();
                self.verified.commits(id, consensus.term(), index, from(log, index), |index| log.term_at(index))?;
            }
            self.leader_completeness.committed(id, index, term, node.consensus().term())?;
        }
        let hash = applier.service().state_hash();
        self.read_only.applied(id, index, entry, effect, hash)?;
        self.at_most_once.applied(id, index, entry, effect)?;
        self.fence.applied(index, entry, effect)?;
        // Without a log nobody remembers plain requests.
        if self.mode != Mode::Unreplicated {
            self.plain_once.applied(index, entry)?;
        }
        self.log_time.applied(index, entry)?;
        self.same_answer.ordered(entry);
        let limits = sessions.limits();
        memory::within(id, "sessions", sessions.len(), limits.sessions_max)?;
        memory::within(id, "bytes of cached replies", sessions.cached_bytes(), limits.cache_bytes_max)?;
        // Of a service that does not know its hash at least the sessions are compared.
        self.same_state.applied(id, index, applier.state_hash().unwrap_or_else(|| sessions.hash()))
    }

    /// A node has put a snapshot of everything up to `index` in place of its state.
    pub fn installed<S: Service>(&mut self, node: &Node, index: LogIndex, applier: &Applier<S>) -> Result {
        let id = node.me().node();
        self.same_log.installed(id, index);
        self.read_only.started(id);
        self.same_state.applied(id, index, applier.state_hash().unwrap_or_else(|| applier.sessions().hash()))
    }

    /// A node answers a read that no entry orders.
    #[cfg(feature = "mutations")]
    pub(crate) fn read_locally(&mut self, request: &hovercraft::entry::RequestHead) {
        self.same_answer.ordered(&Entry { read_only: true, request: *request, ..Entry::term_start() });
    }

    /// A node has done everything it had to do for now, or has died in the middle of it.
    pub fn acted(&mut self, node: &Node) -> Result {
        if self.mode == Mode::Unreplicated {
            return Ok(());
        }
        let (me, consensus) = (node.me(), node.consensus());
        let id = me.node();
        let leads = consensus.role() == Role::Leader;
        self.votes.is_in(me, consensus.term())?;
        if leads {
            self.one_leader.leads(me, consensus.term())?;
        }
        if consensus.role() == Role::Candidate && consensus.hard_state().vote == Some(me) {
            self.pre_vote.stands(id, consensus.term(), possible(node));
        }
        let began_to_lead = {
            let seen = self.seen.entry(id).or_default();
            leads && std::mem::replace(&mut seen.led, consensus.term()) != consensus.term()
        };
        self.scan_log(node)?;
        let (commit, log) = (consensus.commit(), consensus.log());
        self.commit_index.check(id, commit, node.applied(), log.last())?;
        self.verified.commits(id, consensus.term(), commit, from(log, commit), |index| log.term_at(index))?;
        self.scan_memberships(node)?;
        if began_to_lead {
            self.elected.leads(me, consensus.term(), possible(node))?;
            self.leader_completeness.leads(id, consensus.term(), log.first(), |index| log.term_at(index))?;
        }
        if leads {
            self.check_queues(node)?;
        }
        Ok(())
    }

    /// A node has done everything it had to do for now: its queues are within their limits.
    pub fn settled(&mut self, node: &Node) -> Result {
        if self.mode == Mode::Unreplicated { Ok(()) } else { self.check_memory(node) }
    }

    /// Looks at what is new in a node's log.
    fn scan_log(&mut self, node: &Node) -> Result {
        let (id, consensus) = (node.me().node(), node.consensus());
        let (log, persisted) = (consensus.log(), consensus.persisted());
        let seen = self.seen.entry(id).or_default();
        let unchanged = log.last() >= seen.last && log.term_at(seen.last).is_none_or(|term| term == seen.last_term);
        let after = |index: LogIndex| if unchanged { (index + 1).max(log.first()) } else { log.first() };
        let (from, persisted_from) = (after(seen.last), after(seen.persisted));
        *seen = Seen { last: log.last(), last_term: log.term_at(log.last()).unwrap_or(0), persisted, ..*seen };
        for index in from..=log.last() {
            let Some(record) = log.get(index) else { continue };
            self.log_matching.holds(id, index, record.term, log.term_at(index - 1), &record.entry)?;
            bodies::holds(&self.digest_key, id, index, &record.entry, &record.body)?;
            read_only::marked(id, index, &record.entry, (self.classify)(&record.body))?;
        }
        for index in persisted_from..=persisted {
            if let Some(term) = log.term_at(index) {
                self.verified.persisted(node.me(), index, term);
            }
        }
        Ok(())
    }

    /// Looks at what is new in a node's log about who belongs to the group.
    fn scan_memberships(&mut self, node: &Node) -> Result {
        let (id, consensus) = (node.me().node(), node.consensus());
        let (log, commit, term) = (consensus.log(), consensus.commit(), consensus.term());
        let seen = self.seen.entry(id).or_default();
        let since = log.membership_since();
        let is_one = |index| log.get(index).is_some_and(|record| record.entry.kind == EntryKind::Membership);
        changes::said(id, since, (log.first(), log.last()), is_one)?;
        let leads = consensus.role() == Role::Leader;
        if since <= seen.committed && (!leads || since <= seen.proposed) {
            return Ok(());
        }
        let mut before = None;
        for (at, membership) in log.memberships_from(seen.committed.min(seen.proposed)) {
            if at <= commit && at >= seen.committed {
                seen.committed = at;
                self.epochs.committed(id, membership)?;
            }
            if let Some(before) = before
                && leads
                && at > seen.proposed
                && log.term_at(at) == Some(term)
            {
                changes::proposed(id, term, before, (at, membership), (commit, log.term_at(commit)))?;
            }
            before = Some((at, membership));
        }
        if leads {
            seen.proposed = since;
        }
        Ok(())
    }

    fn check_queues(&mut self, node: &Node) -> Result {
        let (id, consensus) = (node.me().node(), node.consensus());
        let (term, log) = (consensus.term(), consensus.log());
        self.replier_queue.reported(id, id, node.applied());
        self.replier_queue.leads(id, term);
        let mut from = self.replier_queue.looked_at(id);
        if from == 0 {
            from = log.last();
            while from > 0 && log.get(from).is_some_and(|record| record.term == term) {
                from -= 1;
            }
        }
        for index in from + 1..=log.last() {
            let Some(record) = log.get(index) else { continue };
            let announced = record.entry.is_request();
            self.replier_queue.announced(id, index, announced.then_some(record.entry.replier));
        }
        let members = log.membership();
        self.replier_queue.answer(id, |node| members.incoming().any(|member| member.node() == node));
        if self.mode.is_spread() {
            self.replier_queue.check(id, self.limits.replier_queue_max)?;
        }
        let first = self.replier_queue.first(id);
        let is_request = |index| log.get(index).is_some_and(|record| record.entry.is_request());
        window::check(id, term, first, node.applied(), log.last(), is_request, self.limits.window_entries_max)
    }

    fn check_memory(&mut self, node: &Node) -> Result {
        let (id, log) = (node.me().node(), node.consensus().log());
        let limits = &self.limits;
        // A leader keeps more for those who receive a snapshot, and does not forget it when it follows.
        let entries_max = limits.retention.entries_max.max(limits.snapshots.hold_entries_max);
        let ahead = log.last() - node.applied().min(log.last());
        memory::within(id, "entries of the log", log.len(), entries_max + ahead as usize)?;
        // What returns from a replaced part of the log may pass the bound, by what the log held; so may bodies that
        // entries wait for, by what may be held back.
        let counters = node.counters();
        let returned = (counters.entries_replaced + counters.bodies_fetched) as usize;
        let unordered_max = limits.unordered.count_max + returned;
        memory::within(id, "unordered bodies", node.unordered().len(), unordered_max)?;
        memory::within(id, "requests to order", node.pending(), unordered_max)?;
        if returned == 0 {
            memory::within(id, "bytes of unordered bodies", node.unordered().bytes(), limits.unordered.bytes_max)?;
        }
        for queue in node.queues() {
            memory::within(id, queue.what, queue.len, queue.max)?;
        }
        Ok(())
    }
}

/// The memberships in a log from an entry on.
fn from(log: &Log, index: LogIndex) -> impl Iterator<Item = &Membership> {
    log.memberships_from(index).map(|(_, membership)| membership)
}

/// The memberships that may count for a node: the latest that it knows to be committed, and all later ones.
fn possible(node: &Node) -> impl Iterator<Item = &Membership> {
    let consensus = node.consensus();
    from(consensus.log(), consensus.commit())
}

/// Forgets the oldest of what is more than [`HISTORY_MAX`].
fn bound<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    while map.len() > HISTORY_MAX {
        map.pop_first();
    }
}

#[cfg(test)]
mod samples {
    use hovercraft::entry::{Entry, EntryKind, RequestHead};
    use hovercraft::membership::{Member, MemberRole};
    use hovercraft::{Incarnation, MemberId, Membership, NodeId};
    use r2p2::Digest;
    use r2p2::wire::Session;

    pub(super) const N1: NodeId = NodeId(1);
    pub(super) const N2: NodeId = NodeId(2);
    pub(super) const M1: MemberId = first(1);
    pub(super) const M2: MemberId = first(2);
    pub(super) const M3: MemberId = first(3);
    pub(super) const M4: MemberId = first(4);
    pub(super) const M2_AGAIN: MemberId = MemberId::new(N2, Incarnation(2));

    const fn first(id: u16) -> MemberId {
        MemberId::new(NodeId(id), Incarnation(1))
    }

    /// Nodes 1 to `voters` vote.
    pub(super) fn group(voters: u16) -> Membership {
        Membership::of_voters((1..=voters).map(|id| (first(id), crate::world::addresses(id))))
    }

    /// Nodes 1 to `voters` vote, and there is a learner.
    pub(super) fn with_learner(voters: u16, learner: u16) -> Membership {
        with(voters, learner, MemberRole::Learner { promote: true })
    }

    /// Nodes 1 to `voters` vote, and another one joins them.
    pub(super) fn with_joining(voters: u16, joining: u16) -> Membership {
        with(voters, joining, MemberRole::Joining)
    }

    fn with(voters: u16, id: u16, role: MemberRole) -> Membership {
        let mut membership = group(voters);
        membership.members.insert(first(id), Member { role, addresses: crate::world::addresses(id) });
        membership
    }

    /// A write of session 5.
    pub(super) fn write(seq: u64) -> Entry {
        let session = Some(Session { client: 5, seq, first_unacked: 0 });
        let request = RequestHead { session, identity: Digest(seq.into()), ..RequestHead::NONE };
        Entry { kind: EntryKind::Request, replier: N1, request, ..Entry::term_start() }
    }
}
