//! Beginning anew from a backup: the data of a node that has not been started yet.

use std::io::{self, Write};

use crate::cluster::{ClusterConfig, ConfigError, Durability};
use crate::id::{GroupId, NodeId};
use crate::node::refounded;
use crate::service::SnapshotView;
use crate::snapshot::{Archive, FileArchive, Opened, SnapshotInfo};
use crate::storage::{DiskStorage, HardState, Persist, Safety, Storage, StorageError};

use super::SNAPSHOTS;

/// Why a node's data was not made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreNodeError {
    /// The configuration has no place for data.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backup cannot be read, or the data not written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is nothing in the backup.
    #[error("there is no snapshot in the backup; is it the directory that `hovercraft cluster backup` has made?")]
    Empty,
    /// It is another version's.
    #[error("the backup was made by another version of this program; restore it with that")]
    Version,
    /// The node has data.
    #[error("node {0} has data already; a backup is restored only where there is none: choose another `data_dir`")]
    HasData(NodeId),
}

/// Makes the data of `node` from the newest snapshot in `backup`: it begins where that was taken, as a member of a new
/// group of all first nodes of `config`. The same is to be done for each of them.
///
/// What was done after the snapshot is not there. Sessions are: a client of the old group that is sent to this one gets the
/// answers it has had.
///
/// # Errors
/// Why not. What has been made so far is left, and refused when a node is started on it.
pub fn restore(
    config: &ClusterConfig,
    node: NodeId,
    backup: &mut FileArchive,
) -> Result<SnapshotInfo, RestoreNodeError> {
    config.validate()?;
    let entry = *config.entry(node).ok_or_else(|| config.no_such_node(node))?;
    let path = config.node_dir(entry.node())?;
    let safety = if config.durability == Durability::Os { Safety::Written } else { Safety::Synced };
    let group = GroupId(config.group);
    if path.join(SNAPSHOTS).exists() || DiskStorage::open(&path, group, node, safety)?.is_some() {
        return Err(RestoreNodeError::HasData(node));
    }
    let newest = backup.list().last().copied().ok_or(RestoreNodeError::Empty)?;
    let Opened { info, meta, state } = backup.open(newest.id)?.ok_or(RestoreNodeError::Empty)?;
    let nodes = || config.nodes.iter().filter(|entry| !entry.join).map(|entry| (entry.node(), entry.addresses()));
    let (meta, membership, known_in) =
        refounded(&meta, &|old| old.refounded(nodes())).ok_or(RestoreNodeError::Version)?;
    let (member, _) = membership.of_node(node).ok_or_else(|| config.no_such_node(node))?;

    // The snapshot first: without a journal the directory is refused, and without a snapshot a journal would begin from
    // nothing.
    let mut archive = FileArchive::open(&path.join(SNAPSHOTS), safety)?;
    let made = archive.put(info.index, info.term, &meta, Box::new(Copied(state)))?;
    let mut storage = DiskStorage::make(&path, group, member, &membership, safety)?;
    storage.load()?;
    storage.write(&Persist {
        number: 1,
        hard_state: Some(HardState { term: known_in.max(info.term), vote: None }),
        lives: Vec::new(),
        compacted: Some((info.index, info.term)),
        first: info.index + 1,
        records: Vec::new(),
    })?;
    storage.sync()?;
    Ok(made)
}

/// A state as it was.
struct Copied(Box<dyn io::Read + Send>);

impl SnapshotView for Copied {
    fn write(mut self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        io::copy(&mut self.0, to).map(|_| ())
    }
}
