//! Putting messages together from packets that come in any order, more than once, or not at all (protocol.md §3.2).

mod counters;
mod limits;
mod reject;
mod slot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use crate::Instant;
use crate::message::{Message, MessageHead};
use crate::wire::{DigestKey, Header, Packet, digest};

pub use counters::ReassemblyCounters;
pub use limits::ReassemblyLimits;
pub use reject::Reject;

use slot::{Key, Piece, SLOT_COST, Slot};

/// The first packet of a message without a session that comes again within this time is the network's copy. Later it
/// is its sender starting anew: it retransmits, or uses the rid for another message. Packets that wait since before
/// then are not mixed with it.
pub const COPY_AGE_MAX: Duration = Duration::from_millis(20);

/// Messages in pieces, by (source, kind, rid, session, seq, entry index).
///
/// A message of one packet passes through without being held. All tables are bounded in count, bytes and age
/// ([`ReassemblyLimits`]); one that is full forgets its oldest message. Deterministic, and without a clock: whoever
/// drives it calls [`expire`](Self::expire) when [`next_expiry`](Self::next_expiry) has come.
///
/// Without a session nothing but the rid tells two messages of one sender apart, so `age_max` should be less than the
/// time in which it sends 65 536 messages, or messages should carry a digest.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    digest_key: DigestKey,
    /// By the order in which they were started, so by age.
    slots: BTreeMap<Serial, Slot>,
    by_key: BTreeMap<Key, Serial>,
    by_peer: BTreeMap<SocketAddrV4, BTreeSet<Serial>>,
    next_serial: Serial,
    bytes: usize,
    counters: ReassemblyCounters,
}

type Serial = u64;

/// What came of a packet.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It completed its message.
    Complete(Message),
    /// It is the first packet of a message, of which more are to come.
    Started,
    /// More are to come.
    Partial,
    /// It was here already.
    Copy,
}

impl Reassembler {
    /// An empty one. `digest_key` checks messages that carry a digest.
    pub fn new(limits: ReassemblyLimits, digest_key: DigestKey) -> Self {
        Self {
            limits: limits.sanitized(),
            digest_key,
            slots: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            next_serial: 0,
            bytes: 0,
            counters: ReassemblyCounters::default(),
        }
    }

    /// Takes in a UDP payload that came from `from`, and gives the message that it completes. Any bytes are safe.
    /// Copies of packets are no error.
    pub fn accept(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) -> Result<Option<Message>, Reject> {
        let packet = Packet::new_checked(packet)?;
        let header = Header::parse(&packet)?;
        self.accept_parsed(now, from, &header, packet.payload())
    }

    /// The same for a packet that has been parsed already. `from` need not be where it came from.
    pub fn accept_parsed(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        header: &Header,
        payload: &[u8],
    ) -> Result<Option<Message>, Reject> {
        match self.advance(now, from, header, payload)? {
            Progress::Complete(message) => Ok(Some(message)),
            Progress::Started | Progress::Partial | Progress::Copy => Ok(None),
        }
    }

    /// Forgets messages that have been in pieces for `age_max`, and says how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some((&serial, slot)) = self.slots.first_key_value()
            && slot.started + self.limits.age_max <= now
        {
            self.remove(serial);
            expired += 1;
        }
        self.counters.expired += expired as u64;
        expired
    }

    /// When [`expire`](Self::expire) will have something to forget.
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, oldest) = self.slots.first_key_value()?;
        Some(oldest.started + self.limits.age_max)
    }

    /// Messages in pieces.
    pub fn held_messages(&self) -> usize {
        self.slots.len()
    }

    /// Bytes held for them, bookkeeping included; at most `bytes_max`.
    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// The limits as they are in force.
    pub const fn limits(&self) -> &ReassemblyLimits {
        &self.limits
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &ReassemblyCounters {
        &self.counters
    }
}

/// How packets become messages.
impl Reassembler {
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        header: &Header,
        body: &[u8],
    ) -> Result<Progress, Reject> {
        if header.first && header.last {
            return self.pass_through(header, body).map(Progress::Complete);
        }
        let piece = Piece { header, body };
        let key = Key::new(from, header);
        let serial = match self.by_key.get(&key) {
            Some(&serial) if self.starts_anew(now, serial, piece) => {
                self.remove(serial);
                self.counters.restarted += 1;
                None
            }
            known => known.copied(),
        };
        match serial {
            Some(serial) => self.add(serial, piece),
            None => {
                let serial = self.open(now, key);
                self.add(serial, piece)
            }
        }
    }

    fn pass_through(&self, header: &Header, body: &[u8]) -> Result<Message, Reject> {
        let limit = self.limits.message_max;
        if body.len() > limit {
            return Err(Reject::MessageTooLong { len: body.len(), limit });
        }
        let Header { kind, policy, rid, extensions, .. } = *header;
        let head = MessageHead { kind, policy, rid, extensions };
        self.check_digest(&head, body)?;
        Ok(Message { kind, policy, rid, extensions, body: Bytes::copy_from_slice(body) })
    }

    fn check_digest(&self, head: &MessageHead, body: &[u8]) -> Result<(), Reject> {
        let Some(stated) = head.extensions.digest else { return Ok(()) };
        let session = head.extensions.session.map(|session| (session.client, session.seq));
        if digest(&self.digest_key, session, body) == stated { Ok(()) } else { Err(Reject::DigestMismatch) }
    }

    /// See [`COPY_AGE_MAX`]. With a session the same key names the same message.
    fn starts_anew(&self, now: Instant, serial: Serial, piece: Piece<'_>) -> bool {
        let Some(slot) = self.slots.get(&serial).filter(|slot| slot.key.is_plain() && piece.header.first) else {
            return false;
        };
        let differs = slot.has_first() && !slot.too_long && !slot.has_same_first(piece);
        differs || now.since(slot.started) > COPY_AGE_MAX
    }

    /// A slot for a message of which nothing was known.
    fn open(&mut self, now: Instant, key: Key) -> Serial {
        let peer = self.by_peer.get(&key.from);
        if let Some(peer) = peer.filter(|peer| peer.len() >= self.limits.slots_per_peer)
            && let Some(&oldest) = peer.first()
        {
            self.remove(oldest);
            self.counters.evicted_slots_per_peer += 1;
        }
        if self.slots.len() >= self.limits.slots_max
            && let Some((&oldest, _)) = self.slots.first_key_value()
        {
            self.remove(oldest);
            self.counters.evicted_slots += 1;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.make_room(serial, 0, SLOT_COST);
        let slot = Slot::new(key, now);
        self.bytes += slot.charge();
        self.slots.insert(serial, slot);
        self.by_key.insert(key, serial);
        self.by_peer.entry(key.from).or_default().insert(serial);
        serial
    }

    fn add(&mut self, serial: Serial, piece: Piece<'_>) -> Result<Progress, Reject> {
        let limit = self.limits.message_max;
        let Some(slot) = self.slots.get_mut(&serial) else {
            debug_assert!(false, "by_key names slots that exist");
            return Ok(Progress::Partial);
        };
        if slot.too_long {
            return Err(Reject::RestOfTooLong);
        }
        slot.check(piece)?;
        slot.advance_first_unacked(piece.header);
        if slot.has(piece) {
            self.counters.copies += 1;
            return Ok(Progress::Copy);
        }
        let len = slot.note(piece);
        let before = slot.charge();
        let needed = slot.charge_with(piece, limit);
        let too_long = if len > limit {
            Some(Reject::MessageTooLong { len, limit })
        } else if needed > self.limits.bytes_max {
            Some(Reject::BytesFull { needed, limit: self.limits.bytes_max })
        } else {
            None
        };
        if let Some(reject) = too_long {
            slot.refuse_rest();
            self.bytes = self.bytes - before + slot.charge();
            return Err(reject);
        }

        self.make_room(serial, before, needed);
        let Some(slot) = self.slots.get_mut(&serial) else { return Ok(Progress::Partial) };
        slot.insert(piece, limit);
        debug_assert!(slot.charge() <= needed, "charge_with foresees what insert allocates");
        let complete = slot.complete();
        self.bytes = self.bytes - before + slot.charge();

        let Some((head, body)) = complete else {
            return Ok(if piece.header.first { Progress::Started } else { Progress::Partial });
        };
        self.remove(serial);
        self.check_digest(&head, &body)?;
        let MessageHead { kind, policy, rid, extensions } = head;
        Ok(Progress::Complete(Message { kind, policy, rid, extensions, body: body.into() }))
    }

    /// Forgets other messages, oldest first, until `serial` may grow from `before` to `needed` bytes.
    fn make_room(&mut self, serial: Serial, before: usize, needed: usize) {
        while self.bytes - before + needed > self.limits.bytes_max {
            let Some(&oldest) = self.slots.keys().find(|other| **other != serial) else {
                debug_assert!(needed > self.limits.bytes_max, "what is held is held by slots");
                break;
            };
            self.remove(oldest);
            self.counters.evicted_bytes += 1;
        }
    }

    fn remove(&mut self, serial: Serial) {
        let Some(slot) = self.slots.remove(&serial) else {
            debug_assert!(false, "only slots that exist are removed");
            return;
        };
        self.bytes -= slot.charge();
        self.by_key.remove(&slot.key);
        if let Some(peer) = self.by_peer.get_mut(&slot.key.from) {
            peer.remove(&serial);
            if peer.is_empty() {
                self.by_peer.remove(&slot.key.from);
            }
        }
    }
}
