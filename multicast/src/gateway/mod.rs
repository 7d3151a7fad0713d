//! The gateway: admission in front of a group, so that overload is refused before the group sees it (protocol.md §9), and
//! fan-out for clients that cannot reach all nodes themselves.
//!
//! Clients send their requests to a [`Gateway`] as to a single server. It passes what it admits on to all nodes in the
//! client's name (extension *forwarded*), so nodes answer the client directly and know the request by its client's address;
//! the gateway never sees an answer. What it does not admit it answers with DROP, and no node ever hears of it.
//!
//! # What is admitted
//! A request takes a *credit* ([`r2p2::credit`]) and is admitted while fewer than a limit are out. Credits come back when a
//! node says by FEEDBACK that it has answered (or refused) the request, or by a deadline: a replier that died never does,
//! and neither does one whose FEEDBACK is lost for good.
//!
//! Operations that were admitted are remembered for as long as a client may want an answer. A retransmission of one passes
//! without another credit, even if nothing else is admitted: the group has to do with it anyway, and mostly answers it from
//! its memory. A request without a session is remembered only as long as it holds a credit: its client may use its number
//! for something else afterwards. A message of several packets passes or is refused as a whole, whatever the order in which
//! they come.
//!
//! # The limit
//! [`GatewayConfig::in_flight_max`], and with [`GatewayConfig::delay_target`] also what the group can answer within that
//! time, by how much it has answered lately ([`pace`](self) of completions): what would be late anyway is refused at once.
//!
//! # What a DROP means
//! The gateway drops only what it does not know, so a request without a session of which exactly one copy was sent was
//! certainly not executed (unless the gateway has forgotten it: it was restarted, or remembers too few). For one with a
//! session it means *not accepted now*, as always.

mod config;
mod counters;
mod pace;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use r2p2::credit::{Ageing, Credits, RpcId};
use r2p2::reassembly::COPY_AGE_MAX;
use r2p2::wire::{Header, MessageType, Packet, ParseError, Policy};
use r2p2::{Forwarder, Instant};

use crate::role::{Output, Role, To};

pub use config::GatewayConfig;
pub use counters::GatewayCounters;

use pace::Pace;

/// Most messages whose further packets are refused too; beyond that the oldest is forgotten, and the rest of it asks for
/// admission anew.
const REFUSED_MAX: usize = 4096;
/// Timeouts that nobody waits for come together.
const SLACK: Duration = Duration::from_millis(1);

/// The gateway's core. See the module.
#[derive(Debug)]
pub struct Gateway {
    config: GatewayConfig,
    credits: Credits<Operation>,
    /// What was admitted, and has not been forgotten.
    admitted: Ageing<Operation, Admitted>,
    /// Messages of several packets that were refused a moment ago.
    refused: Ageing<Operation, ()>,
    pace: Option<Pace>,
    forwarder: Forwarder,
    outputs: VecDeque<Output>,
    counters: GatewayCounters,
}

/// Names what a client wants, over all its retransmissions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Operation {
    Session {
        client: u64,
        seq: u64,
    },
    /// A session to be opened.
    Opening {
        client: SocketAddrV4,
        nonce: u64,
    },
    /// Without a session.
    Plain(RpcId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Admitted {
    /// Whether its credit came back because it was answered.
    answered: bool,
}

impl Gateway {
    /// A gateway that has admitted nothing. `seed` hides from others how addresses are hashed.
    pub fn new(config: GatewayConfig, seed: u64) -> Self {
        let config = config.sanitized();
        Self {
            credits: Credits::new(config.credit_deadline, config.in_flight_max, seed),
            admitted: Ageing::new(config.remember, config.remembered_max, seed),
            refused: Ageing::new(COPY_AGE_MAX, REFUSED_MAX, seed),
            pace: config.delay_target.map(|target| Pace::new(target, config.in_flight_max)),
            forwarder: Forwarder::new(),
            outputs: VecDeque::new(),
            counters: GatewayCounters::default(),
            config,
        }
    }

    /// From now on the nodes are these: `receivers` get what is admitted, `nodes` may send FEEDBACK.
    pub fn set_nodes(&mut self, receivers: &[SocketAddrV4], nodes: impl IntoIterator<Item = SocketAddrV4>) {
        self.config.receivers = receivers.into();
        let nodes = nodes.into_iter().collect();
        for gone in self.config.nodes.difference(&nodes) {
            self.credits.forget_sender(*gone);
        }
        self.config.nodes = nodes;
    }

    /// Requests admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.credits.out()
    }

    /// How many may be.
    pub fn limit(&self) -> usize {
        self.pace.as_ref().map_or(self.config.in_flight_max, Pace::limit)
    }

    /// What has been counted so far, credits aside.
    pub const fn gateway_counters(&self) -> &GatewayCounters {
        &self.counters
    }

    /// The configuration as it is in force.
    pub const fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// What has been counted so far about credits.
    pub const fn credits(&self) -> &r2p2::credit::CreditsCounters {
        self.credits.counters()
    }
}

impl Role for Gateway {
    const NAME: &'static str = "gateway";

    fn handle_packet(&mut self, now: Instant, from: SocketAddrV4, bytes: &[u8]) {
        self.counters.packets_received += 1;
        let packet = match Packet::new_checked(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.reject(error),
        };
        match packet.kind() {
            MessageType::Request => match Header::parse(&packet) {
                Ok(header) => self.handle_request(now, from, &packet, &header),
                Err(error) => self.reject(error),
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

    fn handle_timeout(&mut self, now: Instant) {
        while !mutated!(GatewayKeepsCredit)
            && let Some((_, held)) = self.credits.pop_expired(now)
        {
            if let Operation::Plain(_) = held.owner {
                self.admitted.remove(&held.owner);
            }
        }
        while self.admitted.pop_ended(now).is_some() {}
        while self.refused.pop_ended(now).is_some() {}
    }

    fn poll_output(&mut self, _: Instant) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let expiry = self.credits.next_expiry().filter(|_| !mutated!(GatewayKeepsCredit));
        let ends = [expiry, self.admitted.next_end(), self.refused.next_end()];
        Output::Timeout(ends.into_iter().flatten().min().map_or(Instant::FAR_FUTURE, |end| end + SLACK))
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let inbox = self.credits.inbox_counters();
        let inbox = [
            ("feedback_fresh", inbox.fresh),
            ("feedback_repeated", inbox.repeated),
            ("feedback_lost", inbox.lost),
            ("feedback_unreadable", inbox.malformed),
        ];
        let all = self.counters.iter().chain(self.credits.counters().iter()).chain(inbox);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn gauges(&self) -> Vec<(String, u64)> {
        let gauges =
            [("in_flight", self.in_flight()), ("in_flight_limit", self.limit()), ("remembered", self.admitted.len())];
        gauges.into_iter().map(|(name, value)| (name.to_owned(), value as u64)).collect()
    }
}

/// Admission.
impl Gateway {
    fn handle_request(&mut self, now: Instant, from: SocketAddrV4, packet: &Packet<&[u8]>, header: &Header) {
        if !matches!(header.policy, Policy::Replicated | Policy::ReplicatedNoSideEffects) {
            self.counters.wrong_policy += 1;
            return;
        }
        if from.port() == 0 || from.ip().is_unspecified() {
            self.counters.unusable_source += 1;
            return;
        }
        let rpc = RpcId { client: from, rid: header.rid };
        let operation = match header.extensions.session {
            Some(session) if session.client != 0 => Operation::Session { client: session.client, seq: session.seq },
            Some(opening) => Operation::Opening { client: from, nonce: opening.seq },
            None => Operation::Plain(rpc),
        };
        let known = self.admitted.get(&operation).copied().filter(|_| !mutated!(GatewayForgetsAdmitted));
        if let Some(Admitted { answered }) = known {
            self.counters.packets_of_known += 1;
            // Its credit came back by the deadline: the group may never have heard of it, and is to do it now.
            if !answered && self.credits.get(&rpc).is_none() && self.credits.out() < self.limit() {
                self.counters.charged_again += u64::from(self.credits.charge(now, rpc, operation));
            }
        } else if self.refused.get(&operation).is_some() && !mutated!(GatewayTearsMessages) {
            self.counters.packets_of_refused += 1;
            return;
        } else if !self.admit(now, rpc, operation) {
            self.counters.requests_refused += 1;
            if !(header.first && header.last) {
                if self.refused.is_full() {
                    self.refused.pop_oldest();
                }
                _ = self.refused.insert(now, operation, ());
            }
            let packet = self.forwarder.write_drop(header.rid);
            self.outputs.push_back(Output::Send { to: To::One(from), packet });
            return;
        }
        match self.forwarder.forward(packet, header, from) {
            Some(packet) => {
                self.counters.packets_forwarded += 1;
                self.outputs.push_back(Output::Send { to: To::Each(self.config.receivers.clone()), packet });
            }
            None => self.counters.cannot_forward += 1,
        }
    }

    /// Gives a request a credit, if there is one, and remembers it.
    fn admit(&mut self, now: Instant, rpc: RpcId, operation: Operation) -> bool {
        // A credit that the same RPC id holds is an earlier operation's, which the client does not wait for any more.
        let takes_over = self.credits.get(&rpc).is_some();
        let out = self.credits.out() - usize::from(takes_over);
        let limit = self.limit();
        if let Some(pace) = &mut self.pace {
            pace.wanted(now, out >= limit);
        }
        if out >= limit || !self.credits.charge(now, rpc, operation) {
            return false;
        }
        self.counters.requests_admitted += 1;
        if self.admitted.is_full() {
            self.counters.forgotten += 1;
            self.admitted.pop_oldest();
        }
        _ = self.admitted.insert(now, operation, Admitted { answered: false });
        true
    }

    fn handle_feedback(&mut self, now: Instant, from: SocketAddrV4, packet: &Packet<&[u8]>) {
        if !self.config.nodes.contains(&from) {
            self.counters.feedback_stranger += 1;
            return;
        }
        let Self { credits, admitted, pace, .. } = self;
        let unknown = credits.counters().feedback_unknown;
        credits.feedback(from, packet, |_| true, &mut |_, held| {
            if let Operation::Plain(_) = held.owner {
                admitted.remove(&held.owner);
            } else if let Some(admitted) = admitted.get_mut(&held.owner) {
                admitted.answered = true;
            }
            if let Some(pace) = pace {
                pace.completed(now);
            }
        });
        if mutated!(GatewayMintsCredit) && credits.counters().feedback_unknown > unknown {
            _ = credits.pop_expired(Instant::FAR_FUTURE);
        }
    }

    fn reject(&mut self, error: ParseError) {
        tracing::trace!(%error, "packet refused");
        if let Some(count) = self.counters.rejected.get_mut(error.index()) {
            *count += 1;
        }
    }
}
