//! Copies: when, where to, and what they carry.

use super::*;

#[test]
fn a_copy_keeps_rid_and_seq_and_carries_the_newest_first_unacked() {
    let mut world = World::open(config());
    world.submit("a");
    world.submit("b");
    let sent = world.sent();
    world.answer(&sent[0], NODES[0], b"");
    world.fire("retransmit request");
    let again = world.only_sent();
    assert_eq!(again.head.rid, sent[1].head.rid);
    assert_eq!(sent[1].session(), session(SESSION, 2, 1));
    assert_eq!(again.session(), session(SESSION, 2, 2));
    world.answer(&again, NODES[0], b"");
    assert_eq!(world.done().last().unwrap().attempts, 2);
}

#[test]
fn the_wait_doubles_up_to_its_maximum_with_at_most_a_quarter_of_jitter() {
    let mut world = World::open(config());
    world.submit("a");
    world.sent();
    let mut expected = world.client.retransmit_timeout();
    for _ in 0..10 {
        let (at, why) = world.timeout();
        assert_eq!(why, "retransmit request");
        let waited = at.since(world.now);
        assert!(waited >= expected && waited <= expected * 5 / 4, "{waited:?}, expected {expected:?}");
        world.fire("retransmit request");
        world.sent();
        expected = (expected * 2).min(config().retransmit_max);
    }
}

#[test]
fn only_exchanges_of_one_copy_are_measured() {
    let mut world = World::open(config());
    world.submit("a");
    let first = world.only_sent();
    world.fire("retransmit request");
    world.sent();
    let backed_off = world.client.retransmit_timeout();
    world.pass(ms(1));
    world.answer(&first, NODES[0], b"");
    assert_eq!(world.client.retransmit_timeout(), backed_off);

    for _ in 0..50 {
        world.submit("b");
        let sent = world.only_sent();
        world.pass(ms(8));
        world.answer(&sent, NODES[0], b"");
    }
    let settled = world.client.retransmit_timeout();
    assert!(settled >= ms(8) && settled < ms(10), "{settled:?}");
}

#[test]
fn after_two_timeouts_copies_also_go_to_the_nodes_in_turn() {
    let mut world = World::open(config());
    world.submit("a");
    assert_eq!(world.targets(), [Target::Group]);
    world.fire("retransmit request");
    assert_eq!(world.targets(), [Target::Group]);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        world.fire("retransmit request");
        let targets = world.targets();
        assert_eq!(targets.len(), 2);
        assert_eq!(targets[0], Target::Group);
        let Target::Address(node) = targets[1] else { panic!("{targets:?}") };
        nodes.push(node);
    }
    nodes.sort_unstable();
    assert_eq!(nodes, NODES);
}

#[test]
fn without_known_nodes_copies_go_to_the_group_only() {
    let mut world = World::open(ClientConfig { nodes: Vec::new(), ..config() });
    world.submit("a");
    for _ in 0..5 {
        assert_eq!(world.targets(), [Target::Group]);
        world.fire("retransmit request");
    }
}

#[test]
fn a_drop_backs_off_and_retries_under_the_same_seq() {
    let mut world = World::open(config());
    world.submit("a");
    let first = world.only_sent();
    let before = world.client.retransmit_timeout();
    world.drop_packet(&first);
    world.drop_packet(&first);
    assert_eq!((world.client.counters().drops, world.client.counters().drops_ignored), (1, 1));
    let (at, why) = world.timeout();
    assert_eq!(why, "retry after refusal");
    assert!(at >= world.now + before * 2, "it backs off, it does not hurry");
    world.fire("retry after refusal");
    let second = world.only_sent();
    assert_eq!((second.head.rid, second.session()), (first.head.rid, first.session()));
    assert_eq!(world.client.counters().timeouts, 0, "a DROP is no sign of loss");
    world.answer(&second, NODES[0], b"A");
    assert_eq!(world.only_done().outcome, Outcome::Ok("A".into()));
}

#[test]
fn only_drops_until_the_end_is_unknown() {
    let mut world = World::open(config());
    world.submit("a");
    let end = world.now + config().give_up;
    loop {
        for sent in world.sent() {
            world.drop_packet(&sent);
        }
        let (at, _) = world.timeout();
        world.now = at;
        world.client.handle_timeout(at);
        if at == end {
            break;
        }
    }
    assert_eq!(world.only_done().outcome, Outcome::Unknown);
}

#[test]
fn a_request_of_several_packets_to_the_group_goes_out_at_once() {
    let mut world = World::open(config());
    let body: Vec<u8> = (0..4000u32).map(|i| i as u8).collect();
    world.client.submit(world.now, Kind::Read, body.clone().into()).unwrap();
    let sent = world.sent();
    assert_eq!(sent.len(), 3);
    let expected = digest(&config().digest_key, Some((SESSION, 1)), &body);
    assert!(sent[0].head.extensions.no_handshake);
    assert_eq!(sent[0].head.extensions.digest, Some(expected));
    assert_eq!(sent[1].head.extensions.digest, None::<Digest>);
    assert!(sent.iter().all(|packet| packet.session() == session(SESSION, 1, 1)));
    assert!(sent.iter().all(|packet| packet.head.policy == Policy::ReplicatedNoSideEffects));
    assert!(sent.iter().all(|packet| packet.bytes.len() <= config().packet_max));
    let joined: Vec<u8> = sent.iter().flat_map(|packet| packet.payload.to_vec()).collect();
    assert_eq!(joined, body);

    // An ACK has nothing to say here.
    world.receive(NODES[0], &ack_of(&sent[0]));
    assert_eq!(world.sent().len(), 0);
    world.fire("retransmit request");
    assert_eq!(world.sent().len(), 3);
}
