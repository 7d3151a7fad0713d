//! Bodies that are not where they are needed (protocol.md §7.1, §7.3).

use std::time::Duration;

use simulator::Scenario;
use simulator::registers::Request::Add;

/// §7.1: multicast reaches the leader alone. The others fetch the body, and nobody waits for the client to repeat it.
#[test]
pub(crate) fn a_body_is_lost_at_all_followers() {
    let mut s = Scenario::cluster(3).patient_clients().registers();
    let [leader, n2, n3] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    let requests = s.lose("request").not_to(leader);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
    assert_eq!(requests.hits(), 2);
    s.converge();
    assert_eq!([n2, n3].map(|id| s.counters(id).bodies_fetched), [1, 1]);
}

/// §7.1 [overload: bodies expire on followers while still queued at the leader]: for a while the leader can order
/// nothing. What has waited for too long it does not order any more, so that followers have the bodies of all that it
/// does order.
#[test]
pub(crate) fn overload_lasts_longer_than_followers_keep_bodies() {
    let setup = Scenario::cluster(3).with(|config| {
        config.client.retransmit_initial = Duration::from_millis(250);
        config.client.retransmit_min = Duration::from_millis(250);
        config.client.retransmit_max = Duration::from_millis(250);
        config.node.timing.tick = Duration::from_millis(20);
        config.node.timing.fresh = Duration::from_millis(100);
        config.node.timing.order_age_max = Duration::from_millis(60);
        config.node.limits.unordered.age_max = Duration::from_millis(120);
        config.node.limits.window_entries_max = 16;
    });
    let mut s = setup.registers();
    let [leader, n2, n3] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    let acks = s.lose("append_ack");
    s.client(0).begin_many(100, Add(1, 1));
    s.run_for(Duration::from_millis(180));
    s.stop(&acks);
    assert_eq!(s.client(0).values(100), (2..=101).collect::<Vec<u64>>());
    assert_eq!(s.leader(), Some(leader));
    assert_eq!([n2, n3].map(|id| s.counters(id).bodies_missing), [0, 0]);
    s.converge();
}

/// §7.3 [the body of a truncated entry is gone everywhere]: a request reaches the leader and F alone, is ordered, and
/// taken into F's log. The leader dies, another one replaces F's entry: now only F has the body, and no log names it.
#[test]
pub(crate) fn the_only_one_with_a_body_has_its_entry_replaced() {
    let mut s = Scenario::cluster(5).patient_clients().registers();
    let [old, f, _, _, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.lose("request").not_to(old).not_to(f);
    s.lose("append").from(old).not_to(f);
    let last = s.last(f);
    s.client(0).begin(Add(1, 10));
    s.until("F has it in its log", |world| world.node(f).unwrap().consensus().log().last() > last);
    s.isolate(f, &[]);
    s.kill(old);
    s.until_another_leads(old);
    s.heal();
    assert_eq!(s.client(0).values(1), [11]);
    assert_eq!(s.counters(f).entries_replaced, 1);
    s.converge();
}
