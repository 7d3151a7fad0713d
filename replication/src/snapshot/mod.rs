//! Snapshots as bytes: what they look like, where a node keeps them, how one is received (protocol.md §7.4).
//!
//! # What a snapshot is
//! A stream: the length of the metadata (u32, network byte order), the metadata, the state. The metadata is the node
//! core's and opaque here; the state is the applier's ([`crate::applier::Frozen`]). The stream is cut into chunks of
//! [`CHUNK_LEN`] bytes, the last one shorter, each with a checksum that also covers its number. Everything together is
//! named by a [`SnapshotInfo`], whose `id` is a hash over position, length and all checksums: equal snapshots of
//! different nodes have equal ids, so a transfer that one node began another may finish.
//!
//! Chunks are the same in messages, on disk and in a backup. The checksums are against accidents, not against forgers.
//!
//! # The contract of an [`Archive`]
//! - What it lists is whole, and stays so until it is removed. When [`Archive::put`] or [`Archive::seal`] returns it is as
//!   safe as the node's durability says; after a crash during either it is there, or nothing of it is.
//! - At most one snapshot is received at a time. Its chunks come in any order and any number of times. A chunk that is
//!   not what the checksum says, or does not fit, is refused at once; whether all of them are the snapshot that was
//!   announced is checked when it is sealed. Before that nobody sees it, and after a restart it is gone.
//! - What is read is checked chunk by chunk, and the whole at its end. What was damaged meanwhile is an error.
//! - Memory used does not depend on the size of a snapshot, but for [`MemoryArchive`], and a bit per chunk while
//!   receiving.

mod file;
mod memory;
mod reception;
mod stream;
mod work;

use std::io::Read;

use bytes::Bytes;

use crate::id::{LogIndex, Term};
use crate::service::SnapshotView;
use crate::storage::StorageError;

pub use file::FileArchive;
pub use memory::MemoryArchive;
pub use stream::{chunk_checksum, chunks_of};
pub(crate) use work::keep;
pub use work::{ArchiveEvent, ArchiveWork, Reader, SnapshotWanted, carry_out, take};

/// Bytes of the stream in every chunk but the last.
pub const CHUNK_LEN: usize = 8 << 10;

/// Names a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Hash over everything; never 0.
    pub id: u64,
    /// The last entry that is in it.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// Bytes of the stream, metadata included.
    pub len: u64,
}

impl SnapshotInfo {
    /// Bytes of a name.
    pub const LEN: usize = 32;

    /// As bytes, in network byte order.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (to, value) in bytes.chunks_exact_mut(8).zip([self.id, self.index, self.term, self.len]) {
            to.copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    /// From bytes; any are a name, whether or not of something that exists.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let (words, _) = bytes.as_chunks();
        let word = |at: usize| u64::from_be_bytes(words[at]);
        Self { id: word(0), index: word(1), term: word(2), len: word(3) }
    }

    /// Its chunks: numbers 0 up to this, not included.
    pub fn chunks(&self) -> u64 {
        chunks_of(self.len)
    }

    /// Bytes of chunk `number`; 0 if there is none.
    pub fn chunk_len(&self, number: u64) -> usize {
        let before = number.saturating_mul(CHUNK_LEN as u64);
        self.len.saturating_sub(before).min(CHUNK_LEN as u64) as usize
    }
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Its place, from 0.
    pub number: u64,
    /// [`chunk_checksum`] of it.
    pub checksum: u64,
    /// Its part of the stream.
    pub bytes: Bytes,
}

/// A snapshot that is being read.
pub struct Opened {
    /// Its name.
    pub info: SnapshotInfo,
    /// The core's metadata.
    pub meta: Bytes,
    /// The state. An error of kind [`std::io::ErrorKind::InvalidData`] says that it is damaged.
    pub state: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What became of a chunk that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It is kept.
    New,
    /// It was there.
    Known,
    /// It is not a part of what is being received.
    Refused(Refusal),
}

/// Why a chunk was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nothing is being received.
    NothingBegun,
    /// There is no chunk of that number, or not of that length.
    Misfit,
    /// It is not what its checksum says.
    Checksum,
}

/// What became of a reception that was to be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sealed {
    /// The snapshot is in the archive.
    Whole(SnapshotInfo),
    /// Chunks are missing; this is the first. The reception goes on.
    Missing(u64),
    /// All chunks are there, and they are not the snapshot that was announced. The reception is over.
    Another,
    /// Nothing is being received.
    NothingBegun,
}

/// Keeps snapshots. See the module for the contract.
///
/// All errors are those of [`StorageError`]. After one, what was being put or received is gone, and what is listed is
/// untouched; [`StorageError::Full`] is the one after which it makes sense to go on.
pub trait Archive: Send {
    /// Keeps a snapshot: writes it, as long as that takes. If the very same is there, that is it.
    ///
    /// # Errors
    /// See the trait. An error of `state`, which writes it, is one too.
    fn put(
        &mut self,
        index: LogIndex,
        term: Term,
        meta: &[u8],
        state: Box<dyn SnapshotView>,
    ) -> Result<SnapshotInfo, StorageError>;

    /// What there is, by index, the oldest first.
    fn list(&self) -> Vec<SnapshotInfo>;

    /// A chunk of a snapshot; `None` if there is no such snapshot or chunk.
    ///
    /// # Errors
    /// See the trait.
    fn read(&mut self, id: u64, number: u64) -> Result<Option<Chunk>, StorageError>;

    /// A snapshot's metadata and a reader of its state, which does not need the archive any more; `None` if there is no
    /// such snapshot.
    ///
    /// # Errors
    /// See the trait.
    fn open(&mut self, id: u64) -> Result<Option<Opened>, StorageError>;

    /// Begins to receive. What has come of this very snapshot stays; of any other it is forgotten.
    ///
    /// # Errors
    /// See the trait.
    fn begin(&mut self, info: SnapshotInfo) -> Result<(), StorageError>;

    /// Keeps a chunk of what is being received.
    ///
    /// # Errors
    /// See the trait. That the chunk is a wrong one is not an error.
    fn receive(&mut self, chunk: &Chunk) -> Result<Received, StorageError>;

    /// What is being received.
    fn receiving(&self) -> Option<SnapshotInfo>;

    /// The first chunk from `from` on that has not been received.
    fn missing(&self, from: u64) -> Option<u64>;

    /// Checks what has been received, and keeps it if it is what was announced.
    ///
    /// # Errors
    /// See the trait.
    fn seal(&mut self) -> Result<Sealed, StorageError>;

    /// Forgets what is being received.
    ///
    /// # Errors
    /// See the trait.
    fn abandon(&mut self) -> Result<(), StorageError>;

    /// Removes all snapshots of an earlier index.
    ///
    /// # Errors
    /// See the trait.
    fn remove_before(&mut self, index: LogIndex) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests;
