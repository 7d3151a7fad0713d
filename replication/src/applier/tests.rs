use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use r2p2::DigestKey;
use r2p2::wire::{Extensions, Header, MessageType, Packet, Policy};

use super::*;
use crate::entry::identity;
use crate::service::Class;
use crate::session::{REPLY_COST, SessionLimits, SnapshotError, mix_bytes};

// Sessions and plain requests, one answer each.

#[test]
fn a_session_is_its_entrys_index() {
    let mut group = Group::new();
    group.term_start();
    let (effects, packets) = group.apply(group.open_entry(1, 77));
    assert_eq!(effects, [Effect::SessionOpened; 2]);
    let answer = only(packets);
    assert_eq!((answer.to, answer.rid, answer.kind), (client(), 5, MessageType::Response));
    let session = answer.extensions.session.unwrap();
    assert_eq!((session.client, session.seq), (2, 77), "the id, and the nonce to know it by");
    assert_eq!((answer.extensions.entry_index, answer.extensions.status), (Some(2), None));
    assert_eq!(answer.body, b"");
}

#[test]
fn the_first_entry_of_a_term_does_nothing() {
    let mut group = Group::new();
    let before = group.nodes[0].sessions().hash();
    assert_eq!(group.apply((Entry::term_start(), Bytes::new())), (vec![Effect::TermStart; 2], vec![]));
    assert_eq!(group.nodes[0].sessions().hash(), before);
    assert_eq!(group.nodes[0].applied(), 1);
}

#[test]
fn a_write_runs_everywhere_and_is_answered_once() {
    let mut group = Group::new();
    let session = group.open();
    for replier in [1, 2] {
        let entry = group.request(replier, Some((session, u64::from(replier), 1)), "append x");
        let (effects, packets) = group.apply(entry);
        assert_eq!(effects, [Effect::Wrote; 2]);
        let answer = only(packets);
        assert_eq!((answer.from, answer.body.as_slice()), (replier, &b"xx"[..usize::from(replier)]));
        let expected = Extensions {
            session: Some(Session { client: session, seq: u64::from(replier), first_unacked: 1 }),
            entry_index: Some(group.index),
            epoch: Some(1),
            ..Extensions::default()
        };
        assert_eq!((answer.extensions, answer.policy), (expected, Policy::Fixed));
    }
}

#[test]
fn a_read_runs_on_its_replier_only() {
    let mut group = Group::new();
    let session = group.open();
    group.apply(group.request(1, Some((session, 1, 1)), "append x"));
    let (effects, packets) = group.apply(group.request(2, Some((session, 2, 1)), "read"));
    assert_eq!(effects, [Effect::ReadElsewhere, Effect::Queried]);
    let answer = only(packets);
    assert_eq!((answer.from, answer.body.as_slice()), (2, &b"x"[..]));
    assert_eq!(group.nodes[0].counters().queries, 0);
    assert_eq!(group.nodes[1].counters().queries, 1);
}

#[test]
fn a_read_ordered_again_is_answered_with_the_later_state() {
    let mut group = Group::new();
    let session = group.open();
    let read = group.request(1, Some((session, 1, 1)), "read");
    assert_eq!(only(group.apply(read.clone()).1).body, b"");
    group.apply(group.request(1, Some((session, 2, 1)), "append x"));
    let again = only(group.apply(group.for_replier(read, 2)).1);
    assert_eq!((again.from, again.body.as_slice()), (2, &b"x"[..]));
    assert_eq!(again.extensions.entry_index, Some(group.index));
}

#[test]
fn a_plain_request_is_answered_in_the_format_of_the_c_implementation() {
    let mut group = Group::new();
    let (_, packets) = group.apply(group.request(1, None, "append x"));
    assert_eq!(only(packets).raw, b"\xcc\x08\x11\xc0\x00\x05\x00\x01x");
    let (_, packets) = group.apply(group.request(2, None, "read"));
    assert_eq!(only(packets).raw, b"\xcc\x08\x11\xc0\x00\x05\x00\x01x");
    // Nothing is remembered about it.
    group.apply(group.request(1, None, "append x"));
    assert_eq!(group.nodes[0].service().text, "xx");
}

#[test]
fn a_long_reply_is_several_packets() {
    let mut group = Group::new();
    let session = group.open();
    let (_, packets) = group.apply(group.request(1, Some((session, 1, 1)), "long 1000"));
    let body: Vec<u8> = packets.iter().flat_map(|packet| packet.body.clone()).collect();
    assert_eq!(body, vec![b'L'; 1000]);
    assert!(packets.len() > 1 && packets.iter().all(|packet| packet.raw.len() <= PACKET_MAX));
    assert!(packets.iter().all(|packet| packet.extensions.entry_index == Some(group.index)));
    assert_eq!(group.nodes[0].counters().replies_sent, 2, "the session, and this");
}

#[test]
fn answers_name_the_epoch_of_the_membership() {
    let mut group = Group::new();
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "append x");
    assert_eq!(only(group.apply(write.clone()).1).extensions.epoch, Some(1));
    let before = group.nodes[0].state_hash();
    group.nodes[0].set_membership_epoch(3);
    group.nodes[0].set_membership_epoch(2);
    assert_eq!(group.nodes[0].state_hash(), before, "it is no part of the state");
    let again = only(group.answer_again(1, &write.0.request).1);
    assert_eq!(again.extensions.epoch, Some(3), "as it is now, not as it was when the write was executed");
    let expired = only(group.apply(group.request(1, Some((session + 90, 1, 1)), "append x")).1);
    assert_eq!((expired.extensions.status, expired.extensions.epoch), (Some(ReplyStatus::Expired), Some(3)));
    let long = group.apply(group.request(1, Some((session, 2, 1)), "long 1000")).1;
    let epochs: Vec<_> = long.iter().map(|packet| packet.extensions.epoch).collect();
    assert_eq!(epochs, [Some(3), None, None], "the first packet says it");
}

// Duplicates.

#[test]
fn whoever_answers_a_duplicate_gives_the_first_answer() {
    let mut group = Group::new();
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "append x");
    let first = only(group.apply(write.clone()).1);
    group.apply(group.request(1, Some((session, 2, 1)), "append y"));
    let (effects, packets) = group.apply(group.for_replier(write.clone(), 2));
    assert_eq!(effects, [Effect::Duplicate; 2]);
    let second = only(packets);
    assert_eq!((second.from, second.body.as_slice()), (2, &b"x"[..]));
    assert_eq!(second.extensions, first.extensions, "with the index of the execution");
    // A retransmission that is not ordered again.
    for node in [1, 2] {
        let (effect, packets) = group.answer_again(node, &write.0.request);
        assert_eq!((effect, &only(packets).raw), (Effect::AnsweredAgain, &first.raw));
    }
    assert_eq!(group.nodes[0].service().text, "xy");
}

#[test]
fn a_retransmission_is_answered_where_it_comes_from_now() {
    let mut group = Group::new();
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "append x");
    group.apply(write.clone());
    let moved = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    let retransmission = RequestHead { client: moved, rid: 6, ..write.0.request };
    let answer = only(group.answer_again(1, &retransmission).1);
    assert_eq!((answer.to, answer.rid), (moved, 6));
}

#[test]
fn executed_but_the_reply_is_gone() {
    let mut group = Group::with(|config| config.sessions.cache_bytes_max = REPLY_COST + 2);
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "append x");
    group.apply(write.clone());
    group.apply(group.request(1, Some((session, 2, 1)), "append y"));
    let gone = |answer: Received| {
        assert_eq!((answer.extensions.status, answer.body.as_slice()), (Some(ReplyStatus::ReplyGone), &b""[..]));
        assert_eq!(answer.extensions.session, write.0.request.session);
    };
    gone(only(group.answer_again(2, &write.0.request).1));
    let (effects, packets) = group.apply(group.for_replier(write.clone(), 2));
    assert_eq!(effects, [Effect::Duplicate; 2]);
    gone(only(packets));
    assert_eq!(group.nodes[0].service().text, "xy");
    assert_eq!(group.nodes[1].counters().replies_gone, 2);
}

#[test]
fn answers_that_there_are_not() {
    let mut group = Group::new();
    let session = group.open();
    let before = group.nodes[0].snapshot();
    for (what, key) in [
        ("not executed yet", Some((session, 1, 1))),
        ("far above the window", Some((session, u64::MAX, 1))),
        ("a session to come", Some((session + 1, 1, 1))),
        ("no session", None),
        ("a session to open", Some((0, 7, 0))),
    ] {
        let (entry, _) = group.request(1, key, "append x");
        assert_eq!(group.answer_again(1, &entry.request), (Effect::NothingToAnswer, vec![]), "{what}");
    }
    assert_eq!(group.nodes[0].snapshot(), before, "a retransmission changes nothing");
    group.apply(group.request(1, Some((session, 2, 2)), "read"));
    let (entry, _) = group.request(1, Some((session, 1, 1)), "append x");
    assert_eq!(group.answer_again(1, &entry.request), (Effect::NothingToAnswer, vec![]), "given up");
}

// Refusals: the schedules of protocol.md §3.3 once more, through to the client.

#[test]
fn an_expired_client_retransmits_an_increment() {
    let mut group = Group::new();
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "append x");
    group.apply(write.clone());
    group.time += SessionLimits::default().session_expiry;
    let (effects, packets) = group.apply(group.for_replier(write.clone(), 2));
    assert_eq!(effects, [Effect::Expired; 2]);
    let answer = only(packets);
    assert_eq!((answer.from, answer.extensions.status), (2, Some(ReplyStatus::Expired)));
    assert_eq!(answer.extensions.session, write.0.request.session);
    assert_eq!(group.nodes[0].service().text, "x");
    let (effect, packets) = group.answer_again(1, &write.0.request);
    assert_eq!(effect, Effect::AnsweredAgain);
    assert_eq!(only(packets).extensions.status, Some(ReplyStatus::Expired));
}

#[test]
fn a_session_is_over_at_the_first_entry_that_is_late_enough() {
    let mut group = Group::new();
    group.open();
    group.time += SessionLimits::default().session_expiry - 2 * TICK;
    group.apply(group.request(1, None, "append x"));
    assert_eq!(group.nodes[0].sessions().len(), 1);
    group.apply(group.request(1, None, "append x"));
    assert_eq!(group.nodes[0].sessions().len(), 0, "whatever the entry is about");
}

#[test]
fn a_timed_out_set_1_is_ordered_after_set_2() {
    let mut group = Group::new();
    let session = group.open();
    let set_1 = group.request(1, Some((session, 1, 1)), "set 1");
    group.apply(group.request(1, Some((session, 2, 2)), "set 2"));
    assert_eq!(group.apply(group.for_replier(set_1, 1)), (vec![Effect::BelowWindow; 2], vec![]));
    assert_eq!(group.nodes[0].service().text, "2");
}

#[test]
fn seven_overtakes_six() {
    let mut group = Group::new();
    let session = group.open();
    for (seq, text) in [(7, "7"), (6, "76")] {
        let (effects, packets) = group.apply(group.request(1, Some((session, seq, 6)), &format!("append {seq}")));
        assert_eq!((effects, only(packets).body), (vec![Effect::Wrote; 2], text.into()));
    }
}

#[test]
fn too_far_ahead() {
    let mut group = Group::new();
    let session = group.open();
    let window = SessionLimits::default().seq_window;
    let (effects, _) = group.apply(group.request(1, Some((session, window, 1)), "append x"));
    assert_eq!(effects, [Effect::Wrote; 2]);
    let (effects, packets) = group.apply(group.request(2, Some((session, window + 1, 1)), "append y"));
    assert_eq!(effects, [Effect::AboveWindow; 2]);
    let answer = only(packets);
    assert_eq!((answer.from, answer.kind, answer.rid), (2, MessageType::Drop, 5));
    assert_eq!(group.nodes[0].service().text, "x");
}

// Replies at the limit and one past it.

#[test]
fn reply_max() {
    let mut group = Group::with(|config| config.reply_max = 100);
    let session = group.open();
    let (_, packets) = group.apply(group.request(1, Some((session, 1, 1)), "long 100"));
    assert_eq!(only(packets).body, vec![b'L'; 100]);
    let write = group.request(1, Some((session, 2, 1)), "long 101");
    let (effects, packets) = group.apply(write.clone());
    assert_eq!(effects, [Effect::Wrote; 2], "the write counts");
    let answer = only(packets);
    assert_eq!(answer.extensions.status, Some(ReplyStatus::ServiceError));
    assert_eq!(answer.body, b"executed, but the reply is longer than the limit of 100 bytes");
    assert_eq!(only(group.answer_again(2, &write.0.request).1).raw, answer.raw);
    let (_, packets) = group.apply(group.request(1, Some((session, 3, 1)), "read long 101"));
    assert_eq!(only(packets).extensions.status, Some(ReplyStatus::ServiceError));
    let (_, packets) = group.apply(group.request(1, None, "long 101"));
    assert!(packets.is_empty(), "a DROP would say that it was not executed");
    assert_eq!(group.nodes[0].counters().replies_too_long, 3);
    assert_eq!(group.nodes[0].counters().answers_withheld, 1);
}

#[test]
fn not_even_room_for_a_complaint() {
    let mut group = Group::with(|config| config.reply_max = 3);
    let session = group.open();
    let (_, packets) = group.apply(group.request(1, Some((session, 1, 1)), "long 4"));
    assert_eq!(only(packets).body, b"exe");
}

#[test]
#[should_panic(expected = "reply_max exceeds")]
fn a_reply_must_fit_a_message() {
    let packet_max = Extensions::HEADER_LEN_MAX + 1;
    let _ = Applier::new(Text::default(), ApplierConfig { reply_max: 65_536, packet_max, ..config(1) });
}

#[test]
fn the_longest_reply_fits_a_message() {
    let packet_max = Extensions::HEADER_LEN_MAX + 1;
    let config = ApplierConfig { reply_max: 65_535, packet_max, ..config(1) };
    let mut group = Group { nodes: vec![Applier::new(Text::default(), config)], ..Group::new() };
    let session = group.open();
    let (_, packets) = group.apply(group.request(1, Some((session, 1, 1)), "long 65535"));
    assert_eq!(packets.iter().map(|packet| packet.body.len()).sum::<usize>(), 65_535);
}

// Panics (protocol.md §7.9).

#[test]
fn a_panic_in_apply_names_index_and_request() {
    let mut group = Group::new();
    let session = group.open();
    let (entry, body) = group.request(1, Some((session, 1, 1)), "panic \"now\"\n");
    let (index, time) = (group.index + 1, entry.time);
    let mut sent = 0;
    let work = Work::Apply(Committed { index, entry: Entry { time, ..entry }, body, replayed: false });
    let failure = group.nodes[0].handle(work, &mut |_, _| sent += 1).unwrap_err();
    assert_eq!(sent, 0);
    assert_eq!((failure.index, failure.identity), (index, entry.request.identity));
    assert_eq!(&*failure.message, "asked for: panic \"now\"\n");
    assert_eq!(group.nodes[0].applied(), index - 1);
    let text = failure.to_string();
    let identity = format!("{:032x}", entry.request.identity.0);
    for part in [&format!("on entry {index}, request {identity} of client 127.0.0.1:4000"), "skip", r#"\"now\"\n"#] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
#[should_panic(expected = "cannot go on after an error")]
fn nothing_goes_on_after_a_panic_in_apply() {
    let mut group = Group::new();
    let (entry, body) = group.request(1, None, "panic");
    let work = Work::Apply(Committed { index: 1, entry, body, replayed: false });
    assert!(group.nodes[0].handle(work.clone(), &mut |_, _| ()).is_err());
    let _ = group.nodes[0].handle(work, &mut |_, _| ());
}

#[test]
fn a_panic_in_query_is_an_error_reply() {
    let mut group = Group::new();
    let session = group.open();
    let (effects, packets) = group.apply(group.request(2, Some((session, 1, 1)), "read panic"));
    assert_eq!(effects, [Effect::ReadElsewhere, Effect::Queried]);
    let answer = only(packets);
    assert_eq!(answer.extensions.status, Some(ReplyStatus::ServiceError));
    assert_eq!(answer.body, b"the service panicked: asked for: read panic");
    let (_, packets) = group.apply(group.request(2, None, "read panic"));
    assert!(packets.is_empty(), "no word for it in the C implementation's language");
    // And life goes on.
    assert_eq!(only(group.apply(group.request(2, None, "read")).1).body, b"");
    assert_eq!(group.nodes[1].counters().query_panics, 2);
}

#[test]
fn an_entry_can_be_skipped() {
    let mut group = Group::with(|config| config.skip = vec![9, 2, 5]);
    let session = group.open();
    let write = group.request(1, Some((session, 1, 1)), "panic");
    let (effects, packets) = group.apply(write.clone());
    assert_eq!(effects, [Effect::Skipped; 2]);
    let answer = only(packets);
    assert_eq!(answer.extensions.status, Some(ReplyStatus::ServiceError));
    assert_eq!(answer.body, b"the request was skipped by decision of the operator");
    // It will not be executed under another index either.
    let (effects, packets) = group.apply(group.for_replier(write, 2));
    assert_eq!(effects, [Effect::Duplicate; 2]);
    assert_eq!(only(packets).raw, answer.raw);
    assert_eq!(group.nodes[0].service().text, "");
    group.apply(group.request(1, Some((session, 2, 2)), "append x"));
    let (effects, packets) = group.apply(group.request(1, None, "append y"));
    assert_eq!(effects, [Effect::Skipped; 2]);
    assert!(packets.is_empty(), "no word for it in the C implementation's language");
    assert_eq!(group.nodes[0].service().text, "x");
}

// Order.

#[test]
#[should_panic(expected = "in the order of the log")]
fn no_entry_is_left_out() {
    let mut group = Group::new();
    group.index = 1;
    group.term_start();
}

#[test]
#[should_panic(expected = "without its body")]
fn no_entry_without_its_body() {
    let mut group = Group::new();
    let (entry, _) = group.request(1, None, "append x");
    group.apply((entry, Bytes::new()));
}

#[test]
fn the_body_of_a_session_request_is_nobodys_business() {
    let mut group = Group::new();
    let (mut entry, _) = group.open_entry(1, 7);
    entry.request.body_len = 4;
    group.apply((entry, Bytes::from_static(b"junk")));
    group.apply((Entry { request: RequestHead { session: None, ..entry.request }, ..entry }, Bytes::new()));
    assert_eq!(group.nodes[0].sessions().len(), 2);
}

#[test]
fn what_a_service_is_told() {
    let mut group = Group::new();
    group.time = Instant::from_nanos(123);
    group.apply(group.request(1, None, "context"));
    group.apply(group.request(2, None, "context"));
    let [first, second] = group.nodes[0].service().contexts[..] else { panic!() };
    assert_eq!(group.nodes[1].service().contexts, [first, second], "the same on all nodes");
    assert_eq!((first.index, first.time), (1, Instant::from_nanos(123) + TICK));
    assert_eq!((second.index, second.time), (2, Instant::from_nanos(123) + TICK + TICK));
    assert_ne!(first.seed, second.seed);
    let mut other = Group::with(|config| config.group_seed = 8);
    other.apply(other.request(1, None, "context"));
    assert_ne!(other.nodes[0].service().contexts[0].seed, first.seed, "another group, other seeds");
}

// Snapshots.

#[test]
fn a_snapshot_is_the_whole_state() {
    let mut group = Group::new();
    let session = group.open();
    group.apply(group.request(1, Some((session, 1, 1)), "append x"));
    let bytes = group.nodes[0].snapshot();
    let mut restored = Applier::new(Text::default(), config(2));
    restored.restore(&mut &bytes[..]).unwrap();
    assert_eq!(restored.state_hash(), group.nodes[0].state_hash());
    assert_eq!(restored.applied(), 2);
    assert_eq!(restored.snapshot(), bytes);
    group.nodes[1] = restored;
    let (effects, packets) = group.apply(group.request(2, Some((session, 1, 1)), "append x"));
    assert_eq!((effects, only(packets).body), (vec![Effect::Duplicate; 2], b"x".to_vec()));
}

#[test]
fn snapshots_of_other_versions_are_refused_and_change_nothing() {
    let mut group = Group::new();
    group.apply(group.request(1, None, "append x"));
    let bytes = group.nodes[0].snapshot();
    let mut node = Applier::new(Text::default(), config(1));
    let before = node.state_hash();
    let mut newer = bytes.clone();
    newer[..2].copy_from_slice(&u16::to_be_bytes(2));
    let refused = node.restore(&mut &newer[..]);
    assert_eq!(refused, Err(SnapshotError::Version { found: 2, expected: 1 }.into()));
    // The format is known, but not what the service does with the next request: behind the applied index.
    let mut newer = bytes.clone();
    newer[10..14].copy_from_slice(&u32::to_be_bytes(Text::VERSION + 1));
    let refused = node.restore(&mut &newer[..]).unwrap_err();
    assert_eq!(refused, RestoreError::TooOld { needed: 2, has: 1 });
    assert!(refused.to_string().contains("version 2 of the service, this program has 1"), "{refused}");
    assert_eq!(node.state_hash(), before);
    assert_eq!(node.restore(&mut &bytes[..]), Ok(()));
}

#[test]
fn snapshots_that_are_refused() {
    let mut group = Group::new();
    let session = group.open();
    group.apply(group.request(1, Some((session, 1, 1)), "append x"));
    let bytes = group.nodes[0].snapshot();
    let restore = |bytes: &[u8]| Applier::new(Text::default(), config(1)).restore(&mut &*bytes);
    for len in 0..bytes.len() {
        assert_eq!(restore(&bytes[..len]), Err(SnapshotError::Truncated.into()), "{len} bytes");
    }
    assert!(matches!(restore(&[&bytes[..], &[0]].concat()), Err(RestoreError::Snapshot(SnapshotError::Damaged(_)))));
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        assert!(restore(&bytes).is_err(), "byte {at}");
    }
    let mut other = config(1);
    other.sessions.sessions_max = 1;
    let refused = Applier::new(Text::default(), other).restore(&mut &bytes[..]);
    assert!(matches!(refused, Err(RestoreError::Snapshot(SnapshotError::Limit { limit: "sessions_max", .. }))));
    // An older one, which leaves everything as it was; an equal one is fine.
    group.apply(group.request(1, Some((session, 2, 1)), "append y"));
    let stale = Err(RestoreError::Stale { found: 2, applied: 3 });
    assert_eq!(group.nodes[0].restore(&mut &bytes[..]), stale);
    assert_eq!(group.nodes[0].state_hash(), group.nodes[1].state_hash());
    let bytes = group.nodes[1].snapshot();
    assert_eq!(group.nodes[0].restore(&mut &bytes[..]), Ok(()));
}

#[test]
fn a_service_that_cannot_restore() {
    let mut group = Group::new();
    group.apply(group.request(1, None, "append unrestorable"));
    let bytes = group.nodes[0].snapshot();
    let mut restored = Applier::new(Text::default(), config(1));
    assert_eq!(restored.restore(&mut &bytes[..]), Err(RestoreError::Service("I do not like it".into())));
    let mut group = Group::new();
    group.apply(group.request(1, None, "append unspeakable"));
    let bytes = group.nodes[0].snapshot();
    let mut restored = Applier::new(Text::default(), config(1));
    assert_eq!(restored.restore(&mut &bytes[..]), Err(RestoreError::Service("it panicked: (no message)".into())));
    let mut group = Group::new();
    group.apply(group.request(1, None, "append forgettable"));
    let bytes = group.nodes[0].snapshot();
    let mut restored = Applier::new(Text::default(), config(1));
    assert!(matches!(restored.restore(&mut &bytes[..]), Err(RestoreError::StateHash { .. })));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| restored.snapshot())).is_err());
}

// Anything at all (protocol.md §6.8, §6.9, §6.10).

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_seq_takes_effect_at_most_once_and_replicas_agree(
        sent in prop::collection::vec(sent(), 1..60),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1u16..=3, 0u64..5), 1..150),
        restore_at in any::<prop::sample::Index>(),
        cache_replies in 0usize..20,
    ) {
        let mut group = Group::with(|config| {
            config.sessions.sessions_max = 3;
            config.sessions.seq_window = 8;
            config.sessions.session_expiry = 100 * TICK;
            config.sessions.cache_bytes_max = cache_replies * (REPLY_COST + 8);
        });
        group.nodes.push(group.applier(3));
        let mut sessions = vec![group.open(), group.open()];
        // What clients send, in the order in which they send it: each seq is used for one operation only.
        let mut operations = Vec::new();
        let mut next = BTreeMap::new();
        for Sent { session, read, behind, open } in sent {
            if open {
                sessions.push(group.open());
            }
            let session = sessions[session.index(sessions.len())];
            let seq = next.entry(session).and_modify(|seq| *seq += 1).or_insert(1u64);
            let body = if read { "read".to_owned() } else { format!("append {session}.{seq},") };
            operations.push(((session, *seq, seq.saturating_sub(behind).max(1)), body));
        }
        // What the log makes of it: any order, any number of copies, any repliers.
        let restore_at = restore_at.index(order.len());
        let mut answers: BTreeMap<(u64, u64), BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (at, (which, replier, pause)) in order.into_iter().enumerate() {
            let (key, body) = &operations[which.index(operations.len())];
            group.time += TICK * (pause * pause) as u32;
            let (_, packets) = group.apply(group.request(replier, Some(*key), body));
            prop_assert!(packets.iter().all(|packet| packet.from == replier), "only the replier answers");
            prop_assert!(packets.len() <= 1);
            for packet in packets {
                if body != "read" && packet.kind == MessageType::Response && packet.extensions.status.is_none() {
                    let index = packet.extensions.entry_index.unwrap().to_be_bytes();
                    answers.entry((key.0, key.1)).or_default().insert([&index, &packet.body[..]].concat());
                }
            }
            if at == restore_at {
                let bytes = group.nodes[0].snapshot();
                let mut restored = group.applier(2);
                prop_assert_eq!(restored.restore(&mut &bytes[..]), Ok(()));
                group.nodes[1] = restored;
            }
            for node in &group.nodes {
                prop_assert_eq!(node.state_hash(), group.nodes[0].state_hash());
                prop_assert!(node.sessions().cached_bytes() <= node.sessions().limits().cache_bytes_max);
                prop_assert!(node.sessions().len() <= 3);
            }
            // Each retransmission gets an answer that was given before, or none.
            let (entry, _) = group.request(1, Some(*key), body);
            let (_, packets) = group.answer_again(3, &entry.request);
            for packet in packets.iter().filter(|packet| packet.extensions.status.is_none()) {
                let index = packet.extensions.entry_index.unwrap().to_be_bytes();
                prop_assert!(body != "read");
                answers.entry((key.0, key.1)).or_default().insert([&index, &packet.body[..]].concat());
            }
        }
        prop_assert!(answers.values().all(|answers| answers.len() == 1), "all answers to one write are equal");
        let text = &group.nodes[0].service().text;
        let executed: Vec<&str> = text.split_terminator(',').collect();
        let once: BTreeSet<&str> = executed.iter().copied().collect();
        prop_assert_eq!(executed.len(), once.len(), "{}", text);
        for node in &group.nodes {
            prop_assert_eq!(node.snapshot(), group.nodes[0].snapshot());
        }
    }
}

#[derive(Clone, Debug)]
struct Sent {
    session: prop::sample::Index,
    read: bool,
    /// How many seqs before this one the client still waits for.
    behind: u64,
    open: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    (any::<prop::sample::Index>(), prop::bool::weighted(0.2), 0u64..10, prop::bool::weighted(0.05))
        .prop_map(|(session, read, behind, open)| Sent { session, read, behind, open })
}

/// Appends to a text, and misbehaves on demand.
#[derive(Debug, Default)]
struct Text {
    text: String,
    contexts: Vec<Context>,
}

impl Service for Text {
    fn classify(request: &[u8]) -> Class {
        if request.starts_with(b"read") { Class::Read } else { Class::Write }
    }

    fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply) {
        let request = str::from_utf8(request).unwrap();
        match request.split_once(' ').unwrap_or((request, "")) {
            ("append", more) => self.text.push_str(more),
            ("set", text) => text.clone_into(&mut self.text),
            ("long", len) => return reply.write(&vec![b'L'; len.parse().unwrap()]),
            ("context", _) => self.contexts.push(*context),
            _ => panic!("asked for: {request}"),
        }
        // The end, so that it fits a packet.
        reply.write(&self.text.as_bytes()[self.text.len().saturating_sub(8)..]);
    }

    fn query(&self, _: &Context, request: &Bytes, reply: &mut Reply) {
        match str::from_utf8(request).unwrap() {
            "read" => reply.write(&self.text.as_bytes()[self.text.len().saturating_sub(8)..]),
            "read long 101" => reply.write(&[b'L'; 101]),
            request => panic!("asked for: {request}"),
        }
    }

    fn state_hash(&self) -> Option<u64> {
        Some(mix_bytes(self.text.as_bytes()))
    }

    fn snapshot(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.text = String::from_utf8(snapshot.to_vec()).map_err(|error| error.to_string())?;
        match self.text.as_str() {
            "unrestorable" => return Err("I do not like it".into()),
            "unspeakable" => std::panic::panic_any(7),
            "forgettable" => self.text.clear(),
            _ => {}
        }
        Ok(())
    }
}

/// Nodes that are fed the same log.
struct Group {
    nodes: Vec<Applier<Text>>,
    index: LogIndex,
    time: Instant,
    config: ApplierConfig,
}

/// A packet to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Received {
    from: u16,
    to: SocketAddrV4,
    kind: MessageType,
    policy: Policy,
    rid: u16,
    extensions: Extensions,
    body: Vec<u8>,
    raw: Vec<u8>,
}

const TICK: Duration = Duration::from_millis(1);
const PACKET_MAX: usize = 400;

fn client() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4000)
}

fn config(node: u16) -> ApplierConfig {
    ApplierConfig { packet_max: PACKET_MAX, group_seed: 7, ..ApplierConfig::new(NodeId(node)) }
}

impl Group {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// Two nodes with another configuration.
    fn with(adjust: impl FnOnce(&mut ApplierConfig)) -> Self {
        let mut config = config(0);
        adjust(&mut config);
        let mut group = Self { nodes: Vec::new(), index: 0, time: Instant::ZERO, config };
        group.nodes = vec![group.applier(1), group.applier(2)];
        group
    }

    fn applier(&self, node: u16) -> Applier<Text> {
        Applier::new(Text::default(), ApplierConfig { me: NodeId(node), ..self.config.clone() })
    }

    /// Feeds the next entry to all nodes. Returns its effects in the order of nodes, and all packets.
    fn apply(&mut self, (entry, body): (Entry, Bytes)) -> (Vec<Effect>, Vec<Received>) {
        self.index += 1;
        self.time += TICK;
        let time = if entry.kind == EntryKind::TermStart { entry.time } else { self.time };
        let committed = Committed { index: self.index, entry: Entry { time, ..entry }, body, replayed: false };
        let mut packets = Vec::new();
        let mut effects = Vec::new();
        for node in &mut self.nodes {
            let from = node.me.0;
            let mut send = |to, packet: Bytes| packets.push(receive(from, to, &packet));
            effects.push(node.handle(Work::Apply(committed.clone()), &mut send).unwrap());
        }
        (effects, packets)
    }

    fn answer_again(&mut self, node: u16, request: &RequestHead) -> (Effect, Vec<Received>) {
        let mut packets = Vec::new();
        let mut send = |to, packet: Bytes| packets.push(receive(node, to, &packet));
        let applier = &mut self.nodes[usize::from(node) - 1];
        let effect = applier.handle(Work::Answer { request: *request }, &mut send).unwrap();
        (effect, packets)
    }

    fn term_start(&mut self) {
        self.apply((Entry::term_start(), Bytes::new()));
    }

    /// Opens a session and returns its id.
    fn open(&mut self) -> u64 {
        self.apply(self.open_entry(1, self.index));
        self.index
    }

    fn open_entry(&self, replier: u16, nonce: u64) -> (Entry, Bytes) {
        let (entry, _) = self.request(replier, Some((0, nonce, 0)), "");
        (Entry { kind: EntryKind::SessionOpen, ..entry }, Bytes::new())
    }

    /// `session` is id, seq and first-unacknowledged.
    fn request(&self, replier: u16, session: Option<(u64, u64, u64)>, body: &str) -> (Entry, Bytes) {
        let session = session.map(|(client, seq, first_unacked)| Session { client, seq, first_unacked });
        let body = Bytes::copy_from_slice(body.as_bytes());
        let identity = identity(&DigestKey::default(), client(), 5, session.as_ref(), &body);
        let request = RequestHead { client: client(), rid: 5, session, identity, body_len: body.len() as u32 };
        let read_only = Text::classify(&body) == Class::Read;
        let entry = Entry { kind: EntryKind::Request, read_only, replier: NodeId(replier), request, time: self.time };
        (entry, body)
    }

    /// The same request, ordered once more for another replier.
    fn for_replier(&self, (entry, body): (Entry, Bytes), replier: u16) -> (Entry, Bytes) {
        (Entry { replier: NodeId(replier), ..entry }, body)
    }
}

fn receive(from: u16, to: SocketAddrV4, packet: &[u8]) -> Received {
    let header = Header::parse(&Packet::new_checked(packet).unwrap()).unwrap();
    let Header { kind, policy, rid, extensions, .. } = header;
    let body = packet[header.header_len()..].to_vec();
    Received { from, to, kind, policy, rid, extensions, body, raw: packet.to_vec() }
}

fn only(packets: Vec<Received>) -> Received {
    match <[Received; 1]>::try_from(packets) {
        Ok([packet]) => packet,
        Err(packets) => panic!("one packet was expected: {packets:?}"),
    }
}
