//! What is lost, held back or merely counted.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddrV4;
use std::rc::Rc;

use bytes::Bytes;
use hovercraft::Service;

use crate::flight::{Flight, Party};
use crate::world::{World, aggregator_address, client_address, gateway_address, peer_address, request_address};

/// A rule about datagrams, in force from the moment at which it was made. Every word narrows it down further; it may be
/// forgotten about, or asked later what it has done.
#[derive(Clone)]
pub struct Rule {
    number: u64,
    shared: Rc<RefCell<Shared>>,
}

type Condition = Box<dyn FnMut(&Flight<'_>) -> bool>;

struct Shared {
    kinds: &'static str,
    from: Option<Party>,
    to: Option<Party>,
    not_from: Vec<Party>,
    not_to: Vec<Party>,
    which: Option<Condition>,
    every: u64,
    first: u64,
    /// Datagrams that all of this fits, before `every` and `first`.
    fitting: u64,
    hits: u64,
    passing: bool,
    /// What is held back, if anything is to be: from, to, packet.
    held: Option<Vec<(SocketAddrV4, SocketAddrV4, Bytes)>>,
}

impl Rule {
    pub(super) fn add<S: Service>(world: &mut World<S>, kinds: &'static str, holds: bool) -> Self {
        let shared = Rc::new(RefCell::new(Shared {
            kinds,
            from: None,
            to: None,
            not_from: Vec::new(),
            not_to: Vec::new(),
            which: None,
            every: 1,
            first: u64::MAX,
            fitting: 0,
            hits: 0,
            passing: false,
            held: holds.then(Vec::new),
        }));
        let rule = shared.clone();
        let number = world.lose_when(move |flight| rule.borrow_mut().stops(flight));
        Self { number, shared }
    }

    /// Only what this party sends.
    pub fn from(self, party: impl Into<Party>) -> Self {
        self.narrow(|shared| shared.from = Some(party.into()))
    }

    /// Only what this party would receive.
    pub fn to(self, party: impl Into<Party>) -> Self {
        self.narrow(|shared| shared.to = Some(party.into()))
    }

    /// Not what this party sends.
    pub fn not_from(self, party: impl Into<Party>) -> Self {
        self.narrow(|shared| shared.not_from.push(party.into()))
    }

    /// Not what this party would receive.
    pub fn not_to(self, party: impl Into<Party>) -> Self {
        self.narrow(|shared| shared.not_to.push(party.into()))
    }

    /// Only what looks so.
    pub fn which(self, looks_so: impl FnMut(&Flight<'_>) -> bool + 'static) -> Self {
        self.narrow(|shared| shared.which = Some(Box::new(looks_so)))
    }

    /// Only the `n`th, the 2`n`th, and so on.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn every(self, n: u64) -> Self {
        assert!(n > 0, "every 0th is none");
        self.narrow(|shared| shared.every = n)
    }

    /// Only so many of them.
    pub fn first(self, count: u64) -> Self {
        self.narrow(|shared| shared.first = count)
    }

    /// How many datagrams it was about so far.
    pub fn hits(&self) -> u64 {
        self.shared.borrow().hits
    }

    pub(super) fn passing(self) -> Self {
        self.narrow(|shared| shared.passing = true)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn release<S: Service>(&self, world: &mut World<S>) {
        let held = self.shared.borrow_mut().held.as_mut().map(std::mem::take);
        for (from, to, packet) in held.into_iter().flatten() {
            world.send_raw(from, to, packet);
        }
    }

    fn narrow(self, change: impl FnOnce(&mut Shared)) -> Self {
        change(&mut self.shared.borrow_mut());
        self
    }
}

impl Shared {
    fn stops(&mut self, flight: &Flight<'_>) -> bool {
        let named = self.kinds.split('|').any(|kind| kind == flight.what || kind == "*");
        let fits = named
            && self.from.is_none_or(|from| from == flight.from)
            && self.to.is_none_or(|to| to == flight.to)
            && !self.not_from.contains(&flight.from)
            && !self.not_to.contains(&flight.to)
            && self.which.as_mut().is_none_or(|looks_so| looks_so(flight));
        self.fitting += u64::from(fits);
        if !fits || !self.fitting.is_multiple_of(self.every) || self.hits >= self.first {
            return false;
        }
        self.hits += 1;
        if let Some(held) = &mut self.held {
            let is_inside = |party| matches!(party, Party::Node(_) | Party::Aggregator(_));
            let internal = is_inside(flight.from) && is_inside(flight.to);
            held.push((address(flight.from, internal), address(flight.to, internal), flight.packet.clone()));
        }
        !self.passing
    }
}

fn address(party: Party, internal: bool) -> SocketAddrV4 {
    match party {
        Party::Node(id) if internal => peer_address(id),
        Party::Node(id) => request_address(id),
        Party::Client(number) => client_address(number),
        Party::Aggregator(_) => aggregator_address(),
        Party::Gateway => gateway_address(),
        Party::Raw => panic!("only what nodes and clients of the world send each other can be held back"),
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.borrow();
        f.debug_struct("Rule").field("what", &shared.kinds).field("hits", &shared.hits).finish_non_exhaustive()
    }
}
