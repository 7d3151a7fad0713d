//! The server's endpoint: from datagrams to requests (protocol.md §3.2).
//!
//! Contract: hand in datagrams and timeouts, then drain [`Server::poll_event`] and [`Server::poll_transmit`]. Answers
//! are not its business: whoever executes a request writes them with [`crate::message::write_packets`].

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddrV4;

use bytes::Bytes;

use crate::Instant;
use crate::message::Message;
use crate::reassembly::{Reassembler, ReassemblyLimits, Reject};
pub use crate::wire::write_drop;
use crate::wire::{DigestKey, Feedback, Header, MessageType, Packet, write_ack};

/// What a server endpoint needs to know.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// Bounds of requests in pieces.
    pub reassembly: ReassemblyLimits,
    /// Key of the digests.
    pub digest_key: DigestKey,
    /// Those whose `forwarded` extension is believed.
    pub forwarders: BTreeSet<SocketAddrV4>,
}

/// Most events that may wait to be polled; more are dropped and counted.
pub const EVENTS_MAX: usize = 65_536;

/// How a datagram came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// To this server alone.
    Unicast,
    /// To a group it belongs to.
    Group,
}

/// A request, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingRequest {
    /// Where its answer goes.
    pub from: SocketAddrV4,
    /// How it came.
    pub via: Via,
    /// The request.
    pub message: Message,
}

/// What a server endpoint has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// A request.
    Request(IncomingRequest),
    /// A server's feedback, for gateways and routers.
    Feedback {
        /// Who says so.
        from: SocketAddrV4,
        /// What.
        feedback: Feedback,
    },
    /// The first packet of a plain multi-packet request that came by group: exactly one member should
    /// [`Server::acknowledge`] it.
    Handshake {
        /// The client.
        from: SocketAddrV4,
        /// The request.
        rid: u16,
    },
}

/// What a server endpoint counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerCounters {
    /// Datagrams handed in.
    pub datagrams: u64,
    /// Whole requests handed out.
    pub requests: u64,
    /// Multi-packet requests acknowledged.
    pub acknowledged: u64,
    /// Packets of a type that no server expects.
    pub unexpected_type: u64,
    /// Packets with a `forwarded` extension from somebody who may not forward.
    pub foreign_forwarder: u64,
    /// Events dropped because too many waited.
    pub events_full: u64,
    /// Requests that never became whole.
    pub incomplete: u64,
    /// Packets refused, by reason.
    pub rejected: [u64; Reject::COUNT],
}

impl ServerCounters {
    /// Name and value of each, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("datagrams", self.datagrams),
            ("requests", self.requests),
            ("acknowledged", self.acknowledged),
            ("unexpected_type", self.unexpected_type),
            ("foreign_forwarder", self.foreign_forwarder),
            ("events_full", self.events_full),
            ("incomplete", self.incomplete),
        ]
        .into_iter()
        .chain(self.rejected.into_iter().enumerate().map(|(index, count)| (Reject::name(index), count)))
    }
}

/// The endpoint. See the module for its contract.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    reassembler: Reassembler,
    events: VecDeque<ServerEvent>,
    transmits: VecDeque<(SocketAddrV4, Bytes)>,
    counters: ServerCounters,
}

impl Server {
    /// An endpoint that has received nothing.
    pub fn new(config: ServerConfig) -> Self {
        Self {
            reassembler: Reassembler::new(config.reassembly, config.digest_key),
            config,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: ServerCounters::default(),
        }
    }

    /// A datagram arrived.
    pub fn handle_datagram(&mut self, now: Instant, via: Via, from: SocketAddrV4, packet: &[u8]) {
        self.counters.datagrams += 1;
        if let Err(reject) = self.take(now, via, from, packet)
            && let Some(count) = self.counters.rejected.get_mut(reject.index())
        {
            *count += 1;
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.counters.incomplete += self.reassembler.expire(now) as u64;
    }

    /// When to call [`Server::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.reassembler.next_expiry()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddrV4, Bytes)> {
        self.transmits.pop_front()
    }

    /// Asks a client to send the rest of a request here.
    pub fn acknowledge(&mut self, from: SocketAddrV4, rid: u16) {
        self.counters.acknowledged += 1;
        self.transmits.push_back((from, write_ack(rid)));
    }

    /// What has been counted.
    pub fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    fn take(&mut self, now: Instant, via: Via, from: SocketAddrV4, packet: &[u8]) -> Result<(), Reject> {
        let packet = Packet::new_checked(packet).map_err(Reject::Parse)?;
        let header = Header::parse(&packet).map_err(Reject::Parse)?;
        match header.kind {
            MessageType::Request => {}
            MessageType::Feedback => {
                let feedback = Feedback::parse(packet.payload()).map_err(Reject::Parse)?;
                self.push(ServerEvent::Feedback { from, feedback });
                return Ok(());
            }
            _ => {
                self.counters.unexpected_type += 1;
                return Ok(());
            }
        }
        let forwarded = header.extensions.forwarded;
        if forwarded.is_some() && !self.config.forwarders.contains(&from) {
            self.counters.foreign_forwarder += 1;
            return Ok(());
        }
        // Packets of one request share the client they are from, whoever brings them.
        let client = forwarded.map_or(from, |forwarded| forwarded.client);
        let complete = self.reassembler.accept_parsed(now, client, &header, packet.payload())?;
        if let Some(message) = complete {
            self.counters.requests += 1;
            self.push(ServerEvent::Request(IncomingRequest { from: client, via, message }));
        } else if header.first && !header.extensions.no_handshake {
            match via {
                Via::Unicast => self.acknowledge(client, header.rid),
                Via::Group => self.push(ServerEvent::Handshake { from: client, rid: header.rid }),
            }
        }
        Ok(())
    }

    fn push(&mut self, event: ServerEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.events_full += 1;
        }
    }
}
