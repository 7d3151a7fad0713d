//! A store on disk, in `sled` databases (protocol.md §7.5).
//!
//! It is a journal: batches in the order in which they were written. Reading it again replays it; what was replaced is
//! read and replaced again.
//!
//! sled gives hardly any room back, so the journal is cut into segments, each a database in a directory of its own
//! ([`segment`]), and what is forgotten goes a segment at a time. A segment begins with a batch that says everything but
//! the records before it: term and vote, lives, and up to where the log is forgotten. So one may be removed as soon as a
//! later batch, which is safe, forgets all entries that are in it, and those before it are gone.
//!
//! A segment counts only once the one before it says that it is there: until then that is the last one. Where the last
//! one ends without saying so nothing is missing, and everywhere else it is damage. What is removed is first renamed.
//!
//! A batch of which parts are missing is one that was being written when the machine died, if it is the last: nobody has
//! been told that it is safe. Anywhere else, or with a wrong checksum, it is damage.
//!
//! Version 1 had one database, in the directory itself. It is read as the first segment; the next one is begun at once,
//! and the first is marked such that programs of version 1 refuse it.

mod replay;
mod segment;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use bytes::BufMut;

use super::identity::Identity;
use super::{HardState, Persist, Storage, StorageError, Stored, codec, io_error};
use crate::entropy;
use crate::id::{GroupId, LogIndex, MemberId, NodeId};
use crate::membership::Membership;
use replay::Replay;
use segment::{BEGINNING, BLOBS, IDENTITY, LOG_FILE, NEXT, Segment};
use terms::Terms;

/// How long a segment grows.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Names of segments begin with it, of those that are being removed with the other.
const SEGMENT_NAME: &str = "journal-";
const OLD_NAME: &str = "old-";
/// The segment that version 1 has left.
const ROOT: u64 = 0;
const FIRST: u64 = 1;

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
    path: PathBuf,
    safety: Safety,
    segment_bytes: u64,
    identity: Identity,
    /// The segment that is written, and its number.
    current: Segment,
    number: u64,
    /// The highest index that is in it.
    highest: LogIndex,
    /// Those before it.
    older: VecDeque<Older>,
    /// The next one, nearly ready.
    prepared: Option<JoinHandle<Result<Segment, StorageError>>>,
    /// Segments are being removed.
    removing: Option<JoinHandle<Result<(), StorageError>>>,
    /// Number of the next batch in the journal. Not the core's number, which begins anew with each process.
    next: u64,
    is_loaded: bool,
    hard_state: HardState,
    lives: Vec<(MemberId, u64)>,
    log: Terms,
    steps: Steps,
    /// Locked as long as the store is open. Last, so that sled has let go before.
    _lock: File,
}

/// A segment that is only read again.
#[derive(Debug)]
struct Older {
    number: u64,
    /// The highest index that is in it.
    highest: LogIndex,
    /// Until sled has put it away.
    closing: Option<JoinHandle<()>>,
}

impl SledStorage {
    /// Opens the store of `node` in `path`; `None` if there is none, nor anything else.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(path: &Path, group: GroupId, node: NodeId, safety: Safety) -> Result<Option<Self>, StorageError> {
        let found = names_in(path)?;
        if found.is_empty() {
            return Ok(None);
        }
        let is_ours = |name: &str| name.starts_with(SEGMENT_NAME) || name.starts_with(OLD_NAME) || name == LOG_FILE;
        if !found.iter().any(|name| is_ours(name)) {
            return Err(StorageError::NotAStore(path.to_owned()));
        }
        let lock = lock(path)?;
        remove_leftovers(path)?;
        let segments = segments_in(path)?;
        let Some(number) = segments.first().copied() else {
            return Err(StorageError::Damaged("all segments of the journal are missing".to_owned()));
        };
        let current = Segment::open(&segment_path(path, number))?;
        let identity = match current.get(IDENTITY)? {
            Some(identity) => Identity::parse(&identity)?,
            // A process died while it made this store.
            None if current.is_empty() && segments == [FIRST] => return Ok(None),
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
        Ok(Some(Self::with(path, safety, identity, (number, current), lock)))
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
        let lock = lock(path)?;
        let identity = Identity { group, member, life: entropy::draw(), membership: Some(membership.clone()) };
        let first = Segment::open(&segment_path(path, FIRST))?;
        let mut store = Self::with(path, safety, identity, (FIRST, first), lock);
        let beginning = Beginning { number: FIRST, first: 0, fresh: true }.emit();
        store.current.put_together(&[(IDENTITY, &store.identity.emit()), (BEGINNING, &beginning)])?;
        store.make_safe()?;
        store.current.sync_directories()?;
        sync_directory(path.parent().unwrap_or(path))?;
        Ok(store)
    }

    fn with(path: &Path, safety: Safety, identity: Identity, (number, current): (u64, Segment), lock: File) -> Self {
        Self {
            path: path.to_owned(),
            safety,
            segment_bytes: SEGMENT_BYTES,
            identity,
            current,
            number,
            highest: 0,
            older: VecDeque::new(),
            prepared: None,
            removing: None,
            next: 0,
            is_loaded: false,
            hard_state: HardState::default(),
            lives: Vec::new(),
            log: Terms::default(),
            steps: Steps::default(),
            _lock: lock,
        }
    }

    /// How safe what is synced is.
    pub fn safety(&self) -> Safety {
        self.safety
    }

    /// Whose this is, since when.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Begins the next segment, as if `batch` had been written as far as it is not about records, if it is given: then
    /// nothing of the log before it counts any more.
    fn begin_next(&mut self, batch: Option<&Persist>) -> Result<(), StorageError> {
        self.steps.step();
        self.make_safe()?;
        let number = self.number + 1;
        let mut segment = match self.prepared.take() {
            Some(prepared) => prepared.join().unwrap_or_else(|_| Err(StorageError::Io("sled panicked".to_owned())))?,
            None => prepare(&segment_path(&self.path, number), &self.identity.emit())?,
        };
        let hard_state = batch.and_then(|batch| batch.hard_state).unwrap_or(self.hard_state);
        let compacted = batch.map_or(self.log.base(), |batch| batch.compacted.unwrap_or_default());
        let lives = self.lives.iter().chain(batch.iter().flat_map(|batch| &batch.lives)).copied().collect();
        let last = if batch.is_some() { compacted.0 } else { self.log.last() };
        let first = Persist {
            number: self.next,
            hard_state: Some(hard_state),
            lives,
            compacted: Some(compacted).filter(|(index, _)| *index > 0),
            first: last + 1,
            records: Vec::new(),
        };
        self.steps.step();
        segment.put(BEGINNING, &Beginning { number, first: self.next, fresh: batch.is_some() }.emit())?;
        segment.put_batch(self.next, &first)?;
        self.steps.step();
        segment.flush()?;
        if self.safety == Safety::Synced {
            segment.sync_files()?;
            segment.sync_directories()?;
        }
        self.steps.step();
        // From here on it counts.
        self.current.put_together(&[(IDENTITY, &self.identity.emit()), (NEXT, &emit_next(number))])?;
        self.make_safe()?;
        self.steps.step();
        let before = std::mem::replace(&mut self.current, segment);
        // sled takes its time to put its things away.
        let closing = thread::Builder::new().name("journal".to_owned()).spawn(move || drop(before));
        let closing = Some(closing.map_err(|error| io_error(&error))?);
        let highest = if batch.is_some() { 0 } else { self.highest };
        if batch.is_some() {
            // Nothing of the log before it counts.
            self.older.iter_mut().for_each(|older| older.highest = 0);
        }
        self.older.push_back(Older { number: self.number, highest, closing });
        self.number = number;
        self.highest = 0;
        self.next += 1;
        Ok(())
    }

    /// Makes what was written to the current segment as safe as the policy demands.
    fn make_safe(&mut self) -> Result<(), StorageError> {
        self.current.flush()?;
        match self.safety {
            Safety::Written => Ok(()),
            Safety::Synced => self.current.sync_files(),
        }
    }

    /// Removes the segments of which nothing is needed, now that everything that was written is safe; on a thread of its
    /// own, because that takes a while and nobody waits for it.
    fn remove_forgotten(&mut self) -> Result<(), StorageError> {
        if self.removing.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(removing) = self.removing.take()
        {
            removing.join().unwrap_or_else(|_| Err(StorageError::Io("removing a segment panicked".to_owned())))?;
        }
        let base = self.log.base().0;
        let count = self.older.iter().take_while(|older| older.highest <= base).count();
        if count == 0 || self.removing.is_some() {
            return Ok(());
        }
        let forgotten: Vec<Older> = self.older.drain(..count).collect();
        let (path, safety) = (self.path.clone(), self.safety);
        if self.steps.is_watched() {
            return forgotten.into_iter().try_for_each(|older| remove(&path, older, safety, || self.steps.step()));
        }
        let removal = move || forgotten.into_iter().try_for_each(|older| remove(&path, older, safety, || ()));
        let removing = thread::Builder::new().name("journal".to_owned()).spawn(removal);
        self.removing = Some(removing.map_err(|error| io_error(&error))?);
        Ok(())
    }

    /// Has another thread make the next segment, so that nobody has to wait for that.
    fn prepare_next(&mut self) -> Result<(), StorageError> {
        if self.prepared.is_none() && self.current.written >= self.segment_bytes / 2 {
            let (path, identity) = (segment_path(&self.path, self.number + 1), self.identity.emit());
            let made = thread::Builder::new().name("journal".to_owned()).spawn(move || prepare(&path, &identity));
            self.prepared = Some(made.map_err(|error| io_error(&error))?);
        }
        Ok(())
    }

    /// How the current segment begins, checked. Version 1 does not say.
    fn beginning(&self) -> Result<Beginning, StorageError> {
        match self.current.get(BEGINNING)? {
            Some(bytes) => Beginning::parse(&bytes, self.number),
            None if self.number == ROOT => Ok(Beginning { number: ROOT, first: 0, fresh: true }),
            None => Err(StorageError::Damaged(format!("the beginning of segment {} is missing", self.number))),
        }
    }
}

impl Storage for SledStorage {
    fn write(&mut self, batch: &Persist) -> Result<(), StorageError> {
        assert!(self.is_loaded, "what is kept is read before more is written");
        if self.current.written >= self.segment_bytes {
            self.begin_next(None)?;
        }
        if batch.compacted.is_some_and(|compacted| self.log.is_replaced_by(compacted)) {
            self.begin_next(Some(batch))?;
        }
        self.steps.step();
        self.current.put_batch(self.next, batch)?;
        self.next += 1;
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        self.lives.extend(batch.lives.iter().filter(|life| !self.lives.contains(life)).copied().collect::<Vec<_>>());
        if let Some(compacted) = batch.compacted {
            self.log.forget(compacted);
        }
        self.log.put(batch.first, batch.records.iter().map(|record| record.term));
        if !batch.records.is_empty() {
            self.highest = self.highest.max(self.log.last());
        }
        self.prepare_next()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.steps.step();
        self.make_safe()?;
        self.remove_forgotten()
    }

    fn load(&mut self) -> Result<Stored, StorageError> {
        assert!(!self.is_loaded, "what is kept is read once");
        let mut replay = Replay::default();
        loop {
            // What a killed process had written may be in the system's memory only, and is relied on from now on.
            if self.safety == Safety::Synced {
                self.current.sync_files()?;
            }
            let beginning = self.beginning()?;
            if self.older.is_empty() {
                self.next = beginning.first;
            } else if beginning.first != self.next {
                return Err(StorageError::Damaged(format!("batch {} is missing", self.next)));
            }
            replay.begin(beginning.fresh);
            if beginning.fresh {
                self.older.iter_mut().for_each(|older| older.highest = 0);
            }
            let mut highest = 0;
            self.next = self.current.read(self.next, &mut |batch| {
                highest = replay.take(batch)?.max(highest);
                Ok(())
            })?;
            self.highest = highest;
            let Some(next) = self.current.get(NEXT)? else { break };
            let next = parse_next(&next, self.number)?;
            let path = segment_path(&self.path, next);
            if !Segment::is_in(&path) {
                return Err(StorageError::Damaged(format!("segment {next} is missing")));
            }
            self.older.push_back(Older { number: self.number, highest, closing: None });
            self.number = next;
            self.current = Segment::open(&path)?;
            if self.current.get(IDENTITY)?.as_deref() != Some(&self.identity.emit()) {
                return Err(StorageError::Damaged(format!("the identity of segment {next} is not what was written")));
            }
        }
        // One that does not count yet, or was only prepared.
        for number in segments_in(&self.path)?.into_iter().filter(|number| *number > self.number) {
            retire(&self.path, number)?;
        }
        remove_leftovers(&self.path)?;
        let stored = replay.finish()?;
        self.hard_state = stored.hard_state;
        self.lives.clone_from(&stored.lives);
        self.log = Terms::after(stored.base);
        self.log.put(stored.base.0 + 1, stored.records.iter().map(|record| record.term));
        self.is_loaded = true;
        if self.number == ROOT {
            self.begin_next(None)?;
        }
        Ok(stored)
    }
}

impl Drop for SledStorage {
    fn drop(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            // Nobody else may find it half made.
            _ = prepared.join();
        }
        if let Some(removing) = self.removing.take() {
            _ = removing.join();
        }
        self.older.iter_mut().filter_map(|older| older.closing.take()).for_each(|closing| _ = closing.join());
    }
}

/// Removes a segment, with a step before each change.
fn remove(path: &Path, older: Older, safety: Safety, mut step: impl FnMut()) -> Result<(), StorageError> {
    step();
    older.closing.map(JoinHandle::join);
    retire(path, older.number)?;
    if safety == Safety::Synced {
        sync_directory(path)?;
    }
    step();
    // sled's threads may still be busy in there. Then it goes with the next one, or when the store is opened.
    if let Err(error) = remove_leftovers(path) {
        tracing::debug!(%error, "a segment that is not needed any more stays for now");
    }
    step();
    Ok(())
}

/// A new segment that says whose it is and does not count yet.
fn prepare(path: &Path, identity: &[u8]) -> Result<Segment, StorageError> {
    let mut segment = Segment::open(path)?;
    segment.put(IDENTITY, identity)?;
    segment.flush()?;
    Ok(segment)
}

fn segment_path(path: &Path, number: u64) -> PathBuf {
    if number == ROOT { path.to_owned() } else { path.join(format!("{SEGMENT_NAME}{number:010}")) }
}

/// Numbers of the segments there are.
fn segments_in(path: &Path) -> Result<Vec<u64>, StorageError> {
    let named = names_in(path)?.into_iter();
    let mut numbers: Vec<u64> = named.filter_map(|name| name.strip_prefix(SEGMENT_NAME)?.parse().ok()).collect();
    if Segment::is_in(path) {
        numbers.push(ROOT);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Takes a segment out, at once and for good; [`remove_leftovers`] does the rest.
fn retire(path: &Path, number: u64) -> Result<(), StorageError> {
    let (from, to) = match number {
        ROOT => (path.join(LOG_FILE), path.join(format!("{OLD_NAME}{LOG_FILE}"))),
        _ => (segment_path(path, number), path.join(format!("{OLD_NAME}{number:010}"))),
    };
    fs::rename(from, to).map_err(|error| io_error(&error))
}

/// Removes what is left of segments that have been taken out.
fn remove_leftovers(path: &Path) -> Result<(), StorageError> {
    // Beside the segment of version 1.
    let is_roots = |name: &str| name == "conf" || name == BLOBS || name.starts_with("snap.");
    let has_root = Segment::is_in(path);
    for name in names_in(path)? {
        if name.starts_with(OLD_NAME) || !has_root && is_roots(&name) {
            let leftover = path.join(name);
            let removed = if leftover.is_dir() { fs::remove_dir_all(&leftover) } else { fs::remove_file(&leftover) };
            removed.map_err(|error| io_error(&error))?;
        }
    }
    Ok(())
}

/// The names in a directory; none if there is no directory.
fn names_in(path: &Path) -> Result<Vec<String>, StorageError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| io_error(&error))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.map(|entry| name(entry).map_err(|error| io_error(&error))).collect()
}

fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| io_error(&error))
}

/// How a segment begins.
struct Beginning {
    number: u64,
    /// Number of its first batch.
    first: u64,
    /// Nothing of the log before it counts.
    fresh: bool,
}

impl Beginning {
    fn emit(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.put_u16(codec::VERSION);
        to.put_u16(u16::from(self.fresh));
        to.put_u64(self.number);
        to.put_u64(self.first);
        with_checksum(to)
    }

    fn parse(bytes: &[u8], number: u64) -> Result<Self, StorageError> {
        let damaged = || damaged_value(&format!("the beginning of segment {number}"));
        let bytes: &[u8; 28] = checked(bytes).ok_or_else(damaged)?;
        check_version(u16::from_be_bytes([bytes[0], bytes[1]]))?;
        let beginning = Self { number: u64_at(bytes, 4), first: u64_at(bytes, 12), fresh: bytes[3] == 1 };
        if beginning.number == number { Ok(beginning) } else { Err(damaged()) }
    }
}

/// Which segment is next, as bytes.
fn emit_next(number: u64) -> Vec<u8> {
    let mut to = Vec::new();
    to.put_u16(codec::VERSION);
    to.put_u64(number);
    with_checksum(to)
}

fn parse_next(bytes: &[u8], number: u64) -> Result<u64, StorageError> {
    let damaged = || damaged_value(&format!("the end of segment {number}"));
    let bytes: &[u8; 18] = checked(bytes).ok_or_else(damaged)?;
    check_version(u16::from_be_bytes([bytes[0], bytes[1]]))?;
    Some(u64_at(bytes, 2)).filter(|next| *next == number + 1).ok_or_else(damaged)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = codec::checksum(&bytes);
    bytes.put_u64(sum);
    bytes
}

/// Bytes of this length with the right checksum at their end.
fn checked<const LEN: usize>(bytes: &[u8]) -> Option<&[u8; LEN]> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    (codec::checksum(&bytes[..LEN - 8]) == u64_at(bytes, LEN - 8)).then_some(bytes)
}

fn check_version(version: u16) -> Result<(), StorageError> {
    if codec::can_read(version) { Ok(()) } else { Err(StorageError::Version { found: version, known: codec::VERSION }) }
}

fn damaged_value(what: &str) -> StorageError {
    StorageError::Damaged(format!("{what} is not what was written"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
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

/// Where tests look at what a crash would leave: around each change.
#[derive(Default)]
struct Steps {
    #[cfg(test)]
    look: Option<Box<dyn FnMut() + Send>>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Steps")
    }
}

#[cfg_attr(not(test), expect(clippy::unused_self, clippy::needless_pass_by_ref_mut))]
impl Steps {
    fn is_watched(&self) -> bool {
        #[cfg(test)]
        return self.look.is_some();
        #[cfg(not(test))]
        false
    }

    fn step(&mut self) {
        #[cfg(test)]
        if let Some(look) = &mut self.look {
            look();
        }
    }
}
