//! Starts what sits between clients and nodes ([`multicast::role`]) as the configuration says.

use std::net::UdpSocket;

use multicast::SenderError;
use multicast::aggregator::Aggregator;
use multicast::gateway::Gateway;
use multicast::role::{self, Role, RoleOptions, RunningRole};
use r2p2::router::Router;
use r2p2::udp::{Clock, SocketOptions};

use super::{StartError, sockets};
use crate::cluster::{ClusterConfig, ConfigError, FanOut};
use crate::entropy;

/// Why a role does not start.
#[derive(Debug, thiserror::Error)]
pub enum RoleStartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has no such role.
    #[error("the configuration has no [{section}]: add it, with an `address` for the {section} to be at")]
    NoSection {
        /// Which section is missing.
        section: &'static str,
    },
    /// Its address cannot be used.
    #[error(transparent)]
    Socket(#[from] StartError),
    /// The group cannot be sent to.
    #[error("`request_group`: {0}")]
    Sender(#[from] SenderError),
    /// The nodes' group cannot be sent to.
    #[error("`peer_group`: {0}")]
    PeerSender(SenderError),
    /// What nodes say to each other cannot be heard.
    #[error("`peer_group`: {0}")]
    Join(#[from] multicast::JoinError),
    /// Another mode.
    #[error("mode = \"{mode}\" has no aggregator; write mode = \"hovercraft++\"")]
    NoAggregator {
        /// The mode.
        mode: &'static str,
    },
    /// It cannot run.
    #[error(transparent)]
    Role(#[from] role::RoleStartError),
}

/// Starts the gateway of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn gateway(config: &ClusterConfig) -> Result<RunningRole, RoleStartError> {
    config.validate()?;
    let no_section = RoleStartError::NoSection { section: "gateway" };
    let (Some(section), Some(gateway)) = (config.gateway, config.gateway_config()) else { return Err(no_section) };
    let socket = sockets::bind("gateway.address", section.address)?;
    config.request_fan_out().configure_sender(&socket, config.ttl)?;
    start(config, Gateway::new(gateway, entropy::draw()), socket, Vec::new())
}

/// Starts the router of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn router(config: &ClusterConfig) -> Result<RunningRole, RoleStartError> {
    config.validate()?;
    let no_section = RoleStartError::NoSection { section: "router" };
    let (Some(section), Some(router)) = (config.router, config.router_config()) else { return Err(no_section) };
    let socket = sockets::bind("router.address", section.address)?;
    start(config, Router::new(router, entropy::draw()), socket, Vec::new())
}

/// Starts the aggregator of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn aggregator(config: &ClusterConfig) -> Result<RunningRole, RoleStartError> {
    config.validate()?;
    let no_aggregator = RoleStartError::NoAggregator { mode: config.mode.name() };
    let address = config.aggregator().ok_or(no_aggregator)?;
    let socket = sockets::bind("aggregator.address", address)?;
    let group = config.peer_fan_out();
    group.configure_sender(&socket, config.ttl).map_err(RoleStartError::PeerSender)?;
    let joined = match config.fan_out {
        FanOut::Multicast => vec![group.join(address)?],
        // Nodes send it a copy.
        FanOut::Unicast => Vec::new(),
    };
    start(config, Aggregator::new(config.aggregator_config(entropy::draw())), socket, joined)
}

fn start<R: Role>(
    config: &ClusterConfig,
    core: R,
    own: UdpSocket,
    joined: Vec<UdpSocket>,
) -> Result<RunningRole, RoleStartError> {
    let socket = SocketOptions {
        receive_buffer: config.limits.receive_buffer,
        send_buffer: config.limits.send_buffer,
        ..SocketOptions::default()
    };
    // An aggregator hears what nodes say to each other.
    let socket = SocketOptions { datagram_max: socket.datagram_max.max(config.packet_max()), ..socket };
    let options = RoleOptions { group: config.group, spin: config.spin(), socket };
    Ok(role::start(core, Clock::new(), own, joined, options)?)
}
