//! What happens in a world, for whoever looks for the reason of what happened next.

use std::fmt;

use r2p2::Instant;

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
    /// Nodes killed.
    pub kills: u64,
    /// Nodes paused.
    pub pauses: u64,
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
#[allow(missing_docs)] // The fields are those of a flight, or a node's id.
pub enum What {
    /// A datagram arrives.
    Delivered { from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by chance.
    Lost { from: Party, to: Party, what: &'static str, len: usize },
    /// A datagram is lost by a rule or a partition.
    Cut { from: Party, to: Party, what: &'static str, len: usize },
    /// A node is killed.
    Killed(u16),
    /// A node stops by itself.
    Stopped(u16),
    /// A node is paused.
    Paused(u16),
    /// A node goes on.
    Resumed(u16),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} ms  ", self.at.as_nanos() as f64 / 1e6)?;
        match self.what {
            What::Delivered { from, to, what, len } => write!(f, "{from} -> {to}  {what} ({len} B)"),
            What::Lost { from, to, what, len } => write!(f, "{from} -x {to}  {what} ({len} B) lost"),
            What::Cut { from, to, what, len } => write!(f, "{from} -| {to}  {what} ({len} B) cut off"),
            What::Killed(id) => write!(f, "n{id} is killed"),
            What::Stopped(id) => write!(f, "n{id} stops"),
            What::Paused(id) => write!(f, "n{id} is paused"),
            What::Resumed(id) => write!(f, "n{id} goes on"),
        }
    }
}
