//! An archive in memory: for nodes that keep nothing, and for simulated ones.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::reception::Reception;
use super::stream::{Identity, Joined, cut};
use super::{Archive, Chunk, Opened, Received, Refusal, Sealed, SnapshotInfo};
use crate::id::{LogIndex, Term};
use crate::service::SnapshotView;
use crate::storage::StorageError;

/// Keeps snapshots in memory, all of them. A clone of it is what a crash leaves after [`Archive::abandon`].
#[derive(Clone, Debug, Default)]
pub struct MemoryArchive {
    /// By (index, id).
    kept: BTreeMap<(LogIndex, u64), Arc<Kept>>,
    receiving: Option<(Reception, BTreeMap<u64, Chunk>)>,
}

#[derive(Debug)]
struct Kept {
    info: SnapshotInfo,
    chunks: Vec<Chunk>,
}

impl MemoryArchive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes a bit of a chunk, as a bad disk would. For tests.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn damage(&mut self, id: u64, number: u64, at: usize) {
        let kept = self.find(id).expect("what is damaged is there");
        let mut chunks = kept.chunks.clone();
        let chunk = &mut chunks[number as usize];
        let mut bytes = chunk.bytes.to_vec();
        bytes[at] ^= 1;
        chunk.bytes = bytes.into();
        let info = kept.info;
        self.kept.insert((info.index, id), Arc::new(Kept { info, chunks }));
    }

    fn find(&self, id: u64) -> Option<&Arc<Kept>> {
        self.kept.values().find(|kept| kept.info.id == id)
    }
}

impl Archive for MemoryArchive {
    fn put(
        &mut self,
        index: LogIndex,
        term: Term,
        meta: &[u8],
        state: Box<dyn SnapshotView>,
    ) -> Result<SnapshotInfo, StorageError> {
        let mut chunks = Vec::new();
        let info = cut(index, term, meta, state, &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })?;
        self.kept.insert((index, info.id), Arc::new(Kept { info, chunks }));
        Ok(info)
    }

    fn list(&self) -> Vec<SnapshotInfo> {
        self.kept.values().map(|kept| kept.info).collect()
    }

    fn read(&mut self, id: u64, number: u64) -> Result<Option<Chunk>, StorageError> {
        let chunk = self.find(id).and_then(|kept| kept.chunks.get(usize::try_from(number).ok()?)).cloned();
        match chunk {
            Some(chunk) if super::chunk_checksum(number, &chunk.bytes) != chunk.checksum => {
                Err(StorageError::Damaged(format!("chunk {number} of snapshot {id:016x} is not what was written")))
            }
            chunk => Ok(chunk),
        }
    }

    fn open(&mut self, id: u64) -> Result<Option<Opened>, StorageError> {
        let Some(kept) = self.find(id).cloned() else { return Ok(None) };
        let info = kept.info;
        let read = move |number| kept.chunks.get(number as usize).cloned().ok_or(io::ErrorKind::UnexpectedEof.into());
        let mut state = Joined::new(info, read);
        let meta = state.meta().map_err(|error| StorageError::Damaged(format!("snapshot {id:016x}: {error}")))?;
        Ok(Some(Opened { info, meta, state: Box::new(state) }))
    }

    fn begin(&mut self, info: SnapshotInfo) -> Result<(), StorageError> {
        if self.receiving() != Some(info) {
            self.receiving = Some((Reception::new(info), BTreeMap::new()));
        }
        Ok(())
    }

    fn receive(&mut self, chunk: &Chunk) -> Result<Received, StorageError> {
        let Some((reception, chunks)) = &mut self.receiving else {
            return Ok(Received::Refused(Refusal::NothingBegun));
        };
        let received = reception.judge(chunk);
        if received == Received::New {
            reception.insert(chunk.number);
            // What arrived in one datagram may share its memory with much else.
            let bytes = bytes::Bytes::copy_from_slice(&chunk.bytes);
            chunks.insert(chunk.number, Chunk { bytes, ..*chunk });
        }
        Ok(received)
    }

    fn receiving(&self) -> Option<SnapshotInfo> {
        self.receiving.as_ref().map(|(reception, _)| reception.info())
    }

    fn missing(&self, from: u64) -> Option<u64> {
        self.receiving.as_ref().and_then(|(reception, _)| reception.missing(from))
    }

    fn seal(&mut self) -> Result<Sealed, StorageError> {
        let Some((reception, chunks)) = self.receiving.take() else { return Ok(Sealed::NothingBegun) };
        if let Some(missing) = reception.missing(0) {
            self.receiving = Some((reception, chunks));
            return Ok(Sealed::Missing(missing));
        }
        let info = reception.info();
        let mut identity = Identity::new(info.index, info.term);
        chunks.values().for_each(|chunk| identity.add(chunk.checksum));
        if identity.finish(info.len) != info.id {
            return Ok(Sealed::Another);
        }
        let chunks = chunks.into_values().collect();
        self.kept.insert((info.index, info.id), Arc::new(Kept { info, chunks }));
        Ok(Sealed::Whole(info))
    }

    fn abandon(&mut self) -> Result<(), StorageError> {
        self.receiving = None;
        Ok(())
    }

    fn remove_before(&mut self, index: LogIndex) -> Result<(), StorageError> {
        self.kept = self.kept.split_off(&(index, 0));
        Ok(())
    }
}
