//! What goes in and what comes out: tickets, targets, outcomes, errors.

use std::net::SocketAddrV4;

use bytes::Bytes;
use thiserror::Error;

use crate::Instant;
use crate::wire::Policy;

/// Names one submitted operation, from `submit` to its [`Completion`]; never reused. Later submissions compare greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What the application believes an operation to be. It becomes the policy bits of the header and nothing else: the
/// service decides from the body (protocol.md §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Has no side effects.
    Read,
    /// May change state.
    Write,
}

impl Kind {
    pub(super) const fn policy(self) -> Policy {
        match self {
            Self::Read => Policy::ReplicatedNoSideEffects,
            Self::Write => Policy::Replicated,
        }
    }
}

/// Where a packet is to be sent. The shell knows what the group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All nodes: IP multicast, a loop over them, or whatever stands in front of them.
    Group,
    /// One node: one of `ClientConfig::nodes` or [`Client::set_nodes`](super::Client::set_nodes), that of an admin
    /// request, or one that a packet came from.
    Address(SocketAddrV4),
}

/// How an operation ended.
///
/// | outcome | executed? |
/// |---|---|
/// | `Ok`, `ServiceError` | yes, exactly once in session mode |
/// | `ReplyGone` | yes, exactly once; what it returned is lost |
/// | `NotExecuted`, `TooLarge` | no |
/// | `Unknown`, `Expired` | perhaps; a new submission might execute it a second time |
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The reply.
    Ok(Bytes),
    /// Certainly not executed, now or later.
    NotExecuted(NotExecuted),
    /// Given up, by time or by `cancel`. It may have been executed, and in plain mode may still be; in session mode
    /// the next request of this client fences off copies that are still under way.
    Unknown,
    /// The servers do not know the session: the copy that was answered was not executed, but an earlier copy may have
    /// been, before the session expired. Later submissions use a new session.
    Expired,
    /// The servers refuse a request of this size.
    TooLarge {
        /// The largest body accepted, as stated by the server (this client's own `request_max` if it did not say).
        limit: usize,
    },
    /// Executed, but the servers no longer keep the reply.
    ReplyGone,
    /// The service failed on this request in its own, replicated way; the body says how.
    ServiceError(Bytes),
}

/// Why an operation certainly was not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotExecuted {
    /// Its only copy was dropped by admission control (plain mode only: with a session a DROP is retried).
    Dropped,
    /// Given up or cancelled before any copy had been sent.
    NeverSent,
}

/// The end of one operation: exactly one for each ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What `submit` returned.
    pub ticket: Ticket,
    /// How it ended.
    pub outcome: Outcome,
    /// The log entry that the answer belongs to, where the server said so.
    pub entry_index: Option<u64>,
    /// Who answered; `None` if nobody did.
    pub from: Option<SocketAddrV4>,
    /// How many times the request was sent (to several targets at once counts once).
    pub attempts: u32,
    /// When it was submitted.
    pub submitted: Instant,
}

/// What [`Client::poll_output`](super::Client::poll_output) tells the shell to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOutput {
    /// Send this UDP payload there.
    Transmit {
        /// Where to.
        target: Target,
        /// The whole UDP payload.
        packet: Bytes,
    },
    /// An operation ended.
    Done(Completion),
    /// Nothing more to do now. Call `handle_timeout` at this time at the latest, for this reason;
    /// [`Instant::FAR_FUTURE`] if there is nothing to wait for.
    Timeout(Instant, &'static str),
}

/// Why `submit` refused an operation. Nothing of it has been kept or sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SubmitError {
    /// Too much is outstanding.
    #[error("{limit} operations are already waiting; wait for completions before submitting more")]
    Full {
        /// The limit that was reached.
        limit: usize,
    },
    /// The body is longer than `request_max`.
    #[error("the request is {len} bytes long, the limit is {limit}")]
    TooLarge {
        /// Length of the body.
        len: usize,
        /// Largest permitted.
        limit: usize,
    },
}
