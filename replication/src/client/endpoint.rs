//! A client endpoint that keeps finding its group, sans-IO.
//!
//! [`r2p2::client::Client`] knows how to talk to servers and nothing about who they are. This puts two things around it:
//! a [`Directory`] of who they are, and a [`Search`] for who they are by now. Answers name the epoch of the membership
//! (protocol.md §3.3); who hears of a newer one than its directory's asks for the members, first of all the node that
//! answered. A client that is not answered for a while asks everybody it has ever known. So every node can be replaced,
//! one after the other or while nobody talks, as long as one that the client has heard of is still there.

use std::net::SocketAddrV4;

use bytes::Bytes;
use multicast::Group;
use r2p2::Instant;
use r2p2::client::{Client, ClientConfig, ClientCounters, ClientOutput, Completion, Kind, SubmitError, Target, Ticket};

use super::directory::Directory;
use super::search::{Search, SearchCounters};
use crate::id::NodeId;

/// A client endpoint that keeps finding its group. The contract is that of [`r2p2::client::Client`].
#[derive(Debug)]
pub struct Endpoint {
    core: Client,
    directory: Directory,
    search: Search,
}

/// What a client knows of its group at first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contacts {
    /// The epoch of the membership that the rest is all of; 0 if it need not be: then the members are asked for as soon as
    /// anybody answers.
    pub epoch: u64,
    /// Nodes, and where each receives requests for it alone. One that lives is enough.
    pub nodes: Vec<(NodeId, SocketAddrV4)>,
    /// How a request reaches all nodes.
    pub group: Group,
    /// Whether that is somebody in front of the nodes, and stays whoever these are.
    pub group_stays: bool,
}

/// What [`Endpoint::poll_output`] tells the shell to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndpointOutput {
    /// Send this UDP payload there.
    Transmit {
        /// Where to.
        to: Recipient,
        /// The whole UDP payload.
        packet: Bytes,
    },
    /// An operation ended.
    Done(Completion),
    /// Nothing more to do now. Call `handle_timeout` at this time at the latest, for this reason.
    Timeout(Instant, &'static str),
}

/// Where a packet is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipient {
    /// To all [receivers](Group::receivers) of [`Endpoint::group`], as it is now.
    Group,
    /// To one node.
    Address(SocketAddrV4),
}

impl Endpoint {
    /// A client of the group whose nodes are, or once were, those of `contacts`. What `config` says about nodes is not
    /// looked at. Without sessions the servers may be anybody's, so they are asked nothing, and the nodes stay.
    pub fn new(config: ClientConfig, contacts: Contacts, seed: u64) -> Self {
        let Contacts { epoch, nodes, group, group_stays } = contacts;
        let directory = Directory::new(epoch, nodes, group, group_stays);
        let config = ClientConfig { nodes: directory.addresses(), ..config };
        let search = Search::new(config.sessions);
        Self { core: Client::new(config, seed), directory, search }
    }

    /// See [`Client::submit`].
    ///
    /// # Errors
    /// See there.
    pub fn submit(&mut self, now: Instant, kind: Kind, body: Bytes) -> Result<Ticket, SubmitError> {
        self.core.submit(now, kind, body)
    }

    /// See [`Client::submit_admin`].
    ///
    /// # Errors
    /// See there.
    pub fn submit_admin(&mut self, now: Instant, node: SocketAddrV4, body: Bytes) -> Result<Ticket, SubmitError> {
        self.core.submit_admin(now, node, body)
    }

    /// See [`Client::cancel`].
    pub fn cancel(&mut self, now: Instant, ticket: Ticket) -> bool {
        self.core.cancel(now, ticket)
    }

    /// See [`Client::handle_datagram`].
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        self.core.handle_datagram(now, from, packet);
    }

    /// See [`Client::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }

    /// See [`Client::poll_output`].
    pub fn poll_output(&mut self, now: Instant) -> EndpointOutput {
        loop {
            // What is found may move operations, so it comes before what they want to send.
            let due = self.search.advance(now, &mut self.core, &self.directory);
            match self.core.poll_output(now) {
                ClientOutput::Transmit { target: Target::Group, packet } => {
                    return EndpointOutput::Transmit { to: Recipient::Group, packet };
                }
                ClientOutput::Transmit { target: Target::Address(address), packet } => {
                    return EndpointOutput::Transmit { to: Recipient::Address(address), packet };
                }
                ClientOutput::Done(completion) => {
                    if let Some(other) = self.search.take(now, completion, &mut self.core, &mut self.directory) {
                        return EndpointOutput::Done(other);
                    }
                }
                ClientOutput::Timeout(at, why) => {
                    let (at, why) = due.filter(|due| *due < at).map_or((at, why), |due| (due, "look for the group"));
                    return EndpointOutput::Timeout(at, why);
                }
            }
        }
    }

    /// How a request reaches all nodes, as far as this client knows.
    pub fn group(&self) -> &Group {
        self.directory.group()
    }

    /// The nodes and where each receives requests for it alone, as far as this client knows.
    pub fn nodes(&self) -> &[(NodeId, SocketAddrV4)] {
        self.directory.nodes()
    }

    /// The epoch of the membership that this client goes by; 0 while it knows only what it was told at first.
    pub fn epoch(&self) -> u64 {
        self.directory.epoch()
    }

    /// Operations submitted and not ended.
    pub fn outstanding(&self) -> usize {
        self.core.outstanding() - self.search.outstanding()
    }

    /// The client core inside.
    pub fn core(&self) -> &Client {
        &self.core
    }

    /// What the client core inside has counted, questions about members included.
    pub fn counters(&self) -> &ClientCounters {
        self.core.counters()
    }

    /// What has been counted about finding the group.
    pub fn search_counters(&self) -> &SearchCounters {
        self.search.counters()
    }
}
