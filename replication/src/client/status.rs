//! Asking a node about itself.

use std::io;
use std::net::SocketAddrV4;

use bytes::Bytes;
use multicast::role::RoleStatus;
use prost::Message as _;
use r2p2::client::{Outcome, SubmitError};

use super::{ClientOptions, ConnectError, PipelinedClient};
use crate::id::NodeId;
use crate::node::StatusReport;

/// Asks the node `node` about itself, and waits for its answer for at most [`ClientOptions::give_up`].
///
/// # Errors
/// Why there is no report, and what to do about it.
pub fn status(options: &ClientOptions, node: NodeId) -> Result<StatusReport, StatusError> {
    let Some((_, address)) = options.nodes.iter().copied().find(|(id, _)| *id == node) else {
        return Err(StatusError::NoSuchNode { node, known: options.nodes.iter().map(|(id, _)| *id).collect() });
    };
    match ask(options, address)? {
        Outcome::Ok(report) => StatusReport::decode(report).map_err(|_| StatusError::Unreadable { node, address }),
        Outcome::Unknown => Err(StatusError::NoAnswer { node, address }),
        _ => Err(StatusError::Unreadable { node, address }),
    }
}

/// Asks what is at `address` between clients and nodes (a gateway, a router, an aggregator) about itself, and waits for its
/// answer for at most [`ClientOptions::give_up`].
///
/// # Errors
/// Why there is no report, and what to do about it.
pub fn role_status(options: &ClientOptions, address: SocketAddrV4) -> Result<RoleStatus, StatusError> {
    match ask(options, address)? {
        Outcome::Ok(report) => RoleStatus::decode(report).map_err(|_| StatusError::NoRole { address }),
        Outcome::Unknown => Err(StatusError::Silent { address }),
        _ => Err(StatusError::NoRole { address }),
    }
}

fn ask(options: &ClientOptions, address: SocketAddrV4) -> Result<Outcome, StatusError> {
    let mut client = PipelinedClient::connect(options)?;
    let ticket = client.submit_admin(address, Bytes::from_static(b"status"))?;
    loop {
        // The core ends every operation, so the patience of a single wait does not matter.
        let completed = client.wait(options.give_up).map_err(StatusError::Socket)?;
        if let Some(completion) = completed.into_iter().find(|completion| completion.ticket == ticket) {
            return Ok(completion.outcome);
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Not in the configuration.
    #[error(
        "there is no node {node} in the configuration; the nodes are {}",
        known.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoSuchNode {
        /// Who was asked for.
        node: NodeId,
        /// Those there are.
        known: Vec<NodeId>,
    },
    /// It did not answer.
    #[error("node {node} does not answer at {address}: it is not running, or its `requests` address is another")]
    NoAnswer {
        /// Who.
        node: NodeId,
        /// Where.
        address: SocketAddrV4,
    },
    /// Something else answered, or another version.
    #[error("what answers at {address} as node {node} is not a node of this version; check `requests`")]
    Unreadable {
        /// Who.
        node: NodeId,
        /// Where.
        address: SocketAddrV4,
    },
    /// Nobody is there.
    #[error("nobody answers at {address}: it is not running, or its `address` is another")]
    Silent {
        /// Where.
        address: SocketAddrV4,
    },
    /// Something else answered, or another version.
    #[error("what answers at {address} is of another version, or something else; check `address`")]
    NoRole {
        /// Where.
        address: SocketAddrV4,
    },
    /// No socket.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The socket became useless.
    #[error("the socket can no longer be used: {0}")]
    Socket(#[source] io::Error),
}
