//! Plain mode.

use super::*;

fn plain() -> ClientConfig {
    ClientConfig { sessions: false, nodes: Vec::new(), ..ClientConfig::default() }
}

#[test]
fn a_plain_request_has_no_extensions_and_is_sent_once() {
    let mut world = World::new(ClientConfig { policy: Some(Policy::LoadBalanced), ..plain() });
    world.submit("hello");
    let sent = world.only_sent();
    assert_eq!(sent.bytes.len(), wire::HEADER_LEN + 5);
    assert_eq!(sent.bytes[..4], [0xCC, 8, 0x00, 0xC0]);
    assert_eq!(world.timeout(), (world.now + plain().give_up, "give up operation"));
    world.fire("give up operation");
    let done = world.only_done();
    assert_eq!((done.outcome, done.attempts), (Outcome::Unknown, 1));
}

#[test]
fn a_plain_answer_completes() {
    let mut world = World::new(plain());
    world.submit("hello");
    let sent = world.only_sent();
    world.answer(&sent, NODES[0], b"world");
    assert_eq!(world.only_done().outcome, Outcome::Ok("world".into()));
}

#[test]
fn retransmission_is_for_those_who_ask() {
    let mut world = World::new(ClientConfig { plain_retransmit: true, ..plain() });
    world.submit("hello");
    let first = world.only_sent();
    world.fire("retransmit request");
    let second = world.only_sent();
    assert_eq!(first.bytes, second.bytes);
    // Two copies are out: a DROP of one says nothing of the other.
    world.drop_packet(&second);
    assert_eq!(world.done().len(), 0);
    world.fire("retry after refusal");
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn a_drop_of_the_only_copy_means_not_executed() {
    let mut world = World::new(plain());
    world.submit("hello");
    let sent = world.only_sent();
    world.drop_packet(&sent);
    assert_eq!(world.only_done().outcome, Outcome::NotExecuted(NotExecuted::Dropped));
    world.drop_packet(&sent);
    assert_eq!(world.client.counters().drops_ignored, 1);
}

#[test]
fn the_rest_of_a_long_request_goes_to_whoever_acknowledges() {
    let mut world = World::new(plain());
    let body: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    world.client.submit(world.now, Kind::Write, body.clone().into()).unwrap();
    let first = world.only_sent();
    assert_eq!((first.target, first.payload.len()), (Target::Group, wire::FIRST_BODY_LEN));
    assert_eq!(first.bytes.len(), wire::HEADER_LEN + wire::FIRST_BODY_LEN);

    world.receive(NODES[1], &ack_of(&first));
    let rest = world.sent();
    assert!(rest.iter().all(|packet| packet.target == Target::Address(NODES[1])));
    let mut joined = first.payload.to_vec();
    rest.iter().for_each(|packet| joined.extend_from_slice(&packet.payload));
    assert_eq!(joined, body);

    world.receive(NODES[2], &ack_of(&first));
    assert_eq!(world.sent().len(), 0, "a second ACK is ignored");
    let counters = world.client.counters();
    assert_eq!((counters.acks, counters.acks_ignored), (1, 1));
    world.answer(&first, NODES[1], b"done");
    assert_eq!(world.only_done().outcome, Outcome::Ok("done".into()));
}
