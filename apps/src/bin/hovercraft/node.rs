//! `hovercraft node`: one node in the foreground.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use hovercraft::cluster::ClusterConfig;
use hovercraft::runtime::StartError;
use hovercraft::{NodeId, Service, runtime};
use hovercraft_apps::counter::Counter;
use hovercraft_apps::kv::Kv;
use hovercraft_apps::synthetic::Synthetic;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::output::Failure;

/// Run one node of a cluster in the foreground, until Ctrl-C.
///
/// Every node of a cluster, and every client, reads the same configuration. With durability = "os" or "sync" a node goes
/// on from its data when it is started again. In memory mode it has forgotten everything after it has stopped, so it
/// comes back as its next incarnation, if the others let it in (docs/protocol.md §7.5).
#[derive(clap::Args, Debug)]
#[command(after_help = "Logs go to stderr; RUST_LOG chooses how much (RUST_LOG=debug).\n\n\
    Examples:\n  \
        hovercraft node --config cluster.toml --id 1\n  \
        hovercraft node --config cluster.toml --id 3 --join    its directory is gone, or it is new\n  \
        RUST_LOG=hovercraft=debug hovercraft node --config cluster.toml --id 2 --app counter")]
pub(crate) struct Args {
    /// The cluster's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of its nodes this is.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..))]
    id: u16,
    /// Without data, ask the cluster to let this node in: it was not there at first, or its data is lost. It takes the
    /// place of whoever it was before, gets a copy of everything, and votes when it has caught up. The same as `join = true`
    /// in the node's part of the configuration.
    #[arg(long)]
    join: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Which service the nodes run.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ServiceArgs {
    /// The service to run; the same on every node.
    #[arg(long, value_enum, default_value_t = App::Kv)]
    pub(crate) app: App,
}

/// The services this program has.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum App {
    /// An ordered key-value store: get, set, del, cas, incr, scan.
    Kv,
    /// One number: the example in the README.
    Counter,
    /// Does nothing, for as long as each request asks it to: for measurements.
    Synthetic,
}

impl ServiceArgs {
    /// The same choice as arguments of `hovercraft node`.
    pub(crate) fn to_arguments(self) -> Vec<OsString> {
        vec!["--app".into(), self.app.name().into()]
    }
}

impl App {
    /// Its name on the command line and in `status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Counter => "counter",
            Self::Synthetic => "synthetic",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let mut config = ClusterConfig::load(&args.config).map_err(Failure::usage)?;
    for entry in config.nodes.iter_mut().filter(|entry| entry.id == args.id) {
        entry.join |= args.join;
    }
    let name = args.service.app.name();
    match args.service.app {
        App::Kv => serve(&config, args.id, name, Kv::default()),
        App::Counter => serve(&config, args.id, name, Counter::default()),
        App::Synthetic => serve(&config, args.id, name, Synthetic::default()),
    }
}

fn serve<S: Service>(config: &ClusterConfig, id: u16, name: &str, service: S) -> Result<ExitCode, Failure> {
    let cannot = |error: io::Error| Failure::new(format!("cannot handle signals: {error}"));
    // Before the node is there to be stopped.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let node = runtime::start(config, NodeId(id), name, service).map_err(|error| match error {
        StartError::Config(error) => Failure::usage(error),
        error => Failure::new(format!("node {id} does not start: {error}")),
    })?;
    let stopper = node.stopper();
    let stop_on_signal = move || {
        for signal in signals.forever() {
            tracing::info!(signal, "stopping");
            stopper.stop();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(stop_on_signal).map_err(cannot)?;
    match node.wait() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(format!("node {id} stopped by itself: {error}"))),
    }
}
