//! `hovercraft bench curve`: latency over throughput, up to the highest rate that keeps a promise.

use std::path::PathBuf;
use std::process::ExitCode;

use measure::chart::{self, Labels, Line};
use measure::knee::{Finding, Search};
use measure::load::Pace;
use measure::machine::Machine;
use measure::verdict::Demands;
use serde_json::json;

use super::load::LoadArgs;
use super::system::{PlaceArgs, System};
use super::trial::{Bench, Trial};
use super::{progress, requests};
use crate::node::ServiceArgs;
use crate::output::{EXIT_FAILED, Failure, Table, grouped, say, tell};
use crate::processes::Events;
use crate::up::ModeArg;

/// How much of the rate is left to search when the search ends.
const PRECISION: f64 = 0.05;

/// Latency over throughput, up to the highest rate that keeps a promise (the knee).
///
/// Open loop, one rate after the other: up in steps until the percentile breaks the promise or the system cannot keep up, then
/// halving what is left. Points that cannot be believed are shown as such and drawn nowhere.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if no rate keeps the promise.\n\nExamples:\n  \
        hovercraft bench curve                             p99 of 500 µs\n  \
        hovercraft bench curve --slo-us 1000 --mode raft --out bench/raft\n  \
        hovercraft bench curve --rates 5k,10k,20k          these rates only")]
pub(crate) struct Args {
    /// The promise: the percentile is at most so many µs.
    #[arg(long, value_name = "US", default_value_t = 500.0)]
    slo_us: f64,
    /// The percentile that it is about.
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, value_parser = parse_percentile)]
    percentile: f64,
    /// The first rate.
    #[arg(long, value_name = "RATE", value_parser = super::parse_rate, default_value = "2k")]
    from: f64,
    /// By what rates grow.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5, value_parser = parse_factor)]
    factor: f64,
    /// These rates and no search.
    #[arg(long, value_name = "RATE", value_delimiter = ',', value_parser = super::parse_rate, conflicts_with_all = ["from", "factor"])]
    rates: Vec<f64>,
    /// How requests become replicated.
    #[arg(long, value_enum, default_value = "hovercraft")]
    mode: ModeArg,
    /// How many nodes [default: 3; 1 if unreplicated].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// How often a rate that fails a check is repeated before it is marked unusable.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Write curve.json and curve.svg there.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    args.load.check()?;
    let machine = Machine::this();
    let events = Events::listen()?;
    let nodes = usize::from(args.nodes.unwrap_or(if args.mode == ModeArg::Unreplicated { 1 } else { 3 }));
    let service = ServiceArgs { app: args.load.workload.app() };
    let Some(system) = System::start(args.mode, nodes, service, &args.place, args.load.give_up, &events)? else {
        return Ok(ExitCode::from(EXIT_FAILED));
    };
    let bench = Bench {
        load: &args.load,
        place: &args.place,
        events: &events,
        units_per_us: requests::units_per_us(),
        demands: Demands { quantile: args.percentile / 100.0, ..Demands::default() },
    };
    let bar = progress::bar(system.name.clone());
    bench.fill(&system, &bar)?;
    let mut points = Vec::new();
    let mut measure = |rate: f64| {
        bar.set_prefix(format!("{}, {} operations/s", system.name, grouped(rate as u64)));
        let pace = Pace::Open { process: args.load.arrivals.into(), rate };
        let trial = bench.run(&system, pace, args.attempts, &bar)?;
        let finding = args.finding(&trial);
        if !args.json {
            bar.suspend(|| tell(args.line(rate, &trial, finding)));
        }
        points.push((rate, trial, finding));
        Ok::<Finding, Failure>(finding)
    };
    let knee = if args.rates.is_empty() {
        let mut search = Search::new(args.from, args.factor, PRECISION);
        while let Some(rate) = search.next() {
            let finding = measure(rate)?;
            search.found(finding);
        }
        search.knee()
    } else {
        let mut kept = None;
        for &rate in &args.rates {
            if measure(rate)? == Finding::Kept {
                kept = Some(rate.max(kept.unwrap_or(0.0)));
            }
        }
        kept
    };
    bar.finish_and_clear();
    system.stop(&events);
    points.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let name = &points.first().map_or_else(String::new, |(_, trial, _)| trial.system.clone());

    let trials: Vec<&Trial> = points.iter().map(|(_, trial, _)| trial).collect();
    let document = super::document(
        &machine,
        json!({
            "load": args.load.json(),
            "place": args.place.describe(),
            "promise": { "percentile": args.percentile, "us": args.slo_us },
            "knee_ops_s": knee,
            "points": trials,
        }),
    );
    if let Some(directory) = &args.out {
        super::write(&directory.join("curve.json"), &format!("{document:#}\n"))?;
        match args.chart(name, &points) {
            Ok(svg) => super::write(&directory.join("curve.svg"), &svg)?,
            Err(error) => tell(format_args!("no chart: {error}")),
        }
    }
    if args.json {
        say(document);
    } else {
        say(format_args!("{machine}"));
        say(format_args!("{name}; {}; {}", args.load.describe(), args.place.describe()));
        say(args.table(&points));
        let promise = format!("p{} of at most {} µs", args.percentile, args.slo_us);
        say(match knee {
            Some(knee) => format!("knee: {} operations/s keep a {promise}", grouped(knee as u64)),
            None => format!("no rate was found that keeps a {promise}"),
        });
    }
    Ok(if knee.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

type Point = (f64, Trial, Finding);

impl Args {
    fn value(&self, trial: &Trial) -> f64 {
        match trial.verdict.interval(self.percentile / 100.0) {
            _ if self.percentile == 50.0 => trial.latency.p50_us,
            _ if self.percentile == 90.0 => trial.latency.p90_us,
            _ if self.percentile == 99.0 => trial.latency.p99_us,
            _ if self.percentile == 99.9 => trial.latency.p999_us,
            Some(interval) => f64::midpoint(interval.low_us, interval.high_us),
            None => f64::INFINITY,
        }
    }

    fn finding(&self, trial: &Trial) -> Finding {
        // A system that cannot keep up is over its knee, whatever else is wrong then.
        if trial.verdict.fails("rate") || (trial.usable && self.value(trial) > self.slo_us) {
            Finding::Broken
        } else if trial.usable {
            Finding::Kept
        } else {
            Finding::Unusable
        }
    }

    fn cells(&self, rate: f64, trial: &Trial, finding: Finding) -> Vec<String> {
        let mut cells = vec![grouped(rate as u64), grouped(trial.rate as u64)];
        if trial.usable {
            let latency = &trial.latency;
            let interval = trial.verdict.interval(self.percentile / 100.0);
            cells.extend([latency.p50_us, latency.p99_us, latency.p999_us].map(|us| format!("{us:.0}")));
            cells.push(interval.map_or_else(String::new, |it| format!("{:.0} to {:.0}", it.low_us, it.high_us)));
        } else {
            cells.extend(["-", "-", "-", "-"].map(str::to_owned));
        }
        let costs = trial.costs.as_ref();
        cells.push(costs.and_then(|costs| costs.busiest_us).map_or_else(|| "?".to_owned(), |us| format!("{us:.1}")));
        cells.push(match finding {
            Finding::Kept => "kept".to_owned(),
            Finding::Broken if trial.usable => "broken".to_owned(),
            Finding::Broken => "cannot keep up".to_owned(),
            Finding::Unusable => format!("UNUSABLE: {}", trial.reasons.join("; ")),
        });
        cells
    }

    fn line(&self, rate: f64, trial: &Trial, finding: Finding) -> String {
        self.cells(rate, trial, finding).join("  ")
    }

    fn table(&self, points: &[Point]) -> Table {
        let interval = format!("p{} 95 % sure", self.percentile);
        let mut table =
            Table::new(&["offered/s", "replies/s", "p50 µs", "p99 µs", "p99.9 µs", &interval, "busiest µs", ""]);
        for (rate, trial, finding) in points {
            table.row(self.cells(*rate, trial, *finding));
        }
        table
    }

    fn chart(&self, name: &str, points: &[Point]) -> Result<String, chart::ChartError> {
        let line = |of: &str, value: fn(&Trial) -> f64| Line {
            name: of.to_owned(),
            points: points
                .iter()
                .filter(|(_, trial, _)| trial.usable)
                .map(|(_, trial, _)| (trial.rate, value(trial)))
                .collect(),
        };
        let lines = [
            line("p50", |trial| trial.latency.p50_us),
            line("p99", |trial| trial.latency.p99_us),
            line("p99.9", |trial| trial.latency.p999_us),
        ];
        let title = format!("{name}: {}", self.load.describe());
        let labels = Labels { title: &title, x: "operations per second", y: "latency from when they were due, µs" };
        chart::lines(labels, &lines, Some(self.slo_us))
    }
}

fn parse_percentile(text: &str) -> Result<f64, String> {
    let percentile = text.parse::<f64>().ok().filter(|percentile| (1.0..=99.99).contains(percentile));
    percentile.ok_or_else(|| "write a percentile from 1 to 99.99".to_owned())
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| (1.01..=100.0).contains(factor));
    factor.ok_or_else(|| "write a factor from 1.01 to 100".to_owned())
}
