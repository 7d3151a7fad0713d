//! One message in pieces.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use crate::Instant;
use crate::message::MessageHead;
use crate::wire::{Header, MessageType};

use super::Reject;

/// What tells messages in pieces apart: never the rid alone (protocol.md §3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) from: SocketAddrV4,
    kind: MessageType,
    rid: u16,
    /// Client id and seq.
    session: Option<(u64, u64)>,
    entry_index: Option<u64>,
}

impl Key {
    pub(super) fn new(from: SocketAddrV4, header: &Header) -> Self {
        let session = header.extensions.session.map(|session| (session.client, session.seq));
        Self { from, kind: header.kind, rid: header.rid, session, entry_index: header.extensions.entry_index }
    }

    /// Whether the same key may name another message soon.
    pub(super) const fn is_plain(&self) -> bool {
        self.session.is_none()
    }
}

/// What a slot costs beside its packets, against `bytes_max`: itself and its places in three trees.
pub(super) const SLOT_COST: usize = 512;
/// What a packet that waits for an earlier one costs beside its body.
pub(super) const WAITING_COST: usize = 64;
const _: () = assert!(size_of::<Slot>() + 3 * size_of::<Key>() <= SLOT_COST);

/// One message in pieces.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// When its first packet to arrive arrived.
    pub(super) started: Instant,
    /// Known once the first packet has arrived.
    head: Option<MessageHead>,
    first_len: usize,
    /// Known once the first or the last packet has arrived. Up to 65 536 packets, of which the first cannot tell.
    total: Option<u32>,
    /// The least that it can be from the indices seen: behind each that is not the last there is one more.
    total_least: u32,
    /// Body length of later packets but the last.
    later_len: Option<usize>,
    last_len: Option<usize>,
    /// The packets before `next`.
    assembled: Vec<u8>,
    next: u32,
    /// Packets beyond `next`.
    waiting: BTreeMap<u32, Box<[u8]>>,
    waiting_bytes: usize,
    /// Refused for its length; it holds nothing and refuses the rest.
    pub(super) too_long: bool,
}

/// One packet, as a slot sees it.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) header: &'a Header,
    pub(super) body: &'a [u8],
}

impl Piece<'_> {
    fn index(&self) -> u32 {
        if self.header.first { 0 } else { self.header.order.into() }
    }

    fn total(&self) -> Option<u32> {
        if self.header.first {
            Some(self.header.order.into())
        } else if self.header.last {
            Some(u32::from(self.header.order) + 1)
        } else {
            None
        }
    }
}

impl Slot {
    pub(super) const fn new(key: Key, started: Instant) -> Self {
        Self {
            key,
            started,
            head: None,
            first_len: 0,
            total: None,
            total_least: 0,
            later_len: None,
            last_len: None,
            assembled: Vec::new(),
            next: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            too_long: false,
        }
    }

    /// Whether a first packet is the one that is here already.
    pub(super) fn has_same_first(&self, piece: Piece<'_>) -> bool {
        self.head.is_some()
            && self.total == piece.total()
            && self.first_len == piece.body.len()
            && self.assembled.get(..self.first_len) == Some(piece.body)
    }

    pub(super) const fn has_first(&self) -> bool {
        self.head.is_some()
    }

    pub(super) fn has(&self, piece: Piece<'_>) -> bool {
        let index = piece.index();
        index < self.next || self.waiting.contains_key(&index)
    }

    /// Whether the packet can be of the same message as the others.
    pub(super) fn check(&self, piece: Piece<'_>) -> Result<(), Reject> {
        let index = piece.index();
        if let Some(stated) = piece.total() {
            let known = self.total.unwrap_or(self.total_least);
            let agrees = if self.total.is_some() { stated == known } else { stated >= known };
            if !agrees {
                return Err(Reject::TotalMismatch { stated, known });
            }
        } else if let Some(total) = self.total {
            if index >= total {
                return Err(Reject::IndexBeyondTotal { index: piece.header.order, total });
            }
            if index == total - 1 {
                // It should have said that it is the last.
                return Err(Reject::TotalMismatch { stated: total + 1, known: total });
            }
        }
        if piece.header.first {
            return Ok(());
        }
        let len = piece.body.len();
        if piece.header.last {
            if let Some(others) = self.later_len.filter(|others| len > *others) {
                return Err(Reject::LengthMismatch { len, others });
            }
        } else {
            if let Some(others) = self.later_len.filter(|others| len != *others) {
                return Err(Reject::LengthMismatch { len, others });
            }
            if let Some(others) = self.last_len.filter(|last| len < *last) {
                return Err(Reject::LengthMismatch { len, others });
            }
        }
        Ok(())
    }

    /// Notes what the packet says about the message, which [`check`](Self::check) found possible, and gives the
    /// least length in bytes that the message can then have.
    pub(super) fn note(&mut self, piece: Piece<'_>) -> usize {
        let len = piece.body.len();
        self.total = self.total.or(piece.total());
        if !piece.header.last {
            self.total_least = self.total_least.max(piece.index() + 2);
        }
        if piece.header.first {
            let Header { kind, policy, rid, extensions, .. } = *piece.header;
            self.head = Some(MessageHead { kind, policy, rid, extensions });
            self.first_len = len;
        } else if piece.header.last {
            self.last_len = Some(len);
        } else {
            self.later_len = Some(len);
        }
        // Indices between the first and the last.
        let between = self.total.unwrap_or(self.total_least).saturating_sub(2);
        let later = self.later_len.unwrap_or(0).saturating_mul(between as usize);
        later.saturating_add(self.first_len).saturating_add(self.last_len.unwrap_or(0))
    }

    /// A retransmission may know of more that needs no answer (protocol.md §3.3).
    pub(super) fn advance_first_unacked(&mut self, header: &Header) {
        if let (Some(head), Some(new)) = (&mut self.head, header.extensions.session)
            && let Some(session) = &mut head.extensions.session
        {
            session.first_unacked = session.first_unacked.max(new.first_unacked);
        }
    }

    /// Bytes this slot accounts for.
    pub(super) fn charge(&self) -> usize {
        SLOT_COST + self.assembled.capacity() + self.waiting_bytes + self.waiting.len() * WAITING_COST
    }

    /// Bytes this slot will account for at most once the packet has been [inserted](Self::insert).
    pub(super) fn charge_with(&self, piece: Piece<'_>, message_max: usize) -> usize {
        if piece.index() == self.next {
            // The waiting ones that follow it move, and are counted on both sides.
            let len = self.assembled.len() + piece.body.len() + self.waiting_bytes;
            self.charge() - self.assembled.capacity() + self.capacity_for(len, message_max)
        } else {
            self.charge() + piece.body.len() + WAITING_COST
        }
    }

    /// Doubles, so that bytes are moved a constant number of times, but not beyond what a message may have.
    fn capacity_for(&self, len: usize, message_max: usize) -> usize {
        let capacity = self.assembled.capacity();
        if len <= capacity { capacity } else { len.max((2 * capacity).min(message_max)) }
    }

    /// Takes a packet that the slot does not [have](Self::has).
    pub(super) fn insert(&mut self, piece: Piece<'_>, message_max: usize) {
        let index = piece.index();
        if index != self.next {
            self.waiting_bytes += piece.body.len();
            self.waiting.insert(index, piece.body.into());
            return;
        }
        // Room for all that is here, so that one packet allocates at most once.
        let len = self.assembled.len();
        let capacity = self.capacity_for(len + piece.body.len() + self.waiting_bytes, message_max);
        self.assembled.reserve_exact(capacity - len);
        self.append(piece.body);
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() == self.next
        {
            let body = entry.remove();
            self.waiting_bytes -= body.len();
            self.append(&body);
        }
    }

    fn append(&mut self, body: &[u8]) {
        self.assembled.extend_from_slice(body);
        self.next += 1;
    }

    /// Gives up what it holds; it is there only to know the rest by.
    pub(super) fn refuse_rest(&mut self) {
        self.too_long = true;
        self.assembled = Vec::new();
        self.waiting = BTreeMap::new();
        self.waiting_bytes = 0;
    }

    /// Head and body, once all packets have arrived.
    pub(super) fn complete(&mut self) -> Option<(MessageHead, Vec<u8>)> {
        if self.total != Some(self.next) {
            return None;
        }
        let mut body = std::mem::take(&mut self.assembled);
        // Bodies are kept for long.
        body.shrink_to_fit();
        Some((self.head?, body))
    }
}
