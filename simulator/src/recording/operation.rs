//! A recorded operation.

use bytes::Bytes;
use r2p2::Instant;
use r2p2::client::{Completion, Kind, NotExecuted, Outcome, Ticket};

/// What a client asked, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The client's number.
    pub client: usize,
    /// Its name for the operation.
    pub ticket: Ticket,
    /// What the client believes it to be.
    pub kind: Kind,
    /// The request.
    pub body: Bytes,
    /// When it was invoked.
    pub call: Instant,
    /// When and how it ended; none if it did not before the recording ended.
    pub end: Option<(Instant, Completion)>,
}

/// The name of an outcome: `ok`, `not executed`, `unknown`, `expired`, `too large`, `reply gone`, `service error`.
pub fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok(_) => "ok",
        Outcome::NotExecuted(_) => "not executed",
        Outcome::Unknown => "unknown",
        Outcome::Expired => "expired",
        Outcome::TooLarge { .. } => "too large",
        Outcome::ReplyGone => "reply gone",
        Outcome::ServiceError(_) => "service error",
    }
}

/// An outcome in a few words.
pub(super) fn outcome(outcome: &Outcome, reply: fn(&[u8]) -> String) -> String {
    match outcome {
        Outcome::Ok(body) => reply(body),
        Outcome::NotExecuted(NotExecuted::Dropped) => "not executed: dropped".to_owned(),
        Outcome::NotExecuted(NotExecuted::NeverSent) => "not executed: never sent".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::Expired => "session expired".to_owned(),
        Outcome::TooLarge { limit } => format!("too large: the limit is {limit} B"),
        Outcome::ReplyGone => "executed, reply gone".to_owned(),
        Outcome::ServiceError(text) => format!("service error: {}", String::from_utf8_lossy(text)),
    }
}
