//! Who has which address in a world.

use std::net::{Ipv4Addr, SocketAddrV4};

use hovercraft::{Addresses, Incarnation, MemberId, NodeId};

use crate::flight::Party;

pub(super) const REQUEST_PORT: u16 = 9000;
pub(super) const PEER_PORT: u16 = 9100;

/// Where a node receives requests.
pub fn request_address(id: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, id as u8), REQUEST_PORT)
}

/// Where a node receives what other nodes say.
pub fn peer_address(id: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, id as u8), PEER_PORT)
}

/// Where aggregators are.
pub fn aggregator_address() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), 9200)
}

/// Where an aggregator sends what is for all nodes; the world knows who listens.
pub(super) const PEER_GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, 1), PEER_PORT);

/// A client's address.
pub fn client_address(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, (number / 250) as u8, (number % 250 + 1) as u8), 5000)
}

/// Where the gateway is.
pub fn gateway_address() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, 1), REQUEST_PORT)
}

/// Nothing is sent there: the world knows who listens.
pub(super) const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, 1), REQUEST_PORT);

/// Where a node is.
pub fn addresses(id: u16) -> Addresses {
    Addresses { peers: peer_address(id), requests: request_address(id), group_requests: None }
}

pub(super) fn member(id: u16) -> MemberId {
    MemberId::new(NodeId(id), Incarnation(1))
}

/// Whose address this is, in a world of so many hosts and clients.
pub(super) fn party(address: SocketAddrV4, hosts: u16, clients: usize) -> Party {
    let [a, b, c, d] = address.ip().octets();
    match (a, b) {
        (10, 2) if address == aggregator_address() => Party::Aggregator(0),
        (10, 3) if address == gateway_address() => Party::Gateway,
        (10, 0) if (1..=hosts).contains(&u16::from(d)) => Party::Node(u16::from(d)),
        // A flipped bit can make an address of nobody's.
        (10, 1) if d > 0 => match usize::from(c) * 250 + usize::from(d) - 1 {
            number if number < clients => Party::Client(number),
            _ => Party::Raw,
        },
        _ => Party::Raw,
    }
}
