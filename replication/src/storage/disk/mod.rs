//! A store on disk (protocol.md §7.5).
//!
//! It is a journal: batches in the order in which they were written, hard states and what is forgotten among them, so that
//! none of them can be ahead of another. Reading it again replays it; what was replaced is read and replaced again.
//!
//! | in the directory | what |
//! |---|---|
//! | `segment-0000000001` and so on | the journal ([`segment`]) |
//! | `registers` | whose it is and which segments there are ([`registers`]) |
//! | `spare` | the file of a segment that was removed, for the next one |
//!
//! The journal is cut into segments, and what is forgotten goes a segment at a time. A segment begins with a batch that
//! says everything but the records before it: term and vote, lives, and up to where the log is forgotten. So one may be
//! removed as soon as a later batch, which is safe, forgets all entries that are in it, and those before it are gone.
//!
//! A segment counts once its beginning is safe and then the registers say that it is there; one that is removed counts
//! until the registers say that it does not. So a segment that counts and is missing is damage, and so is whatever is
//! missing between two batches. Where the last segment ends nothing is missing, as far as can be told: every batch says which ones
//! before it were safe. A batch that says nothing else is written when nothing happens for a while, and a register says where a
//! store ends when it is closed. Only of a group that is the last one before a process dies nothing says
//! that: if the disk changes it later on, it is taken for one that was never written completely.
//!
//! [`version_2`] is the version before.

mod directory;
mod opening;
mod record;
mod registers;
mod replay;
mod segment;
mod steps;
mod terms;
#[cfg(test)]
mod tests;
mod version_2;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use super::identity::Identity;
use super::{HardState, Persist, Storage, StorageError, Stored, io_error};
use crate::entropy;
use crate::id::{LogIndex, MemberId};
use directory::{remove_segment, segment_path, spare_path, sync_directory};
use record::Beginning;
use registers::{Register, Registers};
use segment::{BUFFER_MAX, Segment};
use steps::Steps;
use terms::Terms;

/// How long a segment grows.
const SEGMENT_BYTES: u64 = 64 << 20;
const FIRST: u64 = 1;
/// The longest file that is kept for another segment.
const SPARE_MAX: u64 = 2 * SEGMENT_BYTES;

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
pub struct DiskStorage {
    path: PathBuf,
    safety: Safety,
    segment_bytes: u64,
    identity: Identity,
    registers: Registers,
    /// The segment that is written, once what is kept has been read, and its number.
    current: Option<Segment>,
    number: u64,
    /// The highest index that is in it.
    highest: LogIndex,
    /// Those before it.
    older: VecDeque<Older>,
    /// The file of the next one.
    prepared: Option<JoinHandle<io::Result<File>>>,
    /// Segments are being removed.
    removing: Option<JoinHandle<Result<(), StorageError>>>,
    /// Number of the next batch in the journal. Not the core's number, which begins anew with each process.
    next: u64,
    /// Batches before this number are safe.
    safe: u64,
    /// Batches before this number are known to be safe by what is written, or by a register.
    known_safe: u64,
    has_failed: bool,
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
}

impl DiskStorage {
    fn with(path: &Path, safety: Safety, identity: Identity, registers: Registers, lock: File) -> Self {
        Self {
            path: path.to_owned(),
            safety,
            segment_bytes: SEGMENT_BYTES,
            identity,
            registers,
            current: None,
            number: 0,
            highest: 0,
            older: VecDeque::new(),
            prepared: None,
            removing: None,
            next: 0,
            safe: 0,
            known_safe: 0,
            has_failed: false,
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

    /// Writes a batch that says only up to where all is safe, unless something says so already.
    fn write_mark(&mut self) -> Result<(), StorageError> {
        if self.known_safe == self.safe {
            return Ok(());
        }
        let mark = Persist {
            number: self.next,
            hard_state: None,
            lives: Vec::new(),
            compacted: None,
            first: self.log.last() + 1,
            records: Vec::new(),
        };
        let (number, safe) = (self.next, self.safe);
        self.current_mut().put(number, safe, &mark)?;
        self.current_mut().write()?;
        self.next += 1;
        self.known_safe = safe;
        Ok(())
    }

    /// Begins the segment of this number, as if `batch` had been written as far as it is not about records, if it is given:
    /// then nothing of the log before it counts any more.
    fn new_segment(&mut self, number: u64, batch: Option<&Persist>) -> Result<Segment, StorageError> {
        let file = match self.prepared.take() {
            Some(prepared) => prepared.join().unwrap_or_else(|_| Err(io::Error::other("preparing a segment panicked"))),
            None => segment::prepare(&segment_path(&self.path, number), &spare_path(&self.path), 0, self.safety),
        };
        let compacted = batch.map_or(self.log.base(), |batch| batch.compacted.unwrap_or_default());
        let fresh = batch.is_some() || number == FIRST;
        let last = if fresh { compacted.0 } else { self.log.last() };
        let first = Persist {
            number: self.next,
            hard_state: Some(batch.and_then(|batch| batch.hard_state).unwrap_or(self.hard_state)),
            lives: self.lives.iter().chain(batch.iter().flat_map(|batch| &batch.lives)).copied().collect(),
            compacted: Some(compacted).filter(|(index, _)| *index > 0),
            first: last + 1,
            records: Vec::new(),
        };
        self.steps.step();
        let beginning = Beginning { number, first: self.next, fresh, life: self.identity.life, salt: entropy::draw() };
        let mut segment = Segment::begin(file.map_err(|error| io_error(&error))?, &beginning, self.safety)?;
        segment.put(self.next, self.next, &first)?;
        segment.make_safe()?;
        if self.safety == Safety::Synced {
            sync_directory(&self.path)?;
        }
        self.next += 1;
        (self.safe, self.known_safe) = (self.next, self.next);
        self.steps.step();
        Ok(segment)
    }

    /// Begins the next segment. See [`Self::new_segment`].
    fn begin_next(&mut self, batch: Option<&Persist>) -> Result<(), StorageError> {
        self.steps.step();
        self.current_mut().make_safe()?;
        let segment = self.new_segment(self.number + 1, batch)?;
        // From here on it counts.
        self.registers.put(Register::Last, self.number + 1)?;
        self.steps.step();
        self.current = Some(segment);
        let highest = if batch.is_some() { 0 } else { self.highest };
        if batch.is_some() {
            // Nothing of the log before it counts.
            self.older.iter_mut().for_each(|older| older.highest = 0);
        }
        self.older.push_back(Older { number: self.number, highest });
        self.number += 1;
        self.highest = 0;
        Ok(())
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
        let numbers: Vec<u64> = self.older.drain(..count).map(|older| older.number).collect();
        if self.steps.is_watched() {
            return remove(&self.path, &self.registers, &numbers, || self.steps.step());
        }
        let (path, registers) = (self.path.clone(), self.registers.clone());
        let removal = move || remove(&path, &registers, &numbers, || ());
        let removing = thread::Builder::new().name("journal".to_owned()).spawn(removal);
        self.removing = Some(removing.map_err(|error| io_error(&error))?);
        Ok(())
    }

    /// Has another thread make the file of the next segment, so that nobody has to wait for that.
    fn prepare_next(&mut self) -> Result<(), StorageError> {
        if self.prepared.is_none() && self.current_mut().len() >= self.segment_bytes / 2 {
            let (path, spare) = (segment_path(&self.path, self.number + 1), spare_path(&self.path));
            // The last group goes beyond the end.
            let (len, safety) = (self.segment_bytes + BUFFER_MAX as u64, self.safety);
            let prepare = move || segment::prepare(&path, &spare, len, safety);
            let made = thread::Builder::new().name("journal".to_owned()).spawn(prepare);
            self.prepared = Some(made.map_err(|error| io_error(&error))?);
        }
        Ok(())
    }

    fn current_mut(&mut self) -> &mut Segment {
        self.current.as_mut().expect("what is kept is read before more is written")
    }

    fn write_batch(&mut self, batch: &Persist) -> Result<(), StorageError> {
        if self.current_mut().len() >= self.segment_bytes {
            self.begin_next(None)?;
        }
        if batch.compacted.is_some_and(|compacted| self.log.is_replaced_by(compacted)) {
            self.begin_next(Some(batch))?;
        }
        self.steps.step();
        let (number, safe) = (self.next, self.safe);
        self.current_mut().put(number, safe, batch)?;
        self.known_safe = safe;
        self.next += 1;
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        for life in &batch.lives {
            if !self.lives.contains(life) {
                self.lives.push(*life);
            }
        }
        if let Some(compacted) = batch.compacted {
            self.log.forget(compacted);
        }
        self.log.put(batch.first, batch.records.iter().map(|record| record.term));
        if !batch.records.is_empty() {
            self.highest = self.highest.max(self.log.last());
        }
        self.prepare_next()
    }

    fn sync_all(&mut self) -> Result<(), StorageError> {
        self.steps.step();
        self.current_mut().make_safe()?;
        self.safe = self.next;
        self.steps.step();
        self.remove_forgotten()
    }
}

impl Storage for DiskStorage {
    fn write(&mut self, batch: &Persist) -> Result<(), StorageError> {
        let written = self.write_batch(batch);
        self.has_failed |= written.is_err();
        written
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let synced = self.sync_all();
        self.has_failed |= synced.is_err();
        synced
    }

    fn rest(&mut self) -> Result<(), StorageError> {
        let marked = self.write_mark();
        self.has_failed |= marked.is_err();
        marked
    }

    fn load(&mut self) -> Result<Stored, StorageError> {
        self.read_all()
    }
}

impl Drop for DiskStorage {
    fn drop(&mut self) {
        // Nobody else may find it half made.
        _ = self.prepared.take().map(JoinHandle::join);
        _ = self.removing.take().map(JoinHandle::join);
        if self.current.is_some() && !self.has_failed && !thread::panicking() {
            // Nobody waits for this: without it, what was not synced is what a crash would have left.
            let closed = self.sync().and_then(|()| self.registers.put(Register::Safe, self.safe));
            _ = closed.inspect_err(|error| tracing::warn!(%error, "the store was not closed as it should be"));
            _ = self.removing.take().map(JoinHandle::join);
        }
    }
}

/// Removes segments, the first ones, with a step before each change. The last file is kept for a segment to come.
fn remove(path: &Path, registers: &Registers, numbers: &[u64], mut step: impl FnMut()) -> Result<(), StorageError> {
    let Some((last, others)) = numbers.split_last() else { return Ok(()) };
    step();
    // From here on they do not count.
    registers.put(Register::First, last + 1)?;
    step();
    others.iter().try_for_each(|number| remove_segment(path, *number))?;
    step();
    let last = segment_path(path, *last);
    let is_kept = fs::metadata(&last).map(|file| file.len() <= SPARE_MAX);
    let removed =
        is_kept.and_then(|is_kept| if is_kept { fs::rename(&last, spare_path(path)) } else { fs::remove_file(&last) });
    removed.map_err(|error| io_error(&error))
}
