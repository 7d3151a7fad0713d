//! Sessions: asked for, replaced, expired.

use super::*;

#[test]
fn the_first_submission_asks_for_a_session_and_the_held_operations_follow() {
    let mut world = World::new(config());
    let first = world.submit("a");
    let second = world.submit("b");
    assert_eq!(world.client.held(), 2);
    assert_eq!(world.client.outstanding(), 2);

    let request = world.only_sent();
    let asked = request.head.extensions.session.unwrap();
    assert_eq!((request.target, asked.client, asked.first_unacked), (Target::Group, 0, 0));
    assert_eq!(request.head.kind, MessageType::Request);

    world.pass(ms(1));
    world.answer_with(&request, NODES[1], open_reply(&request, 77), b"");
    assert_eq!(world.client.session(), Some(77));
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].session(), session(77, 1, 1));
    assert_eq!(sent[1].session(), session(77, 2, 1));
    assert_eq!((&sent[0].payload[..], &sent[1].payload[..]), (&b"a"[..], &b"b"[..]));
    assert_eq!(sent[0].head.policy, Policy::Replicated);

    world.answer(&sent[1], NODES[2], b"B");
    world.answer(&sent[0], NODES[0], b"A");
    let done = world.done();
    assert_eq!(done[0].ticket, second);
    assert_eq!(done[0].outcome, Outcome::Ok("B".into()));
    assert_eq!((done[0].from, done[0].attempts, done[0].submitted), (Some(NODES[2]), 1, Instant::ZERO));
    assert_eq!(done[1].ticket, first);
    assert_eq!(world.client.outstanding(), 0);
}

#[test]
fn the_session_request_is_retransmitted_under_its_nonce() {
    let mut world = World::new(config());
    world.submit("a");
    let first = world.only_sent();
    world.fire("retransmit session request");
    let second = world.only_sent();
    assert_eq!(first.session(), second.session());
    assert_eq!(first.head.rid, second.head.rid);
    world.answer_with(&second, NODES[0], open_reply(&second, 5), b"");
    // The other copy opened a session too; it is nobody's.
    let operation = world.only_sent();
    world.answer_with(&first, NODES[0], open_reply(&first, 6), b"");
    assert_eq!(operation.session(), session(5, 1, 1));
    assert_eq!(world.client.session(), Some(5));
    assert_eq!(world.client.counters().responses_late, 1);
}

#[test]
fn a_session_nobody_waits_for_is_no_longer_asked_for() {
    let mut world = World::new(config());
    let ticket = world.submit("a");
    let first = world.only_sent();
    assert!(world.client.cancel(world.now, ticket));
    assert_eq!(world.only_done().outcome, Outcome::NotExecuted(NotExecuted::NeverSent));
    assert_eq!(world.timeout(), (Instant::FAR_FUTURE, "nothing outstanding"));
    world.answer_with(&first, NODES[0], open_reply(&first, 5), b"");
    assert_eq!(world.client.session(), None);

    world.submit("b");
    assert_ne!(world.only_sent().session(), first.session());
}

#[test]
fn held_operations_are_given_up_as_never_sent() {
    let mut world = World::new(config());
    let ticket = world.submit("a");
    world.run_to(Instant::ZERO + config().give_up);
    let done = world.only_done();
    assert_eq!((done.ticket, done.attempts), (ticket, 0));
    assert_eq!(done.outcome, Outcome::NotExecuted(NotExecuted::NeverSent));
    assert_eq!(world.timeout().0, Instant::FAR_FUTURE);
}

#[test]
fn held_operations_are_bounded() {
    let mut world = World::new(ClientConfig { held_max: 3, ..config() });
    for _ in 0..3 {
        world.submit("x");
    }
    let refused = world.client.submit(world.now, Kind::Write, "x".into());
    assert_eq!(refused, Err(SubmitError::Full { limit: 3 }));
    assert_eq!(world.client.counters().refused_full, 1);
    assert_eq!(world.client.outstanding(), 3);
}

#[test]
fn an_unused_session_is_replaced_before_the_next_operation() {
    let mut world = World::open(config());
    let idle = config().session_idle;
    world.pass(idle);
    world.submit("in time");
    let sent = world.only_sent();
    assert_eq!(sent.session().client, SESSION);
    world.pass(idle / 2);
    world.client_has_answer(&sent, b"ok");

    // The server last ordered something of it when that operation was sent.
    world.pass(idle / 2 + ms(1));
    world.submit("late");
    let request = world.only_sent();
    assert_eq!(request.session().client, 0);
    world.answer_with(&request, NODES[0], open_reply(&request, 200), b"");
    assert_eq!(world.only_sent().session(), session(200, 1, 1));
    assert_eq!(world.client.counters().sessions_idle, 1);
}

#[test]
fn a_session_with_something_outstanding_is_not_idle() {
    let mut world = World::open(ClientConfig { give_up: ms(600_000), ..config() });
    world.submit("slow");
    world.sent();
    world.pass(config().session_idle * 2);
    world.submit("next");
    assert_eq!(world.sent().last().unwrap().session(), session(SESSION, 2, 1));
}

#[test]
fn expired_ends_the_operation_and_the_session_but_moves_nothing() {
    let mut world = World::open(config());
    world.submit("a");
    world.submit("b");
    let sent = world.sent();
    world.answer_status(&sent[0], NODES[0], ReplyStatus::Expired, b"");
    assert_eq!(world.only_done().outcome, Outcome::Expired);
    assert_eq!(world.client.session(), None);

    world.submit("c");
    let request = world.only_sent();
    assert_eq!(request.session().client, 0);
    world.answer_with(&request, NODES[0], open_reply(&request, 200), b"");
    assert_eq!(world.only_sent().session(), session(200, 1, 1));

    // "b" stays where it was, over its retransmissions and to its end.
    world.fire("retransmit request");
    let again = world.only_sent();
    assert_eq!(again.session(), session(SESSION, 2, 2));
    world.answer(&again, NODES[0], b"B");
    assert_eq!(world.only_done().outcome, Outcome::Ok("B".into()));
    assert_eq!(world.client.session(), Some(200));
    assert_eq!(world.client.sessions.len(), 1);
    assert_eq!(world.client.counters().sessions_expired, 1);
}

#[test]
fn a_second_expired_does_not_replace_the_new_session() {
    let mut world = World::open(config());
    world.submit("a");
    world.submit("b");
    let sent = world.sent();
    world.answer_status(&sent[0], NODES[0], ReplyStatus::Expired, b"");
    world.submit("c");
    let request = world.only_sent();
    world.answer_with(&request, NODES[0], open_reply(&request, 200), b"");
    world.answer_status(&sent[1], NODES[0], ReplyStatus::Expired, b"");
    assert_eq!(world.client.session(), Some(200));
    assert_eq!(world.done().len(), 2);
}
