//! Messages in pieces, and the limits of how many.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::slot::WAITING_COST;
use super::*;
use crate::Digest;
use crate::message::write_packets;
use crate::wire::tests::{any_extensions, plausible_packet};
use crate::wire::{Extensions, MessageType, ParseError, Policy, Session};

/// Cuts 10 bytes of body off each message per packet.
const PACKET_MAX: usize = 18;
const NOW: Instant = Instant::ZERO;

#[test]
fn one_packet_takes_no_slot() {
    let mut world = World::default();
    let packets = cut(&plain(1), b"body", PACKET_MAX);
    let message = world.accept(&packets[0]).unwrap().unwrap();
    assert_eq!(message, whole(&plain(1), b"body"));
    assert_eq!((world.0.held_messages(), world.0.held_bytes()), (0, 0));
    assert_eq!(world.0.next_expiry(), None);
    // The same one again is another message: whoever is above has to know.
    assert!(world.accept(&packets[0]).unwrap().is_some());
}

#[test]
fn in_order() {
    for len in [11, 20, 21, 995] {
        let mut world = World::default();
        world.complete_all(&plain(1), &numbered(len), &cut(&plain(1), &numbered(len), PACKET_MAX));
        world.assert_empty();
    }
}

#[test]
fn in_reverse() {
    let mut world = World::default();
    let mut packets = cut(&plain(1), &numbered(995), PACKET_MAX);
    packets.reverse();
    world.complete_all(&plain(1), &numbered(995), &packets);
    world.assert_empty();
}

#[test]
fn after_a_handshake() {
    let head = MessageHead { kind: MessageType::Request, ..plain(1) };
    let body = numbered(14 + 3 * 20 + 1);
    let packets = cut(&head, &body, 28);
    assert_eq!(packets.len(), 5);
    World::default().complete_all(&head, &body, &packets);
}

#[test]
fn the_longest_message_in_packets() {
    let mut world = World::new(ReassemblyLimits { bytes_max: 1 << 30, ..ReassemblyLimits::default() });
    let body = numbered(2 * 65_535);
    for reversed in [false, true] {
        let mut packets = cut(&plain(1), &body, 10);
        assert_eq!(packets.len(), 65_535);
        if reversed {
            packets.reverse();
        }
        world.complete_all(&plain(1), &body, &packets);
        world.assert_empty();
    }
}

#[test]
fn copies_are_ignored() {
    let mut world = World::default();
    let packets = cut(&session(1, 1), &numbered(30), 46);
    let packets: Vec<_> = [0, 0, 2, 2, 0].into_iter().map(|at: usize| packets[at].clone()).collect();
    for packet in &packets {
        assert_eq!(world.accept(packet), Ok(None));
    }
    assert_eq!(world.0.counters().copies, 3);
    assert_eq!(world.0.held_messages(), 1);
}

#[test]
fn an_announcement_allocates_nothing() {
    let mut world = World::default();
    let packets = cut(&plain(1), &numbered(65_535), 9);
    assert_eq!(packets.len(), 65_535);
    assert_eq!(world.accept(&packets[0]), Ok(None));
    assert_eq!(world.0.held_bytes(), SLOT_COST + 1);
}

/// protocol.md §3.2: by (source, rid, session, seq, entry index), never by the rid alone.
#[test]
fn pieces_of_different_messages_are_kept_apart() {
    let here = PEER;
    let there = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);
    let mut at_index = session(1, 1);
    at_index.kind = MessageType::Response;
    at_index.extensions.entry_index = Some(5);
    let mut at_later_index = at_index;
    at_later_index.extensions.entry_index = Some(6);
    let mut raft = plain(1);
    raft.kind = MessageType::RaftReply;
    let all = [
        (here, plain(1)),
        (there, plain(1)),
        (here, plain(2)),
        (here, raft),
        (here, session(1, 1)),
        (here, session(1, 2)),
        (here, session(2, 1)),
        (here, at_index),
        (here, at_later_index),
    ];
    let mut world = World::default();
    let bodies: Vec<_> = (0..all.len()).map(|at| vec![at as u8; 30]).collect();
    let packets: Vec<_> =
        all.iter().zip(&bodies).map(|((_, head), body)| cut(head, body, head.extensions.header_len() + 8)).collect();
    let rounds = packets.iter().map(Vec::len).max().unwrap();
    let mut messages = vec![None; all.len()];
    for round in 0..rounds {
        for (at, (from, _)) in all.iter().enumerate() {
            if let Some(packet) = packets[at].get(round) {
                messages[at] = world.0.accept(NOW, *from, packet).unwrap();
            }
        }
    }
    for (at, (_, head)) in all.iter().enumerate() {
        assert!(packets[at].len() > 2);
        assert_eq!(messages[at], Some(whole(head, &bodies[at])));
    }
    world.assert_empty();
}

#[test]
fn first_unacked_tells_no_messages_apart_and_the_latest_counts() {
    let mut world = World::default();
    let mut again = session(1, 9);
    again.extensions.session.as_mut().unwrap().first_unacked = 7;
    let body = numbered(90);
    let (packets, copies) = (cut(&session(1, 9), &body, 58), cut(&again, &body, 58));
    assert_eq!(packets.len(), 4);
    assert_eq!(world.accept(&packets[0]), Ok(None));
    assert_eq!(world.accept(&copies[0]), Ok(None));
    assert_eq!(world.accept(&packets[2]), Ok(None));
    assert_eq!(world.accept(&copies[1]), Ok(None));
    assert_eq!(world.accept(&packets[3]), Ok(Some(whole(&again, &body))));
}

#[test]
fn a_digest_is_checked() {
    for session in [None, Some((3, 4))] {
        for body in [&b"short"[..], &numbered(100)] {
            let mut head = plain(1);
            head.extensions.session = session.map(|(client, seq)| Session { client, seq, first_unacked: 1 });
            head.extensions.digest = Some(digest(&DigestKey::default(), session, body));
            let mut world = World::default();
            world.complete_all(&head, body, &cut(&head, body, 80));

            head.extensions.digest = Some(Digest(head.extensions.digest.unwrap().0 ^ 1));
            let packets = cut(&head, body, 80);
            let (last, others) = packets.split_last().unwrap();
            for packet in others {
                assert_eq!(world.accept(packet), Ok(None));
            }
            assert_eq!(world.accept(last), Err(Reject::DigestMismatch));
            world.assert_empty();
        }
    }
}

#[test]
fn contradictions_are_refused_and_change_nothing() {
    // Four packets, with 8, 10, 10 and 5 bytes.
    let packets = cut(&session(1, 1), &numbered(33), 44);
    assert_eq!(packets.len(), 4);
    let with = |at: usize, order: u16, flags: u8, len: usize| {
        let mut packet = packets[at].to_vec();
        packet[3] = flags;
        packet[6..8].copy_from_slice(&order.to_be_bytes());
        packet.resize(len, 0);
        packet
    };
    let full = packets[1].len();
    let cases: &[(&[usize], Vec<u8>, Reject)] = &[
        // One more packet than announced, by a second first, by an index, by a last.
        (&[0], with(0, 5, 0x80, full), Reject::TotalMismatch { stated: 5, known: 4 }),
        (&[0], with(1, 4, 0, full), Reject::IndexBeyondTotal { index: 4, total: 4 }),
        (&[0], with(3, 4, 0x40, full), Reject::TotalMismatch { stated: 5, known: 4 }),
        // A last packet that does not say so, and one that says so too early.
        (&[0], with(1, 3, 0, full), Reject::TotalMismatch { stated: 5, known: 4 }),
        (&[0], with(1, 2, 0x40, full), Reject::TotalMismatch { stated: 3, known: 4 }),
        // The same without a first packet.
        (&[2], with(0, 2, 0x80, full), Reject::TotalMismatch { stated: 2, known: 4 }),
        (&[2], with(0, 3, 0x80, full), Reject::TotalMismatch { stated: 3, known: 4 }),
        (&[2], with(1, 1, 0x40, full), Reject::TotalMismatch { stated: 2, known: 4 }),
        (&[3], with(1, 3, 0, full), Reject::TotalMismatch { stated: 5, known: 4 }),
        // An index more than a first packet can announce.
        (&[0], with(1, u16::MAX, 0x40, full), Reject::TotalMismatch { stated: 65_536, known: 4 }),
        // Packets between first and last have one length, the last at most that.
        (&[1], with(2, 2, 0, full - 1), Reject::LengthMismatch { len: 9, others: 10 }),
        (&[1], with(3, 3, 0x40, full + 1), Reject::LengthMismatch { len: 11, others: 10 }),
        (&[3], with(1, 1, 0, full - 6), Reject::LengthMismatch { len: 4, others: 5 }),
    ];
    for (earlier, packet, reject) in cases {
        let mut world = World::default();
        for &at in *earlier {
            assert_eq!(world.accept(&packets[at]), Ok(None));
        }
        let bytes = world.0.held_bytes();
        assert_eq!(world.accept(packet), Err(*reject), "{packet:x?} after {earlier:?}");
        assert_eq!(world.0.held_bytes(), bytes);
        // It can still be completed.
        let rest: Vec<_> = (0..4).filter(|at| !earlier.contains(at)).map(|at| packets[at].clone()).collect();
        world.complete_all(&session(1, 1), &numbered(33), &rest);
    }
}

#[test]
fn malformed_packets_are_refused_by_name() {
    let mut world = World::default();
    assert_eq!(world.accept(b""), Err(Reject::Parse(ParseError::Truncated { len: 0 })));
    assert_eq!(world.accept(b"\xcc\x08\x00\xc0\0\0\0\x02"), Err(ParseError::BadOrder { flags: 0xc0, order: 2 }.into()));
    let unknown_status = b"\xcc\x0b\x11\xc0\0\0\0\x01\x03\x01\x09";
    assert_eq!(world.accept(unknown_status), Err(ParseError::UnknownStatus(9).into()));
}

#[test]
fn a_plain_rid_used_for_another_message_starts_anew() {
    let body = numbered(30);
    let mut other = body.clone();
    other[0] ^= 1;
    let (packets, others) = (cut(&plain(1), &body, PACKET_MAX), cut(&plain(1), &other, PACKET_MAX));
    let mut world = World::default();
    world.accept(&packets[0]).unwrap();
    world.accept(&packets[1]).unwrap();
    world.complete_all(&plain(1), &other, &others);
    assert_eq!(world.0.counters().restarted, 1);

    let longer = numbered(40);
    world.accept(&packets[0]).unwrap();
    world.complete_all(&plain(1), &longer, &cut(&plain(1), &longer, PACKET_MAX));
    assert_eq!(world.0.counters().restarted, 2);
    world.assert_empty();
}

/// [the first packet is lost, 65 536 messages later the rid is another message's: its first must not complete the old]
#[test]
fn a_plain_first_packet_does_not_complete_a_message_of_long_ago() {
    let (packets, others) = (cut(&plain(1), &[1; 30], PACKET_MAX), cut(&plain(1), &[2; 30], PACKET_MAX));
    let past = NOW + COPY_AGE_MAX + Duration::from_nanos(1);
    for (now, mixed) in [(NOW + COPY_AGE_MAX, true), (past, false)] {
        let mut world = World::default();
        world.accept(&packets[1]).unwrap();
        world.accept(&packets[2]).unwrap();
        let message = world.0.accept(now, PEER, &others[0]).unwrap();
        assert_eq!(message.is_some(), mixed);
        assert_eq!(world.0.counters().restarted, u64::from(!mixed));
    }
    // The same where the two begin alike.
    let (mut body, mut other) = (numbered(30), numbered(30));
    (body[15], other[15]) = (1, 2);
    let (packets, others) = (cut(&plain(1), &body, PACKET_MAX), cut(&plain(1), &other, PACKET_MAX));
    let mut world = World::default();
    world.accept(&packets[0]).unwrap();
    world.accept(&packets[1]).unwrap();
    for (packet, last) in others.iter().zip([false, false, true]) {
        let expected = last.then(|| whole(&plain(1), &other));
        assert_eq!(world.0.accept(past, PEER, packet), Ok(expected));
    }
}

#[test]
fn with_a_session_a_retransmission_fills_the_gaps() {
    let mut world = World::default();
    let body = numbered(90);
    let packets = cut(&session(1, 1), &body, 58);
    assert_eq!(packets.len(), 4);
    for at in [0, 3] {
        world.accept(&packets[at]).unwrap();
    }
    let later = NOW + COPY_AGE_MAX * 3;
    for (at, expected) in [(0, None), (1, None), (2, Some(whole(&session(1, 1), &body)))] {
        assert_eq!(world.0.accept(later, PEER, &packets[at]), Ok(expected));
    }
}

#[test]
fn message_length_at_the_limit_and_one_past_it() {
    let limits = ReassemblyLimits { message_max: 100, ..ReassemblyLimits::default() };
    for packet_max in [PACKET_MAX, 1000] {
        for reversed in [false, true] {
            let mut world = World::new(limits);
            let mut packets = cut(&plain(1), &numbered(100), packet_max);
            let mut too_many = cut(&plain(2), &numbered(101), packet_max);
            if reversed {
                packets.reverse();
                too_many.reverse();
            }
            world.complete_all(&plain(1), &numbered(100), &packets);
            let rejects: Vec<_> = too_many.iter().filter_map(|packet| world.accept(packet).err()).collect();
            assert_eq!(rejects[0], Reject::MessageTooLong { len: 101, limit: 100 });
            assert!(rejects[1..].iter().all(|reject| *reject == Reject::RestOfTooLong), "it is said once: {rejects:?}");
        }
    }
}

#[test]
fn a_message_that_will_be_too_long_is_refused_at_once() {
    let limits = ReassemblyLimits { message_max: 1000, ..ReassemblyLimits::default() };
    let mut world = World::new(limits);
    let packets = cut(&session(1, 1), &numbered(10_000), 74);
    world.accept(&packets[0]).unwrap();
    assert!(matches!(world.accept(&packets[1]), Err(Reject::MessageTooLong { len, .. }) if len > 9900));
    assert_eq!(world.0.held_bytes(), SLOT_COST, "nothing of it is kept");
    for packet in &packets {
        assert_eq!(world.accept(packet), Err(Reject::RestOfTooLong));
    }
    assert_eq!(world.0.expire(NOW + limits.age_max), 1);
    world.assert_empty();
}

#[test]
fn slots_per_peer_at_the_limit_and_one_past_it() {
    let mut world = World::new(ReassemblyLimits { slots_per_peer: 3, ..ReassemblyLimits::default() });
    let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);
    world.0.accept(NOW, other, &start(0)).unwrap();
    for rid in 1..=3 {
        world.accept(&start(rid)).unwrap();
    }
    assert_eq!((world.0.held_messages(), world.0.counters().evicted_slots_per_peer), (4, 0));
    world.accept(&start(4)).unwrap();
    assert_eq!((world.0.held_messages(), world.0.counters().evicted_slots_per_peer), (4, 1));
    // Its own oldest had to go.
    assert_eq!(world.accept(&finish(1)), Ok(None));
    for rid in [3, 4] {
        assert!(world.accept(&finish(rid)).unwrap().is_some());
    }
    assert!(world.0.accept(NOW, other, &finish(0)).unwrap().is_some());
}

#[test]
fn slots_at_the_limit_and_one_past_it() {
    let mut world = World::new(ReassemblyLimits { slots_max: 3, ..ReassemblyLimits::default() });
    let peer = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    for port in 1..=3 {
        world.0.accept(NOW, peer(port), &start(1)).unwrap();
    }
    assert_eq!((world.0.held_messages(), world.0.counters().evicted_slots), (3, 0));
    world.0.accept(NOW, peer(4), &start(1)).unwrap();
    assert_eq!((world.0.held_messages(), world.0.counters().evicted_slots), (3, 1));
    assert_eq!(world.0.accept(NOW, peer(1), &finish(1)), Ok(None), "the oldest of all had to go");
    for port in [3, 4] {
        assert!(world.0.accept(NOW, peer(port), &finish(1)).unwrap().is_some());
    }
}

#[test]
fn bytes_at_the_limit_and_one_past_it() {
    let two = 2 * (SLOT_COST + 10);
    for (bytes_max, evicted) in [(two, 0), (two - 1, 1)] {
        let mut world = World::new(ReassemblyLimits { bytes_max, ..ReassemblyLimits::default() });
        world.accept(&start(1)).unwrap();
        world.accept(&start(2)).unwrap();
        assert_eq!(world.0.counters().evicted_bytes, evicted);
        assert!(world.0.held_bytes() <= bytes_max);
        assert_eq!(world.0.held_messages(), if evicted == 0 { 2 } else { 1 });
        assert!(world.accept(&finish(2)).unwrap().is_some());
    }
}

#[test]
fn bytes_of_waiting_packets_are_counted() {
    let mut world = World::default();
    let packets = cut(&plain(1), &numbered(50), PACKET_MAX);
    for at in [4, 2, 3] {
        world.accept(&packets[at]).unwrap();
    }
    assert_eq!(world.0.held_bytes(), SLOT_COST + 30 + 3 * WAITING_COST);
}

#[test]
fn a_message_that_fills_all_bytes_alone() {
    // Two packets of 10 bytes need room for twenty at once; a third doubles it.
    let limit = SLOT_COST + 20;
    for (bytes_max, fits) in [(limit, true), (limit - 1, false)] {
        let mut world = World::new(ReassemblyLimits { bytes_max, ..ReassemblyLimits::default() });
        world.accept(&start(7)).unwrap();
        let packets = cut(&plain(1), &numbered(20), PACKET_MAX);
        assert_eq!(world.accept(&packets[0]), Ok(None));
        let last = world.accept(&packets[1]);
        if fits {
            assert!(last.unwrap().is_some());
        } else {
            assert_eq!(last, Err(Reject::BytesFull { needed: limit, limit: bytes_max }));
            assert_eq!(world.accept(&packets[1]), Err(Reject::RestOfTooLong));
        }
    }
}

#[test]
fn age_at_the_limit_and_just_before() {
    let age_max = Duration::from_millis(100);
    let mut world = World::new(ReassemblyLimits { age_max, ..ReassemblyLimits::default() });
    let later = NOW + Duration::from_millis(40);
    world.accept(&start(1)).unwrap();
    world.0.accept(later, PEER, &start(2)).unwrap();
    assert_eq!(world.0.next_expiry(), Some(NOW + age_max));
    assert_eq!(world.0.expire(NOW + age_max - Duration::from_nanos(1)), 0);
    assert_eq!(world.0.expire(NOW + age_max), 1);
    assert_eq!(world.0.next_expiry(), Some(later + age_max));
    assert_eq!(world.0.expire(later + age_max), 1);
    assert_eq!(world.0.counters().expired, 2);
    world.assert_empty();
}

#[test]
fn limits_of_nothing_still_let_a_packet_in() {
    let mut world = World::new(ReassemblyLimits {
        message_max: 0,
        slots_per_peer: 0,
        slots_max: 0,
        bytes_max: 0,
        age_max: Duration::ZERO,
    });
    assert!(world.accept(&cut(&plain(1), b"", PACKET_MAX)[0]).unwrap().is_some());
    assert!(world.accept(&cut(&plain(1), b"x", PACKET_MAX)[0]).is_err());
    for rid in 0..9 {
        assert!(world.accept(&start(rid)).is_err());
        assert!(world.0.held_messages() <= 1);
        assert!(world.0.held_bytes() <= SLOT_COST);
    }
}

#[test]
fn counter_names_are_unique() {
    let names: BTreeSet<_> = ReassemblyCounters::default().iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), ReassemblyCounters::default().iter().count());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost at first, doubled and shuffled, what comes out is what went in.
    #[test]
    fn shuffled_and_doubled_packets_make_the_same_message(
        (head, body, packet_max, order) in any_message()
            .prop_flat_map(|(head, body, packet_max)| {
                let packets = cut(&head, &body, packet_max).len();
                let all: Vec<_> = (0..packets).chain(0..packets).collect();
                (Just(head), Just(body), Just(packet_max), Just(all).prop_shuffle())
            })
    ) {
        let packets = cut(&head, &body, packet_max);
        let mut world = World::default();
        let mut seen = BTreeSet::new();
        for at in order {
            let message = world.accept(&packets[at]).unwrap();
            seen.insert(at);
            prop_assert_eq!(message.is_some(), seen.len() == packets.len());
            if let Some(message) = message {
                prop_assert_eq!(message, whole(&head, &body));
                break;
            }
        }
        world.assert_empty();
    }

    /// Messages of several peers, packets lost and out of order, limits too small for them: memory stays bounded and
    /// whatever completes is whole.
    #[test]
    fn under_pressure_messages_come_whole_or_not_at_all(
        messages in prop::collection::vec((0..3u16, 0..4u64, 11..200usize), 1..12),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..40_000_000u64), 0..300),
    ) {
        let limits = ReassemblyLimits {
            message_max: 190,
            slots_per_peer: 2,
            slots_max: 4,
            bytes_max: 5 * SLOT_COST,
            age_max: Duration::from_millis(500),
        };
        let mut world = World::new(limits);
        let messages: Vec<_> = messages
            .into_iter()
            .enumerate()
            .map(|(at, (port, seq, len))| {
                // All with one seq are one message, as they are in earnest.
                let len = if seq == 0 { len } else { 60 };
                let body = vec![if seq == 0 { at as u8 } else { 100 + seq as u8 }; len];
                let mut head = if seq == 0 { plain(at as u16) } else { session(1, seq) };
                head.extensions.digest = Some(digest(
                    &DigestKey::default(),
                    head.extensions.session.map(|session| (session.client, session.seq)),
                    &body,
                ));
                let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port + 1);
                (from, head, cut(&head, &body, head.extensions.header_len() + 10), body)
            })
            .collect();
        let mut now = NOW;
        for (message, packet, wait) in picks {
            let (from, head, packets, body) = message.get(&messages);
            now += Duration::from_nanos(wait);
            if now.as_nanos().is_multiple_of(3) {
                world.0.expire(now);
            }
            if let Ok(Some(message)) = world.0.accept(now, *from, &packets[packet.index(packets.len())]) {
                prop_assert_eq!(message, whole(head, body));
            }
            world.check();
        }
        world.0.expire(now + limits.age_max);
        world.assert_empty();
    }

    #[test]
    fn any_packets_are_safe_and_memory_stays_bounded(
        packets in prop::collection::vec((1..4u16, plausible_packet(), 0..10_000_000u64), 0..200)
    ) {
        let limits = ReassemblyLimits {
            message_max: 150,
            slots_per_peer: 4,
            slots_max: 6,
            bytes_max: 5 * SLOT_COST,
            age_max: Duration::from_millis(100),
        };
        let mut world = World::new(limits);
        let mut now = NOW;
        for (port, packet, wait) in packets {
            now += Duration::from_nanos(wait);
            let message = world.0.accept(now, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), &packet);
            if let Ok(Some(message)) = message {
                prop_assert!(message.body.len() <= limits.message_max);
            }
            world.check();
        }
    }
}

const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

struct World(Reassembler);

impl Default for World {
    fn default() -> Self {
        Self::new(ReassemblyLimits::default())
    }
}

impl World {
    fn new(limits: ReassemblyLimits) -> Self {
        Self(Reassembler::new(limits, DigestKey::default()))
    }

    fn accept(&mut self, packet: &[u8]) -> Result<Option<Message>, Reject> {
        let result = self.0.accept(NOW, PEER, packet);
        self.check();
        result
    }

    /// All packets in their order; the last of them completes the message.
    fn complete_all(&mut self, head: &MessageHead, body: &[u8], packets: &[Bytes]) {
        let (last, others) = packets.split_last().unwrap();
        for packet in others {
            assert_eq!(self.0.accept(NOW, PEER, packet), Ok(None));
        }
        assert_eq!(self.accept(last), Ok(Some(whole(head, body))));
    }

    /// The tables agree with each other and are within their limits.
    fn check(&self) {
        let Reassembler { limits, slots, by_key, by_peer, bytes, .. } = &self.0;
        assert_eq!(*bytes, slots.values().map(Slot::charge).sum::<usize>());
        assert!(*bytes <= limits.bytes_max);
        assert!(slots.len() <= limits.slots_max);
        assert!(by_peer.values().all(|serials| !serials.is_empty() && serials.len() <= limits.slots_per_peer));
        assert_eq!(by_peer.values().map(BTreeSet::len).sum::<usize>(), slots.len());
        assert_eq!(by_key.len(), slots.len());
        for (serial, slot) in slots {
            assert_eq!(by_key.get(&slot.key), Some(serial));
            assert!(by_peer[&slot.key.from].contains(serial));
        }
    }

    fn assert_empty(&self) {
        self.check();
        assert_eq!((self.0.held_messages(), self.0.held_bytes()), (0, 0));
        assert_eq!(self.0.next_expiry(), None);
    }
}

/// A head of a kind that is sent without a handshake.
fn plain(rid: u16) -> MessageHead {
    MessageHead { kind: MessageType::RaftMessage, policy: Policy::Fixed, rid, extensions: Extensions::default() }
}

fn session(client: u64, seq: u64) -> MessageHead {
    let session = Some(Session { client, seq, first_unacked: 1 });
    let extensions = Extensions { session, no_handshake: true, ..Extensions::default() };
    MessageHead { kind: MessageType::Request, policy: Policy::Replicated, rid: 1, extensions }
}

fn any_message() -> impl Strategy<Value = (MessageHead, Vec<u8>, usize)> {
    let kind = prop::sample::select(vec![MessageType::Request, MessageType::Response, MessageType::RaftRequest]);
    let body = prop::collection::vec(any::<u8>(), 0..300);
    (kind, any_extensions(), any::<u16>(), body, 10..60usize).prop_map(|(kind, extensions, rid, body, room)| {
        let mut head = MessageHead { kind, policy: Policy::Fixed, rid, extensions };
        let session = extensions.session.map(|session| (session.client, session.seq));
        head.extensions.digest = extensions.digest.map(|_| digest(&DigestKey::default(), session, &body));
        (head, body, head.extensions.header_len() + room)
    })
}

fn whole(head: &MessageHead, body: &[u8]) -> Message {
    let MessageHead { kind, policy, rid, extensions } = *head;
    Message { kind, policy, rid, extensions, body: Bytes::copy_from_slice(body) }
}

fn cut(head: &MessageHead, body: &[u8], packet_max: usize) -> Vec<Bytes> {
    let mut packets = Vec::new();
    write_packets(head, body, packet_max, &mut |packet| packets.push(packet)).unwrap();
    packets
}

/// The first of two packets with 10 bytes each.
fn start(rid: u16) -> Bytes {
    cut(&plain(rid), &numbered(20), PACKET_MAX).swap_remove(0)
}

/// The other one.
fn finish(rid: u16) -> Bytes {
    cut(&plain(rid), &numbered(20), PACKET_MAX).swap_remove(1)
}

/// Bytes that differ from their neighbours.
fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}
