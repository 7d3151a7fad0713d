//! What kind of world.

use std::time::Duration;

use hovercraft::session::SessionLimits;
use hovercraft::{Membership, NodeConfig};
use multicast::gateway::GatewayConfig;
use r2p2::client::ClientConfig;

use super::addresses::member;
use super::clock::ClockConfig;
use super::disk::DiskConfig;
use crate::NetworkConfig;
use crate::recording::RecordingConfig;

/// What kind of world.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Decides everything.
    pub seed: u64,
    /// Nodes that the group begins with.
    pub nodes: u16,
    /// Hosts on which nothing runs at first, numbered after those of the nodes: [`World::admit`](crate::World::admit).
    pub spares: u16,
    /// Hosts for aggregators, each with one that runs from the beginning if it is the first; they are of use in mode
    /// `hovercraft++` only.
    pub aggregators: u16,
    /// The gateway, to which clients send then; nodes and receivers are filled in.
    pub gateway: Option<GatewayConfig>,
    /// Clients.
    pub clients: usize,
    /// How many of them, the first ones, do without sessions.
    pub plain_clients: usize,
    /// The network.
    pub network: NetworkConfig,
    /// The disks of nodes that have one, because `node.durable` says so, and how fast archives are.
    pub disk: DiskConfig,
    /// The clocks of nodes and clients.
    pub clocks: ClockConfig,
    /// What all nodes have in common; identity, seed and voters are filled in. The service's version is what hosts begin
    /// with: [`World::set_service_version`](crate::World::set_service_version).
    pub node: NodeConfig,
    /// The session table of all nodes.
    pub sessions: SessionLimits,
    /// What all clients have in common. At first they know the nodes that the group begins with.
    pub client: ClientConfig,
    /// Whether clients send a copy to each node that they know of, instead of one that the network copies to all.
    pub unicast: bool,
    /// Whether a violated invariant ends the run ([`World::violation`](crate::World::violation)) rather than panics.
    pub collect: bool,
    /// What is recorded ([`World::take_recording`](crate::World::take_recording)); nothing if none.
    pub recording: Option<RecordingConfig>,
}

impl WorldConfig {
    /// A quiet world.
    pub fn new(seed: u64, nodes: u16) -> Self {
        let client = ClientConfig {
            retransmit_min: Duration::from_millis(2),
            retransmit_max: Duration::from_millis(100),
            give_up: Duration::from_secs(5),
            ..ClientConfig::default()
        };
        Self {
            seed,
            nodes,
            spares: 0,
            aggregators: 0,
            gateway: None,
            clients: 1,
            plain_clients: 0,
            network: NetworkConfig::default(),
            disk: DiskConfig::default(),
            clocks: ClockConfig::default(),
            node: NodeConfig { archive: true, ..NodeConfig::new(member(1), Membership::default()) },
            sessions: SessionLimits::default(),
            client,
            unicast: false,
            collect: false,
            recording: None,
        }
    }

    /// Hosts, with a node or without.
    pub fn hosts(&self) -> u16 {
        self.nodes + self.spares
    }
}
