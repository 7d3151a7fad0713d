//! What sits between clients and nodes: the gateway, the router, and where what is counted can be read.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use multicast::gateway::GatewayConfig;
use r2p2::router::{Choice, RouterConfig};
use serde::{Deserialize, Serialize};

use super::{ClusterConfig, LocalPorts};

/// The gateway (protocol.md §9): admission in front of the group. Clients of a configuration with this section send to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySection {
    /// Where it receives, and sends from. Nodes believe it whose request it passes on.
    pub address: SocketAddrV4,
    /// Where its counters can be read by HTTP (`/metrics`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddrV4>,
    /// Most requests admitted and not answered.
    pub in_flight_max: usize,
    /// Admits only what the nodes can answer within this time, in microseconds, by how fast they have been lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_target_us: Option<u64>,
    /// After how long an unanswered request counts as answered.
    pub credit_deadline_ms: u64,
    /// How long an admitted operation is known, so that its retransmissions pass.
    pub remember_ms: u64,
    /// Most operations known.
    pub remembered_max: usize,
}

impl Default for GatewaySection {
    fn default() -> Self {
        let gateway = GatewayConfig::default();
        Self {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, LocalPorts::BASE_DEFAULT + 6),
            metrics: None,
            in_flight_max: gateway.in_flight_max,
            delay_target_us: None,
            credit_deadline_ms: millis(gateway.credit_deadline),
            remember_ms: millis(gateway.remember),
            remembered_max: gateway.remembered_max,
        }
    }
}

/// The router (protocol.md §9): load balancing over nodes of mode `unreplicated`, each of which is a worker of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterSection {
    /// Where it receives, and sends from. Nodes believe it whose request it passes on.
    pub address: SocketAddrV4,
    /// Where its counters can be read by HTTP (`/metrics`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddrV4>,
    /// How it chooses a worker.
    pub choice: RouterChoice,
    /// Most requests at a worker, with `jbsq`.
    pub bound: usize,
    /// Most requests that wait for a worker.
    pub waiting_max: usize,
    /// How long they may.
    pub waiting_age_max_ms: u64,
    /// After how long an unanswered request counts as answered.
    pub credit_deadline_ms: u64,
    /// How long a worker may be silent before it is none any more. They say every 250 ms that they are.
    pub silence_ms: u64,
}

/// How a router chooses a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterChoice {
    /// At most `bound` requests at a worker, the others wait at the router for whoever is free first.
    #[default]
    Jbsq,
    /// The worker with the fewest unanswered.
    ShortestQueue,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

impl From<RouterChoice> for Choice {
    fn from(choice: RouterChoice) -> Self {
        match choice {
            RouterChoice::Jbsq => Self::Jbsq,
            RouterChoice::ShortestQueue => Self::ShortestQueue,
            RouterChoice::RoundRobin => Self::RoundRobin,
            RouterChoice::Random => Self::Random,
        }
    }
}

impl Default for RouterSection {
    fn default() -> Self {
        let router = RouterConfig::default();
        Self {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, LocalPorts::BASE_DEFAULT + 7),
            metrics: None,
            choice: RouterChoice::default(),
            bound: router.bound,
            waiting_max: router.waiting_max,
            waiting_age_max_ms: millis(router.waiting_age_max),
            credit_deadline_ms: millis(router.credit_deadline),
            silence_ms: millis(router.silence),
        }
    }
}

impl ClusterConfig {
    /// What the core of the gateway needs to know, if there is one.
    pub fn gateway_config(&self) -> Option<GatewayConfig> {
        let section = self.gateway?;
        Some(GatewayConfig {
            receivers: self.request_fan_out().receivers().into(),
            nodes: self.nodes.iter().map(|entry| entry.requests).collect(),
            in_flight_max: section.in_flight_max,
            delay_target: section.delay_target_us.map(Duration::from_micros),
            credit_deadline: Duration::from_millis(section.credit_deadline_ms),
            remember: Duration::from_millis(section.remember_ms),
            remembered_max: section.remembered_max,
        })
    }

    /// What the core of the router needs to know, if there is one.
    pub fn router_config(&self) -> Option<RouterConfig> {
        let section = self.router?;
        Some(RouterConfig {
            choice: section.choice.into(),
            bound: section.bound,
            permitted: Some(self.nodes.iter().map(|entry| entry.requests).collect()),
            silence: Duration::from_millis(section.silence_ms),
            credit_deadline: Duration::from_millis(section.credit_deadline_ms),
            waiting_max: section.waiting_max,
            waiting_age_max: Duration::from_millis(section.waiting_age_max_ms),
            ..RouterConfig::default()
        })
    }

    /// Where clients send what is for the group, if not to its nodes.
    pub fn entrance(&self) -> Option<SocketAddrV4> {
        self.gateway.map(|gateway| gateway.address).or(self.router.map(|router| router.address))
    }

    /// Whom nodes believe whose request they pass on, and tell what is answered.
    pub fn forwarders(&self) -> Vec<SocketAddrV4> {
        let gateway = self.gateway.map(|gateway| gateway.address);
        let router = self.router.map(|router| router.address);
        gateway.into_iter().chain(router).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("defaults are short")
}
