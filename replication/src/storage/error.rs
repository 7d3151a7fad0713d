//! What can be wrong with a store.

use std::io;
use std::path::PathBuf;

use crate::id::{MemberId, NodeId};

/// Why a store cannot be opened, or cannot go on. The node stops: it must not guess, and not promise what it may not
/// keep.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no room.
    #[error(
        "the disk is full: {0}. Nothing acknowledged is lost; make room and start the node again, or move its directory \
         to a larger disk"
    )]
    Full(String),
    /// The system says no.
    #[error(
        "the disk fails: {0}. Nothing acknowledged is lost if the disk keeps what it has synced; see the system's log"
    )]
    Io(String),
    /// What is there is not what was written.
    #[error(
        "what is stored is damaged: {0}. The node does not guess what is missing. If the disk can be repaired or there is \
         a copy of the directory, use that; otherwise this node's data is lost, and the others go on without it as long as \
         they are a majority"
    )]
    Damaged(String),
    /// Another version's format.
    #[error("it was written in format {found}, this version reads {known}; start the version that wrote it")]
    Version {
        /// The format found.
        found: u16,
        /// The format that this version reads.
        known: u16,
    },
    /// Somebody has it open.
    #[error("{} is in use by another process, perhaps by this very node, already running; stop that process", .0.display())]
    InUse(PathBuf),
    /// It belongs to another node.
    #[error(
        "{} holds the data of node {found:?} of group {found_group}, not of node {expected} of group {expected_group}; \
         check `data_dir`, `group` and the node's id",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: MemberId,
        /// In which group.
        found_group: u32,
        /// Who opened it.
        expected: NodeId,
        /// In which group.
        expected_group: u32,
    },
    /// The directory is there and holds no store, but something.
    #[error("{} holds files and no node's data; choose an empty directory as `data_dir`", .0.display())]
    NotAStore(PathBuf),
}

/// What the system said.
pub(crate) fn io_error(error: &io::Error) -> StorageError {
    if error.kind() == io::ErrorKind::StorageFull {
        StorageError::Full(error.to_string())
    } else {
        StorageError::Io(error.to_string())
    }
}
