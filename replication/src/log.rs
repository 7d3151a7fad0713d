//! The log in memory: entries with their bodies, the newest of them (protocol.md §7.4), and what the `raft` crate
//! wants to know about it.

use std::collections::VecDeque;

use bytes::Bytes;
use r2p2::{Digest, Instant};
use raft::eraftpb::{ConfState, Entry as RaftEntry, HardState as RaftHardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::digest_map::{DigestMap, digest_map};
use crate::entry::{ENTRY_LEN, Entry, EntryKind};
use crate::id::{LogIndex, MemberId, Term};
use crate::in_force::InForce;
use crate::membership::Membership;
use crate::storage::HardState;

/// How much of the log is kept after it has been applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Most entries (R).
    pub entries_max: usize,
    /// Most bytes of entries and bodies (M).
    pub bytes_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { entries_max: 65_536, bytes_max: 256 << 20 }
    }
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// The term in which it was proposed.
    pub term: Term,
    /// The entry.
    pub entry: Entry,
    /// The entry's bytes, as they travel.
    pub raw: Bytes,
    /// The request's body; empty if it has none.
    pub body: Bytes,
    /// When the request arrived here; its age, should it return to the unordered set.
    pub at: Instant,
}

/// The log. See the module.
#[derive(Debug)]
pub struct Log {
    records: VecDeque<LogRecord>,
    /// Index and term of the last entry that is no longer kept.
    compacted: (LogIndex, Term),
    bytes: usize,
    /// Latest entry of each request that is kept.
    by_identity: DigestMap<LogIndex>,
    memberships: InForce<Membership>,
    /// Of the service.
    versions: InForce<u32>,
    /// Term, vote and commit index for the crate to begin with.
    initial: (HardState, LogIndex),
}

impl Log {
    /// An empty log of a group that begins with these members.
    pub fn new(base: Membership) -> Self {
        Self::after((0, 0), base)
    }

    /// A log that begins after an entry of this index and term, after which these are the members.
    pub fn after(compacted: (LogIndex, Term), base: Membership) -> Self {
        Self {
            records: VecDeque::new(),
            compacted,
            bytes: 0,
            by_identity: digest_map(),
            memberships: InForce::new(base),
            versions: InForce::new(0),
            initial: (HardState::default(), compacted.0),
        }
    }

    /// What the crate is to begin with, when it is made anew: term and vote, and up to where all is known committed.
    pub fn resume_from(&mut self, hard_state: HardState, commit: LogIndex) {
        self.initial = (hard_state, commit.max(self.compacted.0));
    }

    /// The same, with this version of the service in force where it begins.
    pub fn with_version(self, base_version: u32) -> Self {
        Self { versions: InForce::new(base_version), ..self }
    }

    /// The version of the service that is in force, by the latest entry that says so; 0 before the first.
    pub fn version(&self) -> u32 {
        *self.versions.latest()
    }

    /// The version in force at `index`; of what is no longer kept, the last.
    pub fn version_at(&self, index: LogIndex) -> u32 {
        *self.versions.at(index)
    }

    /// The entry since which that version is in force; that before the first kept, if none of them says so.
    pub fn version_since(&self) -> LogIndex {
        self.versions.since().unwrap_or(self.compacted.0)
    }

    /// Who belongs to the group, by the latest entry that says so, committed or not.
    pub fn membership(&self) -> &Membership {
        self.memberships.latest()
    }

    /// Who belonged to the group at `index`; of what is no longer kept, the last.
    pub fn membership_at(&self, index: LogIndex) -> &Membership {
        self.memberships.at(index)
    }

    /// The membership at `index` and all later ones, with the entry that said so first, of what is kept.
    pub fn memberships_from(&self, index: LogIndex) -> impl Iterator<Item = (LogIndex, &Membership)> {
        self.memberships.from(index, self.compacted.0)
    }

    /// The entry since which those belong to the group who do now; that before the first kept, if none of them says so.
    pub fn membership_since(&self) -> LogIndex {
        self.memberships.since().unwrap_or(self.compacted.0)
    }

    /// Index of the first entry that is kept, or would be.
    pub fn first(&self) -> LogIndex {
        self.compacted.0 + 1
    }

    /// Index of the last entry, 0 before the first ever.
    pub fn last(&self) -> LogIndex {
        self.compacted.0 + self.records.len() as u64
    }

    /// The entry at `index`, if it is kept.
    pub fn get(&self, index: LogIndex) -> Option<&LogRecord> {
        let at = index.checked_sub(self.first())?;
        self.records.get(usize::try_from(at).ok()?)
    }

    /// The term at `index`: also of the last entry that is no longer kept, of no other outside of the log.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.compacted.0 { Some(self.compacted.1) } else { self.get(index).map(|record| record.term) }
    }

    /// Where the latest entry for this request is, if it is kept.
    pub fn find(&self, identity: &Digest) -> Option<LogIndex> {
        self.by_identity.get(identity).copied()
    }

    /// Entries kept.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no entry is kept.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of entries and bodies kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the entry of index `last() + 1`.
    pub fn append(&mut self, record: LogRecord) {
        let index = self.last() + 1;
        if record.entry.is_request() {
            self.by_identity.insert(record.entry.request.identity, index);
        }
        if record.entry.kind == EntryKind::Membership {
            let membership = Membership::parse(&record.body).expect("whoever takes an entry has read its membership");
            self.memberships.change(index, membership);
        }
        if record.entry.kind == EntryKind::Version {
            self.versions.change(index, crate::node::parse_version(&record.body).unwrap_or(0));
        }
        self.bytes += ENTRY_LEN + record.body.len();
        self.records.push_back(record);
    }

    /// Removes the entries from `from` on, because another leader's take their place; newest first.
    pub fn truncate(&mut self, from: LogIndex) -> Vec<LogRecord> {
        assert!(from >= self.first(), "an applied entry is never replaced");
        let mut removed = Vec::new();
        while self.last() >= from {
            let index = self.last();
            let Some(record) = self.records.pop_back() else { break };
            if !mutated!(ReplacedMembershipStays) {
                self.memberships.take_back(index);
            }
            self.versions.take_back(index);
            self.forget(index, &record);
            removed.push(record);
        }
        removed
    }

    /// Forgets the oldest entries that retention does not cover, none beyond `applied`; returns how many.
    pub fn compact(&mut self, applied: LogIndex, retention: &Retention) -> usize {
        let mut forgotten = 0;
        while self.first() <= applied
            && (self.records.len() > retention.entries_max || self.bytes > retention.bytes_max)
        {
            let index = self.first();
            let Some(record) = self.records.pop_front() else { break };
            self.compacted = (index, record.term);
            self.memberships.forget(index);
            self.versions.forget(index);
            self.forget(index, &record);
            forgotten += 1;
        }
        forgotten
    }

    fn forget(&mut self, index: LogIndex, record: &LogRecord) {
        self.bytes -= ENTRY_LEN + record.body.len();
        let identity = record.entry.request.identity;
        if self.by_identity.get(&identity) == Some(&index) {
            self.by_identity.remove(&identity);
        }
    }
}

impl LogRecord {
    /// The entry as the `raft` crate sees it. A term's first entry has no data there: the crate makes it itself.
    pub fn to_raft(&self, index: LogIndex) -> RaftEntry {
        let data = raft_data(&self.entry, &self.raw, &self.body);
        RaftEntry { term: self.term, index, data, ..RaftEntry::default() }
    }
}

/// What the crate keeps of an entry: nothing of a term's first, which it makes itself; a membership with its body.
pub(crate) fn raft_data(entry: &Entry, raw: &Bytes, body: &Bytes) -> Bytes {
    match entry.kind {
        EntryKind::TermStart => Bytes::new(),
        EntryKind::Request | EntryKind::SessionOpen => raw.clone(),
        EntryKind::Membership | EntryKind::Version => [&**raw, &**body].concat().into(),
    }
}

/// Who votes, as the crate wants to know it.
fn conf_state(membership: &Membership) -> ConfState {
    let raft = |members: &mut dyn Iterator<Item = MemberId>| members.map(MemberId::raft).collect::<Vec<u64>>();
    let mut state = ConfState::from((raft(&mut membership.incoming()), raft(&mut membership.learners())));
    if mutated!(LearnerCounted) {
        let learners = std::mem::take(&mut state.learners);
        state.voters.extend(learners);
    }
    if membership.is_joint() && !mutated!(JointHalfIgnored) {
        state.voters_outgoing = raft(&mut membership.outgoing());
    }
    state
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let (HardState { term, vote }, commit) = self.initial;
        let vote = vote.map_or(raft::INVALID_ID, MemberId::raft);
        let hard_state = RaftHardState { term, vote, commit, ..RaftHardState::default() };
        Ok(RaftState { hard_state, conf_state: conf_state(self.membership()) })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "the crate asks only for entries below last + 1");
        // At least one, as the trait demands.
        let fit = max_size.into().map_or(u64::MAX, |bytes| (bytes / ENTRY_LEN as u64).max(1));
        let high = high.min(low.saturating_add(fit));
        Ok((low..high).filter_map(|index| Some(self.get(index)?.to_raft(index))).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.first() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // The crate keeps probing; the node shows the peer as needing a snapshot and assigns it nothing.
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::RequestHead;

    #[test]
    fn finds_the_latest_entry_of_a_request() {
        let mut log = log_of(&[10, 11, 10]);
        assert_eq!((log.first(), log.last()), (1, 3));
        assert_eq!(log.find(&Digest(10)), Some(3));
        assert_eq!(log.find(&Digest(11)), Some(2));
        assert_eq!(log.find(&Digest(12)), None);
        let removed = log.truncate(2);
        assert_eq!(removed.iter().map(|r| r.entry.request.identity.0).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(log.last(), 1);
        assert_eq!(log.find(&Digest(11)), None);
    }

    #[test]
    fn retention_counts_entries_at_the_limit_and_one_past_it() {
        let keep = Retention { entries_max: 3, bytes_max: usize::MAX };
        let mut log = log_of(&[1, 2, 3]);
        assert_eq!(log.compact(3, &keep), 0);
        let mut log = log_of(&[1, 2, 3, 4]);
        assert_eq!(log.compact(0, &keep), 0, "not applied yet");
        assert_eq!(log.compact(4, &keep), 1);
        assert_eq!((log.first(), log.last()), (2, 4));
        assert_eq!(log.term_at(1), Some(7), "the term before the first is kept");
        assert_eq!(log.term_at(0), None);
        assert_eq!(log.find(&Digest(1)), None);
    }

    #[test]
    fn retention_counts_bytes() {
        let one = ENTRY_LEN + 4;
        let mut log = log_of(&[1, 2, 3]);
        assert_eq!(log.bytes(), 3 * one);
        assert_eq!(log.compact(3, &Retention { entries_max: 9, bytes_max: 3 * one }), 0);
        assert_eq!(log.compact(3, &Retention { entries_max: 9, bytes_max: 3 * one - 1 }), 1);
        assert_eq!(log.bytes(), 2 * one);
    }

    #[test]
    fn answers_the_crate_about_what_is_gone() {
        let mut log = log_of(&[1, 2, 3]);
        log.compact(3, &Retention { entries_max: 1, bytes_max: usize::MAX });
        let context = || GetEntriesContext::empty(false);
        assert!(matches!(log.entries(2, 4, None, context()), Err(raft::Error::Store(StorageError::Compacted))));
        assert_eq!(log.entries(3, 4, 0, context()).unwrap().len(), 1);
        assert!(matches!(log.term(1), Err(raft::Error::Store(StorageError::Compacted))));
        assert!(matches!(log.term(4), Err(raft::Error::Store(StorageError::Unavailable))));
    }

    fn log_of(identities: &[u128]) -> Log {
        let mut log = Log::new(Membership::default());
        for identity in identities {
            let request = RequestHead { identity: Digest(*identity), body_len: 4, ..RequestHead::NONE };
            let entry = Entry { kind: EntryKind::Request, request, ..Entry::term_start() };
            log.append(LogRecord {
                term: 7,
                entry,
                raw: Bytes::new(),
                body: Bytes::from_static(b"body"),
                at: Instant::ZERO,
            });
        }
        log
    }
}
