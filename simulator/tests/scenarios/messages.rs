//! What nodes say to each other, too early, too late or not at all (protocol.md §5, §6.6).

use std::time::Duration;

use simulator::Scenario;
use simulator::registers::Request::{Add, Set};

/// §6.6: F holds an entry of a deposed leader where the new leader has committed another. The new leader's notices and
/// heartbeats reach F, its Appends do not: F must commit nothing.
#[test]
pub(crate) fn a_commit_notice_overtakes_its_append_on_a_follower_with_a_divergent_tail() {
    let mut s = Scenario::cluster(5).clients(2).registers();
    let [old, f, _, _, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.lose("append").from(old).not_to(f);
    let last = s.last(f);
    s.client(0).begin(Set(1, 100));
    s.until("F alone has it", |world| world.node(f).unwrap().consensus().log().last() > last);
    s.heal();
    s.isolate(old, &[]);
    s.isolate(f, &[]);
    s.until("one of the others leads", |world| world.leader().is_some_and(|leader| leader != old && leader != f));
    let new = s.leader().unwrap();
    s.client(1).value(Add(1, 10));
    s.client(1).value(Add(1, 10));
    s.heal();
    s.isolate(old, &[]);
    let appends = s.lose("append").to(f);
    let heard = s.watch("heartbeat|commit_notice").from(new).to(f);
    let commit = s.commit(f);
    s.run_for(Duration::from_millis(50));
    assert!(heard.hits() > 0);
    assert_eq!(s.leader(), Some(new));
    assert_eq!(s.commit(f), commit, "committed what it cannot know");
    s.stop(&appends);
    s.heal();
    s.converge();
}

/// §5.4 [the very last Append, notice or acknowledgement of an idle system is lost]: nothing that follows would bring it
/// up again, and its client is patient.
#[test]
pub(crate) fn the_very_last_append_notice_or_acknowledgement_of_an_idle_system_is_lost() {
    for early_commit in [true, false] {
        for what in ["append", "commit_notice", "append_ack"] {
            for victims in [1, 2] {
                let setup = Scenario::cluster(3).patient_clients();
                let mut s = setup.with(|config| config.node.early_commit = early_commit).registers();
                let [leader, _, _] = s.cast();
                assert_eq!(s.client(0).value(Add(1, 1)), 1);
                s.run_for(Duration::from_millis(200));
                let lost = s.lose(what).first(victims);
                let _ = if what == "append_ack" { lost.to(leader) } else { lost.not_to(leader) };
                s.client(0).begin(Add(1, 1));
                let healed = s.run_until(Duration::from_millis(100), |world| {
                    (1..=3).all(|id| world.applier(id).unwrap().service().value(1) == 2)
                });
                assert!(healed, "{what} lost {victims} times, early commit {early_commit}");
                assert_eq!(s.client(0).values(1), [2]);
            }
        }
    }
}

/// §5.5 [a report per reply doubles the datagrams of a busy group]: what a follower has answered it says with the next
/// acknowledgement.
#[test]
pub(crate) fn a_busy_group_reports_with_its_acknowledgements() {
    let mut s = Scenario::cluster(3).registers();
    let [_, f, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.client(0).begin_many(64, Add(1, 1));
    s.client(0).end(64);
    let (appends, acks) = (s.watch("append").to(f), s.watch("append_ack").from(f));
    let before = s.counters(f).replies_assigned;
    for _ in 0..200 {
        // Two at a time, so that the leader does not answer all of them itself.
        s.client(0).begin_many(2, Add(1, 1));
        s.client(0).end(2);
    }
    let replies = s.counters(f).replies_assigned - before;
    assert!(replies >= 100, "{replies}");
    assert!(acks.hits() <= appends.hits() + replies / 4, "{} for {} Appends", acks.hits(), appends.hits());
}
