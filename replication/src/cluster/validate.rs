//! What a configuration must fulfil, and what it is told if it does not.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use multicast::GroupError;

use super::{ClusterConfig, Durability, FanOut};
use crate::config::{Mode, Timing};
use crate::id::NodeId;
use crate::session::REPLY_COST;

/// Most nodes of a group.
pub const NODES_MAX: usize = 9;

/// Why a configuration cannot be used. Every message names the field and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error(
        "cannot read the configuration {}: {source}; check the path, or start without one for the defaults",
        path.display()
    )]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that was wrong with a file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// Which.
        path: PathBuf,
        /// What was wrong.
        error: Box<Self>,
    },
    /// Not TOML, or a value of the wrong kind.
    #[error("the configuration cannot be read:\n{0}")]
    Syntax(Box<toml::de::Error>),
    /// A key that does not exist.
    #[error(
        "there is no key `{key}`{}; the keys there are: {known}",
        nearest.as_ref().map(|nearest| format!(", did you mean `{nearest}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// The key with its sections.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
        /// All keys of that section.
        known: String,
    },
    /// An aggregator that other machines cannot reach.
    #[error(
        "aggregator.address is {address}, on this machine, but nodes are elsewhere ({peers}): write the address at which \
         they reach it, or choose mode = \"hovercraft\""
    )]
    AggregatorHere {
        /// Where it is.
        address: SocketAddrV4,
        /// Where one of the nodes is.
        peers: SocketAddrV4,
    },
    /// Nobody to join.
    #[error("every node of `nodes` has `join = true`: a group begins with those that have not; remove it from them")]
    NobodyFirst,
    /// Nowhere to keep data.
    #[error(
        "durability = \"{0}\" needs a place: set `data_dir` to a directory on a disk that stays, or choose durability = \
         \"memory\""
    )]
    NoDataDir(&'static str),
    /// The unreplicated mode has no log to keep.
    #[error("mode = \"unreplicated\" has no log, so nothing can be kept; set durability = \"memory\"")]
    UnreplicatedDurable,
    /// Too many nodes, or none.
    #[error("`nodes` lists {0} nodes, but a group has 1 to {NODES_MAX}; three survive one failure, five survive two")]
    NodeCount(usize),
    /// Not the unreplicated group's one node.
    #[error(
        "mode = \"unreplicated\" means one node and no copies, but `nodes` lists {0}; list one node, or choose mode = \
         \"hovercraft\"; or add [router] to have each work for itself"
    )]
    Unreplicated(usize),
    /// A router in front of copies of one service.
    #[error(
        "[router] spreads requests over nodes that know nothing of each other, so it needs mode = \"unreplicated\"; in front \
         of a group write [gateway] instead"
    )]
    RouterReplicated,
    /// An impossible number.
    #[error("nodes[{index}].id is {id}, but ids go from 1 to {}; choose another number", NodeId::MAX)]
    NodeNumber {
        /// Place in the list.
        index: usize,
        /// The number.
        id: u16,
    },
    /// Two nodes with the same number.
    #[error("node id {id} is used by nodes[{first}] and nodes[{second}]; give each node a number of its own")]
    SameId {
        /// The number.
        id: u16,
        /// One place in the list.
        first: usize,
        /// The other.
        second: usize,
    },
    /// An impossible incarnation.
    #[error("nodes[{index}].incarnation is 0; lives are counted from 1, write incarnation = 1")]
    Incarnation {
        /// Place in the list.
        index: usize,
    },
    /// Two sockets at one address.
    #[error("{address} is used for {first} and for {second}; each needs an address of its own, change one port")]
    SameAddress {
        /// The address.
        address: SocketAddrV4,
        /// One use.
        first: String,
        /// The other.
        second: String,
    },
    /// Not where a host can be.
    #[error("{field} is {address}, {why}; write the node's IPv4 address and a port, such as 127.0.0.1:7400")]
    NotAHost {
        /// Which field.
        field: String,
        /// Its value.
        address: SocketAddrV4,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A multicast group that cannot be one.
    #[error("{field}: {error}")]
    Group {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        error: GroupError,
    },
    /// Unicast fan-out needs a port more per node.
    #[error(
        "fan_out = \"unicast\" needs nodes[{index}].group_requests, the address at which the node receives what clients \
         send to all nodes; add it, with a port of its own beside `requests`"
    )]
    NoGroupRequests {
        /// Place in the list.
        index: usize,
    },
    /// Nothing authenticates nodes yet.
    #[error(
        "{what}: nodes do not authenticate each other yet, so anybody who can reach that network could take the group \
         over; keep it on loopback, or write insecure = true if the network is trusted"
    )]
    Insecure {
        /// What leaves this machine.
        what: String,
    },
    /// A number that cannot work.
    #[error("{field} is {value}, {why}")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        why: String,
    },
    /// A node that is not in the list.
    #[error("there is no node n{node} in `nodes`; the nodes are {}", known.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchNode {
        /// Its number.
        node: u16,
        /// Those there are.
        known: Vec<u16>,
    },
}

impl ClusterConfig {
    /// Checks everything that can be checked without opening a socket.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to do about it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_durability()?;
        self.validate_nodes()?;
        self.validate_addresses()?;
        self.validate_exposure()?;
        self.validate_numbers()
    }

    /// What is permitted and probably not meant: sentences for the person who starts the cluster.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let count = self.nodes.len();
        if count.is_multiple_of(2) {
            warnings.push(format!(
                "`nodes` lists {count} nodes, an even number: a majority is {}, so the group survives the failure of {} \
                 node(s), no more than {} nodes would; use {} or {} nodes",
                count / 2 + 1,
                (count - 1) / 2,
                count - 1,
                count - 1,
                count + 1,
            ));
        } else if count == 1 && self.mode != Mode::Unreplicated {
            warnings.push(
                "`nodes` lists a single node: nothing is replicated and no failure is survived; list three, or choose \
                 mode = \"unreplicated\", which is faster"
                    .to_owned(),
            );
        }
        if !self.skip_entries.is_empty() {
            warnings.push(format!(
                "skip_entries = {:?}: these entries are not executed on this node; they must not be on any other",
                self.skip_entries,
            ));
        }
        if self.faults.any() {
            warnings.push(format!(
                "[faults] makes every node lose {} % and double {} % of its datagrams on purpose; remove the section to \
                 stop that",
                self.faults.loss * 100.0,
                self.faults.duplicate * 100.0,
            ));
        }
        warnings
    }

    /// What to say when somebody asks for a node that is not in here.
    pub fn no_such_node(&self, node: NodeId) -> ConfigError {
        ConfigError::NoSuchNode { node: node.0, known: self.nodes.iter().map(|entry| entry.id).collect() }
    }

    fn validate_durability(&self) -> Result<(), ConfigError> {
        if self.durability == Durability::Memory {
            return Ok(());
        }
        if self.mode == Mode::Unreplicated {
            return Err(ConfigError::UnreplicatedDurable);
        }
        if self.data_dir.is_none() {
            return Err(ConfigError::NoDataDir(self.durability.name()));
        }
        Ok(())
    }

    fn validate_nodes(&self) -> Result<(), ConfigError> {
        let count = self.nodes.len();
        if !(1..=NODES_MAX).contains(&count) {
            return Err(ConfigError::NodeCount(count));
        }
        if self.router.is_some() && self.mode != Mode::Unreplicated {
            return Err(ConfigError::RouterReplicated);
        }
        if self.mode == Mode::Unreplicated && count != 1 && self.router.is_none() {
            return Err(ConfigError::Unreplicated(count));
        }
        if self.nodes.iter().all(|entry| entry.join) {
            return Err(ConfigError::NobodyFirst);
        }
        let mut ids = BTreeMap::new();
        for (index, entry) in self.nodes.iter().enumerate() {
            if !(1..=NodeId::MAX).contains(&entry.id) {
                return Err(ConfigError::NodeNumber { index, id: entry.id });
            }
            if entry.incarnation == 0 {
                return Err(ConfigError::Incarnation { index });
            }
            if let Some(first) = ids.insert(entry.id, index) {
                return Err(ConfigError::SameId { id: entry.id, first, second: index });
            }
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        let mut used: BTreeMap<SocketAddrV4, String> = BTreeMap::new();
        let mut claim = |address: SocketAddrV4, field: String| match used.insert(address, field.clone()) {
            None => Ok(()),
            Some(first) => Err(ConfigError::SameAddress { address, first, second: field }),
        };
        for (index, entry) in self.nodes.iter().enumerate() {
            if self.fan_out == FanOut::Unicast && entry.group_requests.is_none() {
                return Err(ConfigError::NoGroupRequests { index });
            }
            let addresses = [
                ("requests", Some(entry.requests)),
                ("group_requests", entry.group_requests),
                ("peers", Some(entry.peers)),
            ];
            for (name, address) in addresses {
                let Some(address) = address else { continue };
                let field = format!("nodes[{index}].{name}");
                check_host(&field, address)?;
                claim(address, field)?;
            }
        }
        if let Some(address) = self.aggregator() {
            let field = "aggregator.address";
            check_host(field, address)?;
            claim(address, field.to_owned())?;
            let elsewhere = self.nodes.iter().find(|entry| !entry.peers.ip().is_loopback());
            if let Some(entry) = elsewhere.filter(|_| address.ip().is_loopback()) {
                return Err(ConfigError::AggregatorHere { address, peers: entry.peers });
            }
        }
        let gateway = self.gateway.map(|gateway| ("gateway.address", gateway.address));
        let router = self.router.map(|router| ("router.address", router.address));
        for (field, address) in gateway.into_iter().chain(router) {
            check_host(field, address)?;
            claim(address, field.to_owned())?;
        }
        if self.fan_out == FanOut::Multicast {
            let groups = [
                ("request_group", self.request_group, self.request_fan_out()),
                ("peer_group", self.peer_group, self.peer_fan_out()),
            ];
            for (field, address, group) in groups {
                group.validate().map_err(|error| ConfigError::Group { field, error })?;
                claim(address, field.to_owned())?;
            }
        }
        Ok(())
    }

    fn validate_exposure(&self) -> Result<(), ConfigError> {
        if self.insecure || !self.leaves_this_machine() {
            return Ok(());
        }
        let exposed = self.nodes.iter().position(|entry| !entry.peers.ip().is_loopback());
        Err(ConfigError::Insecure {
            what: match exposed {
                None if self.aggregator().is_some_and(|address| !address.ip().is_loopback()) => {
                    format!("aggregator.address is {}, outside this machine", self.aggregator.address)
                }
                Some(index) => format!("nodes[{index}].peers is {}, outside this machine", self.nodes[index].peers),
                None => format!("interface = \"{}\" carries the nodes' multicast outside this machine", self.interface),
            },
        })
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let (limits, snapshots) = (&self.limits, &self.snapshots);
        let counts = [
            ("limits.request_max", limits.request_max, 1, 16 << 20),
            ("limits.reply_max", limits.reply_max, 1, 16 << 20),
            ("limits.packet_max", self.packet_max(), 512, r2p2::udp::DATAGRAM_MAX),
            ("limits.replier_queue_max", limits.replier_queue_max, 1, 1 << 20),
            ("limits.window_entries_max", limits.window_entries_max, 1, 1 << 20),
            ("limits.window_bytes_max", limits.window_bytes_max, limits.request_max, 1 << 34),
            ("limits.batch_entries_max", limits.batch_entries_max, 1, 1 << 16),
            (
                "limits.in_step_entries_max",
                usize::try_from(limits.in_step_entries_max).unwrap_or(usize::MAX),
                1,
                1 << 24,
            ),
            ("limits.unordered_count_max", limits.unordered_count_max, 1, 1 << 24),
            ("limits.unordered_bytes_max", limits.unordered_bytes_max, limits.request_max, 1 << 36),
            ("limits.log_entries_max", limits.log_entries_max, limits.window_entries_max, 1 << 30),
            ("limits.log_bytes_max", limits.log_bytes_max, limits.window_bytes_max, 1 << 40),
            ("limits.snapshot_bytes", limits.snapshot_bytes, 1 << 16, 1 << 40),
            ("limits.snapshot_entries", usize::try_from(limits.snapshot_entries).unwrap_or(usize::MAX), 1, 1 << 40),
            ("limits.sessions_max", limits.sessions_max, 1, 1 << 24),
            ("limits.reply_cache_bytes_max", limits.reply_cache_bytes_max, limits.reply_max + REPLY_COST, 1 << 36),
            ("limits.receive_buffer", limits.receive_buffer, 4096, 1 << 30),
            ("limits.send_buffer", limits.send_buffer, 4096, 1 << 30),
            ("snapshots.chunks_in_flight_max", snapshots.chunks_in_flight_max, 1, 1 << 10),
            ("snapshots.reads_in_flight_max", snapshots.reads_in_flight_max, 1, 1 << 12),
            ("snapshots.hold_entries_max", snapshots.hold_entries_max, 0, 1 << 30),
            ("snapshots.hold_bytes_max", snapshots.hold_bytes_max, 0, 1 << 40),
            ("client.outstanding_max", self.client.outstanding_max, 1, 32_768),
        ];
        for (field, value, min, max) in counts {
            in_range(field, value as u64, min as u64, max as u64)?;
        }
        let timing = &self.timing;
        let hour_ms = 3_600_000;
        let times = [
            ("timing.tick_ms", timing.tick_ms, 1, 10_000),
            ("timing.fresh_ms", timing.fresh_ms, timing.tick_ms * Timing::HEARTBEAT_TICKS as u64, hour_ms),
            ("timing.append_retry_min_us", timing.append_retry_min_us, 1, 1000 * hour_ms),
            (
                "timing.append_retry_max_ms",
                timing.append_retry_max_ms,
                timing.append_retry_min_us.div_ceil(1000),
                hour_ms,
            ),
            ("aggregator.forward_after_us", self.aggregator.forward_after_us, 0, 1_000_000),
            ("aggregator.deadline_min_us", self.aggregator.deadline_min_us, 1, timing.append_retry_max_ms * 1000),
            ("aggregator.arm_retry_min_ms", self.aggregator.arm_retry_min_ms, 1, hour_ms),
            (
                "aggregator.arm_retry_max_ms",
                self.aggregator.arm_retry_max_ms,
                self.aggregator.arm_retry_min_ms,
                hour_ms,
            ),
            ("timing.hint_after_ms", timing.hint_after_ms, 1, hour_ms),
            ("timing.deaf_window_ms", timing.deaf_window_ms, 1, hour_ms),
            ("timing.stuck_after_ms", timing.stuck_after_ms, 1, hour_ms),
            ("timing.join_patience_ms", timing.join_patience_ms, 1, hour_ms),
            ("snapshots.keep_after_use_ms", snapshots.keep_after_use_ms, 1, 24 * hour_ms),
            ("snapshots.retry_after_ms", snapshots.retry_after_ms, 1, hour_ms),
            // What followers keep bodies for, minus two retransmission timeouts of the default client.
            ("timing.order_age_max_ms", timing.order_age_max_ms, 1, 2000),
            ("timing.applied_report_us", timing.applied_report_us, 1, 1000 * hour_ms),
            // Clients replace a session that was idle for a minute.
            ("timing.session_expiry_s", timing.session_expiry_s, 120, 1 << 32),
            ("client.give_up_ms", self.client.give_up_ms, 1, hour_ms),
            ("ttl", u64::from(self.ttl), 0, 255),
            ("spin_us", self.spin_us, 0, 1000 * hour_ms),
            // TOML has no larger numbers.
            ("seed", self.seed.unwrap_or(0), 0, i64::MAX as u64),
            ("faults.seed", self.faults.seed, 0, i64::MAX as u64),
        ];
        for (field, value, min, max) in times {
            in_range(field, value, min, max)?;
        }
        self.validate_forwarders()?;
        for (field, value) in [("faults.loss", self.faults.loss), ("faults.duplicate", self.faults.duplicate)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Value {
                    field,
                    value: value.to_string(),
                    why: "but is a probability from 0 to 1; for one percent write 0.01".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// What sits between clients and nodes.
impl ClusterConfig {
    fn validate_forwarders(&self) -> Result<(), ConfigError> {
        let hour_ms = 3_600_000;
        if let Some(gateway) = &self.gateway {
            for (field, value, min, max) in [
                ("gateway.in_flight_max", gateway.in_flight_max as u64, 1, 1 << 20),
                ("gateway.delay_target_us", gateway.delay_target_us.unwrap_or(1), 1, hour_ms * 1000),
                ("gateway.credit_deadline_ms", gateway.credit_deadline_ms, 1, hour_ms),
                ("gateway.remember_ms", gateway.remember_ms, gateway.credit_deadline_ms, 24 * hour_ms),
                ("gateway.remembered_max", gateway.remembered_max as u64, gateway.in_flight_max as u64, 1 << 26),
            ] {
                in_range(field, value, min, max)?;
            }
        }
        if let Some(router) = &self.router {
            for (field, value, min, max) in [
                ("router.bound", router.bound as u64, 1, 1 << 16),
                ("router.waiting_max", router.waiting_max as u64, 1, 1 << 20),
                ("router.waiting_age_max_ms", router.waiting_age_max_ms, 1, hour_ms),
                ("router.credit_deadline_ms", router.credit_deadline_ms, 1, hour_ms),
                // Nodes say every 250 ms that they are there.
                ("router.silence_ms", router.silence_ms, 300, hour_ms),
            ] {
                in_range(field, value, min, max)?;
            }
        }
        Ok(())
    }
}

fn check_host(field: &str, address: SocketAddrV4) -> Result<(), ConfigError> {
    let ip = address.ip();
    let why = if address.port() == 0 {
        "without a port others could know"
    } else if ip.is_multicast() {
        "a multicast address"
    } else if ip.is_unspecified() || ip.is_broadcast() {
        "not the address of one host"
    } else {
        return Ok(());
    };
    Err(ConfigError::NotAHost { field: field.to_owned(), address, why })
}

fn in_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value { field, value: value.to_string(), why: format!("but must be from {min} to {max}") })
}
