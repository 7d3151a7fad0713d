//! What a run is about: the cluster and its load, drawn from the seed unless told.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use hovercraft::Mode;
use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts, NodeEntry};
use rand::Rng;
use simulator::streams::stream;

/// Nodes that are not members at first, and join and leave during the run.
pub const SPARES: u16 = 2;

/// The port at which every node receives requests; the next two are for those to all, and for peers.
const PORT: u16 = 7400;

/// The name of the interface in every namespace, and of the bridge where the operator is.
pub const INTERFACE: &str = "eth0";

/// A cluster and its load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Members at first.
    pub nodes: u16,
    /// How requests become replicated.
    pub mode: Mode,
    /// Who makes the copies.
    pub fan_out: FanOut,
    /// What acknowledged writes survive, and so who may be killed.
    pub durability: Durability,
    /// Threads of a node: with two, the one for the network never waits for the one that executes.
    pub two_threads: bool,
    /// Clients.
    pub clients: u64,
    /// Operations in flight of each.
    pub in_flight: usize,
    /// Entries kept for those that are behind: few, so that some need a snapshot.
    pub log_entries: usize,
    /// Entries after which a node takes a snapshot.
    pub snapshot_entries: u64,
}

/// What was said on the command line; all else is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the same as in `Setup`")]
pub struct Told {
    pub nodes: Option<u16>,
    pub mode: Option<Mode>,
    pub fan_out: Option<FanOut>,
    pub durability: Option<Durability>,
    pub clients: Option<u64>,
    pub in_flight: Option<usize>,
}

impl Setup {
    /// The run of this seed. What is told changes nothing else.
    pub fn draw(seed: u64, told: Told) -> Self {
        let of = |name| stream(seed, name, 0);
        let one_of = |name, count| of(name).random_range(0..count);
        Self {
            seed,
            nodes: told.nodes.unwrap_or([3, 3, 5][one_of("nodes", 3)]),
            mode: told.mode.unwrap_or([Mode::Hovercraft, Mode::Hovercraft, Mode::Raft][one_of("mode", 3)]),
            fan_out: told.fan_out.unwrap_or([FanOut::Multicast, FanOut::Unicast][one_of("fan-out", 2)]),
            durability: told
                .durability
                .unwrap_or([Durability::Memory, Durability::Os, Durability::Sync][one_of("durability", 3)]),
            two_threads: of("threads").random(),
            clients: told.clients.unwrap_or_else(|| of("clients").random_range(3..=6)),
            in_flight: told.in_flight.unwrap_or([1, 4, 16][one_of("in-flight", 3)]),
            log_entries: [4096, 8192, 65_536][one_of("log", 3)],
            snapshot_entries: [5_000, 20_000, 200_000][one_of("snapshot", 3)],
        }
    }

    /// All nodes there may ever be.
    pub fn ids(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.nodes + SPARES
    }

    /// Everybody who has a namespace of its own.
    pub fn hosts(&self) -> Vec<Host> {
        self.ids().map(Host::Node).chain([Host::Clients]).collect()
    }

    /// Whether it joins later.
    pub fn is_spare(&self, id: u16) -> bool {
        id > self.nodes
    }

    /// What all nodes and clients are told. Data and marks go into `directory`.
    ///
    /// # Panics
    /// If it would be one that nodes do not take.
    pub fn config(&self, directory: &Path) -> ClusterConfig {
        let mut config = ClusterConfig::local(usize::from(self.nodes), &LocalPorts::default());
        config.nodes = self.ids().map(|id| self.entry(id)).collect();
        config.mode = self.mode;
        config.fan_out = self.fan_out;
        config.durability = self.durability;
        config.threads =
            if self.two_threads { hovercraft::cluster::Threads::Two } else { hovercraft::cluster::Threads::One };
        config.interface = INTERFACE.to_owned();
        // Nobody else is in there.
        config.insecure = true;
        config.runtime_dir = Some(directory.join("run"));
        config.data_dir = Some(directory.join("data"));
        config.seed = Some(self.seed >> 1);
        config.limits.log_entries_max = self.log_entries;
        config.limits.snapshot_entries = self.snapshot_entries;
        config.limits.snapshot_bytes = 16 << 20;
        config.validate().expect("a configuration that nodes take");
        config
    }

    fn entry(&self, id: u16) -> NodeEntry {
        let at = |port| SocketAddrV4::new(address(Host::Node(id)), port);
        NodeEntry {
            id,
            incarnation: 1,
            join: self.is_spare(id),
            learner: false,
            requests: at(PORT),
            group_requests: Some(at(PORT + 1)),
            peers: at(PORT + 2),
            metrics: None,
        }
    }
}

impl std::fmt::Display for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fan_out = match self.fan_out {
            FanOut::Multicast => "multicast",
            FanOut::Unicast => "unicast",
        };
        write!(
            f,
            "seed {}: {} nodes and {SPARES} spare ones of {}, mode {}, {fan_out}, durability {}, log of {}, snapshots \
             every {} entries; {} clients with {} operations in flight each",
            self.seed,
            self.nodes,
            if self.two_threads { "two threads" } else { "one thread" },
            self.mode.name(),
            self.durability.name(),
            self.log_entries,
            self.snapshot_entries,
            self.clients,
            self.in_flight,
        )
    }
}

/// Somebody with a network namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// A node.
    Node(u16),
    /// All clients.
    Clients,
}

impl Host {
    /// The name of its namespace.
    pub fn name(self) -> String {
        match self {
            Self::Node(id) => format!("n{id}"),
            Self::Clients => "clients".to_owned(),
        }
    }
}

/// Where a host is.
pub fn address(host: Host) -> Ipv4Addr {
    match host {
        Host::Node(id) => Ipv4Addr::new(10, 77, 0, u8::try_from(id).expect("there are few nodes")),
        Host::Clients => Ipv4Addr::new(10, 77, 0, 100),
    }
}

/// Where the operator is, whom no fault reaches.
pub const OPERATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_run_whatever_is_told() {
        let drawn = Setup::draw(7, Told::default());
        assert_eq!(drawn, Setup::draw(7, Told::default()));
        let told = Setup::draw(7, Told { nodes: Some(9), ..Told::default() });
        assert_eq!(told, Setup { nodes: 9, ..drawn });
    }

    #[test]
    fn every_run_has_a_configuration_and_all_kinds_are_drawn() {
        let runs: Vec<_> = (0..60).map(|seed| Setup::draw(seed, Told::default())).collect();
        for run in &runs {
            let config = run.config("/tmp/x".as_ref());
            assert_eq!(config.first_membership().voters().count(), usize::from(run.nodes));
        }
        for durability in [Durability::Memory, Durability::Os, Durability::Sync] {
            assert!(runs.iter().any(|run| run.durability == durability));
        }
        for mode in [Mode::Hovercraft, Mode::Raft] {
            assert!(runs.iter().any(|run| run.mode == mode));
        }
        for fan_out in [FanOut::Multicast, FanOut::Unicast] {
            assert!(runs.iter().any(|run| run.fan_out == fan_out));
        }
    }
}
