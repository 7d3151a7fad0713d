//! How a snapshot reaches a node that is further behind than the leader's log goes back (protocol.md §7.4).

use multicast::message::Writer;

use super::MessageError;
use super::reader::Reader;
use crate::id::{LogIndex, Term};
use crate::snapshot::{CHUNK_LEN, Chunk, SnapshotInfo};

/// Most chunks asked for by one message.
pub const CHUNKS_MAX: u32 = 256;

/// Chunks of a snapshot wanted, one after the other. Answered by chunks, or by [`SnapshotMissing`]; whoever has too much
/// to do answers some of it or nothing, and is asked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotFetch {
    /// Which snapshot; 0 for any of at least `min`.
    pub id: u64,
    /// The least index that helps.
    pub min: LogIndex,
    /// The first chunk wanted.
    pub first: u64,
    /// How many, at most [`CHUNKS_MAX`].
    pub count: u32,
}

/// A chunk of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// Of which.
    pub info: SnapshotInfo,
    /// The chunk. Its checksum has not been looked at.
    pub chunk: Chunk,
}

/// There is no such snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotMissing {
    /// As asked for.
    pub id: u64,
    /// As asked for.
    pub min: LogIndex,
    /// It is being taken: to be asked for again in a moment.
    pub soon: bool,
}

/// A leader's log does not go back as far as the receiver needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind {
    /// With a snapshot of at least this index it can go on from the log.
    pub min: LogIndex,
}

/// A node receives a snapshot. Its leader should keep the log from there on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receiving {
    /// The snapshot's index.
    pub index: LogIndex,
}

/// A node has everything up to an entry that it knows to be committed, by a snapshot or otherwise. Says nothing about
/// the leader's log: the leader looks itself whether it has that entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Installed {
    /// The entry's index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

impl SnapshotFetch {
    pub(super) fn emit(&self, to: &mut Writer) {
        for number in [self.id, self.min, self.first] {
            to.u64(number);
        }
        to.u32(self.count);
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let fetch = Self { id: from.u64()?, min: from.number()?, first: from.number()?, count: from.u32()? };
        if fetch.count > CHUNKS_MAX { Err(MessageError::BadValue("number of chunks")) } else { Ok(fetch) }
    }
}

impl SnapshotChunk {
    pub(super) fn emit(&self, to: &mut Writer) {
        to.bytes(&self.info.emit());
        to.u64(self.chunk.number);
        to.u64(self.chunk.checksum);
        to.u32(self.chunk.bytes.len() as u32);
        to.bytes(&self.chunk.bytes);
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let info = SnapshotInfo::parse(&from.array()?);
        if info.index >= super::NUMBER_MAX || info.term >= super::NUMBER_MAX || info.id == 0 || info.len == 0 {
            return Err(MessageError::BadValue("snapshot"));
        }
        let (number, checksum, len) = (from.number()?, from.u64()?, from.u32()? as usize);
        if len > CHUNK_LEN {
            return Err(MessageError::BadValue("length of a chunk"));
        }
        Ok(Self { info, chunk: Chunk { number, checksum, bytes: from.bytes(len)? } })
    }
}

impl SnapshotMissing {
    pub(super) fn emit(&self, to: &mut Writer) {
        to.u64(self.id);
        to.u64(self.min);
        to.u8(u8::from(self.soon));
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        Ok(Self { id: from.u64()?, min: from.number()?, soon: from.bool()? })
    }
}
