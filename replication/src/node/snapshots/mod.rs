//! Snapshots as the core sees them: when one is taken, what has become of it, how a node begins from one (protocol.md
//! §7.4). What they look like and where they are kept: [`crate::snapshot`].
//!
//! A snapshot is taken at a place in the order of execution; nothing waits for it. When the archive has it, the journal
//! may forget what is in it. A durable node takes one when its journal has grown by so much; any node does if a peer needs
//! one newer than there is. If there is no room for it nothing is lost and the node goes on, tries again after a while, and
//! counts that: as long as the journal has room the group should not lose a member. When the journal has none either the
//! node stops ([`crate::storage`]).
//!
//! A snapshot that was received replaces what a node has: its log, its state, and what it remembers of plain requests. It is
//! safe in the archive before, so a crash at any moment leaves either what was there or the snapshot, and
//! [`Node::restart`](super::Node::restart) takes the newer.

mod helping;
mod meta;
mod receiving;
mod serving;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use r2p2::Instant;

pub(super) use meta::Meta;
pub(crate) use meta::refounded;
pub(super) use receiving::Receiver;

use super::{Node, Output};
use crate::applier::Work;
use crate::config::{Mode, SnapshotLimits};
use crate::consensus::Role;
use crate::entry::ENTRY_LEN;
use crate::id::{LogIndex, Term};
use crate::log::{Log, LogRecord};
use crate::membership::Membership;
use crate::plain::{PlainLimits, PlainMemory};
use crate::snapshot::{ArchiveEvent, ArchiveWork, Sealed, SnapshotInfo, SnapshotWanted};
use crate::storage::StorageError;

/// Most snapshots that a node keeps, the one that it is taking included: the newest, and older ones for as long as somebody
/// reads them.
pub(super) const KEPT_MAX: usize = 4;

/// How much more than usual the journal may grow while another node reads a snapshot, which a new one would take away.
const PATIENCE: usize = 4;

/// What a node knows about its snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Those in the archive, by index.
    kept: Vec<Kept>,
    /// One is being taken at this index.
    taking: Option<(LogIndex, Term)>,
    /// Somebody wants one of at least this index.
    wanted: Option<LogIndex>,
    /// Written to the journal since the last one.
    written: Written,
    /// What of that will count when the one that is being taken is there.
    written_since_taking: Written,
    /// After a failure: not before.
    retry_at: Option<Instant>,
    /// What the journal may forget, and has been told so.
    compacted: LogIndex,
    /// One that the applier has not put in place yet.
    pub(super) installing: Option<LogIndex>,
    pub(super) receiver: Option<Receiver>,
    /// Chunks being read for others.
    reads: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    info: SnapshotInfo,
    /// When it came, or was read last by another node.
    used: Instant,
    /// Whether another node has read it.
    is_read: bool,
}

/// A part of the journal.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    bytes: usize,
    entries: u64,
}

impl Written {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.entries += 1;
    }

    fn reaches(&self, limits: &SnapshotLimits, times: usize) -> bool {
        self.bytes >= limits.after_bytes.saturating_mul(times)
            || self.entries >= limits.after_entries.saturating_mul(times as u64)
    }
}

impl Snapshots {
    /// With this one in the archive, if any, and a journal that knows of everything up to `compacted`.
    pub(super) fn new(now: Instant, kept: Option<SnapshotInfo>, compacted: LogIndex) -> Self {
        Self {
            kept: kept.into_iter().map(|info| Kept { info, used: now, is_read: false }).collect(),
            taking: None,
            wanted: None,
            written: Written::default(),
            written_since_taking: Written::default(),
            retry_at: None,
            compacted,
            installing: None,
            receiver: None,
            reads: 0,
        }
    }

    /// A record has gone to the journal.
    pub(super) fn written(&mut self, record: &LogRecord) {
        let bytes = ENTRY_LEN + record.body.len();
        self.written.add(bytes);
        self.written_since_taking.add(bytes);
    }

    /// What the journal may forget now, if it has not been told. Only what it has: a batch must not bring what it forgets.
    pub(super) fn compaction(&mut self, persisted: LogIndex) -> Option<(LogIndex, Term)> {
        if mutated!(CompactedBeforeSafe)
            && let Some(taking) = self.taking
        {
            return Some(taking);
        }
        let info = self.kept.iter().rev().map(|kept| kept.info).find(|info| info.index <= persisted)?;
        let is_news = info.index > self.compacted;
        self.compacted = self.compacted.max(info.index);
        is_news.then_some((info.index, info.term))
    }

    /// How many there are, and how many chunks of them are being read for others.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.kept.len(), self.reads)
    }

    /// Index of the newest; 0 if there is none.
    fn newest(&self) -> LogIndex {
        self.kept.last().map_or(0, |kept| kept.info.index)
    }

    fn keep(&mut self, now: Instant, info: SnapshotInfo) {
        if self.kept.iter().all(|kept| kept.info != info) {
            self.kept.push(Kept { info, used: now, is_read: false });
            self.kept.sort_by_key(|kept| kept.info.index);
        }
    }

    /// Whether another node reads an older one than the newest, or the newest.
    fn is_read(&self, now: Instant, limits: &SnapshotLimits) -> bool {
        self.kept.iter().any(|kept| kept.is_read && now.since(kept.used) < limits.keep_after_use)
    }

    /// What is not needed any more is to be removed: everything of a lower index than this.
    fn removable(&self, now: Instant, limits: &SnapshotLimits, durable: bool) -> Option<LogIndex> {
        let newest = self.newest();
        let in_use = |kept: &&Kept| now.since(kept.used) < limits.keep_after_use && (kept.is_read || !durable);
        let oldest_used = self.kept.iter().find(in_use).map(|kept| kept.info.index);
        let needed = durable || self.taking.is_some() || self.installing.is_some();
        let before = match oldest_used {
            Some(index) => index,
            None if needed => newest,
            None => newest + 1,
        };
        // There is always room for one more: somebody may need one that is newer than all of these.
        let crowded =
            (self.kept.len() + 1).checked_sub(KEPT_MAX).and_then(|over| Some(self.kept.get(over)?.info.index));
        let before = crowded.map_or(before, |index| before.max(index.min(newest)));
        self.kept.first().is_some_and(|kept| kept.info.index < before).then_some(before)
    }
}

impl Node {
    /// Takes a snapshot, as soon as that is possible. Returns whether there is anything new to be in it.
    pub fn take_snapshot(&mut self) -> bool {
        let is_new = self.has_snapshots() && self.dispatched > self.snapshots.newest();
        if is_new {
            self.snapshots.wanted = self.snapshots.wanted.max(Some(self.dispatched));
            self.snapshots.retry_at = None;
            self.dirty = true;
        }
        is_new
    }

    /// The snapshots in the archive, by index.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotInfo> {
        self.snapshots.kept.iter().map(|kept| kept.info)
    }

    /// The archive has something to say.
    pub fn handle_archive(&mut self, now: Instant, event: ArchiveEvent) {
        if self.stopped {
            return;
        }
        self.dirty = true;
        match event {
            ArchiveEvent::Taken(info) => {
                self.counters.snapshots_taken += 1;
                self.snapshots.taking = None;
                self.snapshots.written = self.snapshots.written_since_taking;
                self.snapshots.keep(now, info);
                self.remove_snapshots(now);
            }
            ArchiveEvent::NotTaken(index) => {
                tracing::warn!(node = %self.config.me.node(), index, "no room for a snapshot; the log grows meanwhile");
                self.counters.snapshots_without_room += 1;
                self.snapshots.taking = None;
                self.snapshots.retry_at = Some(now + self.config.limits.snapshots.retry_after);
            }
            ArchiveEvent::Read { to, info, chunk } => self.give_chunk(to, info, chunk),
            ArchiveEvent::NotHere { to, id, .. } => self.gone(to, id),
            ArchiveEvent::Received { number, received } => self.kept_chunk(now, number, received),
            ArchiveEvent::NotReceived(info) => self.not_received(now, info),
            ArchiveEvent::Sealed { sealed: Sealed::Whole(info), meta } => self.received_snapshot(now, info, meta),
            ArchiveEvent::Sealed { sealed, .. } => self.not_sealed(now, sealed),
            ArchiveEvent::Installed(info) => {
                self.installed(info.index);
                self.handle_applied(now, info.index);
            }
        }
    }

    /// Whether this node has anything to do with snapshots.
    pub(super) fn has_snapshots(&self) -> bool {
        self.config.archive && self.config.mode != Mode::Unreplicated
    }

    /// The applier is past this snapshot.
    pub(super) fn installed(&mut self, index: LogIndex) {
        if self.snapshots.installing.is_some_and(|installing| installing <= index) {
            self.snapshots.installing = None;
        }
    }

    /// Takes a snapshot of what has been handed out for execution, if one is due.
    pub(super) fn take_snapshot_if_due(&mut self, now: Instant) {
        let limits = &self.config.limits.snapshots;
        let snapshots = &mut self.snapshots;
        let newest = snapshots.newest();
        snapshots.wanted = snapshots.wanted.filter(|wanted| *wanted > newest);
        let is_wanted = snapshots.wanted.is_some_and(|wanted| wanted <= self.dispatched);
        let times = if snapshots.is_read(now, limits) { PATIENCE } else { 1 };
        let is_due = self.config.durable && snapshots.written.reaches(limits, times);
        let may = snapshots.taking.is_none()
            && snapshots.retry_at.is_none_or(|at| now >= at)
            && snapshots.kept.len() < KEPT_MAX
            && self.dispatched > newest;
        if !self.has_snapshots() || !may || !(is_wanted || is_due) {
            return;
        }
        let index = self.dispatched;
        let Some(term) = self.consensus.log().term_at(index) else { return };
        let meta = self.meta(now, index, term).emit();
        let snapshots = &mut self.snapshots;
        snapshots.taking = Some((index, term));
        snapshots.retry_at = None;
        snapshots.written_since_taking = Written::default();
        let log = self.consensus.log();
        for at in index + 1..=self.consensus.persisted() {
            if let Some(record) = log.get(at) {
                snapshots.written_since_taking.add(ENTRY_LEN + record.body.len());
            }
        }
        self.outputs.push_back(Output::Apply(Work::Snapshot(SnapshotWanted { index, term, meta })));
    }

    fn meta(&self, now: Instant, index: LogIndex, term: Term) -> Meta {
        let log = self.consensus.log();
        // What comes behind it may still be replaced, and has then not been ordered.
        let later: std::collections::BTreeSet<_> = (index + 1..=log.last())
            .filter_map(|at| log.get(at))
            .filter(|record| record.entry.is_request() && record.entry.request.session.is_none())
            .map(|record| record.entry.request.identity)
            .collect();
        let plain = self.plain.newest(now, meta::PLAIN_MAX).filter(|(_, identity, _)| !later.contains(identity));
        let plain = plain.collect();
        Meta {
            index,
            term,
            known_in: self.consensus.term(),
            log_time: self.log_time,
            membership: log.membership_at(index).clone(),
            version: if mutated!(SnapshotWithoutVersion) { 0 } else { log.version_at(index) },
            plain,
        }
    }

    /// Everything that a snapshot needs from time to time.
    pub(super) fn tend_snapshots(&mut self, now: Instant) {
        self.remove_snapshots(now);
        if self.snapshots.retry_at.is_some_and(|at| now >= at) {
            self.snapshots.retry_at = None;
        }
    }

    fn remove_snapshots(&mut self, now: Instant) {
        let before = self.snapshots.removable(now, &self.config.limits.snapshots, self.config.durable);
        if let Some(before) = before {
            self.snapshots.kept.retain(|kept| kept.info.index >= before);
            self.outputs.push_back(Output::Archive(ArchiveWork::RemoveBefore(before)));
        }
    }

    /// A snapshot is in the archive, whole and checked.
    fn received_snapshot(&mut self, now: Instant, info: SnapshotInfo, meta: Option<Bytes>) {
        self.snapshots.receiver = None;
        self.snapshots.keep(now, info);
        self.counters.snapshots_received += 1;
        match parse(&info, meta.as_deref()) {
            Ok(meta) => self.begin_from(now, info, meta),
            Err(error) => self.stop(error.into()),
        }
        self.remove_snapshots(now);
    }

    /// Goes on from a snapshot that is newer than what is known to be committed here.
    fn begin_from(&mut self, now: Instant, info: SnapshotInfo, meta: Meta) {
        let SnapshotInfo { index, term, .. } = info;
        if self.consensus.role() == Role::Leader || index <= self.consensus.commit() {
            self.counters.snapshots_not_needed += 1;
            return;
        }
        if self.consensus.log().term_at(index) == Some(term) {
            // All of it is here, and more: what lies behind it may have been acknowledged, and must not be lost.
            self.counters.snapshots_not_needed += 1;
            self.consensus.commit_known(index, meta.known_in);
            self.advance(now);
            return;
        }
        if !self.can_execute(meta.version) {
            return;
        }
        tracing::info!(node = %self.config.me.node(), index, term, len = info.len, "goes on from a snapshot");
        self.counters.snapshots_installed += 1;
        let commit = self.consensus.commit();
        let replaced = self.consensus.log_mut().truncate(commit + 1);
        self.consensus.restore(log_after(&info, &meta, &self.config.membership), meta.known_in);
        self.persistence.begins_after();
        self.dispatched = index;
        let restored = self.restored;
        self.restored = self.restored.min(index);
        self.log_time = self.log_time.max(meta.log_time);
        self.held.clear();
        self.fetcher.clear();
        for (_, identity, _) in &meta.plain {
            self.unordered.take(identity);
        }
        self.plain = remembered(now, self.config.limits.plain, &meta.plain);
        let last = commit + replaced.len() as u64;
        for (record, at) in replaced.into_iter().zip((0..=last).rev()) {
            let request = record.entry.request;
            self.counters.entries_replaced += 1;
            // What was here before this process began was mostly executed long ago, and may be older than anybody remembers.
            let mut knows = || request.session.is_none() && self.plain.knows(now, request.client, &request.identity);
            let is_done = at <= restored || knows();
            if record.entry.is_request() && !is_done {
                self.unordered.put_back(record.at, request, record.body);
            }
        }
        self.snapshots.written = Written::default();
        self.snapshots.written_since_taking = Written::default();
        self.install(info);
        self.members_due = true;
        self.advance(now);
        self.report_installed();
    }

    /// After a restart: goes on from this snapshot, if there is one.
    pub(super) fn resume_snapshots(&mut self, snapshot: Option<SnapshotInfo>) {
        if let Some(info) = snapshot {
            if !self.can_execute(self.consensus.log().version_at(info.index)) {
                return;
            }
            self.outputs.push_back(Output::Archive(ArchiveWork::RemoveBefore(info.index)));
            self.install(info);
            self.dirty = true;
        }
        let log = self.consensus.log();
        for record in (log.first()..=log.last()).filter_map(|index| log.get(index)) {
            self.snapshots.written(record);
        }
    }

    /// Has the applier go on from a snapshot.
    pub(super) fn install(&mut self, info: SnapshotInfo) {
        self.snapshots.installing = Some(info.index);
        self.outputs.push_back(Output::Apply(Work::Install(info)));
        let epoch = self.consensus.log().membership_at(info.index).epoch;
        self.outputs.push_back(Output::Apply(Work::Epoch(epoch)));
    }
}

/// The metadata of a snapshot.
///
/// # Errors
/// [`StorageError::Version`] if another version wrote it, [`StorageError::Damaged`] if it belongs to another snapshot.
pub(super) fn parse(info: &SnapshotInfo, meta: Option<&[u8]>) -> Result<Meta, StorageError> {
    if let Some(found) = meta.and_then(meta::version_of).filter(|found| *found != meta::VERSION) {
        return Err(StorageError::Version { found, known: meta::VERSION });
    }
    meta.and_then(Meta::parse).filter(|meta| (meta.index, meta.term) == (info.index, info.term)).ok_or_else(|| {
        StorageError::Damaged(format!("the metadata of the snapshot of entry {} cannot be read", info.index))
    })
}

/// Plain requests as they were remembered when a snapshot was taken: a little longer than necessary.
pub(super) fn remembered(
    now: Instant,
    limits: PlainLimits,
    plain: &[(std::net::SocketAddrV4, r2p2::Digest, std::time::Duration)],
) -> PlainMemory {
    let mut memory = PlainMemory::new(limits);
    let mut last = Instant::ZERO;
    for (client, identity, age) in plain {
        // The oldest first, whatever the ages say.
        last = last.max(now - *age);
        memory.remember(last, *client, *identity);
    }
    memory
}

/// The log of a node that begins from this snapshot; empty.
///
/// Of the membership that the node was started with, the addresses are those of now.
pub(super) fn log_after(info: &SnapshotInfo, meta: &Meta, now: &Membership) -> Log {
    let membership = if meta.membership.epoch == now.epoch { now } else { &meta.membership };
    Log::after((info.index, info.term), membership.clone()).with_version(meta.version)
}
