//! What happens in a world, for whoever looks for the reason of what happened next.

use std::fmt;
use std::time::Duration;

use hovercraft::consensus::Role;
use hovercraft::{LogIndex, Node, Service, Term};
use r2p2::Instant;
use r2p2::client::Ticket;

use super::World;
use super::disk::DiskFault;
use crate::flight::Party;

/// What was done to a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Datagrams lost by chance.
    pub lost: u64,
    /// Datagrams lost by a rule or a partition.
    pub cut: u64,
    /// Datagrams that arrived twice.
    pub duplicated: u64,
    /// Datagrams with a flipped bit.
    pub corrupted: u64,
    /// Datagrams that found a queue or a socket full.
    pub overflowed: u64,
    /// Clocks that jumped ahead.
    pub clock_jumps: u64,
    /// Clocks that stood still because they were set back.
    pub clock_stalls: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Nodes paused.
    pub pauses: u64,
    /// Nodes started again on what they had kept.
    pub restarts: u64,
    /// Aggregators killed.
    pub aggregator_kills: u64,
    /// Gateways killed.
    pub gateway_kills: u64,
    /// Nodes let into the group and started.
    pub admissions: u64,
    /// Disks that became full or broke.
    pub disks: u64,
}

/// Something that happened, for whoever looks for the reason of what happened next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The fields are those of a flight and its number, or a node's id.
pub enum What {
    /// A datagram arrives.
    Delivered { id: u64, from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by chance.
    Lost { id: u64, from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by a rule or a partition.
    Cut { id: u64, from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram arrives where no process runs.
    Unheard { id: u64, from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram finds a queue or a socket full.
    Overflowed { id: u64, from: Party, to: Party, what: &'static str, len: usize },
    /// A node starts.
    Started(u16),
    /// A node is killed.
    Killed(u16),
    /// A node stops by itself.
    Stopped(u16),
    /// A node is paused.
    Paused(u16),
    /// A node goes on.
    Resumed(u16),
    /// Something becomes of an aggregator.
    Aggregator(u16, &'static str),
    /// Something becomes of the gateway.
    Gateway(&'static str),
    /// A node has another role, or the same in another term.
    Role { id: u16, role: Role, term: Term, commit: LogIndex, applied: LogIndex },
    /// A clock jumps ahead.
    ClockJumped { party: Party, by: Duration },
    /// A clock is set back, and stands still.
    ClockStalled { party: Party, by: Duration },
    /// Datagrams from one to the other are lost from now on, and those of so many more pairs.
    Blocked { from: Party, to: Party, more: usize },
    /// No pair is blocked any more, and no rule loses anything.
    Healed,
    /// The network is another one.
    NetworkChanged,
    /// A client invokes an operation.
    Invoked { client: usize, ticket: Ticket },
    /// An operation ends.
    Ended { client: usize, ticket: Ticket, outcome: &'static str },
    /// An invariant does not hold.
    Violated,
    /// A node's disk is full, breaks, or works again.
    Disk(u16, Option<DiskFault>),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} ms  {}", self.at.as_nanos() as f64 / 1e6, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Delivered { from, to, what, len, .. } => write!(f, "{from} -> {to}  {what} ({len} B)"),
            Self::Lost { from, to, what, len, .. } => write!(f, "{from} -x {to}  {what} ({len} B) lost"),
            Self::Cut { from, to, what, len, .. } => write!(f, "{from} -| {to}  {what} ({len} B) cut off"),
            Self::Unheard { from, to, what, len, .. } => write!(f, "{from} -x {to}  {what} ({len} B) nobody there"),
            Self::Overflowed { from, to, what, len, .. } => write!(f, "{from} -x {to}  {what} ({len} B) found no room"),
            Self::Started(id) => write!(f, "n{id} starts"),
            Self::Killed(id) => write!(f, "n{id} is killed"),
            Self::Stopped(id) => write!(f, "n{id} stops"),
            Self::Paused(id) => write!(f, "n{id} is paused"),
            Self::Resumed(id) => write!(f, "n{id} goes on"),
            Self::Aggregator(number, what) => write!(f, "a{number} {what}"),
            Self::Gateway(what) => write!(f, "the gateway {what}"),
            Self::Role { id, role, term, commit, applied } => {
                let what = match role {
                    Role::Leader => "leads",
                    Role::Candidate => "stands for election in",
                    Role::Follower => "follows in",
                };
                write!(f, "n{id} {what} term {term} (commit {commit}, applied {applied})")
            }
            Self::Blocked { from, to, more: 0 } => write!(f, "{from} is cut off from {to}"),
            Self::Blocked { from, to, more: 1 } => write!(f, "{from} is cut off from {to}, and so is one more pair"),
            Self::Blocked { from, to, more } => write!(f, "{from} is cut off from {to}, and so are {more} more pairs"),
            Self::Disk(id, Some(DiskFault::Full)) => write!(f, "the disk of n{id} is full"),
            Self::Disk(id, Some(DiskFault::Broken)) => write!(f, "the disk of n{id} breaks"),
            Self::Disk(id, None) => write!(f, "the disk of n{id} works again"),
            Self::ClockJumped { party, by } => write!(f, "{party}'s clock jumps ahead by {by:?}"),
            Self::ClockStalled { party, by } => write!(f, "{party}'s clock is set back by {by:?} and stands still"),
            Self::Healed => write!(f, "nobody is cut off any more"),
            Self::NetworkChanged => write!(f, "the network changes"),
            Self::Invoked { client, ticket } => write!(f, "c{client} invokes operation {}", ticket.0),
            Self::Ended { client, ticket, outcome } => write!(f, "c{client} operation {} ends: {outcome}", ticket.0),
            Self::Violated => write!(f, "an invariant is violated"),
        }
    }
}

/// Most happenings that are remembered.
const RECENT_MAX: usize = 64;

impl<S: Service> World<S> {
    pub(super) fn happened(&mut self, what: What) {
        self.happened_because(what, String::new);
    }

    /// The same, with more about it for the recording.
    pub(super) fn happened_because(&mut self, what: What, detail: impl FnOnce() -> String) {
        // What is done to a world after that explains nothing.
        if self.violation.is_some() {
            return;
        }
        let happening = Happening { at: self.now, what };
        if let Some(recording) = &mut self.recording {
            recording.happened(happening, detail);
        }
        if let What::Blocked { .. } = what
            && let Some(Happening { at, what: What::Blocked { more, .. } }) = self.recent.back_mut()
            && *at == self.now
        {
            *more += 1;
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(happening);
    }

    /// Says so if a node has another role or term than when it was looked at last.
    pub(super) fn look_at_role(&mut self, id: u16) {
        let host = self.host_mut(id);
        let Some(running) = &host.running else { return };
        let consensus = running.node.consensus();
        let (role, term) = (consensus.role(), consensus.term());
        if host.role != Some((role, term)) {
            host.role = Some((role, term));
            let (commit, applied) = (consensus.commit(), running.node.applied());
            self.happened(What::Role { id, role, term, commit, applied });
        }
    }
}

/// How far a node is, in a few words.
pub(super) fn progress(node: &Node) -> String {
    let consensus = node.consensus();
    let (term, log) = (consensus.term(), consensus.log());
    let (first, last, commit) = (log.first(), log.last(), consensus.commit());
    format!("term {term}, log {first} to {last}, commit {commit}, applied {}", node.applied())
}
