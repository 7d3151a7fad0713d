//! The operations that have not ended, by ticket.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use crate::Instant;
use crate::wire::Digest;

use super::outcome::{Kind, Ticket};

/// Tickets name at most this many operations at a time.
pub(super) const SLOTS_MAX: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 20;

/// Something that wants an answer.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) role: Role,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) submitted: Instant,
    pub(super) give_up: Instant,
    /// When its timer fires: it is in the timer set at exactly this time, once it is armed.
    pub(super) wake: Option<Instant>,
    /// In flight under this rid; meaningless while held.
    pub(super) rid: u16,
    /// Digest of a body of several packets.
    pub(super) digest: Option<Digest>,
    /// When its first copy was sent.
    pub(super) first_sent: Instant,
    /// Copies sent.
    pub(super) attempts: u32,
    /// Waits for an answer that were in vain.
    pub(super) timeouts: u32,
    /// The current wait, without jitter.
    pub(super) wait: Duration,
    /// Where the last copy went.
    pub(super) path: Path,
    /// The node that answered last is no longer tried: a timeout or a NOT LEADER sent it back to the group.
    pub(super) to_group: bool,
    /// A DROP or NOT LEADER has been heard since the last copy: the timer is for trying again, not for an answer.
    pub(super) backing_off: bool,
}

/// What an operation is to this client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Not sent yet; it has neither rid nor seq.
    Held,
    /// The request for a session. It has no completion.
    Open { nonce: u64 },
    /// In flight under a session.
    Session { client: u64, seq: u64 },
    /// In flight without one. `handshake`: its first packet waits for an ACK before the rest may follow.
    Plain { handshake: bool },
    /// For one node itself.
    Admin { node: SocketAddrV4 },
}

/// Where a copy went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// Only to the node that had answered last.
    Sticky(SocketAddrV4),
    /// To the group (and perhaps a node), or to the one node of an admin request.
    Full,
}

impl Operation {
    pub(super) fn new(role: Role, kind: Kind, body: Bytes, now: Instant, give_up: Instant) -> Self {
        Self {
            role,
            kind,
            body,
            submitted: now,
            give_up,
            wake: None,
            rid: 0,
            digest: None,
            first_sent: now,
            attempts: 0,
            timeouts: 0,
            wait: Duration::ZERO,
            path: Path::Full,
            to_group: false,
            backing_off: false,
        }
    }
}

/// A slab. A ticket is a serial number (never reused, so tickets are ordered by submission) above a slot number.
#[derive(Debug, Default)]
pub(super) struct Operations {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    serial: u64,
}

#[derive(Debug)]
struct Slot {
    ticket: Ticket,
    operation: Option<Operation>,
}

impl Operations {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// The limits in the configuration keep this below [`SLOTS_MAX`].
    pub(super) fn insert(&mut self, operation: Operation) -> Ticket {
        self.serial += 1;
        let slot = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        debug_assert!((slot as usize) < SLOTS_MAX);
        let ticket = Ticket(self.serial << SLOT_BITS | u64::from(slot));
        let filled = Slot { ticket, operation: Some(operation) };
        match self.slots.get_mut(slot as usize) {
            Some(slot) => *slot = filled,
            None => self.slots.push(filled),
        }
        ticket
    }

    pub(super) fn find(&self, ticket: Ticket) -> Option<&Operation> {
        let slot = self.slots.get(slot_of(ticket)).filter(|slot| slot.ticket == ticket)?;
        slot.operation.as_ref()
    }

    pub(super) fn find_mut(&mut self, ticket: Ticket) -> Option<&mut Operation> {
        let slot = self.slots.get_mut(slot_of(ticket)).filter(|slot| slot.ticket == ticket)?;
        slot.operation.as_mut()
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Operation> {
        let slot = self.slots.get_mut(slot_of(ticket)).filter(|slot| slot.ticket == ticket)?;
        let operation = slot.operation.take()?;
        self.vacant.push(slot_of(ticket) as u32);
        Some(operation)
    }
}

impl Ticket {
    /// How many operations came before, roughly: counts up from one submission to the next.
    pub(super) const fn serial(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

const fn slot_of(ticket: Ticket) -> usize {
    (ticket.0 as usize) & (SLOTS_MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(rid: u16) -> Operation {
        Operation { rid, ..Operation::new(Role::Held, Kind::Read, Bytes::new(), Instant::ZERO, Instant::FAR_FUTURE) }
    }

    #[test]
    fn a_reused_slot_does_not_answer_to_the_old_ticket() {
        let mut operations = Operations::default();
        let first = operations.insert(operation(1));
        let second = operations.insert(operation(2));
        assert!(first < second);
        assert_eq!(operations.remove(first).map(|operation| operation.rid), Some(1));
        assert!(operations.remove(first).is_none());
        let third = operations.insert(operation(3));
        assert!(second < third);
        assert!(operations.find(first).is_none());
        assert!(operations.find_mut(first).is_none());
        assert_eq!(operations.find(third).map(|operation| operation.rid), Some(3));
        assert_eq!(operations.len(), 2);
    }

    #[test]
    fn foreign_tickets_name_nothing() {
        let mut operations = Operations::default();
        assert!(operations.find(Ticket(0)).is_none());
        assert!(operations.remove(Ticket(u64::MAX)).is_none());
    }
}
