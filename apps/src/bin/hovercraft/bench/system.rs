//! What is under load: a cluster started for it, one that runs already, or any R2P2 server; and what an operation costs its
//! nodes, in processor time, packets and bytes.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use hovercraft::NodeId;
use hovercraft::client::{ClientOptions, Contacts, Endpoint};
use hovercraft::cluster::{ClusterConfig, FanOut};
use hovercraft::node::StatusReport;
use measure::process;
use multicast::Group;
use r2p2::client::ClientConfig;
use serde::Serialize;

use crate::local::{self, LocalCluster, PortBlock};
use crate::node::ServiceArgs;
use crate::output::{Failure, tell};
use crate::place::Place;
use crate::processes::Events;
use crate::up::{FanOutArg, ModeArg};

/// For how long a node may take to say what it has counted.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

/// Who runs where, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlaceArgs {
    /// Cores for everything: 0, 0-1, 0,2. With one core, nobody spins.
    #[arg(long, value_name = "CORES", value_parser = parse_cores, help_heading = "Where")]
    pub(crate) pin: Option<Cores>,
    /// Cores for the nodes only.
    #[arg(long, value_name = "CORES", value_parser = parse_cores, help_heading = "Where")]
    pub(crate) pin_nodes: Option<Cores>,
    /// Cores for the load only.
    #[arg(long, value_name = "CORES", value_parser = parse_cores, help_heading = "Where")]
    pub(crate) pin_load: Option<Cores>,
    /// For how many µs a thread without work, of a node or of the load, looks for some before it blocks [default: 20, 0 on
    /// one core].
    #[arg(long, value_name = "US", help_heading = "Where")]
    pub(crate) spin_us: Option<u64>,
    /// How one request reaches all nodes [default: multicast, or unicast where that does not work].
    #[arg(long, value_enum, help_heading = "Where")]
    pub(crate) fan_out: Option<FanOutArg>,
}

/// Cores, as `--pin` takes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cores(Vec<usize>);

impl PlaceArgs {
    /// Cores of the nodes; empty: any.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        self.pin_nodes.as_ref().or(self.pin.as_ref()).map_or_else(Vec::new, |cores| cores.0.clone())
    }

    /// Cores of the load; empty: any.
    pub(crate) fn load(&self) -> Vec<usize> {
        self.pin_load.as_ref().or(self.pin.as_ref()).map_or_else(Vec::new, |cores| cores.0.clone())
    }

    /// For how long everybody spins.
    pub(crate) fn spin(&self) -> Duration {
        let shared = self.nodes().len() == 1 && self.nodes() == self.load();
        Duration::from_micros(self.spin_us.unwrap_or(if shared { 0 } else { 20 }))
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        let name = |cores: &[usize]| {
            let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
            if cores.is_empty() { "any core".to_owned() } else { format!("core {}", cores.join(", ")) }
        };
        let (nodes, load, spin) = (name(&self.nodes()), name(&self.load()), self.spin().as_micros());
        if nodes == load {
            format!("everything on {nodes}, spinning {spin} µs")
        } else {
            format!("nodes on {nodes}, load on {load}, spinning {spin} µs")
        }
    }
}

fn parse_cores(text: &str) -> Result<Cores, String> {
    let wrong = || format!("{text:?} names no cores; write 0, 0-1 or 0,2");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        if first > last || last >= libc::CPU_SETSIZE as usize {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    Ok(Cores(cores))
}

/// What is under load.
#[derive(Debug)]
pub(crate) struct System {
    cluster: Option<LocalCluster>,
    client: ClientKind,
    pub(crate) name: String,
}

#[derive(Debug)]
enum ClientKind {
    Ours(Box<ClientOptions>),
    /// Any R2P2 server.
    Plain {
        server: SocketAddrV4,
        give_up: Duration,
    },
}

impl System {
    /// Starts a cluster, on the cores that are for nodes. `None` if this program shall end.
    pub(crate) fn start(
        mode: ModeArg,
        nodes: usize,
        service: ServiceArgs,
        place: &PlaceArgs,
        give_up: Duration,
        events: &Events,
    ) -> Result<Option<Self>, Failure> {
        let (mut config, ports, note): (ClusterConfig, PortBlock, _) =
            local::new_config(nodes, place.fan_out.map(FanOut::from))?;
        if let Some(note) = note {
            tell(format_args!("note: {note}"));
        }
        config.mode = mode.into();
        config.spin_us = place.spin().as_micros() as u64;
        let fan_out = config.fan_out;
        // Processes run where the thread that starts them may; and it has to be this one.
        let before = process::cores().map_err(cannot_pin)?;
        let own = place.nodes();
        if !own.is_empty() {
            process::pin(&own).map_err(cannot_pin)?;
        }
        let started = Place::temporary()
            .and_then(|place| LocalCluster::start(config, Some(ports), place, &service.to_arguments()));
        process::pin(&before).map_err(cannot_pin)?;
        let mut cluster = started?;
        if cluster.wait_ready(events)?.is_none() {
            return Ok(None);
        }
        let options = ClientOptions { give_up, spin: place.spin(), ..cluster.config.client_options() };
        let by = if fan_out == FanOut::Unicast { " by unicast" } else { "" };
        Ok(Some(Self {
            name: format!("{}{by}, N = {nodes}", cluster.config.mode.name()),
            client: ClientKind::Ours(Box::new(options)),
            cluster: Some(cluster),
        }))
    }

    /// The cluster of a configuration, which runs already.
    pub(crate) fn running(path: &Path, give_up: Duration) -> Result<Self, Failure> {
        let config = ClusterConfig::load(path).map_err(Failure::usage)?;
        let options = ClientOptions { give_up, ..config.client_options() };
        Ok(Self {
            name: format!("{}, N = {} (of {})", config.mode.name(), config.nodes.len(), path.display()),
            client: ClientKind::Ours(Box::new(options)),
            cluster: None,
        })
    }

    /// A server that knows no sessions.
    pub(crate) fn plain(server: SocketAddrV4, give_up: Duration) -> Self {
        Self { name: format!("R2P2 server {server}"), client: ClientKind::Plain { server, give_up }, cluster: None }
    }

    /// A client core for it.
    pub(crate) fn endpoint(&self, seed: u64) -> Endpoint {
        match &self.client {
            ClientKind::Ours(options) => options.endpoint(seed),
            ClientKind::Plain { server, give_up } => {
                let config = ClientConfig { sessions: false, give_up: *give_up, ..ClientConfig::default() };
                let group = Group::Unicast { members: vec![*server] };
                Endpoint::new(config, Contacts { epoch: 0, nodes: Vec::new(), group, group_stays: true }, seed)
            }
        }
    }

    /// How many networks multicast to it may cross.
    pub(crate) fn ttl(&self) -> u32 {
        match &self.client {
            ClientKind::Ours(options) => options.ttl,
            ClientKind::Plain { .. } => 1,
        }
    }

    /// What its nodes have used so far; `answered` is what the load has got for it.
    pub(crate) fn usage(&self, answered: u64) -> Usage {
        let ClientKind::Ours(options) = &self.client else {
            return Usage { answered, ..Usage::default() };
        };
        // First of all, so that it belongs to `answered`.
        let own = self.cluster.iter().flat_map(|cluster| &cluster.nodes);
        let times = own.filter_map(|node| Some((node.id(), process::processor_time(node.pid()).ok()?))).collect();
        let aggregator = self.cluster.as_ref().and_then(|cluster| cluster.aggregator.as_ref());
        let aggregator = aggregator.and_then(|aggregator| process::processor_time(aggregator.pid()).ok());
        let ids: Vec<u16> = options.nodes.iter().map(|(id, _)| id.0).collect();
        let options = ClientOptions { give_up: STATUS_PATIENCE, ..(**options).clone() };
        let reports: Vec<StatusReport> = local::ask_all(&options, &ids).into_iter().filter_map(Result::ok).collect();
        let leader = local::leader_of(&reports);
        let counted = |report: StatusReport| {
            let counters = report.counters.into_iter().map(|counter| (counter.name, counter.value)).collect();
            (u16::try_from(report.node).unwrap_or(0), counters)
        };
        Usage { answered, leader, ids, times, aggregator, counters: reports.into_iter().map(counted).collect() }
    }

    /// Which node answers from this address.
    pub(crate) fn node_at(&self, address: SocketAddrV4) -> Option<NodeId> {
        let ClientKind::Ours(options) = &self.client else { return None };
        options.nodes.iter().find(|(_, at)| *at == address).map(|(id, _)| *id)
    }

    /// Stops what was started.
    pub(crate) fn stop(mut self, events: &Events) {
        if let Some(cluster) = &mut self.cluster {
            cluster.stop(events);
        }
    }
}

fn cannot_pin(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot choose cores: {error}")).todo("Name cores that there are: `nproc` says how many.")
}

/// What nodes have used and counted by a certain time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    answered: u64,
    leader: Option<u16>,
    /// All nodes there are.
    ids: Vec<u16>,
    /// Processor time of processes that we started.
    times: BTreeMap<u16, Duration>,
    /// Of the aggregator, if we started one.
    aggregator: Option<Duration>,
    /// What those say that answered in time.
    counters: BTreeMap<u16, BTreeMap<String, u64>>,
}

/// What an operation costs, between two usages.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Costs {
    /// Operations between the two.
    pub(crate) operations: u64,
    /// Processor time per operation of the leader, µs.
    pub(crate) leader_us: Option<f64>,
    /// Of the node that uses most, µs.
    pub(crate) busiest_us: Option<f64>,
    /// Of the aggregator, if there is one, µs.
    pub(crate) aggregator_us: Option<f64>,
    /// Of all nodes together, and of the aggregator, µs.
    pub(crate) all_us: Option<f64>,
    /// Requests that the leader ordered at once, on average.
    pub(crate) batch: Option<f64>,
    /// Appends that the leader sent, per operation.
    pub(crate) appends: Option<f64>,
    /// Acknowledgements that the leader received, per operation.
    pub(crate) acks: Option<f64>,
    /// Per node.
    pub(crate) nodes: Vec<NodeCosts>,
}

/// What an operation costs a node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct NodeCosts {
    pub(crate) node: u16,
    pub(crate) leads: bool,
    /// Processor time, µs.
    pub(crate) us: Option<f64>,
    /// What went through its sockets; `None` if it did not say in time.
    pub(crate) traffic: Option<Traffic>,
}

/// What went through a node's sockets, per operation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Traffic {
    pub(crate) packets_in: f64,
    pub(crate) packets_out: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
    /// Times its network thread went to sleep.
    pub(crate) sleeps: f64,
    /// Datagrams lost in its receive buffers, in all.
    pub(crate) kernel_drops: u64,
}

impl Usage {
    /// What was used since `before`; `None` if nothing was done.
    pub(crate) fn since(&self, before: &Self) -> Option<Costs> {
        let operations = self.answered.checked_sub(before.answered).filter(|operations| *operations > 0)?;
        let per = |amount: u64| amount as f64 / operations as f64;
        let each = |time: Duration| time.as_nanos() as f64 / 1e3 / operations as f64;
        let aggregator_us = self.aggregator.zip(before.aggregator).map(|(now, then)| each(now.saturating_sub(then)));
        let node = |&node: &u16| {
            let time = self.times.get(&node).zip(before.times.get(&node)).map(|(now, then)| now.saturating_sub(*then));
            NodeCosts {
                node,
                leads: self.leader == Some(node),
                us: time.map(each),
                traffic: self.counted(before, node).map(|counted| Traffic {
                    packets_in: per(counted.on_sockets("received")),
                    packets_out: per(counted.on_sockets("transmitted")),
                    bytes_in: per(counted.on_sockets("received_bytes")),
                    bytes_out: per(counted.on_sockets("transmitted_bytes")),
                    sleeps: per(counted.grown("runtime.sleeps")),
                    kernel_drops: counted.on_sockets("kernel_drops"),
                }),
            }
        };
        let nodes: Vec<NodeCosts> = self.ids.iter().map(node).collect();
        let leader = self.leader.and_then(|leader| self.counted(before, leader));
        let batches = leader.as_ref().map_or(0, |leader| leader.grown("node.batches_proposed"));
        let times: Option<Vec<f64>> = nodes.iter().map(|node| node.us).collect();
        let times = times.filter(|times| !times.is_empty());
        Some(Costs {
            operations,
            leader_us: nodes.iter().find(|node| node.leads).and_then(|node| node.us),
            busiest_us: times.as_ref().map(|times| times.iter().copied().fold(0.0, f64::max)),
            aggregator_us,
            all_us: times.map(|times| times.iter().chain(&aggregator_us).sum()),
            batch: leader
                .as_ref()
                .filter(|_| batches > 0)
                .map(|leader| leader.grown("node.requests_ordered") as f64 / batches as f64),
            appends: leader
                .as_ref()
                .map(|leader| per(leader.grown("node.appends_shared") + leader.grown("node.appends_unicast"))),
            acks: leader.as_ref().map(|leader| per(leader.grown("node.acks_received"))),
            nodes,
        })
    }

    /// What a node has counted since `before`, if it said both times.
    fn counted<'a>(&'a self, before: &'a Self, node: u16) -> Option<Counted<'a>> {
        Some(Counted { now: self.counters.get(&node)?, then: before.counters.get(&node)? })
    }
}

/// Counters of a node at two times.
struct Counted<'a> {
    now: &'a BTreeMap<String, u64>,
    then: &'a BTreeMap<String, u64>,
}

impl Counted<'_> {
    fn grown(&self, name: &str) -> u64 {
        let value = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
        value(self.now).saturating_sub(value(self.then))
    }

    /// Of all sockets: counters named `net.<socket>.<what>`.
    fn on_sockets(&self, what: &str) -> u64 {
        let of_a_socket = |name: &&String| {
            name.strip_prefix("net.").and_then(|rest| rest.split_once('.')).is_some_and(|(_, rest)| rest == what)
        };
        self.now.keys().filter(of_a_socket).map(|name| self.grown(name)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_as_people_write_them() {
        assert_eq!(parse_cores("0"), Ok(Cores(vec![0])));
        assert_eq!(parse_cores("0-2,5"), Ok(Cores(vec![0, 1, 2, 5])));
        for wrong in ["", "x", "2-1", "-1", "0,", "99999"] {
            assert!(parse_cores(wrong).is_err(), "{wrong}");
        }
    }

    /// A group of two; the second does not say what it has counted.
    fn usage(answered: u64, nanos: u64, counters: &[(&str, u64)]) -> Usage {
        let counters = counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Usage {
            answered,
            leader: Some(1),
            ids: vec![1, 2],
            aggregator: Some(Duration::from_nanos(nanos / 4)),
            times: BTreeMap::from([(1, Duration::from_nanos(nanos)), (2, Duration::from_nanos(2 * nanos))]),
            counters: BTreeMap::from([(1, counters)]),
        }
    }

    #[test]
    fn costs_are_differences_per_operation() {
        let before = usage(100, 5_000, &[("net.peers.received", 7), ("node.batches_proposed", 1)]);
        let after = usage(
            300,
            805_000,
            &[
                ("net.peers.received", 407),
                ("net.requests.received", 200),
                ("net.requests.received_bytes", 5000),
                ("node.batches_proposed", 11),
                ("node.requests_ordered", 200),
            ],
        );
        let costs = after.since(&before).expect("operations were answered");
        assert_eq!((costs.operations, costs.leader_us), (200, Some(4.0)));
        assert_eq!((costs.busiest_us, costs.all_us, costs.batch), (Some(8.0), Some(13.0), Some(20.0)));
        let traffic = costs.nodes[0].traffic.expect("it has said");
        assert_eq!((traffic.packets_in, traffic.bytes_in), (3.0, 25.0));
        assert_eq!(costs.nodes[1].traffic, None, "unknown is not zero");
        assert!(after.since(&after).is_none());
    }
}
