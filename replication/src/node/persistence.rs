//! What waits for the disk (protocol.md §6.1, §6.2; the contract with the driver is in [`crate::storage`]).
//!
//! Changes are collected while inputs are handled and leave as one batch when the node settles. Three things wait for
//! the driver's report: requests for votes and answers to them wait for term and vote; acknowledgements wait for the term
//! and for entries; the leader's own count and execution wait for entries, through Raft's own persisted index. Nothing
//! else needs to: an acknowledged heartbeat or a rejection promises nothing that a restart could break, because whoever
//! leads a term was elected by votes that were safe.

use std::collections::VecDeque;

use bytes::Bytes;
use r2p2::Instant;

use super::{Node, Output, snapshots};
use crate::config::NodeConfig;
use crate::entry::Entry;
use crate::id::{LogIndex, MemberId, NodeId, Term};
use crate::log::{Log, LogRecord};
use crate::message::Message;
use crate::plain::PlainMemory;
use crate::storage::{HardState, Persist, StorageError, Stored, StoredRecord};

/// Most messages that wait for term and vote. Elections repeat what is lost beyond that.
pub(super) const PROMISES_MAX: usize = 256;

/// What is to be persisted, and what waits for it.
#[derive(Debug)]
pub(super) struct Persistence {
    durable: bool,
    /// Number of the last batch handed out.
    number: u64,
    /// First index whose record has changed since.
    changed: Option<LogIndex>,
    /// Members heard for the first time since, and which process they are.
    lives: Vec<(MemberId, u64)>,
    /// Term and vote as they are, and the batch that has them: the next one, if they have changed since the last.
    hard_state: HardState,
    hard_state_in: u64,
    /// Number of the last batch that is safe.
    safe: u64,
    /// Batches with records, handed out and not safe.
    in_flight: VecDeque<Written>,
    /// Messages that promise term or vote.
    promises: VecDeque<Promise>,
}

/// Where a batch's records lie: the first, the last, and the last one's term.
#[derive(Clone, Copy, Debug)]
struct Written {
    number: u64,
    first: LogIndex,
    last: LogIndex,
    term: Term,
}

#[derive(Debug)]
struct Promise {
    /// The batch that must be safe before.
    after: u64,
    to: NodeId,
    term: Term,
    message: Message,
}

impl Persistence {
    /// Everything there is, is safe.
    pub(super) fn new(durable: bool, hard_state: HardState) -> Self {
        Self {
            durable,
            number: 0,
            changed: None,
            lives: Vec::new(),
            hard_state,
            hard_state_in: 0,
            safe: 0,
            in_flight: VecDeque::new(),
            promises: VecDeque::new(),
        }
    }

    /// Messages that wait for term and vote.
    pub(super) fn promises(&self) -> usize {
        self.promises.len()
    }

    /// Records from `index` on are new.
    pub(super) fn changed_from(&mut self, index: LogIndex) {
        if self.durable {
            self.changed = Some(self.changed.map_or(index, |changed| changed.min(index)));
        }
    }

    /// A member was heard for the first time.
    pub(super) fn heard_first(&mut self, member: MemberId, life: u64) {
        if self.durable {
            self.lives.push((member, life));
        }
    }

    /// Term and vote are these.
    pub(super) fn hard_state_is(&mut self, hard_state: HardState) {
        if self.hard_state != hard_state {
            self.hard_state = hard_state;
            self.hard_state_in = self.number + 1;
        }
    }

    /// The log is empty, and begins after a snapshot that is safe. What is being written is about nothing.
    pub(super) fn begins_after(&mut self) {
        self.changed = None;
        self.in_flight.clear();
    }

    /// Whether term and vote are safe as they are.
    pub(super) fn is_term_safe(&self) -> bool {
        self.hard_state_in <= self.safe
    }

    /// The batches up to `number` are safe. Returns how far the log is, unless a later batch replaces all of it.
    fn safe_up_to(&mut self, number: u64) -> Option<(LogIndex, Option<Term>)> {
        assert!(number <= self.number, "only what was handed out is persisted");
        self.safe = self.safe.max(number);
        let mut reached = None;
        while let Some(written) = self.in_flight.front().copied().filter(|written| written.number <= number) {
            self.in_flight.pop_front();
            reached = Some(written);
        }
        let Written { last, term, .. } = reached?;
        // What a later batch replaces will be gone before what replaces it is there.
        let replaced = self.in_flight.iter().map(|written| written.first).chain(self.changed).min();
        match replaced {
            Some(first) if first <= last => Some((first - 1, None)),
            _ => Some((last, Some(term))),
        }
    }
}

impl Node {
    /// Sends a message that promises term or vote, once these are safe.
    pub(super) fn promise(&mut self, to: NodeId, term: Term, message: Message) {
        let persistence = &mut self.persistence;
        if persistence.is_term_safe() || mutated!(PromiseBeforeDisk) {
            self.send(to, term, &message);
        } else if persistence.promises.len() < PROMISES_MAX {
            persistence.promises.push_back(Promise { after: persistence.hard_state_in, to, term, message });
        } else {
            self.counters.promises_dropped += 1;
        }
    }

    /// Hands out what has changed, as one batch.
    pub(super) fn persist(&mut self) {
        let persistence = &mut self.persistence;
        let number = persistence.number + 1;
        let hard_state = (persistence.hard_state_in == number).then_some(persistence.hard_state);
        #[cfg(feature = "mutations")]
        let hard_state = hard_state.map(|hard_state| HardState {
            vote: hard_state.vote.filter(|_| !mutated!(VoteNotPersisted)),
            ..hard_state
        });
        let changed = persistence.changed.take();
        let lives = std::mem::take(&mut persistence.lives);
        let compacted = if persistence.durable { self.snapshots.compaction(self.consensus.persisted()) } else { None };
        if hard_state.is_none() && changed.is_none() && lives.is_empty() && compacted.is_none() {
            return;
        }
        persistence.number = number;
        let log = self.consensus.log();
        let last = log.last();
        let first = changed.unwrap_or(last + 1);
        let mut records = Vec::new();
        for record in (first..=last).filter_map(|index| log.get(index)) {
            self.snapshots.written(record);
            records.push(stored(record));
        }
        debug_assert!(
            records.is_empty() || compacted.is_none_or(|(index, _)| index < first || mutated!(CompactedBeforeSafe)),
            "a batch brings nothing that it forgets"
        );
        debug_assert_eq!(records.len() as u64, last + 1 - first, "what is not persisted is kept");
        if let Some(term) = log.term_at(last).filter(|_| first <= last) {
            persistence.in_flight.push_back(Written { number, first, last, term });
        }
        self.counters.batches_persisted += 1;
        self.outputs.push_back(Output::Persist(Persist { number, hard_state, lives, compacted, first, records }));
    }

    pub(super) fn take_persisted(&mut self, now: Instant, number: u64) {
        let was_term_safe = self.persistence.is_term_safe();
        if let Some((index, term)) = self.persistence.safe_up_to(number)
            && let Some(term) = term.or_else(|| self.consensus.log().term_at(index))
        {
            let before = self.consensus.persisted();
            self.consensus.persisted_up_to(index, term);
            self.advance(now);
            if self.consensus.persisted() > before {
                self.following.owe_ack();
                self.commit_early();
            }
        }
        if !was_term_safe && self.persistence.is_term_safe() {
            self.following.owe_ack();
        }
        let safe = self.persistence.safe;
        while self.persistence.promises.front().is_some_and(|promise| promise.after <= safe) {
            if let Some(Promise { to, term, message, .. }) = self.persistence.promises.pop_front() {
                self.send(to, term, &message);
            }
        }
    }
}

fn stored(record: &LogRecord) -> StoredRecord {
    StoredRecord { term: record.term, entry: record.raw.clone(), body: record.body.clone() }
}

/// What a node begins with.
pub(super) struct Restored {
    pub(super) log: Log,
    pub(super) plain: PlainMemory,
    pub(super) log_time: Instant,
}

/// The log as it was kept, behind the snapshot if there is one. Plain requests in it are remembered as if they had come
/// now: longer than necessary.
pub(super) fn restore(now: Instant, config: &NodeConfig, stored: &Stored) -> Result<Restored, StorageError> {
    let mut restored = Restored {
        log: Log::new(config.membership.clone()),
        plain: PlainMemory::new(config.limits.plain),
        log_time: Instant::ZERO,
    };
    let mut hard_state = stored.hard_state;
    if let Some((info, meta)) = &stored.snapshot {
        let meta = snapshots::parse(info, Some(meta))?;
        restored.log = snapshots::log_after(info, &meta, &config.membership);
        restored.plain = snapshots::remembered(now, config.limits.plain, &meta.plain);
        restored.log_time = meta.log_time;
        // It may have been received by a node that had not heard of that term.
        if meta.known_in > hard_state.term {
            hard_state = HardState { term: meta.known_in, vote: None };
        }
    }
    let (begins, (base, base_term)) = (restored.log.first() - 1, stored.base);
    if base > begins {
        let which = format!("the log begins after entry {base} of term {base_term}, and no snapshot goes that far");
        return Err(StorageError::Damaged(which));
    }
    restored.log.resume_from(hard_state, 0);
    // What is kept behind the snapshot goes on from it only if it is the same entry that both end with.
    let goes_on = stored.term_at(begins) == restored.log.term_at(begins);
    let mut before = restored.log.term_at(begins).unwrap_or(0);
    let behind = stored.records.iter().zip(base + 1..).filter(|(_, index)| goes_on && *index > begins);
    for (record, index) in behind {
        let StoredRecord { term, entry: ref raw, ref body } = *record;
        let damaged = |what: &str| StorageError::Damaged(format!("entry {index} {what}"));
        let entry = Entry::parse(raw).ok_or_else(|| damaged("does not parse"))?;
        if term < before || term > hard_state.term {
            return Err(damaged(&format!("is of term {term}, after one of {before}, in {}", hard_state.term)));
        }
        let has_body = entry.needs_body() || entry.brings_body();
        let body_len = if has_body { entry.request.body_len as usize } else { 0 };
        if body.len() != body_len {
            return Err(damaged(&format!("comes with {} bytes instead of {body_len}", body.len())));
        }
        if !entry.fits_body(body) {
            return Err(damaged("says nothing"));
        }
        before = term;
        if entry.is_request() && entry.request.session.is_none() {
            restored.plain.remember(now, entry.request.client, entry.request.identity);
        }
        restored.log_time = restored.log_time.max(entry.time);
        restored.log.append(LogRecord { term, entry, raw: raw.clone(), body: Bytes::clone(body), at: now });
    }
    Ok(restored)
}
