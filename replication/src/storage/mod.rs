//! What a node must find again after a restart, and the trait of whatever keeps it (protocol.md §6.1, §6.2, §7.5).
//!
//! # Contract
//! With a durable policy the node core hands out [`crate::Output::Persist`] batches, numbered from 1 without gaps. The
//! driver gives them to a [`Storage`], in that order and never on the network thread, and reports each with
//! [`crate::Node::handle_persisted`] when it is as safe as the policy demands. Reporting one reports all before it, so
//! one [`Storage::sync`] may serve many batches (group commit).
//!
//! The core waits for these reports, and for nothing else, before it lets anybody rely on what it promised:
//! votes and requests for votes stay in until term and vote are safe, acknowledgements and the leader's own count name
//! only what is safe, and only that is executed.
//!
//! After a crash [`Storage::load`] finds everything up to the last sync and, of what was written later, any part that
//! is a *prefix* of the parts of the batches, in the order hard state, what is compacted, then records one by one. A store that cannot
//! keep that order must make its batches atomic.

mod codec;
mod disk;
mod error;
mod identity;

use bytes::Bytes;

use crate::id::{LogIndex, MemberId, Term};
use crate::snapshot::SnapshotInfo;

pub(crate) use codec::checksum;
pub use disk::{DiskStorage, Safety};
pub use error::StorageError;
pub(crate) use error::io_error;
pub use identity::Identity;

/// Term and vote: what Raft must not forget, changed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The current term.
    pub term: Term,
    /// Whom this node has voted for in it.
    pub vote: Option<MemberId>,
}

/// One entry of the log with its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRecord {
    /// The term in which it was proposed.
    pub term: Term,
    /// The entry's bytes, as they travel; see [`crate::entry::Entry::parse`].
    pub entry: Bytes,
    /// The request's body; empty if it has none.
    pub body: Bytes,
}

/// What is to be kept next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Its number, one more than the last one's.
    pub number: u64,
    /// Term and vote, if they have changed.
    pub hard_state: Option<HardState>,
    /// Which process each of these members was when it was first heard (§7.5).
    pub lives: Vec<(MemberId, u64)>,
    /// A snapshot of everything up to this entry, of this term, is safe: what is kept of the log up to there may be
    /// forgotten. If it is not the same entry that is kept there, all of the log goes.
    pub compacted: Option<(LogIndex, Term)>,
    /// Index of the first record. What is kept from there on is replaced.
    pub first: LogIndex,
    /// Records, in order; without any, the log stays as it is.
    pub records: Vec<StoredRecord>,
}

/// What was kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Term and vote.
    pub hard_state: HardState,
    /// Which process each member was when it was first heard.
    pub lives: Vec<(MemberId, u64)>,
    /// Index and term of the last entry before the first record; a snapshot has everything up to there. (0, 0) if nothing
    /// has been forgotten.
    pub base: (LogIndex, Term),
    /// The log behind that.
    pub records: Vec<StoredRecord>,
    /// The newest snapshot and its metadata. Not the store's: whoever opens the archive puts it in.
    pub snapshot: Option<(SnapshotInfo, Bytes)>,
}

impl Stored {
    /// The term of what is kept at `index`, that before the first record included.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let at = index.checked_sub(self.base.0)?;
        let record = usize::try_from(at).ok()?.checked_sub(1).map(|at| self.records.get(at).map(|record| record.term));
        record.unwrap_or(Some(self.base.1))
    }

    /// Forgets the log up to an entry of this index and term, and all of it if that is not the entry there. One that has been
    /// forgotten before changes nothing.
    pub fn put_compacted(&mut self, (index, term): (LogIndex, Term)) {
        if index <= self.base.0 {
            return;
        }
        if self.term_at(index) == Some(term) {
            self.records.drain(..(index - self.base.0) as usize);
        } else {
            self.records.clear();
        }
        self.base = (index, term);
    }

    /// Puts a term and vote in place of those there are.
    pub fn put_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Puts a record at `index`, in place of whatever was there and behind it.
    ///
    /// # Panics
    /// If there is no record before it, or it has been forgotten.
    pub fn put_record(&mut self, index: LogIndex, record: StoredRecord) {
        let at = index.checked_sub(self.base.0 + 1).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.records.len());
        let last = self.base.0 + self.records.len() as u64;
        let at = at.unwrap_or_else(|| panic!("record {index} does not fit between {} and {last}", self.base.0));
        self.records.truncate(at);
        self.records.push(record);
    }
}

/// Keeps what a node must find again. See the module for the contract.
pub trait Storage {
    /// Takes a batch. Until the next sync it may be in this process's memory only.
    ///
    /// # Errors
    /// See [`StorageError`]. What is kept then is unspecified beyond the last sync, and the node must stop.
    fn write(&mut self, batch: &Persist) -> Result<(), StorageError>;

    /// Makes everything that was written survive a crash of the machine.
    ///
    /// # Errors
    /// See [`StorageError`]. A failed sync must not be tried again: the system may have dropped what it could not write.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Called when nothing has come for a while since a sync: time for what nobody waits for.
    ///
    /// # Errors
    /// See [`StorageError`].
    fn rest(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// What is kept, and safe from now on as after a [`Storage::sync`]: the node relies on all of it at once. What only a
    /// crash of the process has left unsynced must be synced before it is returned.
    ///
    /// # Errors
    /// See [`StorageError`]: what is damaged is never repaired by guessing.
    fn load(&mut self) -> Result<Stored, StorageError>;
}
