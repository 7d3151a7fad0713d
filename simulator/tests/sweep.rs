//! A sweep of random schedules that look for lost, doubled, stale, diverging, stalling or panicking nodes; with disks,
//! of which each has its own pace, every process may die and come back.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Cluster, converged};
use hovercraft::config::{Mode, Timing};
use r2p2::client::{Completion, Kind, Outcome, Route, Ticket};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::history::{self, History};
use simulator::linearizability::increments::{Increment, Totals};
use simulator::linearizability::{BUDGET_DEFAULT, Verdict, check};
use simulator::recording::outcome_name;
use simulator::registers::{Request, decode_reply};
use simulator::swarm::model::{RegisterModel, RegisterOp};
use simulator::world::DiskConfig;
use simulator::{Latency, NetworkConfig, Party, Registers, World, WorldConfig};

const COUNTER: u64 = 100;

/// Operations of random clients and what became of them.
struct Load {
    rng: SmallRng,
    clients: usize,
    registers: BTreeMap<u64, History<RegisterOp, u64>>,
    counter: Vec<Option<Increment>>,
    open: BTreeMap<(usize, Ticket), Pending>,
    value: u64,
    pad: usize,
    outcomes: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Copy)]
enum Pending {
    Register(u64, history::Ticket),
    Counter(usize),
}

impl Load {
    fn new(seed: u64, clients: usize, pad: usize) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed ^ 0x10ad),
            clients,
            registers: BTreeMap::new(),
            counter: Vec::new(),
            open: BTreeMap::new(),
            value: 0,
            pad,
            outcomes: BTreeMap::new(),
        }
    }

    fn submit(&mut self, world: &mut Cluster, client: usize) {
        self.value += 1;
        let key = self.rng.random_range(0..3);
        let value = self.value;
        let (request, op) = match self.rng.random_range(0..10) {
            0..3 => (Request::Get(key), Some(RegisterOp::Get)),
            3..5 => (Request::Set(key, value), Some(RegisterOp::Set(value))),
            5..7 => {
                let old = value.saturating_sub(self.rng.random_range(1..6));
                (Request::Cas(key, old, value), Some(RegisterOp::Cas(old, value)))
            }
            7 => (Request::Add(key, 1_000_000), Some(RegisterOp::Add(1_000_000))),
            _ => (Request::Add(COUNTER, 1), None),
        };
        let kind = if matches!(request, Request::Get(_)) { Kind::Read } else { Kind::Write };
        let now = world.now();
        let pending = match op {
            Some(op) => Pending::Register(key, self.registers.entry(key).or_default().call(client as u64, now, op)),
            None => {
                self.counter.push(Some(Increment::Unknown { delta: 1 }));
                Pending::Counter(self.counter.len() - 1)
            }
        };
        let mut body = request.encode().to_vec();
        if self.pad > 0 && self.rng.random_bool(0.1) {
            body.resize(self.rng.random_range(body.len()..self.pad), 0);
        }
        let ticket = world.submit(client, kind, body);
        self.open.insert((client, ticket), pending);
    }

    fn cancel(&mut self, world: &mut Cluster, client: usize) {
        let tickets: Vec<Ticket> = self.open.keys().filter(|(c, _)| *c == client).map(|(_, ticket)| *ticket).collect();
        if !tickets.is_empty() {
            world.cancel(client, tickets[self.rng.random_range(0..tickets.len())]);
        }
    }

    fn outstanding(&self, client: usize) -> usize {
        self.open.keys().filter(|(c, _)| *c == client).count()
    }

    fn collect(&mut self, world: &mut Cluster) {
        for client in 0..self.clients {
            for (at, completion) in world.completions(client) {
                let Completion { ticket, outcome, .. } = completion;
                let pending = self.open.remove(&(client, ticket)).expect("one completion per ticket");
                *self.outcomes.entry(outcome_name(&outcome)).or_default() += 1;
                match (pending, outcome) {
                    (Pending::Register(key, ticket), Outcome::Ok(reply)) => {
                        let value = decode_reply(&reply).expect("a number");
                        self.registers.get_mut(&key).unwrap().ret(ticket, at, value);
                    }
                    (Pending::Register(key, ticket), Outcome::NotExecuted(_)) => {
                        self.registers.get_mut(&key).unwrap().not_executed(ticket);
                    }
                    (Pending::Register(key, ticket), Outcome::ReplyGone) => {
                        self.registers.get_mut(&key).unwrap().executed(ticket, at);
                    }
                    (Pending::Counter(at), Outcome::Ok(reply)) => {
                        let value = i128::from(decode_reply(&reply).expect("a number"));
                        self.counter[at] = Some(Increment::Answered { delta: 1, value });
                    }
                    (Pending::Counter(at), Outcome::NotExecuted(_)) => self.counter[at] = None,
                    (Pending::Counter(at), Outcome::ReplyGone) => {
                        self.counter[at] = Some(Increment::Executed { delta: 1 });
                    }
                    (_, Outcome::Unknown | Outcome::Expired) => {}
                    (_, other) => panic!("{other:?}"),
                }
            }
        }
    }

    fn check(&self, world: &Cluster, seed: u64) {
        let id = world.running()[0];
        let last = i128::from(world.applier(id).unwrap().service().value(COUNTER));
        let totals = Totals::new(0, last, self.counter.iter().flatten().copied());
        if let Err(violation) = totals.check() {
            panic!("seed {seed}: {violation}");
        }
        for (key, history) in &self.registers {
            let report = check::<RegisterModel>(history, BUDGET_DEFAULT);
            match report.verdict {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable(_) => panic!("seed {seed} key {key}: {}", report.verdict),
                Verdict::Undecided(_) => eprintln!("seed {seed} key {key}: undecided, {} ops", report.operations),
            }
        }
    }
}

/// From syncs that cost next to nothing to syncs that take as long as an election timeout.
fn disk(rng: &mut SmallRng) -> DiskConfig {
    let most = [20, 300, 3000, 12_000][rng.random_range(0..4)];
    DiskConfig {
        latency: Duration::from_micros(rng.random_range(1..most)),
        jitter: Duration::from_micros(rng.random_range(1..most)),
    }
}

/// Kills, starts and slows down whatever has a disk.
fn disturb(rng: &mut SmallRng, world: &mut Cluster, nodes: u16, paused: &mut Vec<u16>) {
    let id = rng.random_range(1..=nodes);
    match rng.random_range(0..100) {
        0..2 => {
            world.kill(id);
            paused.retain(|paused| *paused != id);
        }
        2..5 => world.crash_after(id, rng.random_range(0..40)),
        5 => {
            for id in 1..=nodes {
                world.kill(id);
            }
            paused.clear();
        }
        6..9 => {
            if let Some(leader) = world.leader() {
                world.kill(leader);
                paused.retain(|paused| *paused != leader);
            }
        }
        9..14 => world.set_disk(id, disk(rng)),
        14..40 if world.node(id).is_none() => world.start(id),
        _ => {}
    }
}

fn sweep(seed: u64, durable: bool) {
    let mut disks = SmallRng::seed_from_u64(seed ^ 0xd15c);
    let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let nodes = [1, 3, 3, 3, 5][rng.random_range(0..5)];
    let clients = rng.random_range(1..5);
    let mode = if rng.random_bool(0.3) { Mode::Raft } else { Mode::Hovercraft };
    let loss = if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.0..0.2) };
    let network = NetworkConfig {
        latency: Latency::jittered(
            Duration::from_micros(rng.random_range(1..50)),
            Duration::from_micros(rng.random_range(1..1000)),
        ),
        loss,
        duplicate: if rng.random_bool(0.5) { rng.random_range(0.0..0.3) } else { 0.0 },
        ..NetworkConfig::default()
    };
    let mut config = WorldConfig::new(seed, nodes);
    config.clients = clients;
    config.network = network;
    config.node.mode = mode;
    config.node.timing = Timing { tick: Duration::from_millis(1), ..Timing::default() };
    config.node.early_commit = rng.random_bool(0.5);
    config.client.give_up = Duration::from_millis(rng.random_range(200..3000));
    config.client.session_idle = Duration::from_secs(10);
    if mode == Mode::Raft {
        config.client.fan_out = Route::Sticky;
    }
    // Small limits reach the corners sooner.
    if rng.random_bool(0.4) {
        config.node.limits.window_entries_max = rng.random_range(4..64);
        config.node.limits.replier_queue_max = rng.random_range(1..8);
    }
    if rng.random_bool(0.3) {
        config.node.limits.fetch.in_flight_max = rng.random_range(1..8);
        config.node.limits.fetch.wanted_max = rng.random_range(8..32);
    }
    if rng.random_bool(0.3) {
        config.node.limits.held.count_max = rng.random_range(1..8);
        config.node.limits.burst_entries_max = rng.random_range(1..16);
        config.node.limits.batch_entries_max = rng.random_range(1..16);
        config.node.limits.in_step_entries_max = rng.random_range(1..64);
    }
    if rng.random_bool(0.3) {
        config.node.limits.unordered.count_max = rng.random_range(2..32);
    }
    if rng.random_bool(0.3) {
        let age = Duration::from_millis(rng.random_range(20..300));
        config.node.timing.order_age_max = age;
        config.node.limits.unordered.age_max = age * 3;
        config.node.timing.hint_after = Duration::from_millis(rng.random_range(2..40));
        config.node.timing.deaf_window = Duration::from_millis(50);
    }
    let pad = if rng.random_bool(0.3) { 6000 } else { 0 };
    config.node.durable = durable;
    let summary = format!(
        "seed {seed}, durable {durable}: {nodes} nodes, {clients} clients, {mode:?}, {network:?}, pad {pad}, {:?}",
        config.node.limits.fetch
    );
    let mut world: Cluster = World::new(config, Registers::default);
    let mut load = Load::new(seed, clients, pad);
    let (mut killed, mut paused, mut cut) = (0, Vec::<u16>::new(), Vec::<u16>::new());
    if durable {
        for id in 1..=nodes {
            world.set_disk(id, disk(&mut disks));
        }
    }
    for _ in 0..rng.random_range(50..250) {
        for client in 0..clients {
            for _ in 0..rng.random_range(0..6) {
                if load.outstanding(client) < 40 {
                    load.submit(&mut world, client);
                }
            }
            if rng.random_bool(0.05) {
                load.cancel(&mut world, client);
            }
        }
        world.run_for(Duration::from_micros(rng.random_range(10..8000)));
        load.collect(&mut world);
        if durable {
            disturb(&mut disks, &mut world, nodes, &mut paused);
        }
        let running = world.running();
        if running.is_empty() {
            continue;
        }
        let victim = running[rng.random_range(0..running.len())];
        match rng.random_range(0..200) {
            0..2 if !durable && killed < (nodes - 1) / 2 => {
                world.kill(victim);
                paused.retain(|id| *id != victim);
                killed += 1;
            }
            2..8 => {
                world.pause(victim);
                paused.push(victim);
            }
            8..20 => {
                if let Some(id) = paused.pop() {
                    world.resume(id);
                }
            }
            20..26 => {
                let friend = running[rng.random_range(0..running.len())];
                let friends: &[u16] = if rng.random_bool(0.5) { &[] } else { &[friend] };
                world.isolate(victim, friends);
                cut.push(victim);
            }
            26..30 => {
                let other = running[rng.random_range(0..running.len())];
                world.block(Party::Node(victim), Party::Node(other));
            }
            30..45 => world.heal(),
            45..48 => {
                if let Some(leader) = world.leader() {
                    world.pause(leader);
                    paused.push(leader);
                }
            }
            48..50 => {
                if let Some(leader) = world.leader() {
                    world.isolate(leader, &[]);
                }
            }
            50..56 => {
                let kinds = [
                    "request",
                    "append",
                    "append_ack",
                    "heartbeat",
                    "commit_notice",
                    "bodies",
                    "vote_reply",
                    "response",
                ];
                let kind = kinds[rng.random_range(0..kinds.len())];
                let (party, outwards) = (Party::Node(victim), rng.random_bool(0.5));
                world.lose_when(move |flight| {
                    flight.what == kind && if outwards { flight.from == party } else { flight.to == party }
                });
            }
            _ => {}
        }
    }
    // Everything heals; whatever is outstanding must end, and new operations must succeed soon.
    world.heal();
    while let Some(id) = paused.pop() {
        world.resume(id);
    }
    world.set_network(NetworkConfig::default());
    if durable {
        world.set_disks(DiskConfig::default());
        // What was to die may do so any moment.
        world.run_for(Duration::from_millis(50));
        for id in 1..=nodes {
            world.kill(id);
            world.start(id);
        }
    }
    let drained = world.run_until(Duration::from_secs(10), |world| {
        load.collect(world);
        load.open.is_empty()
    });
    assert!(drained, "{summary}: operations outstanding; {world:?}");
    assert!(world.hosts_stopped().is_empty(), "{summary}: {:?}", world.hosts_stopped());
    let before = load.outcomes.get("ok").copied().unwrap_or(0);
    let now = world.now();
    load.submit(&mut world, 0);
    let done = world.run_until(Duration::from_secs(5), |world| {
        load.collect(world);
        load.open.is_empty()
    });
    assert!(done, "{summary}: the last operation did not end");
    let after = load.outcomes.get("ok").copied().unwrap_or(0);
    assert_eq!(after, before + 1, "{summary}: the last operation did not succeed; {world:?}");
    let took = world.now().since(now);
    assert!(took < Duration::from_millis(150), "{summary}: the last operation took {took:?}");
    let same = converged(&mut world);
    assert!(same, "{summary}: no convergence; {world:?}");
    load.check(&world, seed);
    if std::env::var("REVIEW_VERBOSE").is_ok() {
        eprintln!("{summary}: {:?} at {:?}", load.outcomes, world.now());
    }
}

fn sweeps(durable: bool) {
    let from: u64 = std::env::var("SWEEP_FROM").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("SWEEP_COUNT").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let mut failed = Vec::new();
    for seed in from..from + count {
        let caught = std::panic::catch_unwind(|| sweep(seed, durable));
        if caught.is_err() {
            eprintln!("FAILED seed {seed}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
}

#[test]
fn sweep_of_random_schedules() {
    sweeps(false);
}

#[test]
fn sweep_of_random_schedules_with_disks() {
    sweeps(true);
}
