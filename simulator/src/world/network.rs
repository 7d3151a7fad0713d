//! The network: delay, loss, duplication, corruption, rules and partitions.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::Service;
use r2p2::server::Via;
use rand::Rng;

use super::addresses::request_address;
use super::{Event, NetworkConfig, What, World};
use crate::flight::{Flight, Party, describe, internal};
use crate::recording::Sent;

/// Says of a datagram whether it is lost.
pub(super) type Rule = Box<dyn FnMut(&Flight<'_>) -> bool>;

impl<S: Service> World<S> {
    /// Loses everything from one party to another.
    pub fn block(&mut self, from: Party, to: Party) {
        if self.blocked.insert((from, to)) {
            self.happened(What::Blocked { from, to, more: 0 });
        }
    }

    /// Cuts a node off from all other nodes and clients, or from all but `friends`.
    pub fn isolate(&mut self, id: u16, friends: &[u16]) {
        let parties: Vec<Party> = self
            .hosts
            .iter()
            .map(|host| Party::Node(host.id.0))
            .chain((0..self.clients.len()).map(Party::Client))
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
        self.config.network = network;
        self.happened_because(What::NetworkChanged, || format!("{network:?}"));
    }

    /// Sends a datagram from an address of the test's own to all nodes' request group.
    pub fn send_raw_to_group(&mut self, from: SocketAddrV4, packet: Bytes) {
        for id in 1..=self.config.nodes {
            self.transmit(Party::Raw, from, Party::Node(id), request_address(id), Via::Group, packet.clone());
        }
    }

    /// Sends a datagram from an address of the test's own to one address.
    pub fn send_raw(&mut self, from: SocketAddrV4, to: SocketAddrV4, packet: Bytes) {
        self.transmit(Party::Raw, from, self.party(to), to, Via::Unicast, packet);
    }

    /// Takes what has arrived at an address of the test's own.
    pub fn mailbox(&mut self, address: SocketAddrV4) -> Vec<Bytes> {
        self.mailboxes.remove(&address).unwrap_or_default()
    }

    pub(super) fn transmit(
        &mut self,
        from: Party,
        source: SocketAddrV4,
        to: Party,
        address: SocketAddrV4,
        via: Via,
        packet: Bytes,
    ) {
        let mut packet = packet;
        let mut how = Sent::default();
        if self.config.network.corrupt > 0.0 && self.rng.random_bool(self.config.network.corrupt) {
            packet = self.corrupt(packet);
            how.corrupted = true;
        }
        let flight = describe(self.now, from, to, via, &packet);
        let (what, len) = (flight.what, packet.len());
        let network = self.config.network;
        // Every draw is made whatever the rules say, so that a rule changes nothing but what it is about.
        let lost = self.rng.random_bool(network.loss) && from != to;
        let twice = self.rng.random_bool(network.duplicate);
        let delay = self.delay(network);
        let again = self.delay(network);
        let id = self.number(&flight, [source, address], how);
        let ruled_out = self.rules.iter_mut().any(|(_, rule)| rule(&flight));
        if lost || ruled_out || self.blocked.contains(&(from, to)) {
            self.lost += 1;
            if lost {
                self.faults.lost += 1;
                self.happened(What::Lost { id, from, to, what, len });
            } else {
                self.faults.cut += 1;
                self.happened(What::Cut { id, from, to, what, len });
            }
            return;
        }
        let now = self.now;
        if twice {
            self.faults.duplicated += 1;
            let id = self.number(&flight, [source, address], Sent { copy_of: Some(id), ..how });
            let packet = packet.clone();
            self.schedule(now + again, Event::Deliver { id, to, address, via, from: source, packet });
        }
        self.schedule(now + delay, Event::Deliver { id, to, address, via, from: source, packet });
    }

    /// Gives a datagram its number.
    fn number(&mut self, flight: &Flight<'_>, addresses: [SocketAddrV4; 2], how: Sent) -> u64 {
        self.sent += 1;
        if let Some(recording) = &mut self.recording {
            recording.sent(self.sent, flight, addresses, how);
        }
        self.sent
    }

    fn delay(&mut self, network: NetworkConfig) -> Duration {
        let jitter = network.jitter.as_nanos() as u64;
        network.latency + Duration::from_nanos(if jitter == 0 { 0 } else { self.rng.random_range(0..jitter) })
    }

    /// Flips one bit; see [`NetworkConfig::corrupt`].
    fn corrupt(&mut self, packet: Bytes) -> Bytes {
        const MAGIC: std::ops::Range<usize> = 0..8;
        const KIND: std::ops::Range<usize> = 16..20;
        const ENVELOPE_END: usize = 8 * (8 + hovercraft::message::ENVELOPE_LEN);
        if packet.len() < 8 {
            return packet;
        }
        let fetched = matches!(internal(&packet), "fetch" | "bodies" | "hint");
        let bit = match self.rng.random_range(0..3) {
            0 if fetched && packet.len() * 8 > ENVELOPE_END => self.rng.random_range(ENVELOPE_END..packet.len() * 8),
            1 => self.rng.random_range(MAGIC),
            // The upper half of the byte; bits are counted from the left.
            _ => self.rng.random_range(KIND),
        };
        self.faults.corrupted += 1;
        let mut bytes = packet.to_vec();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        bytes.into()
    }
}
