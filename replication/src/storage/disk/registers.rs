//! What is small and overwritten in place: a sled database of a few values.
//!
//! | key | what |
//! |---|---|
//! | `identity` | whose the store is; without it the store does not count |
//! | `first`, `last` | numbers of the segments there are |
//! | `safe` | batches before this number were safe: written when a store is opened and when it is closed |
//!
//! sled 0.34 ends a flush with `sync_file_range`, which neither empties the disk's cache nor makes the file's length
//! safe. So [`Registers::put`] syncs sled's log itself. It would not be enough for values so large that sled puts them into
//! files of their own; these are not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::BufMut;
use sled::{Config, Db};

use super::super::identity::Identity;
use super::super::{StorageError, codec, io_error};
use super::directory::sync_directory;
use super::{Safety, record};

/// sled's log, within its directory.
pub(super) const LOG_FILE: &str = "db";
const IDENTITY: &[u8] = b"identity";

/// How often, and after which pauses, sled is asked again for its lock.
const OPEN_TRIES: u32 = 500;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

/// A register with a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// Number of the first segment.
    First,
    /// Number of the last one.
    Last,
    /// Batches before this number were safe.
    Safe,
}

impl Register {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Safe => "safe",
        }
    }
}

/// The registers of a store. See the module.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub(super) db: Db,
    log: Arc<File>,
    path: PathBuf,
    safety: Safety,
}

impl Registers {
    /// Opens them, or makes some that say nothing.
    pub(super) fn open(path: &Path, safety: Safety) -> Result<Self, StorageError> {
        fs::create_dir_all(path).map_err(|error| io_error(&error))?;
        let db = open_database(path)?;
        let log = File::open(path.join(LOG_FILE)).map_err(|error| io_error(&error))?;
        Ok(Self { db, log: Arc::new(log), path: path.to_owned(), safety })
    }

    /// Whose the store is.
    pub(super) fn identity(&self) -> Result<Option<Identity>, StorageError> {
        self.db.get(IDENTITY).map_err(sled_error)?.map(|bytes| Identity::parse(&bytes)).transpose()
    }

    /// Says whose the store is, and what is in it: from here on it counts.
    pub(super) fn begin(&self, identity: &Identity, numbers: &[(Register, u64)]) -> Result<(), StorageError> {
        let mut together = sled::Batch::default();
        together.insert(IDENTITY, identity.emit());
        numbers.iter().for_each(|(register, number)| together.insert(register.key(), emit(*number)));
        self.db.apply_batch(together).map_err(sled_error)?;
        self.make_safe()?;
        sync_directory(&self.path)
    }

    /// A number.
    pub(super) fn number(&self, register: Register) -> Result<u64, StorageError> {
        let key = register.key();
        let Some(bytes) = self.db.get(key).map_err(sled_error)? else {
            return Err(StorageError::Damaged(format!("the register `{key}` is missing")));
        };
        parse(&bytes).ok_or_else(|| StorageError::Damaged(format!("the register `{key}` is not what was written")))?
    }

    /// Puts a number in place of what is there, as safely as the policy demands.
    pub(super) fn put(&self, register: Register, number: u64) -> Result<(), StorageError> {
        self.db.insert(register.key(), emit(number)).map_err(sled_error)?;
        self.make_safe()
    }

    fn make_safe(&self) -> Result<(), StorageError> {
        self.db.flush().map_err(sled_error)?;
        match self.safety {
            Safety::Written => Ok(()),
            Safety::Synced => self.log.sync_data().map_err(|error| io_error(&error)),
        }
    }
}

/// A database of sled's. Its threads may hold its lock for a moment longer than one that was dropped.
pub(super) fn open_database(path: &Path) -> Result<Db, StorageError> {
    let config = Config::new().path(path).flush_every_ms(None).cache_capacity(1 << 20);
    let mut patience = OPEN_TRIES;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                patience -= 1;
                if patience == 0 {
                    return Err(StorageError::InUse(path.to_owned()));
                }
                thread::park_timeout(OPEN_PAUSE);
            }
            opened => return opened.map_err(sled_error),
        }
    }
}

pub(super) fn sled_error(error: sled::Error) -> StorageError {
    match error {
        sled::Error::Io(error) => io_error(&error),
        error @ sled::Error::Corruption { .. } => StorageError::Damaged(error.to_string()),
        error => StorageError::Io(error.to_string()),
    }
}

/// Version, number, checksum.
fn emit(number: u64) -> Vec<u8> {
    let mut to = Vec::with_capacity(18);
    to.put_u16(record::VERSION);
    to.put_u64(number);
    let sum = codec::checksum(&to);
    to.put_u64(sum);
    to
}

fn parse(bytes: &[u8]) -> Option<Result<u64, StorageError>> {
    let bytes: &[u8; 18] = bytes.try_into().ok()?;
    let number_at = |at: usize| bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let version = u16::from_be_bytes([bytes[0], bytes[1]]);
    (codec::checksum(&bytes[..10]) == number_at(10)).then(|| match version {
        record::VERSION => Ok(number_at(2)),
        found => Err(StorageError::Version { found, known: record::VERSION }),
    })
}
