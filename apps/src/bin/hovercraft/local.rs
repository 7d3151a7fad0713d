//! A whole cluster on this machine: a place, a configuration, a process for each node.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use hovercraft::NodeId;
use hovercraft::client::{self, ClientOptions};
use hovercraft::cluster::{ClusterConfig, FanOut, LocalPorts};
use hovercraft::node::StatusReport;
use r2p2::Instant;
use r2p2::udp::Clock;

use crate::output::Failure;
use crate::place::Place;
use crate::processes::{self, Event, Events, NodeProcess};

/// For how long a new cluster may take until it has a leader.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// For how long a node may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_millis(250);
/// How long to wait before asking again.
const PACE: Duration = Duration::from_millis(5);

/// A running cluster. Dropping it stops everything, at once and without a trace.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    // In the order in which they have to go.
    pub(crate) nodes: Vec<NodeProcess>,
    /// In mode `hovercraft++`.
    pub(crate) aggregator: Option<NodeProcess>,
    pub(crate) place: Place,
    pub(crate) config: ClusterConfig,
    _ports: Option<PortBlock>,
}

impl LocalCluster {
    /// Starts all nodes of `config`. `service` are the arguments of `hovercraft node` that choose the service.
    pub(crate) fn start(
        mut config: ClusterConfig,
        ports: Option<PortBlock>,
        place: Place,
        service: &[OsString],
    ) -> Result<Self, Failure> {
        config.runtime_dir.get_or_insert_with(|| place.runtime_dir());
        config.validate().map_err(|error| Failure::usage(format!("this cannot become a cluster: {error}")))?;
        let path = place.config();
        fs::write(&path, config.to_toml()).map_err(|error| {
            Failure::new(format!("cannot write the cluster's configuration {}: {error}", path.display()))
                .todo("Make room there, or choose another directory with --dir DIRECTORY.")
        })?;
        let mut cluster = Self { nodes: Vec::new(), aggregator: None, place, config, _ports: ports };
        cluster.start_aggregator()?;
        for entry in &cluster.config.nodes {
            let log = cluster.place.log(entry.id);
            let node = NodeProcess::spawn(entry.id, &path, service, log).map_err(|error| {
                Failure::new(format!("cannot start a process for node {}: {error}", entry.id))
                    .means("The cluster has been stopped again.")
            })?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Starts the aggregator, if the mode has one and none runs.
    pub(crate) fn start_aggregator(&mut self) -> Result<(), Failure> {
        let runs = self.aggregator.as_ref().is_some_and(NodeProcess::alive);
        if self.config.aggregator().is_none() || runs {
            return Ok(());
        }
        let aggregator = NodeProcess::spawn_aggregator(&self.place.config(), self.place.aggregator_log());
        let cannot = |error| Failure::new(format!("cannot start a process for the aggregator: {error}"));
        self.aggregator = Some(aggregator.map_err(cannot)?);
        Ok(())
    }

    /// Waits until every node is up and a leader can order. Returns the leader, or `None` if this program shall end.
    pub(crate) fn wait_ready(&mut self, events: &Events) -> Result<Option<u16>, Failure> {
        let clock = Clock::new();
        let deadline = clock.now() + START_PATIENCE;
        let ids: Vec<u16> = self.nodes.iter().map(NodeProcess::id).collect();
        loop {
            self.expect_all_alive()?;
            let reports = self.ask(&ids);
            if let (Some(leader), true) = (leader_of(&reports), reports.len() == ids.len()) {
                return Ok(Some(leader));
            }
            if clock.now() >= deadline {
                let silent: Vec<_> =
                    ids.iter().filter(|id| !reports.iter().any(|report| report.node == u32::from(**id))).collect();
                let why = if silent.is_empty() {
                    "All nodes answer, but they do not agree on a leader.".to_owned()
                } else {
                    format!("No answer from node {silent:?}.")
                };
                let logs: Vec<_> = self.nodes.iter().map(NodeProcess::last_words).collect();
                return Err(Failure::new(format!("the cluster did not become ready within {START_PATIENCE:?}"))
                    .means(format!("{why} The nodes' logs end with:\n{}", logs.join("\n")))
                    .todo("If this machine is very busy, try again; if datagrams on loopback are filtered, try --fan-out unicast."));
            }
            if events.wait(PACE) == Some(Event::Stop) {
                return Ok(None);
            }
        }
    }

    fn expect_all_alive(&mut self) -> Result<(), Failure> {
        for node in self.nodes.iter_mut().chain(&mut self.aggregator) {
            if let Some(status) = node.just_ended() {
                let name = processes::name(node.id());
                return Err(Failure::new(format!("{name} {} while starting", processes::describe(status)))
                    .means(node.last_words())
                    .todo("The other nodes have been stopped again. Remove the cause and start once more."));
            }
        }
        Ok(())
    }

    /// What those of `ids` that answer say.
    pub(crate) fn ask(&self, ids: &[u16]) -> Vec<StatusReport> {
        let options = self.status_options();
        ask_all(&options, ids).into_iter().filter_map(Result::ok).collect()
    }

    fn status_options(&self) -> ClientOptions {
        ClientOptions { give_up: STATUS_PATIENCE, ..self.config.client_options() }
    }

    /// Who of those alive leads now; none if they do not agree yet.
    pub(crate) fn leader(&self) -> Option<u16> {
        let alive: Vec<u16> = self.nodes.iter().filter(|node| node.alive()).map(NodeProcess::id).collect();
        leader_of(&self.ask(&alive))
    }

    pub(crate) fn node_mut(&mut self, id: u16) -> Option<&mut NodeProcess> {
        self.nodes.iter_mut().find(|node| node.id() == id)
    }

    /// Stops all nodes and the aggregator in peace. Returns those that had to be killed.
    pub(crate) fn stop(&mut self, events: &Events) -> Vec<u16> {
        let mut all: Vec<&mut NodeProcess> = self.nodes.iter_mut().chain(&mut self.aggregator).collect();
        processes::stop_all(&mut all, events)
    }
}

/// Asks nodes how they are, all at once.
pub(crate) fn ask_all(options: &ClientOptions, ids: &[u16]) -> Vec<Result<StatusReport, client::StatusError>> {
    std::thread::scope(|scope| {
        let ask = |id: &u16| {
            let node = NodeId(*id);
            scope.spawn(move || client::status(options, node))
        };
        let asked: Vec<_> = ids.iter().map(ask).collect();
        asked.into_iter().map(|asked| asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// The leader with the highest term; a node without copies leads itself.
pub(crate) fn leader_of(reports: &[StatusReport]) -> Option<u16> {
    let leads = |report: &&StatusReport| report.role == "leader" || report.role == "unreplicated";
    let leader = reports.iter().filter(leads).max_by_key(|report| report.term)?;
    u16::try_from(leader.node).ok()
}

/// A configuration for a new cluster, with ports that stay reserved as long as the second value lives. If `fan_out` is
/// not given, it is multicast where that works, and the third value says why it is not.
pub(crate) fn new_config(
    nodes: usize,
    fan_out: Option<FanOut>,
) -> Result<(ClusterConfig, PortBlock, Option<String>), Failure> {
    let ports = PortBlock::reserve()?;
    let mut config = ClusterConfig::local(nodes, &ports.ports);
    config.fan_out = fan_out.unwrap_or_default();
    match (config.fan_out_works(), fan_out) {
        (Ok(()), _) => Ok((config, ports, None)),
        (Err(error), None) => {
            config.fan_out = FanOut::Unicast;
            Ok((config, ports, Some(format!("IP multicast does not work here, so clients send to each node: {error}"))))
        }
        (Err(error), Some(_)) => Err(Failure::new(format!("IP multicast does not work here: {error}"))
            .means("Requests would not reach the nodes.")
            .todo("Leave --fan-out away or write --fan-out unicast.")),
    }
}

/// Ports for one cluster, kept from other clusters on this machine.
#[derive(Debug)]
pub(crate) struct PortBlock {
    ports: LocalPorts,
    /// A TCP port of the same number. Nobody connects to it: it is there because only one can have it.
    _reserved: TcpListener,
}

impl PortBlock {
    fn reserve() -> Result<Self, Failure> {
        // Up to where the system begins to hand out ports to those who do not care.
        let bases = (LocalPorts::BASE_DEFAULT..32_768 - LocalPorts::SPAN).step_by(usize::from(LocalPorts::SPAN));
        for base in bases {
            let Ok(reserved) = TcpListener::bind((Ipv4Addr::LOCALHOST, base)) else { continue };
            let free = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
            if (base..base + LocalPorts::SPAN).all(free) {
                return Ok(Self { ports: LocalPorts::from_base(base), _reserved: reserved });
            }
        }
        Err(Failure::new("no ports are free for a cluster on this machine")
            .means(format!("Every block of {} UDP ports below 32768 has one in use.", LocalPorts::SPAN))
            .todo("Stop other clusters (`ss -ulnp` shows who has which port), or write a configuration with ports of your choice: --config FILE"))
    }
}

/// "3 of 5 nodes are left; a majority is 3".
pub(crate) fn majority_note(alive: usize, nodes: usize) -> String {
    let majority = nodes / 2 + 1;
    match (alive, alive >= majority) {
        (0, _) => format!("none of {nodes} nodes is left"),
        (_, true) => format!("{alive} of {nodes} nodes are left, the cluster goes on (a majority is {majority})"),
        (_, false) => format!(
            "{alive} of {nodes} nodes are left, fewer than a majority ({majority}): requests end as unknown until Ctrl-C"
        ),
    }
}

/// Waits until then or until `done` says so; true if this program shall end before.
pub(crate) fn wait_until(events: &Events, clock: Clock, deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() && clock.now() < deadline {
        if events.wait(PACE.min(deadline.since(clock.now()))) == Some(Event::Stop) {
            return true;
        }
    }
    false
}

/// Where the report of a demo goes unless told: a directory of its own that stays.
pub(crate) fn report_directory() -> PathBuf {
    std::env::temp_dir().join(format!("hovercraft-demo-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_never_share_ports() {
        let (one, two) = (PortBlock::reserve().expect("ports"), PortBlock::reserve().expect("ports"));
        assert_ne!(one.ports, two.ports);
    }

    #[test]
    fn majorities() {
        assert!(majority_note(2, 3).contains("goes on"));
        assert!(majority_note(1, 3).contains("fewer than a majority (2)"));
        assert!(majority_note(2, 4).contains("fewer than a majority (3)"));
        assert!(majority_note(0, 3).contains("none"));
    }

    #[test]
    fn the_leader_of_the_highest_term_counts() {
        let report = |node, role: &str, term| StatusReport { node, role: role.into(), term, ..StatusReport::default() };
        assert_eq!(leader_of(&[report(1, "leader", 3), report(2, "leader", 4), report(3, "follower", 4)]), Some(2));
        assert_eq!(leader_of(&[report(1, "candidate", 3)]), None);
        assert_eq!(leader_of(&[report(1, "unreplicated", 0)]), Some(1));
    }
}
