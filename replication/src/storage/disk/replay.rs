//! What a journal says when it is read from where it begins now.

use std::collections::VecDeque;

use super::super::{HardState, Persist, StorageError, Stored, StoredRecord};
use crate::id::{LogIndex, MemberId, Term};

/// A journal's content so far.
///
/// Where the journal begins now, entries may be missing between what it says is forgotten and its first record: they
/// were in segments that have been removed because a later batch, which is still to come, forgets them.
#[derive(Debug, Default)]
pub(super) struct Replay {
    hard_state: HardState,
    lives: Vec<(MemberId, u64)>,
    base: (LogIndex, Term),
    /// Index of the first record.
    first: LogIndex,
    records: VecDeque<StoredRecord>,
    is_begun: bool,
}

impl Replay {
    /// The next segment begins, with nothing of the log before it if it is `fresh`.
    pub(super) fn begin(&mut self, fresh: bool) {
        if fresh {
            self.records.clear();
        }
        self.is_begun = self.is_begun && !fresh;
    }

    /// The next batch. Returns the highest index that is in it.
    pub(super) fn take(&mut self, batch: Persist) -> Result<LogIndex, StorageError> {
        let Persist { number, hard_state, lives, compacted, first, records } = batch;
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        for life in lives {
            if !self.lives.contains(&life) {
                self.lives.push(life);
            }
        }
        if let Some(compacted) = compacted {
            self.forget(compacted);
        }
        let highest = if records.is_empty() { 0 } else { first + records.len() as u64 - 1 };
        for (record, index) in records.into_iter().zip(first..) {
            self.put(index, record, number)?;
        }
        Ok(highest)
    }

    /// Everything, once the last batch is there.
    pub(super) fn finish(self) -> Result<Stored, StorageError> {
        let Self { hard_state, lives, base, first, records, .. } = self;
        if !records.is_empty() && first != base.0 + 1 {
            return Err(StorageError::Damaged(format!("entries {} to {} are missing", base.0 + 1, first - 1)));
        }
        Ok(Stored { hard_state, lives, base, records: records.into(), snapshot: None })
    }

    fn forget(&mut self, (index, term): (LogIndex, Term)) {
        if index <= self.base.0 {
            return;
        }
        self.base = (index, term);
        let Some(gone) = index.checked_sub(self.first).filter(|_| !self.records.is_empty()) else { return };
        let at = usize::try_from(gone).unwrap_or(usize::MAX);
        if self.records.get(at).is_some_and(|record| record.term == term) {
            self.records.drain(..=at);
            self.first = index + 1;
        } else {
            self.records.clear();
        }
    }

    fn put(&mut self, index: LogIndex, record: StoredRecord, number: u64) -> Result<(), StorageError> {
        let missing = || StorageError::Damaged(format!("entries before {index} are missing in batch {number}"));
        if index <= self.base.0 {
            return Err(missing());
        }
        if self.records.is_empty() {
            // Where the journal begins now there may be a gap, nowhere else.
            if self.is_begun && index != self.base.0 + 1 {
                return Err(missing());
            }
            self.first = index;
        }
        self.is_begun = true;
        let Some(at) = index.checked_sub(self.first) else {
            // In the gap: what is replaced is known to be gone.
            self.records.clear();
            self.first = index;
            self.records.push_back(record);
            return Ok(());
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at > self.records.len() {
            return Err(missing());
        }
        self.records.truncate(at);
        self.records.push_back(record);
        Ok(())
    }
}
