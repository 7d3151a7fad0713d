//! What the node core wants from an archive, and what it is told, as plain data.
//!
//! Whoever drives the core carries this out in the order in which it was handed out, as slowly as it must, never on the
//! network thread, and reports every [`ArchiveEvent`].

use std::net::SocketAddrV4;

use bytes::Bytes;

use super::{Archive, Chunk, Received, Sealed, SnapshotInfo};
use crate::applier::Frozen;
use crate::id::{LogIndex, NodeId, Term};
use crate::service::SnapshotView;
use crate::storage::StorageError;

/// Who wants a chunk of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// Another node.
    Peer(NodeId),
    /// An operator, for a backup.
    Operator {
        /// Where.
        from: SocketAddrV4,
        /// By which request.
        rid: u16,
    },
}

/// What an archive is to do. Taking a snapshot and installing one are not here: they have a place in the order of
/// execution ([`crate::applier::Work`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArchiveWork {
    /// Read a chunk for a peer: [`ArchiveEvent::Read`] or [`ArchiveEvent::NotHere`].
    Read {
        /// For whom.
        to: Reader,
        /// Of which snapshot.
        id: u64,
        /// Which one.
        number: u64,
    },
    /// Begin to receive; see [`Archive::begin`]. Nothing is reported.
    Begin(SnapshotInfo),
    /// Keep a chunk: [`ArchiveEvent::Received`].
    Receive(Chunk),
    /// Check and keep what has been received: [`ArchiveEvent::Sealed`].
    Seal,
    /// Forget what has been received. Nothing is reported.
    Abandon,
    /// Remove all snapshots of an earlier index. Nothing is reported.
    RemoveBefore(LogIndex),
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArchiveEvent {
    /// A snapshot has been taken and is safe.
    Taken(SnapshotInfo),
    /// A chunk for a peer.
    Read {
        /// For whom.
        to: Reader,
        /// Of which snapshot.
        info: SnapshotInfo,
        /// The chunk.
        chunk: Chunk,
    },
    /// There is no such snapshot, or no such chunk in it.
    NotHere {
        /// Who asked.
        to: Reader,
        /// For which snapshot.
        id: u64,
        /// For which chunk.
        number: u64,
    },
    /// A chunk of what is being received was looked at.
    Received {
        /// Which one.
        number: u64,
        /// What became of it.
        received: Received,
    },
    /// What was received was checked.
    Sealed {
        /// What became of it.
        sealed: Sealed,
        /// The metadata, if it is whole.
        meta: Option<Bytes>,
    },
    /// A snapshot has replaced the state.
    Installed(SnapshotInfo),
    /// There was no room for the snapshot that was to be taken at this index. Nothing of it is left.
    NotTaken(LogIndex),
    /// There was no room for what was being received. Nothing of it is left.
    NotReceived(SnapshotInfo),
}

/// A snapshot that is to be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotWanted {
    /// After which entry.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The core's metadata.
    pub meta: Bytes,
}

/// Carries out a piece of work.
///
/// # Errors
/// Those after which the node must stop: lack of room for something new is an event.
pub fn carry_out(archive: &mut dyn Archive, work: ArchiveWork) -> Result<Option<ArchiveEvent>, StorageError> {
    let receiving = archive.receiving();
    let event = match work {
        ArchiveWork::Read { to, id, number } => Ok(Some(read(archive, to, id, number)?)),
        ArchiveWork::Begin(info) => match archive.begin(info) {
            Err(StorageError::Full(_)) => Ok(Some(ArchiveEvent::NotReceived(info))),
            begun => begun.map(|()| None),
        },
        ArchiveWork::Receive(chunk) => {
            archive.receive(&chunk).map(|received| Some(ArchiveEvent::Received { number: chunk.number, received }))
        }
        ArchiveWork::Seal => seal(archive).map(Some),
        ArchiveWork::Abandon => archive.abandon().map(|()| None),
        ArchiveWork::RemoveBefore(index) => archive.remove_before(index).map(|()| None),
    };
    match (event, receiving) {
        (Err(StorageError::Full(_)), Some(info)) => Ok(Some(ArchiveEvent::NotReceived(info))),
        (event, _) => event,
    }
}

/// Keeps what an applier has frozen.
///
/// # Errors
/// As for [`carry_out`].
///
/// # Panics
/// If it was frozen elsewhere than was wanted.
pub fn take(archive: &mut dyn Archive, wanted: &SnapshotWanted, frozen: Frozen) -> Result<ArchiveEvent, StorageError> {
    assert_eq!(frozen.applied(), wanted.index, "a snapshot is taken at its place in the log");
    keep(archive, wanted, Box::new(frozen))
}

/// Keeps a state.
pub(crate) fn keep(
    archive: &mut dyn Archive,
    wanted: &SnapshotWanted,
    state: Box<dyn SnapshotView>,
) -> Result<ArchiveEvent, StorageError> {
    let SnapshotWanted { index, term, ref meta } = *wanted;
    match archive.put(index, term, meta, state) {
        Ok(info) => Ok(ArchiveEvent::Taken(info)),
        Err(StorageError::Full(_)) => Ok(ArchiveEvent::NotTaken(index)),
        Err(error) => Err(error),
    }
}

fn read(archive: &mut dyn Archive, to: Reader, id: u64, number: u64) -> Result<ArchiveEvent, StorageError> {
    let info = archive.list().into_iter().find(|info| info.id == id);
    let chunk = if info.is_some() { archive.read(id, number)? } else { None };
    Ok(match (info, chunk) {
        (Some(info), Some(chunk)) => ArchiveEvent::Read { to, info, chunk },
        _ => ArchiveEvent::NotHere { to, id, number },
    })
}

fn seal(archive: &mut dyn Archive) -> Result<ArchiveEvent, StorageError> {
    let sealed = archive.seal()?;
    let meta = match sealed {
        Sealed::Whole(info) => archive.open(info.id)?.map(|opened| opened.meta),
        Sealed::Missing(_) | Sealed::Another | Sealed::NothingBegun => None,
    };
    Ok(ArchiveEvent::Sealed { sealed, meta })
}
