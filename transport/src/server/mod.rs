//! The server endpoint: from datagrams to requests. It knows nothing of what a request does, never reads a clock or
//! opens a socket, and holds nothing about a request once it has been delivered.

mod acknowledged;
mod config;
mod counters;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use bytes::Bytes;

use crate::Instant;
use crate::message::{Message, MessageHead, TooLong, write_packets};
use crate::reassembly::{Progress, Reassembler, ReassemblyCounters, Reject};
use crate::wire::{Extensions, Feedback, Header, MessageType, Packet, Policy};

pub use crate::wire::{write_ack, write_drop, write_feedback};
pub use config::ServerConfig;
pub use counters::ServerCounters;

use acknowledged::Acknowledged;

/// Most requests refused for their length that wait to be polled; further ones are only counted.
pub const TOO_LONG_MAX: usize = 64;

/// A server endpoint, sans-IO.
///
/// # Contract
///
/// *Mutate, then drain.* After a call of `handle_datagram`, `handle_timeout` or `acknowledge` (or a batch of them) call
/// [`poll_event`](Self::poll_event) and then [`poll_transmit`](Self::poll_transmit) until they have nothing, and
/// `handle_timeout` when [`next_timeout`](Self::next_timeout) has come. Packets must be sent from the very port on which
/// unicast requests arrive (protocol.md §3.1). Time must not run backwards.
///
/// # Requests of several packets
///
/// Those that say `no_handshake` arrive whole. Of others only the first packet comes, and the rest to whoever answers
/// it with ACK: one that came by unicast is acknowledged at once, one that came by group is the driver's decision
/// ([`ServerEvent::Handshake`]), since only one server may. An RPC id is acknowledged once, and again only if its first
/// packet comes again after [`COPY_AGE_MAX`](crate::reassembly::COPY_AGE_MAX): a second ACK aborts a client of the C
/// implementation, which never retransmits, and a lost one must not stop a client that does.
///
/// Duplicates of whole requests are the driver's to recognise.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    reassembler: Reassembler,
    acknowledged: Acknowledged,
    acknowledging: bool,
    /// The latest that the driver said.
    now: Instant,
    events: VecDeque<ServerEvent>,
    events_bytes: usize,
    too_long: VecDeque<TooLongRequest>,
    transmits: VecDeque<(SocketAddrV4, Bytes)>,
    counters: ServerCounters,
}

/// How a packet came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// To this server's own address.
    Unicast,
    /// To an address that others listen to as well.
    Group,
}

/// What a server has to tell its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// A complete request.
    Request(IncomingRequest),
    /// Another server has answered a request. Never the case for servers behind a router, only for the router.
    Feedback {
        /// The server that answered.
        from: SocketAddrV4,
        /// What it answered.
        feedback: Feedback,
    },
    /// The first of several packets of a request came by group, and its client waits for one server to
    /// [`acknowledge`](Server::acknowledge) it.
    Handshake {
        /// The client.
        from: SocketAddrV4,
        /// The request's number there.
        rid: u16,
    },
}

/// A complete request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingRequest {
    /// Where the answer goes: the client, if need be as its forwarder stated.
    pub from: SocketAddrV4,
    /// How it came; of several packets the one that completed it.
    pub via: Via,
    /// What was asked.
    pub message: Message,
}

/// A request that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLongRequest {
    /// Where the answer goes.
    pub from: SocketAddrV4,
    /// How it came; of several packets the one that showed it.
    pub via: Via,
    /// Of several packets that of the one that showed it, so not all extensions need be there; the session is.
    pub head: MessageHead,
    /// The limit in bytes.
    pub limit: usize,
}

impl Server {
    /// A server that has received nothing.
    pub fn new(config: ServerConfig) -> Self {
        Self {
            reassembler: Reassembler::new(config.reassembly, config.digest_key),
            acknowledged: Acknowledged::new(config.acknowledged_max),
            acknowledging: true,
            now: Instant::ZERO,
            events: VecDeque::new(),
            events_bytes: 0,
            too_long: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: ServerCounters::default(),
            config,
        }
    }

    /// Takes in a UDP payload that came from `from`. Any bytes are safe.
    pub fn handle_datagram(&mut self, now: Instant, via: Via, from: SocketAddrV4, packet: &[u8]) {
        self.now = now;
        self.counters.packets_received += 1;
        let packet = match Packet::new_checked(packet) {
            Ok(packet) => packet,
            Err(error) => return self.reject(error.into()),
        };
        let header = match Header::parse(&packet) {
            Ok(header) => header,
            Err(error) => return self.reject(error.into()),
        };
        match header.kind {
            MessageType::Request => self.handle_request(via, from, &header, packet.payload()),
            MessageType::Feedback => self.handle_feedback(from, packet.payload()),
            MessageType::Response
            | MessageType::Ack
            | MessageType::Drop
            | MessageType::RaftRequest
            | MessageType::RaftReply
            | MessageType::RaftMessage => self.counters.unexpected_kind += 1,
        }
    }

    /// Forgets requests whose rest never came. Harmless if nothing is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.counters.incomplete_expired += self.reassembler.expire(now) as u64;
        self.acknowledged.forget(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if anything is held.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.reassembler.next_expiry()
    }

    /// What came, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        let event = self.events.pop_front()?;
        self.events_bytes -= event.bytes();
        Some(event)
    }

    /// A request that was refused for its length, oldest first. Whether this server is the one to answer TOO LARGE is the
    /// driver's decision; a driver that never polls this loses nothing else.
    pub fn poll_too_long(&mut self) -> Option<TooLongRequest> {
        self.too_long.pop_front()
    }

    /// A packet to send to a client, oldest first.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddrV4, Bytes)> {
        self.transmits.pop_front()
    }

    /// Asks `from` for the rest of its request `rid`, in answer to [`ServerEvent::Handshake`]. Does nothing if it was
    /// asked a moment ago.
    pub fn acknowledge(&mut self, from: SocketAddrV4, rid: u16) {
        if self.acknowledged.is_recent(self.now, (from, rid)) {
            return;
        }
        if self.transmits.len() >= self.config.transmits_max {
            self.counters.transmits_full += 1;
            return;
        }
        self.acknowledged.insert(self.now, (from, rid));
        self.counters.acknowledged += 1;
        self.transmits.push_back((from, write_ack(rid)));
    }

    /// Whether the driver may acknowledge first packets that come by group; at first it may. While it may not, they are
    /// neither held nor made events.
    pub const fn set_acknowledging(&mut self, acknowledging: bool) {
        self.acknowledging = acknowledging;
    }

    /// What has been counted so far, by what happened to the packets.
    pub const fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// What has been counted so far about requests in pieces.
    pub const fn reassembly_counters(&self) -> &ReassemblyCounters {
        self.reassembler.counters()
    }

    /// The requests in pieces.
    pub const fn reassembler(&self) -> &Reassembler {
        &self.reassembler
    }
}

/// The head of an answer: the C implementation gives it the request's rid, and policy FIXED whatever the request's.
pub const fn response_head(rid: u16, extensions: Extensions) -> MessageHead {
    MessageHead { kind: MessageType::Response, policy: Policy::Fixed, rid, extensions }
}

/// Cuts the answer to request `rid` into packets; see [`write_packets`].
///
/// `extensions` must repeat the request's session, and be empty if it had none.
pub fn write_response(
    rid: u16,
    extensions: Extensions,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    write_packets(&response_head(rid, extensions), body, packet_max, emit)
}

/// Receiving.
impl Server {
    fn handle_request(&mut self, via: Via, from: SocketAddrV4, header: &Header, body: &[u8]) {
        let from = match header.extensions.forwarded {
            None => from,
            Some(forwarded) if self.config.forwarders.contains(&from) => forwarded.client,
            Some(_) => {
                self.counters.unknown_forwarder += 1;
                return;
            }
        };
        let address = from.ip();
        if from.port() == 0 || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            self.counters.unusable_source += 1;
            return;
        }
        if header.wants_ack() {
            if via == Via::Group && !self.acknowledging {
                self.counters.handshakes_ignored += 1;
                return;
            }
            if self.acknowledged.is_recent(self.now, (from, header.rid)) {
                self.counters.handshakes_repeated += 1;
                return;
            }
        }
        match self.reassembler.advance(self.now, from, header, body) {
            Ok(Progress::Complete(message)) => {
                if self.push_event(ServerEvent::Request(IncomingRequest { from, via, message })) {
                    self.counters.requests += 1;
                }
            }
            Ok(Progress::Started | Progress::Copy) if header.wants_ack() => self.shake_hands(via, from, header.rid),
            Ok(Progress::Started | Progress::Copy | Progress::Partial) => {}
            Err(reject) => {
                self.reject(reject);
                if let Reject::MessageTooLong { limit, .. } | Reject::BytesFull { limit, .. } = reject {
                    self.counters.requests_too_long += 1;
                    if self.too_long.len() < TOO_LONG_MAX {
                        let Header { kind, policy, rid, extensions, .. } = *header;
                        let head = MessageHead { kind, policy, rid, extensions };
                        self.too_long.push_back(TooLongRequest { from, via, head, limit });
                    }
                }
            }
        }
    }

    fn shake_hands(&mut self, via: Via, from: SocketAddrV4, rid: u16) {
        match via {
            Via::Unicast => self.acknowledge(from, rid),
            Via::Group => {
                if self.push_event(ServerEvent::Handshake { from, rid }) {
                    self.counters.handshakes += 1;
                }
            }
        }
    }

    fn handle_feedback(&mut self, from: SocketAddrV4, payload: &[u8]) {
        match Feedback::parse(payload) {
            Ok(feedback) => {
                if self.push_event(ServerEvent::Feedback { from, feedback }) {
                    self.counters.feedbacks += 1;
                }
            }
            Err(error) => self.reject(error.into()),
        }
    }

    /// Says whether there was room.
    fn push_event(&mut self, event: ServerEvent) -> bool {
        let bytes = self.events_bytes.saturating_add(event.bytes());
        let full = self.events.len() >= self.config.events_max
            || bytes > self.config.events_bytes_max && !self.events.is_empty();
        if full {
            self.counters.events_full += 1;
            return false;
        }
        self.events_bytes = bytes;
        self.events.push_back(event);
        true
    }

    fn reject(&mut self, reject: Reject) {
        tracing::trace!(%reject, "packet refused");
        if let Some(count) = self.counters.rejected.get_mut(reject.index()) {
            *count += 1;
        }
    }
}

impl ServerEvent {
    /// Bytes of body it holds on to.
    fn bytes(&self) -> usize {
        match self {
            Self::Request(request) => request.message.body.len(),
            Self::Feedback { .. } | Self::Handshake { .. } => 0,
        }
    }
}
