//! One credit per RPC.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::Ageing;
use crate::Instant;
use crate::feedback::{Inbox, InboxCounters};
use crate::wire::{Answered, Feedback, Packet};

/// Names a request on the wire, for as long as its client does not use the number again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RpcId {
    /// Who asked.
    pub client: SocketAddrV4,
    /// The request's number there.
    pub rid: u16,
}

/// Credits that are out. `O` is whatever their owner wants to know when one comes back.
#[derive(Debug)]
pub struct Credits<O> {
    held: Ageing<RpcId, Held<O>>,
    inbox: Inbox,
    counters: CreditsCounters,
}

/// A credit that is out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held<O> {
    /// Since when.
    pub since: Instant,
    /// What its owner has noted.
    pub owner: O,
}

/// What became of credits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CreditsCounters {
    /// Given out.
    pub charged: u64,
    /// Came back because their RPC was answered.
    pub returned: u64,
    /// Came back by the deadline.
    pub expired: u64,
    /// FEEDBACK about RPCs that hold no credit.
    pub feedback_unknown: u64,
    /// FEEDBACK by somebody who may not give that credit back.
    pub feedback_foreign: u64,
    /// FEEDBACK that is none.
    pub feedback_malformed: u64,
}

impl CreditsCounters {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { charged, returned, expired, feedback_unknown, feedback_foreign, feedback_malformed } = *self;
        [
            ("credits_charged", charged),
            ("credits_returned", returned),
            ("credits_expired", expired),
            ("feedback_unknown", feedback_unknown),
            ("feedback_foreign", feedback_foreign),
            ("feedback_malformed", feedback_malformed),
        ]
        .into_iter()
    }
}

impl<O: Copy> Credits<O> {
    /// None out. At most `limit` are at a time, and each comes back after `deadline` at the latest.
    pub fn new(deadline: Duration, limit: usize, seed: u64) -> Self {
        Self { held: Ageing::new(deadline, limit, seed), inbox: Inbox::new(), counters: CreditsCounters::default() }
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        self.held.len()
    }

    /// The credit of an RPC, if it holds one.
    pub fn get(&self, rpc: &RpcId) -> Option<&Held<O>> {
        self.held.get(rpc)
    }

    /// Gives an RPC a credit, in place of one that it holds already (which then counts as returned). Says whether there
    /// was one to give.
    pub fn charge(&mut self, now: Instant, rpc: RpcId, owner: O) -> bool {
        match self.held.insert(now, rpc, Held { since: now, owner }) {
            Ok(before) => {
                self.counters.charged += 1;
                self.counters.returned += u64::from(before.is_some());
                true
            }
            Err(_) => false,
        }
    }

    /// Takes a credit back.
    pub fn give_back(&mut self, rpc: &RpcId) -> Option<Held<O>> {
        let held = self.held.remove(rpc)?;
        self.counters.returned += 1;
        Some(held)
    }

    /// Takes in a FEEDBACK, ours or the C implementation's, and gives `returned` every credit that it brings back. `from`
    /// must be somebody who may send any; whose credits it may return, `may` says.
    pub fn feedback(
        &mut self,
        from: SocketAddrV4,
        packet: &Packet<&[u8]>,
        may: impl Fn(&O) -> bool,
        returned: &mut dyn FnMut(RpcId, Held<O>),
    ) {
        let Self { held, inbox, counters } = self;
        let mut take = |Feedback { rid, client }| {
            let rpc = RpcId { client, rid };
            match held.get(&rpc) {
                None => counters.feedback_unknown += 1,
                Some(credit) if !may(&credit.owner) => counters.feedback_foreign += 1,
                Some(_) => {
                    if let Some(credit) = held.remove(&rpc) {
                        counters.returned += 1;
                        returned(rpc, credit);
                    }
                }
            }
        };
        match Answered::of(packet) {
            Ok(Some(answered)) => inbox.accept(from, answered, packet.payload(), &mut take),
            Ok(None) => match Feedback::parse(packet.payload()) {
                Ok(feedback) => take(feedback),
                Err(_) => counters.feedback_malformed += 1,
            },
            Err(_) => counters.feedback_malformed += 1,
        }
    }

    /// Takes back a credit whose deadline has come, the oldest first.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(RpcId, Held<O>)> {
        let expired = self.held.pop_ended(now)?;
        self.counters.expired += 1;
        Some(expired)
    }

    /// When the next deadline comes.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.held.next_end()
    }

    /// Forgets what is known about who sends FEEDBACK from there.
    pub fn forget_sender(&mut self, from: SocketAddrV4) {
        self.inbox.forget(from);
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &CreditsCounters {
        &self.counters
    }

    /// What has been counted so far about numbered FEEDBACK.
    pub const fn inbox_counters(&self) -> &InboxCounters {
        self.inbox.counters()
    }
}
