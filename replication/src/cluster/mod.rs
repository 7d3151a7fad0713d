//! What a whole group agrees on: one TOML file, the same for every node and every client.
//!
//! Everything has a default: an empty file means three nodes on this machine. A key that does not exist is an error
//! that names the nearest one that does, and [`ClusterConfig::validate`] says of every impossible value which field it
//! is in and what to write instead.
//!
//! ```
//! use hovercraft::cluster::{ClusterConfig, FanOut};
//!
//! let config = ClusterConfig::parse("fan_out = \"unicast\"\n[limits]\nrequest_max = 1000").unwrap();
//! assert_eq!(config.nodes.len(), 3);
//! assert_eq!(config.fan_out, FanOut::Unicast);
//! let error = ClusterConfig::parse("fanout = \"unicast\"").unwrap_err();
//! assert!(error.to_string().contains("did you mean `fan_out`"));
//! ```

mod keys;
mod network;
mod ports;
mod sections;
mod validate;

#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use multicast::aggregator::AggregatorConfig;
use multicast::{Group, Interface, TTL_DEFAULT};
use serde::{Deserialize, Serialize};

pub use network::{GatewaySection, RouterChoice, RouterSection};
pub use ports::LocalPorts;
pub use sections::{AggregatorSection, ClientSection, FaultsSection, LimitsSection, SnapshotsSection, TimingSection};
pub use validate::{ConfigError, NODES_MAX};

use crate::applier::ApplierConfig;
use crate::client::{ClientOptions, Entrance};
use crate::config::{Mode, NodeConfig};
use crate::id::{GroupId, Incarnation, MemberId, NodeId};
use crate::membership::{Addresses, Membership};
use crate::repliers::ReplierChoice;
use crate::session::SessionLimits;

/// A group: its nodes, where they are to be found, how they work. See the module.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// The group's number; in every internal message, so that two groups never mix.
    pub group: u32,
    /// How requests become replicated.
    pub mode: Mode,
    /// How one datagram reaches all nodes.
    pub fan_out: FanOut,
    /// Where multicast is sent and received: `loopback`, the name of an interface, or an IPv4 address of it.
    pub interface: String,
    /// How many networks multicast may cross, this one included.
    pub ttl: u32,
    /// Where clients send requests for all nodes, with `fan_out = "multicast"`.
    pub request_group: SocketAddrV4,
    /// Where nodes send to all nodes, with `fan_out = "multicast"`.
    pub peer_group: SocketAddrV4,
    /// Permits nodes to talk to each other outside this machine although nothing authenticates them yet
    /// (protocol.md §10).
    pub insecure: bool,
    /// Where memory-mode nodes leave the mark that they have lived (protocol.md §7.5). Default: `hovercraft-<uid>/
    /// group-<group>` in the system's directory for temporary files; see [`ClusterConfig::runtime_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_dir: Option<PathBuf>,
    /// What an acknowledged write has survived.
    pub durability: Durability,
    /// Where nodes keep their data, each in a directory of its own, unless they keep it in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// How many threads a node has.
    pub threads: Threads,
    /// For how many microseconds a thread without work looks for more before it blocks. Adapts downwards by itself.
    pub spin_us: u64,
    /// How the leader chooses who answers.
    pub replier_choice: ReplierChoice,
    /// With three nodes, followers commit what they and the leader hold without waiting for a notice (protocol.md §5.6).
    pub early_commit: bool,
    /// Makes what little randomness there is reproducible: election timeouts, the seeds that services see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Entries that no node executes: how a group gets past one on which its service panics (protocol.md §7.9). The
    /// same on all nodes; only writes, and only by a person's decision.
    pub skip_entries: Vec<u64>,
    /// How much of everything.
    pub limits: LimitsSection,
    /// How long snapshots stay, and what their transfer may take.
    pub snapshots: SnapshotsSection,
    /// When things happen.
    pub timing: TimingSection,
    /// The aggregator of mode `hovercraft++`.
    pub aggregator: AggregatorSection,
    /// The gateway, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySection>,
    /// The router, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterSection>,
    /// How patient clients are.
    pub client: ClientSection,
    /// Faults on purpose, in every node, for tests and demonstrations.
    pub faults: FaultsSection,
    /// The nodes.
    pub nodes: Vec<NodeEntry>,
}

/// How one datagram reaches all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOut {
    /// IP multicast: the network makes the copies.
    #[default]
    Multicast,
    /// The sender makes the copies: for networks without multicast.
    Unicast,
}

/// What an acknowledged write has survived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is in the memory of a majority. A node that stops has forgotten everything and must not come back under the
    /// same identity.
    #[default]
    Memory,
    /// A majority has handed it to the operating system: it survives that all processes die, not that machines do.
    Os,
    /// A majority has it on disk, and the disk says that it is safe: it survives that all machines lose power at once.
    Sync,
}

impl Durability {
    /// Its name, as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Sync => "sync",
        }
    }
}

/// How many threads a node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Threads {
    /// Two if this machine has at least four cores, else one.
    #[default]
    Auto,
    /// One that does everything, without any hand-off. For services whose operations take microseconds.
    One,
    /// One for the network and one that executes: operations of any length do not delay heartbeats.
    Two,
}

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its number, from 1 to [`NodeId::MAX`].
    pub id: u16,
    /// Which of its lives this is: one more for every time it has lost its memory (protocol.md §7.5).
    #[serde(default = "first_incarnation")]
    pub incarnation: u32,
    /// Whether it was not there when the group began, or has lost its data: it asks the others to let it in when it starts
    /// without data.
    #[serde(default, skip_serializing_if = "is_false")]
    pub join: bool,
    /// Whether it stays a learner when it joins: it has a copy of everything, and no vote.
    #[serde(default, skip_serializing_if = "is_false")]
    pub learner: bool,
    /// Where it receives requests meant for it alone, and what it answers from.
    pub requests: SocketAddrV4,
    /// Where it receives requests meant for all nodes, with `fan_out = "unicast"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_requests: Option<SocketAddrV4>,
    /// Where it receives from other nodes, and what it sends to them from.
    pub peers: SocketAddrV4,
    /// Where its counters can be read by HTTP (`/metrics`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddrV4>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn first_incarnation() -> u32 {
    1
}

impl NodeEntry {
    /// Its number.
    pub fn node(&self) -> NodeId {
        NodeId(self.id)
    }

    /// Where it is.
    pub fn addresses(&self) -> Addresses {
        Addresses { peers: self.peers, requests: self.requests, group_requests: self.group_requests }
    }

    /// Who it is to Raft.
    pub fn member(&self) -> MemberId {
        MemberId::new(self.node(), Incarnation(self.incarnation))
    }
}

impl Default for ClusterConfig {
    /// Three nodes on this machine, at the default ports.
    fn default() -> Self {
        Self::local(3, &LocalPorts::default())
    }
}

impl ClusterConfig {
    /// Largest internal datagram between machines: what fits Ethernet.
    pub const PACKET_MAX_NETWORK: usize = 1472;
    /// Largest internal datagram on one machine.
    pub const PACKET_MAX_LOOPBACK: usize = 16 << 10;

    /// A group of `nodes` nodes on this machine. Works with either [`FanOut`].
    ///
    /// # Panics
    /// If `ports` are for fewer nodes.
    pub fn local(nodes: usize, ports: &LocalPorts) -> Self {
        Self {
            group: 1,
            mode: Mode::default(),
            fan_out: FanOut::default(),
            interface: "loopback".to_owned(),
            ttl: TTL_DEFAULT,
            request_group: ports.request_group(),
            peer_group: ports.peer_group(),
            insecure: false,
            runtime_dir: None,
            durability: Durability::default(),
            data_dir: None,
            threads: Threads::default(),
            spin_us: 20,
            replier_choice: ReplierChoice::default(),
            early_commit: true,
            seed: None,
            skip_entries: Vec::new(),
            limits: LimitsSection::default(),
            snapshots: SnapshotsSection::default(),
            timing: TimingSection::default(),
            aggregator: AggregatorSection { address: ports.aggregator(), ..AggregatorSection::default() },
            gateway: None,
            router: None,
            client: ClientSection::default(),
            faults: FaultsSection::default(),
            nodes: (0..nodes).map(|index| ports.node(index)).collect(),
        }
    }

    /// Reads and validates a file.
    ///
    /// # Errors
    /// What is wrong with it, and what to do about that.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let in_file = |error| ConfigError::InFile { path: path.to_owned(), error: Box::new(error) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(in_file)
    }

    /// Parses and validates TOML.
    ///
    /// # Errors
    /// What is wrong with it, and what to do about that.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        keys::check(&table)?;
        // From the text and not from the table, so that errors show the line.
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        config.validate()?;
        Ok(config)
    }

    /// As TOML, which [`ClusterConfig::parse`] reads back.
    ///
    /// # Panics
    /// If a number is beyond what TOML can say, which [`ClusterConfig::validate`] refuses.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a valid configuration can be written as TOML")
    }

    /// The node of that number.
    pub fn entry(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.iter().find(|entry| entry.node() == node)
    }

    /// Where memory-mode nodes leave the mark that they have lived: `runtime_dir`, or a directory of this user and this
    /// group among the temporary files.
    ///
    /// Nodes create it if need be and never remove it or a mark; whoever knows that a whole cluster is gone may.
    pub fn runtime_dir(&self) -> PathBuf {
        self.runtime_dir.clone().unwrap_or_else(|| {
            // SAFETY: getuid has no preconditions and cannot fail.
            let uid = unsafe { libc::getuid() };
            std::env::temp_dir().join(format!("hovercraft-{uid}")).join(format!("group-{}", self.group))
        })
    }

    /// Where a node keeps its data: `node-<id>` in `data_dir`.
    ///
    /// # Errors
    /// If there is no `data_dir`.
    pub fn node_dir(&self, node: NodeId) -> Result<PathBuf, ConfigError> {
        let data_dir = self.data_dir.as_ref().ok_or(ConfigError::NoDataDir(self.durability.name()))?;
        Ok(data_dir.join(format!("node-{}", node.0)))
    }

    /// The members that a group begins with: all nodes but those that are to join it.
    pub fn first_membership(&self) -> Membership {
        let first = self.nodes.iter().filter(|entry| !entry.join);
        Membership::of_voters(first.map(|entry| (entry.member(), entry.addresses())))
    }

    /// What the core of a member needs to know. `life` is drawn at random for each process, or for each storage if it has
    /// one; `membership` is the one that its log begins with.
    pub fn node_config(&self, me: MemberId, life: u64, membership: Membership) -> NodeConfig {
        // Behind a router each node is a service of its own.
        let alone = self.mode == Mode::Unreplicated && self.router.is_some();
        let addresses = alone.then(|| membership.get(me).map(|member| member.addresses)).flatten();
        let membership = addresses.map_or(membership, |addresses| Membership::of_voters([(me, addresses)]));
        NodeConfig {
            group: GroupId(self.group),
            life,
            forwarders: self.forwarders(),
            registers: self.router.is_some(),
            mode: self.mode,
            durable: self.durability != Durability::Memory,
            seed: self.seed.map_or(life, |seed| seed ^ me.raft()),
            aggregator: self.aggregator(),
            timing: self.timing.timing(&self.aggregator),
            limits: self.limits.limits(self.packet_max(), self.snapshots.limits()),
            replier_choice: self.replier_choice,
            early_commit: self.early_commit,
            ..NodeConfig::new(me, membership)
        }
    }

    /// What the executing half of a node needs to know.
    pub fn applier_config(&self, node: NodeId) -> ApplierConfig {
        ApplierConfig {
            forwarders: self.forwarders(),
            reply_max: self.limits.reply_max,
            group_seed: self.seed.unwrap_or(0) ^ u64::from(self.group).rotate_left(32),
            sessions: SessionLimits {
                sessions_max: self.limits.sessions_max,
                session_expiry: Duration::from_secs(self.timing.session_expiry_s),
                cache_bytes_max: self.limits.reply_cache_bytes_max,
                ..SessionLimits::default()
            },
            skip: self.skip_entries.clone(),
            ..ApplierConfig::new(node)
        }
    }

    /// What a client needs to know.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            nodes: self.nodes.iter().map(|entry| (entry.node(), entry.requests)).collect(),
            group: match self.entrance() {
                Some(entrance) => Group::Unicast { members: vec![entrance] },
                None => self.request_fan_out(),
            },
            entrance: match (self.gateway, self.router) {
                (Some(_), _) => Entrance::Gateway,
                (None, Some(_)) => Entrance::Router,
                (None, None) => Entrance::Nodes,
            },
            ttl: self.ttl,
            mode: self.mode,
            give_up: Duration::from_millis(self.client.give_up_ms),
            outstanding_max: self.client.outstanding_max,
            request_max: self.limits.request_max,
            reply_max: self.limits.reply_max,
            spin: self.spin(),
            digest_key: r2p2::DigestKey::default(),
            seed: None,
        }
    }

    /// How requests reach all nodes.
    pub fn request_fan_out(&self) -> Group {
        self.group_at(self.request_group, |entry| entry.group_requests)
    }

    /// Where the aggregator is, in the mode that has one.
    pub fn aggregator(&self) -> Option<SocketAddrV4> {
        (self.mode == Mode::HovercraftPlusPlus).then_some(self.aggregator.address)
    }

    /// What the core of the aggregator needs to know. `life` is drawn at random for each process. It must receive what
    /// nodes say to all nodes ([`ClusterConfig::peer_fan_out`]), which without multicast they send to it by themselves.
    pub fn aggregator_config(&self, life: u64) -> AggregatorConfig {
        let group = multicast::aggregator::GroupConfig {
            group: GroupId(self.group),
            nodes: self.nodes.iter().map(|entry| entry.peers).collect(),
            multicast: (self.fan_out == FanOut::Multicast).then_some(self.peer_group),
        };
        let forward_after = Duration::from_micros(self.aggregator.forward_after_us);
        AggregatorConfig { forward_after, ..AggregatorConfig::new(life, vec![group]) }
    }

    /// How what nodes say reaches all nodes.
    pub fn peer_fan_out(&self) -> Group {
        self.group_at(self.peer_group, |entry| Some(entry.peers))
    }

    /// Whether this host can do what `fan_out` asks for, found out by trying.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    pub fn fan_out_works(&self) -> Result<(), multicast::ProbeError> {
        match self.fan_out {
            FanOut::Multicast => self.request_fan_out().probe(multicast::PROBE_PATIENCE),
            FanOut::Unicast => Ok(()),
        }
    }

    /// For how long threads look for work before they block.
    pub fn spin(&self) -> Duration {
        Duration::from_micros(self.spin_us)
    }

    /// Largest internal datagram.
    pub fn packet_max(&self) -> usize {
        let default = if self.leaves_this_machine() { Self::PACKET_MAX_NETWORK } else { Self::PACKET_MAX_LOOPBACK };
        self.limits.packet_max.unwrap_or(default)
    }

    /// Whether nodes talk to each other over a network that others can reach.
    fn leaves_this_machine(&self) -> bool {
        let peers = self.nodes.iter().any(|entry| !entry.peers.ip().is_loopback());
        let group = self.fan_out == FanOut::Multicast
            && match self.interface() {
                Interface::Loopback => false,
                Interface::Address(address) => !address.is_loopback(),
                // One that does not exist leads nowhere; no node will start with it.
                named @ Interface::Named(_) => named.resolve().is_ok_and(|interface| !interface.loopback),
            };
        let aggregator = self.aggregator().is_some_and(|address| !address.ip().is_loopback());
        peers || group || aggregator
    }

    fn interface(&self) -> Interface {
        self.interface.parse().unwrap_or_else(|never| match never {})
    }

    fn group_at(&self, address: SocketAddrV4, member: impl Fn(&NodeEntry) -> Option<SocketAddrV4>) -> Group {
        match self.fan_out {
            FanOut::Multicast => Group::Multicast { address, interface: self.interface() },
            FanOut::Unicast => Group::Unicast { members: self.nodes.iter().filter_map(member).collect() },
        }
    }
}
