//! The router: spreads requests with policy *load-balanced* over servers that are not replicated (protocol.md §9).
//!
//! A [`Router`] is sans-IO. Clients send to it, it passes each request on to one worker in the client's name (extension
//! *forwarded*), and the worker answers the client directly and the router by FEEDBACK. All packets of one request go to
//! the same worker. It knows nothing of what is in a request.
//!
//! # Which worker
//! [`Choice::Jbsq`]: at most `bound` requests are at a worker at a time, and the one with the fewest gets the next; while
//! all have that many, requests wait *here*, in one queue, and go to whoever is free first, so that none waits behind a
//! long one while another worker is idle. The others send on at once: to the worker with the fewest unanswered
//! ([`Choice::ShortestQueue`]), in turn, or at random.
//!
//! # Who is a worker
//! Whoever says so, by a FEEDBACK that *registers*, from an address that is permitted: it must repeat that within
//! `silence`, and is evicted otherwise, or when it leaves. A worker that begins anew (another epoch) owes nothing.
//!
//! # Credits
//! One per RPC ([`crate::credit`]), returned by FEEDBACK of the worker that has it or by the deadline. A worker that never
//! answers so gets at most `bound` requests per deadline.
//!
//! # Contract
//! *Mutate, then drain*: after `handle_packet` and `handle_timeout`, [`Router::poll_transmit`] until it has nothing, and
//! `handle_timeout` when [`Router::next_timeout`] has come.

mod config;
mod counters;
mod waiting;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use bytes::Bytes;

use crate::credit::{Credits, CreditsCounters, Held, RpcId};
use crate::forward::Forwarder;
use crate::wire::{Answered, Header, MessageType, Packet, Policy};
use crate::{Instant, reassembly::Reject};

pub use config::{Choice, RouterConfig};
pub use counters::RouterCounters;

use waiting::{Full, Waiting};
use workers::{WorkerRef, Workers};

/// The router. See the module.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    workers: Workers,
    credits: Credits<WorkerRef>,
    waiting: Waiting,
    forwarder: Forwarder,
    transmits: VecDeque<(SocketAddrV4, Bytes)>,
    counters: RouterCounters,
}

impl Router {
    /// A router without workers. `seed` decides what is random, and hides from others how addresses are hashed.
    pub fn new(config: RouterConfig, seed: u64) -> Self {
        Self {
            workers: Workers::new(config.choice, config.bound, config.workers_max, seed),
            credits: Credits::new(config.credit_deadline, config.in_flight_max, seed),
            waiting: Waiting::new(config.waiting_max, config.waiting_bytes_max, config.waiting_age_max, seed),
            forwarder: Forwarder::new(),
            transmits: VecDeque::new(),
            counters: RouterCounters::default(),
            config,
        }
    }

    /// Takes in a UDP payload that came from `from`. Any bytes are safe.
    pub fn handle_packet(&mut self, now: Instant, from: SocketAddrV4, bytes: &[u8]) {
        self.counters.packets_received += 1;
        let packet = match Packet::new_checked(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.reject(error.into()),
        };
        match packet.kind() {
            MessageType::Request => match Header::parse(&packet) {
                Ok(header) => self.handle_request(now, from, &packet, &header),
                Err(error) => self.reject(error.into()),
            },
            MessageType::Feedback => self.handle_feedback(now, from, &packet),
            MessageType::Response
            | MessageType::Ack
            | MessageType::Drop
            | MessageType::RaftRequest
            | MessageType::RaftReply
            | MessageType::RaftMessage => self.counters.unexpected_kind += 1,
        }
    }

    /// Takes back credits whose deadline has come, evicts who is silent, refuses who has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, Held { owner, .. })) = self.credits.pop_expired(now) {
            self.workers.relieve(owner);
        }
        for gone in self.workers.pop_silent(now, self.config.silence) {
            tracing::info!(worker = %gone, "worker evicted: nothing was heard of it");
            self.counters.workers_evicted += 1;
            self.credits.forget_sender(gone);
        }
        self.send_waiting(now);
        while let Some(rpc) = self.waiting.pop_old(now) {
            self.counters.requests_refused_old += 1;
            self.refuse(rpc);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        let silent = self.workers.next_silent(self.config.silence);
        [self.credits.next_expiry(), silent, self.waiting.next_old()].into_iter().flatten().min()
    }

    /// A packet to send, oldest first.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddrV4, Bytes)> {
        self.transmits.pop_front()
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &RouterCounters {
        &self.counters
    }

    /// What has been counted so far about credits.
    pub const fn credits_counters(&self) -> &CreditsCounters {
        self.credits.counters()
    }

    /// Requests passed on and not answered.
    pub fn in_flight(&self) -> usize {
        self.credits.out()
    }

    /// Requests that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Each worker, and how many requests it has not answered.
    pub fn workers(&self) -> impl Iterator<Item = (SocketAddrV4, usize)> {
        self.workers.iter()
    }
}

/// Requests.
impl Router {
    fn handle_request(&mut self, now: Instant, from: SocketAddrV4, packet: &Packet<&[u8]>, header: &Header) {
        if header.policy != Policy::LoadBalanced {
            self.counters.wrong_policy += 1;
            return;
        }
        if from.port() == 0 || from.ip().is_unspecified() {
            self.counters.unusable_source += 1;
            return;
        }
        let Some(bytes) = self.forwarder.forward(packet, header, from) else {
            self.counters.cannot_forward += 1;
            return;
        };
        let rpc = RpcId { client: from, rid: header.rid };
        if let Some(worker) = self.credits.get(&rpc).and_then(|held| self.workers.address(held.owner)) {
            // More of a request that is there already, or a copy.
            self.counters.packets_of_known += 1;
            self.transmits.push_back((worker, bytes));
            return;
        }
        let is_new = !self.waiting.contains(&rpc);
        self.counters.requests += u64::from(is_new);
        if is_new && self.waiting.is_empty() && self.send(now, rpc, std::slice::from_ref(&bytes)) {
            return;
        }
        match self.waiting.push(now, rpc, if header.first { 0 } else { header.order }, bytes) {
            Ok(()) => self.counters.requests_waited += u64::from(is_new),
            Err(Full::Copy) => self.counters.packets_of_known += 1,
            Err(Full::Requests | Full::Bytes) => {
                self.counters.requests_refused_full += 1;
                self.waiting.remove(&rpc);
                self.refuse(rpc);
            }
        }
    }

    /// Sends a request to a worker, if there is one for it.
    fn send(&mut self, now: Instant, rpc: RpcId, packets: &[Bytes]) -> bool {
        let Some((worker, address)) = self.workers.choose() else { return false };
        // One that it holds already was for a worker that is gone.
        if !self.credits.charge(now, rpc, worker) {
            self.counters.credits_exhausted += 1;
            return false;
        }
        self.workers.burden(worker);
        self.transmits.extend(packets.iter().map(|packet| (address, packet.clone())));
        true
    }

    fn send_waiting(&mut self, now: Instant) {
        while self.workers.any_free()
            && let Some((rpc, packets)) = self.waiting.first()
        {
            let packets = packets.to_vec();
            if !self.send(now, rpc, &packets) {
                return;
            }
            self.waiting.remove(&rpc);
        }
    }

    /// It was never passed on, so this is certain.
    fn refuse(&mut self, rpc: RpcId) {
        let packet = self.forwarder.write_drop(rpc.rid);
        self.transmits.push_back((rpc.client, packet));
    }
}

/// Workers.
impl Router {
    fn handle_feedback(&mut self, now: Instant, from: SocketAddrV4, packet: &Packet<&[u8]>) {
        let answered = match Answered::of(packet) {
            Ok(answered) => answered,
            Err(error) => return self.reject(error.into()),
        };
        if let Some(answered) = answered.filter(|answered| answered.registers) {
            self.register(now, from, answered.epoch);
        }
        if !self.workers.heard(now, from) {
            self.counters.feedback_stranger += 1;
            return;
        }
        let workers = &mut self.workers;
        let mut returned = |_, held: Held<WorkerRef>| workers.relieve(held.owner);
        self.credits.feedback(from, packet, |owner| owner.address == from, &mut returned);
        if answered.is_some_and(|answered| answered.leaves) && self.workers.remove(from) {
            tracing::info!(worker = %from, "worker leaves");
            self.counters.workers_left += 1;
        }
        self.send_waiting(now);
    }

    fn register(&mut self, now: Instant, from: SocketAddrV4, epoch: u64) {
        let permitted = self.config.permitted.as_ref().is_none_or(|permitted| permitted.contains(&from));
        if !permitted || from.port() == 0 {
            self.counters.workers_not_permitted += 1;
            return;
        }
        match self.workers.register(now, from, epoch) {
            workers::Registration::Known => {}
            workers::Registration::New => {
                tracing::info!(worker = %from, "worker registered");
                self.counters.workers_registered += 1;
            }
            workers::Registration::Full => self.counters.workers_refused_full += 1,
        }
    }

    fn reject(&mut self, reject: Reject) {
        tracing::trace!(%reject, "packet refused");
        self.counters.malformed += 1;
    }
}
