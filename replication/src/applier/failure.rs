//! What can go wrong, and how it is said.

use std::any::Any;
use std::net::SocketAddrV4;
use std::panic::{AssertUnwindSafe, catch_unwind};

use r2p2::Digest;
use thiserror::Error;

use crate::entry::RequestHead;
use crate::id::LogIndex;
use crate::session::SnapshotError;

/// The service panicked while it applied an entry. It would do so on every replica.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "the service panicked on entry {index}, request {:032x} of client {client}: {message}. The request begins with \
     \"{}\". Every node would panic on it: correct the service, or tell all nodes to skip entry {index}",
    .identity.0, .body_start.escape_ascii()
)]
pub struct ApplyPanic {
    /// The entry.
    pub index: LogIndex,
    /// The request's identity.
    pub identity: Digest,
    /// Who sent it.
    pub client: SocketAddrV4,
    /// The first bytes of its body.
    pub body_start: Box<[u8]>,
    /// What the service said.
    pub message: Box<str>,
}

/// Bytes of a body that a report contains.
const BODY_START_MAX: usize = 64;

impl ApplyPanic {
    pub(super) fn new(index: LogIndex, request: &RequestHead, body: &[u8], message: String) -> Self {
        let body_start = body[..body.len().min(BODY_START_MAX)].into();
        Self { index, identity: request.identity, client: request.client, body_start, message: message.into() }
    }
}

/// Why a snapshot cannot be restored. After [`Stale`](Self::Stale), and after the others if they came before the
/// service's part, nothing was changed; else the state is unspecified.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RestoreError {
    /// Its bytes are wrong, or come from a node that was configured otherwise.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    Read(String),
    /// It is older than the state that it would replace.
    #[error("the snapshot ends at entry {found}, this node has applied entry {applied}")]
    Stale {
        /// The snapshot's last index.
        found: LogIndex,
        /// The highest index applied here.
        applied: LogIndex,
    },
    /// It is of a group that executes by a version of the service that this program does not have.
    #[error("the snapshot is of a group that executes by version {needed} of the service, this program has {has}")]
    TooOld {
        /// The version in force.
        needed: u32,
        /// The version here.
        has: u32,
    },
    /// The service refused its part.
    #[error("the service cannot restore its part of the snapshot: {0}")]
    Service(String),
    /// The service took its part but became something else. Its state is not that of other nodes.
    #[error("the service did not restore what it had saved: its state hash is {found:016x} and was {expected:016x}")]
    StateHash {
        /// After restoring.
        found: u64,
        /// When the snapshot was taken.
        expected: u64,
    },
}

/// Runs a service's code. A panic there is an error here, with its message.
pub(super) fn catch<R>(run: impl FnOnce() -> R) -> Result<R, String> {
    // What the closure leaves half done is either discarded (replies) or never used again (a service after `apply`).
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}
