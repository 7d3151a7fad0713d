//! From packets back to messages, in any order and within named limits (protocol.md §3.2).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;

use crate::message::Message;
use crate::wire::{Digest, DigestKey, Header, MessageType, Packet, ParseError, digest};
use crate::{Instant, wire};

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReassemblyLimits {
    /// Longest message, bytes of body.
    pub message_max: usize,
    /// Most incomplete messages of one address and port; the oldest of them makes room.
    pub slots_per_peer: usize,
    /// Most incomplete messages in all; a new one is refused.
    pub slots_max: usize,
    /// Most bytes held by incomplete messages in all, packets' bookkeeping included; a packet beyond is refused.
    pub bytes_max: usize,
    /// How long a message may stay incomplete.
    pub age_max: Duration,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        Self {
            message_max: 1 << 20,
            slots_per_peer: 64,
            slots_max: 4096,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(1),
        }
    }
}

/// Why a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reject {
    /// It is not an R2P2 packet.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Its message is, or would become, longer than `message_max`.
    #[error("the message is longer than the limit")]
    TooLong,
    /// It does not fit what other packets of the message say: another number of packets, an index beyond it, a second
    /// first packet that differs.
    #[error("the packet contradicts others of its message")]
    Inconsistent,
    /// It carries no body, so it can only waste a place.
    #[error("an empty packet in a message of several")]
    Empty,
    /// `slots_max` messages are incomplete.
    #[error("too many incomplete messages")]
    SlotsFull,
    /// `bytes_max` bytes are held.
    #[error("too many bytes of incomplete messages")]
    BytesFull,
    /// The message is complete and not the one that its first packet promised.
    #[error("the body does not have the digest that was announced")]
    BadDigest,
}

impl Reject {
    /// How many reasons there are.
    pub const COUNT: usize = ParseError::COUNT + OWN_NAMES.len();

    /// This reason's number, below [`Reject::COUNT`].
    pub fn index(&self) -> usize {
        let own = match self {
            Self::Parse(error) => return error.index(),
            Self::TooLong => 0,
            Self::Inconsistent => 1,
            Self::Empty => 2,
            Self::SlotsFull => 3,
            Self::BytesFull => 4,
            Self::BadDigest => 5,
        };
        ParseError::COUNT + own
    }

    /// The name of the reason with this number, for counters.
    pub fn name(index: usize) -> &'static str {
        ParseError::NAMES.iter().chain(&OWN_NAMES).nth(index).copied().unwrap_or("unknown")
    }
}

const OWN_NAMES: [&str; 6] = [
    "message_too_long",
    "inconsistent_packets",
    "empty_packet",
    "reassembly_slots_full",
    "reassembly_bytes_full",
    "bad_digest",
];

/// Joins packets to messages. See the module.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    key: DigestKey,
    slots: BTreeMap<Key, Slot>,
    /// Oldest first; may name slots that are gone.
    ages: VecDeque<(Instant, u64, Key)>,
    per_peer: BTreeMap<SocketAddrV4, usize>,
    bytes: usize,
    opened: u64,
}

/// What makes packets parts of one message. Never the rid alone: a read that another replica answers again at a later
/// index must not fill the gaps of the first answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    from: SocketAddrV4,
    kind: MessageType,
    rid: u16,
    session: Option<wire::Session>,
    entry_index: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    opened: u64,
    /// Number of packets; known with the first one, or from the last one's index.
    total: Option<u16>,
    first: Option<First>,
    parts: BTreeMap<u16, Bytes>,
    /// Bytes of body so far.
    len: usize,
}

#[derive(Debug)]
struct First {
    header: Header,
    digest: Option<Digest>,
}

/// What one packet costs beside its bytes.
const PART_OVERHEAD: usize = 64;

impl Reassembler {
    /// With nothing in pieces. `key` is that of the digests in first packets.
    pub fn new(limits: ReassemblyLimits, key: DigestKey) -> Self {
        Self {
            limits,
            key,
            slots: BTreeMap::new(),
            ages: VecDeque::new(),
            per_peer: BTreeMap::new(),
            bytes: 0,
            opened: 0,
        }
    }

    /// Takes a packet; returns the message that it completes, if it does.
    ///
    /// # Errors
    /// Why the packet was refused. What was held before is kept, except after [`Reject::BadDigest`].
    pub fn accept(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) -> Result<Option<Message>, Reject> {
        let packet = Packet::new_checked(packet)?;
        let header = Header::parse(&packet)?;
        self.accept_parsed(now, from, &header, packet.payload())
    }

    /// The same for a packet that has been parsed already.
    ///
    /// # Errors
    /// See [`Reassembler::accept`].
    pub fn accept_parsed(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        header: &Header,
        payload: &[u8],
    ) -> Result<Option<Message>, Reject> {
        if payload.len() > self.limits.message_max {
            return Err(Reject::TooLong);
        }
        if header.first && header.last {
            return self.complete(header, Bytes::copy_from_slice(payload)).map(Some);
        }
        if payload.is_empty() {
            return Err(Reject::Empty);
        }
        let key = Key {
            from,
            kind: header.kind,
            rid: header.rid,
            session: header.extensions.session.map(|session| wire::Session { first_unacked: 0, ..session }),
            entry_index: header.extensions.entry_index,
        };
        let (place, total) = match (header.first, header.last) {
            (true, _) => (0, Some(header.order)),
            (false, true) => (header.order, Some(header.order.checked_add(1).ok_or(Reject::Inconsistent)?)),
            (false, false) => (header.order, None),
        };
        // Every packet carries at least a byte, so a total beyond this cannot be honest.
        if total.is_some_and(|total| usize::from(total) > self.limits.message_max) {
            return Err(Reject::TooLong);
        }
        self.check(&key, header, place, total, payload)?;
        if self.slots.get(&key).is_some_and(|slot| slot.parts.contains_key(&place)) {
            return Ok(None);
        }
        if self.bytes + payload.len() + PART_OVERHEAD > self.limits.bytes_max {
            return Err(Reject::BytesFull);
        }
        self.open(now, key)?;
        let Some(slot) = self.slots.get_mut(&key) else { return Ok(None) };
        if header.first {
            slot.first = Some(First { header: *header, digest: header.extensions.digest });
        }
        slot.total = slot.total.or(total);
        slot.len += payload.len();
        slot.parts.insert(place, Bytes::copy_from_slice(payload));
        self.bytes += payload.len() + PART_OVERHEAD;
        let complete = slot.first.is_some() && slot.total.is_some_and(|total| slot.parts.len() == usize::from(total));
        if !complete {
            return Ok(None);
        }
        let Some(slot) = self.close(&key) else { return Ok(None) };
        let mut body = Vec::with_capacity(slot.len);
        for part in slot.parts.values() {
            body.extend_from_slice(part);
        }
        let Some(first) = slot.first else { return Ok(None) };
        debug_assert_eq!(first.digest, first.header.extensions.digest);
        self.complete(&first.header, Bytes::from(body)).map(Some)
    }

    /// Forgets messages that have been incomplete for too long; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some((at, opened, key)) = self.ages.front().copied() {
            if self.slots.get(&key).is_some_and(|slot| slot.opened == opened) {
                if now.since(at) < self.limits.age_max {
                    break;
                }
                self.close(&key);
                expired += 1;
            } else {
                self.ages.pop_front();
            }
        }
        expired
    }

    /// When [`Reassembler::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.ages.front().map(|(at, ..)| *at + self.limits.age_max)
    }

    /// How many messages are incomplete.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes held, bookkeeping included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the packet can be part of what is here.
    fn check(&self, key: &Key, header: &Header, place: u16, total: Option<u16>, payload: &[u8]) -> Result<(), Reject> {
        let Some(slot) = self.slots.get(key) else { return Ok(()) };
        let known = slot.total;
        if known.is_some() && total.is_some() && known != total {
            return Err(Reject::Inconsistent);
        }
        let count = known.or(total);
        let highest = slot.parts.last_key_value().map_or(0, |(place, _)| *place).max(place);
        if count.is_some_and(|count| highest >= count) {
            return Err(Reject::Inconsistent);
        }
        if let Some(first) = slot.first.as_ref().filter(|_| header.first) {
            let same = first.header.order == header.order && first.digest == header.extensions.digest;
            if !same || slot.parts.get(&0).is_some_and(|part| part != payload) {
                return Err(Reject::Inconsistent);
            }
        }
        if !slot.parts.contains_key(&place) && slot.len + payload.len() > self.limits.message_max {
            return Err(Reject::TooLong);
        }
        Ok(())
    }

    fn open(&mut self, now: Instant, key: Key) -> Result<(), Reject> {
        if self.slots.contains_key(&key) {
            return Ok(());
        }
        if self.per_peer.get(&key.from).is_some_and(|slots| *slots >= self.limits.slots_per_peer) {
            self.close_oldest_of(key.from);
        }
        if self.slots.len() >= self.limits.slots_max {
            return Err(Reject::SlotsFull);
        }
        self.opened += 1;
        let slot = Slot { opened: self.opened, total: None, first: None, parts: BTreeMap::new(), len: 0 };
        self.slots.insert(key, slot);
        *self.per_peer.entry(key.from).or_default() += 1;
        self.ages.push_back((now, self.opened, key));
        Ok(())
    }

    /// A client that starts one message after the other and finishes none gives up its own oldest, nobody else's.
    fn close_oldest_of(&mut self, from: SocketAddrV4) {
        let lowest = Key { from, kind: MessageType::Request, rid: 0, session: None, entry_index: None };
        let oldest = self
            .slots
            .range(lowest..)
            .take_while(|(key, _)| key.from == from)
            .min_by_key(|(_, slot)| slot.opened)
            .map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.close(&key);
        }
    }

    fn close(&mut self, key: &Key) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        self.bytes -= slot.len + slot.parts.len() * PART_OVERHEAD;
        if let Some(slots) = self.per_peer.get_mut(&key.from) {
            *slots -= 1;
            if *slots == 0 {
                self.per_peer.remove(&key.from);
            }
        }
        while self.ages.front().is_some_and(|(_, opened, key)| !is_open(&self.slots, key, *opened)) {
            self.ages.pop_front();
        }
        if self.ages.len() > 2 * self.slots.len() + 64 {
            let slots = &self.slots;
            self.ages.retain(|(_, opened, key)| is_open(slots, key, *opened));
        }
        Some(slot)
    }

    fn complete(&self, header: &Header, body: Bytes) -> Result<Message, Reject> {
        if let Some(announced) = header.extensions.digest {
            let scope = header.extensions.session.map(|session| (session.client, session.seq));
            if digest(&self.key, scope, &body) != announced {
                return Err(Reject::BadDigest);
            }
        }
        Ok(Message {
            kind: header.kind,
            policy: header.policy,
            rid: header.rid,
            extensions: header.extensions,
            body,
        })
    }
}

fn is_open(slots: &BTreeMap<Key, Slot>, key: &Key, opened: u64) -> bool {
    slots.get(key).is_some_and(|slot| slot.opened == opened)
}
