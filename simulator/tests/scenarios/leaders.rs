//! Leaders that die, sleep, hear nobody or come back (protocol.md §7.1, §7.3, §7.5, §7.7).

use std::time::Duration;

use hovercraft::consensus::Role;
use simulator::registers::Request::{Add, Get, Set};
use simulator::scenario::Rule;
use simulator::{Party, Scenario};

/// Longer than an election, less than after what time requests are forgotten that nobody orders.
const SOON: Duration = Duration::from_millis(500);

/// §7.1 [a leader deaf to client multicast]: it learns from the others what there is to order, and hands over to one that
/// hears clients itself.
#[test]
pub(crate) fn a_leader_is_deaf_to_client_multicast() {
    let mut s = Scenario::cluster(3).with(|config| config.client.unicast_after = 1_000_000).registers();
    let [deaf, _, _] = s.cast();
    s.lose("request").to(deaf);
    for round in 1..=40 {
        assert_eq!(s.client(0).value(Add(1, 1)), round);
        s.client(0).begin_many(2, Get(1));
        s.client(0).end(2);
    }
    for _ in 0..1000 {
        if s.leader().is_some_and(|leader| leader != deaf) {
            break;
        }
        s.client(0).value(Get(1));
    }
    assert_ne!(s.leader(), Some(deaf), "it has handed over");
    let counters = s.counters(deaf);
    assert!(counters.requests_ordered_by_hint > 0 && counters.transfers_deaf > 0, "{counters:?}");
}

/// §7.3: the new leader orders what waits; its client is patient.
#[test]
pub(crate) fn the_leader_dies_before_it_hears_of_a_request() {
    let mut s = Scenario::cluster(3).patient_clients().registers();
    let [old, _, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.kill(old);
    s.client(0).begin(Add(1, 1));
    s.client(0).end_within(SOON, 1);
    assert_eq!(s.client(0).value(Get(1)), 2);
    s.converge();
}

/// §7.3: requests are everywhere. A leader orders them and cannot commit them, the next one orders them again, and then
/// the first comes back and finds them in its log, and after that in its unordered set.
#[test]
pub(crate) fn unordered_requests_survive_a_change_of_leader_and_take_effect_once() {
    for seed in 0..10 {
        let mut s = Scenario::cluster(5).seed(seed).patient_clients().registers();
        let [old, _, _, _, _] = s.cast();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.lose("append").from(old);
        let last = s.last(old);
        s.client(0).begin_many(50, Add(1, 1));
        s.until("they are ordered", |world| world.node(old).unwrap().consensus().log().last() == last + 50);
        s.isolate(old, &[]);
        s.client(0).end_within(SOON, 50);
        assert_eq!(s.client(0).value(Get(1)), 51, "seed {seed}");
        s.heal();
        // Longer than anything waits in an unordered set.
        s.run_for(Duration::from_secs(4));
        assert_eq!(s.counters(old).entries_replaced, 50, "seed {seed}");
        assert_eq!(s.client(0).value(Get(1)), 51, "seed {seed}");
        s.converge();
    }
}

/// §7.5 [it votes twice in one term]: a node without a disk votes, dies, and another process comes back under its name
/// with nothing. In the same term another candidate asks it for its vote; it knows better than to count that.
#[test]
pub(crate) fn a_node_forgets_its_vote_and_comes_back() {
    let mut s = Scenario::cluster(3).registers();
    let [first, _, _] = s.cast();
    // Everybody has heard everybody.
    s.isolate(first, &[]);
    let second = s.until_another_leads(first);
    s.heal();
    s.converge();
    s.isolate(second, &[]);
    let third = s.until_another_leads(second);
    let voter = (1..=3).find(|id| ![second, third].contains(id)).unwrap();
    let term = s.term(third);
    assert!(s.term(second) < term, "it knows nothing of this term");
    s.kill(voter);
    s.heal();
    s.isolate(third, &[]);
    s.start(voter);
    s.until("the voter is told that it has lived before", |world| world.stopped(voter).is_some());
    s.run_for(Duration::from_millis(500));
    assert_ne!(s.node(second).unwrap().consensus().role(), Role::Leader, "by a vote that was given before");
}

/// §7.7: while it slept another one was elected and has written. A read that waited in its sockets must not be answered
/// from what it remembers.
#[test]
pub(crate) fn an_old_leader_wakes_and_serves_nothing_stale() {
    let mut s = Scenario::cluster(3).clients(2).registers();
    let [old, n2, n3] = s.cast();
    assert_eq!(s.client(1).value(Set(1, 10)), 0);
    assert_eq!(s.client(0).value(Get(1)), 10);
    s.pause(old);
    // Nothing tells it, not even when it wakes.
    let news: Vec<Rule> = [n2, n3].map(|id| s.lose("*").from(id).to(old)).into();
    s.until_another_leads(old);
    assert_eq!(s.client(0).value(Set(1, 20)), 10);
    // Nobody but the sleeper hears the question at first.
    let requests = s.hold("request").from(Party::Client(1)).not_to(old);
    s.client(1).begin(Get(1));
    s.run_for(Duration::from_millis(1));
    s.resume(old);
    s.run_for(Duration::from_millis(1));
    s.release(&requests);
    news.iter().for_each(|rule| s.stop(rule));
    assert_eq!(s.client(1).values(1), [20]);
    s.converge();
}

/// §7.7 [heartbeats that reach some followers but bring back no acknowledgement keep them from electing a leader that has
/// a quorum].
#[test]
pub(crate) fn a_leader_that_hears_nobody_is_replaced() {
    let mut s = Scenario::cluster(5).registers();
    let [old, n2, n3, n4, n5] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    for id in [n2, n3, n4, n5] {
        s.block(Party::Node(id), Party::Node(old));
    }
    s.until_another_leads(old);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
}
