//! Which answer belongs to which operation, and what it says.

use super::*;

#[test]
fn the_first_complete_answer_wins() {
    let mut world = World::open(config());
    world.submit("a");
    let sent = world.only_sent();
    world.answer(&sent, NODES[1], b"first");
    world.answer(&sent, NODES[2], b"second");
    assert_eq!(world.only_done().outcome, Outcome::Ok("first".into()));
    assert_eq!(world.client.counters().responses_late, 1);
}

#[test]
fn answers_to_anything_else_are_counted_and_ignored() {
    let mut world = World::open(config());
    world.submit("a");
    world.submit("b");
    let sent = world.sent();
    let right = sent[0].session();
    for (wrong, rid) in [
        (wire::Session { client: SESSION + 1, ..right }, sent[0].head.rid),
        (wire::Session { seq: 9, ..right }, sent[0].head.rid),
        (right, sent[1].head.rid),
        (right, sent[0].head.rid.wrapping_sub(1000)),
    ] {
        let mut head = reply(&sent[0]);
        head.rid = rid;
        head.extensions.session = Some(wrong);
        world.receive_message(NODES[0], &head, b"wrong");
    }
    let mut bare = reply(&sent[0]);
    bare.extensions.session = None;
    world.receive_message(NODES[0], &bare, b"wrong");
    let counters = world.client.counters().clone();
    assert_eq!(
        (counters.responses_mismatched, counters.responses_late, counters.responses_unknown),
        (3, 1, 1),
        "{counters:?}"
    );
    let request = sent[0].bytes.clone();
    world.receive(NODES[0], &request);
    assert_eq!(world.client.counters().unexpected_kind, 1);
    world.receive(NODES[0], b"nonsense");
    assert_eq!(world.client.counters().rejected.iter().sum::<u64>(), 1);
    assert_eq!(world.done().len(), 0);
    assert_eq!(world.client.outstanding(), 2);
}

#[test]
fn fragments_of_different_answers_never_mix() {
    let mut world = World::open(config());
    world.submit("read");
    let sent = world.only_sent();
    let answer = |index: u64, byte: u8| {
        let mut head = reply(&sent);
        head.extensions.entry_index = Some(index);
        packets_of(&head, &[byte; 2000])
    };
    let (old, new) = (answer(10, b'o'), answer(11, b'n'));
    assert_eq!(old.len(), 2);
    world.receive(NODES[1], &old[0]);
    world.receive(NODES[1], &new[1]);
    world.receive(NODES[2], &old[1]);
    assert_eq!(world.done().len(), 0);
    assert_eq!(world.client.outstanding(), 1);
    world.receive(NODES[1], &new[0]);
    let done = world.only_done();
    assert_eq!(done.outcome, Outcome::Ok(vec![b'n'; 2000].into()));
    assert_eq!(done.entry_index, Some(11));
    assert_eq!(world.timeout().1, "forget partial reply");
    world.fire("forget partial reply");
    world.run_to(world.now + ms(60_000));
    assert_eq!(world.client.reassembly_counters().expired, 2);
    assert_eq!(world.timeout().0, Instant::FAR_FUTURE);
}

#[test]
fn every_status_has_its_outcome() {
    for (status, body, outcome) in [
        (ReplyStatus::ReplyGone, &b""[..], Outcome::ReplyGone),
        (ReplyStatus::ServiceError, b"panicked", Outcome::ServiceError("panicked".into())),
        (ReplyStatus::TooLarge, &4096u64.to_be_bytes(), Outcome::TooLarge { limit: 4096 }),
        (ReplyStatus::TooLarge, b"", Outcome::TooLarge { limit: config().request_max }),
        (ReplyStatus::Expired, b"", Outcome::Expired),
    ] {
        let mut world = World::open(config());
        world.submit("a");
        let sent = world.only_sent();
        world.answer_status(&sent, NODES[0], status, body);
        assert_eq!(world.only_done().outcome, outcome);
    }
}

#[test]
fn a_reply_beyond_the_limit_is_refused_by_name() {
    let mut world = World::open(ClientConfig { reply_max: 1999, ..config() });
    world.submit("a");
    let sent = world.only_sent();
    for packet in packets_of(&reply(&sent), &[7; 4000]) {
        world.receive(NODES[0], &packet);
    }
    assert_eq!(world.done().len(), 0);
    assert!(world.client.counters().rejected.iter().sum::<u64>() > 0);
}

#[test]
fn an_open_reply_that_makes_no_sense_opens_nothing() {
    let mut world = World::new(config());
    world.submit("a");
    let request = world.only_sent();
    world.answer_with(&request, NODES[0], open_reply(&request, 0), b"");
    world.answer_status(&request, NODES[0], ReplyStatus::ServiceError, b"");
    assert_eq!(world.client.session(), None);
    assert_eq!(world.client.counters().responses_mismatched, 2);
    world.answer_with(&request, NODES[0], open_reply(&request, 3), b"");
    assert_eq!(world.client.session(), Some(3));
}

#[test]
fn one_seed_one_behaviour() {
    let run = |seed| {
        let mut pair = Pair::new(ClientConfig { seq_window: 4, ..config() }, Faults::bad(), seed);
        (0..40).for_each(|_| pair.submit());
        pair.drive();
        (pair.done, pair.transmitted)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}
