//! Nodes as processes: started, killed, paused.

use std::time::Duration;

use hovercraft::applier::{Applier, ApplierConfig};
use hovercraft::consensus::Role;
use hovercraft::node::StopReason;
use hovercraft::{Incarnation, MemberId, Node, NodeConfig, NodeId, Service, Term, Voter};
use r2p2::Instant;
use rand::Rng;

use super::addresses::{member, peer_address};
use super::happening::progress;
use super::network::Datagram;
use super::{What, World};
use crate::network::Sockets;

pub(super) struct Host<S: Service> {
    pub(super) id: NodeId,
    pub(super) incarnation: u32,
    pub(super) running: Option<Running<S>>,
    pub(super) is_paused: bool,
    /// What has arrived and has not been read.
    pub(super) sockets: Sockets<Datagram>,
    /// Whether it deals with a datagram.
    pub(super) reads: bool,
    /// Counts processes, so that what one began to read is not another's.
    pub(super) reads_generation: u64,
    /// How long it takes for a datagram, if not as long as all.
    pub(super) processing: Option<Duration>,
    pub(super) generation: u64,
    pub(super) wake: Option<Instant>,
    pub(super) stopped: Option<StopReason>,
    /// As it was when somebody looked last.
    pub(super) role: Option<(Role, Term)>,
}

pub(super) struct Running<S: Service> {
    pub(super) node: Node,
    pub(super) applier: Applier<S>,
}

impl<S: Service> Host<S> {
    /// A host on which nothing runs.
    pub(super) fn new(id: u16) -> Self {
        Self {
            id: NodeId(id),
            incarnation: 1,
            running: None,
            is_paused: false,
            sockets: Sockets::default(),
            reads: false,
            reads_generation: 0,
            processing: None,
            generation: 0,
            wake: None,
            stopped: None,
            role: None,
        }
    }
}

impl<S: Service> World<S> {
    /// Kills a node: its memory is gone.
    pub fn kill(&mut self, id: u16) {
        if self.host(id).running.is_some() && self.host(id).stopped.is_none() {
            self.faults.kills += 1;
            let progress = self.progress(id);
            self.happened_because(What::Killed(id), || progress);
        }
        self.forget(id);
    }

    pub(super) fn forget(&mut self, id: u16) {
        let host = self.host_mut(id);
        host.running = None;
        host.is_paused = false;
        host.sockets.clear();
        host.reads = false;
        host.reads_generation += 1;
        host.generation += 1;
        host.wake = None;
    }

    /// Starts a node that does not run, as the same identity and another process: what a careless operator does.
    pub fn start(&mut self, id: u16) {
        let voters = self.voters();
        let seed = self.rng.random();
        let life = self.rng.random();
        let incarnation = self.host(id).incarnation;
        let me = MemberId::new(NodeId(id), Incarnation(incarnation));
        let config = NodeConfig { me, life, voters, seed, ..self.config.node.clone() };
        let node = Node::new(self.now, config, S::classify);
        let applier_config = ApplierConfig::new(NodeId(id));
        let applier = Applier::new((self.make_service)(), applier_config);
        self.checkers.started(NodeId(id));
        let host = self.host_mut(id);
        host.running = Some(Running { node, applier });
        host.stopped = None;
        host.role = None;
        self.happened(What::Started(id));
        self.drive_node(id);
    }

    /// Stops a node's clock and its sockets' readers; datagrams wait.
    pub fn pause(&mut self, id: u16) {
        let host = self.host_mut(id);
        if host.running.is_some() && !host.is_paused {
            host.is_paused = true;
            self.faults.pauses += 1;
            let progress = self.progress(id);
            self.happened_because(What::Paused(id), || progress);
        }
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, id: u16) {
        if !std::mem::take(&mut self.host_mut(id).is_paused) {
            return;
        }
        self.happened(What::Resumed(id));
        self.read_on(id);
        self.wake_node(id);
    }

    /// How far a node is, if anybody wants to know.
    fn progress(&self, id: u16) -> String {
        let wanted = self.recording.is_some();
        self.node(id).filter(|_| wanted).map(progress).unwrap_or_default()
    }

    fn voters(&self) -> Vec<Voter> {
        let voter = |host: &Host<S>| Voter { member: member(host.id.0), address: peer_address(host.id.0) };
        match self.hosts.len() {
            len if len == usize::from(self.config.nodes) => self.hosts.iter().map(voter).collect(),
            _ => (1..=self.config.nodes).map(|id| Voter { member: member(id), address: peer_address(id) }).collect(),
        }
    }

    pub(super) fn host(&self, id: u16) -> &Host<S> {
        &self.hosts[usize::from(id - 1)]
    }

    pub(super) fn host_mut(&mut self, id: u16) -> &mut Host<S> {
        &mut self.hosts[usize::from(id - 1)]
    }
}
