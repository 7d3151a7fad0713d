//! Append: entries on their way from the leader, usually to everybody at once.

use bytes::Bytes;

use multicast::message::{AppendHead, Writer};

use super::MessageError;
use super::reader::Reader;
use crate::entry::{ENTRY_LEN, Entry};
use crate::id::{LogIndex, Term};

/// Entries to append after `prev` (protocol.md §5.4). All entries are of one term; a log that changes term within the
/// range goes out as several Appends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
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
    /// The entries.
    pub entries: AppendEntries,
}

/// The entries of an Append as they travel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AppendEntries(pub Vec<AppendEntry>);

/// One entry of an Append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendEntry {
    /// The entry.
    pub entry: Entry,
    /// Its bytes, shared with the message it came in.
    pub raw: Bytes,
    /// The request's body, in mode `raft` only; elsewhere it has come by multicast. What a membership or a
    /// version says, in every mode.
    pub body: Option<Bytes>,
}

impl Append {
    /// Index of the last entry, or `prev` if there are none.
    pub fn last(&self) -> LogIndex {
        self.prev + self.entries.0.len() as u64
    }

    pub(super) fn emit(&self, to: &mut Writer) {
        let head = AppendHead {
            prev: self.prev,
            prev_term: self.prev_term,
            commit: self.commit,
            persisted: self.persisted,
            arm: self.arm,
            entries_term: self.entries_term,
            count: self.entries.0.len() as u32,
        };
        head.emit(to);
        for item in &self.entries.0 {
            to.bytes(&item.raw);
            match &item.body {
                None => to.u8(0),
                Some(body) => {
                    to.u8(1);
                    to.bytes(body);
                }
            }
        }
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let AppendHead { prev, prev_term, commit, persisted, arm, entries_term, count } = AppendHead::parse(from)?;
        let count = count as usize;
        if count > from.remaining() / (ENTRY_LEN + 1) {
            return Err(MessageError::Truncated);
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let raw = from.bytes(ENTRY_LEN)?;
            let entry = Entry::parse(&raw).ok_or(MessageError::BadValue("entry"))?;
            let body = if from.bool()? { Some(from.bytes(entry.request.body_len as usize)?) } else { None };
            if entry.brings_body() && !body.as_ref().is_some_and(|body| entry.fits_body(body)) {
                return Err(MessageError::BadValue("entry's own body"));
            }
            entries.push(AppendEntry { entry, raw, body });
        }
        Ok(Self { prev, prev_term, commit, persisted, arm, entries_term, entries: AppendEntries(entries) })
    }
}
