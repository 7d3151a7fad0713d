//! What is admitted, what is refused, and that credits neither leak nor multiply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bytes::Bytes;
use proptest::prelude::*;
use r2p2::feedback::Outbox;
use r2p2::message::{MessageHead, write_packets};
use r2p2::wire::{Extensions, Feedback, Forwarded, Session, write_drop, write_feedback};

use super::*;

const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7400);
const OTHER_NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 7400);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 7400);
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, 1), 7000);
const DEADLINE: Duration = Duration::from_millis(100);
const REMEMBER: Duration = Duration::from_secs(1);
const LIMIT: usize = 3;

fn client(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, number), 1000)
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn config() -> GatewayConfig {
    GatewayConfig {
        receivers: [GROUP].into(),
        nodes: [NODE, OTHER_NODE].into(),
        in_flight_max: LIMIT,
        credit_deadline: DEADLINE,
        remember: REMEMBER,
        remembered_max: 100,
        ..GatewayConfig::default()
    }
}

fn gateway() -> Gateway {
    Gateway::new(config(), 1)
}

fn session(client: u64, seq: u64) -> Option<Session> {
    Some(Session { client, seq, first_unacked: 0 })
}

fn request(rid: u16, session: Option<Session>, len: usize) -> Vec<Bytes> {
    let extensions = Extensions { session, no_handshake: len > 1400, ..Extensions::default() };
    let head = MessageHead { kind: MessageType::Request, policy: Policy::Replicated, rid, extensions };
    let mut packets = Vec::new();
    write_packets(&head, &vec![7; len], 1472, &mut |packet| packets.push(packet)).unwrap();
    packets
}

/// What became of a packet.
#[derive(PartialEq, Eq, Debug)]
enum Fate {
    Passed,
    Dropped,
    Ignored,
}

fn hand_in(gateway: &mut Gateway, now: Instant, from: SocketAddrV4, packet: &[u8]) -> Fate {
    gateway.handle_packet(now, from, packet);
    let output = gateway.poll_output(now);
    let Output::Send { to, packet: sent } = output else { return Fate::Ignored };
    assert!(matches!(gateway.poll_output(now), Output::Timeout(_)), "one for one");
    let before = Packet::new_checked(packet).unwrap();
    let after = Packet::new_checked(&sent[..]).unwrap();
    if after.kind() == MessageType::Drop {
        assert_eq!((to.addresses(), &sent), (&[from][..], &write_drop(before.rid())));
        return Fate::Dropped;
    }
    assert_eq!(to.addresses(), gateway.config().receivers.as_ref());
    let (before, after) =
        ((Header::parse(&before).unwrap(), before.payload()), (Header::parse(&after).unwrap(), after.payload()));
    assert_eq!(after.0.extensions.forwarded, Some(Forwarded { client: from, hop: 1 }));
    let extensions = Extensions { forwarded: None, ..after.0.extensions };
    assert_eq!((Header { extensions, ..after.0 }, after.1), before);
    Fate::Passed
}

fn one(gateway: &mut Gateway, now: Instant, number: u8, rid: u16) -> Fate {
    hand_in(gateway, now, client(number), &request(rid, None, 5)[0])
}

fn feedback(number: u8, rid: u16) -> Feedback {
    Feedback { rid, client: client(number) }
}

#[test]
fn as_many_as_the_limit_and_one_more() {
    let mut gateway = gateway();
    for rid in 0..3 {
        assert_eq!(one(&mut gateway, at(0), 1, rid), Fate::Passed);
    }
    assert_eq!(one(&mut gateway, at(0), 1, 3), Fate::Dropped);
    assert_eq!(hand_in(&mut gateway, at(1), NODE, &write_feedback(&feedback(1, 0))), Fate::Ignored);
    assert_eq!(one(&mut gateway, at(1), 1, 3), Fate::Passed);
    assert_eq!(one(&mut gateway, at(1), 1, 4), Fate::Dropped);
    let counters = gateway.gateway_counters();
    assert_eq!((counters.requests_admitted, counters.requests_refused, gateway.in_flight()), (4, 2, 3));
}

#[test]
fn credit_of_who_never_answers_comes_back_by_the_deadline() {
    let mut gateway = gateway();
    for rid in 0..3 {
        assert_eq!(one(&mut gateway, at(0), 1, rid), Fate::Passed);
    }
    assert!(matches!(gateway.poll_output(at(0)), Output::Timeout(due) if due == at(100) + SLACK));
    gateway.handle_timeout(at(99));
    assert_eq!(one(&mut gateway, at(99), 1, 3), Fate::Dropped);
    gateway.handle_timeout(at(100));
    assert_eq!((gateway.in_flight(), one(&mut gateway, at(100), 1, 3)), (0, Fate::Passed));
    // The answer comes after all: nobody gains by it.
    hand_in(&mut gateway, at(101), NODE, &write_feedback(&feedback(1, 0)));
    assert_eq!((gateway.in_flight(), gateway.credits().feedback_unknown), (1, 1));
}

#[test]
fn retransmissions_of_what_was_admitted_pass_uncharged() {
    let mut gateway = gateway();
    let packets: Vec<Bytes> = (0..4).map(|seq| request(seq, session(9, seq.into()), 5).remove(0)).collect();
    for packet in &packets[..3] {
        assert_eq!(hand_in(&mut gateway, at(0), client(1), packet), Fate::Passed);
    }
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &packets[3]), Fate::Dropped);
    for packet in &packets[..3] {
        assert_eq!(hand_in(&mut gateway, at(1), client(1), packet), Fate::Passed);
    }
    assert_eq!((gateway.in_flight(), gateway.gateway_counters().requests_admitted), (3, 3));
    // Answered, and the answer was lost: the group has it in its memory.
    hand_in(&mut gateway, at(2), NODE, &write_feedback(&feedback(1, 0)));
    assert_eq!(hand_in(&mut gateway, at(2), client(1), &packets[3]), Fate::Passed);
    assert_eq!(hand_in(&mut gateway, at(2), client(1), &packets[0]), Fate::Passed);
    assert_eq!(gateway.in_flight(), 3);
    // Not answered in time: it is to be done now, and has a credit if there is one.
    gateway.handle_timeout(at(150));
    assert_eq!(hand_in(&mut gateway, at(150), client(1), &packets[1]), Fate::Passed);
    assert_eq!(hand_in(&mut gateway, at(150), client(1), &packets[0]), Fate::Passed);
    assert_eq!((gateway.in_flight(), gateway.gateway_counters().charged_again), (1, 1));
    // After its lifetime it is as if it were new.
    gateway.handle_timeout(at(1002));
    (10..13).for_each(|rid| assert_eq!(one(&mut gateway, at(1002), 2, rid), Fate::Passed));
    assert_eq!(hand_in(&mut gateway, at(1003), client(1), &packets[0]), Fate::Dropped);
}

#[test]
fn a_number_used_again_without_a_session_is_another_request() {
    let mut gateway = gateway();
    assert_eq!(one(&mut gateway, at(0), 1, 7), Fate::Passed);
    assert_eq!(one(&mut gateway, at(0), 1, 7), Fate::Passed, "a copy");
    assert_eq!(gateway.in_flight(), 1);
    hand_in(&mut gateway, at(1), NODE, &write_feedback(&feedback(1, 7)));
    (0..3).for_each(|rid| assert_eq!(one(&mut gateway, at(1), 2, rid), Fate::Passed));
    assert_eq!(one(&mut gateway, at(1), 1, 7), Fate::Dropped);
}

#[test]
fn a_message_passes_as_a_whole_or_not_at_all() {
    let mut gateway = gateway();
    for reversed in [false, true] {
        let seq = u64::from(reversed);
        let mut packets = request(seq as u16, session(9, seq), 4000);
        assert_eq!(packets.len(), 3);
        if reversed {
            packets.reverse();
        }
        for packet in &packets {
            assert_eq!(hand_in(&mut gateway, at(0), client(1), packet), Fate::Passed);
        }
    }
    assert_eq!(gateway.in_flight(), 2);
    assert_eq!(one(&mut gateway, at(0), 2, 1), Fate::Passed);
    let refused = request(7, session(9, 7), 4000);
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &refused[0]), Fate::Dropped);
    // Room comes too late for this one, and in time for its retransmission.
    hand_in(&mut gateway, at(0), NODE, &write_feedback(&feedback(2, 1)));
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &refused[1]), Fate::Ignored);
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &refused[2]), Fate::Ignored);
    let later = at(0) + COPY_AGE_MAX;
    gateway.handle_timeout(later);
    for packet in &refused {
        assert_eq!(hand_in(&mut gateway, later, client(1), packet), Fate::Passed);
    }
}

#[test]
fn messages_refused_at_the_limit_and_one_past_it() {
    let mut gateway = Gateway::new(GatewayConfig { in_flight_max: 1, ..config() }, 1);
    assert_eq!(one(&mut gateway, at(0), 2, 1), Fate::Passed);
    let message = |seq: u64| request(seq as u16, session(9, seq), 2000);
    for seq in 0..REFUSED_MAX as u64 {
        assert_eq!(hand_in(&mut gateway, at(0), client(1), &message(seq)[0]), Fate::Dropped);
    }
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &message(0)[1]), Fate::Ignored);
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &message(REFUSED_MAX as u64)[0]), Fate::Dropped);
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &message(0)[1]), Fate::Dropped, "the oldest is forgotten");
}

#[test]
fn operations_remembered_at_the_limit_and_one_past_it() {
    let mut gateway = Gateway::new(GatewayConfig { remembered_max: 3, ..config() }, 1);
    let pass = |gateway: &mut Gateway, seq: u64| {
        assert_eq!(hand_in(gateway, at(0), client(1), &request(seq as u16, session(9, seq), 5)[0]), Fate::Passed);
        hand_in(gateway, at(0), NODE, &write_feedback(&feedback(1, seq as u16)));
    };
    (0..3).for_each(|seq| pass(&mut gateway, seq));
    assert_eq!(gateway.gateway_counters().forgotten, 0);
    pass(&mut gateway, 3);
    assert_eq!(gateway.gateway_counters().forgotten, 1);
    pass(&mut gateway, 1);
    assert_eq!(gateway.gateway_counters().requests_admitted, 4, "it is known");
    pass(&mut gateway, 0);
    assert_eq!(gateway.gateway_counters().requests_admitted, 5, "it is not");
}

#[test]
fn what_is_none_of_its_business() {
    let mut gateway = gateway();
    let mut head = MessageHead {
        kind: MessageType::Request,
        policy: Policy::LoadBalanced,
        rid: 1,
        extensions: Extensions::default(),
    };
    let packet = |head: &MessageHead| {
        let mut packets = Vec::new();
        write_packets(head, b"", 1472, &mut |packet| packets.push(packet)).unwrap();
        packets.remove(0)
    };
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &packet(&head)), Fate::Ignored);
    head.policy = Policy::Replicated;
    let nowhere = SocketAddrV4::new(*client(1).ip(), 0);
    assert_eq!(hand_in(&mut gateway, at(0), nowhere, &packet(&head)), Fate::Ignored);
    head.kind = MessageType::Response;
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &packet(&head)), Fate::Ignored);
    assert_eq!(hand_in(&mut gateway, at(0), STRANGER, &write_feedback(&feedback(1, 1))), Fate::Ignored);
    assert_eq!(hand_in(&mut gateway, at(0), client(1), b"noise noise noise"), Fate::Ignored);
    head.kind = MessageType::Request;
    head.extensions.forwarded = Some(Forwarded { client: client(1), hop: 1 });
    assert_eq!(hand_in(&mut gateway, at(0), client(1), &packet(&head)), Fate::Ignored);
    let counters = gateway.gateway_counters();
    assert_eq!(
        [
            counters.wrong_policy,
            counters.unusable_source,
            counters.unexpected_kind,
            counters.feedback_stranger,
            counters.rejected[ParseError::BadMagic(0).index()],
            counters.cannot_forward,
        ],
        [1; 6]
    );
}

#[test]
fn nodes_come_and_go() {
    let mut gateway = gateway();
    gateway.set_nodes(&[OTHER_NODE, STRANGER], [OTHER_NODE, STRANGER]);
    assert_eq!(one(&mut gateway, at(0), 1, 1), Fate::Passed);
    hand_in(&mut gateway, at(0), NODE, &write_feedback(&feedback(1, 1)));
    assert_eq!(gateway.in_flight(), 1);
    hand_in(&mut gateway, at(0), STRANGER, &write_feedback(&feedback(1, 1)));
    assert_eq!(gateway.in_flight(), 0);
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// A client sends a request, for the first time or again: client, seq, packets, with a session or without.
    Request {
        client: u8,
        seq: u8,
        long: bool,
        plain: bool,
    },
    /// A node answers one of the last requests that passed.
    Answer {
        which: usize,
        node: usize,
    },
    /// Some FEEDBACK that was sent some time comes, from its node or from somebody else.
    Deliver {
        which: usize,
        stranger: bool,
    },
    /// Somebody invents FEEDBACK.
    Invent {
        client: u8,
        rid: u16,
        from: usize,
    },
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3u8, 0..30u8, prop::bool::weighted(0.2), prop::bool::weighted(0.3))
            .prop_map(|(client, seq, long, plain)| Step::Request { client, seq, long, plain }),
        4 => (any::<usize>(), 0..2usize).prop_map(|(which, node)| Step::Answer { which, node }),
        4 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(which, stranger)| Step::Deliver { which, stranger }),
        1 => (0..3u8, 0..30u16, 0..3usize).prop_map(|(client, rid, from)| Step::Invent { client, rid, from }),
        1 => (0..80u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever FEEDBACK is lost, repeated, late or invented: never are more admitted than the limit, what was admitted
    /// passes again, a message passes whole or not at all, and in the end every credit is back.
    #[test]
    fn credits_neither_leak_nor_multiply(steps in prop::collection::vec(any_step(), 0..300)) {
        let mut gateway = gateway();
        let mut outboxes = [Outbox::new(1), Outbox::new(2)];
        let nodes = [NODE, OTHER_NODE];
        let mut sent: Vec<(usize, Bytes)> = Vec::new();
        let mut passed: Vec<RpcId> = Vec::new();
        // RPC ids that may hold a credit, and those of whom a real or invented FEEDBACK has come from a node.
        let mut out: BTreeMap<RpcId, Instant> = BTreeMap::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Request { client: number, seq, long, plain } => {
                    let rid = u16::from(seq);
                    let session = if plain { None } else { session(100 + u64::from(number), seq.into()) };
                    let packets = request(rid, session, if long { 2000 } else { 5 });
                    let fates: BTreeSet<bool> = packets
                        .iter()
                        .map(|packet| hand_in(&mut gateway, now, client(number), packet) == Fate::Passed)
                        .collect();
                    prop_assert_eq!(fates.len(), 1, "all or nothing");
                    if fates.contains(&true) {
                        let rpc = RpcId { client: client(number), rid };
                        passed.push(rpc);
                        out.entry(rpc).or_insert(now);
                    }
                }
                Step::Answer { which, node } if !passed.is_empty() => {
                    let rpc = passed[passed.len() - 1 - which % passed.len().min(5)];
                    outboxes[node].answered(Feedback { rid: rpc.rid, client: rpc.client });
                    outboxes[node].flush(&mut |packet| sent.push((node, packet)));
                }
                Step::Deliver { which, stranger } if !sent.is_empty() => {
                    let (node, packet) = sent[which % sent.len()].clone();
                    let before = gateway.in_flight();
                    hand_in(&mut gateway, now, if stranger { STRANGER } else { nodes[node] }, &packet);
                    prop_assert!(!stranger || gateway.in_flight() == before);
                }
                Step::Invent { client: number, rid, from } => {
                    let from = [NODE, STRANGER, client(number)][from];
                    let before = gateway.in_flight();
                    hand_in(&mut gateway, now, from, &write_feedback(&feedback(number, rid)));
                    prop_assert!(gateway.in_flight() + usize::from(from == NODE) >= before);
                }
                Step::Answer { .. } | Step::Deliver { .. } => {}
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    gateway.handle_timeout(now);
                }
            }
            prop_assert!(gateway.in_flight() <= LIMIT);
            prop_assert!(gateway.in_flight() <= out.len());
            let credits = gateway.credits();
            prop_assert_eq!(credits.charged, credits.returned + credits.expired + gateway.in_flight() as u64);
        }
        gateway.handle_timeout(now + DEADLINE);
        prop_assert_eq!(gateway.in_flight(), 0);
        gateway.handle_timeout(now + REMEMBER);
        prop_assert!(matches!(gateway.poll_output(now), Output::Timeout(Instant::FAR_FUTURE)), "nothing is left behind");
    }

    #[test]
    fn any_bytes_are_safe(packets in prop::collection::vec((0..4usize, prop::collection::vec(any::<u8>(), 0..60)), 0..50)) {
        let mut gateway = gateway();
        for (from, mut bytes) in packets {
            if let Some(first) = bytes.first_mut() {
                *first = 0xcc;
            }
            gateway.handle_packet(at(0), [NODE, OTHER_NODE, STRANGER, client(1)][from], &bytes);
            while let Output::Send { .. } = gateway.poll_output(at(0)) {}
        }
        prop_assert!(gateway.in_flight() <= LIMIT);
    }
}
