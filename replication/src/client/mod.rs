//! Talking to a group: [`Client`] does one thing at a time, [`PipelinedClient`] many, [`status`] asks a node about
//! itself.
//!
//! Everything here is a thin shell around [`r2p2::client`], which does the work: sessions, retransmission, matching of
//! answers; and around [`Endpoint`], which keeps knowing who the nodes are, so that all of them can be replaced while
//! operations are in flight. Neither client has a thread of its own: a socket is read and retransmissions are sent while the caller
//! waits in one of its methods.
//!
//! ```no_run
//! use hovercraft::client::{Client, Outcome};
//! use hovercraft::cluster::ClusterConfig;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect(&ClusterConfig::default().client_options())?;
//! match client.write("increment") {
//!     Outcome::Ok(reply) => println!("{reply:?}"),
//!     // Not an error like others: it may have been executed.
//!     Outcome::Unknown => println!("no answer; a read tells whether it happened"),
//!     other => println!("{other:?}"),
//! }
//! # Ok(()) }
//! ```

mod backup;
mod blocking;
mod directory;
mod endpoint;
mod operator;
mod pipelined;
mod search;
mod status;
#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::time::Duration;

use multicast::{Group, SenderError};
use r2p2::DigestKey;
use r2p2::client::{ClientConfig, Route};
use r2p2::udp::SetupError;

pub use backup::BackupError;
pub use blocking::Client;
pub use endpoint::{Contacts, Endpoint, EndpointOutput, Recipient};
pub use operator::{Accepted, Operator, OperatorError};
pub use pipelined::PipelinedClient;
pub use r2p2::client::{ClientCounters, Completion, Kind, NotExecuted, Outcome, SubmitError, Ticket};
pub use search::SearchCounters;
pub use status::{StatusError, role_status, status};

use crate::config::Mode;
use crate::id::NodeId;

/// What a client needs to know about a group; from [`crate::cluster::ClusterConfig::client_options`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Nodes, and where each receives requests for it alone. The client finds out who the others are, and who comes later;
    /// one that is up when it starts is enough.
    pub nodes: Vec<(NodeId, SocketAddrV4)>,
    /// How a request reaches all nodes. A list of addresses changes with the members, as `nodes` does.
    pub group: Group,
    /// What that is: the nodes, or somebody in front of them, who stays whoever the nodes are.
    pub entrance: Entrance,
    /// How many networks multicast may cross, this one included.
    pub ttl: u32,
    /// The group's mode: decides whom a request is sent to first.
    pub mode: Mode,
    /// How long an operation may take before it ends as [`Outcome::Unknown`].
    pub give_up: Duration,
    /// Most operations in flight; as many again wait in the client before [`SubmitError::Full`].
    pub outstanding_max: usize,
    /// Longest request.
    pub request_max: usize,
    /// Longest reply.
    pub reply_max: usize,
    /// For how long a wait looks for answers again and again before it blocks.
    pub spin: Duration,
    /// Key of the digests on long requests; the nodes' own.
    pub digest_key: DigestKey,
    /// Makes the little randomness there is reproducible: request ids, jitter. Two clients that use one address one
    /// after the other need different ones; `None` draws one.
    pub seed: Option<u64>,
}

/// Whom a client sends requests to that are for the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Entrance {
    /// The nodes.
    #[default]
    Nodes,
    /// The gateway, which answers with DROP if it lets nothing more through. A client that hears nothing at all for long
    /// goes around it.
    Gateway,
    /// The router. Each request may go to another server, so there are no sessions: nothing is sent again, and what is not
    /// answered ends as unknown.
    Router,
}

/// After how many timeouts a client goes around a gateway: it is silent only if it is not there.
const AROUND_GATEWAY_AFTER: u32 = 6;

impl ClientOptions {
    /// A client core as [`PipelinedClient`] has one: for shells with sockets of their own, such as a load generator.
    pub fn endpoint(&self, seed: u64) -> Endpoint {
        Endpoint::new(self.core(), self.contacts(), seed)
    }

    /// Nothing says that the configuration is that of the group as it is now.
    fn contacts(&self) -> Contacts {
        let group_stays = self.entrance != Entrance::Nodes;
        Contacts { epoch: 0, nodes: self.nodes.clone(), group: self.group.clone(), group_stays }
    }

    fn core(&self) -> ClientConfig {
        let config = ClientConfig {
            fan_out: match self.mode {
                Mode::Hovercraft | Mode::HovercraftPlusPlus => Route::Group,
                Mode::Raft | Mode::Unreplicated => Route::Sticky,
            },
            give_up: self.give_up,
            outstanding_max: self.outstanding_max,
            held_max: self.outstanding_max,
            request_max: self.request_max,
            reply_max: self.reply_max,
            digest_key: self.digest_key,
            ..ClientConfig::default()
        };
        // What is passed on is longer, and is to fit the network still.
        let passed_on = ClientConfig {
            fan_out: Route::Group,
            packet_max: config.packet_max - r2p2::FORWARDED_LEN,
            unicast_after: AROUND_GATEWAY_AFTER,
            ..config.clone()
        };
        match self.entrance {
            Entrance::Nodes => config,
            Entrance::Gateway => passed_on,
            Entrance::Router => {
                ClientConfig { sessions: false, policy: Some(r2p2::wire::Policy::LoadBalanced), ..passed_on }
            }
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No socket that could send to the group.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The socket cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}
