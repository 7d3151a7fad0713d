//! `hovercraft bench compare`: modes and numbers of nodes under the same load in one run, taking turns, beside what the
//! machine itself costs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use measure::chart::{self, Labels};
use measure::floor::Floor;
use measure::load::Pace;
use measure::machine::Machine;
use measure::statistics::median;
use measure::verdict::Demands;
use serde::Serialize;
use serde_json::json;

use super::load::LoadArgs;
use super::peers;
use super::system::{PlaceArgs, System, Traffic};
use super::trial::{Bench, Trial};
use super::{floor, progress, requests};
use crate::node::ServiceArgs;
use crate::output::{EXIT_FAILED, Failure, Table, grouped, say, tell};
use crate::processes::Events;
use crate::up::ModeArg;

/// Modes and numbers of nodes under the same load in one run: throughput, latency, what an operation costs.
///
/// Systems take turns, several rounds, so that what disturbs the machine disturbs them all; each cell is the median of the
/// rounds. In the same run the floor is measured, and times are printed as multiples of it too.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft bench compare                                  unreplicated, raft and hovercraft with 3 nodes\n  \
        hovercraft bench compare --nodes 3,5,7 --out bench/nodes\n  \
        hovercraft bench compare --pin 0 --clients 1 --window 1   the length of the path, on one core")]
pub(crate) struct Args {
    /// Modes to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["unreplicated", "raft", "hovercraft"])]
    modes: Vec<ModeArg>,
    /// Numbers of nodes.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "3", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Vec<u16>,
    /// Operations per second that are due, whatever happens: 20k. The same for all.
    #[arg(long, value_name = "RATE", value_parser = super::parse_rate, conflicts_with = "window")]
    rate: Option<f64>,
    /// Operations that each client keeps in flight [default: 4, without --rate].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    window: Option<u64>,
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each floor is measured, in seconds; 0 leaves them out.
    #[arg(long, value_name = "SECONDS", value_parser = super::parse_seconds, default_value = "1")]
    floor: Duration,
    /// Beside them Redis and etcd, where they are installed: as many connections, one SET in flight each.
    #[arg(long)]
    peers: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Write compare.json, costs.svg and throughput.svg there.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The rounds of one system.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    /// Replies per second: median, least, most.
    rate: Spread,
    /// Rounds of which the percentiles are usable.
    usable: usize,
    rounds: usize,
    /// Medians of the usable rounds.
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    leader_us: Option<Spread>,
    busiest_us: Option<Spread>,
    all_us: Option<Spread>,
    /// Packets and bytes per operation of the leader, in and out.
    leader: Option<[f64; 4]>,
    /// Of all nodes.
    all: Option<[f64; 4]>,
    batch: Option<f64>,
    appends: Option<f64>,
    retransmissions: u64,
    timed_out: u64,
    trials: Vec<Trial>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), &v| (least.min(v), most.max(v)));
        Some(Self { median: median(values), least, most })
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    args.load.check()?;
    let machine = Machine::this();
    let events = Events::listen()?;
    let pace = match args.rate {
        Some(rate) => Pace::Open { process: args.load.arrivals.into(), rate },
        None => Pace::Closed { window: args.window.unwrap_or(4) as usize },
    };
    let bench = Bench {
        load: &args.load,
        place: &args.place,
        events: &events,
        units_per_us: requests::units_per_us(),
        demands: Demands::default(),
    };
    let floors = if args.floor.is_zero() {
        Vec::new()
    } else {
        floor::measure_all(&args.place, args.load.request_size.max(32), args.floor, &args.nodes)?
    };
    let systems = args.systems();
    let mut trials: Vec<Vec<Trial>> = vec![Vec::new(); systems.len()];
    let bar = progress::bar("");
    for round in 1..=args.rounds {
        for ((mode, nodes), trials) in systems.iter().zip(&mut trials) {
            let service = ServiceArgs { app: args.load.workload.app() };
            let Some(system) = System::start(*mode, *nodes, service, &args.place, args.load.give_up, &events)? else {
                return Ok(ExitCode::from(EXIT_FAILED));
            };
            bar.set_prefix(format!("round {round} of {}: {}", args.rounds, system.name));
            bench.fill(&system, &bar)?;
            trials.push(bench.run(&system, pace, 1, &bar)?);
            system.stop(&events);
        }
    }
    bar.finish_and_clear();
    let rows: Vec<Row> = trials.into_iter().map(row).collect();
    let peers = if args.peers { peers::run(&args.load, &args.place, &events)? } else { Vec::new() };

    let document = super::document(
        &machine,
        json!({
            "load": args.load.json(),
            "pace": pace,
            "place": args.place.describe(),
            "floors": floors,
            "systems": rows,
            "peers": peers,
        }),
    );
    if let Some(directory) = &args.out {
        super::write(&directory.join("compare.json"), &format!("{document:#}\n"))?;
        for (name, svg) in [("costs.svg", args.costs_chart(&rows)), ("throughput.svg", args.throughput_chart(&rows))] {
            match svg {
                Ok(svg) => super::write(&directory.join(name), &svg)?,
                Err(error) => tell(format_args!("no {name}: {error}")),
            }
        }
    }
    if args.json {
        say(document);
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("{machine}"));
    let pace = match pace {
        Pace::Open { process, rate } => format!("open loop, {} arrivals, {rate:.0} operations/s", process.name()),
        Pace::Closed { window } => format!("closed loop, window {window}"),
    };
    say(format_args!(
        "{}; {pace}; {}; {} rounds of {} s",
        args.load.describe(),
        args.place.describe(),
        args.rounds,
        args.load.duration.as_secs_f64()
    ));
    if !floors.is_empty() {
        say(format_args!("\n{}", floor::table(&floors)));
    }
    tell_rows(&rows, &floors);
    if !peers.is_empty() {
        let mut table = Table::new(&["peer", "replies/s", "p50 µs", "p99 µs", "p99.9 µs", "busiest µs", "all µs"]);
        peers.iter().for_each(|peer| table.row(peer.cells()));
        say(format_args!("\n{table}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_rows(rows: &[Row], floors: &[Floor]) {
    let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
    let spread = |spread: Option<Spread>| {
        spread.map_or_else(|| "-".to_owned(), |it| format!("{:.2} ({:.2} to {:.2})", it.median, it.least, it.most))
    };
    let mut table = Table::new(&[
        "system",
        "replies/s",
        "least to most",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "usable",
        "timed out",
        "again",
    ]);
    for row in rows {
        let least_to_most = format!("{} to {}", grouped(row.rate.least as u64), grouped(row.rate.most as u64));
        table.row([
            row.name.clone(),
            grouped(row.rate.median as u64),
            least_to_most,
            us(row.p50_us),
            us(row.p99_us),
            us(row.p999_us),
            format!("{}/{}", row.usable, row.rounds),
            row.timed_out.to_string(),
            row.retransmissions.to_string(),
        ]);
    }
    say(format_args!("\n{table}"));

    let mut table = Table::new(&[
        "processor µs per operation",
        "leader",
        "busiest",
        "all",
        "busiest x unreplicated",
        "busiest x echo",
        "all x echo",
    ]);
    let unreplicated =
        rows.iter().find(|row| row.name.starts_with("unreplicated")).and_then(|row| row.busiest_us).map(|it| it.median);
    let echo = floors.iter().rfind(|floor| floor.name.starts_with("echo")).map(|floor| floor.receiver_us);
    for row in rows {
        let times = |value: Option<Spread>, by: Option<f64>| {
            value.zip(by).map_or_else(|| "-".to_owned(), |(value, by)| format!("{:.2}", value.median / by))
        };
        table.row([
            row.name.clone(),
            spread(row.leader_us),
            spread(row.busiest_us),
            spread(row.all_us),
            times(row.busiest_us, unreplicated),
            times(row.busiest_us, echo),
            times(row.all_us, echo),
        ]);
    }
    say(format_args!("\n{table}"));

    let mut table = Table::new(&[
        "per operation",
        "leader: packets in",
        "out",
        "bytes in",
        "out",
        "all: packets in",
        "out",
        "bytes in",
        "out",
        "batch",
        "Appends",
    ]);
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
    for row in rows {
        let traffic = [row.leader, row.all].map(|traffic| traffic.map(|it| it.map(Some)).unwrap_or([None; 4]));
        let cells = traffic.iter().flatten().map(|it| number(*it));
        table.row([row.name.clone()].into_iter().chain(cells).chain([number(row.batch), number(row.appends)]));
    }
    say(format_args!("\n{table}"));
}

fn row(trials: Vec<Trial>) -> Row {
    let all = |value: fn(&Trial) -> Option<f64>| Spread::of(&trials.iter().filter_map(value).collect::<Vec<_>>());
    let good = |value: fn(&Trial) -> f64| {
        Spread::of(&trials.iter().filter(|trial| trial.usable).map(value).collect::<Vec<_>>()).map(|it| it.median)
    };
    let traffic = |of_leader: bool| {
        let of = |trial: &Trial| -> Option<[f64; 4]> {
            let nodes = trial.costs.iter().flat_map(|costs| &costs.nodes).filter(|node| !of_leader || node.leads);
            // Of all or of none: a sum without one of them would look like a gain.
            let each: Vec<Traffic> = nodes.map(|node| node.traffic).collect::<Option<_>>()?;
            each.first()?;
            let sum = |value: fn(&Traffic) -> f64| each.iter().map(value).sum();
            Some([sum(|it| it.packets_in), sum(|it| it.packets_out), sum(|it| it.bytes_in), sum(|it| it.bytes_out)])
        };
        let found: Vec<[f64; 4]> = trials.iter().filter_map(of).collect();
        (!found.is_empty())
            .then(|| std::array::from_fn(|at| median(&found.iter().map(|it| it[at]).collect::<Vec<_>>())))
    };
    Row {
        name: trials.first().map_or_else(String::new, |trial| trial.system.clone()),
        rate: all(|trial| Some(trial.rate)).unwrap_or(Spread { median: 0.0, least: 0.0, most: 0.0 }),
        usable: trials.iter().filter(|trial| trial.usable).count(),
        rounds: trials.len(),
        p50_us: good(|trial| trial.latency.p50_us),
        p99_us: good(|trial| trial.latency.p99_us),
        p999_us: good(|trial| trial.latency.p999_us),
        leader_us: all(|trial| trial.costs.as_ref()?.leader_us),
        busiest_us: all(|trial| trial.costs.as_ref()?.busiest_us),
        all_us: all(|trial| trial.costs.as_ref()?.all_us),
        leader: traffic(true),
        all: traffic(false),
        batch: all(|trial| trial.costs.as_ref()?.batch).map(|it| it.median),
        appends: all(|trial| trial.costs.as_ref()?.appends).map(|it| it.median),
        retransmissions: trials.iter().map(|trial| trial.client.retransmissions).sum(),
        timed_out: trials.iter().map(|trial| trial.timed_out).sum(),
        trials,
    }
}

impl Args {
    /// What is compared, each once.
    fn systems(&self) -> Vec<(ModeArg, usize)> {
        let mut systems = Vec::new();
        for &mode in &self.modes {
            for &nodes in &self.nodes {
                let system = (mode, if mode == ModeArg::Unreplicated { 1 } else { usize::from(nodes) });
                if !systems.contains(&system) {
                    systems.push(system);
                }
            }
        }
        systems
    }

    fn costs_chart(&self, rows: &[Row]) -> Result<String, chart::ChartError> {
        let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
        let of = |name: &str, value: fn(&Row) -> Option<Spread>| {
            (name.to_owned(), rows.iter().map(|row| value(row).map(|it| it.median)).collect())
        };
        let series = [
            of("leader", |row| row.leader_us),
            of("busiest node", |row| row.busiest_us),
            of("all nodes", |row| row.all_us),
        ];
        let title = format!("What an operation costs: {}", self.load.describe());
        chart::bars(Labels { title: &title, x: "", y: "processor time per operation, µs" }, &names, &series)
    }

    fn throughput_chart(&self, rows: &[Row]) -> Result<String, chart::ChartError> {
        let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
        let series = [("replies".to_owned(), rows.iter().map(|row| Some(row.rate.median)).collect())];
        let title = format!("Throughput: {}", self.load.describe());
        chart::bars(Labels { title: &title, x: "", y: "replies per second" }, &names, &series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    }
}
