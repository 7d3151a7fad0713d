//! One run in which everything that can be drawn is drawn: cluster, limits, workload, faults ([`Options`]). First faults
//! come and only safety counts; then they stop, and a majority must come together and answer everybody.

mod case;
pub mod coverage;
mod draw;
mod events;
pub mod faults;
mod injector;
mod journal;
pub mod model;
#[cfg(feature = "mutations")]
pub mod mutants;
mod network;
mod operator;
mod options;
pub mod overrides;
mod panics;
pub mod shrink;
mod verdict;
mod workload;

use std::collections::BTreeSet;
use std::time::Duration;

use hovercraft::{Mode, Service, Term};
use multicast::gateway::Gateway;
use r2p2::Instant;

pub use case::Case;
pub use faults::{Fault, FaultId, FaultKind};
pub use options::{GatewayDraw, Options};
pub use overrides::Overrides;
pub use verdict::{Report, Sort, Verdict};

use crate::checkers::Violation;
use crate::linearizability::{self, Verdict as Linearizability};
use crate::recording::{Recording, RecordingConfig};
use crate::streams::scramble;
use crate::{Party, World, WorldConfig};
use events::Watch;
use injector::Injector;
use journal::{Journal, Witnessed};
use model::RegisterModel;
use workload::Workload;

/// How long a healed majority may take to come together and to answer everybody.
pub const HEAL_BOUND: Duration = Duration::from_secs(20);

/// Operations that each client begins after the faults have stopped.
const OPERATIONS_AFTER: usize = 3;

/// How often convergence is looked at, and the longest wait between two looks at the clients.
const LOOK_EVERY: Duration = Duration::from_millis(2);

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
    let journal = Journal::default();
    let shared = journal.clone();
    run_service(options, recording, &journal, move || Witnessed::new(shared.clone()))
}

/// The same with any service that answers like [`Registers`](crate::Registers), and keeps the journal if it can.
fn run_service<S: Service>(
    options: &Options,
    recording: Option<RecordingConfig>,
    journal: &Journal,
    make_service: impl Fn() -> S + 'static,
) -> (Report, Option<Recording>) {
    let mut slot = None;
    let mut workload = Workload::new(options);
    let watch = Watch::default();
    let verdict = panics::catch(|| {
        let config = WorldConfig { recording, ..options.world() };
        let world = slot.insert(World::new(config, make_service));
        let waits_for = watch.over(|| play(options, world, &mut workload, &watch));
        judge(world, &workload, journal, &watch, waits_for)
    });
    let verdict = verdict.unwrap_or_else(Verdict::Panic);
    let mut world: Option<World<S>> = slot;
    let recording = world.as_mut().and_then(World::take_recording);
    let world = world.as_ref();
    let report = Report {
        seed: options.seed,
        mode: options.mode,
        verdict,
        faults: world.map(World::faults).unwrap_or_default(),
        traffic: world.map(|world| world.traffic().clone()).unwrap_or_default(),
        tally: world.map(World::tally).unwrap_or_default(),
        delivered: world.map_or(0, World::delivered),
        trace: world.map_or(0, World::trace),
        time: world.map_or(Duration::ZERO, |world| world.now().since(Instant::ZERO)),
        operations: workload.histories.values().map(|history| history.operations().count() as u64).sum(),
        answered: workload.answered,
        recent: world.map_or(Vec::new(), |world| world.recent().map(ToString::to_string).collect()),
    };
    (report, recording)
}

/// Plays both phases; what did not recover.
fn play<S: Service>(options: &Options, world: &mut World<S>, workload: &mut Workload, watch: &Watch) -> Option<String> {
    let mut injector = Injector::new(options, world);
    let end = world.now() + options.fault_time;
    let goes_on = |world: &World<S>| world.violation().is_none() && watch.first().is_none();
    while world.now() < end && goes_on(world) {
        injector.act(options, world);
        workload.act(options, world);
        let next = end.min(injector.next()).min(workload.next(options)).min(world.now() + LOOK_EVERY);
        pass(world, next);
    }
    injector.heal(options, world);
    workload.finish(world, OPERATIONS_AFTER);
    let end = world.now() + HEAL_BOUND;
    let (mut waits_for, mut steady) = (None, Steady::default());
    while goes_on(world) {
        injector.act(options, world);
        workload.act(options, world);
        if let Some(what) = steady.look(world) {
            return Some(what);
        }
        waits_for = unfinished(options, world, workload, &injector);
        if waits_for.is_none() || world.now() >= end {
            break;
        }
        let next = end.min(workload.next(options)).min(world.now() + LOOK_EVERY);
        pass(world, next);
    }
    waits_for.map(|what| format!("{what} {HEAL_BOUND:?} after the last fault"))
}

/// Lets time pass until `at`, or until somebody has an answer.
fn pass<S: Service>(world: &mut World<S>, at: Instant) {
    let at = at.max(world.now() + Duration::from_nanos(1));
    while world.step(at) && !world.has_completions() {}
}

/// How long a request may wait at a leader that nothing disturbs and that has nothing else to do.
const WAIT_MAX: Duration = Duration::from_millis(400);

/// Since when a leader leads without faults, with everything executed that is in its log.
#[derive(Debug, Default)]
struct Steady {
    leader: Option<(u16, Term)>,
    since: Instant,
}

impl Steady {
    /// A leader that nothing disturbs and that waits for nothing, neither a majority nor a replier, orders what waits,
    /// what came before its election included (protocol.md §7.3); clients would repeat it in the end, so that nobody
    /// else would notice. Says what waits too long.
    fn look<S: Service>(&mut self, world: &World<S>) -> Option<String> {
        let leader = world.leader()?;
        let node = world.node(leader)?;
        let now = Some((leader, node.consensus().term()));
        // By the leader's own clock: what waits arrived by that.
        let time = world.local_now(Party::Node(leader));
        if self.leader != now || node.applied() < node.consensus().log().last() {
            *self = Self { leader: now, since: time };
        }
        let oldest = node.unordered().in_arrival_order().next()?;
        let waits = time.since(oldest.at.max(self.since));
        (waits >= WAIT_MAX).then(|| format!("{:?} leads and has not ordered {oldest:?} for {waits:?}", node.me()))
    }
}

/// What is still to happen after the faults have stopped.
fn unfinished<S: Service>(
    options: &Options,
    world: &World<S>,
    workload: &Workload,
    injector: &Injector,
) -> Option<String> {
    if workload.outstanding() > 0 || workload.next(options) < Instant::FAR_FUTURE {
        return Some(format!("{} operations have not ended", workload.outstanding()));
    }
    if let Some(out) = world.gateway().map(Gateway::in_flight).filter(|out| *out > 0) {
        return Some(format!("{out} credits have not come back to the gateway"));
    }
    if options.mode == Mode::Unreplicated {
        return None;
    }
    let Some(leader) = world.leader().and_then(|id| world.node(id)) else {
        return Some("nobody leads".to_owned());
    };
    if let Some(what) = injector.unfinished(world) {
        return Some(what);
    }
    let members = leader.committed_membership();
    let last = leader.consensus().log().last();
    if leader.consensus().commit() != last {
        return Some(format!("{:?} has committed {} of {last} entries", leader.me(), leader.consensus().commit()));
    }
    let status = leader.status(world.local_now(Party::Node(leader.me().node().0)));
    // Who is further behind than the log is kept needs a snapshot, which does not exist yet.
    let first = leader.consensus().log().first();
    let behind = |id: u16| world.node(id).is_some_and(|node| node.consensus().commit() + 1 < first);
    let mut together = BTreeSet::new();
    for id in world.running() {
        let (Some(node), false) = (world.node(id), behind(id)) else { continue };
        if members.get(node.me()).is_none() {
            // Where nobody is whom it knows it cannot be told, unless the group's messages reach it.
            let places: BTreeSet<_> = members.members.values().map(|member| member.addresses.peers).collect();
            if !node.membership().members.values().any(|member| places.contains(&member.addresses.peers)) {
                continue;
            }
            return Some(format!("{:?} does not belong to the group and has not stopped", node.me()));
        }
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
        together.insert(node.me());
    }
    (!members.is_quorum(&together)).then(|| format!("only {together:?} of {:?} are together", members.members.keys()))
}

fn judge<S: Service>(
    world: &World<S>,
    workload: &Workload,
    journal: &Journal,
    watch: &Watch,
    waits_for: Option<String>,
) -> Verdict {
    if let Some(violation) = world.violation() {
        return Verdict::Safety(violation.clone());
    }
    if let Some(what) = watch.first() {
        return Verdict::Safety(Violation::ErrorEvent { what });
    }
    if let Some(nonsense) = &workload.nonsense {
        return Verdict::Safety(Violation::Nonsense { what: nonsense.clone() });
    }
    let mut undecided = None;
    for (&register, history) in &workload.histories {
        let (order, budget) = (workload.order(register, journal), linearizability::BUDGET_DEFAULT);
        let verdict = linearizability::check_in_order::<RegisterModel>(history, &order, budget).verdict;
        match verdict {
            Linearizability::Linearizable => {}
            Linearizability::NotLinearizable(_) => {
                return Verdict::Safety(Violation::NotLinearizable { register, verdict: verdict.to_string() });
            }
            Linearizability::Undecided(_) => undecided = Some(format!("register {register}: {verdict}")),
        }
    }
    // Who does not belong to the group has reason to.
    let is_member = |id: &u16| match (world.members(), world.member(*id)) {
        (Some(members), Some(me)) => members.get(me).is_some(),
        _ => true,
    };
    let stopped: Vec<u16> = world.hosts_stopped().into_iter().filter(is_member).collect();
    if !stopped.is_empty() {
        return Verdict::Liveness(format!("nodes {stopped:?} have stopped by themselves"));
    }
    if let Some(what) = waits_for {
        return Verdict::Liveness(what);
    }
    undecided.map_or(Verdict::Clean, Verdict::Undecided)
}

/// The seed of the run of this number in a swarm.
pub fn seed_of(swarm: u64, number: u64) -> u64 {
    scramble(swarm.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hovercraft::{Class, Context, Reply};

    use super::*;
    use crate::Registers;

    /// Registers that complain about what they execute after a while.
    #[derive(Default)]
    struct Complaining(Registers);

    impl Service for Complaining {
        fn classify(request: &[u8]) -> Class {
            Registers::classify(request)
        }

        fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply) {
            if context.index >= 20 {
                tracing::error!(index = context.index, "too much to do");
            }
            self.0.apply(context, request, reply);
        }

        fn query(&self, context: &Context, request: &Bytes, reply: &mut Reply) {
            self.0.query(context, request, reply);
        }

        fn snapshot(&self) -> Vec<u8> {
            self.0.snapshot()
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            self.0.restore(snapshot)
        }
    }

    #[test]
    fn a_logged_error_fails_the_run_at_once() {
        let options = Options::draw(seed_of(1, 1));
        let (report, _) = run_service(&options, None, &Journal::default(), Complaining::default);
        let Verdict::Safety(Violation::ErrorEvent { what }) = &report.verdict else { panic!("{}", report.verdict) };
        assert!(what.contains("too much to do") && what.contains("index=2"), "{what}");
        assert!(report.time < run_options(&options).time, "it went on");
    }

    #[test]
    fn the_order_of_the_log_proves_histories() {
        for number in 0..10 {
            let options = Options::draw(seed_of(2, number));
            let journal = Journal::default();
            let shared = journal.clone();
            let mut workload = Workload::new(&options);
            let mut world = World::new(options.world(), move || Witnessed::new(shared.clone()));
            assert_eq!(play(&options, &mut world, &mut workload, &Watch::default()), None);
            for (register, history) in &workload.histories {
                let order = workload.order(*register, &journal);
                let report = linearizability::check_in_order::<RegisterModel>(history, &order, 0);
                assert!(report.verdict.is_linearizable(), "seed {}: {}", options.seed, report.verdict);
            }
        }
    }
}
