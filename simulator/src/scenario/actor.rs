//! Clients of a schedule.

use std::time::Duration;

use bytes::Bytes;
use hovercraft::Service;
use r2p2::client::{Completion, Kind, Outcome, Ticket};

use super::{PATIENCE, give_up};
use crate::registers::{Request, decode_reply};
use crate::{Registers, World};

/// What a client of a schedule can ask: a request of the [`Registers`], or any bytes with their kind.
pub trait Operation {
    /// Whether the client takes it for a read. The service has its own opinion.
    fn kind(&self) -> Kind;

    /// The request's bytes.
    fn body(&self) -> Bytes;
}

impl Operation for Request {
    fn kind(&self) -> Kind {
        if matches!(self, Self::Get(_)) { Kind::Read } else { Kind::Write }
    }

    fn body(&self) -> Bytes {
        self.encode()
    }
}

impl<B: Clone + Into<Bytes>> Operation for (Kind, B) {
    fn kind(&self) -> Kind {
        self.0
    }

    fn body(&self) -> Bytes {
        self.1.clone().into()
    }
}

/// A client of a schedule.
#[derive(Debug)]
pub struct Actor<'a, S: Service> {
    world: &'a mut World<S>,
    number: usize,
}

impl<'a, S: Service> Actor<'a, S> {
    pub(super) fn new(world: &'a mut World<S>, number: usize) -> Self {
        Self { world, number }
    }

    /// Invokes an operation and does not wait for its end.
    pub fn begin(&mut self, operation: impl Operation) -> Ticket {
        self.world.submit(self.number, operation.kind(), operation.body())
    }

    /// Invokes the same operation several times at once.
    pub fn begin_many(&mut self, count: usize, operation: impl Operation) -> Vec<Ticket> {
        (0..count).map(|_| self.world.submit(self.number, operation.kind(), operation.body())).collect()
    }

    /// Gives an operation up.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.world.cancel(self.number, ticket);
    }

    /// Waits until `count` operations have ended that nobody waited for yet, and says how, in the order of their ends.
    ///
    /// # Panics
    /// If they never do, within [`PATIENCE`].
    #[track_caller]
    pub fn end(&mut self, count: usize) -> Vec<Completion> {
        self.end_within(PATIENCE, count)
    }

    /// The same where it may take longer, or must not.
    ///
    /// # Panics
    /// If they do not end within `limit`.
    #[track_caller]
    pub fn end_within(&mut self, limit: Duration, count: usize) -> Vec<Completion> {
        let (mut done, number) = (Vec::new(), self.number);
        let all = self.world.run_until(limit, |world| {
            done.extend(world.completions(number).into_iter().map(|(_, completion)| completion));
            done.len() >= count
        });
        if !all {
            give_up(self.world, &format!("{count} operations of c{number} have ended ({} have)", done.len()));
        }
        done
    }

    /// Invokes an operation and waits for its end.
    #[track_caller]
    pub fn call(&mut self, operation: impl Operation) -> Outcome {
        self.begin(operation);
        self.end(1).remove(0).outcome
    }
}

impl Actor<'_, Registers> {
    /// Invokes an operation on the registers and waits for the number that answers it.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn value(&mut self, request: Request) -> u64 {
        match self.call(request) {
            Outcome::Ok(reply) => decode_reply(&reply).expect("registers answer with numbers"),
            other => panic!("{request:?} ended as {other:?}"),
        }
    }

    /// Waits until `count` operations have been answered, and gives the numbers in ascending order.
    ///
    /// # Panics
    /// If one ends otherwise.
    #[track_caller]
    pub fn values(&mut self, count: usize) -> Vec<u64> {
        let mut values: Vec<u64> = Vec::new();
        for completion in self.end(count) {
            match completion.outcome {
                Outcome::Ok(reply) => values.push(decode_reply(&reply).expect("registers answer with numbers")),
                other => panic!("an operation ended as {other:?}"),
            }
        }
        values.sort_unstable();
        values
    }
}
