//! `hovercraft demo`: a cluster, a load, a murder, an inquest.

mod check;
mod load;
mod report;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hovercraft::cluster::FanOut;
use r2p2::Instant;
use r2p2::udp::Clock;

use self::check::{KvHistory, Measures};
use self::load::{Recording, Shared};
use self::report::{Replies, Report};
use crate::local::{self, LocalCluster};
use crate::node::{App, ServiceArgs};
use crate::output::{Failure, grouped, say, tell};
use crate::place::Place;
use crate::processes::Events;
use crate::status::counter;
use crate::up::{FanOutArg, ModeArg};

/// See it work: a cluster on this machine, its leader killed under load, everything checked.
///
/// Starts node processes and an aggregator, lets concurrent clients work on a replicated key-value store, kills first the
/// aggregator and then the leader with kill -9 in the middle, starts another aggregator, and then checks what the clients saw: is there one order of all operations that explains every answer
/// (linearizability), and was every acknowledged increment executed exactly once?
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code 0 only if everything holds. Needs no privileges and leaves nothing but its report.\n\n\
    Examples:\n  \
        hovercraft demo\n  \
        hovercraft demo --nodes 5 --drop 1%      with one in a hundred datagrams thrown away\n  \
        hovercraft demo --mode hovercraft        without an aggregator\n  \
        hovercraft demo --mode raft              the baseline: everything through the leader\n  \
        hovercraft demo --json | tail -1 | jq .failover_ms"
)]
pub(crate) struct Args {
    /// How many nodes: at least 3, so that one may die.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=9))]
    nodes: u16,
    /// How requests become replicated.
    #[arg(long, value_enum, default_value_t = ModeArg::HovercraftPlusPlus)]
    mode: ModeArg,
    /// How one request reaches all nodes [default: multicast, or unicast where that does not work].
    #[arg(long, value_enum)]
    fan_out: Option<FanOutArg>,
    /// For how long to put load on the cluster.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=300))]
    seconds: u16,
    /// Concurrent clients.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Operations each client keeps in flight.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    in_flight: u16,
    /// Throw away this share of all datagrams that nodes receive (1%).
    #[arg(long, value_name = "SHARE", value_parser = crate::parse_share, default_value = "0")]
    drop: f64,
    /// Where to put the report [default: a new directory under the system's temporary directory].
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
    /// Print one JSON object on stdout, and the story on stderr.
    #[arg(long)]
    json: bool,
}

/// For how long the cluster may be without service before the demo calls it a failure.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.mode == ModeArg::Unreplicated {
        return Err(Failure::usage("the demo kills a node, and mode unreplicated has only one")
            .todo("Choose --mode hovercraft or --mode raft."));
    }
    let story = Story { clock: Clock::new(), to_stderr: args.json };
    let events = Events::listen()?;
    let (mut config, ports, note) = local::new_config(usize::from(args.nodes), args.fan_out.map(FanOut::from))?;
    if let Some(note) = note {
        story.tell(format_args!("note: {note}"));
    }
    config.mode = args.mode.into();
    config.faults.loss = args.drop;
    story.tell(format_args!("starting {} node processes, mode {}", args.nodes, config.mode.name()));
    let service = ServiceArgs { app: App::Kv };
    let mut cluster = LocalCluster::start(config, Some(ports), Place::temporary()?, &service.to_arguments())?;
    let Some(leader) = cluster.wait_ready(&events)? else { return Err(interrupted()) };
    story.tell(format_args!("ready: n{leader} leads"));

    let mut run = match Run::under_load(args, &mut cluster, &events, &story) {
        Ok(Some(run)) => run,
        Ok(None) => return Err(interrupted()),
        Err(failure) => return Err(keep_logs(args, &cluster, failure)),
    };
    let mut report = run.examine(args, &mut cluster, &story)?;
    cluster.stop(&events);
    let directory = args.report.clone().unwrap_or_else(local::report_directory);
    let html = report.write(&directory).map_err(|error| {
        Failure::new(format!("cannot write the report to {}: {error}", directory.display()))
            .todo("Choose another directory: --report DIRECTORY")
    });
    if !report.passed {
        copy_logs(&cluster, &directory);
    }
    drop(cluster);
    summarize(&report, &story);
    let html = html?;
    story.tell(format_args!("report  {}", html.display()));
    if args.json {
        say(report.to_json());
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells what happens, with the time.
struct Story {
    clock: Clock,
    to_stderr: bool,
}

impl Story {
    fn tell(&self, line: impl Display) {
        let seconds = self.clock.now().since(Instant::ZERO).as_secs_f64();
        self.plain(format_args!("{seconds:6.2} s  {line}"));
    }

    fn plain(&self, line: impl Display) {
        if self.to_stderr { tell(line) } else { say(line) }
    }
}

/// A load that is over.
struct Run {
    shared: Shared,
    options: hovercraft::client::ClientOptions,
    history: KvHistory,
    replies: BTreeMap<std::net::SocketAddrV4, u64>,
    retransmitted: u64,
    wrong: Option<String>,
    victim: u16,
    killed: Instant,
    dead: Instant,
}

impl Run {
    /// Puts load on the cluster and kills its leader halfway. `None` if this program shall end.
    fn under_load(
        args: &Args,
        cluster: &mut LocalCluster,
        events: &Events,
        story: &Story,
    ) -> Result<Option<Self>, Failure> {
        let clock = Clock::new();
        let start = clock.now();
        let in_flight = usize::from(args.clients) * usize::from(args.in_flight);
        let shared = Shared::new(clock, start, start + Duration::from_secs(args.seconds.into()), in_flight);
        let options = cluster.config.client_options();
        story.tell(format_args!(
            "load: {} clients with {} operations in flight each: get, set, cas, del, incr",
            args.clients, args.in_flight
        ));
        let (recordings, act) = std::thread::scope(|scope| {
            let client = |id| {
                let (shared, options) = (&shared, &options);
                scope.spawn(move || load::run(shared, id, options, args.in_flight.into()))
            };
            let clients: Vec<_> = (1..=u64::from(args.clients)).map(client).collect();
            let act = kill_the_leader(&shared, cluster, events, story);
            if !matches!(act, Ok(Some(_))) {
                shared.give_up();
            }
            let recordings: Vec<Result<Recording, Failure>> = clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect();
            (recordings, act)
        });
        let Some((victim, killed, dead)) = act? else { return Ok(None) };
        let mut run = Self {
            shared,
            options,
            history: KvHistory::new(),
            replies: BTreeMap::new(),
            retransmitted: 0,
            wrong: None,
            victim,
            killed,
            dead,
        };
        for recording in recordings {
            let Recording { history, replies, retransmitted, wrong } = recording?;
            run.history.append(history);
            run.retransmitted += retransmitted;
            run.wrong = run.wrong.or(wrong);
            for (from, count) in replies {
                *run.replies.entry(from).or_default() += count;
            }
        }
        Ok(Some(run))
    }

    /// Reads everything once more and judges.
    fn examine(&mut self, args: &Args, cluster: &mut LocalCluster, story: &Story) -> Result<Report, Failure> {
        let unread =
            load::read_all(&self.shared, &self.options, &mut self.history).err().map(|failure| failure.to_string());
        let alive: Vec<u16> = cluster.nodes.iter().filter(|node| node.alive()).map(|node| node.id()).collect();
        let reports = cluster.ask(&alive);
        story.tell(format_args!(
            "checking a history of {} operations",
            grouped(self.history.operations().count() as u64)
        ));
        let judgement = check::judge(&self.history);
        let Measures { answered, unknown, throughput_ops_s, latency_us, failover, timeline } =
            check::measure(&self.history, self.shared.start, self.shared.end, self.killed, self.dead);
        let no_recovery = failover.is_none().then(|| "nothing submitted after the kill was ever answered".to_owned());
        let reason = judgement.reason.clone().or(self.wrong.take()).or(unread).or(no_recovery);
        let replies = |entry: &hovercraft::cluster::NodeEntry| {
            let count = |address| self.replies.get(address).copied().unwrap_or(0);
            Replies { node: entry.id, replies: count(&entry.requests) }
        };
        Ok(Report {
            passed: judgement.passed() && reason.is_none(),
            nodes: usize::from(args.nodes),
            mode: cluster.config.mode.name().to_owned(),
            fan_out: match cluster.config.fan_out {
                FanOut::Multicast => "multicast".to_owned(),
                FanOut::Unicast => "unicast".to_owned(),
            },
            clients: args.clients.into(),
            in_flight: args.in_flight.into(),
            seconds: args.seconds.into(),
            drop: args.drop,
            operations: answered,
            unknown,
            throughput_ops_s,
            held_back: self.shared.held_back.load(Ordering::Relaxed),
            p50_us: latency_us.value_at_quantile(0.5),
            p99_us: latency_us.value_at_quantile(0.99),
            max_us: latency_us.max(),
            killed: self.victim,
            leader_after: local::leader_of(&reports).unwrap_or(0),
            failover_ms: failover.map_or(0.0, |gap| (gap.as_secs_f64() * 1e6).round() / 1e3),
            killed_at_ms: self.killed.since(self.shared.start).as_secs_f64() * 1e3,
            lost_acknowledged: judgement.lost_acknowledged,
            duplicated: judgement.duplicated,
            linearizable: judgement.linearizable,
            undecided: judgement.undecided,
            reason,
            keys: judgement.keys,
            replies: cluster.config.nodes.iter().map(replies).collect(),
            bodies_fetched: reports.iter().map(|report| counter(report, "node.bodies_fetched")).sum(),
            retransmitted: self.retransmitted,
            report: None,
            timeline,
        })
    }
}

/// Kills the aggregator, if there is one, and starts another one after a tenth of the load. Then waits for the middle of
/// the load. Returns whether this program shall end.
fn kill_the_aggregator(
    shared: &Shared,
    cluster: &mut LocalCluster,
    events: &Events,
    story: &Story,
) -> Result<bool, Failure> {
    let (clock, length) = (shared.clock, shared.end.since(shared.start));
    let missed = |cluster: &LocalCluster| {
        let ids: Vec<u16> = cluster.nodes.iter().map(|node| node.id()).collect();
        let of = |name| cluster.ask(&ids).iter().map(|report| counter(report, name)).sum::<u64>();
        (of("node.agg_commits_received"), of("node.agg_commits_missed"))
    };
    if cluster.aggregator.is_some() {
        let (taken, before) = missed(cluster);
        if let Some(aggregator) = &mut cluster.aggregator {
            aggregator.kill();
            story.tell(format_args!(
                "kill -9: the aggregator (pid {}) is dead; nodes had taken {} of its messages",
                aggregator.pid(),
                grouped(taken)
            ));
        }
        let answered = shared.answered.load(Ordering::Relaxed);
        if local::wait_until(events, clock, clock.now() + length / 10, || false) {
            return Ok(true);
        }
        let (taken, after) = missed(cluster);
        story.tell(format_args!(
            "without it: {} more operations answered; its word was missed {} times",
            grouped(shared.answered.load(Ordering::Relaxed) - answered),
            after - before
        ));
        cluster.start_aggregator()?;
        story.tell("another aggregator is started");
        let armed = local::wait_until(events, clock, clock.now() + RECOVERY_PATIENCE, || missed(cluster).0 > taken);
        if armed {
            return Ok(true);
        }
        if missed(cluster).0 == taken {
            return Err(Failure::new("the cluster works without an aggregator and does not find the next one"));
        }
        story.tell("the leader has found it");
    }
    Ok(local::wait_until(events, clock, shared.start + length * 2 / 5, || false))
}

/// Waits for the middle of the load, kills the leader, and waits until there is service again. Returns who it was, when
/// the signal was sent, and when the process was gone; `None` if this program shall end.
fn kill_the_leader(
    shared: &Shared,
    cluster: &mut LocalCluster,
    events: &Events,
    story: &Story,
) -> Result<Option<(u16, Instant, Instant)>, Failure> {
    let clock = shared.clock;
    let middle = shared.start + shared.end.since(shared.start) / 5;
    if local::wait_until(events, clock, middle, || false) {
        return Ok(None);
    }
    if kill_the_aggregator(shared, cluster, events, story)? {
        return Ok(None);
    }
    let answered = shared.answered.load(Ordering::Relaxed);
    story.tell(format_args!("{} operations answered so far", grouped(answered)));
    if answered == 0 {
        return Err(Failure::new("the cluster has a leader, but answers no requests")
            .means("Requests do not reach the nodes, or answers do not reach the clients.")
            .todo("Try --fan-out unicast; a firewall may filter multicast on loopback."));
    }
    let mut victim = None;
    local::wait_until(events, clock, clock.now() + RECOVERY_PATIENCE, || {
        victim = cluster.leader();
        victim.is_some()
    });
    let no_leader = || Failure::new("the cluster lost its leader under load and did not elect another");
    let victim = victim.ok_or_else(no_leader)?;
    let node = cluster.node_mut(victim).ok_or_else(no_leader)?;
    let killed = clock.now();
    node.kill();
    let dead = clock.now();
    shared.leader_is_dead(dead);
    story.tell(format_args!("kill -9: leader n{victim} (pid {}) is dead", node.pid()));
    if local::wait_until(events, clock, dead + RECOVERY_PATIENCE, || shared.back().is_some()) {
        return Ok(None);
    }
    match shared.back() {
        Some(back) => {
            story.tell(format_args!("service is back {:.0} ms after the kill", back.since(killed).as_secs_f64() * 1e3))
        }
        None => story.tell(format_args!("no service {RECOVERY_PATIENCE:?} after the kill")),
    }
    if local::wait_until(events, clock, shared.end, || false) {
        return Ok(None);
    }
    Ok(Some((victim, killed, dead)))
}

fn summarize(report: &Report, story: &Story) {
    let replies: Vec<String> =
        report.replies.iter().map(|replies| format!("n{} {}", replies.node, grouped(replies.replies))).collect();
    story.plain("");
    story.plain(format_args!(
        "operations       {} answered, {} of unknown outcome",
        grouped(report.operations),
        report.unknown
    ));
    let note = if report.held_back { " (clients slowed down to keep the history checkable)" } else { "" };
    story.plain(format_args!(
        "throughput       {} operations/s, the crash included{note}",
        grouped(report.throughput_ops_s)
    ));
    story.plain(format_args!(
        "latency          p50 {} µs, p99 {} µs, longest {} µs",
        grouped(report.p50_us),
        grouped(report.p99_us),
        grouped(report.max_us)
    ));
    story.plain(format_args!("failover         {:.1} ms without an answer", report.failover_ms));
    story.plain(format_args!("replies          {} (n{} was killed)", replies.join(", "), report.killed));
    if report.drop > 0.0 {
        story.plain(format_args!(
            "loss             {}% of datagrams; {} bodies fetched, {} requests repeated",
            report.drop * 100.0,
            grouped(report.bodies_fetched),
            grouped(report.retransmitted)
        ));
    }
    story.plain(format_args!(
        "increments       {} acknowledged ones lost, {} executed twice",
        report.lost_acknowledged, report.duplicated
    ));
    story.plain(format_args!("linearizable     {} ({} keys)", report.verdict(), report.keys));
    if let Some(reason) = &report.reason {
        story.plain(format_args!("\n{reason}"));
    }
    story.plain("");
    story.tell(if report.passed {
        "PASSED: nothing acknowledged was lost, nothing was executed twice"
    } else {
        "FAILED"
    });
}

fn interrupted() -> Failure {
    Failure::new("interrupted").means("The cluster has been stopped; there is no result.")
}

/// For a failure without a report: what the nodes had to say is kept.
fn keep_logs(args: &Args, cluster: &LocalCluster, failure: Failure) -> Failure {
    let directory = args.report.clone().unwrap_or_else(local::report_directory);
    copy_logs(cluster, &directory);
    tell(format_args!("the nodes' logs are in {}", directory.display()));
    failure
}

fn copy_logs(cluster: &LocalCluster, directory: &std::path::Path) {
    _ = std::fs::create_dir_all(directory);
    for process in cluster.nodes.iter().chain(&cluster.aggregator) {
        if let Some(name) = process.log().file_name() {
            _ = std::fs::copy(process.log(), directory.join(name));
        }
    }
}
