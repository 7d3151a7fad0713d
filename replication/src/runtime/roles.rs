//! Starts what sits between clients and nodes ([`multicast::role`]) as the configuration says.

use std::net::{SocketAddrV4, UdpSocket};

use multicast::SenderError;
use multicast::aggregator::Aggregator;
use multicast::gateway::Gateway;
use multicast::role::{self, Role, RoleError, RoleOptions, RoleStopper, RunningRole};
use r2p2::router::Router;
use r2p2::udp::{Clock, SocketOptions};

use super::{StartError, sockets};
use crate::cluster::{ClusterConfig, ConfigError, FanOut};
use crate::entropy;
use crate::metrics::{MetricsError, MetricsServer, Subject};

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
    /// Its numbers cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// It cannot run.
    #[error(transparent)]
    Role(#[from] role::RoleStartError),
}

/// Starts the gateway of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn gateway(config: &ClusterConfig) -> Result<RunningPart, RoleStartError> {
    config.validate()?;
    let no_section = RoleStartError::NoSection { section: "gateway" };
    let (Some(section), Some(gateway)) = (config.gateway, config.gateway_config()) else { return Err(no_section) };
    let socket = sockets::bind("gateway.address", section.address)?;
    config.request_fan_out().configure_sender(&socket, config.ttl)?;
    start(config, Gateway::new(gateway, entropy::draw()), socket, Vec::new(), section.metrics, 0)
}

/// Starts the router of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn router(config: &ClusterConfig) -> Result<RunningPart, RoleStartError> {
    config.validate()?;
    let no_section = RoleStartError::NoSection { section: "router" };
    let (Some(section), Some(router)) = (config.router, config.router_config()) else { return Err(no_section) };
    let socket = sockets::bind("router.address", section.address)?;
    start(config, Router::new(router, entropy::draw()), socket, Vec::new(), section.metrics, 0)
}

/// Starts the aggregator of a configuration, as a thread of this process.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn aggregator(config: &ClusterConfig) -> Result<RunningPart, RoleStartError> {
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
    let core = Aggregator::new(config.aggregator_config(entropy::draw()));
    // It hears what nodes say to each other.
    start(config, core, socket, joined, config.aggregator.metrics, config.packet_max())
}

fn start<R: Role>(
    config: &ClusterConfig,
    core: R,
    own: UdpSocket,
    joined: Vec<UdpSocket>,
    metrics: Option<SocketAddrV4>,
    datagram_max: usize,
) -> Result<RunningPart, RoleStartError> {
    let socket = SocketOptions {
        receive_buffer: config.limits.receive_buffer,
        send_buffer: config.limits.send_buffer,
        ..SocketOptions::default()
    };
    let socket = SocketOptions { datagram_max: socket.datagram_max.max(datagram_max), ..socket };
    let options = RoleOptions { group: config.group, spin: config.spin(), socket };
    let running = role::start(core, Clock::new(), own, joined, options)?;
    let subject = Subject::Role(running.address());
    let metrics = metrics.map(|address| MetricsServer::start(address, subject, config.client_options())).transpose()?;
    Ok(RunningPart { running, metrics })
}

/// A role that runs on threads of this process, and its numbers if the configuration says where to serve them. Dropping
/// it stops it and waits until it has stopped.
#[derive(Debug)]
pub struct RunningPart {
    running: RunningRole,
    metrics: Option<MetricsServer>,
}

impl RunningPart {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.running.name()
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddrV4 {
        self.running.address()
    }

    /// Where its numbers are read, if anywhere.
    pub fn metrics(&self) -> Option<SocketAddrV4> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Asks it to stop, and returns at once.
    pub fn stop(&self) {
        self.running.stop();
    }

    /// A handle to stop it from elsewhere.
    pub fn stopper(&self) -> RoleStopper {
        self.running.stopper()
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to.
    pub fn wait(self) -> Result<(), RoleError> {
        self.running.wait()
    }
}
