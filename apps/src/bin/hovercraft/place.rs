//! Where a local cluster keeps its files while it runs: configuration, logs, life markers. All of it disappears with
//! the cluster.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::output::Failure;

/// Name of the configuration of the cluster that `up` runs.
const CONFIG_NAME: &str = "default.toml";

/// A directory for one running cluster.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// Locked as long as the cluster runs. The lock is on the directory itself: nothing to remove, nothing to forget.
    lock: File,
    /// Whether the directory is ours to remove.
    created: bool,
}

impl Place {
    /// Takes a directory, made if need be. What an earlier cluster that was killed has left there is removed.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let cannot = |what: &str, error: io::Error| {
            Failure::new(format!("cannot {what} the directory {}: {error}", path.display()))
                .means("The cluster's configuration and its logs belong there.")
                .todo("Choose another one with --dir DIRECTORY.")
        };
        let created = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(cannot("make", error)),
        };
        let metadata = fs::symlink_metadata(path).map_err(|error| cannot("look at", error))?;
        if !metadata.is_dir() || metadata.uid() != own_uid() {
            return Err(cannot("use", io::Error::other("it is not a directory of yours")));
        }
        let lock = File::open(path).map_err(|error| cannot("open", error))?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(Failure::new(format!("a cluster is already running in {}", path.display()))
                .means("Two clusters cannot share a directory.")
                .todo("Stop it with Ctrl-C, or start this one beside it: --dir DIRECTORY (and talk to it with --config DIRECTORY/default.toml)."));
        }
        // The lock was free: whatever runs there now died without tidying up.
        let leftover = !created && fs::symlink_metadata(path.join(CONFIG_NAME)).is_ok();
        let place = Self { path: path.to_owned(), lock, created: created || leftover || path == default_directory() };
        place.remove_files();
        DirBuilder::new().mode(0o700).create(place.runtime_dir()).map_err(|error| cannot("write to", error))?;
        Ok(place)
    }

    /// A directory that nobody else uses.
    pub(crate) fn temporary() -> Result<Self, Failure> {
        let prefix = format!("hovercraft-{}-", own_uid());
        remove_orphans(&prefix);
        Self::take(&std::env::temp_dir().join(format!("{prefix}{}", std::process::id())))
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path.join(CONFIG_NAME)
    }

    pub(crate) fn log(&self, node: u16) -> PathBuf {
        self.path.join(format!("node-{node}.log"))
    }

    pub(crate) fn aggregator_log(&self) -> PathBuf {
        self.path.join("aggregator.log")
    }

    /// For the life markers of the nodes.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Only what a cluster makes: the directory may be somebody's home.
    fn remove_files(&self) {
        _ = fs::remove_file(self.config());
        _ = fs::remove_file(self.aggregator_log());
        _ = fs::remove_dir_all(self.runtime_dir());
        for node in 1..=u16::from(u8::MAX) {
            _ = fs::remove_file(self.log(node));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove_files();
        if self.created {
            _ = fs::remove_dir(&self.path);
        }
        _ = &self.lock;
    }
}

/// Removes the temporary directories of those who were killed and could not do it themselves.
fn remove_orphans(prefix: &str) {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Taking it removes what is in it.
            drop(Place::take(&entry.path()));
            _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where `up` puts the configuration unless told, and where `kv` and `status` look for it.
pub(crate) fn default_directory() -> PathBuf {
    std::env::temp_dir().join(format!("hovercraft-{}", own_uid()))
}

/// The configuration to use: the one named, or that of the cluster that runs in the default directory.
pub(crate) fn find_config(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let path = default_directory().join(CONFIG_NAME);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new("no cluster is running here")
        .means(format!("`hovercraft up` would have left its configuration in {}.", path.display()))
        .todo("Start one in another terminal: hovercraft up\nOr name the configuration of a cluster elsewhere: --config FILE"))
}

pub(crate) fn own_uid() -> u32 {
    // SAFETY: has no preconditions and cannot fail.
    unsafe { libc::getuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_and_leaves_nothing() {
        let path = std::env::temp_dir().join(format!("hovercraft-test-place-{}", std::process::id()));
        let place = Place::take(&path).expect("free");
        fs::write(place.config(), "").expect("write");
        fs::write(place.log(3), "").expect("write");
        let refused = Place::take(&path).expect_err("taken").to_string();
        assert!(refused.contains("already running"), "{refused}");
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn somebodys_directory_stays() {
        let path = std::env::temp_dir().join(format!("hovercraft-test-kept-{}", std::process::id()));
        fs::create_dir(&path).expect("create");
        fs::write(path.join("thesis.txt"), "years of work").expect("write");
        let place = Place::take(&path).expect("free");
        fs::write(place.config(), "").expect("write");
        drop(place);
        assert_eq!(fs::read_dir(&path).expect("still there").count(), 1);
        fs::remove_dir_all(&path).expect("tidy up");
    }

    #[test]
    fn what_a_killed_cluster_left_is_removed() {
        let path = std::env::temp_dir().join(format!("hovercraft-test-leftover-{}", std::process::id()));
        fs::create_dir(&path).expect("create");
        fs::create_dir(path.join("run")).expect("create");
        fs::write(path.join("run/life-1"), "").expect("write");
        fs::write(path.join(CONFIG_NAME), "").expect("write");
        let place = Place::take(&path).expect("free");
        assert!(!place.config().exists());
        assert_eq!(fs::read_dir(place.runtime_dir()).expect("made again").count(), 0);
        drop(place);
        assert!(!path.exists());
    }
}
