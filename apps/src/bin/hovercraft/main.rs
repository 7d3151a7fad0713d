//! The `hovercraft` program: clusters, a client, a demonstration. One file per command.

mod bench;
mod cluster;
mod demo;
mod kv;
mod local;
mod node;
mod output;
mod place;
mod processes;
mod roles;
mod sim;
mod status;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use output::Failure;

/// Replicated, linearizable, fault-tolerant services on ordinary UDP.
///
/// Start with `hovercraft demo`: three nodes on this machine, the leader killed under load, the history checked.
#[derive(Parser, Debug)]
#[command(
    name = "hovercraft",
    version,
    after_help = "Examples:\n  \
        hovercraft demo                      show that nothing acknowledged is lost when the leader dies\n  \
        hovercraft up                        a cluster of 3 nodes on this machine, until Ctrl-C\n  \
        hovercraft kv set greeting hello     in a second terminal\n  \
        hovercraft kv get greeting\n  \
        hovercraft status\n\n\
        Exit codes: 0 good, 1 what was asked for did not happen or a check failed, 2 wrong use."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::Args),
    Up(up::Args),
    Node(node::Args),
    Aggregator(roles::AggregatorArgs),
    Gateway(roles::GatewayArgs),
    Router(roles::RouterArgs),
    Kv(kv::Args),
    Status(status::Args),
    Cluster(cluster::Args),
    Sim(sim::Args),
    Bench(Box<bench::Args>),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Aggregator(args) => roles::aggregator(&args),
        Command::Gateway(args) => roles::gateway(&args),
        Command::Router(args) => roles::router(&args),
        Command::Kv(args) => kv::run(args),
        Command::Status(args) => status::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    result.unwrap_or_else(|failure: Failure| failure.report())
}

/// A share: `1%`, `0.01`.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text, 1.0),
    };
    let share =
        number.trim().parse::<f64>().map_err(|_| "write a percentage such as 1%, or a share such as 0.01")? * unit;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("a share lies from 0 to below 1 (100%)".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares() {
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.25"), Ok(0.25));
        assert_eq!(parse_share("0"), Ok(0.0));
        for wrong in ["", "x", "100%", "-1%", "1.5", "NaN"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }
}
