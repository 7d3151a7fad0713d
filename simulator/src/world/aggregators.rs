//! Aggregators: processes beside the nodes, at an address that all nodes know.
//!
//! There may be several at that one address, as when a second process has been started while the first one was only cut
//! off or stopped: whoever runs receives what is sent there. What comes to one that is paused waits for it.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use bytes::Bytes;
use hovercraft::{GroupId, Service};
use multicast::aggregator::{Aggregator, AggregatorConfig, GroupConfig};
use multicast::role::{Output, Role, To};
use r2p2::server::Via;
use rand::Rng;

use super::addresses::{PEER_GROUP, aggregator_address, peer_address};
use super::alarm::Alarm;
use super::clock::Clock;
use super::{What, World, tally};
use crate::flight::Party;
use crate::streams::stream;

/// Most datagrams that wait for a process that is paused.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct AggregatorHost {
    pub(super) core: Option<Aggregator>,
    pub(super) is_paused: bool,
    waiting: VecDeque<(SocketAddrV4, Bytes)>,
    pub(super) clock: Clock,
    pub(super) alarm: Alarm,
    /// How often one was started here.
    process: u64,
}

impl<S: Service> World<S> {
    /// How many hosts there are for aggregators.
    pub fn aggregators(&self) -> u16 {
        self.config.aggregators
    }

    /// The core of an aggregator, if it runs.
    pub fn aggregator(&self, number: u16) -> Option<&Aggregator> {
        self.aggregators.get(usize::from(number))?.core.as_ref()
    }

    /// Starts an aggregator that does not run: another process, which knows nothing.
    pub fn start_aggregator(&mut self, number: u16) {
        let config = &self.config;
        let host = &mut self.aggregators[usize::from(number)];
        if host.core.is_some() {
            return;
        }
        let mut rng = stream(config.seed, "aggregator", u64::from(number) << 32 | host.process);
        let group = GroupConfig {
            group: GroupId(config.node.group.0),
            nodes: (1..=config.hosts()).map(peer_address).collect(),
            multicast: Some(PEER_GROUP),
        };
        host.core = Some(Aggregator::new(AggregatorConfig::new(rng.random(), vec![group])));
        host.clock = Clock::start(self.now, config.clocks, &mut rng);
        host.process += 1;
        self.checkers.aggregator_started(number);
        self.happened(What::Aggregator(number, "starts"));
    }

    /// Kills an aggregator: it has forgotten everything.
    pub fn kill_aggregator(&mut self, number: u16) {
        let host = &mut self.aggregators[usize::from(number)];
        let Some(core) = host.core.take() else { return };
        tally::add_aggregator(&mut self.gone, core.totals());
        host.is_paused = false;
        host.waiting.clear();
        host.alarm.clear();
        self.faults.aggregator_kills += 1;
        self.happened(What::Aggregator(number, "is killed"));
    }

    /// Stops an aggregator; what is sent to it waits, as far as there is room.
    pub fn pause_aggregator(&mut self, number: u16) {
        let host = &mut self.aggregators[usize::from(number)];
        if host.core.is_some() && !host.is_paused {
            host.is_paused = true;
            self.faults.pauses += 1;
            self.happened(What::Aggregator(number, "is paused"));
        }
    }

    /// Lets a paused aggregator go on, with what has waited for it.
    pub fn resume_aggregator(&mut self, number: u16) {
        let host = &mut self.aggregators[usize::from(number)];
        if !std::mem::take(&mut host.is_paused) {
            return;
        }
        let waiting = std::mem::take(&mut host.waiting);
        self.happened(What::Aggregator(number, "goes on"));
        let now = self.local_now(Party::Aggregator(number));
        for (from, packet) in waiting {
            self.hand_to_aggregator(number, now, from, &packet);
        }
        self.wake_aggregator(number);
    }

    pub(super) fn deliver_to_aggregator(&mut self, number: u16, from: SocketAddrV4, packet: Bytes) {
        let now = self.local_now(Party::Aggregator(number));
        let Some(host) = self.aggregators.get_mut(usize::from(number)).filter(|host| host.core.is_some()) else {
            return;
        };
        if host.is_paused {
            if host.waiting.len() < WAITING_MAX {
                host.waiting.push_back((from, packet));
            }
            return;
        }
        self.hand_to_aggregator(number, now, from, &packet);
        self.drive_aggregator(number);
    }

    pub(super) fn wake_aggregator(&mut self, number: u16) {
        let now = self.local_now(Party::Aggregator(number));
        let Some(host) = self.aggregators.get_mut(usize::from(number)).filter(|host| !host.is_paused) else { return };
        if let Some(core) = &mut host.core {
            core.handle_timeout(now);
            self.drive_aggregator(number);
        }
    }

    fn hand_to_aggregator(&mut self, number: u16, now: r2p2::Instant, from: SocketAddrV4, packet: &Bytes) {
        self.checkers.aggregator_heard(number, packet);
        if let Some(core) = &mut self.aggregators[usize::from(number)].core {
            core.handle_packet(now, from, packet);
        }
    }

    fn drive_aggregator(&mut self, number: u16) {
        let (me, from) = (Party::Aggregator(number), aggregator_address());
        let now = self.local_now(me);
        loop {
            let Some(core) = &mut self.aggregators[usize::from(number)].core else { return };
            match core.poll_output(now) {
                Output::Send { to, packet } => {
                    if let Err(violation) = self.checkers.aggregator_said(number, &packet) {
                        self.report(violation);
                    }
                    match to {
                        To::One(PEER_GROUP) => self.transmit_to_group(me, from, peer_address, packet),
                        to => {
                            for address in to.addresses() {
                                self.transmit(me, from, self.party(*address), *address, Via::Unicast, packet.clone());
                            }
                        }
                    }
                }
                Output::Timeout(at) => {
                    self.set_alarm(me, at);
                    return;
                }
            }
        }
    }
}
