//! The extension of a FEEDBACK whose loss or repetition does no harm (protocol.md §9).

use super::{Extensions, Feedback, HEADER_LEN, Header, MessageType, Packet, ParseError, Policy};
use bytes::Bytes;

/// How much who sends a FEEDBACK has answered, and whether it wants more.
///
/// On the wire extension 10, of 17 bytes in network order. The body is one [`Feedback`] after the other, oldest first, any
/// number of them; the last is number `count`.
///
/// | offset in the value | field |
/// |---|---|
/// | 0..8 | epoch |
/// | 8..16 | count |
/// | 16 | flags: 0x01 registers, 0x02 leaves; others are refused |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Answered {
    /// Drawn by whoever counts, when it began to.
    pub epoch: u64,
    /// How many requests it has answered since then, those in this FEEDBACK included.
    pub count: u64,
    /// It is a worker, and takes requests.
    pub registers: bool,
    /// It takes none any more.
    pub leaves: bool,
}

const KIND: u8 = 10;
const LEN: usize = 17;
const REGISTERS: u8 = 0x01;
const LEAVES: u8 = 0x02;

impl Answered {
    /// Bytes in front of the body of a FEEDBACK with this extension.
    pub const HEADER_LEN: usize = HEADER_LEN + 2 + LEN;

    /// What a packet has to say about this; `None` if nothing, as one of the C implementation.
    pub fn of(packet: &Packet<&[u8]>) -> Result<Option<Self>, ParseError> {
        let mut found = None;
        for extension in packet.extensions() {
            let extension = extension?;
            if extension.kind != KIND {
                continue;
            }
            if found.is_some() {
                return Err(ParseError::RepeatedExtension(KIND));
            }
            found = Some(Self::parse(extension.value)?);
        }
        Ok(found)
    }

    fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let bad = ParseError::BadExtension { kind: KIND, len: value.len() as u8 };
        let Some((&epoch, rest)) = value.split_first_chunk::<8>() else { return Err(bad) };
        let Some((&count, &[flags])) = rest.split_first_chunk::<8>() else { return Err(bad) };
        if flags & !(REGISTERS | LEAVES) != 0 {
            return Err(bad);
        }
        let (registers, leaves) = (flags & REGISTERS != 0, flags & LEAVES != 0);
        Ok(Self { epoch: u64::from_be_bytes(epoch), count: u64::from_be_bytes(count), registers, leaves })
    }
}

/// A FEEDBACK packet that names `items`, of which the last is number `answered.count`.
pub fn write_answered<'a>(answered: &Answered, items: impl ExactSizeIterator<Item = &'a Feedback>) -> Bytes {
    let header = Header {
        kind: MessageType::Feedback,
        policy: Policy::LoadBalanced,
        first: true,
        last: true,
        rid: 0,
        order: 1,
        extensions: Extensions::default(),
    };
    let mut packet = vec![0; Answered::HEADER_LEN + items.len() * Feedback::LEN];
    header.emit(&mut packet);
    packet[1] = Answered::HEADER_LEN as u8;
    let Answered { epoch, count, registers, leaves } = *answered;
    let value = &mut packet[HEADER_LEN..];
    (value[0], value[1]) = (KIND, LEN as u8);
    value[2..10].copy_from_slice(&epoch.to_be_bytes());
    value[10..18].copy_from_slice(&count.to_be_bytes());
    value[18] = if registers { REGISTERS } else { 0 } | if leaves { LEAVES } else { 0 };
    for (item, place) in items.zip(packet[Answered::HEADER_LEN..].as_chunks_mut::<{ Feedback::LEN }>().0) {
        item.emit(place);
    }
    packet.into()
}

const _: () = assert!(Answered::HEADER_LEN <= super::HEADER_LEN_MAX);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use proptest::prelude::*;

    use super::*;

    const BYTES: [u8; 35] = [
        0xcc, 27, 0x20, 0xc0, 0, 0, 0, 1, // FEEDBACK load-balanced, first and last
        0x0a, 17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0x02, // answered
        0x12, 0x34, 0x1f, 0x90, 10, 0, 0, 1, // rid, port, address
    ];
    const VALUE: Answered = Answered { epoch: 0x0102_0304_0506_0708, count: 9, registers: false, leaves: true };

    fn item() -> Feedback {
        Feedback { rid: 0x1234, client: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8080) }
    }

    #[test]
    fn there_and_back() {
        assert_eq!(write_answered(&VALUE, [item()].iter()), BYTES[..]);
        let packet = Packet::new_checked(&BYTES[..]).unwrap();
        assert_eq!(Answered::of(&packet), Ok(Some(VALUE)));
        assert_eq!(Feedback::parse(packet.payload()), Ok(item()));
        assert!(Header::parse(&packet).is_ok(), "who does not know the extension skips it");
    }

    #[test]
    fn without_twice_and_impossible() {
        let c = super::super::write_feedback(&item());
        assert_eq!(Answered::of(&Packet::new_checked(&c[..]).unwrap()), Ok(None));
        let mut twice = BYTES[..27].to_vec();
        twice.extend_from_slice(&BYTES[8..27]);
        twice[1] = 46;
        let twice = Packet::new_checked(&twice[..]).unwrap();
        assert_eq!(Answered::of(&twice), Err(ParseError::RepeatedExtension(10)));
        for (at, value) in [(9, 16), (26, 4)] {
            let mut bytes = BYTES;
            bytes[at] = value;
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            assert!(matches!(Answered::of(&packet), Err(ParseError::BadExtension { kind: 10, .. })));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in super::super::tests::plausible_packet()) {
            if let Ok(packet) = Packet::new_checked(&bytes[..]) {
                let _ = Answered::of(&packet);
            }
        }
    }
}
