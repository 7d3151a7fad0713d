//! Passing a request on in its client's name (protocol.md §3.3): the packet as it came, with the extension *forwarded* in
//! front of its other extensions.

use std::net::SocketAddrV4;

use bytes::{Bytes, BytesMut};

use crate::wire::{Extensions, Forwarded, HEADER_LEN, HEADER_LEN_MAX, Header, MessageType, Packet, Policy};

/// How much memory is taken at a time; packets are cut out of it, so there is no allocation for each.
const CHUNK: usize = 64 << 10;

/// Bytes that forwarding adds to a packet.
pub const FORWARDED_LEN: usize =
    Extensions { forwarded: Some(Forwarded { client: NOBODY, hop: 0 }), ..NONE }.header_len() - HEADER_LEN;

const NOBODY: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
const NONE: Extensions = Extensions {
    session: None,
    entry_index: None,
    status: None,
    digest: None,
    no_handshake: false,
    forwarded: None,
    admin: false,
    epoch: None,
};

/// Writes packets in the name of clients, and DROPs to them.
#[derive(Debug, Default)]
pub struct Forwarder {
    buffer: BytesMut,
}

impl Forwarder {
    /// One that has no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The packet as `client` has sent it, for a server that shall answer there. `None` if its header has no room for
    /// that, or says already that somebody has forwarded it.
    pub fn forward(&mut self, packet: &Packet<&[u8]>, header: &Header, client: SocketAddrV4) -> Option<Bytes> {
        let header_len = packet.header_len() + FORWARDED_LEN;
        if header.extensions.forwarded.is_some() || header_len > HEADER_LEN_MAX {
            return None;
        }
        let fixed =
            Header { extensions: Extensions { forwarded: Some(Forwarded { client, hop: 1 }), ..NONE }, ..*header };
        let bytes = packet.bytes();
        let buffer = self.room(bytes.len() + FORWARDED_LEN);
        buffer.resize(HEADER_LEN + FORWARDED_LEN, 0);
        fixed.emit(buffer);
        buffer[1] = header_len as u8;
        buffer.extend_from_slice(&bytes[HEADER_LEN..]);
        Some(buffer.split().freeze())
    }

    /// A DROP of the request `rid`, the same as [`write_drop`](crate::wire::write_drop)'s.
    pub fn write_drop(&mut self, rid: u16) -> Bytes {
        let header = Header {
            kind: MessageType::Drop,
            policy: Policy::Fixed,
            first: true,
            last: true,
            rid,
            order: 1,
            extensions: NONE,
        };
        let buffer = self.room(HEADER_LEN + DROP.len());
        buffer.resize(HEADER_LEN, 0);
        header.emit(buffer);
        buffer.extend_from_slice(DROP);
        buffer.split().freeze()
    }

    fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.buffer.capacity() < len {
            self.buffer = BytesMut::with_capacity(CHUNK.max(len));
        }
        &mut self.buffer
    }
}

const DROP: &[u8] = b"DROP";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::{Session, write_drop};

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8080);

    fn packet(extensions: Extensions, body: &[u8]) -> Vec<u8> {
        let header = Header {
            kind: MessageType::Request,
            policy: Policy::Replicated,
            first: true,
            last: false,
            rid: 7,
            order: 9,
            extensions,
        };
        let mut packet = vec![0xa5; header.header_len()];
        header.emit(&mut packet);
        packet.extend_from_slice(body);
        packet
    }

    fn forward(bytes: &[u8]) -> Option<Bytes> {
        let packet = Packet::new_checked(bytes).unwrap();
        Forwarder::new().forward(&packet, &Header::parse(&packet).unwrap(), CLIENT)
    }

    #[test]
    fn everything_else_stays() {
        let session = Some(Session { client: 1, seq: 2, first_unacked: 1 });
        for extensions in [NONE, Extensions { session, no_handshake: true, ..NONE }] {
            for body in [&b""[..], b"body"] {
                let forwarded = forward(&packet(extensions, body)).unwrap();
                let expected = Extensions { forwarded: Some(Forwarded { client: CLIENT, hop: 1 }), ..extensions };
                let view = Packet::new_checked(&forwarded[..]).unwrap();
                let header = Header::parse(&view).unwrap();
                assert_eq!((header.extensions, view.payload()), (expected, body));
                assert_eq!(
                    (header.kind, header.first, header.last, header.rid, header.order),
                    (MessageType::Request, true, false, 7, 9)
                );
                assert_eq!(forwarded.len(), packet(extensions, body).len() + FORWARDED_LEN);
            }
        }
    }

    #[test]
    fn not_twice_and_not_beyond_the_longest_header() {
        let already = Extensions { forwarded: Some(Forwarded { client: CLIENT, hop: 1 }), ..NONE };
        assert_eq!(forward(&packet(already, b"")), None);
        // Padding makes a header as long as one likes.
        for (padding, fits) in [(HEADER_LEN_MAX - HEADER_LEN - FORWARDED_LEN, true), (247 - FORWARDED_LEN + 1, false)] {
            let mut bytes = packet(NONE, b"");
            bytes.resize(HEADER_LEN + padding, 0);
            bytes[1] = bytes.len() as u8;
            assert_eq!(forward(&bytes).is_some(), fits, "{padding}");
        }
    }

    #[test]
    fn memory_is_taken_by_the_chunk() {
        let mut forwarder = Forwarder::new();
        assert_eq!(forwarder.write_drop(0x1234), write_drop(0x1234));
        let first = forwarder.write_drop(1);
        let second = forwarder.write_drop(2);
        assert_eq!(first.as_ptr().wrapping_add(first.len()), second.as_ptr());
    }
}
