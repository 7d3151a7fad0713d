//! What must always hold, checked at every step of a run: one file per invariant of protocol.md §6.
//!
//! A checker is fed plain facts and answers with a [`Violation`] or with nothing; it never panics and never decides what
//! to do about one. [`Checkers`] knows which facts concern whom; [`crate::World`] knows when they come up.

pub mod at_most_once;
pub mod bodies;
pub mod fence;
pub mod leader_completeness;
pub mod log_matching;
pub mod log_time;
pub mod memory;
pub mod one_leader;
pub mod persisted;
pub mod plain_once;
pub mod replier_queue;
pub mod same_answer;
pub mod same_log;
pub mod same_state;
mod violation;
pub mod window;

use std::collections::BTreeMap;

use bytes::Bytes;
use hovercraft::applier::{Applier, Effect};
use hovercraft::consensus::Role;
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::message::{Envelope, Message};
use hovercraft::{Limits, LogIndex, Mode, Node, NodeConfig, NodeId, Service, Term};
use r2p2::DigestKey;

pub use violation::Violation;

/// How much history each checker keeps for nodes that lag behind.
pub const HISTORY_MAX: usize = 1 << 20;

/// Every this many drives of a node it is asked for its whole status.
const STATUS_EVERY: u64 = 64;

/// A checker's answer.
pub type Result = std::result::Result<(), Violation>;

/// All checkers of a world.
#[derive(Debug)]
pub struct Checkers {
    mode: Mode,
    limits: Limits,
    digest_key: DigestKey,
    one_leader: one_leader::OneLeader,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    same_log: same_log::SameLog,
    same_state: same_state::SameState,
    replier_queue: replier_queue::ReplierQueue,
    at_most_once: at_most_once::AtMostOnce,
    fence: fence::Fence,
    plain_once: plain_once::PlainOnce,
    log_time: log_time::LogTime,
    same_answer: same_answer::SameAnswer,
    /// What of each node's log has been looked at.
    seen: BTreeMap<NodeId, Seen>,
}

/// What of a node's log has been looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: LogIndex,
    last_term: Term,
    /// The term in which it was last seen leading.
    led: Term,
    drives: u64,
}

impl Checkers {
    /// Nothing seen yet, of nodes that have `config` in common.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            mode: config.mode,
            limits: config.limits,
            digest_key: config.digest_key,
            one_leader: one_leader::OneLeader::default(),
            log_matching: log_matching::LogMatching::default(),
            leader_completeness: leader_completeness::LeaderCompleteness::default(),
            same_log: same_log::SameLog::default(),
            same_state: same_state::SameState::default(),
            replier_queue: replier_queue::ReplierQueue::default(),
            at_most_once: at_most_once::AtMostOnce::default(),
            fence: fence::Fence::default(),
            // Half of it: clocks may differ, and so may the moments at which nodes took it.
            plain_once: plain_once::PlainOnce::new(config.limits.plain.age_max / 2),
            log_time: log_time::LogTime::default(),
            same_answer: same_answer::SameAnswer::default(),
            seen: BTreeMap::new(),
        }
    }

    /// A process starts as this node, with nothing in memory.
    pub fn started(&mut self, node: NodeId) {
        self.seen.remove(&node);
        self.same_log.started(node);
        self.replier_queue.started(node);
    }

    /// An acknowledgement reaches a node.
    pub fn received(&mut self, to: NodeId, envelope: &Envelope, message: &Message) {
        if let Message::AppendAck(ack) = message {
            self.replier_queue.reported(to, envelope.from.node(), ack.applied);
        }
    }

    /// A node sends a message to other nodes.
    pub fn sent(&mut self, node: &Node, message: &Message) -> Result {
        match message {
            Message::AppendAck(ack) => {
                bodies::acknowledged(node.me().node(), ack.matched, node.consensus().log().last())
            }
            _ => Ok(()),
        }
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
        self.same_log.applied(id, index, entry)?;
        if let Some(term) = node.consensus().log().term_at(index) {
            self.leader_completeness.committed(id, index, term)?;
        }
        self.at_most_once.applied(id, index, entry, effect)?;
        self.fence.applied(index, entry, effect)?;
        self.plain_once.applied(index, entry)?;
        self.log_time.applied(index, entry)?;
        self.same_answer.ordered(entry);
        match applier.state_hash() {
            Some(hash) => self.same_state.applied(id, applier.applied(), hash),
            None => Ok(()),
        }
    }

    /// A node answers a read that no entry orders.
    #[cfg(feature = "mutations")]
    pub(crate) fn read_locally(&mut self, request: &hovercraft::entry::RequestHead) {
        self.same_answer.ordered(&Entry { read_only: true, request: *request, ..Entry::term_start() });
    }

    /// A node has done everything it had to do for now.
    pub fn settled(&mut self, node: &Node) -> Result {
        if self.mode == Mode::Unreplicated {
            return Ok(());
        }
        let (id, consensus) = (node.me().node(), node.consensus());
        let leads = consensus.role() == Role::Leader;
        if leads {
            self.one_leader.leads(id, consensus.term())?;
        }
        let began_to_lead = {
            let seen = self.seen.entry(id).or_default();
            seen.drives += 1;
            leads && std::mem::replace(&mut seen.led, consensus.term()) != consensus.term()
        };
        self.scan_log(node)?;
        if began_to_lead {
            let log = consensus.log();
            self.leader_completeness.leads(id, consensus.term(), log.first(), |index| log.term_at(index))?;
        }
        if leads {
            self.check_queues(node)?;
        }
        self.check_memory(node)
    }

    /// Looks at what is new in a node's log.
    fn scan_log(&mut self, node: &Node) -> Result {
        let (id, log) = (node.me().node(), node.consensus().log());
        let seen = self.seen.entry(id).or_default();
        let unchanged = log.last() >= seen.last && log.term_at(seen.last).is_none_or(|term| term == seen.last_term);
        let from = if unchanged { (seen.last + 1).max(log.first()) } else { log.first() };
        seen.last = log.last();
        seen.last_term = log.term_at(log.last()).unwrap_or(0);
        for index in from..=log.last() {
            let Some(record) = log.get(index) else { continue };
            self.log_matching.holds(id, index, record.term, log.term_at(index - 1), &record.entry)?;
            bodies::holds(&self.digest_key, id, index, &record.entry, &record.body)?;
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
            let announced = record.entry.kind != EntryKind::TermStart;
            self.replier_queue.announced(id, index, announced.then_some(record.entry.replier));
        }
        if self.mode == Mode::Hovercraft {
            self.replier_queue.check(id, self.limits.replier_queue_max)?;
        }
        let first = self.replier_queue.first(id);
        window::check(id, term, first, node.applied(), log.last(), self.limits.window_entries_max)
    }

    fn check_memory(&mut self, node: &Node) -> Result {
        let (id, log) = (node.me().node(), node.consensus().log());
        let limits = &self.limits;
        let ahead = log.last() - node.applied().min(log.last());
        memory::within(id, "entries of the log", log.len(), limits.retention.entries_max + ahead as usize)?;
        // What returns from a replaced part of the log may pass the bound, by what the log held; so may bodies that
        // entries wait for, by what may be held back.
        let counters = node.counters();
        let returned = (counters.entries_replaced + counters.bodies_fetched) as usize;
        memory::within(id, "unordered bodies", node.unordered().len(), limits.unordered.count_max + returned)?;
        if returned == 0 {
            memory::within(id, "bytes of unordered bodies", node.unordered().bytes(), limits.unordered.bytes_max)?;
        }
        if self.seen.get(&id).is_some_and(|seen| seen.drives % STATUS_EVERY == 0) {
            let status = node.status(r2p2::Instant::ZERO);
            memory::within(id, "missing bodies", status.missing as usize, limits.fetch.wanted_max)?;
        }
        Ok(())
    }
}

/// Forgets the oldest of what is more than [`HISTORY_MAX`].
fn bound<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    while map.len() > HISTORY_MAX {
        map.pop_first();
    }
}

#[cfg(test)]
mod samples {
    use hovercraft::NodeId;
    use hovercraft::entry::{Entry, EntryKind, RequestHead};
    use r2p2::Digest;
    use r2p2::wire::Session;

    pub(super) const N1: NodeId = NodeId(1);
    pub(super) const N2: NodeId = NodeId(2);

    /// A write of session 5.
    pub(super) fn write(seq: u64) -> Entry {
        let session = Some(Session { client: 5, seq, first_unacked: 0 });
        let request = RequestHead { session, identity: Digest(seq.into()), ..RequestHead::NONE };
        Entry { kind: EntryKind::Request, replier: N1, request, ..Entry::term_start() }
    }
}
