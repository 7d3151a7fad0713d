//! A snapshot's stream in chunks, and back.

use std::hash::Hasher;
use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use siphasher::sip::SipHasher13;

use super::{CHUNK_LEN, Chunk, SnapshotInfo};
use crate::id::{LogIndex, Term};
use crate::service::SnapshotView;
use crate::storage::StorageError;

/// Longest metadata that is believed.
const META_MAX: usize = 4 << 20;

/// The checksum of a chunk: its number and its bytes.
pub fn chunk_checksum(number: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&number.to_be_bytes());
    hasher.write(bytes);
    hasher.finish()
}

/// How many chunks a stream of `len` bytes has.
pub fn chunks_of(len: u64) -> u64 {
    len.div_ceil(CHUNK_LEN as u64)
}

/// Computes a snapshot's id.
pub(super) struct Identity(SipHasher13);

impl Identity {
    pub(super) fn new(index: LogIndex, term: Term) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(&index.to_be_bytes());
        hasher.write(&term.to_be_bytes());
        Self(hasher)
    }

    /// The next chunk has this checksum.
    pub(super) fn add(&mut self, checksum: u64) {
        self.0.write(&checksum.to_be_bytes());
    }

    pub(super) fn finish(mut self, len: u64) -> u64 {
        self.0.write(&len.to_be_bytes());
        self.0.finish().max(1)
    }
}

/// Writes metadata and state as chunks, each given to `keep`. Returns the snapshot's name.
pub(super) fn cut(
    index: LogIndex,
    term: Term,
    meta: &[u8],
    state: Box<dyn SnapshotView>,
    keep: &mut dyn FnMut(Chunk) -> Result<(), StorageError>,
) -> Result<SnapshotInfo, StorageError> {
    assert!(meta.len() <= META_MAX, "the metadata is {} bytes long", meta.len());
    let mut cutter = Cutter {
        chunk: Vec::with_capacity(CHUNK_LEN),
        number: 0,
        identity: Identity::new(index, term),
        keep,
        error: None,
    };
    let len = (meta.len() as u32).to_be_bytes();
    let written = cutter.write_all(&len).and_then(|()| cutter.write_all(meta)).and_then(|()| state.write(&mut cutter));
    let rest = cutter.chunk.len() as u64;
    let len = cutter.number * CHUNK_LEN as u64 + rest;
    let written = written.and_then(|()| if rest > 0 { cutter.put() } else { Ok(()) });
    match (cutter.error, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(StorageError::Io(format!("the state cannot be written: {error}"))),
        (None, Ok(())) => Ok(SnapshotInfo { id: cutter.identity.finish(len), index, term, len }),
    }
}

struct Cutter<'a> {
    chunk: Vec<u8>,
    number: u64,
    identity: Identity,
    keep: &'a mut dyn FnMut(Chunk) -> Result<(), StorageError>,
    /// What `keep` has said, whatever the writer makes of it.
    error: Option<StorageError>,
}

impl Cutter<'_> {
    fn put(&mut self) -> io::Result<()> {
        let bytes = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_LEN));
        let checksum = chunk_checksum(self.number, &bytes);
        self.identity.add(checksum);
        let kept = (self.keep)(Chunk { number: self.number, checksum, bytes: bytes.into() });
        self.number += 1;
        kept.map_err(|error| {
            let said = io::Error::other(error.to_string());
            self.error.get_or_insert(error);
            said
        })
    }
}

impl Write for Cutter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(CHUNK_LEN - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..fits]);
        if self.chunk.len() == CHUNK_LEN {
            self.put()?;
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot's stream from its chunks, and checks each and the whole.
pub(super) struct Joined<F> {
    info: SnapshotInfo,
    /// Gives a chunk.
    read: F,
    next: u64,
    bytes: Bytes,
    /// Until all chunks have been read.
    identity: Option<Identity>,
}

impl<F: FnMut(u64) -> io::Result<Chunk>> Joined<F> {
    pub(super) fn new(info: SnapshotInfo, read: F) -> Self {
        let identity = Some(Identity::new(info.index, info.term));
        Self { info, read, next: 0, bytes: Bytes::new(), identity }
    }

    /// Reads the metadata, which comes first.
    pub(super) fn meta(&mut self) -> io::Result<Bytes> {
        let mut len = [0; 4];
        self.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > META_MAX {
            return Err(damaged("its metadata is too long"));
        }
        let mut meta = vec![0; len];
        self.read_exact(&mut meta)?;
        Ok(meta.into())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let Chunk { number, checksum, bytes } = (self.read)(self.next)?;
        if number != self.next
            || bytes.len() != self.info.chunk_len(number)
            || chunk_checksum(number, &bytes) != checksum
        {
            return Err(damaged(&format!("chunk {} is not what was written", self.next)));
        }
        self.next += 1;
        if let Some(identity) = &mut self.identity {
            identity.add(checksum);
        }
        if self.next == self.info.chunks()
            && let Some(identity) = self.identity.take()
            && identity.finish(self.info.len) != self.info.id
        {
            return Err(damaged("its chunks are those of another snapshot"));
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl<F: FnMut(u64) -> io::Result<Chunk>> Read for Joined<F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() && self.next < self.info.chunks() {
            self.next_chunk()?;
        }
        let len = to.len().min(self.bytes.len());
        self.bytes.copy_to_slice(&mut to[..len]);
        Ok(len)
    }
}

/// What a reader says of damage.
pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_ids_are_fixed() {
        // They cross versions and nodes: these must never change.
        assert_eq!(chunk_checksum(0, b""), FIXED[0]);
        assert_eq!(chunk_checksum(1, b"HovercRaft"), FIXED[1]);
        let mut kept = Vec::new();
        let info = cut(7, 2, b"meta", Box::new(b"state".to_vec()), &mut |chunk| {
            kept.push(chunk);
            Ok(())
        });
        assert_eq!(info, Ok(SnapshotInfo { id: FIXED[2], index: 7, term: 2, len: 13 }));
        assert_eq!(&kept[0].bytes[..], b"\0\0\0\x04metastate");
    }

    const FIXED: [u64; 3] = [0xbd60_acb6_58c7_9e45, 0xabeb_e8bc_1303_bbd2, 0x94a4_5831_397a_0651];
}
