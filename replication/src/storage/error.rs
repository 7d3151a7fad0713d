//! What can be wrong with a store.

/// Why a store cannot go on. The node stops: what it has promised may not be kept.
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
        "what is stored is damaged: {0}. The node does not guess what is missing; remove it from the group and let it \
         join again with an empty directory"
    )]
    Damaged(String),
}
