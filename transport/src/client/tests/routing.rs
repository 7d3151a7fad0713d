//! Sticky routes and admin requests.

use super::*;

fn sticky() -> ClientConfig {
    ClientConfig { fan_out: Route::Sticky, ..config() }
}

#[test]
fn sticky_follows_whoever_answered_last() {
    let mut world = World::open(sticky());
    for node in [NODES[2], NODES[1]] {
        world.submit("a");
        let sent = world.only_sent();
        world.answer(&sent, node, b"");
        world.submit("b");
        let sent = world.only_sent();
        assert_eq!(sent.target, Target::Address(node));
        world.answer(&sent, node, b"");
    }
}

#[test]
fn sticky_returns_to_the_group_after_a_timeout() {
    let mut world = World::open(sticky());
    world.submit("a");
    assert_eq!(world.targets(), [Target::Address(NODES[0])]);
    world.fire("retransmit request");
    assert_eq!(world.targets(), [Target::Group]);
    world.submit("b");
    assert_eq!(world.targets(), [Target::Group], "nobody is trusted until somebody answers");
}

#[test]
fn not_leader_returns_to_the_group_soon_under_the_same_seq() {
    let mut world = World::open(sticky());
    world.submit("a");
    let first = world.only_sent();
    world.answer_status(&first, NODES[0], ReplyStatus::NotLeader, b"n2");
    assert_eq!(world.done().len(), 0);
    let (at, _) = world.timeout();
    assert!(at.since(world.now) <= config().retransmit_min * 5 / 4);
    world.fire("retry after refusal");
    let second = world.only_sent();
    assert_eq!(second.target, Target::Group);
    assert_eq!((second.head.rid, second.session()), (first.head.rid, first.session()));

    // Now a follower's NOT LEADER says nothing: the leader has the request too.
    let timeout = world.timeout();
    world.answer_status(&second, NODES[1], ReplyStatus::NotLeader, b"");
    assert_eq!(world.timeout(), timeout);
    world.answer(&second, NODES[2], b"A");
    assert_eq!(world.only_done().outcome, Outcome::Ok("A".into()));
    let counters = world.client.counters();
    assert_eq!((counters.not_leader, counters.not_leader_ignored), (1, 1));
    world.submit("b");
    assert_eq!(world.targets(), [Target::Address(NODES[2])]);
}

#[test]
fn admin_requests_go_to_their_node_only() {
    let mut world = World::new(sticky());
    let ticket = world.client.submit_admin(world.now, NODES[2], "status".into()).unwrap();
    for _ in 0..4 {
        let sent = world.only_sent();
        assert_eq!(sent.target, Target::Address(NODES[2]));
        assert_eq!(sent.head.policy, Policy::Fixed);
        assert_eq!(sent.head.extensions, Extensions { admin: true, ..Extensions::default() });
        world.fire("retransmit request");
    }
    let sent = world.only_sent();
    world.answer(&sent, NODES[2], b"fine");
    let done = world.only_done();
    assert_eq!((done.ticket, done.outcome), (ticket, Outcome::Ok("fine".into())));
    assert_eq!(world.client.sticky, None);
    let settled = world.client.retransmit_timeout();
    assert_eq!(settled, config().retransmit_initial, "one node's timeouts say nothing about the group");
}

#[test]
fn admin_requests_are_bounded() {
    let mut world = World::new(ClientConfig { admin_max: 2, request_max: 10, ..config() });
    let now = world.now;
    let long = world.client.submit_admin(now, NODES[0], vec![0; 11].into());
    assert_eq!(long, Err(SubmitError::TooLarge { len: 11, limit: 10 }));
    let ticket = world.client.submit_admin(now, NODES[0], Bytes::new()).unwrap();
    world.client.submit_admin(now, NODES[0], Bytes::new()).unwrap();
    assert_eq!(world.client.submit_admin(now, NODES[0], Bytes::new()), Err(SubmitError::Full { limit: 2 }));
    world.client.cancel(now, ticket);
    assert!(world.client.submit_admin(now, NODES[0], Bytes::new()).is_ok());
}
