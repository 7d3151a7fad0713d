//! Datagrams in, requests and ACKs out.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::reassembly::{COPY_AGE_MAX, ReassemblyLimits};
use crate::wire::tests::plausible_packet;
use crate::wire::{Forwarded, HEADER_LEN, PAYLOAD_MAX, ReplyStatus, Session};

const NOW: Instant = Instant::ZERO;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5000);
const ROUTER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 8000);
const C_PACKET_MAX: usize = HEADER_LEN + PAYLOAD_MAX;

#[test]
fn a_request_of_the_c_implementation() {
    let mut world = World::default();
    world.receive(Via::Unicast, b"\xcc\x08\x00\xc0\x12\x34\x00\x01body");
    let request = world.request();
    assert_eq!((request.from, request.via), (CLIENT, Via::Unicast));
    let head = MessageHead { policy: Policy::LoadBalanced, ..plain(0x1234) };
    assert_eq!((request.message.head(), &request.message.body[..]), (head, &b"body"[..]));
    world.assert_quiet();
    assert_eq!(world.0.counters().requests, 1);
}

#[test]
fn an_answer_for_the_c_implementation() {
    let mut packets = Vec::new();
    write_response(0x1234, Extensions::default(), b"answer", C_PACKET_MAX, &mut |packet| packets.push(packet)).unwrap();
    assert_eq!(packets, [&b"\xcc\x08\x11\xc0\x12\x34\x00\x01answer"[..]]);
}

#[test]
fn several_packets_by_unicast_are_acknowledged_at_once() {
    let mut world = World::default();
    let (body, packets) = large(7);
    world.receive(Via::Unicast, &packets[0]);
    assert_eq!(world.acks(), [(CLIENT, b"\xcc\x08\x31\xc0\x00\x07\x00\x01ACK"[..].into())]);
    world.assert_quiet();
    for packet in &packets[1..] {
        world.receive(Via::Unicast, packet);
    }
    assert_eq!(world.request().message.body, body);
    world.assert_quiet();
    assert_eq!(world.0.next_timeout(), None);
}

/// A second ACK aborts a client of the C implementation.
#[test]
fn a_copy_of_the_first_packet_is_not_acknowledged_again() {
    let mut world = World::default();
    let (_, packets) = large(7);
    world.receive(Via::Unicast, &packets[0]);
    assert_eq!(world.acks().len(), 1);
    world.receive(Via::Unicast, &packets[0]);
    for packet in &packets[1..] {
        world.receive(Via::Unicast, packet);
    }
    world.request();
    world.receive_at(NOW + COPY_AGE_MAX, Via::Unicast, &packets[0]);
    world.assert_quiet();
    assert_eq!(world.0.counters().handshakes_repeated, 2);
    assert_eq!(world.0.reassembler().held_messages(), 0, "a late copy takes no slot");
}

/// A lost ACK must not stop a client that retransmits.
#[test]
fn a_retransmitted_first_packet_is_acknowledged_again() {
    let session = Some(Session { client: 3, seq: 4, first_unacked: 4 });
    let with_session = MessageHead { extensions: Extensions { session, ..Extensions::default() }, ..plain(7) };
    for head in [plain(7), with_session] {
        let mut world = World::default();
        let body = numbered(4000);
        let packets = cut(&head, &body);
        let mut now = NOW;
        for _ in 0..3 {
            world.receive_at(now, Via::Unicast, &packets[0]);
            assert_eq!(world.acks().len(), 1);
            now += COPY_AGE_MAX + Duration::from_nanos(1);
        }
        for packet in &packets[1..] {
            world.receive_at(now, Via::Unicast, packet);
        }
        assert_eq!(world.request().message.body, body);
        world.assert_quiet();
    }
}

#[test]
fn several_packets_by_group_are_the_drivers_decision() {
    let mut world = World::default();
    let (body, packets) = large(7);
    world.receive(Via::Group, &packets[0]);
    assert_eq!(world.0.poll_event(), Some(ServerEvent::Handshake { from: CLIENT, rid: 7 }));
    world.assert_quiet();
    world.0.acknowledge(CLIENT, 7);
    world.0.acknowledge(CLIENT, 7);
    assert_eq!(world.acks(), [(CLIENT, write_ack(7))]);
    world.receive(Via::Group, &packets[0]);
    world.assert_quiet();
    for packet in &packets[1..] {
        world.receive(Via::Unicast, packet);
    }
    let request = world.request();
    assert_eq!((request.via, request.message.body), (Via::Unicast, Bytes::from(body)));
    world.assert_quiet();
    assert_eq!((world.0.counters().handshakes, world.0.counters().acknowledged), (1, 1));
}

#[test]
fn a_group_handshake_that_was_declined_may_be_repeated() {
    let mut world = World::default();
    let (_, packets) = large(7);
    for _ in 0..2 {
        world.receive(Via::Group, &packets[0]);
        assert_eq!(world.0.poll_event(), Some(ServerEvent::Handshake { from: CLIENT, rid: 7 }));
    }
}

#[test]
fn who_does_not_acknowledge_holds_no_first_packets() {
    let mut world = World::default();
    world.0.set_acknowledging(false);
    let (_, packets) = large(7);
    world.receive(Via::Group, &packets[0]);
    world.assert_quiet();
    assert_eq!(world.0.reassembler().held_messages(), 0);
    assert_eq!(world.0.counters().handshakes_ignored, 1);
    // What is meant for this server alone, or needs no answer, is taken all the same.
    world.receive(Via::Unicast, &packets[0]);
    assert_eq!(world.acks().len(), 1);
    let (body, packets) = without_handshake(8, numbered(4000));
    for packet in &packets {
        world.receive(Via::Group, packet);
    }
    assert_eq!(world.request().message.body, body);
}

#[test]
fn without_handshake_nothing_is_acknowledged() {
    for via in [Via::Unicast, Via::Group] {
        let mut world = World::default();
        let (body, packets) = without_handshake(7, numbered(4000));
        for packet in packets.iter().rev() {
            world.receive(via, packet);
        }
        let request = world.request();
        assert_eq!((request.via, request.message.body), (via, Bytes::from(body)));
        assert!(request.message.extensions.session.is_some());
        world.assert_quiet();
    }
}

#[test]
fn a_forwarder_is_believed() {
    let mut world = World::new(ServerConfig { forwarders: [ROUTER].into(), ..ServerConfig::default() });
    let forwarded = Some(Forwarded { client: CLIENT, hop: 1 });
    let head = MessageHead { extensions: Extensions { forwarded, ..Extensions::default() }, ..plain(7) };
    for body in [numbered(5), numbered(4000)] {
        for packet in cut(&head, &body) {
            world.0.handle_datagram(NOW, Via::Unicast, ROUTER, &packet);
        }
        let request = world.request();
        assert_eq!((request.from, request.message.body), (CLIENT, Bytes::from(body)));
    }
    assert_eq!(world.acks(), [(CLIENT, write_ack(7))], "the client is to send the rest here");
    // What it sends of its own is from itself.
    world.0.handle_datagram(NOW, Via::Unicast, ROUTER, &cut(&plain(1), b"x")[0]);
    assert_eq!(world.request().from, ROUTER);
}

#[test]
fn two_clients_of_one_forwarder_are_kept_apart() {
    let mut world = World::new(ServerConfig { forwarders: [ROUTER].into(), ..ServerConfig::default() });
    let other = SocketAddrV4::new(*CLIENT.ip(), 5001);
    let [packets, others] = [(CLIENT, 1), (other, 2)].map(|(client, byte)| {
        let extensions =
            Extensions { forwarded: Some(Forwarded { client, hop: 1 }), no_handshake: true, ..Extensions::default() };
        cut(&MessageHead { extensions, ..plain(7) }, &[byte; 3000])
    });
    for packet in [&packets[0], &others[0], &packets[1], &others[1], &others[2], &packets[2]] {
        world.0.handle_datagram(NOW, Via::Unicast, ROUTER, packet);
    }
    let requests = [world.request(), world.request()];
    assert_eq!(requests.each_ref().map(|request| request.from), [other, CLIENT]);
    assert_eq!(requests.each_ref().map(|request| request.message.body[2999]), [2, 1]);
}

#[test]
fn nobody_else_may_forward() {
    let mut world = World::new(ServerConfig { forwarders: [ROUTER].into(), ..ServerConfig::default() });
    let forwarded = Some(Forwarded { client: CLIENT, hop: 1 });
    let head = MessageHead { extensions: Extensions { forwarded, ..Extensions::default() }, ..plain(7) };
    let strangers = [CLIENT, SocketAddrV4::new(*ROUTER.ip(), 8001), SocketAddrV4::new(*CLIENT.ip(), ROUTER.port())];
    for stranger in strangers {
        world.0.handle_datagram(NOW, Via::Unicast, stranger, &cut(&head, b"x")[0]);
    }
    world.assert_quiet();
    assert_eq!(world.0.counters().unknown_forwarder, 3);
}

#[test]
fn sources_that_cannot_be_answered() {
    let mut world = World::new(ServerConfig { forwarders: [ROUTER].into(), ..ServerConfig::default() });
    let sources = [
        SocketAddrV4::new(*CLIENT.ip(), 0),
        SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 1),
        SocketAddrV4::new(Ipv4Addr::BROADCAST, 1),
        SocketAddrV4::new(Ipv4Addr::new(239, 1, 1, 1), 1),
    ];
    for source in sources {
        world.0.handle_datagram(NOW, Via::Unicast, source, &large(7).1[0]);
        let forwarded = Some(Forwarded { client: source, hop: 1 });
        let head = MessageHead { extensions: Extensions { forwarded, ..Extensions::default() }, ..plain(7) };
        world.0.handle_datagram(NOW, Via::Unicast, ROUTER, &cut(&head, b"x")[0]);
    }
    world.assert_quiet();
    assert_eq!(world.0.counters().unusable_source, 8);
}

#[test]
fn feedback() {
    let mut world = World::default();
    let feedback = Feedback { rid: 3, client: CLIENT };
    world.0.handle_datagram(NOW, Via::Unicast, ROUTER, &write_feedback(&feedback));
    assert_eq!(world.0.poll_event(), Some(ServerEvent::Feedback { from: ROUTER, feedback }));
    assert_eq!(world.0.counters().feedbacks, 1);
    world.receive(Via::Unicast, b"\xcc\x08\x20\xc0\0\0\0\x01short");
    world.assert_quiet();
    assert_eq!(world.rejected("bad_feedback"), 1);
}

#[test]
fn other_kinds_are_counted() {
    let mut world = World::default();
    let kinds = [
        MessageType::Response,
        MessageType::Ack,
        MessageType::Drop,
        MessageType::RaftRequest,
        MessageType::RaftReply,
        MessageType::RaftMessage,
    ];
    for kind in kinds {
        world.receive(Via::Unicast, &cut(&MessageHead { kind, ..plain(1) }, b"x")[0]);
    }
    world.assert_quiet();
    assert_eq!(world.0.counters().unexpected_kind, 6);
}

#[test]
fn malformed_packets_are_counted_by_reason() {
    let mut world = World::default();
    world.receive(Via::Unicast, b"");
    world.receive(Via::Group, b"GET / HTTP/1.1");
    world.receive(Via::Unicast, b"\xcc\x09\x00\xc0\0\0\0\x01\x07");
    world.assert_quiet();
    for reason in ["truncated", "bad_magic", "bad_extension"] {
        assert_eq!(world.rejected(reason), 1);
    }
    assert_eq!(world.0.counters().rejected.iter().sum::<u64>(), 3);
    assert_eq!(world.0.counters().packets_received, 3);
}

#[test]
fn request_length_at_the_limit_and_one_past_it() {
    let reassembly = ReassemblyLimits { message_max: 3000, ..ReassemblyLimits::default() };
    for small in [false, true] {
        let limit = if small { 100 } else { 3000 };
        let reassembly = ReassemblyLimits { message_max: limit, ..reassembly };
        let mut world = World::new(ServerConfig { reassembly, ..ServerConfig::default() });
        let (body, packets) = without_handshake(7, numbered(limit));
        for packet in &packets {
            world.receive(Via::Group, packet);
        }
        assert_eq!(world.request().message.body, body);
        assert_eq!(world.0.poll_too_long(), None);

        let (_, packets) = without_handshake(8, numbered(limit + 1));
        for packet in &packets {
            world.receive(Via::Group, packet);
        }
        world.assert_quiet();
        let too_long = world.0.poll_too_long().unwrap();
        assert_eq!((too_long.from, too_long.via, too_long.limit), (CLIENT, Via::Group, limit));
        assert_eq!((too_long.head.rid, too_long.head.extensions.session.unwrap().seq), (8, 8));
        assert_eq!(world.0.poll_too_long(), None, "said once");
        assert_eq!(world.0.counters().requests_too_long, 1);
    }
}

#[test]
fn too_long_requests_at_the_limit_and_one_past_it() {
    let reassembly = ReassemblyLimits { message_max: 0, ..ReassemblyLimits::default() };
    let mut world = World::new(ServerConfig { reassembly, ..ServerConfig::default() });
    for rid in 0..=TOO_LONG_MAX as u16 {
        world.receive(Via::Unicast, &cut(&plain(rid), b"x")[0]);
    }
    assert_eq!(std::iter::from_fn(|| world.0.poll_too_long()).count(), TOO_LONG_MAX);
    assert_eq!(world.0.counters().requests_too_long, TOO_LONG_MAX as u64 + 1);
}

#[test]
fn events_at_the_limit_and_one_past_it() {
    let mut world = World::new(ServerConfig { events_max: 2, ..ServerConfig::default() });
    for rid in 1..=3 {
        assert_eq!(world.0.counters().events_full, 0);
        world.receive(Via::Unicast, &cut(&plain(rid), b"x")[0]);
    }
    assert_eq!([world.request(), world.request()].map(|request| request.message.rid), [1, 2]);
    world.assert_quiet();
    assert_eq!((world.0.counters().events_full, world.0.counters().requests), (1, 2));
}

#[test]
fn event_bytes_at_the_limit_and_one_past_it() {
    let mut world = World::new(ServerConfig { events_bytes_max: 10, ..ServerConfig::default() });
    for (rid, body) in [(1, &b"12345"[..]), (2, b"12345"), (3, b"1"), (4, b"")] {
        world.receive(Via::Unicast, &cut(&plain(rid), body)[0]);
    }
    assert_eq!([world.request(), world.request(), world.request()].map(|request| request.message.rid), [1, 2, 4]);
    assert_eq!(world.0.counters().events_full, 1);
    // One is let in whatever its size, and room is given back.
    world.receive(Via::Unicast, &cut(&plain(5), b"12345678901")[0]);
    assert_eq!(world.request().message.rid, 5);
    world.receive(Via::Unicast, &cut(&plain(6), b"1234567890")[0]);
    assert_eq!(world.request().message.rid, 6);
}

#[test]
fn transmits_at_the_limit_and_one_past_it() {
    let mut world = World::new(ServerConfig { transmits_max: 2, ..ServerConfig::default() });
    for rid in 1..=3 {
        assert_eq!(world.0.counters().transmits_full, 0);
        world.receive(Via::Unicast, &large(rid).1[0]);
    }
    assert_eq!(world.acks(), [(CLIENT, write_ack(1)), (CLIENT, write_ack(2))]);
    assert_eq!(world.0.counters().transmits_full, 1);
    // It was not acknowledged, so a copy is.
    world.receive(Via::Unicast, &large(3).1[0]);
    assert_eq!(world.acks(), [(CLIENT, write_ack(3))]);
}

#[test]
fn incomplete_requests_are_forgotten() {
    let mut world = World::default();
    let (_, packets) = large(7);
    world.receive(Via::Unicast, &packets[0]);
    let at = world.0.next_timeout().unwrap();
    assert_eq!(at, NOW + ReassemblyLimits::default().age_max);
    world.0.handle_timeout(at - Duration::from_nanos(1));
    assert_eq!(world.0.counters().incomplete_expired, 0);
    world.0.handle_timeout(at);
    assert_eq!(world.0.counters().incomplete_expired, 1);
    assert_eq!(world.0.next_timeout(), None);
}

#[test]
fn response_heads_are_fixed_and_repeat_what_they_are_given() {
    let extensions = Extensions { status: Some(ReplyStatus::Expired), ..Extensions::default() };
    let expected = MessageHead { kind: MessageType::Response, policy: Policy::Fixed, rid: 9, extensions };
    assert_eq!(response_head(9, extensions), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_datagrams_are_safe_and_memory_stays_bounded(
        packets in prop::collection::vec(
            (any::<bool>(), 0..4u16, prop_oneof![plausible_packet(), prop::collection::vec(any::<u8>(), 0..40)], 0..9_000_000u64),
            0..200,
        )
    ) {
        let reassembly = ReassemblyLimits {
            message_max: 200,
            slots_per_peer: 4,
            slots_max: 8,
            bytes_max: 4096,
            age_max: Duration::from_millis(100),
        };
        let config = ServerConfig {
            reassembly,
            events_max: 16,
            events_bytes_max: 500,
            transmits_max: 8,
            acknowledged_max: 8,
            forwarders: [SocketAddrV4::new(*CLIENT.ip(), 3)].into(),
            ..ServerConfig::default()
        };
        let mut server = Server::new(config);
        let mut now = NOW;
        for (group, port, packet, wait) in packets {
            now += Duration::from_nanos(wait);
            let via = if group { Via::Group } else { Via::Unicast };
            server.handle_datagram(now, via, SocketAddrV4::new(*CLIENT.ip(), port), &packet);
            prop_assert!(server.reassembler.held_messages() <= 8);
            prop_assert!(server.reassembler.held_bytes() <= 4096);
            prop_assert!(server.events.len() <= 16 && server.transmits.len() <= 8);
            prop_assert!(server.events_bytes <= 500 + 200);
            if wait.is_multiple_of(7) {
                server.handle_timeout(now);
                while let Some(event) = server.poll_event() {
                    if let ServerEvent::Handshake { from, rid } = event {
                        server.acknowledge(from, rid);
                    }
                }
                while server.poll_transmit().is_some() {}
                prop_assert_eq!(server.events_bytes, 0);
            }
        }
        let received = server.counters().packets_received;
        let refused: u64 = server.counters().rejected.iter().sum();
        prop_assert!(refused <= received);
    }
}

struct World(Server);

impl Default for World {
    fn default() -> Self {
        Self::new(ServerConfig::default())
    }
}

impl World {
    fn new(config: ServerConfig) -> Self {
        Self(Server::new(config))
    }

    fn receive(&mut self, via: Via, packet: &[u8]) {
        self.receive_at(NOW, via, packet);
    }

    fn receive_at(&mut self, now: Instant, via: Via, packet: &[u8]) {
        self.0.handle_datagram(now, via, CLIENT, packet);
    }

    fn request(&mut self) -> IncomingRequest {
        match self.0.poll_event() {
            Some(ServerEvent::Request(request)) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    fn acks(&mut self) -> Vec<(SocketAddrV4, Bytes)> {
        std::iter::from_fn(|| self.0.poll_transmit()).collect()
    }

    fn rejected(&self, name: &str) -> u64 {
        self.0.counters().iter().find_map(|(counter, count)| (counter == name).then_some(count)).unwrap()
    }

    fn assert_quiet(&mut self) {
        assert_eq!(self.0.poll_event(), None);
        assert_eq!(self.0.poll_transmit(), None);
    }
}

fn plain(rid: u16) -> MessageHead {
    MessageHead { kind: MessageType::Request, policy: Policy::Replicated, rid, extensions: Extensions::default() }
}

/// A request of several packets that waits for an ACK.
fn large(rid: u16) -> (Vec<u8>, Vec<Bytes>) {
    let body = numbered(4000);
    let packets = cut(&plain(rid), &body);
    assert_eq!(packets.len(), 4);
    (body, packets)
}

/// A request with a session that does not wait.
fn without_handshake(rid: u16, body: Vec<u8>) -> (Vec<u8>, Vec<Bytes>) {
    let session = Some(Session { client: 3, seq: rid.into(), first_unacked: 1 });
    let extensions = Extensions { session, no_handshake: true, ..Extensions::default() };
    let packets = cut(&MessageHead { extensions, ..plain(rid) }, &body);
    (body, packets)
}

fn cut(head: &MessageHead, body: &[u8]) -> Vec<Bytes> {
    let mut packets = Vec::new();
    write_packets(head, body, C_PACKET_MAX, &mut |packet| packets.push(packet)).unwrap();
    packets
}

/// Bytes that differ from their neighbours.
fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}
