//! The mark that a memory-mode node leaves when it begins to live (protocol.md §7.5).
//!
//! A process that keeps its log in memory has forgotten its vote and its acknowledgements when it restarts. If it came
//! back under the same identity it could vote twice in one term. So it first makes a file that only one process can
//! make, and whoever finds the file there does not start. Nobody removes it: that it has lived stays true.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::id::{GroupId, Incarnation, MemberId, NodeId};

/// Why a node may not begin to live.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// It has lived before.
    #[error(
        "another process has just begun to live as node {member:?} of group {} ({} exists); one of the two is one too many",
        group.0,
        path.display()
    )]
    LivedBefore {
        /// Who.
        member: MemberId,
        /// In which group.
        group: GroupId,
        /// The mark.
        path: PathBuf,
    },
    /// The mark could not be made.
    #[error(
        "cannot {what} {}: {source}; a node in memory mode must leave a mark there that it has lived (protocol.md §7.5); \
         make that directory writable or set `runtime_dir` to another",
        path.display()
    )]
    Mark {
        /// What we tried to do.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory for everybody's temporary files holds a directory of ours that is not ours.
    #[error(
        "{} belongs to user {owner}, who could remove this node's mark that it has lived (protocol.md §7.5); set \
         `runtime_dir` to a directory of your own",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// The last incarnation as which a node has lived, by the marks in `directory`.
pub(super) fn last(directory: &Path, group: GroupId, node: NodeId) -> Option<Incarnation> {
    let prefix = format!("group-{}-node-{}-incarnation-", group.0, node.0);
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let lived = names.filter_map(|name| name.to_str()?.strip_prefix(&prefix)?.strip_suffix(".lived")?.parse().ok());
    lived.max().map(Incarnation)
}

/// Leaves the mark of `member` in `directory`, which is made if it is not there.
///
/// `ours` says that the directory must belong to this user: one whose name anybody could have guessed and taken.
pub(super) fn mark(directory: &Path, ours: bool, group: GroupId, member: MemberId, life: u64) -> Result<(), LifeError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| LifeError::Mark { what, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make the directory", directory))?;
    // SAFETY: getuid has no preconditions and cannot fail.
    let uid = unsafe { libc::getuid() };
    for path in ours.then(|| [Some(directory), directory.parent()]).into_iter().flatten().flatten() {
        let owner = fs::symlink_metadata(path).map_err(failed("look at", path))?.uid();
        if owner != uid {
            return Err(LifeError::Foreign { path: path.to_owned(), owner });
        }
    }
    let (node, incarnation) = (member.node().0, member.incarnation().0);
    let path = directory.join(format!("group-{}-node-{node}-incarnation-{incarnation}.lived", group.0));
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(LifeError::LivedBefore { member, group, path });
        }
        Err(error) => return Err(failed("make", &path)(error)),
    };
    // Only for people who wonder what this is; that the file exists is what counts.
    let _ = writeln!(
        file,
        "node {node} of hovercraft group {}, incarnation {incarnation}, lived as process {} (life {life:016x})",
        group.0,
        std::process::id(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::draw;

    #[test]
    fn a_life_is_marked_once_and_the_next_incarnation_is_another() {
        let directory = std::env::temp_dir().join(format!("hovercraft-life-{:016x}", draw()));
        let member = |incarnation| MemberId::new(NodeId(7), Incarnation(incarnation));
        mark(&directory, false, GroupId(1), member(1), 5).unwrap();
        let again = mark(&directory, false, GroupId(1), member(1), 6).unwrap_err();
        assert!(matches!(again, LifeError::LivedBefore { .. }), "{again}");
        for part in ["n7", "incarnation-1.lived"] {
            assert!(again.to_string().contains(part), "{again}");
        }
        mark(&directory, false, GroupId(1), member(2), 7).unwrap();
        mark(&directory, false, GroupId(2), member(1), 8).unwrap();
        assert_eq!(last(&directory, GroupId(1), NodeId(7)), Some(Incarnation(2)));
        assert_eq!(last(&directory, GroupId(1), NodeId(8)), None);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made() {
        let error = mark(Path::new("/dev/null/x"), false, GroupId(1), MemberId::from_raft(1), 1).unwrap_err();
        assert!(error.to_string().contains("set `runtime_dir`"), "{error}");
    }
}
