//! `hovercraft bench run`: one load on one system.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;

use measure::load::Pace;
use measure::machine::Machine;
use measure::verdict::Demands;
use serde_json::json;

use super::load::LoadArgs;
use super::progress;
use super::requests;
use super::system::{PlaceArgs, System, Traffic};
use super::trial::{Bench, Trial};
use crate::node::ServiceArgs;
use crate::output::{EXIT_FAILED, Failure, Table, grouped, say};
use crate::processes::Events;
use crate::up::ModeArg;

/// One load on one system: latency, throughput, costs, and whether they may be believed.
///
/// Starts a cluster on this machine for it, unless there is --config or --server. With --rate the loop is open: operations
/// come when they are due, however slow the answers are, and latency counts from there. With --window it is closed: every
/// client keeps so many operations in flight.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if the result is not usable.\n\nExamples:\n  \
        hovercraft bench run --rate 20k                       3 nodes, Poisson arrivals\n  \
        hovercraft bench run --window 8 --mode raft           closed loop, 16 clients with 8 operations each\n  \
        hovercraft bench run --window 1 --clients 1 --pin 0   one client, everything on one core: the length of the path\n  \
        hovercraft bench run --rate 5k --workload ycsb-e")]
pub(crate) struct Args {
    /// Operations per second that are due, whatever happens: 20k.
    #[arg(long, value_name = "RATE", value_parser = super::parse_rate, conflicts_with = "window")]
    rate: Option<f64>,
    /// Operations that each client keeps in flight [default: 4, without --rate].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    window: Option<u64>,
    /// How requests become replicated.
    #[arg(long, value_enum, default_value = "hovercraft")]
    mode: ModeArg,
    /// How many nodes [default: 3; 1 if unreplicated].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// The cluster of this configuration, which runs already. Processor times are those of nodes that `bench` has started.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mode", "nodes", "server"])]
    config: Option<PathBuf>,
    /// Any R2P2 server that knows the workload's requests, without sessions.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["mode", "nodes"])]
    server: Option<SocketAddrV4>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// How often a run that fails a check is repeated before it is marked unusable.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    args.load.check()?;
    let machine = Machine::this();
    let events = Events::listen()?;
    let system = if let Some(server) = args.server {
        System::plain(server, args.load.give_up)
    } else if let Some(config) = &args.config {
        System::running(config, args.load.give_up)?
    } else {
        let default = if args.mode == ModeArg::Unreplicated { 1 } else { 3 };
        let nodes = usize::from(args.nodes.unwrap_or(default));
        let service = ServiceArgs { app: args.load.workload.app() };
        match System::start(args.mode, nodes, service, &args.place, args.load.give_up, &events)? {
            Some(system) => system,
            None => return Ok(ExitCode::from(EXIT_FAILED)),
        }
    };
    let bench = Bench {
        load: &args.load,
        place: &args.place,
        events: &events,
        units_per_us: requests::units_per_us(),
        demands: Demands::default(),
    };
    let pace = match args.rate {
        Some(rate) => Pace::Open { process: args.load.arrivals.into(), rate },
        None => Pace::Closed { window: args.window.unwrap_or(4) as usize },
    };
    let bar = progress::bar(system.name.clone());
    bench.fill(&system, &bar)?;
    let trial = bench.run(&system, pace, args.attempts, &bar)?;
    bar.finish_and_clear();
    system.stop(&events);
    if args.json {
        let results = json!({ "load": args.load.json(), "place": args.place.describe(), "run": trial });
        say(super::document(&machine, results));
    } else {
        say(format_args!("{machine}"));
        say(format_args!("{}; {}", args.load.describe(), args.place.describe()));
        tell_trial(&trial);
    }
    Ok(if trial.usable { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// Everything about one run.
fn tell_trial(trial: &Trial) {
    let pace = match trial.pace {
        Pace::Open { process, rate } => format!("open loop, {} arrivals, {rate:.0} operations/s", process.name()),
        Pace::Closed { window } => format!("closed loop, window {window}"),
    };
    say(format_args!("{}: {pace}, attempt {}", trial.system, trial.attempts));
    say("");
    say(format_args!("throughput   {} operations/s", grouped(trial.rate as u64)));
    if trial.usable {
        let mut table = Table::new(&["latency, µs", "p50", "p90", "p99", "p99.9", "longest"]);
        for (name, latency) in [("from due", &trial.latency), ("from sent", &trial.latency_from_sent)] {
            let values = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
            table.row([name.to_owned()].into_iter().chain(values.map(|us| format!("{us:.1}"))));
        }
        let interval = |quantile| {
            trial
                .verdict
                .interval(quantile)
                .map_or_else(|| "-".to_owned(), |interval| format!("{:.1} to {:.1}", interval.low_us, interval.high_us))
        };
        let intervals = [interval(0.5), String::new(), interval(0.99), interval(0.999)];
        table.row(["95 % sure".to_owned()].into_iter().chain(intervals));
        say(table);
    } else {
        say("latency      unusable, because of what failed below");
    }
    say(format_args!(
        "ends         {} answered, {} timed out, {} refused, {} failed, {} not sent",
        grouped(trial.answered),
        trial.timed_out,
        trial.refused,
        trial.failed,
        trial.overrun
    ));
    say(format_args!(
        "clients      {} retransmissions, {} drops, {} datagrams lost in their buffers, {:.2} µs of processor time per operation",
        trial.client.retransmissions, trial.client.drops, trial.client.kernel_drops, trial.load_us
    ));
    let replies: Vec<_> = trial.replies.iter().map(|(node, share)| format!("{node} {:.0} %", share * 100.0)).collect();
    say(format_args!("replies      {}", replies.join(", ")));
    if let Some(costs) = &trial.costs {
        let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.2} µs"));
        say(format_args!(
            "costs        leader {}, busiest {}, aggregator {}, all together {} of processor time per operation",
            us(costs.leader_us),
            us(costs.busiest_us),
            us(costs.aggregator_us),
            us(costs.all_us)
        ));
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
        say(format_args!(
            "batches      {} requests each; {} Appends and {} acknowledgements per operation",
            number(costs.batch),
            number(costs.appends),
            number(costs.acks)
        ));
        let mut table =
            Table::new(&["per operation", "µs", "packets in", "out", "bytes in", "out", "sleeps", "lost in buffers"]);
        for node in &costs.nodes {
            let traffic = |value: fn(&Traffic) -> f64, digits: usize| {
                node.traffic.as_ref().map_or_else(|| "?".to_owned(), |traffic| format!("{:.digits$}", value(traffic)))
            };
            table.row([
                format!("n{}{}", node.node, if node.leads { " leads" } else { "" }),
                node.us.map_or_else(|| "?".to_owned(), |us| format!("{us:.2}")),
                traffic(|it| it.packets_in, 2),
                traffic(|it| it.packets_out, 2),
                traffic(|it| it.bytes_in, 0),
                traffic(|it| it.bytes_out, 0),
                traffic(|it| it.sleeps, 3),
                traffic(|it| it.kernel_drops as f64, 0),
            ]);
        }
        say(table);
    }
    say("");
    for check in &trial.verdict.checks {
        say(format_args!("{}  {:<13} {}", if check.passed { "ok    " } else { "FAILED" }, check.name, check.says));
    }
    say(if trial.usable { "USABLE".to_owned() } else { format!("UNUSABLE: {}", trial.reasons.join("; ")) });
}
