//! Rolling upgrades: nodes get a new program one by one, whose service does something else for the same request; the
//! group changes over at one entry of the log, when every member can (protocol.md §7.11).

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{config_of, jitter, kind_of};
use hovercraft::message::{CommitNotice, Envelope, Message};
use hovercraft::node::StopReason;
use hovercraft::storage::Stored;
use hovercraft::{
    Class, Context, GroupId, Incarnation, LogIndex, MemberId, Membership, Node, NodeConfig, NodeId, Reply, Service,
};
use r2p2::client::{Outcome, Ticket};
use r2p2::message::write_packets;
use r2p2::wire::{Extensions, MessageType, Policy};
use r2p2::{Instant, MessageHead};
use simulator::linearizability::{BUDGET_DEFAULT, Model, check};
use simulator::registers::{Request, decode_reply};
use simulator::world::{addresses, peer_address};
use simulator::{History, Party, Registers, World, WorldConfig, history};

/// By which version each entry was executed, the same on every replica.
type Journal = Arc<Mutex<BTreeMap<LogIndex, u32>>>;

/// Registers that add twice as much since version 2.
struct Versioned {
    registers: Registers,
    journal: Journal,
}

impl Versioned {
    fn note(&self, context: &Context) {
        let before = self.journal.lock().unwrap().insert(context.index, context.version);
        assert!(before.is_none_or(|before| before == context.version), "entry {} by two versions", context.index);
    }
}

impl Service for Versioned {
    const VERSION: u32 = 2;

    fn classify(request: &[u8]) -> Class {
        Registers::classify(request)
    }

    fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply) {
        self.note(context);
        let request = match Request::decode(request) {
            Some(Request::Add(key, amount)) => Request::Add(key, amount * u64::from(context.version)).encode(),
            _ => request.clone(),
        };
        self.registers.apply(context, &request, reply);
    }

    fn query(&self, context: &Context, request: &Bytes, reply: &mut Reply) {
        self.note(context);
        self.registers.query(context, request, reply);
    }

    fn state_hash(&self) -> Option<u64> {
        self.registers.state_hash()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.registers.snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.registers.restore(snapshot)
    }
}

/// A few registers, and which version is in force: all that clients can see, in one history, so that all registers must
/// change over together.
enum Upgraded {}

const KEYS: usize = 3;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Op {
    Get(usize),
    Add(usize, u64),
    /// Once, at some moment of the upgrade.
    Switch,
}

impl Model for Upgraded {
    type Op = Op;
    type Ret = u64;
    type State = ([u64; KEYS], bool);

    fn init() -> Self::State {
        ([0; KEYS], false)
    }

    fn step(state: &Self::State, op: &Op, ret: Option<&u64>) -> Option<Self::State> {
        let (mut values, mut is_new) = *state;
        let answer = match *op {
            Op::Get(key) => values[key],
            Op::Add(key, amount) => {
                values[key] += amount * if is_new { 2 } else { 1 };
                values[key]
            }
            Op::Switch => {
                is_new = true;
                0
            }
        };
        ret.is_none_or(|ret| *ret == answer).then_some((values, is_new))
    }

    fn observes_only(op: &Op, _ret: Option<&u64>) -> bool {
        matches!(op, Op::Get(_))
    }
}

/// A cluster, its clients, and what they saw.
struct Upgrade {
    world: World<Versioned>,
    journal: Journal,
    /// What each host's program has.
    programs: BTreeMap<u16, u32>,
    history: History<Op, u64>,
    waiting: BTreeMap<(usize, Ticket), history::Ticket>,
    clients: usize,
    number: u64,
    switch: history::Ticket,
    has_switched: bool,
}

impl Upgrade {
    /// Durable nodes, all of them with the old program.
    fn new(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Self {
        println!("seed {seed}, {nodes} nodes");
        let mut config = config_of(seed, nodes);
        config.node.durable = true;
        config.node.service_version = 1;
        config.clients = 3;
        config.client.give_up = Duration::from_secs(1000);
        change(&mut config);
        let (version, clients) = (config.node.service_version, config.clients);
        let journal = Journal::default();
        let shared = Arc::clone(&journal);
        let make = move || Versioned { registers: Registers::default(), journal: Arc::clone(&shared) };
        let mut history = History::new();
        let switch = history.call(1000, Instant::ZERO, Op::Switch);
        Self {
            world: World::new(config, make),
            journal,
            programs: (1..=nodes).map(|id| (id, version)).collect(),
            history,
            waiting: BTreeMap::new(),
            clients,
            number: 0,
            switch,
            has_switched: false,
        }
    }

    /// Another program for a host, which starts at once.
    fn install(&mut self, id: u16, version: u32) {
        self.world.kill(id);
        self.world.set_service_version(id, version);
        self.programs.insert(id, version);
        self.world.start(id);
    }

    /// Runs for a while, every client with an operation under way.
    fn run_for(&mut self, time: Duration) {
        let end = self.world.now() + time;
        self.run_until(time, |upgrade| upgrade.world.now() >= end);
    }

    #[track_caller]
    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.world.now() + limit;
        while !done(self) {
            assert!(self.world.now() < end, "not within {limit:?}: {:?}", self.world);
            for client in 0..self.clients {
                if !self.waiting.keys().any(|(other, _)| *other == client) {
                    self.submit(client);
                }
            }
            let next = self.world.now() + Duration::from_millis(1);
            while self.world.step(next.min(end)) && !self.world.has_completions() {}
            self.look();
        }
    }

    fn submit(&mut self, client: usize) {
        self.number += 1;
        let key = self.number as usize % KEYS;
        let (op, request) = if self.number.is_multiple_of(4) {
            (Op::Get(key), Request::Get(key as u64))
        } else {
            (Op::Add(key, self.number), Request::Add(key as u64, self.number))
        };
        let called = self.history.call(client as u64, self.world.now(), op);
        let ticket = self.world.submit(client, kind_of(request), request.encode());
        self.waiting.insert((client, ticket), called);
    }

    /// Takes answers, and looks whether what is in force may be.
    #[track_caller]
    fn look(&mut self) {
        for client in 0..self.clients {
            for (at, completion) in self.world.completions(client) {
                let called = self.waiting.remove(&(client, completion.ticket)).expect("asked once");
                let Outcome::Ok(reply) = completion.outcome else { panic!("{completion:?}") };
                self.history.ret(called, at, decode_reply(&reply).expect("a number"));
            }
        }
        if self.has_switched {
            return;
        }
        let running = self.world.running();
        for node in running.iter().filter_map(|id| self.world.node(*id)).filter(|node| node.service_version() == 2) {
            // Those that belong to the group where it says so.
            let members = node.membership().members.keys().map(|member| member.node().0);
            let old: Vec<u16> = members.filter(|id| self.programs[id] < 2).collect();
            assert!(old.is_empty(), "version 2, and n{old:?} have the old program");
        }
        if running.iter().any(|id| self.executes_by(*id) == 2) {
            self.has_switched = true;
            self.history.ret(self.switch, self.world.now(), 0);
        }
    }

    /// The version of what a node has applied last.
    fn executes_by(&self, id: u16) -> u32 {
        let applied = self.world.applier(id).expect("it runs").applied();
        self.journal.lock().unwrap().range(..=applied).next_back().map_or(0, |(_, version)| *version)
    }

    /// Runs until everybody executes by the new version.
    #[track_caller]
    fn switched(&mut self) {
        self.run_until(Duration::from_secs(20), |upgrade| {
            let running = upgrade.world.running();
            upgrade.has_switched && running.iter().all(|id| upgrade.executes_by(*id) == 2)
        });
    }

    /// Ends the load and checks everything: one place in the log, and an order that explains what clients saw.
    #[track_caller]
    fn finish(mut self) {
        let end = self.world.now() + Duration::from_secs(20);
        while !self.waiting.is_empty() {
            assert!(self.world.step(end), "not answered: {:?}", self.waiting);
            self.look();
        }
        let together = self.world.run_until(Duration::from_secs(20), |world| {
            let ids = world.running();
            let view = |id: &u16| world.applier(*id).map(|applier| (applier.applied(), applier.state_hash()));
            ids.iter().all(|id| view(id) == view(&ids[0]))
        });
        assert!(together, "{:?}", self.world);
        assert_eq!(self.world.hosts_stopped(), [0_u16; 0]);
        let versions: Vec<u32> = self.journal.lock().unwrap().values().copied().collect();
        assert!(versions.is_sorted(), "it changes over once");
        if !self.has_switched {
            self.history.not_executed(self.switch);
        }
        let report = check::<Upgraded>(&self.history, BUDGET_DEFAULT);
        assert!(report.verdict.is_linearizable(), "{}", report.verdict);
    }
}

const A_WHILE: Duration = Duration::from_millis(40);

fn bad_network(config: &mut WorldConfig) {
    config.network.loss = 0.05;
    config.network.duplicate = 0.05;
    config.network.reorder = 0.1;
    config.network.latency = jitter(300);
}

fn short_log(config: &mut WorldConfig) {
    let limits = &mut config.node.limits;
    limits.retention.entries_max = 20;
    limits.snapshots.after_entries = 50;
    limits.snapshots.retry_after = Duration::from_millis(50);
}

/// Everybody gets the new program, one after the other, while messages are lost and nodes crash.
fn roll(seed: u64) {
    let nodes = if seed.is_multiple_of(3) { 5 } else { 3 };
    let mut upgrade = Upgrade::new(seed, nodes, |config| {
        bad_network(config);
        if seed.is_multiple_of(2) {
            short_log(config);
        }
    });
    upgrade.run_for(A_WHILE);
    let first = seed as u16 % nodes;
    for step in 0..nodes {
        let id = (first + step) % nodes + 1;
        upgrade.install(id, 2);
        upgrade.run_for(A_WHILE);
        // Somebody crashes in the middle of what it does, and comes back with the program it had.
        let victim = (id + seed as u16) % nodes + 1;
        upgrade.world.crash_after(victim, 20 + seed as u32 % 17);
        upgrade.run_for(A_WHILE);
        upgrade.world.spare(victim);
        if upgrade.world.node(victim).is_none() {
            upgrade.world.start(victim);
        }
        assert!(step + 1 == nodes || !upgrade.has_switched);
        upgrade.run_for(A_WHILE);
    }
    upgrade.switched();
    upgrade.run_for(A_WHILE);
    upgrade.finish();
}

#[test]
fn a_rolling_upgrade_changes_over_at_one_entry_when_everybody_can() {
    (0..30).for_each(roll);
}

#[test]
fn a_group_begins_with_its_first_leaders_version() {
    for version in [1, 2] {
        let mut upgrade = Upgrade::new(1, 3, |config| config.node.service_version = version);
        upgrade.world.elect();
        upgrade.run_for(A_WHILE);
        assert!(upgrade.journal.lock().unwrap().values().all(|by| *by == version));
        assert!(upgrade.journal.lock().unwrap().len() > 10);
        upgrade.finish();
    }
}

/// Upgrades everybody, and goes on until the change is behind them.
fn upgraded(seed: u64, change: impl FnOnce(&mut WorldConfig)) -> Upgrade {
    let mut upgrade = Upgrade::new(seed, 3, change);
    upgrade.run_for(A_WHILE);
    for id in 1..=3 {
        upgrade.install(id, 2);
        upgrade.run_for(A_WHILE);
    }
    upgrade.switched();
    upgrade
}

/// From its journal or from its snapshot: an old program does not go on.
fn an_old_program_stops(seed: u64, change: impl FnOnce(&mut WorldConfig)) {
    let mut upgrade = upgraded(seed, change);
    upgrade.run_for(10 * A_WHILE);
    let old = upgrade.world.leader().expect("somebody leads") % 3 + 1;
    upgrade.install(old, 1);
    upgrade.run_until(Duration::from_secs(5), |upgrade| upgrade.world.stopped(old).is_some());
    assert_eq!(upgrade.world.stopped(old), Some(&StopReason::ServiceTooOld { has: 1, needed: 2 }));
    // The new one goes on where that one was.
    upgrade.install(old, 2);
    upgrade.run_for(A_WHILE);
    upgrade.finish();
}

#[test]
fn an_old_program_stops_at_the_entry_that_it_cannot_execute() {
    (0..5).for_each(|seed| an_old_program_stops(seed, |_| {}));
}

#[test]
fn an_old_program_stops_at_a_snapshot_that_it_cannot_execute() {
    (0..5).for_each(|seed| an_old_program_stops(seed, short_log));
}

/// Everybody begins from a snapshot behind the change; nobody has the entry that says so any more.
fn snapshots_say(seed: u64) {
    let mut upgrade = upgraded(seed, short_log);
    upgrade.run_for(20 * A_WHILE);
    let change = *upgrade.journal.lock().unwrap().iter().find(|(_, version)| **version == 2).expect("it has changed").0;
    for id in 1..=3 {
        let first = upgrade.world.node(id).expect("it runs").consensus().log().first();
        assert!(first > change, "n{id} keeps the entry: {first}, {change}");
        upgrade.world.kill(id);
    }
    for id in 1..=3 {
        upgrade.world.start(id);
        assert_eq!(upgrade.world.node(id).expect("it runs").service_version(), 2);
    }
    upgrade.run_for(A_WHILE);
    // One that has nothing gets the version with the snapshot that it gets.
    let behind = upgrade.world.elect() % 3 + 1;
    upgrade.world.isolate(behind, &[]);
    upgrade.run_for(20 * A_WHILE);
    upgrade.world.heal();
    upgrade.run_until(Duration::from_secs(5), |upgrade| {
        upgrade.world.node(behind).is_some_and(|node| node.counters().snapshots_installed > 0)
    });
    assert_eq!(upgrade.world.node(behind).expect("it runs").service_version(), 2);
    let proposed = |id| upgrade.world.node(id).map_or(0, |node| node.counters().versions_proposed);
    assert_eq!((1..=3).map(proposed).sum::<u64>(), 0, "nobody has to say it again");
    upgrade.finish();
}

#[test]
fn a_snapshot_says_which_version_is_in_force() {
    (0..5).for_each(snapshots_say);
}

#[test]
fn a_member_that_is_down_delays_the_change_until_it_is_removed() {
    for seed in 0..5 {
        let mut upgrade = Upgrade::new(seed, 3, |_| {});
        upgrade.run_for(A_WHILE);
        upgrade.world.kill(3);
        for id in 1..=2 {
            upgrade.install(id, 2);
            upgrade.run_until(Duration::from_secs(5), |upgrade| upgrade.world.leader().is_some());
            upgrade.run_for(A_WHILE);
        }
        upgrade.run_for(Duration::from_secs(2));
        assert!(!upgrade.has_switched, "n3 may come back with the old program");
        upgrade.run_until(Duration::from_secs(5), |upgrade| {
            _ = upgrade.world.remove(3);
            upgrade.world.members_settled() && upgrade.world.members().is_some_and(|members| members.members.len() == 2)
        });
        upgrade.switched();
        upgrade.run_for(A_WHILE);
        upgrade.finish();
    }
}

/// The entry that says so is in one log only, and another leader, which has not heard of it, orders other things there.
#[test]
fn a_change_that_was_not_committed_did_not_happen() {
    for seed in 0..10 {
        let mut upgrade = Upgrade::new(seed, 3, |_| {});
        upgrade.run_for(A_WHILE);
        let leader = upgrade.world.leader().expect("somebody leads");
        let last = leader % 3 + 1;
        let other = 6 - leader - last;
        upgrade.install(other, 2);
        upgrade.run_for(A_WHILE);
        upgrade.install(leader, 2);
        upgrade.run_for(A_WHILE);
        upgrade.run_until(Duration::from_secs(5), |upgrade| {
            upgrade.world.leader().is_some_and(|id| id != last) || {
                _ = upgrade.world.hand_leadership(Some(leader));
                false
            }
        });
        let leader = upgrade.world.leader().expect("just seen");
        // From here on it is heard, but nothing that it orders.
        let rule = move |flight: &simulator::Flight<'_>| {
            flight.from == Party::Node(leader) && matches!(flight.what, "append" | "bodies" | "commit notice")
        };
        upgrade.world.lose_when(rule);
        upgrade.install(last, 2);
        upgrade.run_until(Duration::from_secs(5), |upgrade| {
            upgrade.world.node(leader).is_some_and(|node| node.service_version() == 2)
        });
        assert!(!upgrade.has_switched);
        upgrade.world.isolate(leader, &[]);
        upgrade.run_until(Duration::from_secs(5), |upgrade| upgrade.world.leader().is_some_and(|id| id != leader));
        upgrade.run_for(Duration::from_millis(500));
        assert!(!upgrade.has_switched, "the others have not heard whether the old leader can");
        let by = |id: u16| upgrade.world.node(id).map(Node::service_version);
        assert_eq!((by(leader), by(last)), (Some(2), Some(1)));
        upgrade.world.heal();
        upgrade.switched();
        let replaced = upgrade.world.node(leader).expect("it runs").counters().entries_replaced;
        assert!(replaced > 0, "its entry was replaced");
        upgrade.run_for(A_WHILE);
        upgrade.finish();
    }
}

fn member(id: u16) -> MemberId {
    MemberId::new(NodeId(id), Incarnation(1))
}

/// Counts warnings that say that a peer is not understood.
struct Warnings(Arc<AtomicU64>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a AtomicU64);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let is_it = field.name() == "message" && format!("{value:?}").contains("a peer is not understood");
                self.0.fetch_add(u64::from(is_it), Ordering::Relaxed);
            }
        }
        event.record(&mut Text(&self.0));
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Programs whose messages are of different versions do not work together: whoever has mixed them finds out by one line
/// for each peer, and by a counter.
#[test]
fn a_peer_whose_messages_are_of_another_version_is_made_known_once() {
    let membership = Membership::of_voters((1..=3).map(|id| (member(id), addresses(id))));
    let config = NodeConfig::new(member(1), membership);
    let mut node = Node::restart(Instant::ZERO, config, Registers::classify, Stored::default()).expect("a new node");
    let warnings = Arc::new(AtomicU64::new(0));
    let guard = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
    let mut said = Vec::new();
    for (from, version) in [(2, 2), (2, 2), (3, 2), (2, 2), (3, 3), (9, 2)] {
        let envelope = Envelope { group: GroupId(0), from: member(from), life: 1, term: 1 };
        let mut body = Message::CommitNotice(CommitNotice { commit: 0 }).emit(&envelope);
        body[0] = version;
        let (kind, extensions) = (MessageType::RaftMessage, Extensions::default());
        let head = MessageHead { kind, policy: Policy::Fixed, rid: 1, extensions };
        write_packets(&head, &body, 1472, &mut |packet| {
            node.handle_peer_packet(Instant::ZERO, peer_address(from), &packet);
        })
        .expect("it is short");
        said.push(warnings.load(Ordering::Relaxed));
    }
    drop(guard);
    assert_eq!(said, [1, 1, 2, 2, 3, 3], "n9 is a stranger");
    let counters = node.counters();
    assert_eq!((counters.peer_messages_other_version, counters.peer_messages_malformed), (6, 0));
}

#[cfg(feature = "mutations")]
mod mutations {
    use hovercraft::mutation::{self, Mutation};

    use super::*;

    /// Whether a test notices that something is wrong.
    fn is_found(mutation: Mutation, test: impl Fn(u64) + std::panic::UnwindSafe) -> bool {
        mutation::set(Some(mutation));
        let found = std::panic::catch_unwind(|| (0..10).for_each(test)).is_err();
        mutation::set(None);
        found
    }

    #[test]
    fn every_mistake_about_versions_is_found() {
        assert!(is_found(Mutation::VersionBeforeAllCan, roll));
        assert!(is_found(Mutation::VersionOfProgram, roll));
        assert!(is_found(Mutation::SnapshotWithoutVersion, snapshots_say));
    }
}
