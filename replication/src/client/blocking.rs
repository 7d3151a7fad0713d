//! One operation at a time.

use std::time::Duration;

use bytes::Bytes;
use r2p2::client::{ClientCounters, Completion, Kind, Outcome, SubmitError, Ticket};

use super::{ClientOptions, ConnectError, PipelinedClient};

/// A client that does one thing at a time: each call returns when its operation has ended, at the latest after
/// [`ClientOptions::give_up`].
///
/// It finds the group's state of affairs by itself: when a leader dies, the operation under way is sent again until a
/// new one answers, and is executed once.
#[derive(Debug)]
pub struct Client {
    pipelined: PipelinedClient,
}

impl Client {
    /// Opens a socket for talking to a group. Sends nothing: whether anybody is there shows with the first operation.
    ///
    /// # Errors
    /// Why there is no socket that could send to the group, and what to do about it.
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        PipelinedClient::connect(options).map(|pipelined| Self { pipelined })
    }

    /// Does something that may change state.
    pub fn write(&mut self, body: impl Into<Bytes>) -> Outcome {
        self.outcome(Kind::Write, body.into())
    }

    /// Asks something. What is a read and what a write is decided by the service, not by which of the two is called;
    /// this one only gives a hint to whatever is in between.
    pub fn read(&mut self, body: impl Into<Bytes>) -> Outcome {
        self.outcome(Kind::Read, body.into())
    }

    /// Like [`Client::write`] and [`Client::read`], with everything that is known about how it went.
    ///
    /// # Errors
    /// If the request is too long to be sent.
    pub fn run(&mut self, kind: Kind, body: impl Into<Bytes>) -> Result<Completion, SubmitError> {
        let ticket = self.pipelined.submit(kind, body)?;
        Ok(self.complete(ticket))
    }

    /// What the client has counted.
    pub fn counters(&self) -> &ClientCounters {
        self.pipelined.counters()
    }

    /// The epoch of the membership that it goes by; 0 as long as it has only what it was told at first.
    pub fn epoch(&self) -> u64 {
        self.pipelined.epoch()
    }

    fn outcome(&mut self, kind: Kind, body: Bytes) -> Outcome {
        match self.run(kind, body) {
            Ok(completion) => completion.outcome,
            Err(SubmitError::TooLarge { limit, .. }) => Outcome::TooLarge { limit },
            // One operation at a time is never too many.
            Err(SubmitError::Full { .. }) => unreachable!("there was room"),
        }
    }

    fn complete(&mut self, ticket: Ticket) -> Completion {
        loop {
            // The core ends every operation, so the patience of a single wait does not matter.
            let completed = self.pipelined.wait(Duration::from_secs(60)).unwrap_or_else(|error| {
                tracing::warn!(%error, "the client's socket can no longer be used");
                self.pipelined.give_up(ticket)
            });
            // Others were given up earlier.
            if let Some(completion) = completed.into_iter().find(|completion| completion.ticket == ticket) {
                return completion;
            }
        }
    }
}
