//! The follower's side: taking Appends in order and only with their bodies, acknowledging once per batch, committing
//! what notices allow (protocol.md §5.4-§5.6, §6.2, §6.6, §7.2).

use std::collections::VecDeque;
use std::time::Duration;

use r2p2::{Digest, Instant};

use super::{Node, rest_of};
use crate::consensus::Role;
use crate::id::{LogIndex, MemberId, Term};
use crate::message::{Append, AppendAck, AppendEntries, Heartbeat, Hint, Message, Reject};

/// What a node owes its leader.
#[derive(Debug)]
pub(super) struct Following {
    ack_due: bool,
    heartbeat_ack_due: bool,
    /// Largest commit index the leader has announced in this term.
    notice: LogIndex,
    /// Largest index the leader of this term has said it has persisted.
    leader_persisted: LogIndex,
    /// Entries this node is the replier of, handed out and not reported applied.
    owed: VecDeque<LogIndex>,
    /// How many of its replies the leader does not know of yet, and since when.
    unreported: usize,
    unreported_since: Option<Instant>,
    report_after: Duration,
    /// When it last told the leader about requests that wait.
    hinted: Option<Instant>,
    /// The arm id of the Append that was taken last; 0 for none.
    arm: u64,
    /// What the aggregator was told last: arm id, match, applied.
    folded: (u64, LogIndex, LogIndex),
}

impl Following {
    /// Owes nothing. `report_after` is how long a reply may go unreported.
    pub(super) fn new(report_after: Duration) -> Self {
        Self {
            ack_due: false,
            heartbeat_ack_due: false,
            notice: 0,
            leader_persisted: 0,
            owed: VecDeque::new(),
            unreported: 0,
            unreported_since: None,
            report_after,
            hinted: None,
            arm: 0,
            folded: (0, 0, 0),
        }
    }

    /// Under which arm id acknowledgements go to the aggregator; 0 if they go to the leader.
    pub(super) fn arm(&self) -> u64 {
        self.arm
    }

    /// The aggregator is told this. Returns whether it is anything new.
    pub(super) fn fold(&mut self, matched: LogIndex, applied: LogIndex) -> bool {
        let now = (self.arm, matched, applied);
        std::mem::replace(&mut self.folded, now) != now
    }

    pub(super) fn owe_ack(&mut self) {
        self.ack_due = true;
    }

    pub(super) fn owe_heartbeat_ack(&mut self) {
        self.ack_due = true;
        self.heartbeat_ack_due = true;
    }

    pub(super) fn owe_reply(&mut self, index: LogIndex) {
        self.owed.push_back(index);
    }

    /// Replies this node owes.
    pub(super) fn replies_owed(&self) -> usize {
        self.owed.len()
    }

    /// Replies up to `index` have been sent. The leader learns of it with the next acknowledgement; if none is due, at
    /// once when a good part of its queue is free, or else a moment later, so that reports do not double the traffic.
    pub(super) fn applied(&mut self, now: Instant, index: LogIndex, queue_max: usize) {
        while self.owed.front().is_some_and(|owed| *owed <= index) {
            self.owed.pop_front();
            self.unreported += 1;
        }
        if self.unreported > 0 {
            self.unreported_since.get_or_insert(now);
        }
        if self.unreported >= queue_max.div_ceil(4) {
            self.ack_due = true;
        }
    }

    pub(super) fn report_at(&self) -> Option<Instant> {
        self.unreported_since.map(|since| since + self.report_after)
    }

    /// A new term or role: nothing is owed to whoever led before. Replies are owed to clients, so those stay.
    pub(super) fn reset(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        *self = Self { owed, ..Self::new(self.report_after) };
    }

    /// A leader reports to nobody.
    pub(super) fn forget_reports(&mut self) {
        self.ack_due = false;
        self.heartbeat_ack_due = false;
        self.unreported = 0;
        self.unreported_since = None;
    }
}

impl Node {
    pub(super) fn handle_append(&mut self, now: Instant, from: MemberId, term: Term, append: Append) {
        self.counters.appends_received += 1;
        // No log has entries of a term that has not begun; the crate does not check.
        if append.entries_term > term {
            self.counters.peer_messages_unexpected += 1;
            return;
        }
        if !self.accepts_leader(now, from, term) {
            return;
        }
        self.take_append(now, from, append);
        self.retry_held(now);
    }

    pub(super) fn handle_heartbeat(&mut self, now: Instant, from: MemberId, term: Term, heartbeat: &Heartbeat) {
        if !self.accepts_leader(now, from, term) {
            return;
        }
        self.consensus.step_heartbeat(from, term);
        self.advance(now);
        #[cfg(feature = "mutations")]
        if mutated!(HeartbeatCommitUnclamped) {
            self.consensus.commit_unclamped(heartbeat.commit);
        }
        self.take_notice(heartbeat.commit);
    }

    pub(super) fn handle_notice(&mut self, _now: Instant, from: MemberId, term: Term, commit: LogIndex) {
        // A notice is about this term's log and no other; without it the next Append or heartbeat says the same.
        if term == self.consensus.term() && self.consensus.leader() == Some(from) && self.leading.is_none() {
            self.take_notice(commit);
        } else {
            self.counters.peer_messages_unexpected += 1;
        }
    }

    /// Takes a held Append whose gap nothing closed: Raft shall say no, so that the leader goes back. What else is held
    /// lies behind the same gap; one no is enough.
    pub(super) fn take_overdue_append(&mut self, now: Instant, append: Append) {
        self.held.clear();
        let Some(leader) = self.consensus.leader() else { return };
        self.consensus.step_append(
            leader,
            self.consensus.term(),
            &Append { entries: AppendEntries::default(), ..append },
        );
        self.advance(now);
    }

    /// A body or an earlier Append has come: takes what can be taken now.
    pub(super) fn retry_held(&mut self, now: Instant) {
        let Some(leader) = self.consensus.leader() else { return };
        while let Some(append) = self.held.take_ready(self.consensus.term(), self.consensus.log().last()) {
            if !self.take_append(now, leader, append) {
                return;
            }
        }
    }

    /// Sends what is owed to the leader: one acknowledgement for the whole batch.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        let report_due = self.following.report_at().is_some_and(|at| now >= at);
        if !self.following.ack_due && !report_due {
            return;
        }
        let Some(leader) = self.consensus.leader().filter(|leader| *leader != self.config.me) else {
            // Nobody to tell; the next leader rebuilds its queues from the log.
            self.following.forget_reports();
            return;
        };
        let ack = self.ack_now(now, None);
        self.following.heartbeat_ack_due = false;
        // Who answers a heartbeat tells the leader too: nothing else says that it lives.
        if self.acknowledge_folded(&ack) && !ack.heartbeat {
            return;
        }
        self.send(leader.node(), self.consensus.term(), &Message::AppendAck(ack));
    }

    /// What this node can say about itself now.
    pub(super) fn ack_now(&mut self, _now: Instant, reject: Option<Reject>) -> AppendAck {
        self.counters.acks_sent += 1;
        self.following.ack_due = false;
        self.following.unreported = 0;
        self.following.unreported_since = None;
        // Before its term is safe a node might be restarted in an earlier one, and let that one's leader replace what it
        // has acknowledged.
        let matched =
            if self.persistence.is_term_safe() { self.consensus.verified().min(self.consensus.persisted()) } else { 0 };
        #[cfg(feature = "mutations")]
        let matched = match crate::mutation::active() {
            Some(crate::mutation::Mutation::AcknowledgeHeld) => matched.max(self.held.end()),
            Some(crate::mutation::Mutation::AcknowledgeBeforeDisk) => self.consensus.verified(),
            _ => matched,
        };
        AppendAck {
            matched,
            applied: self.applied,
            commit: self.consensus.commit(),
            arm: 0,
            epoch: 0,
            version: self.config.service_version,
            heartbeat: self.following.heartbeat_ack_due,
            reject,
        }
    }

    /// Tells the leader about requests that nobody has ordered for too long (H): it may not have received them.
    pub(super) fn hint_leader(&mut self, now: Instant) {
        let after = self.config.timing.hint_after;
        let Some(leader) = self.consensus.leader() else { return };
        if !self.config.mode.is_spread() || self.following.hinted.is_some_and(|at| now.since(at) < after) {
            return;
        }
        let identities: Vec<_> = self
            .unordered
            .in_arrival_order()
            .take_while(|waiting| now.since(waiting.at) >= after)
            .take(crate::message::ITEMS_MAX)
            .map(|waiting| waiting.head.identity)
            .collect();
        if !identities.is_empty() {
            self.following.hinted = Some(now);
            self.counters.hints_sent += 1;
            self.send(leader.node(), self.consensus.term(), &Message::Hint(Hint { identities }));
        }
    }

    /// Whether a message may come from the leader of `term`. One of an earlier term is told so by Raft.
    fn accepts_leader(&mut self, now: Instant, from: MemberId, term: Term) -> bool {
        let ours = self.consensus.term();
        if term == ours && self.consensus.role() == Role::Leader {
            self.counters.peer_messages_unexpected += 1;
            return false;
        }
        if term != ours || self.consensus.leader() != Some(from) {
            self.consensus.step_heartbeat(from, term);
            self.advance(now);
        }
        let accepted = term >= ours && self.consensus.leader() == Some(from);
        if accepted {
            self.led_at = now;
        }
        accepted
    }

    /// Appends the longest prefix whose bodies are here; holds the rest and asks for what is missing. Returns whether
    /// anything could be taken.
    fn take_append(&mut self, now: Instant, from: MemberId, append: Append) -> bool {
        let term = self.consensus.term();
        // Not only when something has been executed: what hangs must not keep what is not needed.
        self.compact_log(now);
        if !append.entries.0.is_empty() && self.is_full() {
            self.counters.appends_refused_full += 1;
            return false;
        }
        if append.prev > self.consensus.log().last() {
            self.hold(now, term, append);
            return false;
        }
        let append = self.behind_commit(append);
        let inline: Vec<Digest> = append.entries.0.iter().filter_map(|item| self.take_inline_body(now, item)).collect();
        let entries = &append.entries.0;
        let commit = self.consensus.commit();
        // A late copy of an Append names what was committed here long ago. Its body may have left the log; asked for again
        // it would wait to be ordered, and a plain request be executed twice.
        let here = |item: &crate::message::AppendEntry, index: LogIndex| {
            let request = &item.entry.request;
            index <= commit
                || mutated!(AcknowledgeWithoutBody)
                || !item.entry.needs_body()
                || self.body_len(&request.identity) == Some(request.body_len as usize)
        };
        let numbered = || entries.iter().zip(append.prev + 1..);
        let taken = numbered().take_while(|(item, index)| here(item, *index)).count();
        let missing: Vec<_> = numbered()
            .skip(taken)
            .filter(|(item, index)| !here(item, *index))
            .map(|(item, index)| (item.entry.request.identity, index))
            .collect();
        let complete = taken == entries.len();
        if !complete {
            for (identity, index) in missing {
                self.want_body(now, identity, index, None);
            }
            self.hold(now, term, rest_of(&append, taken));
        }
        if taken == 0 && !complete {
            return false;
        }
        let (persisted, arm) = (append.persisted, append.arm);
        let mut prefix = append;
        prefix.entries.0.truncate(taken);
        self.consensus.step_append(from, term, &prefix);
        self.advance(now);
        // Bodies that came with their entries stay only if the entries do.
        for identity in &inline {
            self.unordered.take(identity);
        }
        self.following.leader_persisted = self.following.leader_persisted.max(persisted);
        self.following.arm = arm;
        self.commit_early();
        self.take_notice(0);
        true
    }

    /// What an Append brings beyond the commit index. The crate would take nothing of one that begins before it, and the
    /// leader would have to find that out by a timeout.
    fn behind_commit(&self, append: Append) -> Append {
        let (commit, log) = (self.consensus.commit(), self.consensus.log());
        let known = append.prev < commit && commit < append.last();
        // Of the same term, it is the same entry, and so is everything before it.
        if known && log.term_at(commit) == Some(append.entries_term) {
            return rest_of(&append, (commit - append.prev) as usize);
        }
        append
    }

    /// With three voters: commits what both this node and its leader have persisted (§5.6).
    pub(super) fn commit_early(&mut self) {
        if !self.config.early_commit || self.leading.is_some() {
            return;
        }
        let three = self.consensus.membership().is_plain_three()
            && (self.consensus.is_voter() || mutated!(EarlyCommitByLearner));
        if three || mutated!(EarlyCommitAnySize) {
            let before = self.consensus.commit();
            self.consensus.commit_with_leader(self.following.leader_persisted);
            self.counters.commits_early += self.consensus.commit() - before;
        }
    }

    /// Whether the log holds as much as it may and cannot be shortened, because this node has not executed what it knows
    /// to be committed: a slow service. The leader repeats what is not taken, and assigns such a node nothing meanwhile
    /// (§5.3, §7.4). What is not known to be committed does not count: the leader's window bounds it, and to refuse
    /// Appends for it would be to wait for what only they can tell.
    fn is_full(&self) -> bool {
        let (log, limits) = (self.consensus.log(), &self.config.limits);
        // What a snapshot has is not executed, only put in place.
        let behind = self.consensus.commit() - self.applied.max(self.snapshots.installing.unwrap_or(0));
        let entries_max = limits.retention.entries_max.max(limits.window_entries_max) as u64;
        let bytes_max = limits.retention.bytes_max.max(limits.window_bytes_max);
        behind >= entries_max || behind > 0 && log.bytes() >= bytes_max && log.first() > self.applied
    }

    /// In mode `raft` the body travels with its entry. Returns which was taken.
    fn take_inline_body(&mut self, now: Instant, item: &crate::message::AppendEntry) -> Option<Digest> {
        let head = item.entry.request;
        let body = item.body.as_ref()?;
        let new =
            item.entry.needs_body() && !self.has_body(&head.identity) && self.identity_of(&head, body) == head.identity;
        if new {
            self.unordered.insert_needed(now, head, body.clone());
        }
        new.then_some(head.identity)
    }

    fn hold(&mut self, now: Instant, term: Term, append: Append) {
        self.counters.appends_held += 1;
        if !self.held.hold(now, term, append) {
            self.counters.appends_held_full += 1;
        }
    }

    /// Commits what the largest notice of this term allows; the rest when the log has grown.
    pub(super) fn take_notice(&mut self, commit: LogIndex) {
        self.following.notice = self.following.notice.max(commit);
        self.consensus.commit_by_notice(self.following.notice);
    }
}
