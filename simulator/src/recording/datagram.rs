//! A recorded datagram.

use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::server::Via;

use crate::flight::Party;

/// A datagram on its way to one receiver, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Counts all datagrams of a run, copies included, from 1.
    pub id: u64,
    /// When it was sent.
    pub sent: Instant,
    /// Who sent it.
    pub from: Party,
    /// Who is to receive it.
    pub to: Party,
    /// Where it comes from.
    pub source: SocketAddrV4,
    /// Where it goes. Of a multicast: this receiver's own address.
    pub destination: SocketAddrV4,
    /// Whether it was sent to a group.
    pub via: Via,
    /// What it is; see [`Flight::what`](crate::Flight::what).
    pub kind: &'static str,
    /// The UDP payload as it travels.
    pub packet: Bytes,
    /// Whether a bit of it was flipped.
    pub corrupted: bool,
    /// If it is a copy that the network made: the datagram that was sent.
    pub copy_of: Option<u64>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a datagram, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing before the recording ended; or it waits in the socket of a process that is paused, or died so.
    UnderWay,
    /// The receiver read it.
    Delivered(Instant),
    /// Lost by chance.
    Lost(Instant),
    /// Lost by a rule or a partition.
    Cut(Instant),
    /// It arrived where no process runs.
    Unheard(Instant),
    /// It found a socket or a queue full.
    Overflowed(Instant),
}

impl Fate {
    /// When it was decided; none if it was not.
    pub fn at(self) -> Option<Instant> {
        match self {
            Self::UnderWay => None,
            Self::Delivered(at) | Self::Lost(at) | Self::Cut(at) | Self::Unheard(at) | Self::Overflowed(at) => Some(at),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnderWay => "under way",
            Self::Delivered(_) => "delivered",
            Self::Lost(_) => "lost",
            Self::Cut(_) => "cut off",
            Self::Unheard(_) => "unheard",
            Self::Overflowed(_) => "overflowed",
        }
    }
}
