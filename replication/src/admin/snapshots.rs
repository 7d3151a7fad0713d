//! What a node answers about its snapshots, for backups. Fixed layouts, network byte order.

use bytes::{Buf, BufMut, Bytes};

use crate::snapshot::{CHUNK_LEN, Chunk, SnapshotInfo};

/// Most snapshots in a report: more than a node keeps.
const SNAPSHOTS_MAX: usize = 16;

/// The snapshots that a node has: 32 bytes each ([`SnapshotInfo::emit`]), the oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotsReport {
    /// Their names.
    pub snapshots: Vec<SnapshotInfo>,
}

/// A piece of a snapshot: its name, the piece's number and checksum (u64 each), the piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkReport {
    /// Of which snapshot.
    pub info: SnapshotInfo,
    /// The piece.
    pub chunk: Chunk,
}

/// Tells a piece from a refusal, which is protobuf.
const CHUNK_MARK: u8 = 0xff;

impl SnapshotsReport {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        self.snapshots.iter().rev().take(SNAPSHOTS_MAX).rev().flat_map(SnapshotInfo::emit).collect()
    }

    /// Reads what came from outside. Any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (names, rest) = bytes.as_chunks();
        let valid = rest.is_empty() && names.len() <= SNAPSHOTS_MAX;
        valid.then(|| Self { snapshots: names.iter().map(SnapshotInfo::parse).collect() })
    }
}

impl ChunkReport {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let Chunk { number, checksum, ref bytes } = self.chunk;
        let mut to = Vec::with_capacity(1 + SnapshotInfo::LEN + 16 + bytes.len());
        to.put_u8(CHUNK_MARK);
        to.put_slice(&self.info.emit());
        to.put_u64(number);
        to.put_u64(checksum);
        to.put_slice(bytes);
        to.into()
    }

    /// Reads what came from outside. Any bytes are safe; whether the piece is what the checksum says is for an archive to
    /// check.
    pub fn decode(mut from: Bytes) -> Option<Self> {
        if from.try_get_u8().ok()? != CHUNK_MARK {
            return None;
        }
        let name = from.get(..SnapshotInfo::LEN)?.try_into().ok()?;
        let info = SnapshotInfo::parse(name);
        from.advance(SnapshotInfo::LEN);
        let (number, checksum) = (from.try_get_u64().ok()?, from.try_get_u64().ok()?);
        (from.len() <= CHUNK_LEN).then_some(Self { info, chunk: Chunk { number, checksum, bytes: from } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::AdminReply;

    const INFO: SnapshotInfo = SnapshotInfo { id: 1, index: 2, term: 3, len: 4 };

    #[test]
    fn there_and_back() {
        for count in [0, 1, SNAPSHOTS_MAX] {
            let report = SnapshotsReport { snapshots: vec![INFO; count] };
            assert_eq!(SnapshotsReport::decode(&report.encode()), Some(report));
        }
        for len in [0, 1, CHUNK_LEN] {
            let chunk = Chunk { number: 5, checksum: 6, bytes: vec![7; len].into() };
            let report = ChunkReport { info: INFO, chunk };
            assert_eq!(ChunkReport::decode(report.encode()), Some(report.clone()));
            assert_eq!(AdminReply::decode(&report.encode()), None, "not taken for a refusal");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            _ = SnapshotsReport::decode(&bytes);
            _ = ChunkReport::decode(bytes.into());
        }
    }
}
