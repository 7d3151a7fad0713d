//! Giving chunks of snapshots to others. The archive reads them, so that nothing here waits for a disk, and only so many
//! at a time: replication goes first.

use bytes::Bytes;
use r2p2::Instant;

use super::super::{AdminRequest, Node, Output};
use crate::admin::{AdminReply, ChunkReport, RefusalReason};
use crate::id::MemberId;
use crate::message::{Message, SnapshotChunk, SnapshotFetch, SnapshotMissing};
use crate::snapshot::{ArchiveWork, Chunk, Reader, SnapshotInfo};

impl Node {
    pub(in super::super) fn give_chunks(&mut self, now: Instant, from: MemberId, fetch: &SnapshotFetch) {
        let SnapshotFetch { id, min, first, count } = *fetch;
        let suits = |info: &SnapshotInfo| if id == 0 { info.index >= min } else { info.id == id };
        let reads_max = self.config.limits.snapshots.reads_in_flight_max;
        let snapshots = &mut self.snapshots;
        let Some(kept) = snapshots.kept.iter_mut().rev().find(|kept| suits(&kept.info)) else {
            let soon = id == 0 && self.will_have(min);
            if soon {
                self.snapshots.wanted = self.snapshots.wanted.max(Some(min));
            }
            self.send(from.node(), self.consensus.term(), &Message::SnapshotMissing(SnapshotMissing { id, min, soon }));
            return;
        };
        (kept.used, kept.is_read) = (now, true);
        let info = kept.info;
        for number in (first..info.chunks()).take(count as usize) {
            if snapshots.reads >= reads_max {
                self.counters.chunks_refused_full += 1;
                break;
            }
            snapshots.reads += 1;
            self.outputs.push_back(Output::Archive(ArchiveWork::Read {
                to: Reader::Peer(from.node()),
                id: info.id,
                number,
            }));
        }
    }

    /// Reads a chunk for an operator who makes a backup; if there is too much to read already, he asks again.
    pub(in super::super) fn read_for_operator(&mut self, now: Instant, request: &AdminRequest, id: u64, number: u64) {
        let snapshots = &mut self.snapshots;
        if snapshots.reads >= self.config.limits.snapshots.reads_in_flight_max {
            self.counters.chunks_refused_full += 1;
            return;
        }
        if let Some(kept) = snapshots.kept.iter_mut().find(|kept| kept.info.id == id) {
            (kept.used, kept.is_read) = (now, true);
        }
        snapshots.reads += 1;
        let to = Reader::Operator { from: request.from, rid: request.rid };
        self.outputs.push_back(Output::Archive(ArchiveWork::Read { to, id, number }));
    }

    pub(super) fn give_chunk(&mut self, to: Reader, info: SnapshotInfo, chunk: Chunk) {
        self.snapshots.reads = self.snapshots.reads.saturating_sub(1);
        self.counters.chunks_given += 1;
        match to {
            Reader::Peer(to) => {
                self.send(to, self.consensus.term(), &Message::SnapshotChunk(SnapshotChunk { info, chunk }));
            }
            Reader::Operator { from, rid } => {
                let answer = ChunkReport { info, chunk }.encode();
                self.answer_admin(&AdminRequest { from, rid, body: Bytes::new() }, &answer);
            }
        }
    }

    /// What was to be read has been removed since.
    pub(super) fn gone(&mut self, to: Reader, id: u64) {
        self.snapshots.reads = self.snapshots.reads.saturating_sub(1);
        let to = match to {
            Reader::Peer(to) => to,
            Reader::Operator { from, rid } => {
                let refused =
                    AdminReply::refused(RefusalReason::Other, "there is no such snapshot any more; begin again");
                self.answer_admin(&AdminRequest { from, rid, body: Bytes::new() }, &refused.encode());
                return;
            }
        };
        let missing = SnapshotMissing { id, min: 0, soon: false };
        self.send(to, self.consensus.term(), &Message::SnapshotMissing(missing));
    }

    /// Whether a snapshot of at least this index can be taken here in a moment.
    fn will_have(&self, min: u64) -> bool {
        let is_taking = self.snapshots.taking.is_some_and(|(index, _)| index >= min);
        self.has_snapshots() && (is_taking || self.snapshots.retry_at.is_none() && self.consensus.commit() >= min)
    }
}
