//! Hands events to the cores and does what they say.

use std::net::SocketAddrV4;

use bytes::Bytes;
use hovercraft::applier::Work;
use hovercraft::{Destination, NodeId, Output, Service};
use r2p2::Instant;
use r2p2::server::Via;

use super::addresses::{PEER_PORT, peer_address, request_address};
use super::network::Datagram;
use super::{Event, What, World, mix};
use crate::flight::{Party, describe, internal, message};

impl<S: Service> World<S> {
    /// A datagram is read by its receiver.
    pub(super) fn deliver(&mut self, datagram: Datagram) {
        let Datagram { id, to, address, via, from, packet } = datagram;
        self.delivered += 1;
        self.trace = mix(self.trace, self.now.as_nanos());
        self.trace = mix(self.trace, u64::from(address.port()) << 32 | u64::from(u32::from(*address.ip())));
        for chunk in packet.chunks(8) {
            self.trace = mix(self.trace, chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        let now = self.now;
        let sender = self.party(from);
        let what = describe(now, sender, to, via, &packet).what;
        let len = packet.len();
        self.happened(match to {
            Party::Node(node) if self.host(node).running.is_none() => What::Unheard { id, from: sender, to, what, len },
            _ => What::Delivered { id, from: sender, to, what, len },
        });
        match to {
            Party::Node(id) => {
                if self.host(id).running.is_some()
                    && what == "append_ack"
                    && let Some((envelope, message)) = message(&packet)
                {
                    self.checkers.received(NodeId(id), &envelope, &message);
                }
                let Some(running) = &mut self.host_mut(id).running else { return };
                if address.port() == PEER_PORT {
                    running.node.handle_peer_packet(now, from, &packet);
                } else {
                    running.node.handle_client_packet(now, via, from, &packet);
                }
                self.drive_node(id);
            }
            Party::Client(number) => {
                self.clients[number].core.handle_datagram(now, from, &packet);
                self.drive_client(number);
            }
            Party::Raw => self.mailboxes.entry(address).or_default().push(packet),
        }
    }

    pub(super) fn wake_node(&mut self, id: u16) {
        let now = self.now;
        let host = self.host_mut(id);
        host.wake = None;
        if let Some(running) = &mut host.running {
            running.node.handle_timeout(now);
            self.drive_node(id);
        }
    }

    /// Drains a node's outputs, executes what it commits, and schedules its next timeout.
    pub(super) fn drive_node(&mut self, id: u16) {
        let now = self.now;
        let mut sends: Vec<(SocketAddrV4, Output)> = Vec::new();
        let mut replies: Vec<(SocketAddrV4, Bytes)> = Vec::new();
        let (mut timeout, mut stop, mut found) = (Instant::FAR_FUTURE, None, Ok(()));
        let at = usize::from(id - 1);
        while let Some(running) = &mut self.hosts[at].running {
            match running.node.poll_output(now) {
                Output::Apply(work) => {
                    let entry = match &work {
                        Work::Apply(committed) => Some((committed.index, committed.entry)),
                        Work::Answer { .. } => None,
                    };
                    let effect = running
                        .applier
                        .handle(work, &mut |to, packet| replies.push((to, packet)))
                        .expect("services in simulations do not panic");
                    if let Some((index, entry)) = entry {
                        found =
                            found.and(self.checkers.applied(&running.node, index, &entry, effect, &running.applier));
                    }
                }
                Output::Admin(request) => {
                    let report = Vec::new();
                    running.node.answer_admin(&request, &report);
                }
                Output::Persist(_) => unreachable!("nodes here are not durable"),
                Output::Stop(reason) => {
                    stop = Some(reason);
                    break;
                }
                Output::Timeout(deadline, _) => {
                    if running.applier.applied() > running.node.applied() {
                        running.node.handle_applied(now, running.applier.applied());
                        continue;
                    }
                    timeout = deadline;
                    break;
                }
                output @ (Output::Peers { .. } | Output::Client { .. }) => sends.push((peer_address(id), output)),
            }
        }
        if let Some(running) = &self.hosts[at].running {
            found = found.and_then(|()| self.checkers.settled(&running.node));
            for (_, output) in &sends {
                if let Output::Peers { packet, .. } = output
                    && internal(packet) == "append_ack"
                    && let Some((_, message)) = message(packet)
                {
                    found = found.and_then(|()| self.checkers.sent(&running.node, &message));
                }
            }
        }
        for (_, packet) in &replies {
            found = found.and_then(|()| self.checkers.answered(NodeId(id), packet));
        }
        self.look_at_role(id);
        if let Err(violation) = found {
            self.report(violation);
        }
        for (from, output) in sends {
            match output {
                Output::Peers { to: Destination::Peer(to), packet } => {
                    self.transmit(Party::Node(id), from, Party::Node(to.0), peer_address(to.0), Via::Unicast, packet);
                }
                Output::Peers { to: Destination::Group, packet } => {
                    // Multicast loops back to its sender too.
                    self.transmit_to_group(Party::Node(id), from, peer_address, packet);
                }
                Output::Client { to, packet } => replies.push((to, packet)),
                _ => {}
            }
        }
        for (to, packet) in replies {
            let from = request_address(id);
            self.transmit(Party::Node(id), from, self.party(to), to, Via::Unicast, packet);
        }
        if let Some(reason) = stop {
            self.happened_because(What::Stopped(id), || reason.to_string());
            self.forget(id);
            self.host_mut(id).stopped = Some(reason);
            return;
        }
        let host = &mut self.hosts[at];
        if host.wake != Some(timeout) {
            host.generation += 1;
            host.wake = Some(timeout);
            let generation = host.generation;
            self.schedule(timeout, Event::Wake { party: Party::Node(id), generation });
        }
    }
}
