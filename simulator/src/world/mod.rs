//! A virtual world: real node, applier and client cores, virtual time, a network that loses things, and one seed that
//! decides everything.

mod addresses;
mod aggregators;
mod alarm;
mod archive;
mod clients;
mod clock;
mod config;
mod disk;
mod drive;
mod gateway;
mod happening;
mod host;
mod members;
mod network;
mod tally;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::applier::Applier;
use hovercraft::client::Endpoint;
use hovercraft::consensus::Role;
use hovercraft::node::StopReason;
use hovercraft::{Node, NodeId, Service};
use r2p2::Instant;
use r2p2::client::ClientConfig;
use rand::Rng;
use rand::rngs::SmallRng;

pub use addresses::{addresses, aggregator_address, client_address, gateway_address, peer_address, request_address};
pub use clock::ClockConfig;
pub use config::WorldConfig;
pub use disk::{DiskConfig, DiskFault};
pub use happening::{Faults, Happening, What};
pub use tally::Tally;
pub use traffic::{Fates, KINDS, Traffic};

use crate::checkers::{Checkers, Violation};
use crate::flight::Party;
use crate::network::Network;
use crate::recording::Recording;
use crate::schedule::Schedule;
use crate::streams::stream;
use aggregators::AggregatorHost;
use alarm::Alarm;
use archive::Archive;
use clients::ClientHost;
use clock::Clock;
use gateway::GatewayHost;
use host::Host;
pub use host::Packets;
use members::first_membership;
use network::{Datagram, Rule};

/// The world. Nodes are numbered from 1, as their hosts are, clients from 0.
pub struct World<S: Service> {
    config: WorldConfig,
    make_service: Box<dyn Fn() -> S>,
    now: Instant,
    rng: SmallRng,
    network: Network,
    events: Schedule<Event>,
    /// Events handled without time passing.
    events_now: u64,
    hosts: Vec<Host<S>>,
    clients: Vec<ClientHost>,
    aggregators: Vec<AggregatorHost>,
    gateway: GatewayHost,
    /// Datagrams to addresses that belong to nobody: raw clients of a test.
    mailboxes: BTreeMap<SocketAddrV4, Vec<Bytes>>,
    rules: Vec<(u64, Rule)>,
    blocked: BTreeSet<(Party, Party)>,
    next_rule: u64,
    checkers: Checkers,
    violation: Option<Violation>,
    faults: Faults,
    traffic: Traffic,
    /// What nodes that are gone have counted.
    gone: Tally,
    recent: VecDeque<Happening>,
    recording: Option<Box<Recording>>,
    /// Datagrams sent, one for each receiver and each copy.
    sent: u64,
    delivered: u64,
    lost: u64,
    /// A running hash of everything delivered: equal traces, equal hashes.
    trace: u64,
}

#[derive(Debug)]
enum Event {
    /// A datagram has crossed the network and reaches the link to its receiver.
    Arrive(Datagram),
    /// A datagram reaches its receiver.
    Deliver(Datagram),
    /// A node has dealt with a datagram.
    Read { node: u16, generation: u64 },
    /// Somebody may have wanted to be woken now.
    Ring { party: Party, number: u64 },
    /// A sync that this process of the node waits for is done.
    Synced { id: u16, process: u64 },
    /// The archive has done something for this process of the node.
    Archived { id: u16, process: u64 },
}

/// More events than this at one instant are a core that asks to be woken for ever.
const EVENTS_PER_INSTANT_MAX: u64 = 100_000;

impl<S: Service> World<S> {
    /// A world in which all nodes have just started and nobody leads.
    pub fn new(mut config: WorldConfig, make_service: impl Fn() -> S + 'static) -> Self {
        let rng = stream(config.seed, "corruption", 0);
        let seed = stream(config.seed, "network", 0).random();
        let parties = usize::from(config.hosts() + config.aggregators) + config.clients + 1;
        let network = Network::new(seed, parties, config.network);
        config.node.aggregator = (config.aggregators > 0).then(aggregator_address);
        let has_gateway = config.gateway.is_some();
        config.node.forwarders = has_gateway.then(gateway_address).into_iter().collect();
        let mut world = Self {
            make_service: Box::new(make_service),
            now: Instant::ZERO,
            rng,
            network,
            events: Schedule::default(),
            events_now: 0,
            hosts: Vec::new(),
            clients: Vec::new(),
            aggregators: Vec::new(),
            gateway: GatewayHost::default(),
            mailboxes: BTreeMap::new(),
            rules: Vec::new(),
            blocked: BTreeSet::new(),
            next_rule: 0,
            checkers: Checkers::new(&config.node, &first_membership(config.nodes), S::classify),
            violation: None,
            faults: Faults::default(),
            traffic: Traffic::default(),
            gone: Tally::new(),
            recent: VecDeque::new(),
            recording: None,
            sent: 0,
            delivered: 0,
            lost: 0,
            trace: 0,
            config,
        };
        if let Some(recording) = world.config.recording {
            world.recording = Some(Box::new(Recording::new(recording, world.config.hosts(), world.config.clients)));
        }
        world.aggregators.resize_with(world.config.aggregators.into(), AggregatorHost::default);
        if !world.aggregators.is_empty() {
            world.start_aggregator(0);
        }
        world.start_gateway();
        let first = first_membership(world.config.nodes);
        for id in 1..=world.config.hosts() {
            let disk = world.new_disk(id);
            let archive = Archive::new(world.config.disk, world.config.seed ^ u64::from(id));
            world.hosts.push(Host::new(id, disk, archive, world.config.node.service_version));
            if let Some((me, _)) = first.of_node(NodeId(id)) {
                world.start_as(me, first.clone());
            }
        }
        for number in 0..world.config.clients {
            let seed = stream(world.config.seed, "client", number as u64).random();
            let sessions = world.config.client.sessions && number >= world.config.plain_clients;
            let config = ClientConfig { sessions, ..world.config.client.clone() };
            let contacts = clients::contacts(world.config.nodes, world.config.unicast, has_gateway);
            let core = Endpoint::new(config, contacts, seed);
            let mut rng = stream(world.config.seed, "client clock", number as u64);
            let clock = Clock::start(world.now, world.config.clocks, &mut rng);
            world.clients.push(ClientHost { core, clock, alarm: Alarm::default(), completions: Vec::new() });
            world.drive_client(number);
        }
        world
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Datagrams delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Datagrams lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The first invariant that did not hold, if the world collects it.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What was done to the world so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// What became of every kind of message so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What happened last, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Happening> {
        self.recent.iter()
    }

    /// Takes what was recorded so far, if anything is recorded; nothing is from here on.
    pub fn take_recording(&mut self) -> Option<Recording> {
        let mut recording = self.recording.take()?;
        recording.end = self.now;
        Some(*recording)
    }

    /// A hash of everything that was delivered, in order.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// The node's core, if it runs.
    pub fn node(&self, id: u16) -> Option<&Node> {
        self.host(id).running.as_ref().map(|running| &running.node)
    }

    /// The node's applier, if it runs.
    pub fn applier(&self, id: u16) -> Option<&Applier<S>> {
        self.host(id).running.as_ref().map(|running| &running.applier)
    }

    /// Why the node stopped by itself, if it did.
    pub fn stopped(&self, id: u16) -> Option<&StopReason> {
        self.host(id).stopped.as_ref()
    }

    /// Ids of all nodes that stopped by themselves.
    pub fn hosts_stopped(&self) -> Vec<u16> {
        self.hosts.iter().filter(|host| host.stopped.is_some()).map(|host| host.id.0).collect()
    }

    /// Ids of all nodes that run.
    pub fn running(&self) -> Vec<u16> {
        self.hosts.iter().filter(|host| host.running.is_some()).map(|host| host.id.0).collect()
    }

    /// The leader of the highest term that a running, unpaused node believes to lead.
    pub fn leader(&self) -> Option<u16> {
        self.hosts
            .iter()
            .filter(|host| !host.is_paused)
            .filter_map(|host| Some((host.running.as_ref()?.node.consensus(), host.id.0)))
            .filter(|(consensus, _)| consensus.role() == Role::Leader)
            .max_by_key(|(consensus, _)| consensus.term())
            .map(|(_, id)| id)
    }

    /// Runs until `done`, or until `limit` of virtual time has passed; returns whether it is done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                return done(self);
            }
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Runs until a leader has committed an entry of its term and every running node has applied it.
    pub fn elect(&mut self) -> u16 {
        let elected = self.run_until(Duration::from_secs(10), |world| {
            world.leader().is_some_and(|leader| {
                let Some(node) = world.node(leader) else { return false };
                let commit = node.consensus().commit();
                node.consensus().commit_is_current()
                    && world.running().iter().all(|id| {
                        world.host(*id).is_paused || world.node(*id).is_some_and(|node| node.applied() >= commit)
                    })
            })
        });
        assert!(elected, "nobody was elected within 10 s of virtual time");
        self.leader().expect("just elected")
    }

    /// Handles the next event if it is not after `end`; time then is `end`.
    ///
    /// A world that collects violations does not go on after one.
    pub fn step(&mut self, end: Instant) -> bool {
        if self.violation.is_some() {
            return false;
        }
        let Some((at, event)) = self.events.pop_until(end) else {
            self.now = end;
            return false;
        };
        self.events_now = if at == self.now { self.events_now + 1 } else { 0 };
        assert!(self.events_now < EVENTS_PER_INSTANT_MAX, "time stands still: {event:?}");
        self.now = at;
        self.handle(event);
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(datagram) => self.arrive(datagram),
            Event::Deliver(datagram) => match datagram.to {
                Party::Node(id) => self.receive(id, datagram),
                _ => self.deliver(datagram),
            },
            Event::Read { node, generation } => self.read(node, generation),
            Event::Ring { party, number } => {
                if self.rang(party, number) {
                    self.wake(party);
                }
            }
            Event::Synced { id, process } => self.synced(id, process),
            Event::Archived { id, process } => self.archived(id, process),
        }
    }

    fn wake(&mut self, party: Party) {
        match party {
            // When it goes on it is woken in any case.
            Party::Node(id) if self.host(id).is_paused => {}
            Party::Node(id) => self.wake_node(id),
            Party::Client(number) => self.wake_client(number),
            Party::Aggregator(number) => self.wake_aggregator(number),
            Party::Gateway => self.wake_gateway(),
            Party::Raw => {}
        }
    }

    fn report(&mut self, violation: Violation) {
        assert!(self.config.collect, "{violation}");
        if self.violation.is_none() {
            self.happened_because(What::Violated, || violation.to_string());
            self.violation = Some(violation);
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.events.push(at.max(self.now), event);
    }

    fn party(&self, address: SocketAddrV4) -> Party {
        addresses::party(address, self.config.hosts(), self.config.clients)
    }
}

impl<S: Service> fmt::Debug for World<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&Node> = self.hosts.iter().filter_map(|host| Some(&host.running.as_ref()?.node)).collect();
        f.debug_struct("World").field("now", &self.now).field("nodes", &nodes).finish_non_exhaustive()
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}
