//! The aggregator (protocol.md §8, §6.7): it dies, stands still, is cut off, is there twice, and comes back from long ago.

use std::time::Duration;

use bytes::Bytes;
use hovercraft::message::{AggCommit, Envelope, Figures, Message};
use hovercraft::{GroupId, Incarnation, MemberId, Mode, NodeId};
use simulator::registers::Request::{Add, Get, Set};
use simulator::scenario::Setup;
use simulator::world::{DiskConfig, aggregator_address, peer_address};
use simulator::{Party, Registers, Scenario};

use super::members::{admit, lead, settle};

/// A group with one aggregator, and room for a second.
fn cluster(nodes: u16) -> Setup {
    Scenario::cluster(nodes).with(|config| {
        config.node.mode = Mode::HovercraftPlusPlus;
        config.aggregators = 2;
        // Followers of three would not need the aggregator.
        config.node.early_commit = false;
    })
}

/// Waits until whoever leads has armed an aggregator that was not armed when this was counted.
#[track_caller]
fn until_armed(s: &mut Scenario<Registers>, before: u64) {
    s.until("it is armed", |world| {
        world.leader().and_then(|id| world.node(id)).is_some_and(|node| node.counters().armings > before)
    });
}

/// Waits for the arming of a new group, and for one operation.
#[track_caller]
fn begin(s: &mut Scenario<Registers>) {
    until_armed(s, 0);
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
}

#[test]
fn acknowledgements_come_back_as_one_message() {
    let mut s = cluster(5).registers();
    let [leader, ..] = s.cast::<5>();
    begin(&mut s);
    let (direct, folded) = (s.watch("append_ack").to(leader).which(is_no_heartbeat), s.watch("append_ack"));
    let _ = folded.clone().to(Party::Aggregator(0));
    let (commits, notices) = (s.watch("agg_commit").to(leader), s.watch("commit_notice"));
    for expected in 2..=50 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    assert_eq!(direct.hits(), 0, "nothing but answers to heartbeats comes straight");
    assert_eq!(notices.hits(), 0, "who hears the aggregator needs no notice");
    assert!(folded.hits() >= 4 * 49, "all four acknowledge all: {}", folded.hits());
    // One when a majority has it, and at most one more for what came after.
    assert!((49..=2 * 49 + 10).contains(&commits.hits()), "{}", commits.hits());
    assert_eq!(s.counters(leader).agg_commits_missed, 0);
    s.converge();
}

fn is_no_heartbeat(flight: &simulator::Flight<'_>) -> bool {
    !matches!(flight.message(), Some(Message::AppendAck(ack)) if ack.heartbeat)
}

/// Losing the aggregator costs a wait for one Append, and nothing else; another one is armed as soon as it is there.
#[test]
pub(crate) fn it_dies_and_another_is_started() {
    let mut s = cluster(5).patient_clients().registers();
    let [leader, ..] = s.cast::<5>();
    begin(&mut s);
    s.kill_aggregator(0);
    let began = s.now();
    assert_eq!(s.client(0).value(Add(1, 1)), 2, "a patient client does not ask twice");
    let took = s.now().since(began);
    // The first Append is repeated without arm id after 1 ms at the latest when round trips are short.
    assert!(took < Duration::from_millis(5), "{took:?}");
    s.until("it does without", |world| world.node(leader).unwrap().counters().agg_commits_missed == 1);
    let without = s.now().since(began);
    assert!(without <= 3 * hovercraft::Timing::default().aggregate_min, "{without:?}");
    for expected in 3..=20 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    assert_eq!(s.counters(leader).agg_commits_missed, 1, "what goes out without arm id waits for nobody");
    let armings = s.counters(leader).armings;
    s.start_aggregator(0);
    until_armed(&mut s, armings);
    let before = s.counters(leader).agg_commits_received;
    assert_eq!(s.client(0).value(Add(1, 1)), 21);
    assert!(s.counters(leader).agg_commits_received > before);
}

/// One that is restarted under load knows nothing of the id under which it is spoken to.
#[test]
fn it_is_restarted_and_does_not_know_the_old_id() {
    let mut s = cluster(3).registers();
    let [leader, ..] = s.cast::<3>();
    begin(&mut s);
    s.kill_aggregator(0);
    s.start_aggregator(0);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
    let counters = *s.aggregator(0).expect("it runs").totals();
    assert!(counters.appends_other_arm > 0 && counters.acks_other_arm > 0, "{counters:?}");
    assert_eq!(counters.acks_counted, 0);
    let armings = s.counters(leader).armings;
    until_armed(&mut s, armings);
    assert_eq!(s.client(0).value(Add(1, 1)), 3);
    assert!(s.aggregator(0).expect("it runs").totals().acks_counted > 0);
}

/// §6.6: an AggCommit that overtakes its Append on a follower with a divergent tail commits nothing there.
#[test]
pub(crate) fn an_agg_commit_overtakes_its_append_on_a_follower_with_a_divergent_tail() {
    let mut s = cluster(5).clients(2).registers();
    let [old, f, ..] = s.cast::<5>();
    begin(&mut s);
    s.lose("append").from(old).not_to(f);
    let last = s.last(f);
    s.client(0).begin(Set(1, 100));
    s.until("F alone has it", |world| world.node(f).unwrap().consensus().log().last() > last);
    s.heal();
    s.isolate(old, &[]);
    s.isolate(f, &[]);
    s.until("one of the others leads", |world| world.leader().is_some_and(|leader| leader != old && leader != f));
    let new = s.leader().unwrap();
    until_armed(&mut s, 0);
    s.heal();
    s.isolate(old, &[]);
    let appends = s.lose("append").to(f);
    // It is in the term of the new leader, and what the old one has given it is still there.
    s.until("F hears the new leader", |world| world.node(f).unwrap().consensus().term() == s_term(world, new));
    let quiet = s.lose("heartbeat|commit_notice").to(f);
    let heard = s.watch("agg_commit").to(f);
    let commit = s.commit(f);
    assert!(s.last(f) > commit);
    s.client(1).value(Add(1, 10));
    s.client(1).value(Add(1, 10));
    s.run_for(Duration::from_millis(2));
    assert!(heard.hits() > 0);
    assert_eq!(s.commit(f), commit, "committed what it cannot know");
    s.stop(&appends);
    s.stop(&quiet);
    s.heal();
    s.converge();
}

fn s_term(world: &simulator::World<Registers>, id: u16) -> u64 {
    world.node(id).unwrap().consensus().term()
}

/// Two at one address: both hear everything, the leader keeps to the one that answered first.
#[test]
fn two_are_there_at_once() {
    let mut s = cluster(5).registers();
    let [leader, ..] = s.cast::<5>();
    begin(&mut s);
    s.start_aggregator(1);
    for expected in 2..=20 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    let second = *s.aggregator(1).expect("it runs").totals();
    assert!(second.acks_other_arm > 0 && second.acks_counted == 0, "{second:?}");
    // The next leader is answered by both.
    s.kill(leader);
    let next = s.until_another_leads(leader);
    until_armed(&mut s, 0);
    for expected in 21..=40 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    let counters = s.counters(next);
    assert!(counters.armed_unexpected >= 1, "{counters:?}");
    assert!(counters.agg_commits_received > 0);
    s.converge();
}

/// One that was cut off from the new leader comes back from a pause with what it was told in another term.
#[test]
fn a_stale_one_comes_back() {
    let mut s = cluster(5).clients(2).registers();
    let [old, ..] = s.cast::<5>();
    begin(&mut s);
    // What is acknowledged now waits in its socket.
    s.pause_aggregator(0);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
    s.start_aggregator(1);
    s.kill(old);
    let new = s.until_another_leads(old);
    until_armed(&mut s, 0);
    assert_eq!(s.client(1).value(Add(1, 1)), 3);
    let before = s.counters(new);
    s.resume_aggregator(0);
    s.run_for(Duration::from_millis(5));
    assert_eq!(s.client(1).value(Add(1, 1)), 4);
    let counters = s.counters(new);
    let refused = |counters: &hovercraft::node::Counters| {
        counters.agg_commits_other_term + counters.agg_commits_other_arm + counters.armed_unexpected
    };
    assert!(refused(&counters) > refused(&before), "{counters:?}");
    s.converge();
}

/// It does not hear one member, and is not heard by another: the others are a majority.
#[test]
fn it_is_cut_off_from_some() {
    let mut s = cluster(5).registers();
    let [leader, a, b, ..] = s.cast::<5>();
    begin(&mut s);
    s.block(Party::Node(a), Party::Aggregator(0));
    s.block(Party::Aggregator(0), Party::Node(b));
    for expected in 2..=20 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    assert_eq!(s.counters(leader).agg_commits_missed, 0);
    s.converge();
}

/// It does not hear the leader, or the leader does not hear it: the group does without.
#[test]
fn it_is_cut_off_from_the_leader() {
    for hears in [true, false] {
        let mut s = cluster(3).registers();
        let [leader, ..] = s.cast::<3>();
        begin(&mut s);
        let (node, aggregator) = (Party::Node(leader), Party::Aggregator(0));
        if hears {
            s.block(aggregator, node)
        } else {
            s.block(node, aggregator)
        }
        for expected in 2..=20 {
            assert_eq!(s.client(0).value(Add(1, 1)), expected);
        }
        assert!(s.counters(leader).agg_commits_missed > 0);
        let armings = s.counters(leader).armings;
        s.heal();
        until_armed(&mut s, armings);
        assert_eq!(s.client(0).value(Add(1, 1)), 21);
    }
}

/// §6.7 [it counts the leader and one follower, and the leader loses power before its sync].
#[test]
pub(crate) fn the_leader_counts_when_its_disk_has_synced() {
    let mut s = cluster(3).with(|config| config.node.durable = true).registers();
    let [leader, f, other] = s.cast::<3>();
    begin(&mut s);
    // The one follower is cut off, the other one is fast, and the leader's disk hangs.
    s.isolate(other, &[]);
    s.set_disk(leader, DiskConfig { latency: Duration::from_millis(20), jitter: Duration::ZERO });
    let commit = s.commit(f);
    s.client(0).begin(Set(1, 7));
    let last = s.last(f);
    s.until("F has it on disk", |world| world.node(f).unwrap().consensus().persisted() > last);
    s.run_for(Duration::from_millis(5));
    assert_eq!(s.commit(f), commit, "only one of three has it");
    assert!(matches!(s.client(0).end(1)[0].outcome, r2p2::client::Outcome::Ok(_)));
    s.heal();
    s.converge();
}

/// Whoever comes is acknowledged directly until all is settled; then under another epoch.
#[test]
fn it_is_disarmed_while_the_membership_changes() {
    let mut s = cluster(3).with(|config| config.spares = 1).registers();
    let [leader, ..] = s.cast::<3>();
    begin(&mut s);
    let armings = s.counters(leader).armings;
    admit(&mut s, 4);
    settle(&mut s);
    let leader = s.leader().expect("somebody leads");
    assert!(s.counters(leader).disarmed_members > 0);
    until_armed(&mut s, armings);
    for expected in 2..=20 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
    }
    assert!(s.counters(4).acks_folded > 0, "the new one too");
    s.converge();
}

/// What the aggregator says is lost to all, or to the leader: the first Append waits for its repetition, no client asks twice.
#[test]
fn what_it_says_is_lost() {
    for to_leader in [true, false] {
        let mut s = cluster(5).patient_clients().registers();
        let [leader, ..] = s.cast::<5>();
        begin(&mut s);
        let lost = s.lose("agg_commit");
        let lost = if to_leader { lost.to(leader) } else { lost };
        for expected in 2..=10 {
            assert_eq!(s.client(0).value(Add(1, 1)), expected);
        }
        assert!(lost.hits() > 0);
        s.stop(&lost);
        s.converge();
    }
}

/// Figures beyond the leader's log, and under an id that is not the leader's, change nothing.
#[test]
pub(crate) fn forged_figures_are_counted_and_harmless() {
    let mut s = cluster(3).registers();
    let [leader, f, _] = s.cast::<3>();
    begin(&mut s);
    s.isolate(leader, &[]);
    let (commit, term) = (s.commit(leader), s.term(leader));
    let arm = s.aggregator(0).and_then(|core| core.arm_id(GroupId(1))).expect("it is armed");
    let epoch = s.node(leader).unwrap().membership().epoch;
    for (arm, matched, from) in [
        (arm, 1 << 40, aggregator_address()),
        (arm ^ 1, commit + 1, aggregator_address()),
        (arm, commit + 1, peer_address(f)),
    ] {
        let member = |node| MemberId::new(NodeId(node), Incarnation(1));
        let members = vec![Figures { id: member(f), matched, applied: 0 }];
        let said = Message::AggCommit(AggCommit { arm, epoch, commit: commit + 1, members });
        let envelope = Envelope { group: GroupId(1), from: MemberId::new(NodeId::NONE, Incarnation(0)), life: 1, term };
        let mut packet = vec![0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1];
        packet.extend_from_slice(&said.emit(&envelope));
        s.send_raw(from, peer_address(leader), Bytes::from(packet));
        s.run_for(Duration::from_micros(100));
    }
    let counters = s.counters(leader);
    assert_eq!((counters.agg_figures_inflated, counters.agg_commits_other_arm), (1, 1));
    assert_eq!(counters.peer_messages_stranger, 1);
    assert_eq!(s.commit(leader), commit);
    s.heal();
    assert_eq!(s.client(0).value(Get(1)), 1);
}

/// §6.7: four vote and one learns; two of the four and the learner are no majority.
#[test]
pub(crate) fn a_learner_is_not_counted() {
    let mut s = cluster(4).with(|config| config.spares = 1).registers();
    begin(&mut s);
    s.repeat("it is let in", |world| world.admit(5, false));
    settle(&mut s);
    let leader = s.leader().expect("somebody leads");
    // In step it takes what is sent to all, and acknowledges it as all do.
    let mut expected = 2;
    while s.counters(5).acks_folded == 0 {
        assert_eq!(s.client(0).value(Add(1, 1)), expected);
        expected += 1;
        assert!(expected < 1_000, "it never acknowledges to the aggregator");
    }
    let others: Vec<u16> = (1..=4).filter(|id| *id != leader).collect();
    // Two voters hear and say nothing.
    s.isolate(others[0], &[]);
    s.isolate(others[1], &[]);
    let (commit, last) = (s.commit(others[2]), s.last(5));
    s.client(0).begin(Set(1, 7));
    s.until("the learner has it", |world| world.node(5).expect("it runs").consensus().log().last() > last);
    s.run_for(Duration::from_millis(3));
    assert_eq!((s.commit(leader), s.commit(others[2]), s.commit(5)), (commit, commit, commit));
    s.heal();
    s.client(0).end(1);
    s.converge();
}

/// §6.7: a new leader's disk is slow. When it and one follower are heard, a majority has only what is of an earlier term.
#[test]
pub(crate) fn nothing_of_an_earlier_term_is_announced() {
    let mut s = cluster(3).clients(2).with(|config| config.node.durable = true).registers();
    let [_, next, _] = s.cast::<3>();
    begin(&mut s);
    s.set_disk(next, DiskConfig { latency: Duration::from_millis(8), jitter: Duration::ZERO });
    lead(&mut s, next);
    let arm = |world: &simulator::World<Registers>| world.node(next).expect("it runs").counters().armings > 0;
    s.until("it is armed before its first entry is on its disk", arm);
    let consensus = s.node(next).expect("it runs").consensus();
    assert!(consensus.persisted() < consensus.log().last());
    let commits = s.watch("agg_commit");
    assert_eq!(s.client(1).value(Add(1, 1)), 2);
    assert!(commits.hits() > 0);
    s.converge();
}

/// §6.6: an AggCommit of a term that a node has not heard of says nothing about what the leader before has given it.
#[test]
pub(crate) fn an_agg_commit_comes_before_its_term() {
    let mut s = cluster(5).clients(2).registers();
    let [old, f, ..] = s.cast::<5>();
    begin(&mut s);
    s.lose("append").from(old).not_to(f);
    let last = s.last(f);
    s.client(0).begin_many(3, Set(1, 100));
    s.until("F alone has them", |world| world.node(f).unwrap().consensus().log().last() > last + 2);
    s.heal();
    s.isolate(old, &[]);
    s.isolate(f, &[]);
    s.until("one of the others leads", |world| world.leader().is_some_and(|leader| leader != old && leader != f));
    s.until("it is armed", |world| {
        let leader = world.leader().and_then(|id| world.node(id));
        leader.is_some_and(|node| node.counters().armings > 0 && node.consensus().commit_is_current())
    });
    s.reconnect();
    s.isolate(old, &[]);
    let quiet = s.lose("*").to(f).not_from(Party::Aggregator(0));
    let term = s.term(f);
    let heard = s.watch("agg_commit").to(f);
    for _ in 0..3 {
        s.client(1).value(Add(1, 10));
    }
    s.run_for(Duration::from_millis(2));
    assert!(heard.hits() > 0 && s.term(f) == term, "it has heard of no other term");
    assert!(s.commit(f) <= last, "committed what the others have replaced");
    s.stop(&quiet);
    s.heal();
    s.converge();
}
