//! The directory of a store: what is in there, and whose it is now.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::super::{StorageError, io_error};

/// Names of segments begin with it.
const SEGMENT_NAME: &str = "segment-";
/// The file of a segment that is not needed any more, for the next one: its blocks are the disk's already.
const SPARE: &str = "spare";
/// The directory of the registers.
const REGISTERS: &str = "registers";

pub(super) fn segment_path(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{SEGMENT_NAME}{number:010}"))
}

pub(super) fn spare_path(path: &Path) -> PathBuf {
    path.join(SPARE)
}

pub(super) fn registers_path(path: &Path) -> PathBuf {
    path.join(REGISTERS)
}

/// Numbers of the segments there are, in order.
pub(super) fn segments_in(path: &Path) -> Result<Vec<u64>, StorageError> {
    let named = names_in(path)?.into_iter();
    let mut numbers: Vec<u64> = named.filter_map(|name| name.strip_prefix(SEGMENT_NAME)?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes a segment.
pub(super) fn remove_segment(path: &Path, number: u64) -> Result<(), StorageError> {
    fs::remove_file(segment_path(path, number)).map_err(|error| io_error(&error))
}

/// The names in a directory; none if there is no directory.
pub(super) fn names_in(path: &Path) -> Result<Vec<String>, StorageError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| io_error(&error))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.map(|entry| name(entry).map_err(|error| io_error(&error))).collect()
}

/// Makes safe which names are in a directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| io_error(&error))
}

/// Takes the directory for this process alone: the lock is on the directory itself, nothing to remove, nothing to forget.
pub(super) fn lock(path: &Path) -> Result<File, StorageError> {
    let directory = File::open(path).map_err(|error| io_error(&error))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        Ok(directory)
    } else {
        Err(StorageError::InUse(path.to_owned()))
    }
}
