//! Append, as far as it concerns what sits in the network.

use super::{MessageError, Reader, Writer};
use crate::id::{LogIndex, Term};

/// Bytes of an Append without its entries, after the envelope.
pub const APPEND_LEN: usize = 6 * 8 + 4;

/// What an Append says before its entries (protocol.md §5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppendHead {
    /// Index of the entry before the first.
    pub prev: LogIndex,
    /// Its term.
    pub prev_term: Term,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// Up to where the leader itself has persisted its log, as the durability policy demands.
    pub persisted: LogIndex,
    /// Where the acknowledgement goes: 0 to the leader, else to the aggregator armed under this id.
    pub arm: u64,
    /// Term of all entries.
    pub entries_term: Term,
    /// How many entries follow.
    pub count: u32,
}

impl AppendHead {
    /// Index of the last entry, or `prev` if there are none.
    pub const fn last(&self) -> LogIndex {
        self.prev + self.count as u64
    }

    /// Writes it; the entries are to follow.
    pub fn emit(&self, to: &mut Writer) {
        for number in [self.prev, self.prev_term, self.commit, self.persisted, self.arm, self.entries_term] {
            to.u64(number);
        }
        to.u32(self.count);
    }

    /// Reads it, up to the first entry.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let head = Self {
            prev: from.number()?,
            prev_term: from.number()?,
            commit: from.number()?,
            persisted: from.number()?,
            arm: from.u64()?,
            entries_term: from.number()?,
            count: from.u32()?,
        };
        // Makes the raft crate believe that an index outside of the log matches (protocol.md §11).
        if (head.prev == 0) != (head.prev_term == 0) {
            return Err(MessageError::BadValue("previous term"));
        }
        if head.entries_term < head.prev_term || (head.count > 0 && head.entries_term == 0) {
            return Err(MessageError::BadValue("entries' term"));
        }
        Ok(head)
    }
}
