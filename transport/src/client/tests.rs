//! The client against hand-made answers, then against a small exactly-once server over a lossy network, in virtual time.

use std::net::Ipv4Addr;

use proptest::prelude::{Just, ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::wire::{Digest, Policy};

mod opening {
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
}

mod windows {
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
}

mod retransmission {
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
            let Target::Node(node) = targets[1] else { panic!("{targets:?}") };
            nodes.push(node);
        }
        nodes.sort_unstable();
        assert_eq!(nodes, [0, 1, 2]);
    }

    #[test]
    fn without_known_nodes_copies_go_to_the_group_only() {
        let mut world = World::open(ClientConfig { nodes: 0, ..config() });
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
}

mod routing {
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
        let ticket = world.client.submit_admin(world.now, 2, "status".into()).unwrap();
        for _ in 0..4 {
            let sent = world.only_sent();
            assert_eq!(sent.target, Target::Node(2));
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
    fn admin_requests_are_bounded_and_need_a_node() {
        let mut world = World::new(ClientConfig { admin_max: 2, request_max: 10, ..config() });
        let now = world.now;
        let unknown = world.client.submit_admin(now, 3, Bytes::new());
        assert_eq!(unknown, Err(SubmitError::NoSuchNode { node: 3, nodes: 3 }));
        let long = world.client.submit_admin(now, 0, vec![0; 11].into());
        assert_eq!(long, Err(SubmitError::TooLarge { len: 11, limit: 10 }));
        let ticket = world.client.submit_admin(now, 0, Bytes::new()).unwrap();
        world.client.submit_admin(now, 0, Bytes::new()).unwrap();
        assert_eq!(world.client.submit_admin(now, 0, Bytes::new()), Err(SubmitError::Full { limit: 2 }));
        world.client.cancel(now, ticket);
        assert!(world.client.submit_admin(now, 0, Bytes::new()).is_ok());
    }
}

mod plain {
    use super::*;

    fn plain() -> ClientConfig {
        ClientConfig { sessions: false, nodes: 0, ..ClientConfig::default() }
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
}

mod matching {
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
        assert_eq!(world.client.counters().partial_replies_expired, 2);
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
}

mod against_a_server {
    use super::*;

    #[test]
    fn a_perfect_network_needs_no_retransmission() {
        let mut pair = Pair::new(config(), Faults::none(), 1);
        (0..500).for_each(|_| pair.submit());
        pair.drive();
        pair.check();
        assert_eq!(pair.client.counters().completed_ok, 500);
        assert_eq!(pair.client.counters().retransmissions, 0);
        assert_eq!(pair.transmitted, 501);
    }

    #[test]
    fn a_silent_group_is_given_up_and_forgotten() {
        let mut pair = Pair::new(config(), Faults { loss: 1.0, ..Faults::none() }, 1);
        (0..10).for_each(|_| pair.submit());
        pair.drive();
        assert_eq!(pair.client.counters().completed_not_executed, 10);
        assert_eq!(pair.client.outstanding(), 0);
        assert!(pair.client.operations.len() == 0 && pair.client.timers.is_empty());
    }

    #[test]
    fn a_server_slower_than_the_first_timeout_is_learnt() {
        let slow = Faults { latency_max: ms(60), latency_min: ms(50), ..Faults::none() };
        let mut pair = Pair::new(config(), slow, 1);
        for _ in 0..100 {
            pair.submit();
            pair.drive();
        }
        pair.check();
        assert_eq!(pair.client.counters().completed_ok, 100);
        assert!(pair.client.counters().retransmissions < 10, "{}", pair.client.counters().retransmissions);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// protocol.md §6.8, §6.9 from the client's side: each operation ends once, with the reply to its own single
        /// execution, or unknown; and nothing is left behind.
        #[test]
        fn every_operation_ends_ok_or_unknown_whatever_the_network_does(
            seed: u64,
            loss in 0.0..0.6f64,
            duplication in 0.0..0.5f64,
            refusal in 0.0..0.3f64,
            latency_max in 1..80u64,
            expiry in prop_oneof![Just(0.0), 0.0..0.02f64],
            seq_window in 1..20u64,
            outstanding_max in 1..20usize,
            sticky: bool,
            pauses in proptest::collection::vec(0..2000u64, 1..60),
        ) {
            let faults = Faults { loss, duplication, refusal, expiry, latency_min: ms(0), latency_max: ms(latency_max) };
            let config = ClientConfig {
                seq_window,
                outstanding_max,
                give_up: ms(3000),
                session_idle: ms(1500),
                fan_out: if sticky { Route::Sticky } else { Route::Group },
                ..config()
            };
            let mut pair = Pair::new(config, faults, seed);
            for pause in pauses {
                pair.submit();
                // Half of the time without a pause, so that operations overlap.
                pair.drive_bounded(ms(pause.saturating_sub(1000)));
            }
            pair.drive();
            pair.check();
        }

        #[test]
        fn any_bytes_are_survived(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50)) {
            let mut world = World::open(config());
            world.submit("a");
            for packet in &packets {
                world.receive(NODES[0], packet);
            }
            prop_assert_eq!(world.client.outstanding(), 1);
            world.run_to(world.now + config().give_up * 2);
            prop_assert_eq!(world.done().len(), 1);
        }

        /// Like any bytes, but close to valid: a reply with some bytes changed and its tail cut.
        #[test]
        fn damaged_replies_are_survived(
            opened: bool,
            sessions: bool,
            body_len in 0..3000usize,
            changes in proptest::collection::vec((0..60usize, any::<u8>()), 0..4),
            cut in 0..40usize,
        ) {
            let mut world = if opened && sessions {
                World::open(config())
            } else {
                World::new(ClientConfig { sessions, ..config() })
            };
            world.submit("a");
            world.client.submit(world.now, Kind::Write, vec![1; 2000].into()).unwrap();
            for sent in world.sent() {
                for packet in packets_of(&reply(&sent), &vec![3; body_len]) {
                    let mut packet = packet.to_vec();
                    for &(at, byte) in &changes {
                        if let Some(target) = packet.get_mut(at) {
                            *target = byte;
                        }
                    }
                    packet.truncate(packet.len().saturating_sub(cut));
                    world.receive(NODES[0], &packet);
                }
            }
            world.run_to(world.now + config().give_up * 2);
            prop_assert_eq!(world.client.outstanding(), 0);
            prop_assert_eq!(world.done().len(), 2);
        }
    }
}

const NODES: [SocketAddrV4; 3] = [
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 9000),
];
/// The session of a [`World`] that starts with one.
const SESSION: u64 = 100;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config() -> ClientConfig {
    ClientConfig { nodes: 3, ..ClientConfig::default() }
}

const fn session(client: u64, seq: u64, first_unacked: u64) -> wire::Session {
    wire::Session { client, seq, first_unacked }
}

/// A packet that the client sent.
#[derive(Clone, Debug)]
struct Sent {
    target: Target,
    bytes: Bytes,
    head: Header,
    payload: Bytes,
}

impl Sent {
    fn new(target: Target, bytes: Bytes) -> Self {
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        let head = Header::parse(&packet).unwrap();
        let payload = Bytes::copy_from_slice(packet.payload());
        Self { target, bytes, head, payload }
    }

    fn session(&self) -> wire::Session {
        self.head.extensions.session.unwrap()
    }
}

fn reply(request: &Sent) -> MessageHead {
    MessageHead {
        kind: MessageType::Response,
        policy: request.head.policy,
        rid: request.head.rid,
        extensions: Extensions { session: request.head.extensions.session, ..Extensions::default() },
    }
}

fn open_reply(request: &Sent, client: u64) -> MessageHead {
    let mut head = reply(request);
    head.extensions.session = Some(wire::Session { client, ..request.session() });
    head.extensions.entry_index = Some(client);
    head
}

fn packets_of(head: &MessageHead, body: &[u8]) -> Vec<Bytes> {
    let mut packets = Vec::new();
    write_packets(head, body, config().packet_max, &mut |packet| packets.push(packet)).unwrap();
    packets
}

fn control_packet(kind: MessageType, rid: u16, body: &[u8]) -> Bytes {
    let head = MessageHead { kind, policy: Policy::LoadBalanced, rid, extensions: Extensions::default() };
    packets_of(&head, body).remove(0)
}

fn ack_of(request: &Sent) -> Bytes {
    control_packet(MessageType::Ack, request.head.rid, b"ACK")
}

/// A client, a clock, and what the client has said so far.
struct World {
    now: Instant,
    client: Client,
    sent: Vec<Sent>,
    done: Vec<Completion>,
    timeout: (Instant, &'static str),
}

impl World {
    fn new(config: ClientConfig) -> Self {
        Self {
            now: Instant::ZERO,
            client: Client::new(config, 7),
            sent: Vec::new(),
            done: Vec::new(),
            timeout: (Instant::FAR_FUTURE, ""),
        }
    }

    /// With the session [`SESSION`] open, after a round trip of no time, and nothing outstanding.
    fn open(config: ClientConfig) -> Self {
        let mut world = Self::new(config);
        world.submit("open");
        let request = world.only_sent();
        world.answer_with(&request, NODES[0], open_reply(&request, SESSION), b"");
        world.drain();
        let held = std::mem::take(&mut world.sent).remove(0);
        world.answer(&held, NODES[0], b"");
        world.done();
        // As if that operation had not been: the cases count from seq 1.
        let opened = Session::new(SESSION, world.now);
        world.client.sessions.insert(SESSION, opened);
        world
    }

    fn submit(&mut self, body: &'static str) -> Ticket {
        let ticket = self.client.submit(self.now, Kind::Write, body.into()).unwrap();
        self.drain();
        ticket
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets the client's next timer fire, which must be due for this reason.
    fn fire(&mut self, why: &str) {
        let timeout = self.timeout();
        assert_eq!(timeout.1, why);
        self.now = self.now.max(timeout.0);
        self.client.handle_timeout(self.now);
        self.drain();
    }

    /// Lets everything fire that is due until `end`, and forgets what is sent.
    fn run_to(&mut self, end: Instant) {
        while self.timeout().0 <= end {
            self.now = self.now.max(self.timeout.0);
            self.client.handle_timeout(self.now);
        }
        self.now = end;
        self.sent();
    }

    fn receive(&mut self, from: SocketAddrV4, packet: &[u8]) {
        self.client.handle_datagram(self.now, from, packet);
        self.drain();
    }

    fn receive_message(&mut self, from: SocketAddrV4, head: &MessageHead, body: &[u8]) {
        for packet in packets_of(head, body) {
            self.receive(from, &packet);
        }
    }

    fn answer(&mut self, request: &Sent, from: SocketAddrV4, body: &[u8]) {
        self.answer_with(request, from, reply(request), body);
    }

    fn answer_status(&mut self, request: &Sent, from: SocketAddrV4, status: ReplyStatus, body: &[u8]) {
        let mut head = reply(request);
        head.extensions.status = Some(status);
        self.answer_with(request, from, head, body);
    }

    fn answer_with(&mut self, request: &Sent, from: SocketAddrV4, head: MessageHead, body: &[u8]) {
        assert_eq!(head.rid, request.head.rid);
        self.receive_message(from, &head, body);
    }

    fn client_has_answer(&mut self, request: &Sent, body: &'static [u8]) {
        self.answer(request, NODES[0], body);
        assert_eq!(self.only_done().outcome, Outcome::Ok(Bytes::from_static(body)));
    }

    fn drop_packet(&mut self, request: &Sent) {
        self.receive(NODES[0], &control_packet(MessageType::Drop, request.head.rid, b"DROP"));
    }

    fn drain(&mut self) {
        loop {
            match self.client.poll_output(self.now) {
                ClientOutput::Transmit { target, packet } => self.sent.push(Sent::new(target, packet)),
                ClientOutput::Done(completion) => self.done.push(completion),
                ClientOutput::Timeout(at, why) => break self.timeout = (at, why),
            }
        }
    }

    fn sent(&mut self) -> Vec<Sent> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn only_sent(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn targets(&mut self) -> Vec<Target> {
        self.sent().iter().map(|sent| sent.target).collect()
    }

    fn done(&mut self) -> Vec<Completion> {
        self.drain();
        std::mem::take(&mut self.done)
    }

    fn only_done(&mut self) -> Completion {
        let mut done = self.done();
        assert_eq!(done.len(), 1, "{done:?}");
        done.remove(0)
    }

    fn timeout(&mut self) -> (Instant, &'static str) {
        self.drain();
        self.timeout
    }
}

/// What the network and the server do to a [`Pair`]; probabilities per packet.
#[derive(Clone, Copy, Debug)]
struct Faults {
    loss: f64,
    duplication: f64,
    /// The server answers DROP.
    refusal: f64,
    /// The server forgets all sessions.
    expiry: f64,
    latency_min: Duration,
    latency_max: Duration,
}

impl Faults {
    const fn none() -> Self {
        Self { loss: 0.0, duplication: 0.0, refusal: 0.0, expiry: 0.0, latency_min: ms(1), latency_max: ms(1) }
    }

    const fn bad() -> Self {
        Self { loss: 0.3, duplication: 0.2, refusal: 0.1, expiry: 0.0, latency_min: ms(0), latency_max: ms(30) }
    }
}

/// A client and a server joined by a network, in virtual time.
struct Pair {
    now: Instant,
    client: Client,
    server: Server,
    faults: Faults,
    rng: SmallRng,
    network: BTreeMap<(Instant, u64), Datagram>,
    carried: u64,
    transmitted: u64,
    submitted: Vec<(Ticket, Bytes)>,
    done: Vec<Completion>,
}

enum Datagram {
    ToServer(Bytes),
    ToClient(SocketAddrV4, Bytes),
}

impl Pair {
    fn new(config: ClientConfig, faults: Faults, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            server: Server::new(config.seq_window),
            client: Client::new(config, seed),
            faults,
            rng: SmallRng::seed_from_u64(seed),
            network: BTreeMap::new(),
            carried: 0,
            transmitted: 0,
            submitted: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Submits an operation with a body of its own, now and then of several packets.
    fn submit(&mut self) {
        let number = self.submitted.len();
        let mut body = number.to_string().into_bytes();
        if number % 7 == 6 {
            body.resize(3000, b' ');
        }
        let body = Bytes::from(body);
        let ticket = self.client.submit(self.now, Kind::Write, body.clone()).unwrap();
        self.submitted.push((ticket, body));
    }

    /// Runs until nothing is under way and the client waits for nothing.
    fn drive(&mut self) {
        while self.step(Instant::FAR_FUTURE) {}
    }

    /// Runs for `time`.
    fn drive_bounded(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Obeys the client, then goes to the next event, if there is one until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timeout = loop {
            match self.client.poll_output(self.now) {
                ClientOutput::Transmit { packet, .. } => {
                    self.transmitted += 1;
                    self.carry(|| Datagram::ToServer(packet.clone()));
                }
                ClientOutput::Done(completion) => self.done.push(completion),
                ClientOutput::Timeout(at, _) => break at,
            }
        };
        let arrival = self.network.first_key_value().map_or(Instant::FAR_FUTURE, |(&(at, _), _)| at);
        let next = arrival.min(timeout);
        if next == Instant::FAR_FUTURE || next > end {
            return false;
        }
        self.now = self.now.max(next);
        if arrival > timeout {
            self.client.handle_timeout(self.now);
            return true;
        }
        match self.network.pop_first() {
            None => {}
            Some((_, Datagram::ToClient(from, packet))) => self.client.handle_datagram(self.now, from, &packet),
            Some((_, Datagram::ToServer(packet))) => {
                if self.rng.random_bool(self.faults.expiry) {
                    self.server.sessions.clear();
                }
                let refuse = self.rng.random_bool(self.faults.refusal);
                for answer in self.server.handle(self.now, &packet, refuse) {
                    let node = NODES[self.rng.random_range(0..NODES.len())];
                    self.carry(|| Datagram::ToClient(node, answer.clone()));
                }
            }
        }
        true
    }

    fn carry(&mut self, datagram: impl Fn() -> Datagram) {
        let copies = 1 + u32::from(self.rng.random_bool(self.faults.duplication));
        for _ in 0..copies {
            if self.rng.random_bool(self.faults.loss) {
                continue;
            }
            let latency = self.rng.random_range(self.faults.latency_min..=self.faults.latency_max);
            self.carried += 1;
            self.network.insert((self.now + latency, self.carried), datagram());
        }
    }

    fn check(&self) {
        let mut ended: BTreeMap<Ticket, &Outcome> = BTreeMap::new();
        for completion in &self.done {
            assert!(ended.insert(completion.ticket, &completion.outcome).is_none(), "ended twice: {completion:?}");
            let lived = self.now.since(completion.submitted);
            assert!(lived >= Duration::ZERO);
        }
        for (ticket, body) in &self.submitted {
            let executions = self.server.executed.iter().filter(|(_, executed)| executed == body).count();
            assert!(executions <= 1, "executed {executions} times: {body:?}");
            match ended.get(ticket) {
                None => panic!("never ended: {body:?}"),
                Some(Outcome::Ok(reply)) => {
                    assert_eq!(executions, 1);
                    assert_eq!(reply.strip_suffix(&body[..]), Some(&b"did "[..]), "somebody else's reply");
                }
                Some(Outcome::NotExecuted(NotExecuted::NeverSent)) => assert_eq!(executions, 0),
                Some(Outcome::Unknown) => {}
                Some(Outcome::Expired) => assert!(self.faults.expiry > 0.0),
                Some(outcome) => panic!("{outcome:?}"),
            }
        }
        assert_eq!(self.done.len(), self.submitted.len());
        assert_eq!((self.client.outstanding(), self.client.in_flight, self.client.held()), (0, 0, 0));
        assert_eq!((self.client.operations.len(), self.client.timers.len()), (0, 0));
        assert!(self.client.sessions.len() <= 1);
        // Giving up moves first-unacknowledged like completing does: with nothing outstanding it is the next seq.
        for session in self.client.sessions.values() {
            assert!(session.has_room(1));
        }
    }
}

/// The smallest server that executes once per (session, seq) and fences below first-unacknowledged.
struct Server {
    seq_window: u64,
    reassembler: Reassembler,
    next_index: u64,
    sessions: BTreeMap<u64, Table>,
    executed: Vec<((u64, u64), Bytes)>,
}

#[derive(Default)]
struct Table {
    first_unacked: u64,
    replies: BTreeMap<u64, (u64, Bytes)>,
}

impl Server {
    fn new(seq_window: u64) -> Self {
        let config = config();
        Self {
            seq_window,
            reassembler: Reassembler::new(config.reassembly, config.digest_key),
            next_index: 1,
            sessions: BTreeMap::new(),
            executed: Vec::new(),
        }
    }

    fn handle(&mut self, now: Instant, packet: &[u8], refuse: bool) -> Vec<Bytes> {
        self.reassembler.expire(now);
        let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000);
        let Some(request) = self.reassembler.accept(now, client, packet).unwrap() else { return Vec::new() };
        if refuse {
            return vec![control_packet(MessageType::Drop, request.rid, b"DROP")];
        }
        let asked = request.extensions.session.unwrap();
        let mut head = MessageHead {
            kind: MessageType::Response,
            policy: request.policy,
            rid: request.rid,
            extensions: Extensions { session: Some(asked), ..Extensions::default() },
        };
        if asked.client == 0 {
            let index = self.order();
            self.sessions.insert(index, Table { first_unacked: 1, ..Table::default() });
            head.extensions.session = Some(wire::Session { client: index, ..asked });
            head.extensions.entry_index = Some(index);
            return packets_of(&head, b"");
        }
        let index = self.next_index;
        let Some(table) = self.sessions.get_mut(&asked.client) else {
            head.extensions.status = Some(ReplyStatus::Expired);
            return packets_of(&head, b"");
        };
        assert!(asked.first_unacked <= asked.seq);
        table.first_unacked = table.first_unacked.max(asked.first_unacked);
        table.replies = table.replies.split_off(&table.first_unacked);
        if asked.seq < table.first_unacked {
            return Vec::new();
        }
        assert!(asked.seq < asked.first_unacked + self.seq_window, "beyond the window: {asked:?}");
        let (index, reply) = table.replies.entry(asked.seq).or_insert_with(|| {
            self.executed.push(((asked.client, asked.seq), request.body.clone()));
            (index, [b"did ", &request.body[..]].concat().into())
        });
        head.extensions.entry_index = Some(*index);
        let packets = packets_of(&head, reply);
        self.order();
        packets
    }

    fn order(&mut self) -> u64 {
        self.next_index += 1;
        self.next_index - 1
    }
}
