//! What happened in a run, kept for whoever wants to look at it afterwards: every datagram with its fate, what became of
//! every process, every operation of every client.
//!
//! A [`World`](crate::World) records if its configuration says so, and only listens: a run is the same run whether it is
//! recorded or not. Everything is bounded; the oldest goes first, because what went wrong is at the end, and what has
//! gone is counted ([`LeftOut`]).

mod datagram;
mod operation;
mod summary;

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::client::{Completion, Kind, Ticket};

pub use datagram::{Datagram, Fate};
pub use operation::{Operation, outcome_name};
pub use summary::summary;

use crate::flight::{Flight, Party};
use crate::world::{Happening, What};

/// What to record, and how much.
#[derive(Clone, Copy, Debug)]
pub struct RecordingConfig {
    /// Most datagrams kept.
    pub datagrams_max: usize,
    /// Most moments kept, and most operations.
    pub moments_max: usize,
    /// Says in a few words what a request body asks.
    pub request: fn(&[u8]) -> String,
    /// Says in a few words what the body of a plain answer says.
    pub reply: fn(&[u8]) -> String,
}

impl Default for RecordingConfig {
    fn default() -> Self {
        Self { datagrams_max: 50_000, moments_max: 10_000, request: hexadecimal, reply: hexadecimal }
    }
}

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Recording {
    config: RecordingConfig,
    /// How many nodes there are; ids start at 1.
    pub nodes: u16,
    /// How many clients there are; numbers start at 0.
    pub clients: usize,
    /// When the recording ends.
    pub end: Instant,
    datagrams: VecDeque<Datagram>,
    moments: VecDeque<Moment>,
    operations: VecDeque<Operation>,
    /// Where operations without an end are: how many had begun before.
    open: BTreeMap<(usize, Ticket), u64>,
    left_out: LeftOut,
}

/// How much of a run is not in its recording any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Datagrams.
    pub datagrams: u64,
    /// Moments.
    pub moments: u64,
    /// Operations.
    pub operations: u64,
}

/// Something other than a datagram that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
    /// More about it; empty if there is no more to say.
    pub detail: String,
}

impl Recording {
    /// Nothing yet.
    pub fn new(config: RecordingConfig, nodes: u16, clients: usize) -> Self {
        Self {
            config,
            nodes,
            clients,
            end: Instant::ZERO,
            datagrams: VecDeque::new(),
            moments: VecDeque::new(),
            operations: VecDeque::new(),
            open: BTreeMap::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Datagrams, in the order in which they were sent. A multicast is one for each receiver.
    pub fn datagrams(&self) -> impl Iterator<Item = &Datagram> {
        self.datagrams.iter()
    }

    /// Everything else, in the order in which it happened.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.iter()
    }

    /// Operations, in the order in which they were invoked.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter()
    }

    /// What is not here any more.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Says what a datagram is about, in one line.
    pub fn summary(&self, datagram: &Datagram) -> String {
        summary(&datagram.packet, self.config.request, self.config.reply)
    }

    /// Says what an operation asks.
    pub fn request(&self, operation: &Operation) -> String {
        (self.config.request)(&operation.body)
    }

    /// Says how an operation ended.
    pub fn outcome(&self, completion: &Completion) -> String {
        operation::outcome(&completion.outcome, self.config.reply)
    }

    /// A datagram goes to one receiver. Its id is one more than that of the datagram before.
    pub fn sent(&mut self, id: u64, flight: &Flight<'_>, addresses: [SocketAddrV4; 2], how: Sent) {
        debug_assert!(self.datagrams.back().is_none_or(|last| last.id + 1 == id), "found again by its distance");
        if make_room(&mut self.datagrams, self.config.datagrams_max) {
            self.left_out.datagrams += 1;
        }
        let [source, destination] = addresses;
        self.datagrams.push_back(Datagram {
            id,
            sent: flight.at,
            from: flight.from,
            to: flight.to,
            source,
            destination,
            via: flight.via,
            kind: flight.what,
            packet: flight.packet.clone(),
            corrupted: how.corrupted,
            copy_of: how.copy_of,
            fate: Fate::UnderWay,
        });
    }

    /// Anything happens.
    pub fn happened(&mut self, happening: Happening, detail: impl FnOnce() -> String) {
        let Happening { at, what } = happening;
        self.end = self.end.max(at);
        let (id, fate) = match what {
            What::Delivered { id, .. } => (id, Fate::Delivered(at)),
            What::Lost { id, .. } => (id, Fate::Lost(at)),
            What::Cut { id, .. } => (id, Fate::Cut(at)),
            What::Unheard { id, .. } => (id, Fate::Unheard(at)),
            What::Overflowed { id, .. } => (id, Fate::Overflowed(at)),
            What::Invoked { .. } | What::Ended { .. } => return,
            What::Blocked { from, to, .. } if self.blocked_more(at, from, to) => return,
            _ => {
                if make_room(&mut self.moments, self.config.moments_max) {
                    self.left_out.moments += 1;
                }
                self.moments.push_back(Moment { at, what, detail: detail() });
                return;
            }
        };
        let first = self.datagrams.front().map_or(0, |datagram| datagram.id);
        let at = id.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        if let Some(datagram) = at.and_then(|at| self.datagrams.get_mut(at)) {
            datagram.fate = fate;
        }
    }

    /// Adds a pair to those that were blocked at the same time, if the last moment is that: a partition is one moment.
    fn blocked_more(&mut self, at: Instant, from: Party, to: Party) -> bool {
        const TOLD: usize = 60;
        match self.moments.back_mut() {
            Some(Moment { at: then, what: What::Blocked { from: first, to: second, more }, detail }) if *then == at => {
                if *more == 0 {
                    *detail = format!("{first}→{second}");
                }
                *more += 1;
                match (*more).cmp(&TOLD) {
                    Ordering::Less => detail.push_str(&format!(", {from}→{to}")),
                    Ordering::Equal => detail.push_str(", …"),
                    Ordering::Greater => {}
                }
                true
            }
            _ => false,
        }
    }

    /// A client invokes an operation.
    pub fn invoked(&mut self, at: Instant, client: usize, ticket: Ticket, kind: Kind, body: Bytes) {
        if make_room(&mut self.operations, self.config.moments_max) {
            self.left_out.operations += 1;
        }
        self.open.insert((client, ticket), self.left_out.operations + self.operations.len() as u64);
        self.operations.push_back(Operation { client, ticket, kind, body, call: at, end: None });
    }

    /// An operation ends.
    pub fn ended(&mut self, at: Instant, client: usize, completion: &Completion) {
        let number = self.open.remove(&(client, completion.ticket));
        let place = number.and_then(|number| usize::try_from(number.checked_sub(self.left_out.operations)?).ok());
        if let Some(operation) = place.and_then(|place| self.operations.get_mut(place)) {
            operation.end = Some((at, completion.clone()));
        }
    }
}

/// What the network did to a datagram as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// A bit was flipped.
    pub corrupted: bool,
    /// It is the second copy of this one.
    pub copy_of: Option<u64>,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Takes the oldest away if there are as many as there may be.
fn make_room<T>(kept: &mut VecDeque<T>, most: usize) -> bool {
    kept.len() >= most.max(1) && kept.pop_front().is_some()
}

/// Bytes whose meaning nobody knows.
fn hexadecimal(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    let mut text: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
