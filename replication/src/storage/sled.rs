//! A store on disk, in a `sled` database (protocol.md §7.5).
//!
//! The database holds a journal: batches in the order in which they were written, each as a few values of at most
//! [`PART_MAX`] bytes under (number, part), because one record per batch costs sled a fraction of one per entry, and
//! because sled copies neighbouring values about. Reading the journal again replays it; what was replaced is read and
//! replaced again. One more value says whose it is.
//!
//! sled 0.34 ends a flush with `sync_file_range`, which neither empties the disk's cache nor makes the file's length
//! safe, and does not sync at all the files into which it puts what it finds too large for its log. So
//! [`Storage::sync`] with the `sync` policy syncs these itself, after sled has written them.
//!
//! A batch of which parts are missing is one that was being written when the machine died, if it is the last: nobody has
//! been told that it is safe. Anywhere else, or with a wrong checksum, it is damage.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use sled::{Config, Db};

use super::identity::Identity;
use super::{Persist, Storage, StorageError, Stored, codec, io_error};
use crate::entropy;
use crate::id::{GroupId, MemberId, NodeId};
use crate::membership::Membership;

/// Longest value.
const PART_MAX: usize = 8 << 10;

/// What sled may cache. The journal is read once and written once.
const CACHE_BYTES: u64 = 8 << 20;

/// How often, and after which pauses, sled is asked again for its lock.
const OPEN_TRIES: u32 = 500;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

const IDENTITY_KEY: &[u8] = b"identity";
/// Keys of the journal begin with it.
const JOURNAL: u8 = b'j';
/// sled's log, within its directory, and the directory of what it finds too large for that.
const LOG_FILE: &str = "db";
const BLOBS: &str = "blobs";

/// How safe a synced batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Safety {
    /// The system has it: it survives the process, and the machine's death only by luck.
    Written,
    /// The disk says that it is safe.
    Synced,
}

/// A store in a directory. See the module.
#[derive(Debug)]
pub struct SledStorage {
    db: Db,
    path: PathBuf,
    safety: Safety,
    identity: Identity,
    /// Number of the next batch in the journal. Not the core's number, which begins anew with each process.
    next: u64,
    log: File,
    /// Files beside the log that are synced; sled writes each once.
    blobs: BTreeSet<OsString>,
    /// Locked as long as the store is open. Last, so that sled has let go before.
    _lock: File,
}

impl SledStorage {
    /// Opens the store of `node` in `path`; `None` if there is none, nor anything else.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(path: &Path, group: GroupId, node: NodeId, safety: Safety) -> Result<Option<Self>, StorageError> {
        if !path.join(LOG_FILE).exists() {
            let is_empty = fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
            return if is_empty { Ok(None) } else { Err(StorageError::NotAStore(path.to_owned())) };
        }
        let (db, log, lock) = open_all(path)?;
        let identity = match db.get(IDENTITY_KEY).map_err(sled_error)? {
            Some(identity) => Identity::parse(&identity)?,
            // A process died while it made this store.
            None if db.is_empty() => return Ok(None),
            None => return Err(StorageError::Damaged("the identity is missing".to_owned())),
        };
        if identity.group != group || identity.member.node() != node {
            return Err(StorageError::Foreign {
                path: path.to_owned(),
                found: identity.member,
                found_group: identity.group.0,
                expected: node,
                expected_group: group.0,
            });
        }
        let path = path.to_owned();
        Ok(Some(Self { db, path, safety, identity, next: 0, log, blobs: BTreeSet::new(), _lock: lock }))
    }

    /// Makes a store in `path`, where there is nothing, for a member that begins with this membership.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn make(
        path: &Path,
        group: GroupId,
        member: MemberId,
        membership: &Membership,
        safety: Safety,
    ) -> Result<Self, StorageError> {
        fs::create_dir_all(path).map_err(|error| io_error(&error))?;
        let (db, log, lock) = open_all(path)?;
        let identity = Identity { group, member, life: entropy::draw(), membership: Some(membership.clone()) };
        let path = path.to_owned();
        let mut store = Self { db, path, safety, identity, next: 0, log, blobs: BTreeSet::new(), _lock: lock };
        store.db.insert(IDENTITY_KEY, store.identity.emit()).map_err(sled_error)?;
        store.sync()?;
        // The directory's entries, and its own in its parent.
        for directory in [Some(&*store.path), store.path.parent()].into_iter().flatten() {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| io_error(&error))?;
        }
        Ok(store)
    }

    /// How safe what is synced is.
    pub fn safety(&self) -> Safety {
        self.safety
    }

    /// Whose this is, since when.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes what sled has written to its files as safe as the policy demands.
    fn sync_files(&mut self) -> Result<(), StorageError> {
        match self.safety {
            Safety::Written => Ok(()),
            Safety::Synced => self.sync_blobs().and_then(|()| self.log.sync_data()).map_err(|error| io_error(&error)),
        }
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

    /// The batches of the journal, in order. The last one, if parts of it are missing, is removed.
    fn batches(&mut self) -> Result<Vec<Persist>, StorageError> {
        let mut batches: Vec<Persist> = Vec::new();
        let mut parts: Vec<(Key, Vec<u8>)> = Vec::new();
        for item in self.db.scan_prefix([JOURNAL]) {
            let (key, value) = item.map_err(sled_error)?;
            let key = Key::parse(&key).ok_or_else(|| StorageError::Damaged(format!("the key {key:02x?}")))?;
            if parts.first().is_some_and(|(before, _)| before.number != key.number) {
                batches.push(join(&parts)?);
                parts.clear();
            }
            parts.push((key, value.to_vec()));
        }
        if let Some((first, _)) = parts.first() {
            self.next = first.number;
            if parts.len() == usize::from(first.parts) {
                batches.push(join(&parts)?);
                self.next += 1;
            } else {
                tracing::warn!(first.number, "the last batch was not written completely; nobody relied on it");
                for (key, _) in &parts {
                    self.db.remove(key.emit()).map_err(sled_error)?;
                }
            }
        }
        let consecutive = batches.iter().zip(0..).find(|(batch, number)| batch.number != *number);
        match consecutive {
            Some((_, missing)) => Err(StorageError::Damaged(format!("batch {missing} is missing"))),
            None => Ok(batches),
        }
    }
}

impl Storage for SledStorage {
    fn write(&mut self, batch: &Persist) -> Result<(), StorageError> {
        let bytes = codec::encode(batch);
        let parts = bytes.len().div_ceil(PART_MAX);
        let number = self.next;
        let parts_u16 = u16::try_from(parts).map_err(|_| {
            StorageError::Io(format!("a batch of {} bytes is longer than this store can keep", bytes.len()))
        })?;
        let mut together = sled::Batch::default();
        for (part, value) in (0..).zip(bytes.chunks(PART_MAX)) {
            together.insert(&Key { number, part, parts: parts_u16 }.emit(), value);
        }
        self.db.apply_batch(together).map_err(sled_error)?;
        self.next += 1;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.db.flush().map_err(sled_error)?;
        self.sync_files()
    }

    fn load(&mut self) -> Result<Stored, StorageError> {
        // What a killed process had written may be in the system's memory only, and is relied on from now on.
        self.sync_files()?;
        let mut stored = Stored::default();
        for Persist { number, hard_state, lives, compacted, first, records } in self.batches()? {
            stored.hard_state = hard_state.unwrap_or(stored.hard_state);
            stored.lives.extend(lives);
            if let Some(compacted) = compacted {
                stored.put_compacted(compacted);
            }
            for (record, index) in records.into_iter().zip(first..) {
                if index <= stored.base.0 || index > stored.base.0 + stored.records.len() as u64 + 1 {
                    return Err(StorageError::Damaged(format!("entries before {index} are missing in batch {number}")));
                }
                stored.put_record(index, record);
            }
        }
        Ok(stored)
    }
}

/// Where a part of a batch is kept. Keys sort like what they say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    number: u64,
    part: u16,
    /// How many parts there are.
    parts: u16,
}

impl Key {
    const LEN: usize = 1 + 8 + 2 + 2;

    fn emit(self) -> [u8; Self::LEN] {
        let mut bytes = [JOURNAL; Self::LEN];
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

/// The batch that these parts are.
fn join(parts: &[(Key, Vec<u8>)]) -> Result<Persist, StorageError> {
    let number = parts.first().map_or(0, |(key, _)| key.number);
    let complete =
        parts.iter().zip(0..).all(|((key, _), part)| key.part == part && usize::from(key.parts) == parts.len());
    if !complete {
        return Err(StorageError::Damaged(format!("parts of batch {number} are missing")));
    }
    let bytes: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    codec::decode(number, &Bytes::from(bytes))
}

fn sled_error(error: sled::Error) -> StorageError {
    match error {
        sled::Error::Io(error) => io_error(&error),
        error @ sled::Error::Corruption { .. } => StorageError::Damaged(error.to_string()),
        error => StorageError::Io(error.to_string()),
    }
}

/// Opens the database, its log, and the lock on it, in a directory that is there.
fn open_all(path: &Path) -> Result<(Db, File, File), StorageError> {
    let lock = lock(path)?;
    let db = open_db(path)?;
    let log = File::open(path.join(LOG_FILE)).map_err(|error| io_error(&error))?;
    Ok((db, log, lock))
}

/// Takes the directory for this process alone: the lock is on the directory itself, nothing to remove, nothing to forget.
fn lock(path: &Path) -> Result<File, StorageError> {
    let directory = File::open(path).map_err(|error| io_error(&error))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        Ok(directory)
    } else {
        Err(StorageError::InUse(path.to_owned()))
    }
}

/// Opens the database in a directory that is ours. sled's threads may hold its own lock for a moment longer than the
/// store that was dropped.
fn open_db(path: &Path) -> Result<Db, StorageError> {
    let config = Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
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

#[cfg(test)]
mod tests {
    use super::super::{HardState, StoredRecord};
    use super::*;
    use crate::entry::ENTRY_LEN;
    use crate::id::{Incarnation, NodeId};

    const N1: MemberId = MemberId::new(NodeId(1), Incarnation(1));

    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("hovercraft-store-{:016x}", entropy::draw())))
        }

        fn open(&self) -> Result<SledStorage, StorageError> {
            match SledStorage::open(&self.0, GroupId(1), N1.node(), Safety::Synced)? {
                Some(store) => Ok(store),
                None => SledStorage::make(&self.0, GroupId(1), N1, &membership(), Safety::Synced),
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn membership() -> Membership {
        use crate::membership::Addresses;

        let address = "127.0.0.1:1".parse().unwrap();
        Membership::of_voters([(N1, Addresses { peers: address, requests: address, group_requests: None })])
    }

    fn batch(first: u64, terms: &[u64], len: usize) -> Persist {
        let record = |term: &u64| StoredRecord {
            term: *term,
            entry: Bytes::from(vec![*term as u8; ENTRY_LEN]),
            body: Bytes::from(vec![*term as u8; len]),
        };
        let hard_state = terms.last().map(|term| HardState { term: *term, vote: Some(N1) });
        Persist {
            number: 7,
            hard_state,
            lives: vec![(N1, first)],
            compacted: None,
            first,
            records: terms.iter().map(record).collect(),
        }
    }

    fn terms(stored: &Stored) -> Vec<u64> {
        stored.records.iter().map(|record| record.term).collect()
    }

    #[test]
    fn what_was_synced_is_there_after_reopening() {
        let place = Place::new();
        let mut store = place.open().unwrap();
        assert_eq!(store.load(), Ok(Stored::default()));
        let life = store.identity().life;
        assert_eq!(store.identity().membership, Some(membership()));
        for batch in [batch(1, &[1, 1, 1], 10), batch(2, &[2, 2], 3 * PART_MAX), batch(4, &[2], 0)] {
            store.write(&batch).unwrap();
        }
        store.sync().unwrap();
        drop(store);
        let mut store = place.open().unwrap();
        let stored = store.load().unwrap();
        assert_eq!((terms(&stored), store.identity().life), (vec![1, 2, 2, 2], life));
        assert_eq!(stored.hard_state, HardState { term: 2, vote: Some(N1) });
        assert_eq!(stored.records[1].body.len(), 3 * PART_MAX);
        assert_eq!(stored.lives, [(N1, 1), (N1, 2), (N1, 4)]);
        store.write(&batch(5, &[3], 0)).unwrap();
        store.sync().unwrap();
        drop(store);
        assert_eq!(terms(&place.open().unwrap().load().unwrap()), [1, 2, 2, 2, 3]);
    }

    #[test]
    fn large_batches_are_synced_wherever_sled_puts_them() {
        let place = Place::new();
        let mut store = place.open().unwrap();
        for n in 0..20 {
            store.write(&batch(1 + 8 * n, &[1; 8], 64 << 10)).unwrap();
            store.sync().unwrap();
            let there = fs::read_dir(place.0.join(BLOBS)).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(store.blobs, there.collect());
        }
        drop(store);
        assert_eq!(terms(&place.open().unwrap().load().unwrap()).len(), 160);
    }

    #[test]
    fn a_last_batch_of_which_parts_are_missing_is_dropped_and_any_other_is_damage() {
        let place = Place::new();
        let mut store = place.open().unwrap();
        store.write(&batch(1, &[1], 0)).unwrap();
        store.write(&batch(2, &[1, 1], PART_MAX)).unwrap();
        store.db.remove(Key { number: 1, part: 1, parts: 3 }.emit()).unwrap().expect("it was there");
        assert_eq!(terms(&store.load().unwrap()), [1]);
        store.write(&batch(2, &[5], 0)).unwrap();
        assert_eq!(terms(&store.load().unwrap()), [1, 5], "the number is used again");
        store.write(&batch(3, &[6], 0)).unwrap();
        store.db.remove(Key { number: 1, part: 0, parts: 1 }.emit()).unwrap().expect("it was there");
        assert!(matches!(store.load(), Err(StorageError::Damaged(_))));
    }

    #[test]
    fn any_changed_value_is_found() {
        let place = Place::new();
        let mut store = place.open().unwrap();
        store.write(&batch(1, &[1], 100)).unwrap();
        store.write(&batch(2, &[1], 100)).unwrap();
        let keys: Vec<_> = store.db.iter().keys().map(Result::unwrap).collect();
        assert_eq!(keys.len(), 3, "identity and two batches");
        store.sync().unwrap();
        drop(store);
        for key in keys {
            let flip = || {
                let db = sled::open(&place.0).unwrap();
                let mut value = db.get(&key).unwrap().unwrap().to_vec();
                value[20] ^= 1;
                db.insert(&key, value).unwrap();
            };
            flip();
            let found = place.open().and_then(|mut store| store.load());
            assert!(matches!(found, Err(StorageError::Damaged(_))), "{found:?}");
            flip();
            assert_eq!(terms(&place.open().unwrap().load().unwrap()), [1, 1]);
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let place = Place::new();
        let store = place.open().unwrap();
        assert!(matches!(place.open(), Err(StorageError::InUse(_))));
        drop(store);
        let other = SledStorage::open(&place.0, GroupId(1), NodeId(2), Safety::Synced);
        let error = other.unwrap_err();
        assert!(matches!(error, StorageError::Foreign { .. }) && error.to_string().contains("n1.1"), "{error}");
        assert!(SledStorage::open(&place.0, GroupId(2), NodeId(1), Safety::Synced).is_err());
        let somewhere = Place::new();
        fs::create_dir(&somewhere.0).unwrap();
        fs::write(somewhere.0.join("letter"), "dear").unwrap();
        assert!(matches!(somewhere.open(), Err(StorageError::NotAStore(_))));
    }
}
