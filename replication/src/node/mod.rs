//! The node core: everything a replica decides, and nothing it does.
//!
//! # Contract
//! One driver (the runtime, or the simulator) owns a [`Node`] and does this for ever:
//!
//! 1. Hand in what happened, in any number and order: [`Node::handle_client_packet`], [`Node::handle_peer_packet`],
//!    [`Node::handle_applied`], [`Node::handle_timeout`]. Datagrams of clients go in before datagrams of peers that
//!    were received at the same time: a body that is here must not be called missing (protocol.md §5.5).
//! 2. Drain [`Node::poll_output`] until it says [`Output::Timeout`]. Only now is what was handed in acted upon, all of
//!    it as one batch: one proposal, one Append, one acknowledgement.
//! 3. Wait for input, at most until that timeout.
//!
//! [`Output::Persist`] is handed out only with [`NodeConfig::durable`]: it goes to a [`crate::storage::Storage`], in the
//! order given, and is reported by [`Node::handle_persisted`]. Everything else may be done at once, whatever is still
//! being written: what must wait for the disk stays in here until that report. With [`NodeConfig::archive`] there is also
//! [`Output::Archive`], and [`Work::Snapshot`] and [`Work::Install`] among what is to be executed; what comes of them is
//! told by [`Node::handle_archive`].
//!
//! `now` never goes backwards. [`Output::Apply`] is executed in the order given, by an [`crate::applier::Applier`] on
//! whatever thread, and reported by [`Node::handle_applied`]; [`Output::Stop`] is final.
//!
//! # Architecture invariants
//! No clock, no socket, no thread; randomness comes from the seed in the configuration. Bytes from outside never panic
//! and every queue is bounded by [`crate::config::Limits`].

mod admin;
mod aggregation;
mod bodies;
mod counters;
mod feedback;
mod following;
mod handover;
mod leading;
mod members;
mod peers;
mod persistence;
mod queues;
mod requests;
mod snapshots;
mod status;
mod versions;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::feedback::Outbox;
use r2p2::reassembly::Reassembler;
use r2p2::server::{Server, Via};
use r2p2::{Digest, Instant};
use raft::eraftpb::{Message as RaftMessage, MessageType};

pub use counters::Counters;
use following::Following;
use leading::Leading;
pub use members::CommandError;
use persistence::{Persistence, Restored};
pub use queues::Queue;
pub(crate) use snapshots::refounded;
use snapshots::{Receiver, Snapshots};
pub use status::{CounterValue, PeerStatus, StatusReport};
pub(crate) use versions::parse as parse_version;

use crate::applier::{Committed, Work};
use crate::config::{Mode, NodeConfig};
use crate::consensus::{Consensus, Role};
use crate::entry::{ENTRY_LEN, Entry, EntryKind};
use crate::fetcher::Fetcher;
use crate::held::HeldAppends;
use crate::id::{LogIndex, MemberId, NodeId, Term};
use crate::log::LogRecord;
use crate::membership::Membership;
use crate::message::{Append, AppendAck, AppendEntries, Message, Refusal, Refused, Reject, Vote, VoteReply};
use crate::plain::PlainMemory;
use crate::service::Class;
use crate::snapshot::ArchiveWork;
use crate::storage::{Persist, StorageError, Stored};
use crate::unordered::UnorderedSet;

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram to other nodes, from the socket on which this node receives unicast from them.
    Peers {
        /// To whom.
        to: Destination,
        /// The UDP payload.
        packet: Bytes,
    },
    /// Send a datagram to a client, from the socket on which this node receives unicast requests.
    Client {
        /// To whom.
        to: SocketAddrV4,
        /// The UDP payload.
        packet: Bytes,
    },
    /// Persist this, after everything handed out before.
    Persist(Persist),
    /// Execute this, after everything handed out before.
    Apply(Work),
    /// Have the archive do this, after everything handed out before; see [`crate::snapshot::ArchiveWork`].
    Archive(ArchiveWork),
    /// These belong to the group now: where to send what is for all others, if the network does not know.
    Members(Membership),
    /// Answer a request about the node or its group; see [`Node::serve_admin`].
    Admin(AdminRequest),
    /// Stop this node and say why.
    Stop(StopReason),
    /// Nothing more to do until then, or until something happens. Says what for.
    Timeout(Instant, &'static str),
}

/// Which nodes a datagram goes to. *What* fans out is decided here, *how* is the driver's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// One node.
    Peer {
        /// Which.
        node: NodeId,
        /// Where it is.
        at: SocketAddrV4,
    },
    /// All other nodes, and the aggregator if there is one: once by IP multicast, or one copy each.
    Group,
    /// The aggregator.
    Aggregator {
        /// Where it is.
        at: SocketAddrV4,
    },
}

/// A request about the node itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminRequest {
    /// Who asks.
    pub from: SocketAddrV4,
    /// Its request id.
    pub rid: u16,
    /// What: an [`AdminCommand`](crate::admin::AdminCommand).
    pub body: Bytes,
}

/// Why a node must stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StopReason {
    /// A peer remembers another process under this identity.
    #[error(
        "node {by} has already talked to another process that was {me:?}; a node that kept its log in memory, or has lost \
         its data directory, has forgotten its vote and its acknowledgements, so the same identity must not come back \
         (protocol.md §7.5). Give it its data directory again if there is one; otherwise remove what there is of it and start \
         it with `--join`: the group lets it in as another member, which gets a copy of everything"
    )]
    AnotherLife {
        /// Who refused.
        by: NodeId,
        /// The identity.
        me: MemberId,
    },
    /// The group knows a different incarnation.
    #[error(
        "node {by} says that this node has gone on as another incarnation than {me:?}: it has been let in anew since. If that \
         is not another process that runs, start this one with `--join` and without its old data (protocol.md §7.5)"
    )]
    OtherIncarnation {
        /// Who refused.
        by: NodeId,
        /// The identity.
        me: MemberId,
    },
    /// It has left the group.
    #[error(
        "node {by} says that {me:?} has been removed from the group; if that was a mistake, let it in again \
         (`hovercraft cluster add`) with an empty data directory"
    )]
    Removed {
        /// Who says so.
        by: NodeId,
        /// The identity.
        me: MemberId,
    },
    /// The group executes by a version of the service that this program does not have.
    #[error(
        "the group executes by version {needed} of the service, this program has {has}; start this node with the program of \
         the others (a group that has been upgraded does not go back)"
    )]
    ServiceTooOld {
        /// The version here.
        has: u32,
        /// The version in force.
        needed: u32,
    },
    /// What was promised may not be kept.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A replica. See the module for its contract.
pub struct Node {
    config: NodeConfig,
    classify: fn(&[u8]) -> Class,
    /// Everybody else.
    peers: Vec<MemberId>,
    /// Who can be asked for bodies: the others by the latest membership that this node has heard of. Its log may be long
    /// behind that, and name nobody who is still there.
    holders: Vec<MemberId>,
    /// Where everybody is that this node listens to.
    addresses: BTreeMap<NodeId, SocketAddrV4>,
    /// Peers whose messages are in another version of the format, and in which. The operator has been told.
    other_versions: BTreeMap<SocketAddrV4, u8>,
    /// A committed membership that this node was told of.
    known: Option<Membership>,
    /// The epoch of the latest membership in the log that is known to be committed, as it was acted on last.
    committed_epoch: u64,
    /// Whom to listen to has changed.
    members_due: bool,
    /// When a leader was heard last, or looked for by one that does not stand for election; and how often it was.
    led_at: Instant,
    searches: usize,
    /// Strangers that may still be dealt with before the next tick.
    strangers: u32,
    consensus: Consensus,
    unordered: UnorderedSet,
    server: Server,
    peer_packets: Reassembler,
    fetcher: Fetcher,
    plain: PlainMemory,
    held: HeldAppends,
    following: Following,
    leading: Option<Leading>,
    persistence: Persistence,
    snapshots: Snapshots,
    seen: (Term, Role),
    lives: BTreeMap<MemberId, u64>,
    /// Entries handed out for execution, and executed.
    dispatched: LogIndex,
    applied: LogIndex,
    /// Last entry that has been here since before this process started.
    restored: LogIndex,
    /// The latest timestamp of any entry this node ever held; the log itself may keep only entries without one.
    log_time: Instant,
    next_tick: Instant,
    rid: u16,
    dirty: bool,
    stopped: bool,
    /// What forwarders are to be told about requests that never get to the applier, and when next that this is a worker.
    feedback: Outbox,
    next_registration: Instant,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Node {
    /// A node with an empty log that has not heard of anybody. `classify` is [`crate::Service::classify`].
    pub fn new(now: Instant, config: NodeConfig, classify: fn(&[u8]) -> Class) -> Self {
        Self::restart(now, config, classify, Stored::default()).expect("nothing is not damaged")
    }

    /// A node that goes on from what it has kept. If there is a snapshot the first thing it says is that it is to be put in
    /// place ([`Work::Install`]). It executes its log again, as far as somebody tells it that it is committed; without a
    /// snapshot its service begins anew.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] if what was kept cannot have been written by a node, or the snapshot is missing after which
    /// its log begins.
    pub fn restart(
        now: Instant,
        config: NodeConfig,
        classify: fn(&[u8]) -> Class,
        stored: Stored,
    ) -> Result<Self, StorageError> {
        let Restored { log, plain, log_time } = persistence::restore(now, &config, &stored)?;
        let restored = log.last();
        let began_after = log.first() - 1;
        let consensus = Consensus::new(&config, log);
        let snapshot = stored.snapshot.as_ref().map(|(info, _)| *info);
        let mut node = Self {
            classify,
            peers: Vec::new(),
            holders: Vec::new(),
            addresses: BTreeMap::new(),
            other_versions: BTreeMap::new(),
            known: Some(config.membership.clone()),
            committed_epoch: config.membership.epoch,
            members_due: false,
            led_at: now,
            searches: 0,
            strangers: members::STRANGERS_MAX,
            persistence: Persistence::new(config.durable, stored.hard_state),
            snapshots: Snapshots::new(now, snapshot, stored.base.0),
            seen: (consensus.term(), Role::Follower),
            consensus,
            unordered: UnorderedSet::new(config.limits.unordered),
            server: Server::new(requests::server_config(&config)),
            peer_packets: Reassembler::new(peers::reassembly_limits(&config), config.digest_key),
            fetcher: Fetcher::new(config.limits.fetch, config.seed ^ 0xf37c),
            plain,
            held: HeldAppends::new(config.limits.held),
            following: Following::new(config.timing.applied_report),
            leading: None,
            lives: stored.lives.into_iter().collect(),
            dispatched: began_after,
            applied: 0,
            restored,
            log_time,
            next_tick: now + config.timing.tick,
            rid: 0,
            dirty: false,
            stopped: false,
            feedback: Outbox::new(config.feedback_epoch),
            next_registration: now,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        if node.config.durable {
            // A snapshot may be of a later term than what was kept of the term.
            node.persistence.hard_state_is(node.consensus.hard_state());
        }
        node.resume_snapshots(snapshot);
        node.members_changed(now);
        Ok(node)
    }

    /// A datagram arrived where clients send requests.
    pub fn handle_client_packet(&mut self, now: Instant, via: Via, from: SocketAddrV4, packet: &[u8]) {
        if self.stopped {
            return;
        }
        self.server.handle_datagram(now, via, from, packet);
        self.drain_server(now);
        self.dirty = true;
    }

    /// A datagram arrived where nodes talk to each other.
    pub fn handle_peer_packet(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        if self.stopped {
            return;
        }
        self.receive_from_peer(now, from, packet);
        self.dirty = true;
    }

    /// Everything up to `index` has been executed here.
    pub fn handle_applied(&mut self, now: Instant, index: LogIndex) {
        if self.stopped || index <= self.applied {
            return;
        }
        assert!(index <= self.dispatched, "only what was handed out is applied");
        self.applied = index;
        self.dirty = true;
        if self.config.mode == Mode::Unreplicated {
            return;
        }
        self.consensus.applied(index);
        self.following.applied(now, index, self.config.limits.replier_queue_max);
        if let Some(leading) = &mut self.leading {
            leading.repliers.applied(self.config.me.node(), index);
        }
        self.installed(index);
        self.compact_log(now);
    }

    /// The time of the last [`Output::Timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.dirty = true;
        self.server.handle_timeout(now);
        self.drain_server(now);
        self.register(now);
        if self.config.mode == Mode::Unreplicated {
            return;
        }
        if now >= self.next_tick {
            // A process that was paused has missed ticks. It must not make up for them: what it would conclude from
            // its own absence (that the leader is gone) is better asked of the datagrams that wait in its sockets.
            self.next_tick = now + self.config.timing.tick;
            self.tick(now);
        }
        if let Some(append) = self.held.take_overdue(now, self.consensus.term(), self.consensus.log().last()) {
            self.take_overdue_append(now, append);
        }
        self.ask_for_bodies(now);
        self.repeat_unacknowledged(now);
        self.receive_on(now);
    }

    /// Everything up to the batch of this number is as safe as it was to be; see [`crate::storage`].
    pub fn handle_persisted(&mut self, now: Instant, number: u64) {
        if self.stopped {
            return;
        }
        self.take_persisted(now, number);
        self.dirty = true;
    }

    /// A batch could not be persisted. The node stops: it must not go on with promises it may have forgotten.
    pub fn handle_storage_error(&mut self, error: StorageError) {
        if !self.stopped {
            self.stop(error.into());
        }
    }

    /// Answers an [`Output::Admin`] request that [`Node::serve_admin`] leaves to the driver.
    pub fn answer_admin(&mut self, request: &AdminRequest, report: &[u8]) {
        let epoch = self.epoch();
        requests::write_admin_answer(self.config.limits.packet_max, epoch, request, report, &mut self.outputs);
    }

    /// The next thing to do; [`Output::Timeout`] when there is nothing more.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if !self.dirty || self.stopped {
                return self.next_timeout();
            }
            self.dirty = false;
            self.settle(now);
            self.flush_feedback();
        }
    }

    /// Stands for election now, without waiting for the timeout; for tests and for a group of one.
    pub fn campaign(&mut self, now: Instant) {
        self.consensus.campaign();
        self.advance(now);
        self.dirty = true;
    }

    /// Hands leadership to another node as soon as that has the whole log; nothing happens on other nodes.
    pub fn transfer_leadership(&mut self, now: Instant, to: MemberId) {
        self.consensus.transfer(to);
        self.advance(now);
        self.dirty = true;
    }

    /// Who this node is.
    pub fn me(&self) -> MemberId {
        self.config.me
    }

    /// Raft as this node sees it.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Bodies that wait to be ordered.
    pub fn unordered(&self) -> &UnorderedSet {
        &self.unordered
    }

    /// Highest index executed.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Acts on everything that was handed in since the last time, as one batch.
    fn settle(&mut self, now: Instant) {
        if self.config.mode == Mode::Unreplicated {
            return;
        }
        if self.leading.is_some() {
            self.following.forget_reports();
            self.advance_version(now);
            self.advance_membership(now);
            self.order(now);
            if self.tend_aggregator(now) {
                self.repeat_now(now);
            }
            self.replicate(now);
            self.tell_persisted();
        } else {
            self.acknowledge(now);
        }
        self.dispatch();
        self.take_snapshot_if_due(now);
        self.persist();
    }

    /// Follows up on a call into Raft: stores what is unstable, persists it, sends what Raft wants sent, and notices
    /// a change of role. Called after every such call, so that the crate never sees two in a row.
    fn advance(&mut self, now: Instant) {
        self.store_unstable(now);
        if self.config.durable {
            self.persistence.hard_state_is(self.consensus.hard_state());
        }
        if !self.config.durable || self.consensus.is_leader() && mutated!(LeaderCountsBeforeDisk) {
            // What is in the log counts as persisted.
            let last = self.consensus.log().last();
            if last > self.consensus.persisted()
                && let Some(term) = self.consensus.log().term_at(last)
            {
                self.consensus.persisted_up_to(last, term);
            }
        }
        for message in self.consensus.take_messages() {
            self.convert(now, message);
        }
        self.notice_role(now);
        if mutated!(MembershipWhenCommitted) {
            self.members_due |= self.consensus.follow_membership();
        }
        if std::mem::take(&mut self.members_due) || self.committed_membership().epoch != self.committed_epoch {
            self.members_changed(now);
        }
    }

    fn store_unstable(&mut self, now: Instant) {
        let Some(first) = self.consensus.unstable().first().map(|entry| entry.index) else { return };
        if first <= self.consensus.log().last() && !mutated!(TruncationSkipped) {
            assert!(first > self.dispatched, "a committed entry is never replaced");
            // What comes in their place is new here, and answered by its replier like anything else.
            self.restored = self.restored.min(first - 1);
            for record in self.consensus.log_mut().truncate(first) {
                self.counters.entries_replaced += 1;
                if record.entry.is_request() {
                    self.plain.withdraw(&record.entry.request.identity);
                    if mutated!(ReplacedBodyLost) {
                        continue;
                    }
                    self.unordered.put_back(record.at, record.entry.request, record.body);
                }
            }
        }
        self.persistence.changed_from(first);
        let unstable: Vec<(Term, Bytes)> =
            self.consensus.unstable().iter().map(|entry| (entry.term, entry.data.clone())).collect();
        for (term, data) in unstable {
            let record = self.record(now, term, data);
            self.consensus.log_mut().append(record);
        }
        self.consensus.stored();
        self.members_due |= self.consensus.follow_membership();
    }

    /// Joins an entry with its body, which leaves the unordered set.
    fn record(&mut self, now: Instant, term: Term, data: Bytes) -> LogRecord {
        if data.is_empty() {
            let entry = Entry::term_start();
            let mut raw = Vec::new();
            entry.emit(&mut raw);
            return LogRecord { term, entry, raw: raw.into(), body: Bytes::new(), at: now };
        }
        let (raw, body) = (data.slice(..ENTRY_LEN), data.slice(ENTRY_LEN..));
        let entry = Entry::parse(&raw).expect("only parsed entries are stepped or proposed");
        let identity = entry.request.identity;
        self.log_time = self.log_time.max(entry.time);
        if entry.brings_body() {
            return LogRecord { term, entry, raw, body, at: now };
        }
        if entry.request.session.is_none() {
            self.plain.remember(now, entry.request.client, identity);
        }
        self.fetcher.done(&identity);
        let waiting = if mutated!(OrderedStaysUnordered) {
            self.unordered.get(&identity).cloned()
        } else {
            self.unordered.take(&identity)
        };
        let waiting = waiting.map(|waiting| (waiting.body, waiting.at));
        // A read that is ordered again, or a write that two leaders ordered: the body is in the log already.
        let body = waiting.or_else(|| self.body_in_log(&identity).map(|body| (body, now)));
        let (body, at) = match body {
            Some(found) if entry.needs_body() => found,
            Some((_, at)) => (Bytes::new(), at),
            None => {
                let excused = mutated!(AcknowledgeWithoutBody);
                assert!(!entry.needs_body() || excused, "an entry is stepped or proposed only with its body at hand");
                (Bytes::new(), now)
            }
        };
        LogRecord { term, entry, raw, body, at }
    }

    fn body_in_log(&self, identity: &Digest) -> Option<Bytes> {
        let log = self.consensus.log();
        log.find(identity).and_then(|index| log.get(index)).map(|record| record.body.clone())
    }

    /// Translates what Raft wants sent into our own messages.
    fn convert(&mut self, now: Instant, message: RaftMessage) {
        let to = MemberId::from_raft(message.to);
        let term = message.term;
        match message.msg_type {
            MessageType::MsgAppend => self.probe(to, message.index),
            MessageType::MsgAppendResponse if message.reject => {
                let reject = Reject { index: message.index, hint: message.reject_hint, hint_term: message.log_term };
                self.counters.appends_rejected += 1;
                let ack = self.ack_now(now, Some(reject));
                self.send(to.node(), term, &Message::AppendAck(ack));
            }
            // What is not safe yet is acknowledged when it is; until then there is nothing to say.
            MessageType::MsgAppendResponse
                if Some(to) == self.consensus.leader() && message.index > self.consensus.persisted() => {}
            MessageType::MsgAppendResponse if Some(to) == self.consensus.leader() => self.following.owe_ack(),
            // To a leader of an earlier term: tells it that its time is over.
            MessageType::MsgAppendResponse => {
                self.send(to.node(), term, &Message::AppendAck(AppendAck::default()));
            }
            MessageType::MsgHeartbeat => {
                if let Some(leading) = &mut self.leading {
                    leading.heartbeat_due = true;
                }
            }
            MessageType::MsgHeartbeatResponse => self.following.owe_heartbeat_ack(),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let vote = Vote {
                    pre: message.msg_type == MessageType::MsgRequestPreVote,
                    transfer: !message.context.is_empty(),
                    last: message.index,
                    last_term: message.log_term,
                    commit: message.commit,
                    commit_term: message.commit_term,
                };
                self.promise(to.node(), term, Message::Vote(vote));
            }
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
                let reply = VoteReply {
                    pre: message.msg_type == MessageType::MsgRequestPreVoteResponse,
                    reject: message.reject,
                    commit: message.commit,
                    commit_term: message.commit_term,
                };
                self.promise(to.node(), term, Message::VoteReply(reply));
            }
            MessageType::MsgTimeoutNow => self.send(to.node(), term, &Message::TimeoutNow),
            // Snapshots are not the crate's, the log never offers one; proposals are never forwarded.
            _ => {}
        }
    }

    fn notice_role(&mut self, now: Instant) {
        let seen = (self.consensus.term(), self.consensus.role());
        if seen == self.seen {
            return;
        }
        tracing::info!(node = %self.config.me.node(), term = seen.0, role = ?seen.1, "role");
        self.seen = seen;
        self.following.reset();
        self.leading = None;
        // Who leads now asks for what it needs; what the last one needed may be nowhere any more.
        self.fetcher.clear();
        self.counters.role_changes += 1;
        if seen.1 == Role::Leader {
            self.counters.elections_won += 1;
            self.held.clear();
            self.start_leading(now);
        }
        self.server.set_acknowledging(self.acknowledges_handshakes(now));
    }

    fn tick(&mut self, now: Instant) {
        self.strangers = members::STRANGERS_MAX;
        self.consensus.tick();
        self.advance(now);
        // What a leader may not order any more only takes the place of what it could.
        let expired = match self.leading {
            Some(_) => self.unordered.expire_older(now, self.config.timing.order_age_max),
            None => self.unordered.expire(now),
        };
        self.counters.unordered_expired += expired as u64;
        self.counters.peer_messages_incomplete += self.peer_packets.expire(now) as u64;
        if self.leading.is_some() {
            self.watch_for_deafness(now);
            self.watch_for_standstill(now);
        } else {
            self.hint_leader(now);
            self.look_for_leader(now);
        }
        self.tend_snapshots(now);
        self.server.set_acknowledging(self.acknowledges_handshakes(now));
    }

    /// Hands out what is committed and persisted, in order, no further ahead of what has been executed than the window
    /// allows: a slow service must not collect work without bound.
    fn dispatch(&mut self) {
        let ahead_max = self.config.limits.window_entries_max as u64;
        let applicable = self.consensus.applicable().min(self.applied + ahead_max);
        while self.dispatched < applicable {
            let index = self.dispatched + 1;
            let log = self.consensus.log();
            let record = log.get(index).expect("entries are kept until they are applied");
            let replayed = index <= self.restored;
            let committed = Committed { index, entry: record.entry, body: record.body.clone(), replayed };
            if record.entry.kind == EntryKind::Version && !self.can_execute(log.version_at(index)) {
                return;
            }
            #[cfg(feature = "mutations")]
            let committed = self.mutate_dispatch(committed, applicable);
            self.dispatched = index;
            if committed.entry.replier == self.config.me.node() && !replayed {
                self.following.owe_reply(index);
                self.counters.replies_assigned += 1;
            }
            self.outputs.push_back(Output::Apply(Work::Apply(committed)));
        }
    }

    /// Mistakes on the way to the applier.
    #[cfg(feature = "mutations")]
    fn mutate_dispatch(&self, mut committed: Committed, applicable: LogIndex) -> Committed {
        let me = self.config.me.node();
        if mutated!(ReplierRechosen)
            && self.leading.as_ref().is_some_and(|leading| !leading.is_in_step(committed.entry.replier))
        {
            committed.entry.replier = me;
        }
        if mutated!(ReadBeforeItsPlace) {
            let log = self.consensus.log();
            let swaps = |index: LogIndex| {
                let (Some(one), Some(two)) = (log.get(index), log.get(index + 1)) else { return false };
                index < applicable
                    && one.entry.kind == EntryKind::Request
                    && !one.entry.read_only
                    && two.entry.read_only
                    && two.entry.replier == me
            };
            let place = match committed.index {
                index if swaps(index) => index + 1,
                index if swaps(index - 1) => index - 1,
                index => index,
            };
            if let Some(record) = log.get(place) {
                let time = committed.entry.time;
                committed.entry = Entry { time, ..record.entry };
                committed.body = record.body.clone();
            }
        }
        committed
    }

    fn next_timeout(&mut self) -> Output {
        if self.stopped {
            return Output::Timeout(Instant::FAR_FUTURE, "stopped");
        }
        let mut next = (Instant::FAR_FUTURE, "nothing");
        let mut at = |candidate: Option<Instant>, why: &'static str| {
            if let Some(candidate) = candidate
                && candidate < next.0
            {
                next = (candidate, why);
            }
        };
        at(self.server.next_timeout(), "forget incomplete requests");
        at(self.config.registers.then_some(self.next_registration), "say that this is a worker");
        if self.config.mode != Mode::Unreplicated {
            at(Some(self.next_tick), "tick");
            at(self.fetcher.next_due(), "ask for missing bodies");
            at(self.held.next_overdue(self.consensus.log().last()), "give up on a gap");
            at(self.following.report_at(), "report applied");
            at(self.leading.as_ref().and_then(Leading::next_repeat), "repeat an unacknowledged Append");
            at(self.aggregator_due(), "arm, or do without the aggregator");
            at(self.snapshots.receiver.as_ref().and_then(Receiver::next_due), "ask again for a snapshot");
        }
        Output::Timeout(next.0, next.1)
    }

    /// Reports to peers and to the driver that this node may not go on.
    fn stop(&mut self, reason: StopReason) {
        self.stopped = true;
        self.outputs.clear();
        self.outputs.push_back(Output::Stop(reason));
    }

    fn handle_refusal(&mut self, from: MemberId, refused: Refused) {
        if refused.life != self.config.life {
            // Meant for another process under this identity.
            self.counters.peer_messages_unexpected += 1;
            return;
        }
        let (by, me) = (from.node(), self.config.me);
        self.stop(match refused.reason {
            Refusal::AnotherLife => StopReason::AnotherLife { by, me },
            Refusal::OtherIncarnation => StopReason::OtherIncarnation { by, me },
            Refusal::Removed => self.removed(by),
        });
    }
}

/// An Append without entries would be a heartbeat; this is what follows `append` after its first `taken` entries.
fn rest_of(append: &Append, taken: usize) -> Append {
    Append {
        prev: append.prev + taken as u64,
        prev_term: if taken > 0 { append.entries_term } else { append.prev_term },
        entries: AppendEntries(append.entries.0[taken..].to_vec()),
        ..append.clone()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("me", &self.config.me)
            .field("consensus", &self.consensus)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
