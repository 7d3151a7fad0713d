//! Nodes that come and go while operations are in flight.

use super::*;

const NEW: [SocketAddrV4; 3] = [
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 4), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 5), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 6), 9000),
];

fn set_nodes(world: &mut World, nodes: &[SocketAddrV4]) {
    world.client.set_nodes(world.now, nodes);
    world.drain();
}

#[test]
fn what_is_in_flight_is_sent_again_at_once_under_the_same_names() {
    let mut world = World::open(config());
    world.submit("a");
    world.submit("b");
    let before = world.sent();
    set_nodes(&mut world, &NEW);
    let again = world.sent();
    let names = |sent: &[Sent]| sent.iter().map(|sent| (sent.head.rid, sent.session())).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&before), "the oldest first");
    assert!(again.iter().all(|sent| sent.target == Target::Group));
    for sent in &again {
        world.answer(sent, NEW[1], b"");
    }
    assert!(world.done().iter().all(|done| done.attempts == 2 && done.from == Some(NEW[1])));
    let counters = world.client.counters();
    assert_eq!((counters.nodes_changed, counters.redirected, counters.retransmissions), (1, 2, 2));
    assert_eq!(counters.timeouts, 0, "that nodes have gone is no sign of loss");
}

#[test]
fn an_answer_to_the_copy_sent_before_counts() {
    let mut world = World::open(config());
    world.submit("a");
    let before = world.only_sent();
    set_nodes(&mut world, &NEW);
    world.sent();
    world.client_has_answer(&before, b"A");
}

#[test]
fn the_same_nodes_change_nothing() {
    let mut world = World::open(config());
    world.submit("a");
    world.sent();
    set_nodes(&mut world, &NODES);
    assert_eq!(world.sent().len(), 0);
    assert_eq!(world.client.counters().nodes_changed, 0);
}

#[test]
fn single_nodes_are_those_of_now() {
    let mut world = World::open(config());
    world.submit("a");
    set_nodes(&mut world, &NEW);
    world.sent();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        world.fire("retransmit request");
        nodes.extend(world.targets().into_iter().filter(|target| *target != Target::Group));
    }
    nodes.sort_by_key(|target| format!("{target:?}"));
    assert_eq!(nodes, NEW.map(Target::Address));
}

#[test]
fn a_sticky_node_that_is_gone_is_left() {
    let sticky = ClientConfig { fan_out: Route::Sticky, ..config() };
    let mut world = World::open(sticky);
    world.submit("a");
    assert_eq!(world.targets(), [Target::Address(NODES[0])]);
    set_nodes(&mut world, &[NODES[0], NODES[1], NEW[0]]);
    assert_eq!(world.targets(), [Target::Address(NODES[0])], "it is still there");
    set_nodes(&mut world, &[NODES[1], NEW[0], NEW[1]]);
    assert_eq!(world.targets(), [Target::Group]);
    world.submit("b");
    let sent = world.only_sent();
    assert_eq!(sent.target, Target::Group, "until another answers");
    world.answer(&sent, NEW[0], b"");
    world.submit("c");
    assert_eq!(world.targets(), [Target::Address(NEW[0])]);
}

#[test]
fn a_request_for_a_session_is_sent_again_and_what_is_held_stays_held() {
    let mut world = World::new(config());
    world.submit("a");
    let before = world.only_sent();
    set_nodes(&mut world, &NEW);
    let again = world.only_sent();
    assert_eq!((again.head.rid, again.session()), (before.head.rid, before.session()));
    world.answer_with(&again, NEW[0], open_reply(&again, SESSION), b"");
    assert_eq!(world.only_sent().session(), session(SESSION, 1, 1));
}

#[test]
fn who_was_refused_keeps_its_own_time() {
    let mut world = World::open(config());
    world.submit("a");
    let sent = world.only_sent();
    world.drop_packet(&sent);
    let timeout = world.timeout();
    set_nodes(&mut world, &NEW);
    assert_eq!(world.sent().len(), 0);
    assert_eq!(world.timeout(), timeout);
}

#[test]
fn a_plain_request_is_not_repeated() {
    let mut world = World::new(ClientConfig { sessions: false, ..config() });
    world.submit("a");
    world.sent();
    set_nodes(&mut world, &NEW);
    assert_eq!(world.sent().len(), 0);
}

#[test]
fn a_shell_that_cannot_keep_up_gets_no_more_than_its_limit() {
    let mut world = World::open(ClientConfig { transmits_max: 4, ..config() });
    for _ in 0..4 {
        world.submit("a");
    }
    world.submit("b");
    world.sent();
    world.client.set_nodes(world.now, &NEW);
    assert_eq!(world.sent().len(), 4);
    assert_eq!(world.client.counters().retransmissions_skipped, 1);
    world.fire("retransmit request");
    assert!(!world.sent().is_empty(), "the one skipped has its turn");
}

#[test]
fn the_newest_epoch_in_any_answer_is_known() {
    let mut world = World::open(config());
    assert_eq!(world.client.newest_epoch(), None);
    let mut answer = |epoch, from| {
        world.submit("a");
        let sent = world.only_sent();
        let mut head = reply(&sent);
        head.extensions.epoch = epoch;
        world.answer_with(&sent, from, head, b"");
        world.client.newest_epoch()
    };
    assert_eq!(answer(Some(3), NODES[1]), Some((3, NODES[1])));
    assert_eq!(answer(Some(2), NODES[2]), Some((3, NODES[1])), "who lags behind says nothing new");
    assert_eq!(answer(None, NODES[2]), Some((3, NODES[1])));
    assert_eq!(answer(Some(4), NODES[2]), Some((4, NODES[2])));
}

#[test]
fn an_epoch_in_what_answers_nothing_is_ignored() {
    let mut world = World::open(config());
    world.submit("a");
    let sent = world.only_sent();
    let mut head = reply(&sent);
    head.extensions.epoch = Some(9);
    head.extensions.session = Some(session(SESSION, 77, 1));
    world.receive_message(NODES[0], &head, b"");
    assert_eq!(world.client.newest_epoch(), None);
}

#[test]
fn silence_begins_with_the_first_operation_and_ends_with_any_answer() {
    let mut world = World::new(config());
    world.pass(ms(5));
    assert_eq!(world.client.silent_since(), None, "nobody was asked");
    world.client.submit_admin(world.now, NODES[0], "status".into()).unwrap();
    assert_eq!(world.client.silent_since(), None, "one node's silence is its own");
    world.sent();
    let start = world.now;
    world.submit("a");
    let open = world.only_sent();
    world.pass(ms(1));
    assert_eq!(world.client.silent_since(), Some(start));
    world.answer_with(&open, NODES[0], open_reply(&open, SESSION), b"");
    let answered = world.now;
    assert_eq!(world.client.silent_since(), Some(answered), "the operation itself is in flight now");
    let sent = world.only_sent();
    world.pass(ms(1));
    world.submit("b");
    assert_eq!(world.client.silent_since(), Some(answered));
    world.drop_packet(&sent);
    assert_eq!(world.client.silent_since(), Some(world.now), "who refuses is there");
    world.answer(&sent, NODES[0], b"");
    let other = world.only_sent();
    world.answer(&other, NODES[0], b"");
    assert_eq!(world.client.silent_since(), None);
}
