//! Exactly-once: [`SessionTable`], the part of the replicated state that knows which operations have been executed
//! (protocol.md §3.3, §6.8).
//!
//! Everything here is a function of the log alone. Each replica feeds its table the same entries in the same order,
//! whoever answers them, and therefore takes the same decisions, keeps the same replies and expires the same sessions.

mod mixing;
mod ordered_slab;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::wire::{ReplyStatus, Session};

use crate::id::LogIndex;
pub(crate) use mixing::{mix, mix_bytes};
use ordered_slab::{Key, OrderedSlab};
pub use snapshot::SnapshotError;
use window::{Place, Window};

/// Limits of a [`SessionTable`]. They decide what is replicated state, so they must be equal on all nodes of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// Most sessions at a time; opening one more ends the one that is unused for longest. At least 1. A session takes
    /// `seq_window / 8` bytes and some 200 more.
    pub sessions_max: usize,
    /// A session unused for this long, in log time, is over.
    pub session_expiry: Duration,
    /// A request is executed only if its seq is below first-unacknowledged + `seq_window`. At least 1.
    pub seq_window: u64,
    /// Memory for cached replies of all sessions together: their bodies plus [`REPLY_COST`] each.
    pub cache_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            sessions_max: 65_536,
            session_expiry: Duration::from_secs(600),
            seq_window: 1024,
            cache_bytes_max: 64 << 20,
        }
    }
}

/// What a cached reply is charged beside the bytes of its body.
pub const REPLY_COST: usize = 128;

const _: () = assert!(size_of::<Cached>() + size_of::<(u64, Key)>() + 3 * size_of::<u32>() <= REPLY_COST);

/// What is to be done with a request that an entry names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Execute it. If it is a write it now counts as executed, and [`SessionTable::record`] may add its reply.
    Execute,
    /// Executed before: do not execute it, answer with this.
    Duplicate(Remembered),
    /// The client has been answered or has given up: neither execute nor answer it.
    BelowWindow,
    /// Too far ahead of what the client still waits for: not executed, refused.
    AboveWindow,
    /// The session is not known, or not any more: not executed, answered EXPIRED.
    Expired,
}

/// What is left of an executed write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// Its reply.
    Reply(CachedReply),
    /// That it was executed; the reply has been evicted (EXECUTED, REPLY GONE).
    Gone,
}

/// A reply as it was first given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CachedReply {
    /// The entry that executed the write.
    pub index: LogIndex,
    /// `None` for plain success.
    pub status: Option<ReplyStatus>,
    /// The reply's bytes.
    pub body: Bytes,
}

/// What the table knows of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// A write that has been executed.
    Executed(Remembered),
    /// A write that has not been executed, or a read.
    NotExecuted,
    /// The client has been answered or has given up.
    BelowWindow,
    /// The session is not known, or not any more.
    NoSession,
}

/// What happened to a table. Not replicated: a table restored from a snapshot counts from 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SessionCounters {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions that ended because they were unused for `session_expiry`.
    pub expired: u64,
    /// Sessions that ended because `sessions_max` was reached.
    pub evicted: u64,
    /// Replies that ended because `cache_bytes_max` was reached, those too long to be cached at all included.
    pub replies_evicted: u64,
}

/// The sessions of a group, what each has executed, and the replies to it.
///
/// Call [`advance`](Self::advance), [`open`](Self::open), [`admit`](Self::admit) and [`record`](Self::record) in log
/// order, on every replica, for every entry, whoever answers it.
///
/// Session ids are log indices, and a session that is over is only remembered by its absence. So an id is never given
/// twice, and a request of a session that is over can never be mistaken for one of a session to come.
#[derive(Clone, Debug)]
pub struct SessionTable {
    limits: SessionLimits,
    /// Log time: the latest of all entries.
    time: Instant,
    by_client: BTreeMap<u64, Key>,
    /// The least recently used first, by log order.
    sessions: OrderedSlab<SessionState>,
    /// In log order.
    replies: OrderedSlab<Cached>,
    reply_bytes: usize,
    /// Sum of the hashes of everything remembered; see [`SessionTable::hash`].
    sum: u64,
    counters: SessionCounters,
}

#[derive(Clone, Debug)]
struct SessionState {
    client: u64,
    used_index: LogIndex,
    used_time: Instant,
    window: Window,
    /// The replies that are cached, by seq.
    replies: VecDeque<(u64, Key)>,
    /// Of all of this but what is executed and cached.
    hash: u64,
}

#[derive(Clone, Debug)]
struct Cached {
    client: u64,
    seq: u64,
    reply: CachedReply,
    /// Kept, so that a long body is hashed once.
    hash: u64,
}

impl SessionTable {
    /// An empty table, before the first entry.
    ///
    /// # Panics
    /// If a limit is 0 that must be at least 1.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        assert!(limits.sessions_max >= 1, "sessions_max must be at least 1");
        assert!(limits.seq_window >= 1, "seq_window must be at least 1");
        Self {
            limits,
            time: Instant::ZERO,
            by_client: BTreeMap::new(),
            sessions: OrderedSlab::new(),
            replies: OrderedSlab::new(),
            reply_bytes: 0,
            sum: 0,
            counters: SessionCounters::default(),
        }
    }

    /// Moves log time on to that of an entry and ends the sessions that have been unused for too long by then. Returns
    /// log time, which never goes backwards whatever the entry says.
    ///
    /// [`open`](Self::open) and [`admit`](Self::admit) do this too; it is for entries that have no session.
    pub fn advance(&mut self, time: Instant) -> Instant {
        self.time = self.time.max(time);
        // The first in order of use is also the first in order of time, since log time never goes backwards.
        while let Some(key) = self.sessions.front() {
            if self.time.since(self.sessions.get(key).used_time) < self.limits.session_expiry {
                break;
            }
            self.end(key);
            self.counters.expired += 1;
        }
        self.time
    }

    /// Opens a session and returns its id, which is the index of the entry that asked for it.
    ///
    /// # Panics
    /// If the entries come out of order.
    pub fn open(&mut self, index: LogIndex, time: Instant) -> u64 {
        self.advance(time);
        let newest = self.by_client.last_key_value().map_or(0, |(&client, _)| client);
        assert!(index > newest, "session {index} opened after session {newest}");
        while self.sessions.len() >= self.limits.sessions_max {
            let Some(least_recently_used) = self.sessions.front() else { break };
            self.end(least_recently_used);
            self.counters.evicted += 1;
        }
        let session = SessionState::new(index, index, self.time, Window::new(self.limits.seq_window));
        self.sum = self.sum.wrapping_add(session.hash);
        self.by_client.insert(index, self.sessions.push_back(session));
        self.counters.opened += 1;
        index
    }

    /// Decides about the request of the entry at `index` and does the bookkeeping: the session is in use, what lies
    /// below its first-unacknowledged seq is forgotten, and a write that is to be executed counts as executed.
    ///
    /// A read is executed again whenever it is ordered again, until its seq is acknowledged: it has no effect to be
    /// doubled, and its old answer would not be the state at its new place in the log.
    pub fn admit(&mut self, request: Session, index: LogIndex, time: Instant, read_only: bool) -> Admission {
        self.advance(time);
        let Some(&key) = self.by_client.get(&request.client) else {
            return if mutated!(ExpiredExecuted) { Admission::Execute } else { Admission::Expired };
        };
        // First-unacknowledged first: it may fence the very request that brings it.
        self.touch(key, index, request.first_unacked);
        let session = self.sessions.get_mut(key);
        match session.window.place(request.seq) {
            Place::Below => Admission::BelowWindow,
            Place::Above => Admission::AboveWindow,
            Place::Inside if session.window.contains(request.seq) => {
                if mutated!(DuplicatesExecuted) {
                    return Admission::Execute;
                }
                Admission::Duplicate(self.remembered(key, request.seq))
            }
            Place::Inside => {
                if !read_only || mutated!(ReadChangesState) {
                    session.window.insert(request.seq);
                    self.sum = self.sum.wrapping_add(executed_hash(request.client, request.seq));
                }
                Admission::Execute
            }
        }
    }

    /// Keeps the reply to a write that was admitted at `index`, as long as there is room: the oldest replies, by log
    /// order, make way.
    ///
    /// # Panics
    /// If the write has not been admitted, or if its reply has been recorded.
    pub fn record(&mut self, client: u64, seq: u64, index: LogIndex, status: Option<ReplyStatus>, body: &[u8]) {
        #[cfg(feature = "mutations")]
        match self.lookup(client, seq) {
            Lookup::NoSession if mutated!(ExpiredExecuted) => return,
            Lookup::Executed(Remembered::Reply(_)) if mutated!(DuplicatesExecuted) => return,
            _ => {}
        }
        let key = *self.by_client.get(&client).expect("a reply is recorded right after its request was admitted");
        assert!(self.sessions.get(key).window.contains(seq), "({client}, {seq}) has not been admitted");
        if cost(body) > self.limits.cache_bytes_max {
            self.counters.replies_evicted += 1;
            return;
        }
        while self.reply_bytes + cost(body) > self.limits.cache_bytes_max {
            let Some(oldest) = self.replies.front() else { break };
            self.evict(oldest);
            self.counters.replies_evicted += 1;
        }
        self.keep(key, seq, CachedReply { index, status, body: Bytes::copy_from_slice(body) });
    }

    /// What is known of an operation at this point of the log. Changes nothing.
    #[must_use]
    pub fn lookup(&self, client: u64, seq: u64) -> Lookup {
        let Some(&key) = self.by_client.get(&client) else { return Lookup::NoSession };
        let window = &self.sessions.get(key).window;
        if window.contains(seq) {
            Lookup::Executed(self.remembered(key, seq))
        } else if window.place(seq) == Place::Below {
            Lookup::BelowWindow
        } else {
            Lookup::NotExecuted
        }
    }

    /// A hash of everything that decides future behaviour; equal on replicas at equal indices. Costs nothing: it is
    /// kept up to date as a sum over what is remembered.
    #[must_use]
    pub fn hash(&self) -> u64 {
        mix(&[self.sum, self.time.as_nanos(), self.sessions.len() as u64, self.replies.len() as u64])
    }

    /// Sessions that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replies that are cached.
    #[must_use]
    pub fn cached_replies(&self) -> usize {
        self.replies.len()
    }

    /// What cached replies are charged; never more than `cache_bytes_max`.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Log time: the latest of all entries so far.
    #[must_use]
    pub fn time(&self) -> Instant {
        self.time
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// The session is in use by the entry at `index`, now, and its client no longer waits for what is below
    /// `first_unacked`.
    fn touch(&mut self, key: Key, index: LogIndex, first_unacked: u64) {
        let first_unacked = if mutated!(FenceIgnored) { 0 } else { first_unacked };
        let session = self.sessions.get_mut(key);
        debug_assert!(session.used_index < index, "entry {index} came after entry {}", session.used_index);
        let client = session.client;
        session.used_index = index;
        session.used_time = self.time;
        session.window.advance(first_unacked, |seq| {
            self.sum = self.sum.wrapping_sub(executed_hash(client, seq));
        });
        self.sum = self.sum.wrapping_sub(session.hash);
        session.hash = session.hash_now();
        self.sum = self.sum.wrapping_add(session.hash);
        while let Some(&(seq, reply)) = session.replies.front()
            && seq < first_unacked
        {
            session.replies.pop_front();
            let cached = self.replies.remove(reply);
            self.reply_bytes -= cost(&cached.reply.body);
            self.sum = self.sum.wrapping_sub(cached.hash);
        }
        self.sessions.move_to_back(key);
    }

    /// Forgets a session with all it has executed.
    fn end(&mut self, key: Key) {
        let session = self.sessions.remove(key);
        self.by_client.remove(&session.client);
        self.sum = self.sum.wrapping_sub(session.hash);
        for seq in session.window.iter() {
            self.sum = self.sum.wrapping_sub(executed_hash(session.client, seq));
        }
        for (_, reply) in session.replies {
            let cached = self.replies.remove(reply);
            self.reply_bytes -= cost(&cached.reply.body);
            self.sum = self.sum.wrapping_sub(cached.hash);
        }
    }

    /// Adds a reply, which is the newest, to those that are cached.
    fn keep(&mut self, key: Key, seq: u64, reply: CachedReply) {
        let session = self.sessions.get_mut(key);
        // Nearly always the last place: operations of a session are mostly ordered in the order of their seqs.
        let place = session.replies.partition_point(|&(other, _)| other < seq);
        let taken = session.replies.get(place).is_some_and(|&(other, _)| other == seq);
        assert!(!taken, "({}, {seq}) has been recorded before", session.client);
        self.reply_bytes += cost(&reply.body);
        let cached = Cached::new(session.client, seq, reply);
        self.sum = self.sum.wrapping_add(cached.hash);
        session.replies.insert(place, (seq, self.replies.push_back(cached)));
    }

    /// Forgets a reply, but not that its write has been executed.
    fn evict(&mut self, reply: Key) {
        let cached = self.replies.remove(reply);
        self.reply_bytes -= cost(&cached.reply.body);
        self.sum = self.sum.wrapping_sub(cached.hash);
        let key = self.by_client[&cached.client];
        let replies = &mut self.sessions.get_mut(key).replies;
        let place = replies.binary_search_by_key(&cached.seq, |&(seq, _)| seq);
        replies.remove(place.expect("a session lists its cached replies"));
    }

    fn remembered(&self, key: Key, seq: u64) -> Remembered {
        let replies = &self.sessions.get(key).replies;
        match replies.binary_search_by_key(&seq, |&(seq, _)| seq) {
            Ok(place) if mutated!(ReplyOfAnotherSeq) => {
                Remembered::Reply(self.replies.get(replies[place.saturating_sub(1)].1).reply.clone())
            }
            Ok(place) => Remembered::Reply(self.replies.get(replies[place].1).reply.clone()),
            Err(_) => Remembered::Gone,
        }
    }

    /// What `sum` must be.
    fn sum_from_scratch(&self) -> u64 {
        let sessions = self.sessions.iter().map(|session| {
            let executed = session.window.iter().map(|seq| executed_hash(session.client, seq));
            executed.fold(session.hash_now(), u64::wrapping_add)
        });
        let replies = self.replies.iter().map(|cached| cached.hash);
        sessions.chain(replies).fold(0, u64::wrapping_add)
    }
}

impl SessionState {
    fn new(client: u64, used_index: LogIndex, used_time: Instant, window: Window) -> Self {
        let mut session = Self { client, used_index, used_time, window, replies: VecDeque::new(), hash: 0 };
        session.hash = session.hash_now();
        session
    }

    fn hash_now(&self) -> u64 {
        mix(&[1, self.client, self.used_index, self.used_time.as_nanos(), self.window.first()])
    }
}

impl Cached {
    fn new(client: u64, seq: u64, reply: CachedReply) -> Self {
        let status = u64::from(snapshot::status_code(reply.status));
        let hash = mix(&[3, client, seq, reply.index, status, mix_bytes(&reply.body)]);
        Self { client, seq, reply, hash }
    }
}

fn executed_hash(client: u64, seq: u64) -> u64 {
    mix(&[2, client, seq])
}

/// What a cached reply is charged.
fn cost(body: &[u8]) -> usize {
    body.len() + REPLY_COST
}
