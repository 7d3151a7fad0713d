//! The gateway: a process beside the nodes, to which clients send.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use bytes::Bytes;
use hovercraft::Service;
use multicast::gateway::{Gateway, GatewayConfig};
use multicast::role::{Output, Role};
use r2p2::server::Via;
use rand::Rng;

use super::addresses::{GROUP, gateway_address, request_address};
use super::alarm::Alarm;
use super::clock::Clock;
use super::{What, World};
use crate::checkers::admission::Admission;
use crate::flight::Party;
use crate::streams::stream;

/// Most datagrams that wait for a process that is paused.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct GatewayHost {
    pub(super) core: Option<Gateway>,
    is_paused: bool,
    waiting: VecDeque<(SocketAddrV4, Bytes)>,
    pub(super) clock: Clock,
    pub(super) alarm: Alarm,
    /// How often one was started here.
    process: u64,
    books: Admission,
}

impl<S: Service> World<S> {
    /// The gateway's core, if there is one and it runs.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.core.as_ref()
    }

    /// Starts the gateway of the configuration if it does not run: another process, which knows nothing.
    pub fn start_gateway(&mut self) {
        let Some(config) = self.config.gateway.clone().filter(|_| self.gateway.core.is_none()) else { return };
        let nodes = 1..=self.config.hosts();
        let config = GatewayConfig {
            receivers: if self.config.unicast { nodes.clone().map(request_address).collect() } else { [GROUP].into() },
            nodes: nodes.map(request_address).collect(),
            ..config
        };
        let host = &mut self.gateway;
        let mut rng = stream(self.config.seed, "gateway", host.process);
        host.books.started(&config);
        host.core = Some(Gateway::new(config, rng.random()));
        host.clock = Clock::start(self.now, self.config.clocks, &mut rng);
        host.process += 1;
        self.happened(What::Gateway("starts"));
    }

    /// Kills the gateway: it has forgotten everything.
    pub fn kill_gateway(&mut self) {
        let host = &mut self.gateway;
        if host.core.take().is_none() {
            return;
        }
        host.is_paused = false;
        host.waiting.clear();
        host.alarm.clear();
        self.faults.gateway_kills += 1;
        self.happened(What::Gateway("is killed"));
    }

    /// Stops the gateway; what is sent to it waits, as far as there is room.
    pub fn pause_gateway(&mut self) {
        let host = &mut self.gateway;
        if host.core.is_some() && !host.is_paused {
            host.is_paused = true;
            self.faults.pauses += 1;
            self.happened(What::Gateway("is paused"));
        }
    }

    /// Lets a paused gateway go on, with what has waited for it.
    pub fn resume_gateway(&mut self) {
        if !std::mem::take(&mut self.gateway.is_paused) {
            return;
        }
        self.happened(What::Gateway("goes on"));
        for (from, packet) in std::mem::take(&mut self.gateway.waiting) {
            self.hand_to_gateway(from, &packet);
        }
        self.wake_gateway();
    }

    pub(super) fn deliver_to_gateway(&mut self, from: SocketAddrV4, packet: Bytes) {
        let host = &mut self.gateway;
        if host.core.is_none() {
            return;
        }
        if !host.is_paused {
            self.hand_to_gateway(from, &packet);
        } else if host.waiting.len() < WAITING_MAX {
            host.waiting.push_back((from, packet));
        }
    }

    pub(super) fn wake_gateway(&mut self) {
        let now = self.local_now(Party::Gateway);
        if self.gateway.is_paused {
            return;
        }
        if let Some(core) = &mut self.gateway.core {
            core.handle_timeout(now);
            self.drain_gateway();
        }
    }

    fn hand_to_gateway(&mut self, from: SocketAddrV4, packet: &Bytes) {
        let now = self.local_now(Party::Gateway);
        let is_node = matches!(self.party(from), Party::Node(_));
        let Some(core) = &mut self.gateway.core else { return };
        let before = core.limit();
        core.handle_packet(now, from, packet);
        let limit = core.limit().max(before);
        let said = self.drain_gateway();
        if let Err(violation) = self.gateway.books.judges(now, limit, from, is_node, packet, &said) {
            self.report(violation);
        }
    }

    /// Does what the gateway says, and gives what it has said.
    fn drain_gateway(&mut self) -> Vec<Bytes> {
        let (me, from) = (Party::Gateway, gateway_address());
        let now = self.local_now(me);
        let mut said = Vec::new();
        loop {
            let Some(core) = &mut self.gateway.core else { return said };
            match core.poll_output(now) {
                Output::Send { to, packet } => {
                    said.push(packet.clone());
                    for &address in to.addresses() {
                        if address == GROUP {
                            self.transmit_to_group(me, from, request_address, packet.clone());
                        } else {
                            let to = self.party(address);
                            let via = if matches!(to, Party::Node(_)) { Via::Group } else { Via::Unicast };
                            self.transmit(me, from, to, address, via, packet.clone());
                        }
                    }
                }
                Output::Timeout(at) => {
                    self.set_alarm(me, at);
                    return said;
                }
            }
        }
    }
}
