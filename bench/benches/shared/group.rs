//! A whole group and a client in memory: what operations cost all nodes and the client together, without any system call.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::applier::{Applier, ApplierConfig, Work};
use hovercraft::{
    Addresses, Class, Context, Destination, Incarnation, MemberId, Membership, Mode, Node, NodeConfig, NodeId, Output,
    Reply, Service,
};
use r2p2::Instant;
use r2p2::client::{Client, ClientConfig, ClientOutput, Kind, Outcome, Route, Target};
use r2p2::server::Via;

/// What passes between two calls of [`Group::write`], so that heartbeats take their usual small part.
const STEP: Duration = Duration::from_micros(50);
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
/// Rounds without progress, each one timeout later, until something must be wrong.
const PATIENCE: usize = 10_000;

/// A group and its client.
pub(super) struct Group {
    now: Instant,
    nodes: Vec<Member>,
    client: Client,
    client_timeout: Instant,
    /// What is under way, first come, first delivered.
    wire: VecDeque<Datagram>,
    answered: usize,
}

struct Member {
    node: Node,
    applier: Applier<Nothing>,
    timeout: Instant,
}

enum Datagram {
    Answer { from: SocketAddrV4, packet: Bytes },
    Request { node: usize, via: Via, packet: Bytes },
    Internal { node: usize, from: SocketAddrV4, packet: Bytes },
}

/// A service that only counts.
struct Nothing(u64);

impl Service for Nothing {
    fn classify(_: &[u8]) -> Class {
        Class::Write
    }
    fn apply(&mut self, _: &Context, _: &Bytes, reply: &mut Reply) {
        self.0 += 1;
        reply.write(&self.0.to_be_bytes());
    }
    fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), String> {
        Err("nobody takes snapshots here".to_owned())
    }
}

impl Group {
    /// A group that has a leader, and a client that has a session.
    pub(super) fn start(mode: Mode, nodes: u16) -> Self {
        let now = Instant::from_nanos(1);
        let id = |node| MemberId::new(NodeId(node), Incarnation(1));
        let addresses = |node| Addresses { peers: peers_at(node), requests: requests_at(node), group_requests: None };
        let membership = Membership::of_voters((1..=nodes).map(|node| (id(node), addresses(node))));
        let start = |node| {
            let config = NodeConfig { mode, ..NodeConfig::new(id(node), membership.clone()) };
            Member {
                node: Node::new(now, config, Nothing::classify),
                applier: Applier::new(Nothing(0), ApplierConfig::new(NodeId(node))),
                timeout: now,
            }
        };
        let config = ClientConfig {
            nodes: (1..=nodes).map(requests_at).collect(),
            fan_out: if mode == Mode::Hovercraft { Route::Group } else { Route::Sticky },
            ..ClientConfig::default()
        };
        let mut group = Self {
            now,
            nodes: (1..=nodes).map(start).collect(),
            client: Client::new(config, 1),
            client_timeout: now,
            wire: VecDeque::new(),
            answered: 0,
        };
        group.nodes[0].node.campaign(now);
        group.write(1);
        group
    }

    /// So many writes at once, until all are answered.
    pub(super) fn write(&mut self, count: usize) {
        self.now += STEP;
        let goal = self.answered + count;
        for _ in 0..count {
            self.client.submit(self.now, Kind::Write, Bytes::from_static(&[0x5a; 24])).expect("there is room");
        }
        for _ in 0..PATIENCE {
            self.settle();
            if self.answered >= goal {
                return;
            }
            let timeouts = self.nodes.iter().map(|member| member.timeout).chain([self.client_timeout]);
            self.now = self.now.max(timeouts.min().unwrap_or(self.now));
        }
        panic!("the group does not answer");
    }

    /// Lets everybody act until nothing is under way.
    fn settle(&mut self) {
        if self.now >= self.client_timeout {
            self.client.handle_timeout(self.now);
        }
        self.drain_client();
        for index in 0..self.nodes.len() {
            if self.now >= self.nodes[index].timeout {
                self.nodes[index].node.handle_timeout(self.now);
            }
            self.drain_node(index);
        }
        while !self.wire.is_empty() {
            // All that has arrived is handed in before anybody acts, as the runtime does.
            let mut touched = vec![false; self.nodes.len()];
            for datagram in std::mem::take(&mut self.wire) {
                match datagram {
                    Datagram::Answer { from, packet } => self.client.handle_datagram(self.now, from, &packet),
                    Datagram::Request { node, via, packet } => {
                        touched[node] = true;
                        self.nodes[node].node.handle_client_packet(self.now, via, CLIENT, &packet);
                    }
                    Datagram::Internal { node, from, packet } => {
                        touched[node] = true;
                        self.nodes[node].node.handle_peer_packet(self.now, from, &packet);
                    }
                }
            }
            self.drain_client();
            for index in (0..self.nodes.len()).filter(|index| touched[*index]) {
                self.drain_node(index);
            }
        }
    }

    fn drain_client(&mut self) {
        loop {
            match self.client.poll_output(self.now) {
                ClientOutput::Transmit { target: Target::Group, packet } => {
                    for node in 0..self.nodes.len() {
                        self.wire.push_back(Datagram::Request { node, via: Via::Group, packet: packet.clone() });
                    }
                }
                ClientOutput::Transmit { target: Target::Address(at), packet } => {
                    let node = usize::from(at.port() - REQUESTS);
                    self.wire.push_back(Datagram::Request { node: node - 1, via: Via::Unicast, packet });
                }
                ClientOutput::Done(completion) => {
                    assert!(matches!(completion.outcome, Outcome::Ok(_)), "{completion:?}");
                    self.answered += 1;
                }
                ClientOutput::Timeout(at, _) => {
                    self.client_timeout = at;
                    return;
                }
            }
        }
    }

    fn drain_node(&mut self, index: usize) {
        let (now, from) = (self.now, index as u16 + 1);
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        let Self { nodes, wire, .. } = self;
        let Member { node, applier, timeout } = &mut nodes[index];
        loop {
            match node.poll_output(now) {
                Output::Peers { to: Destination::Group, packet } => {
                    wire.extend(others.clone().map(|other| Datagram::Internal {
                        node: other,
                        from: peers_at(from),
                        packet: packet.clone(),
                    }));
                }
                Output::Peers { to: Destination::Peer { at, .. }, packet } => {
                    let node = usize::from(at.port() - PEERS) - 1;
                    wire.push_back(Datagram::Internal { node, from: peers_at(from), packet });
                }
                Output::Client { packet, .. } => {
                    wire.push_back(Datagram::Answer { from: requests_at(from), packet });
                }
                Output::Apply(work @ (Work::Apply(_) | Work::Answer { .. } | Work::Epoch(_))) => {
                    let mut answer = |_, packet| wire.push_back(Datagram::Answer { from: requests_at(from), packet });
                    applier.handle(work, &mut answer).expect("the service does not panic");
                }
                Output::Timeout(..) if applier.applied() > node.applied() => {
                    node.handle_applied(now, applier.applied());
                }
                Output::Timeout(at, _) => {
                    *timeout = at;
                    return;
                }
                // Memory mode: nothing to persist, nothing to archive, nobody comes or goes.
                _ => {}
            }
        }
    }
}

const PEERS: u16 = 1000;
const REQUESTS: u16 = 2000;

fn peers_at(node: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, PEERS + node)
}

fn requests_at(node: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, REQUESTS + node)
}
