//! Clients: what they ask, and what they are told.

use bytes::Bytes;
use hovercraft::client::{Completion, Contacts, Endpoint, EndpointOutput, Kind, Recipient, SubmitError, Ticket};
use hovercraft::{NodeId, Service};
use multicast::{Group, Interface};
use r2p2::Instant;
use r2p2::server::Via;

use super::addresses::{GROUP, client_address, gateway_address, request_address};
use super::alarm::Alarm;
use super::clock::Clock;
use super::{What, World};
use crate::flight::Party;
use crate::recording::outcome_name;

pub(super) struct ClientHost {
    pub(super) core: Endpoint,
    pub(super) clock: Clock,
    pub(super) alarm: Alarm,
    pub(super) completions: Vec<(Instant, Completion)>,
}

impl<S: Service> World<S> {
    /// A client invokes an operation.
    pub fn submit(&mut self, client: usize, kind: Kind, body: impl Into<Bytes>) -> Ticket {
        self.try_submit(client, kind, body).expect("within the client's limits")
    }

    /// The same where the client may have too much to do already.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn try_submit(&mut self, client: usize, kind: Kind, body: impl Into<Bytes>) -> Result<Ticket, SubmitError> {
        let body = body.into();
        let now = self.local_now(Party::Client(client));
        let submitted = self.clients[client].core.submit(now, kind, body.clone());
        if let Ok(ticket) = submitted {
            if let Some(recording) = &mut self.recording {
                recording.invoked(self.now, client, ticket, kind, body);
            }
            self.happened(What::Invoked { client, ticket });
        }
        self.drive_client(client);
        submitted
    }

    /// A client gives up an operation.
    pub fn cancel(&mut self, client: usize, ticket: Ticket) {
        let now = self.local_now(Party::Client(client));
        self.clients[client].core.cancel(now, ticket);
        self.drive_client(client);
    }

    /// Takes what has ended at a client since the last time.
    pub fn completions(&mut self, client: usize) -> Vec<(Instant, Completion)> {
        std::mem::take(&mut self.clients[client].completions)
    }

    /// Whether anything has ended at any client that nobody has taken yet.
    pub fn has_completions(&self) -> bool {
        self.clients.iter().any(|client| !client.completions.is_empty())
    }

    /// A client's endpoint.
    pub fn client(&self, client: usize) -> &Endpoint {
        &self.clients[client].core
    }

    pub(super) fn wake_client(&mut self, number: usize) {
        let now = self.local_now(Party::Client(number));
        self.clients[number].core.handle_timeout(now);
        self.drive_client(number);
    }

    pub(super) fn drive_client(&mut self, number: usize) {
        let now = self.now;
        let local = self.local_now(Party::Client(number));
        let from = client_address(number);
        loop {
            match self.clients[number].core.poll_output(local) {
                EndpointOutput::Transmit { to, packet } => match to {
                    Recipient::Group => self.transmit_to_nodes(number, packet),
                    Recipient::Address(to) => {
                        self.transmit(Party::Client(number), from, self.party(to), to, Via::Unicast, packet);
                    }
                },
                EndpointOutput::Done(completion) => {
                    if let Some(recording) = &mut self.recording {
                        recording.ended(now, number, &completion);
                    }
                    let (ticket, outcome) = (completion.ticket, outcome_name(&completion.outcome));
                    self.happened(What::Ended { client: number, ticket, outcome });
                    self.clients[number].completions.push((now, completion));
                }
                EndpointOutput::Timeout(at, _) => {
                    self.set_alarm(Party::Client(number), at);
                    return;
                }
            }
        }
    }

    /// A client sends a datagram to all nodes: the network makes the copies, or the client makes one for each that it
    /// knows.
    fn transmit_to_nodes(&mut self, number: usize, packet: Bytes) {
        let (me, from) = (Party::Client(number), client_address(number));
        if let Group::Unicast { members } = self.clients[number].core.group() {
            for to in members.clone() {
                // A gateway is a single server.
                let via = if to == gateway_address() { Via::Unicast } else { Via::Group };
                self.transmit(me, from, self.party(to), to, via, packet.clone());
            }
        } else {
            self.transmit_to_group(me, from, request_address, packet);
        }
    }
}

/// What a client of a group that begins with so many nodes knows at first.
pub(super) fn contacts(nodes: u16, unicast: bool, gateway: bool) -> Contacts {
    let group = if gateway {
        Group::Unicast { members: vec![gateway_address()] }
    } else if unicast {
        Group::Unicast { members: (1..=nodes).map(request_address).collect() }
    } else {
        Group::Multicast { address: GROUP, interface: Interface::Loopback }
    };
    Contacts {
        epoch: 1,
        nodes: (1..=nodes).map(|id| (NodeId(id), request_address(id))).collect(),
        group,
        group_stays: gateway,
    }
}
