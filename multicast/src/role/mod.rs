//! What sits between clients and nodes: a [`Role`] is one core of it, [`start`] the one shell around all of them.
//!
//! A role (aggregator, gateway, router) is a process of its own that keeps only soft state: what it forgets costs
//! performance, never safety. Its core is sans-IO, like a node's: it reads no clock, opens no socket, starts no thread and
//! draws no random number, so that the simulator drives the same code.
//!
//! # Contract
//!
//! *Mutate, then drain.* After `handle_packet` or `handle_timeout` (or a batch of them) the shell calls
//! [`Role::poll_output`] until it says [`Output::Timeout`], obeys each output, and calls `handle_timeout` when that time
//! has come. Time does not run backwards. Any bytes from anybody are safe: what a core refuses it counts, by reason.
//!
//! The shell owns one socket at the role's own address, from which everything is sent, and any number on which it only
//! listens (a multicast group that the role has joined). A core is not told on which of them a packet came.
//!
//! Questions of operators (extension *admin*, protocol.md §3.3) never reach a core: the shell answers them with a
//! [`RoleStatus`].

mod shell;
mod status;

#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;
use r2p2::Instant;

pub use shell::{RoleError, RoleOptions, RoleStartError, RoleStopper, RunningRole, start};
pub use status::{CounterValue, RoleStatus};

/// The core of something that sits in the network. See the module for the contract.
pub trait Role: Send + 'static {
    /// What it is called in logs, in `status` and as the name of its thread: one word.
    const NAME: &'static str;

    /// Takes in a UDP payload that came from `from`. Any bytes are safe.
    fn handle_packet(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]);

    /// Does what is due at `now`. Harmless if nothing is.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing for the shell to do.
    fn poll_output(&mut self, now: Instant) -> Output;

    /// What has been counted since the start, by reason. Names are words with underscores and never go away.
    fn counters(&self) -> Vec<(String, u64)>;

    /// What is so now, and may be less a moment later.
    fn gauges(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// What a core wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this UDP payload, in the order of the outputs.
    Send {
        /// Where to.
        to: To,
        /// The whole UDP payload.
        packet: Bytes,
    },
    /// Nothing more to do now. Call `handle_timeout` at this time at the latest; [`Instant::FAR_FUTURE`] for never.
    Timeout(Instant),
}

/// Where a packet goes: who receives it is decided in the core, the shell only obeys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To {
    /// To one address, which may be a multicast group's.
    One(SocketAddrV4),
    /// To each of them.
    Each(Arc<[SocketAddrV4]>),
}

impl To {
    /// The addresses.
    pub fn addresses(&self) -> &[SocketAddrV4] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Each(addresses) => addresses,
        }
    }
}
