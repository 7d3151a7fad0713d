//! Bytes and values against each other.

use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::*;

/// First of three packets of a request with a session, and 4 bytes of body.
const FIRST: [u8; 38] = [
    0xcc, 0x22, 0x02, 0x80, 0x12, 0x34, 0x00,
    0x03, // header of 34 bytes, REQUEST replicated, first, rid, 3 packets
    0x01, 0x18, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, // session
    b'b', b'o', b'd', b'y',
];
const FIRST_HEADER: Header = Header {
    kind: MessageType::Request,
    policy: Policy::Replicated,
    first: true,
    last: false,
    rid: 0x1234,
    order: 3,
    extensions: Extensions {
        session: Some(Session { client: 7, seq: 256, first_unacked: 255 }),
        entry_index: None,
        status: None,
        digest: None,
        no_handshake: false,
        forwarded: None,
        admin: false,
        epoch: None,
    },
};

/// Everything a header can say, as bytes and as value. (No packet says all of it at once.)
const FULL: [u8; 88] = [
    0xcc, 88, 0x11, 0xc0, 0xff, 0xfe, 0x00, 0x01, // RESPONSE fixed, first and last
    0x01, 24, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, // session
    0x02, 8, 0, 0, 0, 0, 0, 1, 2, 3, // entry index
    0x03, 1, 4, // status
    0x04, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // digest
    0x05, 0, // no handshake
    0x06, 7, 10, 0, 0, 1, 0x1f, 0x90, 2, // forwarded
    0x07, 0, // admin
    0x09, 8, 0, 0, 0, 0, 0, 4, 5, 6, // epoch
];
const FULL_HEADER: Header = Header {
    kind: MessageType::Response,
    policy: Policy::Fixed,
    first: true,
    last: true,
    rid: 0xfffe,
    order: 1,
    extensions: Extensions {
        session: Some(Session {
            client: 0x0102_0304_0506_0708,
            seq: 0x090a_0b0c_0d0e_0f10,
            first_unacked: 0x1112_1314_1516_1718,
        }),
        entry_index: Some(0x01_0203),
        status: Some(ReplyStatus::ServiceError),
        digest: Some(Digest(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)),
        no_handshake: true,
        forwarded: Some(Forwarded { client: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8080), hop: 2 }),
        admin: true,
        epoch: Some(0x04_0506),
    },
};

#[test]
fn deconstruct() {
    let packet = Packet::new_checked(&FIRST[..]).unwrap();
    assert_eq!(packet.kind(), MessageType::Request);
    assert_eq!(packet.policy(), Policy::Replicated);
    assert_eq!(packet.header_len(), 34);
    assert_eq!((packet.is_first(), packet.is_last()), (true, false));
    assert_eq!((packet.rid(), packet.order()), (0x1234, 3));
    assert_eq!(packet.len(), FIRST.len());
    assert_eq!(packet.payload(), b"body");
    let extensions: Vec<_> = packet.extensions().map(Result::unwrap).collect();
    assert_eq!(extensions, [RawExtension { kind: 1, value: &FIRST[10..34] }]);
}

#[test]
fn parse() {
    for (bytes, value) in [(&FIRST[..], FIRST_HEADER), (&FULL, FULL_HEADER)] {
        assert_eq!(Header::parse(&Packet::new_checked(bytes).unwrap()), Ok(value));
    }
}

#[test]
fn emit() {
    for (bytes, value) in [(&FIRST[..34], FIRST_HEADER), (&FULL, FULL_HEADER)] {
        assert_eq!(value.header_len(), bytes.len());
        let mut buffer = vec![0xa5; bytes.len() + 2];
        value.emit(&mut buffer);
        assert_eq!(buffer[..bytes.len()], *bytes);
        assert_eq!(buffer[bytes.len()..], [0xa5; 2], "nothing behind the header is written");
    }
    assert_eq!(FULL.len(), Extensions::HEADER_LEN_MAX);
}

#[test]
fn construct() {
    let mut packet = vec![0xa5; 38];
    FIRST_HEADER.emit(&mut packet);
    packet[34..].copy_from_slice(b"body");
    assert_eq!(packet, FIRST);
}

#[test]
fn every_kind_and_policy() {
    for kind in KINDS {
        for policy in POLICIES {
            let bytes = [MAGIC, 8, (kind as u8) << 4 | policy as u8, 0xc0, 0, 9, 0, 1];
            let packet = Packet::new_checked(bytes).unwrap();
            assert_eq!((packet.kind(), packet.policy()), (kind, policy));
        }
    }
    assert_eq!(KINDS.map(|kind| kind as u8), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(POLICIES.map(|policy| policy as u8), [0, 1, 2, 3]);
}

#[test]
fn impossible_length() {
    for len in 0..HEADER_LEN {
        assert_eq!(error(&FIRST[..len]), ParseError::Truncated { len });
    }
    for len in HEADER_LEN..34 {
        assert_eq!(error(&FIRST[..len]), ParseError::BadHeaderSize { header_size: 34, len });
    }
    assert_eq!(error(&with(1, 7)), ParseError::BadHeaderSize { header_size: 7, len: 38 });
    assert_eq!(error(&with(1, 39)), ParseError::BadHeaderSize { header_size: 39, len: 38 });
}

#[test]
fn impossible_fields() {
    assert_eq!(error(&with(0, 0xcd)), ParseError::BadMagic(0xcd));
    assert_eq!(error(&with(2, 0x82)), ParseError::UnknownType(8));
    assert_eq!(error(&with(2, 0x04)), ParseError::UnknownPolicy(4));
    assert_eq!(error(&with(3, 0xa0)), ParseError::BadFlags(0xa0));
}

#[test]
fn impossible_orders() {
    let bad = [
        (0xc0, 0), // an only packet, of a message of none
        (0xc0, 2), // an only packet, of a message of two
        (0x80, 0), // a first packet, of a message of none
        (0x80, 1), // a first packet that ought to be the last
        (0x00, 0), // a later packet that is the first
        (0x40, 0), // a last packet that is the first
    ];
    for (flags, order) in bad {
        assert_eq!(error(&plain(0x00, flags, order)), ParseError::BadOrder { flags, order });
    }
    for (flags, order) in [(0xc0, 1), (0x80, 2), (0x80, u16::MAX), (0, 1), (0x40, 1), (0x40, u16::MAX)] {
        assert!(Packet::new_checked(plain(0x00, flags, order)).is_ok());
    }
    for control in [0x20, 0x30, 0x40] {
        for (flags, order) in [(0x80, 2), (0, 1), (0x40, 1)] {
            assert_eq!(error(&plain(control, flags, order)), ParseError::BadOrder { flags, order });
        }
    }
}

#[test]
fn extensions_are_checked() {
    let bad = [
        (&[1][..], ParseError::BadExtension { kind: 1, len: 0 }),
        (&[2, 8, 0, 0, 0, 0, 0, 0, 0], ParseError::BadExtension { kind: 2, len: 8 }),
        (&[2, 7, 0, 0, 0, 0, 0, 0, 0], ParseError::BadExtension { kind: 2, len: 7 }),
        (&[1, 0], ParseError::BadExtension { kind: 1, len: 0 }),
        (&[3, 2, 1, 1], ParseError::BadExtension { kind: 3, len: 2 }),
        (&[3, 1, 0], ParseError::UnknownStatus(0)),
        (&[3, 1, 6], ParseError::UnknownStatus(6)),
        (&[4, 0], ParseError::BadExtension { kind: 4, len: 0 }),
        (&[5, 1, 0], ParseError::BadExtension { kind: 5, len: 1 }),
        (&[6, 6, 1, 2, 3, 4, 5, 6], ParseError::BadExtension { kind: 6, len: 6 }),
        (&[7, 1, 0], ParseError::BadExtension { kind: 7, len: 1 }),
        (&[7, 0, 7, 0], ParseError::RepeatedExtension(7)),
        (&[9, 7, 0, 0, 0, 0, 0, 0, 0], ParseError::BadExtension { kind: 9, len: 7 }),
        (&[9, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9, 8, 0, 0, 0, 0, 0, 0, 0, 1], ParseError::RepeatedExtension(9)),
        (&[99, 3, 0, 0], ParseError::BadExtension { kind: 99, len: 3 }),
    ];
    for (extensions, error) in bad {
        assert_eq!(parse_extensions(extensions), Err(error), "{extensions:?}");
    }
}

#[test]
fn padding_and_unknown_extensions_are_skipped() {
    let admin = Extensions { admin: true, ..Extensions::default() };
    assert_eq!(parse_extensions(&[0, 0, 7, 0, 0]), Ok(admin));
    assert_eq!(parse_extensions(&[8, 2, 7, 0, 7, 0]), Ok(admin));
    assert_eq!(parse_extensions(&[255, 0, 255, 1, 7, 7, 0]), Ok(admin), "unknown ones may be repeated");
    assert_eq!(parse_extensions(&[8, 0, 8, 0, 10, 1, 9, 7, 0]), Ok(admin), "reserved and future ones too");
    assert_eq!(parse_extensions(&[0; 247]), Ok(Extensions::default()), "as long as a header can be");
}

#[test]
fn control_packets_are_those_of_the_c_implementation() {
    assert_eq!(write_ack(0x1234), b"\xcc\x08\x31\xc0\x12\x34\x00\x01ACK"[..]);
    assert_eq!(write_drop(0x1234), b"\xcc\x08\x41\xc0\x12\x34\x00\x01DROP"[..]);
    let feedback = Feedback { rid: 0x1234, client: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 0x5678) };
    let packet = write_feedback(&feedback);
    assert_eq!(packet, b"\xcc\x08\x20\xc0\x12\x34\x00\x01\x12\x34\x56\x78\x0a\x00\x00\x09"[..]);
    assert_eq!(Feedback::parse(Packet::new_checked(&packet).unwrap().payload()), Ok(feedback));
}

#[test]
fn feedback_of_the_c_implementation_has_uninitialised_fields() {
    for garbage in [0x00, 0x09, 0xa5, 0xff] {
        let mut packet =
            write_feedback(&Feedback { rid: 5, client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6) }).to_vec();
        for at in [1, 3, 4, 5, 6, 7] {
            packet[at] = garbage;
        }
        let packet = Packet::new_checked(&packet[..]).unwrap();
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.kind, header.first, header.last, header.order), (MessageType::Feedback, true, true, 1));
        assert_eq!(header.extensions, Extensions::default());
        let feedback = Feedback::parse(packet.payload()).unwrap();
        assert_eq!(feedback, Feedback { rid: 5, client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6) });
    }
}

#[test]
fn feedback_of_impossible_length() {
    for len in (0..20).filter(|len| *len != Feedback::LEN) {
        assert_eq!(Feedback::parse(&vec![0; len]), Err(ParseError::BadFeedback { len }));
    }
}

#[test]
fn one_line_each() {
    let line = |bytes: &[u8]| Packet::new_checked(bytes).unwrap().to_string();
    assert_eq!(line(&FIRST), "R2P2 REQUEST replicated rid 4660, first of 3, session 7 seq 256 unacked 255, length 4");
    assert_eq!(
        line(&FULL),
        "R2P2 RESPONSE fixed rid 65534, session 72623859790382856 seq 651345242494996240 unacked 1230066625199609624, \
         index 66051, SERVICE ERROR, digest 000102030405060708090a0b0c0d0e0f, no handshake, \
         forwarded for 10.0.0.1:8080 hop 2, admin, epoch 263430, length 0"
    );
    assert_eq!(line(&plain(0x71, 0x00, 5)), "R2P2 RAFT_MSG fixed rid 0, packet 5, length 0");
    assert_eq!(line(&plain(0x13, 0x40, 6)), "R2P2 RESPONSE replicated-no-se rid 0, packet 6 last, length 0");
    assert_eq!(line(&write_ack(1)), "R2P2 ACK fixed rid 1, length 3");
    let malformed = [MAGIC, 9, 0, 0xc0, 0, 0, 0, 1, 7];
    assert_eq!(line(&malformed), "R2P2 malformed (extension 7 of 0 bytes), 9 bytes");
}

#[test]
#[should_panic(expected = "range end index 34 out of range")]
fn emit_needs_the_whole_header() {
    FIRST_HEADER.emit(&mut [0; 33]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parse_gives_back_what_emit_was_given(header in any_header(), body in prop::collection::vec(any::<u8>(), 9..32)) {
        let mut packet = vec![0xa5; header.header_len()];
        header.emit(&mut packet);
        packet.extend_from_slice(&body);
        let view = Packet::new_checked(&packet[..]).unwrap();
        prop_assert_eq!(Header::parse(&view), Ok(header));
        prop_assert_eq!(view.payload(), &body[..]);
    }

    #[test]
    fn emit_gives_back_what_parse_was_given(bytes in plausible_packet()) {
        if let Ok(view) = Packet::new_checked(&bytes[..])
            && let Ok(header) = Header::parse(&view)
        {
            // Not the bytes, since padding and unknown extensions are not kept, but what they mean.
            let mut again = vec![0; header.header_len()];
            header.emit(&mut again);
            again.extend_from_slice(&[0; 9]);
            prop_assert_eq!(Header::parse(&Packet::new_checked(&again[..]).unwrap()), Ok(header));
        }
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), plausible_packet()]) {
        if let Ok(packet) = Packet::new_checked(&bytes[..]) {
            let _ = Header::parse(&packet);
            let _ = packet.extensions().count();
            let _ = Feedback::parse(packet.payload());
            prop_assert!(packet.header_len() + packet.payload().len() == bytes.len());
            prop_assert!(!packet.to_string().is_empty());
        }
    }

    #[test]
    fn feedback_survives(rid: u16, ip: u32, port: u16) {
        let feedback = Feedback { rid, client: SocketAddrV4::new(ip.into(), port) };
        let packet = write_feedback(&feedback);
        prop_assert_eq!(Feedback::parse(Packet::new_checked(&packet[..]).unwrap().payload()), Ok(feedback));
    }
}

const KINDS: [MessageType; 8] = [
    MessageType::Request,
    MessageType::Response,
    MessageType::Feedback,
    MessageType::Ack,
    MessageType::Drop,
    MessageType::RaftRequest,
    MessageType::RaftReply,
    MessageType::RaftMessage,
];
const POLICIES: [Policy; 4] =
    [Policy::LoadBalanced, Policy::Fixed, Policy::Replicated, Policy::ReplicatedNoSideEffects];

/// Any header that can be parsed.
pub(crate) fn any_header() -> impl Strategy<Value = Header> {
    let order = prop_oneof![
        Just((true, true, 1)),
        (2..=u16::MAX).prop_map(|total| (true, false, total)),
        (1..=u16::MAX, any::<bool>()).prop_map(|(index, last)| (false, last, index)),
    ];
    let kind = prop::sample::select(&KINDS[..]);
    let policy = prop::sample::select(&POLICIES[..]);
    (kind, policy, order, any::<u16>(), any_extensions()).prop_map(|(kind, policy, order, rid, extensions)| {
        let (first, last, order) = if kind.is_control() { (true, true, 1) } else { order };
        Header { kind, policy, first, last, rid, order, extensions }
    })
}

/// Any extensions.
pub(crate) fn any_extensions() -> impl Strategy<Value = Extensions> {
    let session = prop::option::of(any::<[u64; 3]>());
    let status = prop::option::of(prop::sample::select(vec![
        ReplyStatus::Expired,
        ReplyStatus::ReplyGone,
        ReplyStatus::TooLarge,
        ReplyStatus::ServiceError,
        ReplyStatus::NotLeader,
    ]));
    let forwarded = prop::option::of(any::<(u32, u16, u8)>());
    let flags = any::<(bool, bool)>();
    let numbers = any::<(Option<u64>, Option<u64>)>();
    (session, numbers, status, any::<Option<u128>>(), forwarded, flags).prop_map(
        |(session, (entry_index, epoch), status, digest, forwarded, (no_handshake, admin))| Extensions {
            session: session.map(|[client, seq, first_unacked]| Session { client, seq, first_unacked }),
            entry_index,
            status,
            digest: digest.map(Digest),
            no_handshake,
            forwarded: forwarded.map(|(ip, port, hop)| Forwarded { client: SocketAddrV4::new(ip.into(), port), hop }),
            admin,
            epoch,
        },
    )
}

/// Bytes that get further than noise does: right magic, a header that fits, extensions of known types.
pub(crate) fn plausible_packet() -> impl Strategy<Value = Vec<u8>> {
    let extension = (0..12u8, prop_oneof![Just(0), Just(1), Just(7), Just(8), Just(16), Just(24), any::<u8>()]);
    let extension = extension.prop_flat_map(|(kind, len)| {
        prop::collection::vec(any::<u8>(), usize::from(len)).prop_map(move |value| (kind, len, value))
    });
    let fixed = (0..10u8, 0..5u8, any::<u8>(), 0..8u16, 0..8u16);
    let flags = prop::sample::select(vec![0x00, 0x40, 0x80, 0xc0, 0xc1]);
    let body = prop::collection::vec(any::<u8>(), 0..64);
    (fixed, flags, prop::collection::vec(extension, 0..4), body).prop_map(
        |((kind, policy, noise, rid, order), flags, extensions, body)| {
            let mut packet = vec![MAGIC, 0, kind << 4 | policy, flags];
            packet.extend_from_slice(&rid.to_be_bytes());
            packet.extend_from_slice(&order.to_be_bytes());
            for (kind, len, value) in extensions {
                packet.extend_from_slice(&[kind, len]);
                packet.extend_from_slice(&value);
            }
            // Now and then the header ends elsewhere.
            packet[1] = if noise.is_multiple_of(8) { noise } else { packet.len().min(HEADER_LEN_MAX) as u8 };
            packet.extend_from_slice(&body);
            packet
        },
    )
}

fn error(bytes: &[u8]) -> ParseError {
    Packet::new_checked(bytes).map(|_| ()).unwrap_err()
}

/// `FIRST` with one byte changed.
fn with(at: usize, byte: u8) -> [u8; 38] {
    let mut bytes = FIRST;
    bytes[at] = byte;
    bytes
}

fn plain(type_policy: u8, flags: u8, order: u16) -> [u8; 8] {
    let [high, low] = order.to_be_bytes();
    [MAGIC, 8, type_policy, flags, 0, 0, high, low]
}

fn parse_extensions(extensions: &[u8]) -> Result<Extensions, ParseError> {
    let mut packet = plain(0x00, 0xc0, 1).to_vec();
    packet[1] = (HEADER_LEN + extensions.len()) as u8;
    packet.extend_from_slice(extensions);
    Header::parse(&Packet::new_checked(&packet[..]).unwrap()).map(|header| header.extensions)
}
