//! Hands events to the cores and does what they say.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::applier::Work;
use hovercraft::message::{AppendAck, Message};
use hovercraft::node::StopReason;
use hovercraft::snapshot::ArchiveEvent;
use hovercraft::{Destination, NodeId, Output, Service};
use r2p2::Instant;
use r2p2::server::Via;

use super::addresses::{PEER_PORT, peer_address, request_address};
use super::archive::Job;
use super::disk::Disk;
use super::host::{Host, Running};
use super::network::Datagram;
use super::{Event, What, World, mix};
use crate::checkers::{self, Checkers};
use crate::flight::{Party, internal, message};

impl<S: Service> World<S> {
    /// A datagram is read by its receiver.
    pub(super) fn deliver(&mut self, datagram: Datagram) {
        let Datagram { id, to, address, via, from, what, packet, is_corrupt } = datagram;
        self.delivered += 1;
        self.trace = mix(self.trace, self.now.as_nanos());
        self.trace = mix(self.trace, u64::from(address.port()) << 32 | u64::from(u32::from(*address.ip())));
        let (words, rest) = packet.as_chunks::<8>();
        for word in words {
            self.trace = mix(self.trace, u64::from_be_bytes(*word));
        }
        self.trace = mix(self.trace, rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        let now = self.local_now(to);
        let sender = self.party(from);
        self.traffic.delivered(sender, to, id, if is_corrupt { "garbage" } else { what });
        let len = packet.len();
        self.happened(match to {
            Party::Node(node) if self.host(node).running.is_none() => What::Unheard { id, from: sender, to, what, len },
            _ => What::Delivered { id, from: sender, to, what, len },
        });
        match to {
            Party::Node(id) => {
                if self.host(id).running.is_some()
                    && Checkers::cares(what)
                    && let Some((envelope, message)) = message(&packet)
                {
                    self.checkers.received(NodeId(id), &envelope, &message);
                }
                // What comes back from its own multicast, a socket need not even be told.
                let own = from == peer_address(id);
                let host = self.host_mut(id);
                let Some(running) = &mut host.running else { return };
                host.packets.received += u64::from(!own);
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
            Party::Aggregator(number) => self.deliver_to_aggregator(number, from, packet),
            Party::Gateway => self.deliver_to_gateway(from, packet),
            Party::Raw => self.mailboxes.entry(address).or_default().push(packet),
        }
    }

    pub(super) fn wake_node(&mut self, id: u16) {
        let now = self.local_now(Party::Node(id));
        let host = self.host_mut(id);
        if let Some(running) = &mut host.running {
            running.node.handle_timeout(now);
            self.drive_node(id);
        }
    }

    /// Does what a node says, executes what it commits, and schedules its next timeout.
    pub(super) fn drive_node(&mut self, id: u16) {
        let drained = self.drain_node(id);
        let Drained { sends, replies, feedback, sync, archive, end, .. } = drained;
        // Who dies in the middle, or gives up, need not have put everything in order.
        let settled = matches!(end, End::Waits(_));
        if let Err(violation) = drained.found.and_then(|()| self.check_node(id, settled, &sends, &replies)) {
            self.report(violation);
        }
        self.look_at_role(id);
        if let Some(wait) = sync {
            let process = self.host(id).process;
            self.schedule(self.now + wait, Event::Synced { id, process });
        }
        if let Some(wait) = archive {
            let process = self.host(id).process;
            self.schedule(self.now + wait, Event::Archived { id, process });
        }
        for output in sends {
            self.send(id, output);
        }
        for (to, packet) in replies.into_iter().chain(feedback) {
            self.send(id, Output::Client { to, packet });
        }
        match end {
            End::Crashed => self.kill(id),
            End::Stopped(reason) => {
                self.happened_because(What::Stopped(id), || reason.to_string());
                self.forget(id);
                self.host_mut(id).stopped = Some(reason);
            }
            End::Waits(timeout) => {
                if self.host(id).running.is_some() {
                    self.set_alarm(Party::Node(id), timeout);
                }
            }
        }
    }

    /// Takes a node's outputs until there are no more; what is to be sent is collected.
    fn drain_node(&mut self, id: u16) -> Drained {
        let now = self.local_now(Party::Node(id));
        let mut drained = Drained {
            sends: Vec::new(),
            replies: Vec::new(),
            feedback: Vec::new(),
            sync: None,
            archive: None,
            found: Ok(()),
            end: End::Waits(Instant::FAR_FUTURE),
        };
        let Host { running, disk, archive, crash_after, .. } = &mut self.hosts[usize::from(id - 1)];
        let Some(running) = running else { return drained };
        loop {
            let output = running.node.poll_output(now);
            if !matches!(output, Output::Timeout(..))
                && let Some(left) = crash_after
            {
                let Some(less) = left.checked_sub(1) else {
                    drained.end = End::Crashed;
                    return drained;
                };
                *left = less;
            }
            match output {
                Output::Apply(Work::Snapshot(wanted)) => {
                    let wait = archive.push(Job::Take(wanted, Box::new(running.applier.freeze())));
                    drained.archive = drained.archive.or(wait);
                }
                Output::Apply(Work::Install(info)) => {
                    let mut opened = archive.open(&info).expect("a snapshot stays whole").expect("and is kept");
                    running.applier.restore(&mut opened.state).expect("what was frozen can be restored");
                    let installed = self.checkers.installed(&running.node, info.index, &running.applier);
                    drained.found = drained.found.and(installed);
                    running.node.handle_archive(now, ArchiveEvent::Installed(info));
                }
                Output::Archive(work) => drained.archive = drained.archive.or(archive.push(Job::Work(work))),
                Output::Apply(work) => {
                    let entry = match &work {
                        Work::Apply(committed) => Some((committed.index, committed.entry)),
                        Work::Answer { .. } | Work::Epoch(_) | Work::Snapshot(_) | Work::Install(_) => None,
                        #[cfg(feature = "mutations")]
                        Work::Query { request, .. } => {
                            self.checkers.read_locally(request);
                            None
                        }
                    };
                    let effect = running
                        .applier
                        .handle(work, &mut |to, packet| drained.replies.push((to, packet)))
                        .expect("services in simulations do not panic");
                    running.applier.flush_feedback(&mut |to, packet| drained.feedback.push((to, packet)));
                    if let Some((index, entry)) = entry {
                        let applied = self.checkers.applied(&running.node, index, &entry, effect, &running.applier);
                        drained.found = drained.found.and(applied);
                    }
                }
                Output::Persist(batch) => match disk.as_mut().expect("durable nodes have disks").submit(batch) {
                    Ok(wait) => drained.sync = drained.sync.or(wait),
                    Err(error) => running.node.handle_storage_error(error),
                },
                // Multicast finds them by itself.
                Output::Members(_) => {}
                Output::Admin(request) => {
                    if running.node.serve_admin(now, &request).is_some() {
                        running.node.answer_admin(&request, &[]);
                    }
                }
                Output::Stop(reason) => {
                    drained.end = End::Stopped(reason);
                    return drained;
                }
                Output::Timeout(..) if running.applier.applied() > running.node.applied() => {
                    running.node.handle_applied(now, running.applier.applied());
                }
                Output::Timeout(deadline, _) => {
                    drained.end = End::Waits(deadline);
                    return drained;
                }
                output @ (Output::Peers { .. } | Output::Client { .. }) => drained.sends.push(output),
            }
        }
    }

    /// Runs the checkers of what a node is and of what it says.
    fn check_node(
        &mut self,
        id: u16,
        settled: bool,
        sends: &[Output],
        replies: &[(SocketAddrV4, Bytes)],
    ) -> checkers::Result {
        let Host { running, disk, archive, .. } = &self.hosts[usize::from(id - 1)];
        let Some(Running { node, .. }) = running else { return Ok(()) };
        self.checkers.acted(node)?;
        if settled {
            self.checkers.settled(node)?;
        }
        // What a snapshot has need not be in the log's own place any more, or yet.
        let safe_term = |disk: &Disk, index| archive.term_at(index).or_else(|| disk.term_at(index));
        if let Some(disk) = disk {
            let persisted = node.consensus().persisted();
            let term = node.consensus().log().term_at(persisted);
            checkers::persisted::counted(NodeId(id), persisted, term, safe_term(disk, persisted))?;
        }
        for output in sends {
            let Output::Peers { to, packet } = output else { continue };
            if !Checkers::cares(internal(packet)) {
                continue;
            }
            let Some((envelope, message)) = message(packet) else { continue };
            self.checkers.sent(node, *to, &envelope, &message)?;
            if let Some(disk) = disk {
                let to = match to {
                    Destination::Peer { node, .. } => Some(*node),
                    Destination::Group | Destination::Aggregator { .. } => None,
                };
                let safe = disk.hard_state();
                checkers::persisted::voted(node.me(), safe, envelope.term, to, &message)?;
                if let Message::AppendAck(AppendAck { matched, .. }) = message {
                    checkers::persisted::acknowledged(NodeId(id), envelope.term, matched, safe.term)?;
                    let term = node.consensus().log().term_at(matched);
                    checkers::persisted::counted(NodeId(id), matched, term, safe_term(disk, matched))?;
                }
            }
        }
        for (_, packet) in replies {
            self.checkers.answered(NodeId(id), packet)?;
        }
        Ok(())
    }

    fn send(&mut self, id: u16, output: Output) {
        let me = Party::Node(id);
        self.host_mut(id).packets.sent += 1;
        match output {
            Output::Peers { to: Destination::Peer { at, .. } | Destination::Aggregator { at }, packet } => {
                self.transmit(me, peer_address(id), self.party(at), at, Via::Unicast, packet);
            }
            Output::Peers { to: Destination::Group, packet } => {
                // Multicast loops back to its sender too.
                self.transmit_to_group(me, peer_address(id), peer_address, packet);
            }
            Output::Client { to, packet } => {
                self.transmit(me, request_address(id), self.party(to), to, Via::Unicast, packet);
            }
            _ => {}
        }
    }
}

/// What a node has said until it had no more to say.
struct Drained {
    sends: Vec<Output>,
    replies: Vec<(SocketAddrV4, Bytes)>,
    /// What gateways are told.
    feedback: Vec<(SocketAddrV4, Bytes)>,
    /// A sync has begun that takes this long.
    sync: Option<Duration>,
    /// The archive has begun something that takes this long.
    archive: Option<Duration>,
    found: checkers::Result,
    end: End,
}

/// How it came to an end.
enum End {
    /// It waits, at most until then.
    Waits(Instant),
    Stopped(StopReason),
    /// [`World::crash_after`]: what it would have said next is lost.
    Crashed,
}
