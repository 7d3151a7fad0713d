//! A [`SessionTable`] as bytes, and back.
//!
//! The bytes are canonical: equal tables, however they came about, give equal bytes. Integers are in network byte
//! order.
//!
//! | part | layout |
//! |---|---|
//! | head | version u16; the limits: sessions, expiry in ns, window, cache bytes, u64 each; log time u64 |
//! | sessions | count u64; each, least recently used first: client, last index, last time, first-unacknowledged, count of executed seqs and these, u64 each |
//! | replies | count u64; each, in log order: client, seq, index u64, status u8, body |
//! | tail | [`SessionTable::hash`] u64 |

use bytes::{Buf, BufMut, Bytes, TryGetError};
use r2p2::Instant;
use r2p2::wire::ReplyStatus;
use thiserror::Error;

use super::window::{Place, Window};
use super::{CachedReply, SessionLimits, SessionState, SessionTable, cost};
use crate::id::LogIndex;

/// Version of the layout above.
const VERSION: u16 = 1;

/// What is wrong with the bytes of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    /// It was written by another version of the program.
    #[error("the snapshot has format version {found}, this program reads version {expected}")]
    Version {
        /// The snapshot's.
        found: u16,
        /// This program's.
        expected: u16,
    },
    /// It was written under other limits: this node would go on to decide otherwise than the one that wrote it.
    #[error("{limit} is {found} in the snapshot but {configured} here: it must be the same on all nodes")]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// The snapshot's.
        found: u64,
        /// This node's.
        configured: u64,
    },
    /// It ends early.
    #[error("the snapshot ends early")]
    Truncated,
    /// It contradicts itself.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

impl From<TryGetError> for SnapshotError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl SessionTable {
    /// The whole table as bytes, such that [`SessionTable::restore`] of them gives one that behaves equally.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.put_u16(VERSION);
        for (_, limit) in named(&self.limits) {
            to.put_u64(limit);
        }
        to.put_u64(self.time.as_nanos());
        to.put_u64(self.sessions.len() as u64);
        for session in self.sessions.iter() {
            to.put_u64(session.client);
            to.put_u64(session.used_index);
            to.put_u64(session.used_time.as_nanos());
            to.put_u64(session.window.first());
            to.put_u64(session.window.len());
            session.window.iter().for_each(|seq| to.put_u64(seq));
        }
        to.put_u64(self.replies.len() as u64);
        for cached in self.replies.iter() {
            to.put_u64(cached.client);
            to.put_u64(cached.seq);
            to.put_u64(cached.reply.index);
            to.put_u8(status_code(cached.reply.status));
            put_bytes(&mut to, &cached.reply.body);
        }
        to.put_u64(self.hash());
        to
    }

    /// The table that [`SessionTable::snapshot`] was taken from. Any bytes are safe to try.
    ///
    /// # Errors
    /// What is wrong with the bytes, or how `limits` differ from the ones that they were written under.
    ///
    /// # Panics
    /// If a limit is 0 that must be at least 1.
    pub fn restore(limits: SessionLimits, mut from: &[u8]) -> Result<Self, SnapshotError> {
        let version = from.try_get_u16()?;
        if version != VERSION {
            return Err(SnapshotError::Version { found: version, expected: VERSION });
        }
        for (limit, configured) in named(&limits) {
            let found = from.try_get_u64()?;
            if found != configured {
                return Err(SnapshotError::Limit { limit, found, configured });
            }
        }
        let mut table = Self::new(limits);
        table.time = Instant::from_nanos(from.try_get_u64()?);
        let mut newest = (0, Instant::ZERO);
        for _ in 0..from.try_get_u64()? {
            newest = table.restore_session(&mut from, newest)?;
        }
        let mut newest = 0;
        for _ in 0..from.try_get_u64()? {
            newest = table.restore_reply(&mut from, newest)?;
        }
        // Every other contradiction would be a fault of this program, not of the bytes.
        table.sum = table.sum_from_scratch();
        if from.try_get_u64()? != table.hash() {
            return Err(SnapshotError::Damaged("the session table does not have the hash it had"));
        }
        if from.has_remaining() {
            return Err(SnapshotError::Damaged("there are bytes after the session table"));
        }
        Ok(table)
    }

    /// Reads one session, which was used after `newest`; returns when that was.
    fn restore_session(
        &mut self,
        from: &mut &[u8],
        newest: (LogIndex, Instant),
    ) -> Result<(LogIndex, Instant), SnapshotError> {
        let client = from.try_get_u64()?;
        let used = (from.try_get_u64()?, Instant::from_nanos(from.try_get_u64()?));
        if client == 0 || used.0 < client || used.0 <= newest.0 || used.1 < newest.1 || used.1 > self.time {
            return Err(SnapshotError::Damaged("a session's last use is out of order"));
        }
        if self.sessions.len() >= self.limits.sessions_max {
            return Err(SnapshotError::Damaged("there are more sessions than sessions_max"));
        }
        let mut window = Window::new(self.limits.seq_window);
        window.advance(from.try_get_u64()?, |_| ());
        let mut above = None;
        for _ in 0..from.try_get_u64()? {
            let seq = from.try_get_u64()?;
            if above.is_some_and(|above| seq <= above) || window.place(seq) != Place::Inside {
                return Err(SnapshotError::Damaged("an executed seq is out of order or outside the window"));
            }
            window.insert(seq);
            above = Some(seq);
        }
        let session = SessionState::new(client, used.0, used.1, window);
        if self.by_client.insert(client, self.sessions.push_back(session)).is_some() {
            return Err(SnapshotError::Damaged("a session occurs twice"));
        }
        Ok(used)
    }

    /// Reads one reply, which was given by an entry after `newest`; returns which one.
    fn restore_reply(&mut self, from: &mut &[u8], newest: LogIndex) -> Result<LogIndex, SnapshotError> {
        let (client, seq, index) = (from.try_get_u64()?, from.try_get_u64()?, from.try_get_u64()?);
        let status = status_from(from.try_get_u8()?).ok_or(SnapshotError::Damaged("a reply has an unknown status"))?;
        let body = Bytes::copy_from_slice(take_bytes(from)?);
        if index <= newest {
            return Err(SnapshotError::Damaged("a reply is out of order"));
        }
        if self.reply_bytes + cost(&body) > self.limits.cache_bytes_max {
            return Err(SnapshotError::Damaged("the replies exceed cache_bytes_max"));
        }
        let key = self.by_client.get(&client).copied();
        let Some(key) = key.filter(|&key| self.sessions.get(key).window.contains(seq)) else {
            return Err(SnapshotError::Damaged("there is a reply to a write that was not executed"));
        };
        if self.sessions.get(key).replies.iter().any(|&(other, _)| other == seq) {
            return Err(SnapshotError::Damaged("there are two replies to one write"));
        }
        self.keep(key, seq, CachedReply { index, status, body });
        Ok(index)
    }
}

/// Appends a length and as many bytes.
fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.put_u64(bytes.len() as u64);
    to.put_slice(bytes);
}

/// Reads what [`put_bytes`] appended.
fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], SnapshotError> {
    let len = usize::try_from(from.try_get_u64()?).map_err(|_| SnapshotError::Truncated)?;
    let (bytes, rest) = from.split_at_checked(len).ok_or(SnapshotError::Truncated)?;
    *from = rest;
    Ok(bytes)
}

fn named(limits: &SessionLimits) -> [(&'static str, u64); 4] {
    [
        ("sessions_max", limits.sessions_max as u64),
        ("session_expiry in ns", u64::try_from(limits.session_expiry.as_nanos()).unwrap_or(u64::MAX)),
        ("seq_window", limits.seq_window),
        ("cache_bytes_max", limits.cache_bytes_max as u64),
    ]
}

/// The status as the snapshot and the hash know it; not the wire's number, which may change.
pub(super) const fn status_code(status: Option<ReplyStatus>) -> u8 {
    match status {
        None => 0,
        Some(ReplyStatus::Expired) => 1,
        Some(ReplyStatus::ReplyGone) => 2,
        Some(ReplyStatus::TooLarge) => 3,
        Some(ReplyStatus::ServiceError) => 4,
        Some(ReplyStatus::NotLeader) => 5,
    }
}

const fn status_from(code: u8) -> Option<Option<ReplyStatus>> {
    Some(match code {
        0 => None,
        1 => Some(ReplyStatus::Expired),
        2 => Some(ReplyStatus::ReplyGone),
        3 => Some(ReplyStatus::TooLarge),
        4 => Some(ReplyStatus::ServiceError),
        5 => Some(ReplyStatus::NotLeader),
        _ => return None,
    })
}
