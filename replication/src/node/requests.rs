//! What clients send: validation, and the rules for retransmissions (protocol.md §5.2, §7.8).

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::server::{self, IncomingRequest, ServerConfig, ServerEvent, write_drop};
use r2p2::wire::{Extensions, ReplyStatus, Session};

use super::{AdminRequest, Node, Output};
use crate::applier::{Committed, Work};
use crate::config::{Mode, NodeConfig};
use crate::entry::{Entry, EntryKind, RequestHead, identity};
use crate::message::NUMBER_MAX;
use crate::service::Class;

/// Largest UDP payload to and from clients: what fits Ethernet and what the C implementation reads.
pub(crate) const CLIENT_PACKET_MAX: usize = r2p2::wire::HEADER_LEN + r2p2::wire::PAYLOAD_MAX;

pub(super) fn server_config(config: &NodeConfig) -> ServerConfig {
    let mut server = ServerConfig::default();
    server.reassembly.message_max = config.limits.request_max;
    server.digest_key = config.digest_key;
    server.forwarders = config.forwarders.iter().copied().collect();
    server
}

impl Node {
    pub(super) fn drain_server(&mut self, now: Instant) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Request(request) => self.handle_request(now, request),
                ServerEvent::Handshake { from, rid } => {
                    // One node must acknowledge, and only a leader that is sure of it (§3.2).
                    if self.acknowledges_handshakes(now) {
                        self.server.acknowledge(from, rid);
                    } else {
                        self.counters.handshakes_ignored += 1;
                    }
                }
                ServerEvent::Feedback { .. } => self.counters.peer_messages_unexpected += 1,
            }
        }
        while let Some(request) = self.server.poll_too_long() {
            self.counters.requests_too_long += 1;
            // Only one node may answer what all of them received.
            if self.leading.is_some() || self.config.mode == Mode::Unreplicated {
                let head = RequestHead {
                    client: request.from,
                    rid: request.head.rid,
                    session: request.head.extensions.session,
                    ..RequestHead::NONE
                };
                self.refuse_request(&head, Some(ReplyStatus::TooLarge));
            }
        }
        while let Some((to, packet)) = self.server.poll_transmit() {
            self.outputs.push_back(Output::Client { to, packet });
        }
    }

    /// Whether this node acknowledges the first packet of a plain multi-packet request that came by group.
    pub(super) fn acknowledges_handshakes(&self, now: Instant) -> bool {
        match self.config.mode {
            Mode::Unreplicated => true,
            Mode::Raft | Mode::Hovercraft | Mode::HovercraftPlusPlus => {
                let heartbeat = self.config.timing.tick * 2 * crate::config::Timing::HEARTBEAT_TICKS as u32;
                self.heard_quorum(now, heartbeat)
            }
        }
    }

    fn handle_request(&mut self, now: Instant, request: IncomingRequest) {
        let IncomingRequest { from, via: _, message } = request;
        if message.extensions.admin {
            let admin = AdminRequest { from, rid: message.rid, body: message.body };
            self.outputs.push_back(Output::Admin(admin));
            return;
        }
        let session = message.extensions.session;
        let head = RequestHead {
            client: from,
            rid: message.rid,
            session,
            identity: identity(&self.config.digest_key, from, message.rid, session.as_ref(), &message.body),
            body_len: message.body.len() as u32,
        };
        // Nobody was given a session or a seq beyond the bound, and sums with one could overflow. (A nonce is any number.)
        if session.is_some_and(|s| s.client != 0 && s.client.max(s.seq).max(s.first_unacked) >= NUMBER_MAX) {
            self.counters.requests_bad_session += 1;
            return;
        }
        match self.config.mode {
            Mode::Unreplicated => self.execute_unreplicated(now, head, message.body),
            Mode::Raft if self.leading.is_none() => self.counters.requests_not_leader += 1,
            #[cfg(feature = "mutations")]
            Mode::Raft | Mode::Hovercraft | Mode::HovercraftPlusPlus
                if mutated!(LeaderReadsLocally)
                    && self.leading.is_some()
                    && session.is_some()
                    && !head.opens_session()
                    && (self.classify)(&message.body) == Class::Read =>
            {
                self.outputs.push_back(Output::Apply(Work::Query { request: head, body: message.body }));
            }
            Mode::Raft | Mode::Hovercraft | Mode::HovercraftPlusPlus => self.take_request(now, head, message.body),
        }
    }

    fn take_request(&mut self, now: Instant, head: RequestHead, body: Bytes) {
        if let Some(waiting) = self.unordered.get(&head.identity) {
            if now.since(waiting.at) < self.config.timing.order_age_max {
                self.counters.requests_duplicate += 1;
                return;
            }
            // Too old to be ordered, but its client still wants it: this copy takes its place.
            self.unordered.take(&head.identity);
        }
        // A plain request is a copy for as long as it is remembered, and then a new one with the same bytes, however long
        // the log goes back.
        if head.session.is_none() {
            if self.plain.knows(now, head.client, &head.identity) {
                self.counters.requests_duplicate += 1;
                return;
            }
        } else if let Some(index) = self.consensus.log().find(&head.identity)
            && !self.take_retransmission(&head, index)
        {
            return;
        }
        self.counters.requests_received += 1;
        self.insert(now, head, body);
    }

    /// A body that was asked for has come. On the leader it may be one that only a follower heard of, and is a request
    /// like any other. On a follower an entry waits for it, so it is taken even if the set is full: what was asked for is
    /// bounded by itself.
    pub(super) fn take_fetched(&mut self, now: Instant, head: RequestHead, body: Bytes) {
        if self.has_body(&head.identity) {
            return;
        }
        if self.leading.is_none() {
            self.unordered.insert_needed(now, head, body);
            return;
        }
        if head.session.is_none() && self.plain.knows(now, head.client, &head.identity) {
            return;
        }
        // Only what waits is remembered: it is forgotten when it is ordered or dropped.
        let waits = self.insert(now, head, body);
        if let Some(leading) = self.leading.as_mut().filter(|_| waits) {
            leading.by_hint.insert(head.identity);
        }
    }

    /// A request that the log knows. Returns whether it is to be ordered again.
    fn take_retransmission(&mut self, head: &RequestHead, index: u64) -> bool {
        let Some(record) = self.consensus.log().get(index) else { return false };
        let entry = record.entry;
        self.counters.requests_duplicate += 1;
        // Only the leader reacts (§7.8), and not before the entry is applied: until then its replier will answer.
        if self.leading.is_none() || index > self.applied {
            return false;
        }
        match (entry.kind, head.session) {
            (EntryKind::SessionOpen, Some(nonce)) => {
                self.counters.requests_answered_again += 1;
                let session = Session { client: index, seq: nonce.seq, first_unacked: nonce.first_unacked };
                let extensions =
                    Extensions { session: Some(session), entry_index: Some(index), ..Extensions::default() };
                self.respond(head, extensions, &[]);
                self.finished(head);
                false
            }
            (EntryKind::Request, Some(_)) if entry.read_only => {
                self.counters.reads_ordered_again += 1;
                true
            }
            (EntryKind::Request, Some(_)) => {
                self.counters.requests_answered_again += 1;
                self.outputs.push_back(Output::Apply(Work::Answer { request: *head }));
                false
            }
            // A plain request is answered once, by its replier.
            (EntryKind::Request | EntryKind::SessionOpen, None)
            | (EntryKind::TermStart | EntryKind::Membership | EntryKind::Version, _) => false,
        }
    }

    /// Takes a request into the unordered set, and on the leader into the queue. Returns whether there was room.
    fn insert(&mut self, now: Instant, head: RequestHead, body: Bytes) -> bool {
        let identity = head.identity;
        let Ok(stay) = self.unordered.insert(now, head, body) else {
            self.counters.requests_refused_full += 1;
            if self.leading.is_some() {
                self.refuse_request(&head, None);
            }
            return false;
        };
        if let Some(leading) = &mut self.leading {
            leading.pending.push_back((identity, stay));
        }
        if self.fetcher.done(&identity) {
            self.retry_held(now);
        }
        true
    }

    /// One node and no log: the order of arrival is the order.
    fn execute_unreplicated(&mut self, now: Instant, head: RequestHead, body: Bytes) {
        if self.dispatched - self.applied >= self.config.limits.window_entries_max as u64 {
            self.counters.requests_refused_full += 1;
            self.refuse_request(&head, None);
            return;
        }
        self.counters.requests_received += 1;
        self.counters.replies_assigned += 1;
        self.dispatched += 1;
        let entry = self.entry_for(&head, &body, self.config.me.node(), now);
        let committed = Committed { index: self.dispatched, entry, body, replayed: false };
        self.outputs.push_back(Output::Apply(Work::Apply(committed)));
    }

    /// The entry that orders a request.
    pub(super) fn entry_for(&self, head: &RequestHead, body: &[u8], replier: crate::NodeId, time: Instant) -> Entry {
        let opens = head.opens_session();
        Entry {
            kind: if opens { EntryKind::SessionOpen } else { EntryKind::Request },
            read_only: !opens && (self.classify)(body) == Class::Read,
            replier,
            request: *head,
            time,
        }
    }

    /// Turns a request away: with a reason if the client can read one, else by DROP, which means "not accepted now".
    ///
    /// A plain client takes a DROP of its only copy for "certainly not executed". Of a request that came to a whole
    /// group that is true only if every node refuses it, as one that is too long; otherwise a follower may have it, and
    /// the next leader order it, so that client is left to its timeout.
    pub(super) fn refuse_request(&mut self, head: &RequestHead, status: Option<ReplyStatus>) {
        self.finished(head);
        if status.is_none() && head.session.is_none() && self.config.mode != Mode::Unreplicated {
            return;
        }
        match (status, head.session) {
            (Some(status), Some(session)) => {
                let extensions = Extensions { session: Some(session), status: Some(status), ..Extensions::default() };
                let limit = (self.config.limits.request_max as u64).to_be_bytes();
                self.respond(head, extensions, if status == ReplyStatus::TooLarge { &limit } else { &[] });
            }
            _ => self.outputs.push_back(Output::Client { to: head.client, packet: write_drop(head.rid) }),
        }
    }

    /// Answers a client that has a session, or is opening one.
    fn respond(&mut self, head: &RequestHead, extensions: Extensions, body: &[u8]) {
        let extensions = Extensions { epoch: Some(self.epoch()), ..extensions };
        write_response(head.client, head.rid, extensions, CLIENT_PACKET_MAX, body, &mut self.outputs);
    }
}

pub(super) fn write_admin_answer(
    packet_max: usize,
    epoch: u64,
    request: &AdminRequest,
    report: &[u8],
    outputs: &mut VecDeque<Output>,
) {
    let extensions = Extensions { admin: true, epoch: Some(epoch), ..Extensions::default() };
    write_response(request.from, request.rid, extensions, packet_max.min(CLIENT_PACKET_MAX), report, outputs);
}

fn write_response(
    to: SocketAddrV4,
    rid: u16,
    extensions: Extensions,
    packet_max: usize,
    body: &[u8],
    outputs: &mut VecDeque<Output>,
) {
    let written = server::write_response(rid, extensions, body, packet_max, &mut |packet| {
        outputs.push_back(Output::Client { to, packet });
    });
    debug_assert!(written.is_ok(), "answers written by the node itself are short");
}
