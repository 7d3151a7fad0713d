//! Does to a world what the options say.

use std::collections::BTreeMap;
use std::time::Duration;

use hovercraft::Service;
use hovercraft::node::StopReason;
use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::faults::{Fault, FaultId, FaultKind, schedule};
use super::operator::Operator;
use super::options::Options;
use crate::streams::stream;
use crate::world::{DiskConfig, DiskFault};
use crate::{NetworkConfig, Party, World};

/// A crash comes within so many things that a node does.
const OUTPUTS_MAX: u32 = 60;

/// Lets faults strike and pass when they are due.
#[derive(Debug)]
pub(super) struct Injector {
    /// What is to come, in order; the number keeps apart what comes at once.
    due: BTreeMap<(Instant, u64), Turn>,
    turns: u64,
    /// What each partition that is up cuts off: from whom, to whom.
    cuts: BTreeMap<FaultId, Vec<(Party, Party)>>,
    /// Which pause holds a node.
    paused: BTreeMap<u16, FaultId>,
    operator: Operator,
    /// Which nodes are started again when a fault has passed.
    down: BTreeMap<FaultId, Vec<u16>>,
}

/// A fault strikes or passes.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Strikes(Fault),
    Passes(FaultId),
}

impl Injector {
    /// Sets up the faults that last, and schedules the others.
    pub(super) fn new<S: Service>(options: &Options, world: &mut World<S>) -> Self {
        lasting_rules(options, world);
        if let Some((slow, processing)) = options.slow {
            world.set_processing(slow, Some(processing));
        }
        let mut injector = Self {
            due: BTreeMap::new(),
            turns: 0,
            cuts: BTreeMap::new(),
            paused: BTreeMap::new(),
            operator: Operator::default(),
            down: BTreeMap::new(),
        };
        for fault in schedule(options) {
            injector.schedule(world.now() + fault.at, Turn::Strikes(fault));
        }
        injector
    }

    /// When the next fault strikes or passes.
    pub(super) fn next(&self) -> Instant {
        self.due.first_key_value().map_or(Instant::FAR_FUTURE, |((at, _), _)| *at)
    }

    /// What is still to happen to the members.
    pub(super) fn unfinished<S: Service>(&self, world: &World<S>) -> Option<String> {
        self.operator.unfinished(world)
    }

    /// Does what is due.
    pub(super) fn act<S: Service>(&mut self, options: &Options, world: &mut World<S>) {
        self.operator.act(world);
        while self.next() <= world.now() {
            match self.due.pop_first() {
                Some((_, Turn::Strikes(fault))) => self.strike(options, world, fault),
                Some((_, Turn::Passes(id))) => self.pass(options, world, id),
                None => return,
            }
        }
    }

    fn schedule(&mut self, at: Instant, turn: Turn) {
        self.turns += 1;
        self.due.insert((at, self.turns), turn);
    }

    fn strike<S: Service>(&mut self, options: &Options, world: &mut World<S>, fault: Fault) {
        let rng = &mut SmallRng::seed_from_u64(fault.seed);
        match fault.id.kind {
            FaultKind::Split => self.cut(world, fault.id, sides(options, world.hosts(), rng, true)),
            FaultKind::OneWay => self.cut(world, fault.id, sides(options, world.hosts(), rng, false)),
            FaultKind::Partial => self.cut(world, fault.id, pairs(world.hosts(), rng)),
            FaultKind::Pause => {
                if let Some(id) = victim(world, rng).filter(|id| !self.paused.contains_key(id)) {
                    self.paused.insert(id, fault.id);
                    world.pause(id);
                }
            }
            FaultKind::Kill => {
                let spared = |id: &u16| !options.changes_members() || self.operator.can_spare(world, *id);
                if let Some(id) = victim(world, rng).filter(spared) {
                    self.operator.lost(id);
                    world.kill(id);
                }
            }
            FaultKind::Jump => {
                if let Some(party) = clock_owner(options, world, rng) {
                    world.jump_clock(party, up_to(options.jump_max, rng));
                }
            }
            FaultKind::Stall => {
                if let Some(party) = clock_owner(options, world, rng) {
                    world.set_clock_back(party, up_to(options.stall_max, rng));
                }
            }
            FaultKind::Crash => {
                if let Some(id) = victim(world, rng) {
                    self.down.insert(fault.id, vec![id]);
                    if rng.random_bool(0.3) {
                        world.resign(id);
                    }
                    world.crash_after(id, rng.random_range(0..OUTPUTS_MAX));
                }
            }
            FaultKind::Blackout => {
                let all = world.running();
                for id in &all {
                    world.kill(*id);
                }
                self.down.insert(fault.id, all);
            }
            FaultKind::DiskFull => self.break_disk(world, rng, fault.id, DiskFault::Full),
            FaultKind::DiskFailure => self.break_disk(world, rng, fault.id, DiskFault::Broken),
            FaultKind::SlowDisks => {
                let latency = Duration::from_micros(rng.random_range(1_000..50_000));
                if rng.random_bool(0.5) {
                    world.set_disks(DiskConfig { latency, jitter: latency });
                } else if let Some(id) = victim(world, rng) {
                    // One that hangs.
                    world.set_disk(id, DiskConfig { latency: latency * 100, jitter: Duration::ZERO });
                }
            }
            FaultKind::GatewayCrash => world.kill_gateway(),
            FaultKind::GatewayPause => world.pause_gateway(),
            FaultKind::GatewayCut => self.cut(world, fault.id, gateway_pairs(world.hosts(), rng)),
            FaultKind::Join | FaultKind::Leave | FaultKind::Replace | FaultKind::Transfer => {
                self.operator.shall(fault);
            }
            FaultKind::AggCrash => {
                (0..world.aggregators()).for_each(|number| world.kill_aggregator(number));
            }
            FaultKind::AggPause => {
                world.pause_aggregator(0);
                if rng.random_bool(0.5) {
                    world.start_aggregator(1);
                }
            }
            FaultKind::AggTwin => world.start_aggregator(1),
            FaultKind::AggCut => {
                let number = rng.random_range(0..world.aggregators());
                self.cut(world, fault.id, spokes(number, world.hosts(), rng));
            }
        }
        if !fault.lasts.is_zero() {
            self.schedule(world.now() + fault.lasts, Turn::Passes(fault.id));
        }
    }

    fn pass<S: Service>(&mut self, options: &Options, world: &mut World<S>, id: FaultId) {
        if self.cuts.remove(&id).is_some() {
            self.block(world);
        }
        let freed: Vec<u16> = self.paused.iter().filter(|(_, by)| **by == id).map(|(node, _)| *node).collect();
        for node in freed {
            self.paused.remove(&node);
            world.resume(node);
        }
        match id.kind {
            FaultKind::AggCrash => world.start_aggregator(0),
            FaultKind::AggPause => world.resume_aggregator(0),
            FaultKind::AggTwin => world.kill_aggregator(1),
            FaultKind::GatewayCrash => world.start_gateway(),
            FaultKind::GatewayPause => world.resume_gateway(),
            _ => {}
        }
        if id.kind == FaultKind::SlowDisks {
            world.set_disks(options.disk.unwrap_or_default());
        }
        for node in self.down.remove(&id).unwrap_or_default() {
            world.set_disk_fault(node, None);
            self.restart(world, node);
        }
    }

    /// The end of all faults: everything works again, and whoever can come back is there.
    pub(super) fn heal<S: Service>(&mut self, options: &Options, world: &mut World<S>) {
        world.heal();
        world.set_network(NetworkConfig::default());
        world.let_clocks_run();
        if let Some(disk) = options.disk {
            world.set_disks(disk);
        }
        self.operator.heal();
        self.due.clear();
        if world.aggregators() > 0 {
            world.resume_aggregator(0);
            world.start_aggregator(0);
            world.kill_aggregator(1);
        }
        world.resume_gateway();
        world.start_gateway();
        for id in 1..=world.hosts() {
            world.set_processing(id, None);
            world.resume(id);
            world.set_disk_fault(id, None);
            world.spare(id);
            if options.disk.is_some() && world.node(id).is_none() {
                self.restart(world, id);
            }
        }
    }

    /// Starts a node again, whether its crash has come already or not.
    fn restart<S: Service>(&mut self, world: &mut World<S>, id: u16) {
        let turned_away = matches!(
            world.stopped(id),
            Some(StopReason::Removed { .. } | StopReason::OtherIncarnation { .. } | StopReason::AnotherLife { .. })
        );
        let lives = world.member(id).is_some() && !world.is_gone(id);
        if lives && !turned_away && !self.operator.is_lost(id) {
            world.kill(id);
            world.start(id);
        }
    }

    fn break_disk<S: Service>(&mut self, world: &mut World<S>, rng: &mut SmallRng, id: FaultId, fault: DiskFault) {
        if let Some(node) = victim(world, rng) {
            self.down.insert(id, vec![node]);
            world.set_disk_fault(node, Some(fault));
        }
    }

    fn cut<S: Service>(&mut self, world: &mut World<S>, id: FaultId, pairs: Vec<(Party, Party)>) {
        self.cuts.insert(id, pairs);
        self.block(world);
    }

    /// Blocks what the partitions that are up cut off, and nothing else.
    fn block<S: Service>(&self, world: &mut World<S>) {
        world.reconnect();
        for &(from, to) in self.cuts.values().flatten() {
            world.block(from, to);
        }
    }
}

/// Somebody who runs; as often as not the leader.
fn victim<S: Service>(world: &World<S>, rng: &mut SmallRng) -> Option<u16> {
    let leader = rng.random_bool(0.5);
    let running = world.running();
    let at = rng.random_range(0..running.len().max(1));
    let anybody = running.get(at).copied();
    if leader { world.leader().or(anybody) } else { anybody }
}

/// Whose clock is meddled with: mostly a node's.
fn clock_owner<S: Service>(options: &Options, world: &World<S>, rng: &mut SmallRng) -> Option<Party> {
    let clients = options.clients + options.plain_clients;
    if rng.random_bool(0.2) {
        return Some(Party::Client(rng.random_range(0..clients)));
    }
    victim(world, rng).map(Party::Node)
}

fn up_to(most: Duration, rng: &mut SmallRng) -> Duration {
    Duration::from_nanos(rng.random_range(0..=most.as_nanos() as u64))
}

/// Two sides that do not hear each other, or of which one hears the other. Some clients are on both.
fn sides(options: &Options, hosts: u16, rng: &mut SmallRng, both_ways: bool) -> Vec<(Party, Party)> {
    let mut nodes: Vec<u16> = (1..=hosts).collect();
    nodes.shuffle(rng);
    let (one, other) = nodes.split_at(rng.random_range(0..nodes.len()));
    let mut sides: [Vec<Party>; 2] = [one, other].map(|side| side.iter().map(|id| Party::Node(*id)).collect());
    for client in 0..options.clients + options.plain_clients {
        if let Some(side) = sides.get_mut(rng.random_range(0..3)) {
            side.push(Party::Client(client));
        }
    }
    let [one, other] = sides;
    let mut pairs = Vec::new();
    for &a in &one {
        for &b in &other {
            pairs.push((a, b));
            if both_ways {
                pairs.push((b, a));
            }
        }
    }
    pairs
}

/// Between an aggregator and some nodes, in either direction or both.
fn spokes(number: u16, hosts: u16, rng: &mut SmallRng) -> Vec<(Party, Party)> {
    let mut pairs = Vec::new();
    for id in 1..=hosts {
        let (node, aggregator) = (Party::Node(id), Party::Aggregator(number));
        match rng.random_range(0..6) {
            0 => pairs.push((node, aggregator)),
            1 => pairs.push((aggregator, node)),
            2 => pairs.extend([(node, aggregator), (aggregator, node)]),
            _ => {}
        }
    }
    pairs
}

/// Some pairs of nodes, in both directions.
fn pairs(hosts: u16, rng: &mut SmallRng) -> Vec<(Party, Party)> {
    let mut pairs = Vec::new();
    for a in 1..=hosts {
        for b in a + 1..=hosts {
            if rng.random_bool(0.3) {
                pairs.extend([(Party::Node(a), Party::Node(b)), (Party::Node(b), Party::Node(a))]);
            }
        }
    }
    pairs
}

/// The gateway and some nodes: what it sends to them, what they send to it, or both.
fn gateway_pairs(hosts: u16, rng: &mut SmallRng) -> Vec<(Party, Party)> {
    let mut pairs = Vec::new();
    for id in 1..=hosts {
        match rng.random_range(0..6) {
            0 => pairs.push((Party::Gateway, Party::Node(id))),
            1 => pairs.push((Party::Node(id), Party::Gateway)),
            2 => pairs.extend([(Party::Gateway, Party::Node(id)), (Party::Node(id), Party::Gateway)]),
            _ => {}
        }
    }
    pairs
}

/// Loss at single receivers, and the deaf one.
fn lasting_rules<S: Service>(options: &Options, world: &mut World<S>) {
    for (at, &share) in options.receiver_loss.iter().enumerate() {
        if share > 0.0 {
            let id = at as u16 + 1;
            let mut rng = stream(options.seed, "receiver loss", id.into());
            let receiver = Party::Node(id);
            world.lose_when(move |flight| flight.to == receiver && rng.random_bool(share));
        }
    }
    if let Some(deaf) = options.deaf {
        world.lose_when(move |flight| {
            flight.to == Party::Node(deaf) && matches!(flight.from, Party::Client(_) | Party::Gateway)
        });
    }
}
