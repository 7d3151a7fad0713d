//! `hovercraft up`: a cluster of real processes on this machine, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use hovercraft::Mode;
use hovercraft::cluster::{ClusterConfig, Durability, FanOut};
use serde_json::json;

use crate::local::{self, LocalCluster};
use crate::node::{App, ServiceArgs};
use crate::output::{Failure, say, tell};
use crate::place::{self, Place};
use crate::processes::{self, Event, Events, NodeProcess};

/// Start a cluster on this machine and keep it running until Ctrl-C.
///
/// Each node is a process of its own. When the cluster is ready, one line on stdout says where it is. `hovercraft kv` and
/// `hovercraft status` in a second terminal find it without options. Unless there is --data, everything is kept in memory
/// and is gone afterwards, and so are all processes and files.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft up                              3 nodes, key-value store\n  \
        hovercraft up --nodes 5                    survives 2 failures\n  \
        hovercraft up --nodes 9 --mode hovercraft++  with an aggregator: the leader works no more than with 3\n  \
        hovercraft up --data ./data                survives Ctrl-C: the next one goes on from there\n  \
        hovercraft up --dir /tmp/second            a second cluster; talk to it with\n  \
        hovercraft kv --config /tmp/second/default.toml get key")]
pub(crate) struct Args {
    /// How many nodes: 3 survive one failure, 5 two, 7 three, 9 four [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// How requests become replicated [default: hovercraft; unreplicated for one node].
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Where the cluster's configuration and logs lie while it runs [default: a directory of yours under the system's
    /// temporary directory].
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Keep the nodes' data there, and go on from what is there already [default: everything in memory].
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// What an acknowledged write has survived, with --data [default: sync].
    #[arg(long, value_enum, requires = "data")]
    durability: Option<DurabilityArg>,
    /// Start the nodes of this configuration instead of making one up.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "mode", "fan_out", "drop", "data", "durability"])]
    config: Option<PathBuf>,
    /// How one request reaches all nodes [default: multicast, or unicast where that does not work].
    #[arg(long, value_enum)]
    fan_out: Option<FanOutArg>,
    /// Throw away this share of all datagrams that nodes receive, to see how the cluster copes (1%).
    #[arg(long, value_name = "SHARE", value_parser = crate::parse_share, default_value = "0")]
    drop: f64,
    /// Print the ready line as JSON.
    #[arg(long)]
    json: bool,
}

/// How requests become replicated.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ModeArg {
    /// One node, no copies.
    Unreplicated,
    /// The leader takes all requests and sends their bodies on: plain Raft, the baseline.
    Raft,
    /// Bodies by multicast, replies and reads spread over all nodes.
    Hovercraft,
    /// The same, with acknowledgements folded by an aggregator.
    #[value(name = "hovercraft++")]
    HovercraftPlusPlus,
}

/// How one request reaches all nodes.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FanOutArg {
    /// The network makes the copies.
    Multicast,
    /// The client sends to each node.
    Unicast,
}

/// What an acknowledged write has survived.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum DurabilityArg {
    /// That all processes die.
    Os,
    /// That all machines lose power.
    Sync,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Os => Self::Os,
            DurabilityArg::Sync => Self::Sync,
        }
    }
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Unreplicated => Self::Unreplicated,
            ModeArg::Raft => Self::Raft,
            ModeArg::Hovercraft => Self::Hovercraft,
            ModeArg::HovercraftPlusPlus => Self::HovercraftPlusPlus,
        }
    }
}

impl From<FanOutArg> for FanOut {
    fn from(fan_out: FanOutArg) -> Self {
        match fan_out {
            FanOutArg::Multicast => Self::Multicast,
            FanOutArg::Unicast => Self::Unicast,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let events = Events::listen()?;
    let (config, ports) = match &args.config {
        Some(path) => (ClusterConfig::load(path).map_err(Failure::usage)?, None),
        None => {
            let nodes = usize::from(args.nodes.unwrap_or(if args.mode == Some(ModeArg::Unreplicated) { 1 } else { 3 }));
            let (mut config, ports, note) = local::new_config(nodes, args.fan_out.map(FanOut::from))?;
            if let Some(note) = note {
                tell(format_args!("note: {note}"));
            }
            // One node without a log could not keep anything.
            let bare = nodes == 1 && args.data.is_none();
            let default = if bare { ModeArg::Unreplicated } else { ModeArg::Hovercraft };
            config.mode = args.mode.unwrap_or(default).into();
            if let Some(data) = &args.data {
                let data = std::path::absolute(data)
                    .map_err(|error| Failure::usage(format!("there is no directory {}: {error}", data.display())))?;
                config.durability = args.durability.unwrap_or(DurabilityArg::Sync).into();
                config.data_dir = Some(data);
            }
            config.faults.loss = args.drop;
            (config, Some(ports))
        }
    };
    for warning in config.warnings() {
        tell(format_args!("note: {warning}"));
    }
    let directory = args.dir.clone().unwrap_or_else(place::default_directory);
    let place = Place::take(&directory)?;
    let mut cluster = LocalCluster::start(config, ports, place, &args.service.to_arguments())?;
    let Some(leader) = cluster.wait_ready(&events)? else {
        return Ok(stop(&mut cluster, &events));
    };
    say(ready_line(&cluster, leader, args));

    loop {
        match events.next() {
            Event::Stop => return Ok(stop(&mut cluster, &events)),
            Event::Child => {
                if report_dead(&mut cluster) == 0 {
                    let failure = Failure::new("all nodes are dead");
                    return Err(match &cluster.config.data_dir {
                        None => failure.means("Everything the cluster kept is lost.").todo("Start a new one."),
                        Some(data) => failure
                            .means(format!("What they acknowledged is in {}.", data.display()))
                            .todo("Start it again."),
                    });
                }
            }
        }
    }
}

/// The one line that says that the cluster is ready, and how to talk to it.
fn ready_line(cluster: &LocalCluster, leader: u16, args: &Args) -> String {
    let config = cluster.place.config();
    let mode = cluster.config.mode.name();
    let app = args.service.app;
    let address =
        |id| cluster.config.entry(hovercraft::NodeId(id)).map_or_else(String::new, |entry| entry.requests.to_string());
    if args.json {
        let node = |node: &NodeProcess| json!({ "id": node.id(), "pid": node.pid(), "requests": address(node.id()) });
        return json!({
            "ready": true,
            "mode": mode,
            "app": app.name(),
            "leader": leader,
            "config": config,
            "aggregator": cluster.aggregator.as_ref().map(NodeProcess::pid),
            "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
        })
        .to_string();
    }
    let node = |node: &NodeProcess| format!("n{} {} pid {}", node.id(), address(node.id()), node.pid());
    let mut nodes: Vec<_> = cluster.nodes.iter().map(node).collect();
    if let (Some(process), Some(address)) = (&cluster.aggregator, cluster.config.aggregator()) {
        nodes.push(format!("aggregator {address} pid {}", process.pid()));
    }
    let option = match &args.dir {
        Some(_) => format!(" --config {}", config.display()),
        None => String::new(),
    };
    let try_this = match app {
        App::Kv => format!("hovercraft kv{option} set greeting hello"),
        App::Counter | App::Synthetic => format!("hovercraft status{option}"),
    };
    format!(
        "ready: {app} in mode {mode}, n{leader} leads; {nodes}; try `{try_this}`, stop with Ctrl-C",
        app = app.name(),
        nodes = nodes.join(", ")
    )
}

/// Says which nodes have died. Returns how many are alive.
fn report_dead(cluster: &mut LocalCluster) -> usize {
    let dead: Vec<_> = cluster
        .nodes
        .iter_mut()
        .filter_map(|node| node.just_ended().map(|status| (node.id(), node.pid(), status)))
        .collect();
    if let Some(aggregator) = &mut cluster.aggregator
        && let Some(status) = aggregator.just_ended()
    {
        let how = processes::describe(status);
        tell(format_args!("the aggregator (pid {}) {how}; the nodes go on without it", aggregator.pid()));
    }
    let alive = cluster.nodes.iter().filter(|node| node.alive()).count();
    for (id, pid, status) in dead {
        let note = local::majority_note(alive, cluster.nodes.len());
        tell(format_args!("node {id} (pid {pid}) {}; {note}", processes::describe(status)));
        let failed = status.code().is_some_and(|code| code != 0);
        if let (Some(node), true) = (cluster.node_mut(id), failed) {
            tell(node.last_words());
        }
    }
    alive
}

fn stop(cluster: &mut LocalCluster, events: &Events) -> ExitCode {
    for id in cluster.stop(events) {
        tell(format_args!("{} did not stop when asked and was killed", processes::name(id)));
    }
    ExitCode::SUCCESS
}
