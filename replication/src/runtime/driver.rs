//! The network thread's loop. See [`crate::node`] for the contract that it fulfils.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message as _;
use r2p2::Instant;
use r2p2::datapath::{Datapath, ReceiveBatch, TransmitBatch};
use r2p2::server::Via;
use r2p2::udp::Clock;

use super::NodeError;
use super::archive::ArchiveThread;
use super::disk::Disk;
use super::execution::{Execution, Report};
use super::sockets::{GROUP_REQUESTS, PEER_GROUP, PEERS, REQUESTS, Wires};
use crate::cluster::{ClusterConfig, FanOut};
use crate::id::MemberId;
use crate::membership::Membership;
use crate::node::{AdminRequest, CounterValue, Destination, Node, Output, StatusReport};

/// Most datagrams taken from one of the clients' sockets before the others have their turn. More than from peers:
/// bodies are read before they are called missing (protocol.md §5.5).
const CLIENT_BUDGET: usize = 512;
/// Most datagrams taken from one of the peers' sockets before the others have their turn.
const PEER_BUDGET: usize = 256;
/// Most requests about the node itself that wait for an answer.
const ADMIN_MAX: usize = 64;
/// How long such a request waits for a busy apply thread to report, before it is answered without.
const REPORT_PATIENCE: Duration = Duration::from_millis(100);

/// What a node says about itself that its core does not know.
pub(super) struct About {
    service: String,
    durability: &'static str,
    /// How long a node that is to stop waits for somebody to take over.
    resignation: Duration,
    fan_out: FanOut,
    /// Where to send what is for all others.
    peer_group: Vec<SocketAddrV4>,
    /// Who hears that too, where the network makes no copies.
    aggregator: Option<SocketAddrV4>,
}

impl About {
    pub(super) fn new(config: &ClusterConfig, service: &str) -> Self {
        Self {
            service: service.to_owned(),
            durability: config.durability.name(),
            resignation: config.timing.timing(&config.aggregator).election_min(),
            fan_out: config.fan_out,
            peer_group: match config.fan_out {
                FanOut::Multicast => vec![config.peer_group],
                // The node says who they are.
                FanOut::Unicast => Vec::new(),
            },
            aggregator: config.aggregator(),
        }
    }

    /// The group consists of these now.
    fn members_are(&mut self, me: MemberId, members: &Membership) {
        if self.fan_out == FanOut::Unicast {
            let others = members.members.iter().filter(|(id, _)| **id != me);
            let others = others.map(|(_, member)| member.addresses.peers);
            self.peer_group = others.chain(self.aggregator).collect();
        }
    }
}

/// Owns a node and everything it needs.
pub(super) struct Driver<E> {
    node: Node,
    wires: Wires,
    execution: E,
    /// Of a durable node.
    disk: Option<Disk>,
    archive: ArchiveThread,
    about: About,
    stop: Arc<AtomicBool>,
    clock: Clock,
    /// When the node wants its next timeout.
    timeout: Instant,
    /// It was asked to stop, and waits until then for somebody to take over what it leads.
    resigned_until: Instant,
    from_clients: ReceiveBatch,
    from_peers: ReceiveBatch,
    consensus: TransmitBatch,
    answers: TransmitBatch,
    admin: VecDeque<AdminRequest>,
    /// When those of `admin` are answered at the latest.
    admin_deadline: Instant,
    last_report: Report,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    turns: u64,
    sleeps: u64,
    admin_answered: u64,
    admin_refused_full: u64,
    admin_without_report: u64,
}

impl<E: Execution> Driver<E> {
    pub(super) fn new(
        node: Node,
        wires: Wires,
        execution: E,
        disk: Option<Disk>,
        archive: ArchiveThread,
        about: About,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            clock: wires.clock(),
            node,
            wires,
            execution,
            disk,
            archive,
            about,
            stop,
            timeout: Instant::ZERO,
            resigned_until: Instant::FAR_FUTURE,
            from_clients: ReceiveBatch::new(),
            from_peers: ReceiveBatch::new(),
            consensus: TransmitBatch::new(),
            answers: TransmitBatch::new(),
            admin: VecDeque::new(),
            admin_deadline: Instant::FAR_FUTURE,
            last_report: Report::default(),
            counters: Counters::default(),
        }
    }

    /// Runs until it is asked to stop, or has to.
    pub(super) fn run(mut self) -> Result<(), NodeError> {
        let result = self.turns();
        if let Err(error) = &result {
            tracing::error!(node = %self.node.me().node(), %error, "node stops");
        }
        let written = self.disk.as_mut().map_or(Ok(()), Disk::finish);
        let kept = self.archive.finish();
        result.and(written).and(kept).and(self.execution.finish())
    }

    fn turns(&mut self) -> Result<(), NodeError> {
        while !self.may_stop() {
            self.counters.turns += 1;
            let more = self.receive()?;
            let now = self.clock.now();
            self.hand_in(now);
            if now >= self.timeout {
                self.node.handle_timeout(now);
            }
            self.node.handle_applied(now, self.execution.applied());
            self.take_persisted(now);
            self.take_archived(now);
            self.settle(now)?;

            self.execution.advance(&mut self.answers)?;
            self.transmit()?;

            let now = self.clock.now();
            self.answer_admin(now);
            self.node.handle_applied(now, self.execution.applied());
            self.settle(now)?;

            if !more && !self.execution.unfinished() && self.execution.may_sleep() {
                self.counters.sleeps += 1;
                let deadline = self.timeout.min(self.admin_deadline).min(self.resigned_until);
                let waited = self.wires.wait(Some(deadline));
                self.execution.awake();
                waited.map_err(NodeError::Sockets)?;
            }
        }
        Ok(())
    }

    /// Whether it was asked to stop, and has handed over what it led or has waited long enough for that.
    fn may_stop(&mut self) -> bool {
        if !self.stop.load(Ordering::Acquire) {
            return false;
        }
        let now = self.clock.now();
        if self.resigned_until == Instant::FAR_FUTURE {
            self.resigned_until = if self.node.resign(now) { now + self.about.resignation } else { now };
            // What it still has to say, a socket's failure aside: it stops anyway.
            _ = self.settle(now);
        }
        !self.node.consensus().is_leader() || now >= self.resigned_until
    }

    /// Takes what has arrived: from peers first, so that every body that came before an Append is there with it.
    /// Returns whether there may be more.
    fn receive(&mut self) -> Result<bool, NodeError> {
        let has_peer_group = self.wires.has_peer_group();
        let mut more = false;
        let mut take = |socket, budget, batch: &mut ReceiveBatch| {
            let taken = self.wires.receive(socket, budget, batch).map_err(NodeError::Sockets)?;
            more |= taken >= budget;
            Ok::<_, NodeError>(())
        };
        self.from_peers.clear();
        take(PEERS, PEER_BUDGET, &mut self.from_peers)?;
        if has_peer_group {
            take(PEER_GROUP, PEER_BUDGET, &mut self.from_peers)?;
        }
        self.from_clients.clear();
        take(GROUP_REQUESTS, CLIENT_BUDGET, &mut self.from_clients)?;
        take(REQUESTS, CLIENT_BUDGET, &mut self.from_clients)?;
        Ok(more)
    }

    /// Hands over what has arrived: from clients first, so that no body that is here is called missing.
    fn hand_in(&mut self, now: Instant) {
        for received in self.from_clients.iter() {
            let via = if received.socket == REQUESTS { Via::Unicast } else { Via::Group };
            self.node.handle_client_packet(now, via, received.from, received.bytes);
        }
        for received in self.from_peers.iter() {
            self.node.handle_peer_packet(now, received.from, received.bytes);
        }
    }

    /// Does everything that the node wants done now; what is to be executed only goes into the queue.
    fn settle(&mut self, now: Instant) -> Result<(), NodeError> {
        loop {
            match self.node.poll_output(now) {
                Output::Peers { to: Destination::Group, packet } => {
                    self.consensus.push_many(PEERS, &self.about.peer_group, packet);
                }
                Output::Peers { to: Destination::Peer { at, .. } | Destination::Aggregator { at }, packet } => {
                    self.consensus.push(PEERS, at, packet);
                }
                Output::Members(members) => self.about.members_are(self.node.me(), &members),
                Output::Client { to, packet } => self.answers.push(REQUESTS, to, packet),
                Output::Apply(work) => self.execution.push(work),
                Output::Archive(work) => self.archive.push(work),
                Output::Admin(request) => self.take_admin(now, request),
                Output::Persist(batch) => {
                    if let Some(disk) = &mut self.disk {
                        disk.push(batch);
                    }
                }
                Output::Stop(reason) => return Err(reason.into()),
                Output::Timeout(at, _) => {
                    self.timeout = at;
                    return self.transmit();
                }
            }
        }
    }

    fn take_persisted(&mut self, now: Instant) {
        match self.disk.as_mut().map_or(Ok(None), Disk::progress) {
            Ok(Some(number)) => self.node.handle_persisted(now, number),
            Ok(None) => {}
            Err(error) => self.node.handle_storage_error(error),
        }
    }

    fn take_archived(&mut self, now: Instant) {
        loop {
            match self.archive.next_event() {
                Ok(Some(event)) => self.node.handle_archive(now, event),
                Ok(None) => return,
                Err(error) => return self.node.handle_storage_error(error),
            }
        }
    }

    fn transmit(&mut self) -> Result<(), NodeError> {
        for batch in [&mut self.consensus, &mut self.answers] {
            if !batch.is_empty() {
                self.wires.transmit(batch).map_err(NodeError::Sockets)?;
            }
        }
        Ok(())
    }

    fn take_admin(&mut self, now: Instant, request: AdminRequest) {
        if self.node.serve_admin(now, &request).is_none() {
            self.counters.admin_answered += 1;
        } else if self.admin.len() >= ADMIN_MAX {
            self.counters.admin_refused_full += 1;
        } else {
            if self.admin.is_empty() {
                self.execution.ask_report();
                self.admin_deadline = now + REPORT_PATIENCE;
            }
            self.admin.push_back(request);
        }
    }

    /// Answers requests about the node once the executing half has reported, or has not for too long.
    fn answer_admin(&mut self, now: Instant) {
        if let Some(report) = self.execution.take_report() {
            self.last_report = report;
        } else if now >= self.admin_deadline {
            self.counters.admin_without_report += self.admin.len() as u64;
            self.last_report.state_hash = None;
        } else {
            return;
        }
        self.admin_deadline = Instant::FAR_FUTURE;
        self.counters.admin_answered += self.admin.len() as u64;
        let report = self.status(now).encode_to_vec();
        while let Some(request) = self.admin.pop_front() {
            self.node.answer_admin(&request, &report);
        }
    }

    fn status(&self, now: Instant) -> StatusReport {
        let mut status = self.node.status(now);
        status.durability = self.about.durability.to_owned();
        status.service.clone_from(&self.about.service);
        if let Some(hash) = self.last_report.state_hash {
            // The hash belongs to that index, whatever has been applied meanwhile.
            status.applied = self.last_report.applied;
            status.state_hash = Some(hash);
        }
        let &Counters { turns, sleeps, admin_answered, admin_refused_full, admin_without_report } = &self.counters;
        let own = [
            ("turns", turns),
            ("sleeps", sleeps),
            ("admin_answered", admin_answered),
            ("admin_refused_full", admin_refused_full),
            ("admin_without_report", admin_without_report),
        ];
        let own = own.map(|(name, value)| (format!("runtime.{name}"), value));
        let all = self.last_report.counters.iter().cloned().chain(self.wires.counters());
        let disk = self.disk.iter().flat_map(Disk::counters).chain(self.archive.counters());
        let disk = disk.map(|(name, value)| (name.to_owned(), value));
        let all = all.chain(own).chain(self.execution.counters()).chain(disk);
        status.counters.extend(all.map(|(name, value)| CounterValue { name, value }));
        status
    }
}
