use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::*;

#[test]
fn an_armed_byte_by_byte() {
    let envelope = Envelope { group: GroupId(0x0102_0304), from: AGGREGATOR, life: 0x1111_2222_3333_4444, term: 7 };
    let mut to = envelope.emit(kind::ARMED);
    Armed { request: 8, arm: 0x99 }.emit(&mut to);
    let expected: [u8; ENVELOPE_LEN + 16] = [
        1, 21, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0, 0, 0, 0, 0,
        0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x99,
    ];
    assert_eq!(to.finish(), expected);
}

#[test]
fn node_0_is_the_aggregator_and_nobody_else() {
    for (kind, from, good) in [
        (kind::APPEND, MEMBER, true),
        (kind::APPEND, AGGREGATOR, false),
        (kind::AGG_COMMIT, AGGREGATOR, true),
        (kind::AGG_COMMIT, MEMBER, false),
        (kind::ARMED, MEMBER, false),
    ] {
        let bytes = Envelope { from, ..envelope() }.emit(kind).finish();
        let parsed = Envelope::parse(&mut Reader::new(&bytes));
        assert_eq!(parsed.is_ok(), good, "{kind} {from:?}");
    }
}

#[test]
fn an_armed_acknowledgement_neither_answers_heartbeats_nor_rejects() {
    let reject = Reject { index: 1, hint: 1, hint_term: 1 };
    for (arm, heartbeat, reject, good) in
        [(0, true, Some(reject), true), (1, false, None, true), (1, true, None, false), (1, false, Some(reject), false)]
    {
        let ack = AppendAck { arm, heartbeat, reject, ..AppendAck::default() };
        let bytes = emit(kind::APPEND_ACK, |to| ack.emit(to));
        assert_eq!(Seen::parse(&bytes).is_ok(), good, "{ack:?}");
    }
}

#[test]
fn members_at_the_limit_and_one_past_it() {
    for (count, good) in [(MEMBERS_MAX, true), (MEMBERS_MAX + 1, false)] {
        let members = (1..=count as u16).map(|node| ArmMember { id: member(node), ..any_of(node) }).collect();
        let arm = Arm { request: 1, epoch: 1, first: 1, members };
        let bytes = emit(kind::ARM, |to| arm.emit(to));
        assert_eq!(Seen::parse(&bytes).is_ok(), good, "{count}");
        let members = (1..=count as u16).map(|node| Figures { id: member(node), matched: 1, applied: 1 }).collect();
        let commit = AggCommit { arm: 1, epoch: 1, commit: 1, members };
        let mut to = Writer::with_capacity(0);
        commit.emit(&mut to);
        assert_eq!(AggCommit::parse(&mut Reader::new(&to.finish())).is_ok(), good, "{count}");
    }
}

#[test]
fn a_member_counts_once() {
    let arm = Arm { request: 1, epoch: 1, first: 1, members: vec![any_of(1), any_of(2), any_of(1)] };
    let bytes = emit(kind::ARM, |to| arm.emit(to));
    assert_eq!(Seen::parse(&bytes), Err(MessageError::BadValue("member, twice")));
}

#[test]
fn a_term_begins_behind_nothing_and_arm_id_0_is_none() {
    let arm = Arm { request: 1, epoch: 1, first: 0, members: vec![any_of(1)] };
    let bytes = emit(kind::ARM, |to| arm.emit(to));
    assert_eq!(Seen::parse(&bytes), Err(MessageError::BadValue("first index of the term")));
    let mut to = Writer::with_capacity(0);
    Armed { request: 1, arm: 0 }.emit(&mut to);
    assert_eq!(Armed::parse(&mut Reader::new(&to.finish())), Err(MessageError::BadValue("arm id")));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_again(envelope in any_envelope(), seen in any_seen()) {
        let bytes = emit_seen(&envelope, &seen);
        prop_assert_eq!(Seen::parse(&bytes), Ok((envelope, seen)));
    }

    #[test]
    fn what_the_aggregator_says_is_parsed_again(request in any::<u64>(), commit in any_commit()) {
        let mut to = Writer::with_capacity(0);
        let armed = Armed { request, arm: commit.arm };
        armed.emit(&mut to);
        commit.emit(&mut to);
        let bytes = to.finish();
        let mut from = Reader::new(&bytes);
        prop_assert_eq!(Armed::parse(&mut from), Ok(armed));
        prop_assert_eq!(AggCommit::parse(&mut from), Ok(commit));
        prop_assert_eq!(from.end(), Ok(()));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Seen::parse(&bytes);
        let _ = Armed::parse(&mut Reader::new(&bytes));
        let _ = AggCommit::parse(&mut Reader::new(&bytes));
    }

    #[test]
    fn no_damage_panics(seen in any_seen(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = emit_seen(&envelope(), &seen);
        let len = bytes.len();
        bytes[at.index(len)] = value;
        let _ = Seen::parse(&bytes);
        bytes = emit_seen(&envelope(), &seen);
        bytes.truncate(cut.index(len));
        prop_assert!(Seen::parse(&bytes).is_err());
    }
}

const AGGREGATOR: MemberId = MemberId::new(NodeId::NONE, Incarnation(0));
const MEMBER: MemberId = MemberId::new(NodeId(1), Incarnation(1));

fn member(node: u16) -> MemberId {
    MemberId::new(NodeId(node), Incarnation(1))
}

fn any_of(node: u16) -> ArmMember {
    ArmMember { id: member(node), voter: true, life: 1, address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, node) }
}

fn envelope() -> Envelope {
    Envelope { group: GroupId(1), from: MEMBER, life: 1, term: 1 }
}

fn emit(kind: u8, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut to = envelope().emit(kind);
    write(&mut to);
    to.finish()
}

fn emit_seen(envelope: &Envelope, seen: &Seen) -> Vec<u8> {
    match seen {
        Seen::Append(head) => {
            let mut to = envelope.emit(kind::APPEND);
            head.emit(&mut to);
            to.finish()
        }
        Seen::AppendAck(ack) => {
            let mut to = envelope.emit(kind::APPEND_ACK);
            ack.emit(&mut to);
            to.finish()
        }
        Seen::Arm(arm) => {
            let mut to = envelope.emit(kind::ARM);
            arm.emit(&mut to);
            to.finish()
        }
        // A heartbeat.
        Seen::Other => envelope.emit(3).finish(),
    }
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

fn any_commit() -> impl Strategy<Value = AggCommit> {
    let number = || 0..NUMBER_MAX;
    let figures =
        (1..=NodeId::MAX, any::<u32>(), number(), number()).prop_map(|(node, incarnation, matched, applied)| Figures {
            id: MemberId::new(NodeId(node), Incarnation(incarnation)),
            matched,
            applied,
        });
    (1..=u64::MAX, any::<u64>(), number(), prop::collection::vec(figures, 0..=MEMBERS_MAX))
        .prop_map(|(arm, epoch, commit, members)| AggCommit { arm, epoch, commit, members })
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let number = || 0..NUMBER_MAX;
    let append = (1..NUMBER_MAX, 1..1000u64, number(), number(), any::<u64>(), any::<u32>()).prop_map(
        |(prev, prev_term, commit, persisted, arm, count)| {
            Seen::Append(AppendHead { prev, prev_term, commit, persisted, arm, entries_term: prev_term + 1, count })
        },
    );
    let reject = (number(), number(), number()).prop_map(|(index, hint, hint_term)| Reject { index, hint, hint_term });
    let ack = (number(), number(), number(), any::<u64>(), any::<bool>(), prop::option::of(reject)).prop_map(
        |(matched, applied, commit, arm, heartbeat, reject)| {
            let plain = heartbeat || reject.is_some();
            let (arm, epoch) = if plain || arm == 0 { (0, 0) } else { (arm, arm ^ 5) };
            Seen::AppendAck(AppendAck { matched, applied, commit, arm, epoch, version: 7, heartbeat, reject })
        },
    );
    let members = prop::collection::btree_map(
        1..=NodeId::MAX,
        (any::<u32>(), any::<bool>(), any::<u64>(), any::<u32>(), any::<u16>()),
        0..=MEMBERS_MAX,
    );
    let arm = (any::<u64>(), any::<u64>(), 1..NUMBER_MAX, members).prop_map(|(request, epoch, first, members)| {
        let members = members.into_iter().map(|(node, (incarnation, voter, life, ip, port))| ArmMember {
            id: MemberId::new(NodeId(node), Incarnation(incarnation)),
            voter,
            life,
            address: SocketAddrV4::new(Ipv4Addr::from_bits(ip), port),
        });
        Seen::Arm(Arm { request, epoch, first, members: members.collect() })
    });
    prop_oneof![append, ack, arm, Just(Seen::Other)]
}
