//! `hovercraft bench`: load, latency, what an operation costs. What decides whether a figure may be believed is in the
//! crate `measure`; here are the commands around it.

mod compare;
mod curve;
mod floor;
mod load;
mod peers;
mod progress;
mod requests;
mod run;
mod system;
mod trial;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use measure::machine::Machine;
use serde_json::{Value, json};

use crate::output::Failure;

/// Measure latency, throughput and what an operation costs.
///
/// A percentile is only printed as good if the load was what was asked for, the system in a steady state, and the samples
/// independent; a run that fails such a check is repeated, and then marked unusable with the reasons. docs/performance.md
/// says what every figure means.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Args),
    Curve(curve::Args),
    Compare(compare::Args),
    Floor(floor::Args),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Curve(args) => curve::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Floor(args) => floor::run(args),
    }
}

/// What every JSON document of `bench` begins with, and `results`.
fn document(machine: &Machine, results: Value) -> Value {
    json!({
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine,
        "results": results,
    })
}

/// Writes a file, and the directory it is in.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// Seconds: `0.5`, `5`.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    Ok(Duration::from_secs_f64(seconds.ok_or("write a number of seconds, such as 5 or 0.5")?))
}

/// A rate: `500`, `20k`, `1.5M`.
fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |number| (number, 1e6)),
    };
    let rate = number.parse::<f64>().ok().map(|number| number * unit).filter(|rate| (1.0..=1e9).contains(rate));
    rate.ok_or_else(|| "write operations per second, such as 500, 20k or 1.5M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_seconds() {
        assert_eq!(parse_rate("500"), Ok(500.0));
        assert_eq!(parse_rate("20k"), Ok(20_000.0));
        assert_eq!(parse_rate("1.5M"), Ok(1_500_000.0));
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "x", "-1", "0", "NaN", "k"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "x", "-1", "NaN", "1e9"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
