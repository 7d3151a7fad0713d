//! A virtual world: real node, applier and client cores, virtual time, a network that loses things, and one seed that
//! decides everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::applier::{Applier, ApplierConfig, Work};
use hovercraft::consensus::Role;
use hovercraft::node::StopReason;
use hovercraft::{Destination, Incarnation, MemberId, Node, NodeConfig, NodeId, Output, Service, Voter};
use r2p2::Instant;
use r2p2::client::{Client, ClientConfig, ClientOutput, Completion, Kind, SubmitError, Target, Ticket};
use r2p2::server::Via;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::checkers::{Checkers, Violation};
use crate::flight::{Flight, Party, describe, internal, message};

/// How the network behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NetworkConfig {
    /// Shortest time a datagram takes.
    pub latency: Duration,
    /// Up to this much is added, which is also what reorders.
    pub jitter: Duration,
    /// Share of datagrams that are lost, decided for each receiver of a multicast on its own.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams of which one bit is flipped, where the protocol has to notice: the marks of the header, or,
    /// in what is fetched, whatever follows the envelope. UDP's checksum stands in front of everything else, and no
    /// protocol without authentication survives a changed request.
    pub corrupt: f64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(10),
            jitter: Duration::from_micros(10),
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

/// What kind of world.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Decides everything.
    pub seed: u64,
    /// Nodes.
    pub nodes: u16,
    /// Clients.
    pub clients: usize,
    /// How many of them, the first ones, do without sessions.
    pub plain_clients: usize,
    /// The network.
    pub network: NetworkConfig,
    /// What all nodes have in common; identity, seed and voters are filled in.
    pub node: NodeConfig,
    /// What all clients have in common.
    pub client: ClientConfig,
    /// Whether a violated invariant ends the run ([`World::violation`]) rather than panics.
    pub collect: bool,
}

/// What was done to a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Datagrams lost by chance.
    pub lost: u64,
    /// Datagrams lost by a rule or a partition.
    pub cut: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Datagrams with a flipped bit.
    pub corrupted: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Nodes paused.
    pub pauses: u64,
}

/// Something that happened, for whoever looks for the reason of what happened next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The fields are those of a flight, or a node's id.
pub enum What {
    /// A datagram arrives.
    Delivered { from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by chance.
    Lost { from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by a rule or a partition.
    Cut { from: Party, to: Party, what: &'static str, len: usize },
    /// A node is killed.
    Killed(u16),
    /// A node stops by itself.
    Stopped(u16),
    /// A node is paused.
    Paused(u16),
    /// A node goes on.
    Resumed(u16),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} ms  ", self.at.as_nanos() as f64 / 1e6)?;
        match self.what {
            What::Delivered { from, to, what, len } => write!(f, "{from} -> {to}  {what} ({len} B)"),
            What::Lost { from, to, what, len } => write!(f, "{from} -x {to}  {what} ({len} B) lost"),
            What::Cut { from, to, what, len } => write!(f, "{from} -| {to}  {what} ({len} B) cut off"),
            What::Killed(id) => write!(f, "n{id} is killed"),
            What::Stopped(id) => write!(f, "n{id} stops"),
            What::Paused(id) => write!(f, "n{id} is paused"),
            What::Resumed(id) => write!(f, "n{id} goes on"),
        }
    }
}

impl WorldConfig {
    /// A quiet world.
    pub fn new(seed: u64, nodes: u16) -> Self {
        let mut client = ClientConfig { nodes: usize::from(nodes), ..ClientConfig::default() };
        client.retransmit_min = Duration::from_millis(2);
        client.retransmit_max = Duration::from_millis(100);
        client.give_up = Duration::from_secs(5);
        Self {
            seed,
            nodes,
            clients: 1,
            plain_clients: 0,
            network: NetworkConfig::default(),
            node: NodeConfig::new(member(1), Vec::new()),
            client,
            collect: false,
        }
    }
}

/// The world. Nodes are numbered from 1, clients from 0.
pub struct World<S: Service> {
    config: WorldConfig,
    make_service: Box<dyn Fn() -> S>,
    now: Instant,
    rng: SmallRng,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    /// Events handled without time passing.
    events_now: u64,
    hosts: Vec<Host<S>>,
    clients: Vec<ClientHost>,
    /// Datagrams to addresses that belong to nobody: raw clients of a test.
    mailboxes: BTreeMap<SocketAddrV4, Vec<Bytes>>,
    rules: Vec<(u64, Rule)>,
    blocked: BTreeSet<(Party, Party)>,
    next_rule: u64,
    checkers: Checkers,
    violation: Option<Violation>,
    faults: Faults,
    recent: VecDeque<Happening>,
    delivered: u64,
    lost: u64,
    /// A running hash of everything delivered: equal traces, equal hashes.
    trace: u64,
}

/// Says of a datagram whether it is lost.
type Rule = Box<dyn FnMut(&Flight<'_>) -> bool>;

#[derive(Debug)]
enum Event {
    Deliver { to: Party, address: SocketAddrV4, via: Via, from: SocketAddrV4, packet: Bytes },
    Wake { party: Party, generation: u64 },
}

struct Host<S: Service> {
    id: NodeId,
    incarnation: u32,
    running: Option<Running<S>>,
    paused: Option<VecDeque<Event>>,
    generation: u64,
    wake: Option<Instant>,
    stopped: Option<StopReason>,
}

struct Running<S: Service> {
    node: Node,
    applier: Applier<S>,
}

struct ClientHost {
    core: Client,
    generation: u64,
    wake: Option<Instant>,
    completions: Vec<(Instant, Completion)>,
}

/// Most datagrams that wait in a paused host's sockets.
const PAUSED_DATAGRAMS_MAX: usize = 4096;

/// Most happenings that are remembered.
const RECENT_MAX: usize = 64;

/// More events than this at one instant are a core that asks to be woken for ever.
const EVENTS_PER_INSTANT_MAX: u64 = 100_000;

impl<S: Service> World<S> {
    /// A world in which all nodes have just started and nobody leads.
    pub fn new(config: WorldConfig, make_service: impl Fn() -> S + 'static) -> Self {
        let rng = SmallRng::seed_from_u64(config.seed);
        let mut world = Self {
            make_service: Box::new(make_service),
            now: Instant::ZERO,
            rng,
            events: BTreeMap::new(),
            scheduled: 0,
            events_now: 0,
            hosts: Vec::new(),
            clients: Vec::new(),
            mailboxes: BTreeMap::new(),
            rules: Vec::new(),
            blocked: BTreeSet::new(),
            next_rule: 0,
            checkers: Checkers::new(&config.node),
            violation: None,
            faults: Faults::default(),
            recent: VecDeque::new(),
            delivered: 0,
            lost: 0,
            trace: 0,
            config,
        };
        for id in 1..=world.config.nodes {
            world.hosts.push(Host {
                id: NodeId(id),
                incarnation: 1,
                running: None,
                paused: None,
                generation: 0,
                wake: None,
                stopped: None,
            });
            world.start(id);
        }
        for number in 0..world.config.clients {
            let seed = world.rng.random();
            let sessions = world.config.client.sessions && number >= world.config.plain_clients;
            let core = Client::new(ClientConfig { sessions, ..world.config.client.clone() }, seed);
            world.clients.push(ClientHost { core, generation: 0, wake: None, completions: Vec::new() });
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

    /// What happened last, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Happening> {
        self.recent.iter()
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
            .filter(|host| host.paused.is_none())
            .filter_map(|host| Some((host.running.as_ref()?.node.consensus(), host.id.0)))
            .filter(|(consensus, _)| consensus.role() == Role::Leader)
            .max_by_key(|(consensus, _)| consensus.term())
            .map(|(_, id)| id)
    }

    /// Kills a node: its memory is gone.
    pub fn kill(&mut self, id: u16) {
        if self.host(id).running.is_some() && self.host(id).stopped.is_none() {
            self.faults.kills += 1;
            self.happened(What::Killed(id));
        }
        self.forget(id);
    }

    fn forget(&mut self, id: u16) {
        let host = self.host_mut(id);
        host.running = None;
        host.paused = None;
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
        self.drive_node(id);
    }

    /// Stops a node's clock and its sockets' readers; datagrams wait.
    pub fn pause(&mut self, id: u16) {
        let host = self.host_mut(id);
        if host.running.is_some() && host.paused.is_none() {
            host.paused = Some(VecDeque::new());
            self.faults.pauses += 1;
            self.happened(What::Paused(id));
        }
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, id: u16) {
        let Some(waiting) = self.host_mut(id).paused.take() else { return };
        self.happened(What::Resumed(id));
        for event in waiting {
            self.handle(event);
        }
        self.wake_node(id);
    }

    /// Loses everything from one party to another.
    pub fn block(&mut self, from: Party, to: Party) {
        self.blocked.insert((from, to));
    }

    /// Cuts a node off from all other nodes and clients, or from all but `friends`.
    pub fn isolate(&mut self, id: u16, friends: &[u16]) {
        let parties: Vec<Party> = self
            .hosts
            .iter()
            .map(|host| Party::Node(host.id.0))
            .chain((0..self.clients.len()).map(Party::Client))
            .collect();
        for other in parties {
            let friend = matches!(other, Party::Node(node) if friends.contains(&node) || node == id);
            if !friend {
                self.block(Party::Node(id), other);
                self.block(other, Party::Node(id));
            }
        }
    }

    /// Undoes [`World::block`], [`World::isolate`] and [`World::lose_when`].
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.rules.clear();
    }

    /// Loses every datagram of which `rule` says so. Returns a number for [`World::remove_rule`].
    pub fn lose_when(&mut self, rule: impl FnMut(&Flight<'_>) -> bool + 'static) -> u64 {
        self.next_rule += 1;
        self.rules.push((self.next_rule, Box::new(rule)));
        self.next_rule
    }

    /// Removes one rule.
    pub fn remove_rule(&mut self, number: u64) {
        self.rules.retain(|(other, _)| *other != number);
    }

    /// Changes the network.
    pub fn set_network(&mut self, network: NetworkConfig) {
        self.config.network = network;
    }

    /// A client invokes an operation.
    pub fn submit(&mut self, client: usize, kind: Kind, body: impl Into<Bytes>) -> Ticket {
        let ticket = self.clients[client].core.submit(self.now, kind, body.into()).expect("within the client's limits");
        self.drive_client(client);
        ticket
    }

    /// The same where the client may have too much to do already.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn try_submit(&mut self, client: usize, kind: Kind, body: impl Into<Bytes>) -> Result<Ticket, SubmitError> {
        let submitted = self.clients[client].core.submit(self.now, kind, body.into());
        self.drive_client(client);
        submitted
    }

    /// A client gives up an operation.
    pub fn cancel(&mut self, client: usize, ticket: Ticket) {
        self.clients[client].core.cancel(self.now, ticket);
        self.drive_client(client);
    }

    /// Takes what has ended at a client since the last time.
    pub fn completions(&mut self, client: usize) -> Vec<(Instant, Completion)> {
        std::mem::take(&mut self.clients[client].completions)
    }

    /// Whether anything has ended at any client that nobody has taken yet.
    pub fn has_completions(&self) -> bool {
        self.clients.iter().any(|client| !client.completions.is_empty())
    }

    /// A client's core.
    pub fn client(&self, client: usize) -> &Client {
        &self.clients[client].core
    }

    /// Sends a datagram from an address of the test's own to all nodes' request group.
    pub fn send_raw_to_group(&mut self, from: SocketAddrV4, packet: Bytes) {
        for id in 1..=self.config.nodes {
            self.transmit(Party::Raw, from, Party::Node(id), request_address(id), Via::Group, packet.clone());
        }
    }

    /// Sends a datagram from an address of the test's own to one address.
    pub fn send_raw(&mut self, from: SocketAddrV4, to: SocketAddrV4, packet: Bytes) {
        self.transmit(Party::Raw, from, self.party(to), to, Via::Unicast, packet);
    }

    /// Takes what has arrived at an address of the test's own.
    pub fn mailbox(&mut self, address: SocketAddrV4) -> Vec<Bytes> {
        self.mailboxes.remove(&address).unwrap_or_default()
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
                        world.host(*id).paused.is_some() || world.node(*id).is_some_and(|node| node.applied() >= commit)
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
        match self.events.first_key_value() {
            Some(((at, _), _)) if *at <= end => {}
            _ => {
                self.now = end;
                return false;
            }
        }
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.events_now = if at == self.now { self.events_now + 1 } else { 0 };
        assert!(self.events_now < EVENTS_PER_INSTANT_MAX, "time stands still: {event:?}");
        self.now = at;
        self.handle(event);
        true
    }

    fn handle(&mut self, event: Event) {
        let party = match &event {
            Event::Deliver { to, .. } => *to,
            Event::Wake { party, .. } => *party,
        };
        if let Party::Node(id) = party
            && let Some(waiting) = &mut self.host_mut(id).paused
        {
            if waiting.len() < PAUSED_DATAGRAMS_MAX {
                waiting.push_back(event);
            }
            return;
        }
        match event {
            Event::Deliver { to, address, via, from, packet } => self.deliver(to, address, via, from, packet),
            Event::Wake { party: Party::Node(id), generation } => {
                if self.host(id).generation == generation {
                    self.wake_node(id);
                }
            }
            Event::Wake { party: Party::Client(number), generation } => {
                if self.clients[number].generation == generation {
                    self.clients[number].wake = None;
                    self.clients[number].core.handle_timeout(self.now);
                    self.drive_client(number);
                }
            }
            Event::Wake { party: Party::Raw, .. } => {}
        }
    }

    fn deliver(&mut self, to: Party, address: SocketAddrV4, via: Via, from: SocketAddrV4, packet: Bytes) {
        self.delivered += 1;
        self.trace = mix(self.trace, self.now.as_nanos());
        self.trace = mix(self.trace, u64::from(address.port()) << 32 | u64::from(u32::from(*address.ip())));
        for chunk in packet.chunks(8) {
            self.trace = mix(self.trace, chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        let now = self.now;
        let sender = self.party(from);
        let what = describe(now, sender, to, via, &packet).what;
        self.happened(What::Delivered { from: sender, to, what, len: packet.len() });
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

    fn wake_node(&mut self, id: u16) {
        let now = self.now;
        let host = self.host_mut(id);
        host.wake = None;
        if let Some(running) = &mut host.running {
            running.node.handle_timeout(now);
            self.drive_node(id);
        }
    }

    /// Drains a node's outputs, executes what it commits, and schedules its next timeout.
    fn drive_node(&mut self, id: u16) {
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
        if let Err(violation) = found {
            self.report(violation);
        }
        for (from, output) in sends {
            match output {
                Output::Peers { to: Destination::Peer(to), packet } => {
                    self.transmit(Party::Node(id), from, Party::Node(to.0), peer_address(to.0), Via::Unicast, packet);
                }
                Output::Peers { to: Destination::Group, packet } => {
                    for other in 1..=self.config.nodes {
                        // Multicast loops back to its sender too.
                        let to = peer_address(other);
                        self.transmit(Party::Node(id), from, Party::Node(other), to, Via::Group, packet.clone());
                    }
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
            self.happened(What::Stopped(id));
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

    fn drive_client(&mut self, number: usize) {
        let now = self.now;
        let from = client_address(number);
        loop {
            match self.clients[number].core.poll_output(now) {
                ClientOutput::Transmit { target, packet } => match target {
                    Target::Group => {
                        for id in 1..=self.config.nodes {
                            let to = request_address(id);
                            self.transmit(Party::Client(number), from, Party::Node(id), to, Via::Group, packet.clone());
                        }
                    }
                    Target::Node(at) => {
                        let id = at as u16 + 1;
                        let to = request_address(id);
                        self.transmit(Party::Client(number), from, Party::Node(id), to, Via::Unicast, packet);
                    }
                    Target::Address(to) => {
                        self.transmit(Party::Client(number), from, self.party(to), to, Via::Unicast, packet);
                    }
                },
                ClientOutput::Done(completion) => self.clients[number].completions.push((now, completion)),
                ClientOutput::Timeout(at, _) => {
                    let client = &mut self.clients[number];
                    if client.wake != Some(at) {
                        client.generation += 1;
                        client.wake = Some(at);
                        let generation = client.generation;
                        self.schedule(at, Event::Wake { party: Party::Client(number), generation });
                    }
                    return;
                }
            }
        }
    }

    fn transmit(
        &mut self,
        from: Party,
        source: SocketAddrV4,
        to: Party,
        address: SocketAddrV4,
        via: Via,
        packet: Bytes,
    ) {
        let mut packet = packet;
        if self.config.network.corrupt > 0.0 && self.rng.random_bool(self.config.network.corrupt) {
            packet = self.corrupt(packet);
        }
        let flight = describe(self.now, from, to, via, &packet);
        let (what, len) = (flight.what, packet.len());
        let network = self.config.network;
        // Every draw is made whatever the rules say, so that a rule changes nothing but what it is about.
        let lost = self.rng.random_bool(network.loss) && from != to;
        let twice = self.rng.random_bool(network.duplicate);
        let delay = self.delay(network);
        let again = self.delay(network);
        let ruled_out = self.rules.iter_mut().any(|(_, rule)| rule(&flight));
        if lost || ruled_out || self.blocked.contains(&(from, to)) {
            self.lost += 1;
            if lost {
                self.faults.lost += 1;
                self.happened(What::Lost { from, to, what, len });
            } else {
                self.faults.cut += 1;
                self.happened(What::Cut { from, to, what, len });
            }
            return;
        }
        let now = self.now;
        if twice {
            self.faults.duplicated += 1;
            let packet = packet.clone();
            self.schedule(now + again, Event::Deliver { to, address, via, from: source, packet });
        }
        self.schedule(now + delay, Event::Deliver { to, address, via, from: source, packet });
    }

    fn delay(&mut self, network: NetworkConfig) -> Duration {
        let jitter = network.jitter.as_nanos() as u64;
        network.latency + Duration::from_nanos(if jitter == 0 { 0 } else { self.rng.random_range(0..jitter) })
    }

    /// Flips one bit; see [`NetworkConfig::corrupt`].
    fn corrupt(&mut self, packet: Bytes) -> Bytes {
        const MAGIC: std::ops::Range<usize> = 0..8;
        const KIND: std::ops::Range<usize> = 16..20;
        const ENVELOPE_END: usize = 8 * (8 + hovercraft::message::ENVELOPE_LEN);
        if packet.len() < 8 {
            return packet;
        }
        let fetched = matches!(internal(&packet), "fetch" | "bodies" | "hint");
        let bit = match self.rng.random_range(0..3) {
            0 if fetched && packet.len() * 8 > ENVELOPE_END => self.rng.random_range(ENVELOPE_END..packet.len() * 8),
            1 => self.rng.random_range(MAGIC),
            // The upper half of the byte; bits are counted from the left.
            _ => self.rng.random_range(KIND),
        };
        self.faults.corrupted += 1;
        let mut bytes = packet.to_vec();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        bytes.into()
    }

    fn happened(&mut self, what: What) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Happening { at: self.now, what });
    }

    fn report(&mut self, violation: Violation) {
        assert!(self.config.collect, "{violation}");
        self.violation.get_or_insert(violation);
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        if at < Instant::FAR_FUTURE {
            self.scheduled += 1;
            self.events.insert((at.max(self.now), self.scheduled), event);
        }
    }

    fn party(&self, address: SocketAddrV4) -> Party {
        let [a, b, c, d] = address.ip().octets();
        match (a, b) {
            (10, 0) if (1..=self.config.nodes).contains(&u16::from(d)) => Party::Node(u16::from(d)),
            // A flipped bit can make an address of nobody's.
            (10, 1) if d > 0 => match usize::from(c) * 250 + usize::from(d) - 1 {
                number if number < self.config.clients => Party::Client(number),
                _ => Party::Raw,
            },
            _ => Party::Raw,
        }
    }

    fn voters(&self) -> Vec<Voter> {
        let voter = |host: &Host<S>| Voter { member: member(host.id.0), address: peer_address(host.id.0) };
        match self.hosts.len() {
            len if len == usize::from(self.config.nodes) => self.hosts.iter().map(voter).collect(),
            _ => (1..=self.config.nodes).map(|id| Voter { member: member(id), address: peer_address(id) }).collect(),
        }
    }

    fn host(&self, id: u16) -> &Host<S> {
        &self.hosts[usize::from(id - 1)]
    }

    fn host_mut(&mut self, id: u16) -> &mut Host<S> {
        &mut self.hosts[usize::from(id - 1)]
    }
}

impl<S: Service> fmt::Debug for World<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&Node> = self.hosts.iter().filter_map(|host| Some(&host.running.as_ref()?.node)).collect();
        f.debug_struct("World").field("now", &self.now).field("nodes", &nodes).finish_non_exhaustive()
    }
}

const REQUEST_PORT: u16 = 9000;
const PEER_PORT: u16 = 9100;

/// Where a node receives requests.
pub fn request_address(id: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, id as u8), REQUEST_PORT)
}

/// Where a node receives what other nodes say.
pub fn peer_address(id: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, id as u8), PEER_PORT)
}

/// A client's address.
pub fn client_address(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, (number / 250) as u8, (number % 250 + 1) as u8), 5000)
}

fn member(id: u16) -> MemberId {
    MemberId::new(NodeId(id), Incarnation(1))
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}
