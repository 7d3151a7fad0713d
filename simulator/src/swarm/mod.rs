//! One run in which everything that can be drawn is drawn: cluster, limits, workload, faults ([`Options`]). First faults
//! come and only safety counts; then they stop, and a majority must come together and answer everybody.

mod faults;
pub mod model;
#[cfg(feature = "mutations")]
pub mod mutants;
mod network;
mod options;
mod panics;
mod workload;

use std::fmt;
use std::time::Duration;

use hovercraft::{Service, Term};
use r2p2::Instant;

pub use options::{Options, Partition};

use crate::checkers::Violation;
use crate::linearizability::{self, Verdict as Linearizability};
use crate::recording::{Recording, RecordingConfig};
use crate::world::Faults;
use crate::{NetworkConfig, Registers, World, WorldConfig};
use faults::Injector;
use model::RegisterModel;
use workload::Workload;

/// How long a healed majority may take to come together and to answer everybody.
pub const HEAL_BOUND: Duration = Duration::from_secs(20);

/// Operations that each client begins after the faults have stopped.
const OPERATIONS_AFTER: usize = 3;

/// How often convergence is looked at, and the longest wait between two looks at the clients.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was wrong.
    Clean,
    /// An invariant did not hold.
    Safety(Violation),
    /// The faults have stopped, and the system did not recover.
    Liveness(String),
    /// Something panicked.
    Panic(String),
    /// A history was too hard to check: no statement, and no pass.
    Undecided(String),
}

impl Verdict {
    /// Its name, in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Safety(_) => "safety",
            Self::Liveness(_) => "liveness",
            Self::Panic(_) => "panic",
            Self::Undecided(_) => "undecided",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => write!(f, "clean"),
            Self::Safety(violation) => write!(f, "safety violation: {violation}"),
            Self::Liveness(what) => write!(f, "liveness violation: {what}"),
            Self::Panic(message) => write!(f, "panic: {message}"),
            Self::Undecided(what) => write!(f, "undecided: {what}"),
        }
    }
}

/// What there is to say about a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// What was done to it.
    pub faults: Faults,
    /// Datagrams delivered.
    pub delivered: u64,
    /// A hash of everything delivered, in order.
    pub trace: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Operations that may have been executed.
    pub operations: u64,
    /// Operations answered.
    pub answered: u64,
    /// Elections won on nodes that still run.
    pub elections: u64,
    /// What happened last.
    pub recent: Vec<String>,
}

/// Runs the run that `seed` stands for.
pub fn run(seed: u64) -> Report {
    run_options(&Options::draw(seed))
}

/// Runs a run.
pub fn run_options(options: &Options) -> Report {
    run_recorded(options, None).0
}

/// The same, and records it if asked to. There is no recording of a run that panics before its world exists.
pub fn run_recorded(options: &Options, recording: Option<RecordingConfig>) -> (Report, Option<Recording>) {
    let mut slot = None;
    let mut workload = Workload::new(options);
    let verdict = panics::catch(|| {
        let config = WorldConfig { recording, ..options.world() };
        let world = slot.insert(World::new(config, Registers::default));
        play(options, world, &mut workload)
    });
    let verdict = verdict.unwrap_or_else(Verdict::Panic);
    let world: Option<World<Registers>> = slot;
    let elections = |world: &World<Registers>| {
        world.running().iter().filter_map(|id| Some(world.node(*id)?.counters().elections_won)).sum()
    };
    let mut world = world;
    let recording = world.as_mut().and_then(World::take_recording);
    let world = world.as_ref();
    let report = Report {
        seed: options.seed,
        verdict,
        faults: world.map(World::faults).unwrap_or_default(),
        delivered: world.map_or(0, World::delivered),
        trace: world.map_or(0, World::trace),
        time: world.map_or(Duration::ZERO, |world| world.now().since(Instant::ZERO)),
        operations: workload.histories.values().map(|history| history.operations().count() as u64).sum(),
        answered: workload.answered,
        elections: world.map_or(0, elections),
        recent: world.map_or(Vec::new(), |world| world.recent().map(ToString::to_string).collect()),
    };
    (report, recording)
}

fn play(options: &Options, world: &mut World<Registers>, workload: &mut Workload) -> Verdict {
    let mut injector = Injector::new(options, world);
    let end = world.now() + options.fault_time;
    while world.now() < end && world.violation().is_none() {
        injector.act(options, world);
        workload.act(options, world);
        let next = end.min(injector.next()).min(workload.next(options)).min(world.now() + LOOK_EVERY);
        pass(world, next);
    }
    heal(world);
    workload.finish(world, OPERATIONS_AFTER);
    let end = world.now() + HEAL_BOUND;
    let (mut waits_for, mut steady) = (None, Steady::default());
    while world.violation().is_none() {
        workload.act(options, world);
        if let Some(what) = steady.look(world) {
            return Verdict::Liveness(what);
        }
        waits_for = unfinished(options, world, workload);
        if waits_for.is_none() || world.now() >= end {
            break;
        }
        let next = end.min(workload.next(options)).min(world.now() + LOOK_EVERY);
        pass(world, next);
    }
    judge(world, workload, waits_for)
}

/// Lets time pass until `at`, or until somebody has an answer.
fn pass<S: Service>(world: &mut World<S>, at: Instant) {
    let at = at.max(world.now() + Duration::from_nanos(1));
    while world.step(at) && !world.has_completions() {}
}

fn heal(world: &mut World<Registers>) {
    world.heal();
    world.set_network(NetworkConfig::default());
    for id in world.running() {
        world.set_processing(id, None);
        world.resume(id);
    }
}

/// How long a request may wait at a leader that nothing disturbs.
const WAIT_MAX: Duration = Duration::from_millis(400);

/// Since when a leader leads without faults.
#[derive(Debug, Default)]
struct Steady {
    leader: Option<(u16, Term)>,
    since: Instant,
}

impl Steady {
    /// A leader that nothing disturbs orders what waits, what came before its election included (protocol.md §7.3);
    /// clients would repeat it in the end, so that nobody else would notice. Says what waits too long.
    fn look<S: Service>(&mut self, world: &World<S>) -> Option<String> {
        let leader = world.leader()?;
        let node = world.node(leader)?;
        let now = Some((leader, node.consensus().term()));
        if self.leader != now {
            *self = Self { leader: now, since: world.now() };
        }
        let oldest = node.unordered().in_arrival_order().next()?;
        let waits = world.now().since(oldest.at.max(self.since));
        (waits >= WAIT_MAX).then(|| format!("{:?} leads and has not ordered {oldest:?} for {waits:?}", node.me()))
    }
}

/// What is still to happen after the faults have stopped.
fn unfinished(options: &Options, world: &World<Registers>, workload: &Workload) -> Option<String> {
    if workload.outstanding() > 0 || workload.next(options) < Instant::FAR_FUTURE {
        return Some(format!("{} operations have not ended", workload.outstanding()));
    }
    let Some(leader) = world.leader().and_then(|id| world.node(id)) else {
        return Some("nobody leads".to_owned());
    };
    let last = leader.consensus().log().last();
    if leader.consensus().commit() != last {
        return Some(format!("{:?} has committed {} of {last} entries", leader.me(), leader.consensus().commit()));
    }
    let status = leader.status(world.now());
    // Who is further behind than the log is kept needs a snapshot, which does not exist yet.
    let first = leader.consensus().log().first();
    let behind = |id: u16| world.node(id).is_some_and(|node| node.consensus().commit() + 1 < first);
    let mut together = 0;
    for id in world.running() {
        let (Some(node), false) = (world.node(id), behind(id)) else { continue };
        if node.applied() != last {
            let log = node.consensus().log();
            let peer = status.peers.iter().find(|peer| peer.node == u32::from(id));
            return Some(format!(
                "{:?} has applied {} of {last} entries (committed {}, log {}..={}; its leader {:?}, log from {}, sees \
                 {peer:?})",
                node.me(),
                node.applied(),
                node.consensus().commit(),
                log.first(),
                log.last(),
                leader.me(),
                first
            ));
        }
        together += 1;
    }
    let majority = options.nodes / 2 + 1;
    (together < majority).then(|| format!("{together} of {} nodes are together", options.nodes))
}

fn judge(world: &World<Registers>, workload: &Workload, waits_for: Option<String>) -> Verdict {
    if let Some(violation) = world.violation() {
        return Verdict::Safety(violation.clone());
    }
    if let Some(nonsense) = &workload.nonsense {
        return Verdict::Safety(Violation::Nonsense { what: nonsense.clone() });
    }
    let mut undecided = None;
    for (&register, history) in &workload.histories {
        let verdict = linearizability::check::<RegisterModel>(history, linearizability::BUDGET_DEFAULT).verdict;
        match verdict {
            Linearizability::Linearizable => {}
            Linearizability::NotLinearizable(_) => {
                return Verdict::Safety(Violation::NotLinearizable { register, verdict: verdict.to_string() });
            }
            Linearizability::Undecided(_) => undecided = Some(format!("register {register}: {verdict}")),
        }
    }
    let stopped = world.hosts_stopped();
    if !stopped.is_empty() {
        return Verdict::Liveness(format!("nodes {stopped:?} have stopped by themselves"));
    }
    if let Some(what) = waits_for {
        return Verdict::Liveness(format!("{what} {HEAL_BOUND:?} after the last fault"));
    }
    undecided.map_or(Verdict::Clean, Verdict::Undecided)
}

/// The seed of the run of this number in a swarm.
pub fn seed_of(swarm: u64, number: u64) -> u64 {
    let mut z = swarm.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
