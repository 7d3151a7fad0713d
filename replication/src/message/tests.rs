use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;
use r2p2::wire::Session;
use r2p2::{Digest, Instant};

use super::*;
use crate::entry::{Entry, EntryKind, RequestHead};
use crate::id::{GroupId, Incarnation, MemberId, NodeId};
use crate::snapshot::{CHUNK_LEN, Chunk, SnapshotInfo};

#[test]
fn a_commit_notice_byte_by_byte() {
    let envelope = Envelope {
        group: GroupId(0x0102_0304),
        from: MemberId::new(NodeId(5), Incarnation(6)),
        life: 0x1111_2222_3333_4444,
        term: 7,
    };
    let bytes = Message::CommitNotice(CommitNotice { commit: 0x99 }).emit(&envelope);
    let expected: [u8; ENVELOPE_LEN + 8] = [
        1, 4, 0, 5, 1, 2, 3, 4, 0, 0, 0, 6, 0, 0, 0, 0, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0, 0, 0, 0, 0,
        0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0x99,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn another_version_is_refused_before_anything_else_is_read() {
    let good = Message::CommitNotice(CommitNotice { commit: 0x99 }).emit(&envelope());
    for theirs in [0, VERSION + 1, 255] {
        let mut bytes = good.clone();
        bytes[0] = theirs;
        let refused = Err(MessageError::Version { theirs, ours: VERSION });
        assert_eq!(Message::parse(&bytes.clone().into()), refused);
        // Nothing behind the version means what it means here.
        bytes[1..].fill(0xff);
        assert_eq!(Message::parse(&bytes.into()), refused);
        let text = MessageError::Version { theirs, ours: VERSION }.to_string();
        assert!(text.contains(&format!("version {theirs}")) && text.contains("upgrade the older"), "{text}");
    }
}

#[test]
fn term_zero_is_refused_where_the_raft_crate_would_take_it_for_local() {
    let message = Message::Heartbeat(Heartbeat { last: 1, commit: 1 });
    let bytes = Bytes::from(message.emit(&Envelope { term: 0, ..envelope() }));
    assert_eq!(Message::parse(&bytes), Err(MessageError::BadValue("term")));
}

#[test]
fn numbers_at_the_limit_and_one_below() {
    for (commit, good) in [(NUMBER_MAX - 1, true), (NUMBER_MAX, false)] {
        let bytes = Bytes::from(Message::CommitNotice(CommitNotice { commit }).emit(&envelope()));
        assert_eq!(Message::parse(&bytes).is_ok(), good, "{commit}");
    }
}

#[test]
fn an_append_with_an_index_but_no_term_before_it_is_refused() {
    let append = Append {
        prev: 3,
        prev_term: 0,
        commit: 0,
        persisted: 0,
        arm: 0,
        entries_term: 1,
        entries: AppendEntries::default(),
    };
    let bytes = Bytes::from(Message::Append(append).emit(&envelope()));
    assert_eq!(Message::parse(&bytes), Err(MessageError::BadValue("previous term")));
}

#[test]
fn items_at_the_limit_and_one_past_it() {
    for (count, good) in [(ITEMS_MAX, true), (ITEMS_MAX + 1, false)] {
        let hint = Hint { identities: vec![Digest(1); count] };
        let bytes = Bytes::from(Message::Hint(hint).emit(&envelope()));
        assert_eq!(Message::parse(&bytes).is_ok(), good, "{count}");
    }
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_again(envelope in any_envelope(), message in any_message()) {
        let bytes = Bytes::from(message.emit(&envelope));
        prop_assert_eq!(Message::parse(&bytes), Ok((envelope, message)));
    }

    #[test]
    fn what_an_aggregator_says_is_parsed_again(envelope in any_envelope(), message in any_of_aggregator()) {
        let envelope = Envelope { from: MemberId::new(NodeId::NONE, Incarnation(0)), ..envelope };
        let bytes = Bytes::from(message.emit(&envelope));
        prop_assert_eq!(Message::parse(&bytes), Ok((envelope, message)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&Bytes::from(bytes));
    }

    #[test]
    fn no_damage_panics(message in any_message(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = message.emit(&envelope());
        let len = bytes.len();
        bytes[at.index(len)] = value;
        let _ = Message::parse(&Bytes::from(bytes.clone()));
        bytes.truncate(cut.index(len));
        prop_assert!(Message::parse(&Bytes::from(bytes)).is_err());
    }
}

fn envelope() -> Envelope {
    Envelope { group: GroupId(1), from: MemberId::new(NodeId(1), Incarnation(1)), life: 1, term: 1 }
}

fn any_envelope() -> impl Strategy<Value = Envelope> {
    (any::<u32>(), 1..=NodeId::MAX, any::<u32>(), any::<u64>(), 1..NUMBER_MAX).prop_map(
        |(group, node, incarnation, life, term)| Envelope {
            group: GroupId(group),
            from: MemberId::new(NodeId(node), Incarnation(incarnation)),
            life,
            term,
        },
    )
}

fn any_body() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

prop_compose! {
    fn any_head()(
        ip in any::<u32>(), port in any::<u16>(), rid in any::<u16>(), identity in any::<u128>(),
        session in prop::option::of((any::<u64>(), any::<u64>(), any::<u64>())),
    ) -> RequestHead {
        RequestHead {
            client: SocketAddrV4::new(Ipv4Addr::from(ip), port),
            rid,
            session: session.map(|(client, seq, first_unacked)| Session { client, seq, first_unacked }),
            identity: Digest(identity),
            body_len: 0,
        }
    }
}

prop_compose! {
    fn any_append_entry()(
        head in any_head(), body in any_body(), inline in any::<bool>(), read_only in any::<bool>(),
        replier in any::<u16>(), time in any::<u64>(), open in any::<bool>(),
    ) -> AppendEntry {
        let entry = Entry {
            kind: if open { EntryKind::SessionOpen } else { EntryKind::Request },
            read_only,
            replier: NodeId(replier),
            request: RequestHead { body_len: body.len() as u32, ..head },
            time: Instant::from_nanos(time),
        };
        let mut raw = Vec::new();
        entry.emit(&mut raw);
        AppendEntry { entry, raw: Bytes::from(raw), body: inline.then_some(body) }
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let number = || 0..NUMBER_MAX;
    let append =
        (1..NUMBER_MAX, 1..1000u64, number(), number(), any::<u64>(), prop::collection::vec(any_append_entry(), 0..5))
            .prop_map(|(prev, prev_term, commit, persisted, arm, entries)| {
                Message::Append(Append {
                    prev,
                    prev_term,
                    commit,
                    persisted,
                    arm,
                    entries_term: prev_term + 1,
                    entries: AppendEntries(entries),
                })
            });
    let reject = (number(), number(), number()).prop_map(|(index, hint, hint_term)| Reject { index, hint, hint_term });
    let ack = (number(), number(), number(), any::<u64>(), any::<bool>(), prop::option::of(reject)).prop_map(
        |(matched, applied, commit, arm, heartbeat, reject)| {
            let (arm, epoch) = if heartbeat || reject.is_some() || arm == 0 { (0, 0) } else { (arm, 3) };
            Message::AppendAck(AppendAck { matched, applied, commit, arm, epoch, version: 7, heartbeat, reject })
        },
    );
    let vote = (any::<bool>(), any::<bool>(), number(), number(), number(), number()).prop_map(
        |(pre, transfer, last, last_term, commit, commit_term)| {
            Message::Vote(Vote { pre, transfer, last, last_term, commit, commit_term })
        },
    );
    let reply = (any::<bool>(), any::<bool>(), number(), number()).prop_map(|(pre, reject, commit, commit_term)| {
        Message::VoteReply(VoteReply { pre, reject, commit, commit_term })
    });
    let items = prop::collection::vec((number(), any::<u128>()), 0..ITEMS_MAX).prop_map(|items| {
        let item = |(index, identity)| FetchItem { index, identity: Digest(identity) };
        Message::Fetch(Fetch { items: items.into_iter().map(item).collect() })
    });
    let body = (any_head(), any_body())
        .prop_map(|(head, body)| Body { head: RequestHead { body_len: body.len() as u32, ..head }, body });
    let bodies =
        (prop::collection::vec(body, 0..5), prop::collection::vec(any::<u128>(), 0..5)).prop_map(|(found, missing)| {
            Message::Bodies(Bodies { found, missing: missing.into_iter().map(Digest).collect() })
        });
    prop_oneof![
        append,
        ack,
        vote,
        reply,
        items,
        bodies,
        (number(), number()).prop_map(|(last, commit)| Message::Heartbeat(Heartbeat { last, commit })),
        number().prop_map(|commit| Message::CommitNotice(CommitNotice { commit })),
        Just(Message::TimeoutNow),
        any::<u64>().prop_map(|life| Message::Refused(Refused { reason: Refusal::AnotherLife, life })),
        snapshot_messages(),
        prop::collection::vec(any::<u128>(), 0..5)
            .prop_map(|ids| Message::Hint(Hint { identities: ids.into_iter().map(Digest).collect() })),
    ]
}

fn any_of_aggregator() -> impl Strategy<Value = Message> {
    let number = || 0..NUMBER_MAX;
    let figures = (1..=NodeId::MAX, number(), number()).prop_map(|(node, matched, applied)| Figures {
        id: MemberId::new(NodeId(node), Incarnation(1)),
        matched,
        applied,
    });
    let members = prop::collection::vec(figures, 0..10);
    prop_oneof![
        (any::<u64>(), 1..=u64::MAX).prop_map(|(request, arm)| Message::Armed(Armed { request, arm })),
        (1..=u64::MAX, any::<u64>(), number(), members)
            .prop_map(|(arm, epoch, commit, members)| Message::AggCommit(AggCommit { arm, epoch, commit, members })),
    ]
}

fn snapshot_messages() -> impl Strategy<Value = Message> {
    let number = || 0..NUMBER_MAX;
    let info = (1..=u64::MAX, number(), number(), 1..=u64::MAX);
    let info = info.prop_map(|(id, index, term, len)| SnapshotInfo { id, index, term, len });
    let chunk = (info, number(), any::<u64>(), any_body()).prop_map(|(info, number, checksum, bytes)| {
        Message::SnapshotChunk(SnapshotChunk { info, chunk: Chunk { number, checksum, bytes } })
    });
    let fetch = (any::<u64>(), number(), number(), 0..=CHUNKS_MAX)
        .prop_map(|(id, min, first, count)| Message::SnapshotFetch(SnapshotFetch { id, min, first, count }));
    let missing = (any::<u64>(), number(), any::<bool>())
        .prop_map(|(id, min, soon)| Message::SnapshotMissing(SnapshotMissing { id, min, soon }));
    prop_oneof![
        chunk,
        fetch,
        missing,
        number().prop_map(|min| Message::Behind(Behind { min })),
        number().prop_map(|index| Message::Receiving(Receiving { index })),
        (number(), number()).prop_map(|(index, term)| Message::Installed(Installed { index, term })),
    ]
}

#[test]
fn chunks_at_the_limit_and_one_past_it() {
    for (count, good) in [(CHUNKS_MAX, true), (CHUNKS_MAX + 1, false)] {
        let fetch = SnapshotFetch { id: 1, min: 1, first: 0, count };
        let bytes = Bytes::from(Message::SnapshotFetch(fetch).emit(&envelope()));
        assert_eq!(Message::parse(&bytes).is_ok(), good, "{count}");
    }
    for (len, good) in [(CHUNK_LEN, true), (CHUNK_LEN + 1, false)] {
        let info = SnapshotInfo { id: 1, index: 1, term: 1, len: 1 };
        let chunk = Chunk { number: 0, checksum: 0, bytes: vec![0; len].into() };
        let bytes = Bytes::from(Message::SnapshotChunk(SnapshotChunk { info, chunk }).emit(&envelope()));
        assert_eq!(Message::parse(&bytes).is_ok(), good, "{len}");
    }
}
