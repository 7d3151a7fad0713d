//! Datagrams on their way: rules and partitions, corruption, queues, sockets. How long they take, and which are lost by
//! chance, [`crate::network`] decides.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::Service;
use r2p2::Instant;
use r2p2::server::Via;
use rand::Rng;
use rand::rngs::SmallRng;

use super::addresses::{PEER_PORT, aggregator_address, request_address};
use super::{Event, What, World};
use crate::flight::{Flight, Party, describe, internal};
use crate::network::{Crossing, Full, NetworkConfig, Socket};
use crate::recording::Sent;
use crate::streams::stream;

/// Says of a datagram whether it is lost.
pub(super) type Rule = Box<dyn FnMut(&Flight<'_>) -> bool>;

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Counts all datagrams of a run.
    pub(super) id: u64,
    pub(super) to: Party,
    pub(super) address: SocketAddrV4,
    pub(super) via: Via,
    pub(super) from: SocketAddrV4,
    /// What it is; see [`Flight::what`].
    pub(super) what: &'static str,
    pub(super) packet: Bytes,
    /// Whether a bit was flipped on its way.
    pub(super) is_corrupt: bool,
}

impl<S: Service> World<S> {
    /// Loses everything from one party to another.
    pub fn block(&mut self, from: Party, to: Party) {
        if self.blocked.insert((from, to)) {
            self.happened(What::Blocked { from, to, more: 0 });
        }
    }

    /// Cuts a node off from all other nodes, clients and aggregators, or from all but `friends`.
    pub fn isolate(&mut self, id: u16, friends: &[u16]) {
        let parties: Vec<Party> = self
            .hosts
            .iter()
            .map(|host| Party::Node(host.id.0))
            .chain((0..self.clients.len()).map(Party::Client))
            .chain((0..self.aggregators()).map(Party::Aggregator))
            .collect();
        for other in parties {
            let friend = matches!(other, Party::Node(node) if friends.contains(&node) || node == id);
            if !friend {
                self.block(Party::Node(id), other);
                self.block(other, Party::Node(id));
            }
        }
    }

    /// Undoes [`World::block`], [`World::isolate`] and [`World::lose_when`].
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.rules.clear();
        self.happened(What::Healed);
    }

    /// Undoes [`World::block`] and [`World::isolate`], and keeps the rules of [`World::lose_when`].
    pub fn reconnect(&mut self) {
        self.blocked.clear();
    }

    /// Loses every datagram of which `rule` says so. Returns a number for [`World::remove_rule`].
    pub fn lose_when(&mut self, rule: impl FnMut(&Flight<'_>) -> bool + 'static) -> u64 {
        self.next_rule += 1;
        self.rules.push((self.next_rule, Box::new(rule)));
        self.next_rule
    }

    /// Removes one rule.
    pub fn remove_rule(&mut self, number: u64) {
        self.rules.retain(|(other, _)| *other != number);
    }

    /// Changes the network.
    pub fn set_network(&mut self, network: NetworkConfig) {
        self.network.set_config(network);
        self.happened_because(What::NetworkChanged, || network.to_string());
    }

    /// Makes one node slower or faster than the [network's configuration](NetworkConfig::processing) says, or, with
    /// none, as fast again.
    pub fn set_processing(&mut self, id: u16, processing: Option<Duration>) {
        self.host_mut(id).processing = processing;
    }

    /// Sends a datagram from an address of the test's own to all nodes' request group.
    pub fn send_raw_to_group(&mut self, from: SocketAddrV4, packet: Bytes) {
        self.transmit_to_group(Party::Raw, from, request_address, packet);
    }

    /// Sends a datagram from an address of the test's own to one address.
    pub fn send_raw(&mut self, from: SocketAddrV4, to: SocketAddrV4, packet: Bytes) {
        self.transmit(Party::Raw, from, self.party(to), to, Via::Unicast, packet);
    }

    /// Takes what has arrived at an address of the test's own.
    pub fn mailbox(&mut self, address: SocketAddrV4) -> Vec<Bytes> {
        self.mailboxes.remove(&address).unwrap_or_default()
    }

    /// Sends a datagram to one receiver.
    pub(super) fn transmit(
        &mut self,
        from: Party,
        source: SocketAddrV4,
        to: Party,
        address: SocketAddrV4,
        via: Via,
        packet: Bytes,
    ) {
        let departed = if from == to { Some(self.now) } else { self.depart(from, packet.len()) };
        let what = describe(self.now, from, to, via, &packet).what;
        if let Party::Aggregator(_) = to {
            // Whoever is at that address hears it.
            for number in 1..self.aggregators() {
                let (to, packet) = (Party::Aggregator(number), packet.clone());
                let datagram = Datagram { id: 0, to, address, via, from: source, what, packet, is_corrupt: false };
                self.cross(departed, from, datagram);
            }
        }
        let datagram = Datagram { id: 0, to, address, via, from: source, what, packet, is_corrupt: false };
        self.cross(departed, from, datagram);
    }

    /// Sends a datagram to all nodes, and to aggregators what nodes say to each other: once, whatever becomes of it at each of them.
    pub(super) fn transmit_to_group(
        &mut self,
        from: Party,
        source: SocketAddrV4,
        address_of: fn(u16) -> SocketAddrV4,
        packet: Bytes,
    ) {
        let departed = self.depart(from, packet.len());
        let what = describe(self.now, from, Party::Raw, Via::Group, &packet).what;
        for id in 1..=self.config.hosts() {
            let (to, address, packet) = (Party::Node(id), address_of(id), packet.clone());
            // What a host sends to itself does not pass its link.
            let departed = if from == to { Some(self.now) } else { departed };
            let via = Via::Group;
            let datagram = Datagram { id: 0, to, address, via, from: source, what, packet, is_corrupt: false };
            self.cross(departed, from, datagram);
        }
        if address_of(1).port() == PEER_PORT {
            for number in 0..self.aggregators() {
                let (to, address, packet) = (Party::Aggregator(number), aggregator_address(), packet.clone());
                let via = Via::Group;
                let datagram = Datagram { id: 0, to, address, via, from: source, what, packet, is_corrupt: false };
                self.cross(departed, from, datagram);
            }
        }
    }

    /// When a datagram has left its host; none if the queue was full.
    fn depart(&mut self, from: Party, len: usize) -> Option<Instant> {
        match self.link_of(from) {
            Some(link) => self.network.depart(self.now, link, len),
            None => Some(self.now),
        }
    }

    fn cross(&mut self, departed: Option<Instant>, from: Party, mut datagram: Datagram) {
        let corrupt = self.network.config().corrupt;
        let mut how = Sent::default();
        let kind = datagram.what;
        self.traffic.sent(kind);
        if corrupt > 0.0 && self.rng.random_bool(corrupt) {
            self.faults.corrupted += 1;
            self.traffic.corrupted(kind);
            let rng = &mut stream(self.config.seed, "bit", self.sent);
            datagram.packet = flip_a_bit(datagram.packet, rng);
            datagram.what = describe(self.now, from, datagram.to, datagram.via, &datagram.packet).what;
            how.corrupted = true;
            datagram.is_corrupt = true;
        }
        let Datagram { to, via, address, from: source, what, ref packet, .. } = datagram;
        let flight = Flight { at: self.now, from, to, via, what, packet };
        let len = packet.len();
        let id = self.number(&flight, [source, address], how);
        // Every draw is made whatever the rules say, so that a rule changes nothing but what it is about.
        let Crossing { lost, at, copy_at } =
            self.network.cross(departed.unwrap_or(self.now), self.link_of(from), self.link_of(to));
        let ruled_out = self.rules.iter_mut().any(|(_, rule)| rule(&flight));
        if departed.is_none() {
            self.traffic.lost(kind);
            self.overflowed(What::Overflowed { id, from, to, what, len });
            return;
        }
        let lost = lost && from != to;
        if lost || ruled_out || self.blocked.contains(&(from, to)) {
            self.lost += 1;
            self.traffic.lost(kind);
            if lost {
                self.faults.lost += 1;
                self.happened(What::Lost { id, from, to, what, len });
            } else {
                self.faults.cut += 1;
                self.happened(What::Cut { id, from, to, what, len });
            }
            return;
        }
        let has_link = from != to && self.network.has_links() && self.link_of(to).is_some();
        let event = if has_link { Event::Arrive } else { Event::Deliver };
        if let Some(copy_at) = copy_at {
            self.faults.duplicated += 1;
            self.traffic.duplicated(kind);
            let id = self.number(&flight, [source, address], Sent { copy_of: Some(id), ..how });
            let packet = datagram.packet.clone();
            self.schedule(copy_at, event(Datagram { id, packet, ..datagram }));
        }
        datagram.id = id;
        self.schedule(at, event(datagram));
    }

    /// Gives a datagram its number.
    fn number(&mut self, flight: &Flight<'_>, addresses: [SocketAddrV4; 2], how: Sent) -> u64 {
        self.sent += 1;
        if let Some(recording) = &mut self.recording {
            recording.sent(self.sent, flight, addresses, how);
        }
        self.sent
    }

    /// A datagram reaches the link to its receiver.
    pub(super) fn arrive(&mut self, datagram: Datagram) {
        let link = self.link_of(datagram.to).expect("checked when it was sent");
        match self.network.arrive(self.now, link, datagram.packet.len()) {
            Some(at) => self.schedule(at, Event::Deliver(datagram)),
            None => self.no_room(&datagram),
        }
    }

    /// A datagram reaches a node's socket.
    pub(super) fn receive(&mut self, id: u16, datagram: Datagram) {
        let processing = self.processing(id);
        let host = self.host_mut(id);
        let reads_at_once = processing.is_zero() && !host.is_paused && host.sockets.is_empty();
        if reads_at_once || host.running.is_none() {
            self.deliver(datagram);
            return;
        }
        let socket = if datagram.address.port() == PEER_PORT { Socket::Peers } else { Socket::Clients };
        let (len, socket_max) = (datagram.packet.len(), self.network.config().socket_max);
        if let Err(Full(datagram)) = self.host_mut(id).sockets.push(socket, len, datagram, socket_max) {
            self.no_room(&datagram);
        }
        self.read_on(id);
    }

    /// A node begins to deal with the next datagram, if there is one and it does not deal with one already.
    pub(super) fn read_on(&mut self, id: u16) {
        let processing = self.processing(id);
        let now = self.now;
        let host = self.host_mut(id);
        if !host.is_paused && !host.reads && !host.sockets.is_empty() {
            host.reads = true;
            let generation = host.reads_generation;
            self.schedule(now + processing, Event::Read { node: id, generation });
        }
    }

    /// A node has dealt with a datagram: what it does about it, it does now.
    pub(super) fn read(&mut self, id: u16, generation: u64) {
        let host = self.host_mut(id);
        if host.reads_generation != generation {
            return;
        }
        host.reads = false;
        // A paused one takes it up again when it goes on.
        if host.is_paused {
            return;
        }
        if let Some(datagram) = host.sockets.pop() {
            self.deliver(datagram);
            self.read_on(id);
        }
    }

    fn processing(&self, id: u16) -> Duration {
        self.host(id).processing.unwrap_or(self.network.config().processing)
    }

    fn no_room(&mut self, datagram: &Datagram) {
        let (from, to, what) = (self.party(datagram.from), datagram.to, datagram.what);
        self.traffic.lost(what);
        self.overflowed(What::Overflowed { id: datagram.id, from, to, what, len: datagram.packet.len() });
    }

    fn overflowed(&mut self, what: What) {
        self.lost += 1;
        self.faults.overflowed += 1;
        self.happened(what);
    }

    /// The number of a party's link to the network; addresses of a test's own have none.
    fn link_of(&self, party: Party) -> Option<usize> {
        match party {
            Party::Node(id) => Some(usize::from(id) - 1),
            Party::Client(number) => Some(usize::from(self.config.hosts()) + number),
            Party::Aggregator(number) => {
                Some(usize::from(self.config.hosts()) + self.clients.len() + usize::from(number))
            }
            // Behind those of nodes and clients, and of whatever else there is.
            Party::Gateway => Some(self.network.hosts() - 1),
            Party::Raw => None,
        }
    }
}

/// Flips one bit; see [`NetworkConfig::corrupt`].
fn flip_a_bit(packet: Bytes, rng: &mut SmallRng) -> Bytes {
    const MAGIC: std::ops::Range<usize> = 0..8;
    const KIND: std::ops::Range<usize> = 16..20;
    const ACK: u8 = 3;
    const ENVELOPE_END: usize = 8 * (8 + hovercraft::message::ENVELOPE_LEN);
    if packet.len() < 8 {
        return packet;
    }
    let fetched = matches!(internal(&packet), "fetch" | "bodies" | "hint");
    let bit = match rng.random_range(0..3) {
        0 if fetched && packet.len() * 8 > ENVELOPE_END => rng.random_range(ENVELOPE_END..packet.len() * 8),
        1 => rng.random_range(MAGIC),
        // An ACK of which that bit is flipped *is* a response: the published format has nothing to tell them apart by.
        _ if packet[2] >> 4 == ACK => rng.random_range(MAGIC),
        // The upper half of the byte; bits are counted from the left.
        _ => rng.random_range(KIND),
    };
    let mut bytes = packet.to_vec();
    bytes[bit / 8] ^= 0x80 >> (bit % 8);
    bytes.into()
}
