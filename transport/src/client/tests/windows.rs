//! Limits: what is held, refused, given up.

use super::*;

#[test]
fn operations_in_flight_are_bounded() {
    let mut world = World::open(ClientConfig { outstanding_max: 2, held_max: 1, ..config() });
    for _ in 0..3 {
        world.submit("x");
    }
    assert!(world.client.submit(world.now, Kind::Write, "x".into()).is_err());
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(world.client.held(), 1);
    world.answer(&sent[1], NODES[0], b"");
    assert_eq!(world.only_sent().session(), session(SESSION, 3, 1));
}

#[test]
fn the_sequence_window_counts_from_the_lowest_seq_not_ended() {
    let mut world = World::open(ClientConfig { seq_window: 2, ..config() });
    let first = world.submit("x");
    world.submit("x");
    world.submit("x");
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    world.answer(&sent[1], NODES[0], b"");
    assert_eq!(world.sent().len(), 0, "seq 1 still holds the window");
    world.client.cancel(world.now, first);
    assert_eq!(world.only_sent().session(), session(SESSION, 3, 3));
}

#[test]
fn giving_up_ends_in_unknown_and_fences() {
    let mut world = World::open(config());
    let ticket = world.submit("a");
    let opened = world.now;
    world.run_to(opened + config().give_up);
    let done = world.only_done();
    assert_eq!((done.ticket, done.outcome, done.from), (ticket, Outcome::Unknown, None));
    assert!(done.attempts > 3, "{}", done.attempts);
    world.submit("b");
    assert_eq!(world.sent().last().unwrap().session(), session(SESSION, 2, 2));
}

#[test]
fn cancelling_gives_up_once() {
    let mut world = World::open(config());
    let ticket = world.submit("a");
    let sent = world.only_sent();
    assert!(world.client.cancel(world.now, ticket));
    assert!(!world.client.cancel(world.now, ticket));
    assert_eq!(world.only_done().outcome, Outcome::Unknown);
    world.answer(&sent, NODES[0], b"late");
    assert_eq!(world.done().len(), 0);
    assert_eq!(world.client.counters().responses_late, 1);
}

#[test]
fn the_request_for_a_session_cannot_be_cancelled() {
    let mut world = World::new(config());
    world.submit("a");
    let Current::Opening(opening) = world.client.current else { panic!() };
    assert!(!world.client.cancel(world.now, opening));
}

#[test]
fn a_request_may_be_as_long_as_the_limit_and_no_longer() {
    let mut world = World::open(ClientConfig { request_max: 5000, ..config() });
    let refused = world.client.submit(world.now, Kind::Write, vec![0; 5001].into());
    assert_eq!(refused, Err(SubmitError::TooLarge { len: 5001, limit: 5000 }));
    assert_eq!(world.client.outstanding(), 0);
    assert!(world.client.submit(world.now, Kind::Write, vec![0; 5000].into()).is_ok());
    assert_eq!(world.sent().len(), 4);
}

#[test]
fn packets_waiting_for_the_shell_hold_operations_and_skip_retransmissions() {
    let mut world = World::open(ClientConfig { transmits_max: 2, ..config() });
    for _ in 0..4 {
        world.client.submit(world.now, Kind::Write, "x".into()).unwrap();
    }
    assert_eq!((world.client.held(), world.client.transmits.len()), (2, 2));
    assert_eq!(world.sent().len(), 4, "held only until the shell has taken some");

    world.now += ms(100);
    world.client.handle_timeout(world.now);
    assert_eq!(world.client.transmits.len(), 2);
    assert_eq!(world.client.counters().retransmissions_skipped, 2);
    assert!(world.client.timers.first().unwrap().0 > world.now);
}

#[test]
fn completions_nobody_takes_stop_submission() {
    let mut world = World::new(ClientConfig { sessions: false, outstanding_max: 2, held_max: 2, ..config() });
    let now = world.now;
    for _ in 0..4 {
        let ticket = world.client.submit(now, Kind::Write, "x".into()).unwrap();
        world.client.cancel(now, ticket);
    }
    assert_eq!(world.client.submit(now, Kind::Write, "x".into()), Err(SubmitError::Full { limit: 2 }));
    assert_eq!(world.done().len(), 4);
    assert!(world.client.submit(now, Kind::Write, "x".into()).is_ok());
}
