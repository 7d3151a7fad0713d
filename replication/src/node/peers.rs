//! Datagrams between nodes: who may say what, and how it is packed.

use std::net::SocketAddrV4;

use r2p2::Instant;
use r2p2::message::{MessageHead, write_packets};
use r2p2::reassembly::ReassemblyLimits;
use r2p2::wire::{Extensions, MessageType, Packet, Policy};

use super::{Destination, Node, Output};
use crate::config::NodeConfig;
use crate::id::{NodeId, Term};
use crate::membership::{MEMBERS_MAX, Membership};
use crate::message::{Envelope, Message, MessageError, Refusal, Refused};
use crate::snapshot::CHUNK_LEN;

/// What one peer may have in pieces here. Only Bodies, chunks of snapshots, and Appends in mode `raft` are ever larger than
/// a datagram.
pub(super) fn reassembly_limits(config: &NodeConfig) -> ReassemblyLimits {
    ReassemblyLimits {
        message_max: config.limits.request_max.max(CHUNK_LEN) + 4096,
        slots_per_peer: 256,
        slots_max: 256 * MEMBERS_MAX,
        ..ReassemblyLimits::default()
    }
}

/// Whether this is a message of one datagram, of which nothing needs to be kept.
fn is_whole(packet: &[u8]) -> bool {
    Packet::new_checked(packet).is_ok_and(|packet| packet.is_first() && packet.is_last())
}

impl Node {
    pub(super) fn receive_from_peer(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        self.counters.peer_packets_received += 1;
        // Before anything of it is kept: strangers must not fill the table of messages in pieces.
        let is_stranger = !self.addresses.values().any(|address| *address == from);
        if is_stranger && !is_whole(packet) {
            self.counters.peer_messages_stranger += 1;
            return;
        }
        let message = match self.peer_packets.accept(now, from, packet) {
            Ok(Some(message)) if message.kind == MessageType::RaftMessage => message,
            Ok(None) => return,
            Ok(Some(_)) | Err(_) => {
                self.counters.peer_packets_malformed += 1;
                return;
            }
        };
        let (envelope, message) = match Message::parse(&message.body) {
            Ok(parsed) => parsed,
            Err(error @ MessageError::Version { theirs, .. }) => {
                self.counters.peer_messages_other_version += 1;
                if !is_stranger && self.other_versions.insert(from, theirs) != Some(theirs) {
                    tracing::warn!(node = %self.config.me.node(), %from, %error, "a peer is not understood");
                }
                return;
            }
            Err(error) => {
                tracing::trace!(%from, %error, "malformed internal message");
                self.counters.peer_messages_malformed += 1;
                return;
            }
        };
        if envelope.group != self.config.group {
            self.counters.peer_messages_other_group += 1;
            return;
        }
        if envelope.from == self.config.me {
            return; // Our own multicast, looped back, or that of a process that was there before.
        }
        if is_stranger && self.has_aggregator() && self.config.aggregator == Some(from) {
            self.hear_aggregator(now, &envelope, message);
            self.advance(now);
            return;
        }
        if is_stranger {
            self.handle_stranger(from, &envelope, &message);
            self.advance(now);
            return;
        }
        if !self.is_welcome(from, &envelope, &message) {
            return;
        }
        tracing::trace!(node = %self.config.me.node(), from = ?envelope.from, message = message.name(), term = envelope.term, "receive");
        match message {
            Message::Append(append) => self.handle_append(now, envelope.from, envelope.term, append),
            Message::AppendAck(ack) => self.handle_ack(now, envelope.from, envelope.term, &ack),
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(now, envelope.from, envelope.term, &heartbeat),
            Message::CommitNotice(notice) => self.handle_notice(now, envelope.from, envelope.term, notice.commit),
            Message::Vote(vote) => {
                self.consensus.step_vote(envelope.from, envelope.term, &vote);
                self.advance(now);
            }
            Message::VoteReply(reply) => {
                self.consensus.step_vote_reply(envelope.from, envelope.term, &reply);
                self.advance(now);
            }
            Message::TimeoutNow => {
                if self.consensus.step_timeout_now(envelope.from, envelope.term) {
                    self.advance(now);
                } else {
                    self.counters.peer_messages_unexpected += 1;
                }
            }
            Message::Fetch(fetch) => self.give_bodies(envelope.from, &fetch),
            Message::Bodies(bodies) => self.take_bodies(now, bodies),
            Message::Hint(hint) => self.handle_hint(now, envelope.from, envelope.term, &hint),
            Message::Behind(behind) => self.handle_behind(now, envelope.from, envelope.term, behind),
            Message::SnapshotFetch(fetch) => self.give_chunks(now, envelope.from, &fetch),
            Message::SnapshotChunk(chunk) => self.take_chunk(now, envelope.from, chunk),
            Message::SnapshotMissing(missing) => self.take_missing(now, envelope.from, missing),
            Message::Receiving(receiving) => self.handle_receiving(envelope.from, envelope.term, receiving),
            Message::Installed(said) => self.handle_installed(now, envelope.from, envelope.term, said),
            Message::Refused(refused) => self.handle_refusal(envelope.from, refused),
            Message::MembersQuery => self.tell_members(envelope.from.node()),
            Message::Members(membership) => {
                self.learn(envelope.from.node(), &membership);
                self.advance(now);
            }
            // Said to, or by, what is no node.
            Message::Arm(_) | Message::Armed(_) | Message::AggCommit(_) => self.counters.peer_messages_unexpected += 1,
        }
    }

    /// Sends a message to one node.
    pub(super) fn send(&mut self, to: NodeId, term: Term, message: &Message) {
        let Some(at) = self.addresses.get(&to).copied() else {
            self.counters.peer_messages_nowhere += 1;
            return;
        };
        self.emit(Destination::Peer { node: to, at }, term, message);
    }

    /// Sends a message to all other nodes.
    pub(super) fn send_to_group(&mut self, message: &Message) {
        self.emit(Destination::Group, self.consensus.term(), message);
    }

    pub(super) fn emit(&mut self, to: Destination, term: Term, message: &Message) {
        let envelope = Envelope { group: self.config.group, from: self.config.me, life: self.config.life, term };
        let body = message.emit(&envelope);
        self.rid = self.rid.wrapping_add(1);
        let head = MessageHead {
            kind: MessageType::RaftMessage,
            policy: Policy::Fixed,
            rid: self.rid,
            extensions: Extensions::default(),
        };
        let outputs = &mut self.outputs;
        let written = write_packets(&head, &body, self.config.limits.packet_max, &mut |packet| {
            outputs.push_back(Output::Peers { to, packet });
        });
        debug_assert!(written.is_ok(), "limits keep internal messages below the longest R2P2 message");
    }

    /// Whether this may be listened to: a member, from its address, the process that was there before (§7.5).
    fn is_welcome(&mut self, from: SocketAddrV4, envelope: &Envelope, message: &Message) -> bool {
        let sender = envelope.from;
        let is_member =
            |membership: &Membership| membership.get(sender).is_some_and(|member| member.addresses.peers == from);
        if !self.listened().any(is_member) {
            self.handle_stranger(from, envelope, message);
            return false;
        }
        let life = *self.lives.entry(sender).or_insert_with(|| {
            self.persistence.heard_first(sender, envelope.life);
            envelope.life
        });
        if life != envelope.life && !mutated!(ForgetfulListened) {
            self.counters.peer_messages_other_life += 1;
            self.refuse(sender.node(), message, Refused { reason: Refusal::AnotherLife, life: envelope.life });
            return false;
        }
        true
    }

    fn refuse(&mut self, to: NodeId, message: &Message, refused: Refused) {
        // Two that refuse each other must not do so for ever.
        if !matches!(message, Message::Refused(_)) && to != self.config.me.node() {
            self.send(to, 0, &Message::Refused(refused));
        }
    }
}
