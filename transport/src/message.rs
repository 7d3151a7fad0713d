//! Whole messages, and how they are cut into packets (protocol.md §3.2).

use bytes::{Bytes, BytesMut};

use crate::wire::{Extensions, FIRST_BODY_LEN, Header, MessageType, Policy};

/// A complete message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What kind of message.
    pub kind: MessageType,
    /// Where requests are to be routed.
    pub policy: Policy,
    /// The request's number at its client.
    pub rid: u16,
    /// Those of the first packet.
    pub extensions: Extensions,
    /// What the application sees.
    pub body: Bytes,
}

/// Everything about a message but its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageHead {
    /// What kind of message.
    pub kind: MessageType,
    /// Where requests are to be routed.
    pub policy: Policy,
    /// The request's number at its client.
    pub rid: u16,
    /// The extensions of the first packet; later ones repeat those that tell messages apart
    /// ([`Extensions::of_later_packets`]).
    pub extensions: Extensions,
}

/// A body needs more packets than a message can have, or packets so small that they have no room for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a body of {len} bytes is too long, {limit} fit into the packets of one message")]
pub struct TooLong {
    /// The body's length in bytes.
    pub len: usize,
    /// The longest that would fit, in bytes.
    pub limit: usize,
}

impl Message {
    /// Everything but the body.
    pub const fn head(&self) -> MessageHead {
        MessageHead { kind: self.kind, policy: self.policy, rid: self.rid, extensions: self.extensions }
    }
}

/// Cuts a message into packets and gives `emit` each, in order, as a whole UDP payload. Emits nothing on error.
///
/// `packet_max` is the longest packet in bytes, header included: [`HEADER_LEN`](crate::wire::HEADER_LEN) +
/// [`PAYLOAD_MAX`](crate::wire::PAYLOAD_MAX) to clients and to the C implementation. A request of several packets that
/// does not say `no_handshake` has [`FIRST_BODY_LEN`] bytes of body in its first; send it by [`write_first_packet`]
/// and, once it is acknowledged, [`write_later_packets`].
pub fn write_packets(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    let cut = Cut::new(head, body, packet_max)?;
    cut.write_first(emit);
    cut.write_later(emit);
    Ok(())
}

/// Writes the first packet of a message only. The arguments are those of [`write_packets`].
pub fn write_first_packet(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    Cut::new(head, body, packet_max)?.write_first(emit);
    Ok(())
}

/// Writes all packets of a message but the first. The arguments are those of [`write_packets`], and the same as those
/// of the call of [`write_first_packet`] before.
pub fn write_later_packets(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    Cut::new(head, body, packet_max)?.write_later(emit);
    Ok(())
}

/// Where a message is cut.
struct Cut<'a> {
    head: &'a MessageHead,
    first: &'a [u8],
    later: &'a [u8],
    /// Body bytes in each later packet but the last.
    later_len: usize,
    /// All packets.
    packets: u16,
}

impl<'a> Cut<'a> {
    fn new(head: &'a MessageHead, body: &'a [u8], packet_max: usize) -> Result<Self, TooLong> {
        let len = body.len();
        let Some(first_max) = packet_max.checked_sub(head.extensions.header_len()) else {
            return Err(TooLong { len, limit: 0 });
        };
        let later_len = packet_max - head.extensions.of_later_packets().header_len();
        if len <= first_max {
            return Ok(Self { head, first: body, later: &[], later_len, packets: 1 });
        }
        let waits = head.kind == MessageType::Request && !head.extensions.no_handshake;
        let first_len = if waits { first_max.min(FIRST_BODY_LEN) } else { first_max };
        let later_packets_max = if head.kind.is_control() { 0 } else { usize::from(u16::MAX) - 1 };
        let limit = first_max.max(first_len.saturating_add(later_len.saturating_mul(later_packets_max)));
        if len > limit {
            return Err(TooLong { len, limit });
        }
        let (first, later) = body.split_at(first_len);
        // Within the limit the division is by more than 0 and gives at most `later_packets_max`.
        let packets = 1 + later.len().div_ceil(later_len) as u16;
        Ok(Self { head, first, later, later_len, packets })
    }

    fn write_first(&self, emit: &mut dyn FnMut(Bytes)) {
        let header = Header {
            kind: self.head.kind,
            policy: self.head.policy,
            first: true,
            last: self.packets == 1,
            rid: self.head.rid,
            order: self.packets,
            extensions: self.head.extensions,
        };
        let header_len = header.header_len();
        let mut packet = vec![0; header_len + self.first.len()];
        header.emit(&mut packet);
        packet[header_len..].copy_from_slice(self.first);
        emit(packet.into());
    }

    fn write_later(&self, emit: &mut dyn FnMut(Bytes)) {
        if self.later.is_empty() {
            return;
        }
        let mut header = Header {
            kind: self.head.kind,
            policy: self.head.policy,
            first: false,
            last: false,
            rid: self.head.rid,
            order: 0,
            extensions: self.head.extensions.of_later_packets(),
        };
        let header_len = header.header_len();
        // One allocation for all packets; each holds on to it.
        let mut buffer = BytesMut::with_capacity(self.later.len() + header_len * (usize::from(self.packets) - 1));
        for body in self.later.chunks(self.later_len) {
            header.order += 1;
            header.last = header.order == self.packets - 1;
            buffer.resize(header_len, 0);
            header.emit(&mut buffer);
            buffer.extend_from_slice(body);
            emit(buffer.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::wire::{HEADER_LEN, PAYLOAD_MAX, Packet, Session};

    const C_PACKET_MAX: usize = HEADER_LEN + PAYLOAD_MAX;

    /// What `r2p2_prepare_msg` of the C implementation makes of these.
    #[test]
    fn single_packets_are_those_of_the_c_implementation() {
        let packets = cut(&head(MessageType::Request, Policy::Replicated), b"set k v", C_PACKET_MAX);
        assert_eq!(packets, [&b"\xcc\x08\x02\xc0\x12\x34\x00\x01set k v"[..]]);
        let packets = cut(&head(MessageType::Response, Policy::Fixed), b"ok", C_PACKET_MAX);
        assert_eq!(packets, [&b"\xcc\x08\x11\xc0\x12\x34\x00\x01ok"[..]]);
        let packets = cut(&head(MessageType::RaftMessage, Policy::Fixed), b"", C_PACKET_MAX);
        assert_eq!(packets, [&b"\xcc\x08\x71\xc0\x12\x34\x00\x01"[..]]);
    }

    #[test]
    fn a_request_of_several_packets_is_that_of_the_c_implementation() {
        let body = numbered(14 + 1464 + 1);
        let packets = cut(&head(MessageType::Request, Policy::LoadBalanced), &body, C_PACKET_MAX);
        assert_eq!(packets.len(), 3);
        assert_eq!(packets[0][..8], *b"\xcc\x08\x00\x80\x12\x34\x00\x03");
        assert_eq!(packets[0][8..], body[..14]);
        assert_eq!(packets[0].len() + 42, 64, "the smallest Ethernet frame");
        assert_eq!(packets[1][..8], *b"\xcc\x08\x00\x00\x12\x34\x00\x01");
        assert_eq!(packets[1][8..], body[14..14 + 1464]);
        assert_eq!(packets[2][..8], *b"\xcc\x08\x00\x40\x12\x34\x00\x02");
        assert_eq!(packets[2][8..], body[14 + 1464..]);
    }

    #[test]
    fn a_response_of_several_packets_is_that_of_the_c_implementation() {
        let body = numbered(2 * 1464);
        let packets = cut(&head(MessageType::Response, Policy::Fixed), &body, C_PACKET_MAX);
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0][..8], *b"\xcc\x08\x11\x80\x12\x34\x00\x02");
        assert_eq!(packets[0][8..], body[..1464]);
        assert_eq!(packets[1][..8], *b"\xcc\x08\x11\x40\x12\x34\x00\x01");
        assert_eq!(packets[1][8..], body[1464..]);
    }

    #[test]
    fn one_packet_at_the_limit_and_two_past_it() {
        for kind in [MessageType::Request, MessageType::Response] {
            let head = head(kind, Policy::Fixed);
            assert_eq!(cut(&head, &numbered(PAYLOAD_MAX), C_PACKET_MAX).len(), 1);
            assert_eq!(cut(&head, &numbered(PAYLOAD_MAX + 1), C_PACKET_MAX).len(), 2);
        }
    }

    #[test]
    fn first_and_later_packets_make_the_whole() {
        let head = head(MessageType::Request, Policy::Replicated);
        for len in [0, 14, 1464, 1465, 14 + 1464, 14 + 1464 + 1, 5000] {
            let body = numbered(len);
            let mut parts = Vec::new();
            write_first_packet(&head, &body, C_PACKET_MAX, &mut |packet| parts.push(packet)).unwrap();
            assert_eq!(parts.len(), 1);
            write_later_packets(&head, &body, C_PACKET_MAX, &mut |packet| parts.push(packet)).unwrap();
            assert_eq!(parts, cut(&head, &body, C_PACKET_MAX));
        }
    }

    #[test]
    fn later_packets_repeat_what_tells_messages_apart() {
        let mut head = head(MessageType::Request, Policy::Replicated);
        let session = Some(Session { client: 7, seq: 8, first_unacked: 6 });
        let digest = Some(Digest(9));
        head.extensions = Extensions { session, digest, no_handshake: true, ..Extensions::default() };
        let packets = cut(&head, &numbered(4000), C_PACKET_MAX);
        let headers: Vec<_> = packets.iter().map(|packet| parse(packet)).collect();
        assert_eq!(headers[0].extensions, head.extensions);
        for (packet, header) in packets.iter().zip(&headers).skip(1) {
            assert_eq!(header.extensions, Extensions { session, ..Extensions::default() });
            assert!(packet.len() <= C_PACKET_MAX);
        }
        assert_eq!(packets[0].len(), C_PACKET_MAX, "without a handshake the first packet is a full one");
        assert_eq!(packets[1].len(), C_PACKET_MAX);
    }

    #[test]
    fn most_packets_and_one_more() {
        let head = head(MessageType::RaftMessage, Policy::Fixed);
        let packet_max = HEADER_LEN + 2;
        let limit = 2 * usize::from(u16::MAX);
        let packets = cut(&head, &vec![0; limit], packet_max);
        assert_eq!(packets.len(), usize::from(u16::MAX));
        assert_eq!(parse(&packets[0]).order, u16::MAX);
        assert_eq!((parse(packets.last().unwrap()).order, parse(packets.last().unwrap()).last), (u16::MAX - 1, true));
        let refused = write_packets(&head, &vec![0; limit + 1], packet_max, &mut |_| panic!("nothing is emitted"));
        assert_eq!(refused, Err(TooLong { len: limit + 1, limit }));
    }

    #[test]
    fn packets_without_room() {
        let mut none = |_: Bytes| panic!("nothing is emitted");
        let mut head = head(MessageType::Response, Policy::Fixed);
        assert_eq!(write_packets(&head, b"", HEADER_LEN - 1, &mut none), Err(TooLong { len: 0, limit: 0 }));
        assert_eq!(cut(&head, b"", HEADER_LEN).len(), 1);
        assert_eq!(write_packets(&head, b"x", HEADER_LEN, &mut none), Err(TooLong { len: 1, limit: 0 }));
        // The first packet is full of extensions, the later ones are not.
        head.extensions.digest = Some(Digest(0));
        let packets = cut(&head, b"xyz", head.extensions.header_len());
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[1][HEADER_LEN..], *b"xyz");
    }

    #[test]
    fn control_messages_are_one_packet() {
        let head = head(MessageType::Drop, Policy::Fixed);
        let refused = write_packets(&head, b"DROP", HEADER_LEN + 3, &mut |_| panic!("nothing is emitted"));
        assert_eq!(refused, Err(TooLong { len: 4, limit: 3 }));
        assert_eq!(cut(&head, b"DROP", HEADER_LEN + 4).len(), 1);
    }

    fn head(kind: MessageType, policy: Policy) -> MessageHead {
        MessageHead { kind, policy, rid: 0x1234, extensions: Extensions::default() }
    }

    fn cut(head: &MessageHead, body: &[u8], packet_max: usize) -> Vec<Bytes> {
        let mut packets = Vec::new();
        write_packets(head, body, packet_max, &mut |packet| packets.push(packet)).unwrap();
        packets
    }

    fn parse(packet: &[u8]) -> Header {
        Header::parse(&Packet::new_checked(packet).unwrap()).unwrap()
    }

    /// Bytes that differ from their neighbours.
    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }
}
