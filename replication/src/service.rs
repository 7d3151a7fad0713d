//! What a user implements: [`Service`].

use std::io::{self, Read, Write};

use bytes::Bytes;
use r2p2::Instant;

/// A deterministic state machine that the framework replicates.
///
/// `apply` must depend on nothing but the state, the request and the [`Context`]: no clock, no randomness, no
/// iteration over a randomly seeded hash map. Every replica applies the same writes in the same order; if two replicas
/// computed different states from them, that would be silent divergence. The simulator compares
/// [`Service::state_hash`] between replicas to catch it.
///
/// A panic in `query` becomes an error reply. A panic in `apply` would happen on every replica in turn, so the node
/// stops and names the entry and the request (protocol.md §7.9).
pub trait Service: Send + 'static {
    /// The version of its behaviour: raise it whenever the same request in the same state would do something else.
    ///
    /// While nodes are upgraded one by one, those with the new program behave as [`Context::version`] says. Once all members
    /// have it, the group changes over, at one entry of the log for all of them, for good (docs/architecture.md, Upgrades). A
    /// program may drop the behaviour of a version when no group that it will run in executes by it any more. A new group
    /// begins with the version of its first leader.
    const VERSION: u32 = 1;

    /// Says whether a request changes state. Decided here, from the body, and nowhere else: the client's own hint is
    /// never trusted (protocol.md §6.3). No `self`: the answer must not depend on state, because it is given before the
    /// request has a place in the order. Must be cheap.
    fn classify(request: &[u8]) -> Class;

    /// Executes a write. Called once per ordered write, on every replica, in log order.
    fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply);

    /// Executes a read. Called on one replica only, at a linearizable point of the log.
    fn query(&self, context: &Context, request: &Bytes, reply: &mut Reply);

    /// A hash of the whole state, equal on replicas that applied the same entries.
    ///
    /// Used by the simulator and by tests. The default says "unknown", which is never compared.
    fn state_hash(&self) -> Option<u64> {
        None
    }

    /// The whole state as bytes, such that [`Service::restore`] of them gives an equal state.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the state by one that [`Service::snapshot`] produced.
    ///
    /// # Errors
    /// A sentence saying what is wrong with the bytes. The state is then unspecified and the node stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;

    /// The whole state as it is now, to be written on another thread while this one goes on executing.
    ///
    /// The default takes a [`Service::snapshot`] at once, during which nothing is executed. A service with much state
    /// gives a copy that shares memory with the original until that changes.
    fn view(&self) -> Box<dyn SnapshotView> {
        Box::new(self.snapshot())
    }

    /// Replaces the state by one that a [`Service::view`] wrote, to the last byte that `from` has.
    ///
    /// The default reads all of it into memory and gives it to [`Service::restore`].
    ///
    /// # Errors
    /// As for [`Service::restore`]. Errors of `from` need not be told apart.
    fn restore_from(&mut self, from: &mut dyn Read) -> Result<(), String> {
        let mut snapshot = Vec::new();
        from.read_to_end(&mut snapshot).map_err(|error| error.to_string())?;
        self.restore(&snapshot)
    }
}

/// A service's state at one moment; see [`Service::view`].
pub trait SnapshotView: Send {
    /// Writes all of it, such that [`Service::restore_from`] of what was written gives an equal state. Equal states give
    /// equal bytes.
    ///
    /// # Errors
    /// Those of `to`.
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()>;
}

/// A state that is bytes already.
impl SnapshotView for Vec<u8> {
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self)
    }
}

/// Whether a request can change state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Executed by one replica, through [`Service::query`].
    Read,
    /// Executed by every replica, through [`Service::apply`].
    Write,
}

/// What a service may know about the world, the same on every replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// The log index of the request.
    pub index: u64,
    /// Log time: the leader's monotonic time when it ordered the request. Never goes backwards along the log, has no
    /// relation to the wall clock, and advances only with entries (protocol.md §3.3).
    pub time: Instant,
    /// Which version of the service's behaviour is in force: at most [`Service::VERSION`].
    pub version: u32,
    /// A seed for randomness, the same on every replica, different for every entry.
    pub seed: u64,
}

/// Where a service writes its reply.
///
/// The reply is bounded: bytes beyond the limit are refused, the client then gets a clear error instead of a truncated
/// reply (the write itself still counts as executed).
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl Reply {
    /// An empty reply of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, overflowed: false }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.overflowed || bytes.len() > self.remaining() {
            self.overflowed = true;
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// How many more bytes fit. A service with replies of any length (a scan) stops here.
    pub fn remaining(&self) -> usize {
        self.limit - self.bytes.len()
    }

    /// Forgets what was written, for reuse.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.overflowed = false;
    }

    /// Whether more was written than fits.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_at_the_limit_and_one_past_it() {
        let mut reply = Reply::new(4);
        reply.write(b"abcd");
        assert!(!reply.overflowed());
        assert_eq!(reply.remaining(), 0);
        reply.write(b"e");
        assert!(reply.overflowed());
        assert_eq!(reply.as_bytes(), b"");
        reply.clear();
        reply.write(b"xy");
        assert_eq!(reply.as_bytes(), b"xy");
    }
}
