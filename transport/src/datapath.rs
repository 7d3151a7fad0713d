//! What moves datagrams: a small batched trait, implemented by the kernel's UDP sockets ([`crate::udp`]), by fault
//! injectors around them ([`crate::fault`]) and by whatever comes later.
//!
//! A datapath knows nothing of what is in a datagram. It never reorders what it is given to transmit: who wants
//! consensus traffic to go first pushes it first.

use std::io;
use std::net::SocketAddrV4;

use bytes::Bytes;

use crate::Instant;

/// A batched, non-blocking source and sink of datagrams on a fixed set of sockets.
///
/// The loop that drives one: `receive` from every socket, feed the cores, `transmit` what they want sent, and if
/// nothing was left to do, `wait` until the cores' next deadline. `wait` is level-triggered: it returns at once while
/// any socket has something to read, so every socket must be read (or the loop spins).
///
/// Every method panics if it is given a [`SocketId`] that is not one of this datapath's.
pub trait Datapath {
    /// What this backend can do beyond the minimum.
    fn capabilities(&self) -> Capabilities;

    /// Appends at most `budget` datagrams waiting on `socket` to `batch`, without blocking.
    ///
    /// Returns how many were taken from the socket. Less than `budget` means that it is empty now. Datagrams that were
    /// taken and not appended (too large for the socket's `datagram_max`, lost by a fault injector) are in the
    /// counters.
    ///
    /// # Errors
    /// Only if the socket itself can no longer be used.
    fn receive(&mut self, socket: SocketId, budget: usize, batch: &mut ReceiveBatch) -> io::Result<usize>;

    /// Sends every datagram of `batch` in order and leaves it empty.
    ///
    /// UDP promises nothing, and neither does this: a datagram that could not be sent (no room within a short time, no
    /// route, nobody listening) is counted, and the rest of the batch still goes out.
    ///
    /// # Errors
    /// Only if a socket itself can no longer be used. The batch is empty then as well.
    fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()>;

    /// Blocks until a socket is readable, a waker was used or `deadline` has passed. Without a deadline it may block
    /// forever.
    ///
    /// It may also return early for no reason the caller can see (a signal handler ran, for one): that is reported as
    /// [`Wake::Woken`].
    ///
    /// # Errors
    /// Only if waiting itself is impossible.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Wake>;

    /// What has happened on one socket so far.
    fn counters(&self, socket: SocketId) -> SocketCounters;
}

/// One socket of a datapath: its place in the order in which they were added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub usize);

/// Why [`Datapath::wait`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// At least one socket can be read.
    Readable,
    /// Another thread asked for attention. Sockets may be readable as well; the next `wait` would say so.
    Woken,
    /// The deadline has passed, and nothing else has happened.
    Deadline,
}

/// What a backend can do beyond sending and receiving single datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// One transmit to a multicast group address reaches all its members.
    pub multicast: bool,
    /// The backend cuts one large buffer into datagrams itself.
    pub segmentation_offload: bool,
    /// Datagrams are sent from the caller's memory without a copy.
    pub zero_copy: bool,
    /// Datagrams carry the time at which they arrived.
    pub timestamps: bool,
    /// [`SocketCounters::kernel_drops`] is meaningful.
    pub kernel_drops: bool,
}

/// What has happened on one socket, in datagrams unless the name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketCounters {
    /// Delivered to the caller.
    pub received: u64,
    /// Bytes of UDP payload delivered to the caller.
    pub received_bytes: u64,
    /// Arrived, but larger than the socket's `datagram_max`: not delivered.
    pub truncated: u64,
    /// Thrown away by the kernel because the socket's receive buffer was full (or the checksum was wrong).
    pub kernel_drops: u64,
    /// Errors the kernel reported while reading; mostly about datagrams sent earlier.
    pub receive_errors: u64,
    /// Handed to the kernel.
    pub transmitted: u64,
    /// Bytes of UDP payload handed to the kernel.
    pub transmitted_bytes: u64,
    /// Not sent because the send buffer stayed full.
    pub transmit_drops: u64,
    /// Errors the kernel reported while sending: no route, refused, too large, ...
    pub transmit_errors: u64,
}

impl SocketCounters {
    /// Name and value of each, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            received,
            received_bytes,
            truncated,
            kernel_drops,
            receive_errors,
            transmitted,
            transmitted_bytes,
            transmit_drops,
            transmit_errors,
        } = self;
        [
            ("received", received),
            ("received_bytes", received_bytes),
            ("truncated", truncated),
            ("kernel_drops", kernel_drops),
            ("receive_errors", receive_errors),
            ("transmitted", transmitted),
            ("transmitted_bytes", transmitted_bytes),
            ("transmit_drops", transmit_drops),
            ("transmit_errors", transmit_errors),
        ]
        .into_iter()
    }
}

/// One datagram, as it lies in a [`ReceiveBatch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// The socket it came in on.
    pub socket: SocketId,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The UDP payload.
    pub bytes: &'a [u8],
}

/// Received datagrams, in one block of memory that is reused from batch to batch.
///
/// The memory grows with need and never shrinks: at most to twice the sum of budget × (the socket's `datagram_max` +
/// 128) over the `receive` calls between two `clear`s. Large blocks of it become resident only where datagrams really
/// lay.
#[derive(Debug, Default)]
pub struct ReceiveBatch {
    arena: Vec<u8>,
    used: usize,
    datagrams: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    socket: SocketId,
    from: SocketAddrV4,
    start: usize,
    len: usize,
}

impl ReceiveBatch {
    /// An empty batch. It gets its memory when it is first received into.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.datagrams.clear();
        self.used = 0;
    }

    /// How many datagrams it holds.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The datagrams, in the order in which they were received.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Received<'_>> {
        self.datagrams.iter().map(|slot| Received {
            socket: slot.socket,
            from: slot.from,
            bytes: &self.arena[slot.start..slot.start + slot.len],
        })
    }

    /// Appends a copy of a datagram: for backends that do not receive into the batch's own memory.
    pub fn push(&mut self, socket: SocketId, from: SocketAddrV4, bytes: &[u8]) {
        let start = self.used;
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.record(socket, from, start, bytes.len());
    }

    /// Where the free memory begins.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The free memory, at least `bytes` of it.
    pub(crate) fn spare(&mut self, bytes: usize) -> &mut [u8] {
        let wanted = self.used + bytes;
        if self.arena.len() < wanted {
            // A new zeroed allocation instead of `resize`, which would write to (and so make resident) every page.
            let mut arena = vec![0; wanted.max(self.arena.len() * 2)];
            arena[..self.used].copy_from_slice(&self.arena[..self.used]);
            self.arena = arena;
        }
        &mut self.arena[self.used..]
    }

    /// Makes a datagram of `len` bytes that were written at `start`, which is at or beyond [`Self::used`].
    pub(crate) fn record(&mut self, socket: SocketId, from: SocketAddrV4, start: usize, len: usize) {
        assert!(self.used <= start, "overwrites a datagram");
        self.datagrams.push(Slot { socket, from, start, len });
        self.used = start + len;
    }
}

/// One datagram of a [`TransmitBatch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing<'a> {
    /// The socket to send it on.
    pub socket: SocketId,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// The UDP payload.
    pub packet: &'a Bytes,
}

/// Datagrams to send, in order, each packet to one receiver or to several.
#[derive(Debug, Default)]
pub struct TransmitBatch {
    packets: Vec<Packet>,
    receivers: Vec<SocketAddrV4>,
}

#[derive(Debug)]
struct Packet {
    socket: SocketId,
    bytes: Bytes,
    /// One past its last receiver in `receivers`; the first is where the previous packet's end.
    end: usize,
}

impl TransmitBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one datagram.
    pub fn push(&mut self, socket: SocketId, to: SocketAddrV4, packet: Bytes) {
        self.push_many(socket, &[to], packet);
    }

    /// Appends one datagram for each receiver, all with the same payload.
    pub fn push_many(&mut self, socket: SocketId, to: &[SocketAddrV4], packet: Bytes) {
        if to.is_empty() {
            return;
        }
        self.receivers.extend_from_slice(to);
        self.packets.push(Packet { socket, bytes: packet, end: self.receivers.len() });
    }

    /// How many datagrams it holds: receivers, not packets.
    pub fn len(&self) -> usize {
        self.receivers.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.receivers.clear();
    }

    /// The packets in order, each with its set of receivers: for a backend that can send to a set at once.
    pub fn packets(&self) -> impl Iterator<Item = (SocketId, &[SocketAddrV4], &Bytes)> {
        let mut start = 0;
        self.packets.iter().map(move |packet| {
            let receivers = &self.receivers[start..packet.end];
            start = packet.end;
            (packet.socket, receivers, &packet.bytes)
        })
    }

    /// The datagrams in order.
    pub fn iter(&self) -> impl Iterator<Item = Outgoing<'_>> {
        self.iter_from(0)
    }

    /// The datagrams in order, without the first `skip`.
    pub(crate) fn iter_from(&self, skip: usize) -> impl Iterator<Item = Outgoing<'_>> {
        let mut packets = self.packets[self.packets.partition_point(|packet| packet.end <= skip)..].iter().peekable();
        self.receivers.iter().enumerate().skip(skip).map_while(move |(index, &to)| {
            packets.next_if(|packet| packet.end <= index);
            packets.peek().map(|packet| Outgoing { socket: packet.socket, to, packet: &packet.bytes })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: SocketId = SocketId(0);
    const B: SocketId = SocketId(1);

    #[test]
    fn received_datagrams_keep_order_and_content_while_the_memory_grows() {
        let mut batch = ReceiveBatch::new();
        for round in 0..2 {
            let contents: Vec<Vec<u8>> = (0..100_u8).map(|i| vec![i ^ round; usize::from(i) * 13]).collect();
            for (i, bytes) in contents.iter().enumerate() {
                batch.push(SocketId(i % 3), address(i), bytes);
            }
            assert_eq!(batch.len(), 100);
            for (i, received) in batch.iter().enumerate() {
                assert_eq!(received, Received { socket: SocketId(i % 3), from: address(i), bytes: &contents[i] });
            }
            batch.clear();
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn received_datagrams_may_leave_gaps() {
        let mut batch = ReceiveBatch::new();
        batch.push(A, address(1), b"one");
        let start = batch.used() + 100;
        batch.spare(200)[100..103].copy_from_slice(b"two");
        batch.record(B, address(2), start, 3);
        batch.push(A, address(3), b"three");
        let contents: Vec<&[u8]> = batch.iter().map(|received| received.bytes).collect();
        assert_eq!(contents, [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn transmit_batch_flattens_in_order_from_anywhere() {
        let mut batch = TransmitBatch::new();
        batch.push(A, address(1), Bytes::from_static(b"a"));
        batch.push_many(B, &[], Bytes::from_static(b"nobody"));
        batch.push_many(B, &[address(2), address(3), address(4)], Bytes::from_static(b"b"));
        batch.push(A, address(5), Bytes::from_static(b"c"));

        let flat: Vec<_> =
            batch.iter().map(|outgoing| (outgoing.socket, outgoing.to, outgoing.packet.clone())).collect();
        let expected = [
            (A, address(1), Bytes::from_static(b"a")),
            (B, address(2), Bytes::from_static(b"b")),
            (B, address(3), Bytes::from_static(b"b")),
            (B, address(4), Bytes::from_static(b"b")),
            (A, address(5), Bytes::from_static(b"c")),
        ];
        assert_eq!(flat, expected);
        assert_eq!(batch.len(), 5);
        for skip in 0..=5 {
            assert!(batch.iter().skip(skip).eq(batch.iter_from(skip)), "skip {skip}");
        }
        let sets: Vec<_> = batch.packets().map(|(socket, to, _)| (socket, to.len())).collect();
        assert_eq!(sets, [(A, 1), (B, 3), (A, 1)]);

        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.iter().count(), 0);
    }

    fn address(i: usize) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1000 + u16::try_from(i).expect("small"))
    }
}
