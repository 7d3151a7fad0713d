//! `hovercraft aggregator`, `hovercraft gateway` and `hovercraft router`: what sits between clients and nodes, in the foreground.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hovercraft::cluster::ClusterConfig;
use hovercraft::runtime::{self, RoleStartError, RunningPart};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::output::Failure;

/// Run the gateway of a cluster in the foreground, until Ctrl-C.
///
/// Clients of a configuration with [gateway] send to it. It lets as many requests through to the nodes as they can work on,
/// and tells the clients of others at once to come back later; so overload costs the nodes nothing (docs/protocol.md §9).
#[derive(clap::Args, Debug)]
#[command(
    after_help = "It keeps nothing: if it is restarted, it has forgotten what was on its way, which costs nothing. \
    While it is down, clients go around it after about a second.\n\n\
    Example:\n  \
        hovercraft gateway --config cluster.toml"
)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    role: RoleArgs,
}

/// Run the aggregator of a cluster in mode hovercraft++ in the foreground, until Ctrl-C.
///
/// Followers acknowledge to it, and it tells everybody at once what a majority has: the leader's work does not grow with
/// the number of nodes (docs/protocol.md §8).
#[derive(clap::Args, Debug)]
#[command(
    after_help = "It keeps nothing: while it is down, the cluster works as in mode hovercraft, and it is found again when it \
    is back.\n\n\
    Example:\n  \
        hovercraft aggregator --config cluster.toml"
)]
pub(crate) struct AggregatorArgs {
    #[command(flatten)]
    role: RoleArgs,
}

/// Run the router of a configuration in the foreground, until Ctrl-C.
///
/// It spreads requests over the nodes of a configuration with mode = "unreplicated" and [router]: each is a worker of its
/// own, says so itself, and answers clients directly (docs/protocol.md §9).
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  \
        hovercraft router --config workers.toml")]
pub(crate) struct RouterArgs {
    #[command(flatten)]
    role: RoleArgs,
}

#[derive(clap::Args, Debug)]
struct RoleArgs {
    /// The cluster's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn gateway(args: &GatewayArgs) -> Result<ExitCode, Failure> {
    run(&args.role, runtime::gateway)
}

pub(crate) fn aggregator(args: &AggregatorArgs) -> Result<ExitCode, Failure> {
    run(&args.role, runtime::aggregator)
}

pub(crate) fn router(args: &RouterArgs) -> Result<ExitCode, Failure> {
    run(&args.role, runtime::router)
}

fn run(
    args: &RoleArgs,
    start: impl FnOnce(&ClusterConfig) -> Result<RunningPart, RoleStartError>,
) -> Result<ExitCode, Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let config = ClusterConfig::load(&args.config).map_err(Failure::usage)?;
    let cannot = |error: io::Error| Failure::new(format!("cannot handle signals: {error}"));
    // Before it is there to be stopped.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let role = start(&config).map_err(|error| match error {
        RoleStartError::Config(_) | RoleStartError::NoSection { .. } | RoleStartError::NoAggregator { .. } => {
            Failure::usage(error)
        }
        error => Failure::new(error.to_string()),
    })?;
    let (name, stopper) = (role.name(), role.stopper());
    let stop_on_signal = move || {
        for signal in signals.forever() {
            tracing::info!(signal, "stopping");
            stopper.stop();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(stop_on_signal).map_err(cannot)?;
    match role.wait() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(format!("the {name} stopped by itself: {error}"))),
    }
}
