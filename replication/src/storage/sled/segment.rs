//! A part of a journal: a `sled` database of its own.
//!
//! It holds batches, each as a few values of at most [`PART_MAX`] bytes under (number, part), because one record per
//! batch costs sled a fraction of one per entry, and because sled copies neighbouring values about. Three more values say
//! whose it is, how it begins, and, once there is a next one, that.
//!
//! sled 0.34 ends a flush with `sync_file_range`, which neither empties the disk's cache nor makes the file's length
//! safe, and does not sync at all the files into which it puts what it finds too large for its log. So
//! [`Segment::sync_files`] syncs these itself, after sled has written them.
//!
//! sled shrinks its file on one of seven threads while it waits for that with a lock held which the writing threads need:
//! with more than so many buffers of [`SLED_BUFFER`] bytes on their way it may wait for ever. So no more than a few are.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use sled::{Config, Db};

use super::super::{Persist, StorageError, codec, io_error};

/// Longest value.
const PART_MAX: usize = 8 << 10;
/// sled's own buffers.
const SLED_BUFFER: usize = 512 << 10;
/// What sled is given before it has to write that.
const UNFLUSHED_MAX: usize = 2 * SLED_BUFFER;

/// What sled may cache. A journal is read once and written once.
const CACHE_BYTES: u64 = 8 << 20;

/// How often, and after which pauses, sled is asked again for its lock.
const OPEN_TRIES: u32 = 500;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

/// Whose it is.
pub(super) const IDENTITY: &[u8] = b"identity";
/// How it begins.
pub(super) const BEGINNING: &[u8] = b"beginning";
/// Which one is next.
pub(super) const NEXT: &[u8] = b"next";
/// Keys of batches begin with it.
const BATCHES: u8 = b'j';
/// sled's log, within its directory, and the directory of what it finds too large for that.
pub(super) const LOG_FILE: &str = "db";
pub(super) const BLOBS: &str = "blobs";

/// A part of a journal. See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) db: Db,
    path: PathBuf,
    log: File,
    /// Files beside the log that are synced; sled writes each once.
    pub(super) blobs: BTreeSet<OsString>,
    unflushed: usize,
    /// Bytes written since it was opened.
    pub(super) written: u64,
}

impl Segment {
    /// Whether there is one in this directory.
    pub(super) fn is_in(path: &Path) -> bool {
        path.join(LOG_FILE).exists()
    }

    /// Opens it, or makes one. sled's threads may hold its lock for a moment longer than a segment that was dropped.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(path).map_err(|error| io_error(&error))?;
        let config = Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
        let mut patience = OPEN_TRIES;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                    patience -= 1;
                    if patience == 0 {
                        return Err(StorageError::InUse(path.to_owned()));
                    }
                    thread::park_timeout(OPEN_PAUSE);
                }
                opened => break opened.map_err(sled_error)?,
            }
        };
        let log = File::open(path.join(LOG_FILE)).map_err(|error| io_error(&error))?;
        Ok(Self { db, path: path.to_owned(), log, blobs: BTreeSet::new(), unflushed: 0, written: 0 })
    }

    /// One of the values beside the batches.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.db.get(key).map_err(sled_error)?.map(|value| value.to_vec()))
    }

    /// Writes one of the values beside the batches.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.db.insert(key, value).map_err(sled_error)?;
        Ok(())
    }

    /// Writes several of them, or none.
    pub(super) fn put_together(&self, values: &[(&[u8], &[u8])]) -> Result<(), StorageError> {
        let mut together = sled::Batch::default();
        values.iter().for_each(|(key, value)| together.insert(*key, *value));
        self.db.apply_batch(together).map_err(sled_error)
    }

    /// Whether nothing was ever written to it.
    pub(super) fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    /// Writes a batch.
    pub(super) fn put_batch(&mut self, number: u64, batch: &Persist) -> Result<(), StorageError> {
        let bytes = codec::encode(batch);
        let parts = u16::try_from(bytes.len().div_ceil(PART_MAX)).map_err(|_| {
            StorageError::Io(format!("a batch of {} bytes is longer than this store can keep", bytes.len()))
        })?;
        let mut values = (0..).zip(bytes.chunks(PART_MAX)).peekable();
        while values.peek().is_some() {
            let mut together = sled::Batch::default();
            for (part, value) in values.by_ref().take(UNFLUSHED_MAX / PART_MAX) {
                together.insert(&Key { number, part, parts }.emit(), value);
                self.unflushed += value.len();
            }
            if self.unflushed > UNFLUSHED_MAX {
                self.flush()?;
            }
            self.db.apply_batch(together).map_err(sled_error)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Has sled write what it has.
    pub(super) fn flush(&mut self) -> Result<(), StorageError> {
        self.unflushed = 0;
        self.db.flush().map_err(sled_error)?;
        Ok(())
    }

    /// Makes what sled has written safe.
    pub(super) fn sync_files(&mut self) -> Result<(), StorageError> {
        self.sync_blobs().and_then(|()| self.log.sync_data()).map_err(|error| io_error(&error))
    }

    /// Makes the directory's entries safe, and its own in its parent.
    pub(super) fn sync_directories(&self) -> Result<(), StorageError> {
        for directory in [Some(&*self.path), self.path.parent()].into_iter().flatten() {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| io_error(&error))?;
        }
        Ok(())
    }

    /// Gives the batches, in order, to `take`. The last one, if parts of it are missing, is removed. Returns the number of
    /// the next batch.
    pub(super) fn read(
        &self,
        mut next: u64,
        take: &mut dyn FnMut(Persist) -> Result<(), StorageError>,
    ) -> Result<u64, StorageError> {
        let mut parts: Vec<Key> = Vec::new();
        let mut bytes = Vec::new();
        for item in self.db.scan_prefix([BATCHES]) {
            let (key, value) = item.map_err(sled_error)?;
            let key = Key::parse(&key).ok_or_else(|| StorageError::Damaged(format!("the key {key:02x?}")))?;
            if parts.first().is_some_and(|before| before.number != key.number) {
                take(join(next, &parts, std::mem::take(&mut bytes))?)?;
                next += 1;
                parts.clear();
            }
            if parts.is_empty() {
                bytes.reserve_exact(usize::from(key.parts) * PART_MAX);
            }
            parts.push(key);
            bytes.extend_from_slice(&value);
        }
        if let Some(first) = parts.first() {
            if parts.len() == usize::from(first.parts) {
                take(join(next, &parts, bytes)?)?;
                next += 1;
            } else {
                tracing::warn!(first.number, "the last batch was not written completely; nobody relied on it");
                for key in &parts {
                    self.db.remove(key.emit()).map_err(sled_error)?;
                }
            }
        }
        Ok(next)
    }

    fn sync_blobs(&mut self) -> io::Result<()> {
        let directory = self.path.join(BLOBS);
        let mut there = BTreeSet::new();
        let mut is_new = false;
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name();
            if !self.blobs.contains(&name) {
                // It may be gone already: then the log says so.
                match File::open(directory.join(&name)).and_then(|blob| blob.sync_all()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => is_new = true,
                }
            }
            there.insert(name);
        }
        self.blobs = there;
        if is_new { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

/// Where a part of a batch is kept. Keys sort like what they say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) number: u64,
    pub(super) part: u16,
    /// How many parts there are.
    pub(super) parts: u16,
}

impl Key {
    const LEN: usize = 1 + 8 + 2 + 2;

    pub(super) fn emit(self) -> [u8; Self::LEN] {
        let mut bytes = [BATCHES; Self::LEN];
        bytes[1..9].copy_from_slice(&self.number.to_be_bytes());
        bytes[9..11].copy_from_slice(&self.part.to_be_bytes());
        bytes[11..13].copy_from_slice(&self.parts.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let number = bytes[1..9].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self { number, part: u16_at(9), parts: u16_at(11) })
    }
}

/// The batch of this number, which these parts are.
fn join(number: u64, parts: &[Key], bytes: Vec<u8>) -> Result<Persist, StorageError> {
    if parts.iter().any(|key| key.number != number) {
        return Err(StorageError::Damaged(format!("batch {number} is missing")));
    }
    if !parts.iter().zip(0..).all(|(key, part)| key.part == part && usize::from(key.parts) == parts.len()) {
        return Err(StorageError::Damaged(format!("parts of batch {number} are missing")));
    }
    codec::decode(number, &Bytes::from(bytes))
}

pub(super) fn sled_error(error: sled::Error) -> StorageError {
    match error {
        sled::Error::Io(error) => io_error(&error),
        error @ sled::Error::Corruption { .. } => StorageError::Damaged(error.to_string()),
        error => StorageError::Io(error.to_string()),
    }
}
