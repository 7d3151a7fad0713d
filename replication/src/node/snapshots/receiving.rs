//! Receiving a snapshot: one source at a time, followers before the leader, a window of chunks at a time.
//!
//! What the window counts has been asked for and is not in the archive yet, so neither the network nor the disk is given
//! more than it can take. Chunks that do not come are asked for again after an adaptive time; a source that stays silent
//! or says no is replaced. The same snapshot goes on wherever it left off; only if nobody has it any more does another one
//! begin. Nothing here knows whether the snapshot is right: that is checked when it is sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use r2p2::{Instant, RttEstimator};

use super::super::{Node, Output};
use super::meta;
use crate::consensus::Role;
use crate::id::{LogIndex, MemberId, Term};
use crate::message::{
    Behind, CHUNKS_MAX, Installed, Message, Receiving, SnapshotChunk, SnapshotFetch, SnapshotMissing,
};
use crate::snapshot::{ArchiveWork, Received, Sealed, SnapshotInfo, chunk_checksum};

/// After so many vain attempts in a row another source is asked.
const ATTEMPTS_MAX: u32 = 4;
/// A source that says it is taking a snapshot is asked so often.
const PATIENCE: u32 = 256;
/// Shortest and longest time that a chunk is waited for.
const WAIT_MIN: Duration = Duration::from_millis(4);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest time between two questions to one that is taking a snapshot.
const SOON_MAX: Duration = Duration::from_millis(250);
/// How long to rest when all sources have been asked in vain.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How many chunks are asked for of a source that has not answered.
const PROBE: usize = 2;

/// A snapshot on its way here.
#[derive(Debug)]
pub(in super::super) struct Receiver {
    /// The least index that helps.
    min: LogIndex,
    /// Whom to ask, in this order, and who is being asked.
    sources: Vec<MemberId>,
    at: usize,
    /// How many in a row have been asked in vain, and whether one of them said that it has no such snapshot.
    vain: usize,
    not_here: bool,
    /// How often in a row the source has not answered, and how often it has said that it is taking one.
    attempts: u32,
    soons: u32,
    rtt: RttEstimator,
    wait: Duration,
    /// The next attempt, if nothing comes before.
    ask_at: Instant,
    /// Nothing is to be asked for before that.
    rests: bool,
    /// Once a source has said what it has.
    chunks: Option<Chunks>,
}

/// Where a transfer stands.
#[derive(Debug)]
struct Chunks {
    info: SnapshotInfo,
    /// The first chunk that has never been asked for.
    next: u64,
    /// Asked for: when, and whether for the first time.
    asked: BTreeMap<u64, (Instant, bool)>,
    /// To be asked for again.
    again: BTreeSet<u64>,
    /// With the archive.
    writing: BTreeSet<u64>,
    sealing: bool,
}

impl Receiver {
    fn new(now: Instant, min: LogIndex, sources: Vec<MemberId>) -> Self {
        let rtt = patience();
        Self {
            min,
            sources,
            at: 0,
            vain: 0,
            not_here: false,
            attempts: 0,
            soons: 0,
            wait: rtt.timeout(),
            rtt,
            ask_at: now,
            rests: true,
            chunks: None,
        }
    }

    /// When something is to be done if nothing comes.
    pub(in super::super) fn next_due(&self) -> Option<Instant> {
        // What is with the archive comes back by itself.
        let waits = self.rests || self.chunks.as_ref().is_none_or(|chunks| !chunks.asked.is_empty());
        waits.then_some(self.ask_at)
    }

    /// How many chunks have been asked for and are not kept yet.
    pub(in super::super) fn in_flight(&self) -> usize {
        self.chunks.as_ref().map_or(0, |chunks| chunks.asked.len() + chunks.writing.len())
    }

    /// These can be asked now: others may belong to the group than when the transfer began. Who is being asked goes on.
    fn ask_among(&mut self, sources: Vec<MemberId>) {
        let source = self.source();
        self.at = sources.iter().position(|other| Some(*other) == source).unwrap_or(0);
        self.sources = sources;
    }

    fn source(&self) -> Option<MemberId> {
        self.sources.get(self.at).copied()
    }

    /// The source has given something.
    fn answered(&mut self, now: Instant) {
        (self.vain, self.not_here, self.attempts, self.soons) = (0, false, 0, 0);
        self.wait = self.rtt.timeout();
        self.ask_at = now + self.wait;
    }

    /// Rests until then.
    fn rest(&mut self, until: Instant) {
        (self.rests, self.ask_at) = (true, until);
    }

    /// An attempt has been in vain.
    fn failed(&mut self) {
        self.attempts += 1;
        if self.attempts > 1 {
            self.rtt.timed_out(self.wait);
            self.wait = self.rtt.doubled(self.wait);
        }
    }

    /// Asks somebody else from now on. Returns whether all have been asked in vain, and one has said why.
    fn next_source(&mut self, now: Instant, says_no: bool) -> bool {
        self.at = (self.at + 1) % self.sources.len().max(1);
        (self.vain, self.attempts, self.soons) = (self.vain + 1, 0, 0);
        self.not_here |= says_no;
        if let Some(chunks) = &mut self.chunks {
            chunks.forget_asked();
        }
        self.rtt = patience();
        self.wait = self.rtt.timeout();
        if self.vain < self.sources.len() {
            self.rest(now);
            return false;
        }
        self.vain = 0;
        self.rest(now + ROUND_PAUSE);
        std::mem::take(&mut self.not_here)
    }
}

/// With a source that nothing is known of.
fn patience() -> RttEstimator {
    RttEstimator::new(WAIT_MIN * 8, WAIT_MIN, WAIT_MAX)
}

impl Chunks {
    /// What has been asked for has not come. Returns how much that is.
    fn forget_asked(&mut self) -> u64 {
        let asked = std::mem::take(&mut self.asked);
        let count = asked.len() as u64;
        self.again.extend(asked.into_keys());
        count
    }

    /// The next chunks to ask for, at most `count`.
    fn take(&mut self, count: usize) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.again.iter().copied().take(count).collect();
        for number in &numbers {
            self.again.remove(number);
        }
        while numbers.len() < count && self.next < self.info.chunks() {
            numbers.push(self.next);
            self.next += 1;
        }
        numbers
    }

    fn is_complete(&self) -> bool {
        self.next >= self.info.chunks() && self.asked.is_empty() && self.again.is_empty() && self.writing.is_empty()
    }
}

impl Node {
    /// The leader says that its log does not go back as far as this node needs it.
    pub(in super::super) fn handle_behind(&mut self, now: Instant, from: MemberId, term: Term, behind: Behind) {
        if term != self.consensus.term() || self.consensus.leader() != Some(from) || !self.has_snapshots() {
            self.counters.peer_messages_unexpected += 1;
            return;
        }
        if mutated!(BehindIgnored) {
            return;
        }
        let min = behind.min;
        if self.consensus.commit() >= min {
            self.report_installed();
            return;
        }
        // One after the other: the applier would be led from snapshot to snapshot, and never get on. The leader says it again.
        if self.snapshots.installing.is_some() {
            return;
        }
        let is_useless = |receiver: &Receiver| receiver.chunks.as_ref().is_some_and(|chunks| chunks.info.index < min);
        if self.snapshots.receiver.as_ref().is_some_and(is_useless) {
            self.counters.transfers_abandoned += 1;
            self.abandon_transfer();
        }
        let sources = self.sources(from);
        match &mut self.snapshots.receiver {
            Some(receiver) => {
                receiver.min = receiver.min.max(min);
                receiver.ask_among(sources);
            }
            None => self.snapshots.receiver = Some(Receiver::new(now, min, sources)),
        }
        self.report_receiving();
        self.receive_on(now);
    }

    /// Tells the leader that everything up to the commit index is here, and which entry that is.
    pub(in super::super) fn report_installed(&mut self) {
        let index = self.consensus.commit();
        let (Some(leader), Some(term)) = (self.consensus.leader(), self.consensus.log().term_at(index)) else { return };
        if leader != self.config.me
            && index > 0
            && self.persistence.is_term_safe()
            && index <= self.consensus.persisted()
        {
            let installed = Message::Installed(Installed { index, term });
            self.send(leader.node(), self.consensus.term(), &installed);
        }
    }

    fn report_receiving(&mut self) {
        let chunks = self.snapshots.receiver.as_ref().and_then(|receiver| receiver.chunks.as_ref());
        let Some(index) = chunks.map(|chunks| chunks.info.index) else { return };
        if let Some(leader) = self.consensus.leader().filter(|leader| *leader != self.config.me) {
            self.send(leader.node(), self.consensus.term(), &Message::Receiving(Receiving { index }));
        }
    }

    /// Everybody else, the leader last: it has enough to do. Not all nodes begin with the same one.
    fn sources(&self, leader: MemberId) -> Vec<MemberId> {
        let mut sources: Vec<MemberId> = self.holders.iter().copied().filter(|peer| *peer != leader).collect();
        if !sources.is_empty() {
            let first = (self.config.seed ^ self.consensus.term()) % sources.len() as u64;
            sources.rotate_left(first as usize);
        }
        sources.push(leader);
        sources
    }

    fn abandon_transfer(&mut self) {
        if self.snapshots.receiver.take().is_some_and(|receiver| receiver.chunks.is_some()) {
            self.outputs.push_back(Output::Archive(ArchiveWork::Abandon));
        }
    }

    /// Asks for what is missing, as far as the window allows, and has the archive look at what is complete.
    pub(in super::super) fn receive_on(&mut self, now: Instant) {
        if self.is_transfer_needless() {
            self.abandon_transfer();
        }
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        if receiver.next_due().is_some_and(|at| now >= at) {
            self.attempt(now);
        }
        self.fill_window(now);
    }

    /// Whether this node knows as much as the snapshot would tell it.
    fn is_transfer_needless(&self) -> bool {
        let Some(receiver) = &self.snapshots.receiver else { return false };
        let commit = self.consensus.commit();
        let index = receiver.chunks.as_ref().map_or(receiver.min, |chunks| chunks.info.index);
        let is_sealing = receiver.chunks.as_ref().is_some_and(|chunks| chunks.sealing);
        let needless = self.consensus.role() == Role::Leader || index <= commit;
        needless && !is_sealing
    }

    /// The time for the next attempt has come.
    fn attempt(&mut self, now: Instant) {
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        if !std::mem::take(&mut receiver.rests) {
            receiver.failed();
            if let Some(chunks) = &mut receiver.chunks {
                self.counters.chunks_lost += chunks.forget_asked();
            }
            if receiver.attempts > ATTEMPTS_MAX {
                self.try_elsewhere(now, false);
            }
        }
        let window = self.config.limits.snapshots.chunks_in_flight_max;
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        if receiver.rests && now < receiver.ask_at || receiver.chunks.is_some() {
            return;
        }
        receiver.rests = false;
        receiver.ask_at = now + receiver.wait;
        let Some(source) = receiver.source() else { return };
        let fetch = SnapshotFetch { id: 0, min: receiver.min, first: 0, count: (window as u32).min(CHUNKS_MAX) };
        self.send(source.node(), self.consensus.term(), &Message::SnapshotFetch(fetch));
    }

    fn fill_window(&mut self, now: Instant) {
        let window = self.config.limits.snapshots.chunks_in_flight_max;
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        if receiver.rests && now >= receiver.ask_at {
            receiver.rests = false;
        }
        let Some(source) = receiver.source().filter(|_| !receiver.rests) else { return };
        let Some(chunks) = receiver.chunks.as_mut().filter(|chunks| !chunks.sealing) else { return };
        if chunks.is_complete() {
            chunks.sealing = true;
            self.outputs.push_back(Output::Archive(ArchiveWork::Seal));
            return;
        }
        let window = if receiver.attempts > 0 { window.min(PROBE) } else { window };
        let room = window.saturating_sub(chunks.asked.len() + chunks.writing.len());
        // Not one by one: every question is a datagram too.
        let is_low = room * 4 >= window || chunks.asked.is_empty();
        let numbers = if is_low { chunks.take(room) } else { Vec::new() };
        if numbers.is_empty() {
            return;
        }
        if chunks.asked.is_empty() {
            receiver.ask_at = now + receiver.wait;
        }
        for number in &numbers {
            chunks.asked.insert(*number, (now, receiver.attempts == 0));
        }
        let (id, min) = (chunks.info.id, receiver.min);
        for (first, count) in runs(&numbers) {
            self.counters.chunks_asked += u64::from(count);
            let fetch = SnapshotFetch { id, min, first, count };
            self.send(source.node(), self.consensus.term(), &Message::SnapshotFetch(fetch));
        }
    }

    /// Goes on with another source; from the beginning if nobody has this snapshot any more.
    fn try_elsewhere(&mut self, now: Instant, says_no: bool) {
        self.counters.sources_changed += 1;
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        if receiver.next_source(now, says_no) && receiver.chunks.take().is_some() {
            self.counters.transfers_abandoned += 1;
            self.outputs.push_back(Output::Archive(ArchiveWork::Abandon));
        }
    }

    pub(in super::super) fn take_chunk(&mut self, now: Instant, from: MemberId, said: SnapshotChunk) {
        let SnapshotChunk { info, chunk } = said;
        let commit = self.consensus.commit();
        let window = self.config.limits.snapshots.chunks_in_flight_max as u64;
        let number = chunk.number;
        let (me, counters) = (self.config.me, &mut self.counters);
        let Some(receiver) = &mut self.snapshots.receiver else {
            counters.chunks_unwanted += 1;
            return;
        };
        // Who wrote the metadata may be of another version. Better known now than when all of it is here.
        let is_readable = number != 0 || chunk.bytes.get(4..).is_some_and(meta::is_readable);
        let is_damaged = chunk_checksum(number, &chunk.bytes) != chunk.checksum;
        if is_damaged || chunk.bytes.len() != info.chunk_len(number) || number >= info.chunks() {
            counters.chunks_damaged += 1;
            return;
        }
        let is_new = receiver.chunks.is_none();
        if is_new {
            if info.index < receiver.min || info.index <= commit || receiver.source() != Some(from) || !is_readable {
                counters.chunks_unwanted += 1;
                return;
            }
            // The first of a window that was asked for without a name.
            let asked = (0..info.chunks().min(window)).map(|number| (number, (now, false))).collect();
            let next = info.chunks().min(window);
            receiver.chunks =
                Some(Chunks { info, next, asked, again: BTreeSet::new(), writing: BTreeSet::new(), sealing: false });
            self.outputs.push_back(Output::Archive(ArchiveWork::Begin(info)));
        }
        let Some(chunks) = &mut receiver.chunks else { return };
        if chunks.info == info && !is_readable {
            tracing::warn!(node = %me.node(), from = %from.node(), "the snapshot is of another version");
            receiver.chunks = None;
            self.outputs.push_back(Output::Archive(ArchiveWork::Abandon));
            self.try_elsewhere(now, true);
            return;
        }
        let waited = chunks.asked.get(&number).copied().filter(|_| chunks.info == info);
        if waited.is_some() {
            chunks.asked.remove(&number);
        } else if chunks.info != info || !chunks.again.remove(&number) {
            counters.chunks_unwanted += 1;
            return;
        }
        counters.chunks_received += 1;
        chunks.writing.insert(number);
        if let Some((at, true)) = waited {
            receiver.rtt.sample(now.since(at));
        }
        receiver.answered(now);
        self.outputs.push_back(Output::Archive(ArchiveWork::Receive(chunk)));
        if is_new {
            self.report_receiving();
        }
        self.receive_on(now);
    }

    /// Somebody does not have what was asked for.
    pub(in super::super) fn take_missing(&mut self, now: Instant, from: MemberId, missing: SnapshotMissing) {
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        let id = receiver.chunks.as_ref().map_or(0, |chunks| chunks.info.id);
        if receiver.source() != Some(from) || missing.id != id {
            self.counters.peer_messages_unexpected += 1;
            return;
        }
        if missing.soon && receiver.soons < PATIENCE {
            (receiver.soons, receiver.attempts) = (receiver.soons + 1, 0);
            receiver.wait = (receiver.wait * 2).min(SOON_MAX);
            receiver.rest(now + receiver.wait);
        } else {
            self.try_elsewhere(now, true);
        }
        self.receive_on(now);
    }

    /// The archive has looked at a chunk.
    pub(super) fn kept_chunk(&mut self, now: Instant, number: u64, received: Received) {
        let Some(chunks) = self.snapshots.receiver.as_mut().and_then(|receiver| receiver.chunks.as_mut()) else {
            return;
        };
        if chunks.writing.remove(&number) && matches!(received, Received::Refused(_)) {
            self.counters.chunks_damaged += 1;
            chunks.again.insert(number);
        }
        self.receive_on(now);
    }

    /// There was no room for it.
    pub(super) fn not_received(&mut self, now: Instant, info: SnapshotInfo) {
        tracing::warn!(node = %self.config.me.node(), index = info.index, len = info.len, "no room for a snapshot");
        self.counters.snapshots_without_room += 1;
        let retry_at = now + self.config.limits.snapshots.retry_after;
        if let Some(receiver) = &mut self.snapshots.receiver
            && receiver.chunks.take_if(|chunks| chunks.info == info).is_some()
        {
            receiver.rest(retry_at);
        }
    }

    /// What has been received is not what was announced, or not all of it.
    pub(super) fn not_sealed(&mut self, now: Instant, sealed: Sealed) {
        let Some(receiver) = &mut self.snapshots.receiver else { return };
        match (sealed, &mut receiver.chunks) {
            (Sealed::Missing(first), Some(chunks)) => {
                chunks.sealing = false;
                chunks.next = chunks.next.min(first);
            }
            _ => {
                self.counters.transfers_abandoned += 1;
                receiver.chunks = None;
                self.try_elsewhere(now, true);
            }
        }
        self.receive_on(now);
    }
}

/// Numbers, in order, as ranges of at most [`CHUNKS_MAX`].
fn runs(numbers: &[u64]) -> Vec<(u64, u32)> {
    let mut runs: Vec<(u64, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == *number && *count < CHUNKS_MAX => *count += 1,
            _ => runs.push((*number, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_asked_for_together() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[3, 4, 5, 9, 11, 12]), [(3, 3), (9, 1), (11, 2)]);
        let many: Vec<u64> = (0..=u64::from(CHUNKS_MAX)).collect();
        assert_eq!(runs(&many), [(0, CHUNKS_MAX), (u64::from(CHUNKS_MAX), 1)]);
    }
}
