//! What the node core hands out for execution.

use bytes::Bytes;

use crate::entry::{Entry, RequestHead};
use crate::id::LogIndex;
use crate::snapshot::{SnapshotInfo, SnapshotWanted};

/// A committed entry with its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Its index.
    pub index: LogIndex,
    /// The entry.
    pub entry: Entry,
    /// The request's bytes; empty if it has none.
    pub body: Bytes,
    /// Whether this node took the entry before it was restarted: it executes it, and answers nobody. Who was promised
    /// that answer has given up or asked again, and a plain client may use the RPC id for something else by now.
    pub replayed: bool,
}

/// A piece of work for an applier, and for whoever keeps its snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Execute the next entry.
    Apply(Committed),
    /// Answer a retransmission of an executed write from its session's cache.
    Answer {
        /// The retransmission.
        request: RequestHead,
    },
    /// Take a snapshot here: [`Applier::freeze`](super::Applier::freeze), and have it kept
    /// ([`crate::snapshot::take`]) while the work after it goes on.
    Snapshot(SnapshotWanted),
    /// Replace the state by a snapshot of the archive: [`Applier::restore`](super::Applier::restore). The work after it
    /// belongs to the new state.
    Install(SnapshotInfo),
    /// The membership of this epoch is in force: [`Applier::set_membership_epoch`](super::Applier::set_membership_epoch).
    /// Entries say so themselves; a snapshot does not, to the applier.
    Epoch(u64),
    /// Answer a read at once, whatever the log says: a mistake, see [`crate::mutation`].
    #[cfg(feature = "mutations")]
    Query {
        /// The read.
        request: RequestHead,
        /// Its bytes.
        body: Bytes,
    },
}
