//! What an aggregator says to what it hears, message by message.

use std::net::Ipv4Addr;

use super::*;
use crate::message::{ArmMember, Reader};

const GROUP: GroupId = GroupId(7);
const TERM: u64 = 3;
const EPOCH: u64 = 2;
/// First index of the term.
const FIRST: u64 = 11;

#[test]
fn a_majority_is_announced_at_once_and_with_everything_that_was_said() {
    let mut it = Harness::armed(3);
    it.append(20, 20);
    assert_eq!(it.said(), None, "only the leader has it");
    it.ack(2, 20, 15);
    let said = it.said().expect("two of three");
    assert_eq!((said.arm, said.epoch, said.commit), (it.arm, EPOCH, 20));
    let figures: Vec<(u16, u64, u64)> =
        said.members.iter().map(|of| (of.id.node().0, of.matched, of.applied)).collect();
    assert_eq!(figures, [(1, 20, 0), (2, 20, 15), (3, 0, 0)]);
    assert_eq!(it.said(), None, "once");
}

#[test]
fn other_changes_are_passed_on_later_and_together() {
    let mut it = Harness::armed(5);
    it.append(20, 20);
    it.ack(2, 20, 11);
    it.ack(3, 20, 11);
    assert_eq!(it.said().expect("three of five").commit, 20);
    it.ack(4, 20, 12);
    it.wait(60);
    it.ack(5, 20, 13);
    assert_eq!(it.said(), None, "not yet");
    it.wait(39);
    assert_eq!(it.said(), None, "one microsecond is missing");
    it.wait(1);
    let said = it.said().expect("d after the first change");
    assert_eq!(said.commit, 20);
    assert_eq!((said.members[3].applied, said.members[4].applied), (12, 13));
    it.wait(1_000);
    assert_eq!(it.said(), None, "nothing has changed since");
    it.ack(5, 20, 13);
    it.wait(1_000);
    assert_eq!(it.said(), None, "nor does that change anything");
    assert_eq!((it.core.counters.commits_announced, it.core.counters.changes_forwarded), (1, 1));
}

#[test]
fn one_batch_one_message() {
    let mut it = Harness::armed(3);
    for index in FIRST..FIRST + 5 {
        it.append(index, index);
        it.ack(2, index, 0);
        it.ack(3, index, 0);
    }
    assert_eq!(it.said().expect("a majority").commit, FIRST + 4);
    assert_eq!(it.said(), None);
}

#[test]
fn the_leader_counts_by_what_it_has_persisted() {
    let mut it = Harness::armed(3);
    it.append(20, 15);
    it.ack(2, 20, 0);
    assert_eq!(it.said().expect("two have 15").commit, 15);
    // The disk is done, and no Append is due.
    it.ack(1, 20, 0);
    assert_eq!(it.said().expect("two have 20").commit, 20);
}

#[test]
fn learners_are_passed_on_and_not_counted() {
    let mut it = Harness::new(3);
    it.arm_with(1, |members| members[2].voter = false);
    it.append(20, 20);
    it.ack(3, 20, 20);
    assert_eq!(it.said(), None);
    it.wait(100);
    let said = it.said().expect("d later");
    assert_eq!((said.commit, said.members[2].matched), (0, 20));
    it.ack(2, 20, 0);
    assert_eq!(it.said().expect("both voters").commit, 20);
}

#[test]
fn nothing_before_the_term_is_announced() {
    let mut it = Harness::armed(3);
    it.append(FIRST, FIRST - 1);
    it.ack(2, FIRST, 0);
    assert_eq!(it.said(), None, "a majority has only what is of an earlier term");
    it.ack(1, FIRST, 0);
    assert_eq!(it.said().expect("the first entry of the term").commit, FIRST);
}

#[test]
fn what_does_not_fit_the_arming_is_counted_and_nothing_else() {
    let mut it = Harness::armed(3);
    it.append(20, 20);
    let good = it.good_ack(2, 20);
    let (arm, from, envelope) = (it.arm, address(2), envelope(2));
    let wrong: [(&str, Wrong); 8] = [
        ("acks_not_armed", (from, envelope, AppendAck { arm: 0, epoch: 0, ..good })),
        ("acks_other_arm", (from, envelope, AppendAck { arm: arm ^ 1, ..good })),
        ("acks_other_term", (from, Envelope { term: TERM + 1, ..envelope }, good)),
        ("acks_other_epoch", (from, envelope, AppendAck { epoch: EPOCH + 1, ..good })),
        ("acks_stranger", (from, Envelope { from: member(9), ..envelope }, good)),
        ("acks_stranger", (address(3), envelope, good)),
        ("acks_other_life", (from, Envelope { life: 99, ..envelope }, good)),
        ("messages_other_group", (from, Envelope { group: GroupId(8), ..envelope }, good)),
    ];
    for (reason, (from, envelope, ack)) in wrong {
        let before = it.count(reason);
        it.hear(from, &envelope, kind::APPEND_ACK, |to| ack.emit(to));
        assert_eq!(it.count(reason), before + 1, "{reason}");
        assert_eq!(it.said(), None, "{reason}");
    }
    it.ack(2, 20, 0);
    assert!(it.said().is_some(), "the real one");
}

#[test]
fn another_incarnation_is_another_member() {
    let mut it = Harness::armed(3);
    it.append(20, 20);
    let again = Envelope { from: MemberId::new(NodeId(2), Incarnation(2)), ..envelope(2) };
    let ack = it.good_ack(2, 20);
    it.hear(address(2), &again, kind::APPEND_ACK, |to| ack.emit(to));
    assert_eq!((it.said(), it.count("acks_stranger")), (None, 1));
}

#[test]
fn who_overtakes_the_append_waits_for_it_a_little() {
    let mut it = Harness::armed(3);
    it.ack(2, 20, 0);
    assert_eq!((it.said(), it.count("acks_early")), (None, 1));
    it.wait(999);
    it.append(20, 20);
    assert_eq!(it.said().expect("now it is known").commit, 20);
    it.ack(2, 30, 0);
    it.wait(1_000);
    assert_eq!(it.count("acks_beyond_log"), 1, "forgotten");
    it.append(30, 30);
    assert_eq!(it.said(), None);
    // What is forgotten late does not count late either.
    it.ack(2, 40, 0);
    it.now += Duration::from_millis(1);
    it.append(40, 40);
    assert_eq!(it.said(), None);
}

#[test]
fn appends_under_another_id_or_from_somebody_else_say_nothing() {
    let mut it = Harness::armed(3);
    it.ack(2, 20, 0);
    let head =
        AppendHead { prev: 19, prev_term: TERM, persisted: 20, arm: it.arm, entries_term: TERM, count: 1, commit: 0 };
    let plain = AppendHead { arm: 0, ..head };
    let other = AppendHead { arm: it.arm ^ 1, ..head };
    it.hear(address(1), &envelope(1), kind::APPEND, |to| plain.emit(to));
    it.hear(address(1), &envelope(1), kind::APPEND, |to| other.emit(to));
    it.hear(address(2), &envelope(2), kind::APPEND, |to| head.emit(to));
    it.hear(address(2), &envelope(1), kind::APPEND, |to| head.emit(to));
    let seen =
        ["appends_not_armed", "appends_other_arm", "appends_not_leader", "appends_seen"].map(|name| it.count(name));
    assert_eq!((seen, it.said()), ([1, 1, 2, 0], None));
}

#[test]
fn a_later_arming_begins_with_nothing() {
    let mut it = Harness::armed(3);
    it.append(20, 20);
    it.ack(2, 20, 0);
    assert!(it.said().is_some());
    let before = it.arm;
    it.arm_with(2, |_| {});
    assert_ne!(it.arm, before);
    it.append(21, 21);
    assert_eq!(it.said(), None, "what was said under another id is forgotten");
    it.ack(3, 21, 0);
    let said = it.said().expect("two of three");
    assert_eq!((said.commit, said.members[1].matched), (21, 0));
}

#[test]
fn a_request_that_is_repeated_gets_the_same_answer_and_a_late_one_none() {
    let mut it = Harness::armed(3);
    let first = it.arm;
    it.arm_with(1, |_| {});
    assert_eq!((it.arm, it.count("arms_accepted")), (first, 1), "a copy");
    it.arm_with(2, |_| {});
    let second = it.arm;
    it.ask(1, TERM, 1, |_| {});
    it.ask(1, TERM - 1, 9, |_| {});
    it.ask(2, TERM, 9, |_| {});
    assert_eq!((it.answer(), it.count("arms_stale")), (None, 3));
    assert_eq!(it.core.arm_id(GROUP), Some(second));
    it.ask(2, TERM + 1, 1, |_| {});
    assert!(it.answer().is_some(), "the next leader");
}

#[test]
fn only_who_votes_and_is_known_arms() {
    let mut it = Harness::new(3);
    it.ask(1, TERM, 1, |members| members[0].voter = false);
    it.ask(1, TERM, 1, |members| members[0].life = 99);
    it.ask(1, TERM, 1, |members| members[0].address = address(2));
    it.ask(1, TERM, 1, |members| members.clear());
    assert_eq!((it.answer(), it.count("arms_not_leader")), (None, 4));
    // Node 9 is in no configuration.
    it.ask(9, TERM, 1, |members| members.push(armed_member(9)));
    assert_eq!((it.answer(), it.count("arms_stranger")), (None, 1));
    // But a leader that is may name it.
    it.ask(1, TERM, 1, |members| members.push(armed_member(9)));
    assert!(it.answer().is_some());
    it.ask(9, TERM + 1, 1, |members| members.push(armed_member(9)));
    assert!(it.answer().is_some());
}

#[test]
fn ids_are_never_used_again_by_nobody() {
    let mut ids: Vec<u64> = (0..50).flat_map(|life| (1..50).map(move |count| arm_id(life, count))).collect();
    assert!(!ids.contains(&0));
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn groups_do_not_meet() {
    let other = GroupId(8);
    let mut it = Harness::of(AggregatorConfig::new(5, vec![group(GROUP, 3), group(other, 3)]));
    it.arm_with(1, |_| {});
    let first = it.arm;
    it.group = other;
    it.arm_with(1, |_| {});
    assert_ne!(it.arm, first);
    it.append(20, 20);
    it.ack(2, 20, 0);
    let (to, envelope, said) = it.sent().expect("two of three of that group");
    assert_eq!((envelope.group, envelope.term, envelope.from, envelope.life), (other, TERM, NOBODY, 5));
    assert_eq!((said.commit, to), (20, To::One(multicast_of(other))));
    assert_eq!(it.said(), None, "the other has heard nothing");
}

#[test]
fn without_multicast_each_member_gets_a_copy() {
    let config = GroupConfig { multicast: None, ..group(GROUP, 3) };
    let mut it = Harness::of(AggregatorConfig::new(5, vec![config]));
    it.arm_with(1, |_| {});
    it.append(20, 20);
    it.ack(3, 20, 0);
    let (to, ..) = it.sent().expect("two of three");
    assert_eq!(to.addresses(), [address(1), address(2), address(3)]);
}

#[test]
fn answers_are_bounded() {
    let mut it = Harness::new(3);
    for _ in 0..ANSWERS_MAX + 1 {
        it.ask(1, TERM, 1, |_| {});
    }
    assert_eq!(it.count("answers_dropped"), 1);
    for _ in 0..ANSWERS_MAX {
        assert!(it.answer().is_some());
    }
    assert_eq!(it.answer(), None);
}

#[test]
fn what_is_no_message_is_counted() {
    let mut it = Harness::armed(3);
    it.core.handle_packet(it.now, address(1), b"");
    it.core.handle_packet(it.now, address(1), &[0xCC; 40]);
    assert_eq!(it.count("packets_malformed"), 2);
    it.hear(address(1), &envelope(1), kind::ARM, |_| {});
    assert_eq!(it.count("messages_malformed"), 1);
    // A heartbeat.
    it.hear(address(1), &envelope(1), 3, |_| {});
    assert_eq!(it.count("messages_of_no_concern"), 1);
}

type Wrong = (SocketAddrV4, Envelope, AppendAck);

pub(super) fn member(node: u16) -> MemberId {
    MemberId::new(NodeId(node), Incarnation(1))
}

pub(super) fn address(node: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node as u8), 9100)
}

fn multicast_of(group: GroupId) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, group.0 as u8), 9100)
}

fn life(node: u16) -> u64 {
    1_000 + u64::from(node)
}

fn armed_member(node: u16) -> ArmMember {
    ArmMember { id: member(node), voter: true, life: life(node), address: address(node) }
}

pub(super) fn envelope(node: u16) -> Envelope {
    Envelope { group: GROUP, from: member(node), life: life(node), term: TERM }
}

fn group(group: GroupId, nodes: u16) -> GroupConfig {
    GroupConfig { group, nodes: (1..=nodes).map(address).collect(), multicast: Some(multicast_of(group)) }
}

pub(super) fn datagram(envelope: &Envelope, kind: u8, write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut to = envelope.emit(kind);
    write(&mut to);
    let extensions = Extensions::default();
    let head = MessageHead { kind: MessageType::RaftMessage, policy: Policy::Fixed, rid: 1, extensions };
    let mut only = Bytes::new();
    write_packets(&head, &to.finish(), 1472, &mut |packet| only = packet).expect("fits");
    only
}

/// An aggregator, and nodes that say what they are told to.
pub(super) struct Harness {
    pub(super) core: Aggregator,
    pub(super) now: Instant,
    nodes: u16,
    group: GroupId,
    pub(super) arm: u64,
}

impl Harness {
    pub(super) fn new(nodes: u16) -> Self {
        Self { nodes, ..Self::of(AggregatorConfig::new(5, vec![group(GROUP, nodes)])) }
    }

    fn of(config: AggregatorConfig) -> Self {
        Self { core: Aggregator::new(config), now: Instant::ZERO, nodes: 3, group: GROUP, arm: 0 }
    }

    /// Node 1 leads and has armed.
    pub(super) fn armed(nodes: u16) -> Self {
        let mut it = Self::new(nodes);
        it.arm_with(1, |_| {});
        it
    }

    fn ask(&mut self, leader: u16, term: u64, request: u64, change: impl FnOnce(&mut Vec<ArmMember>)) {
        let mut members = (1..=self.nodes).map(armed_member).collect();
        change(&mut members);
        let arm = Arm { request, epoch: EPOCH, first: FIRST, members };
        self.hear(address(leader), &Envelope { term, ..envelope(leader) }, kind::ARM, |to| arm.emit(to));
    }

    fn arm_with(&mut self, request: u64, change: impl FnOnce(&mut Vec<ArmMember>)) {
        self.ask(1, TERM, request, change);
        let armed = self.answer().expect("an answer");
        assert_eq!(armed.request, request);
        self.arm = armed.arm;
    }

    fn answer(&mut self) -> Option<Armed> {
        let Output::Send { to, packet } = self.core.poll_output(self.now) else { return None };
        assert_eq!(to.addresses().len(), 1);
        let body = whole_message(&packet).expect("one datagram");
        let mut from = Reader::new(body);
        let (_, kind) = Envelope::parse(&mut from).expect("an envelope");
        assert_eq!(kind, kind::ARMED);
        Some(Armed::parse(&mut from).expect("an answer"))
    }

    pub(super) fn hear(&mut self, from: SocketAddrV4, envelope: &Envelope, kind: u8, write: impl FnOnce(&mut Writer)) {
        let group = if envelope.group == GROUP { self.group } else { envelope.group };
        let packet = datagram(&Envelope { group, ..*envelope }, kind, write);
        self.core.handle_packet(self.now, from, &packet);
    }

    pub(super) fn append(&mut self, last: u64, persisted: u64) {
        let (arm, prev) = (self.arm, last - 1);
        let head = AppendHead { prev, prev_term: TERM, persisted, arm, entries_term: TERM, count: 1, commit: 0 };
        self.hear(address(1), &envelope(1), kind::APPEND, |to| head.emit(to));
    }

    fn good_ack(&self, _node: u16, matched: u64) -> AppendAck {
        AppendAck { matched, arm: self.arm, epoch: EPOCH, ..AppendAck::default() }
    }

    pub(super) fn ack(&mut self, node: u16, matched: u64, applied: u64) {
        let ack = AppendAck { applied, ..self.good_ack(node, matched) };
        self.hear(address(node), &envelope(node), kind::APPEND_ACK, |to| ack.emit(to));
    }

    pub(super) fn wait(&mut self, micros: u64) {
        self.now += Duration::from_micros(micros);
        self.core.handle_timeout(self.now);
    }

    fn sent(&mut self) -> Option<(To, Envelope, AggCommit)> {
        let Output::Send { to, packet } = self.core.poll_output(self.now) else { return None };
        let body = whole_message(&packet).expect("one datagram");
        let mut from = Reader::new(body);
        let (envelope, kind) = Envelope::parse(&mut from).expect("an envelope");
        assert_eq!(kind, kind::AGG_COMMIT);
        let said = AggCommit::parse(&mut from).expect("an AggCommit");
        from.end().expect("nothing more");
        Some((to, envelope, said))
    }

    pub(super) fn said(&mut self) -> Option<AggCommit> {
        self.sent().map(|(_, _, said)| said)
    }

    fn count(&self, name: &str) -> u64 {
        let counters: Vec<(&str, u64)> = self.core.counters.iter().collect();
        counters.iter().find(|(other, _)| *other == name).map(|(_, value)| *value).expect("a counter")
    }
}
