//! Nodes that join, leave, are replaced or have forgotten who they were (protocol.md §7.5, §7.6).

use std::time::Duration;

use hovercraft::membership::ChangeError;
use hovercraft::message::{Append, Message};
use hovercraft::node::{CommandError, StopReason};
use hovercraft::{Incarnation, MemberId, Membership, NodeId};
use r2p2::client::Outcome;
use simulator::registers::Request::{Add, Get};
use simulator::scenario::Setup;
use simulator::world::{DiskConfig, addresses};
use simulator::{Flight, Registers, Scenario, World};

/// A group of so many nodes with so many hosts to spare.
pub(super) fn group(nodes: u16, spares: u16) -> Setup {
    Scenario::cluster(nodes).with(|config| config.spares = spares)
}

fn durable(setup: Setup) -> Setup {
    setup.with(|config| config.node.durable = true)
}

/// §7.4, §7.6: it catches up by the log, from nothing, while the group works; then it votes.
#[test]
pub(crate) fn a_learner_catches_up_by_the_log_and_becomes_a_voter() {
    let mut s = group(3, 1).registers();
    let [leader, n2, n3] = s.cast();
    for round in 1..=300 {
        assert_eq!(s.client(0).value(Add(1, 1)), round);
    }
    let me = admit(&mut s, 4);
    assert_eq!(me, MemberId::new(NodeId(4), Incarnation(1)));
    s.client(0).begin_many(100, Add(1, 1));
    settle(&mut s);
    s.client(0).end(100);
    s.converge();
    assert_eq!(voters(&s), [1, 2, 3, 4]);
    // Now it counts: without it there is no majority of four.
    s.kill(leader);
    s.until_another_leads(leader);
    assert_eq!(s.client(0).value(Get(1)), 400);
    let follower = if s.leader() == Some(n2) { n3 } else { n2 };
    s.kill(follower);
    s.run_for(Duration::from_millis(500));
    s.client(0).begin(Add(1, 1));
    s.run_for(Duration::from_millis(100));
    assert_eq!(outstanding(&s), 1, "two of four decide nothing");
}

/// §7.6: a learner that nobody wants to vote stays one, has everything, and decides nothing.
#[test]
pub(crate) fn a_learner_does_not_count() {
    let mut s = group(2, 2).registers();
    let [leader, other] = s.cast();
    for spare in [3, 4] {
        s.repeat("it is let in", |world| world.admit(spare, false));
    }
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    settle(&mut s);
    s.converge();
    assert_eq!(voters(&s), [1, 2]);
    s.kill(other);
    s.client(0).begin(Add(1, 1));
    s.run_for(Duration::from_millis(300));
    assert_eq!(outstanding(&s), 1, "one of two decides nothing, whatever learners say");
    s.kill(leader);
    s.run_for(Duration::from_millis(500));
    assert_eq!(s.leader(), None, "learners do not lead");
}

/// §7.6: a follower leaves, is told so and stops; the others never notice.
#[test]
pub(crate) fn a_follower_is_removed_and_told_so() {
    let mut s = group(3, 0).registers();
    let [leader, leaves, _] = s.cast();
    s.client(0).begin_many(20, Add(1, 1));
    remove(&mut s, leaves);
    s.client(0).end(20);
    s.until("it stops", |world| matches!(world.stopped(leaves), Some(StopReason::Removed { .. })));
    let term = s.term(leader);
    s.run_for(Duration::from_secs(1));
    assert_eq!((s.leader(), s.term(leader)), (Some(leader), term), "nobody was disturbed");
    assert_eq!(s.client(0).value(Get(1)), 20);
    s.converge();
}

/// §7.6: one that is removed while it hears nothing asks for votes when it is back; it is told, and disturbs nobody.
#[test]
pub(crate) fn a_node_removed_in_its_absence_does_not_disturb() {
    for is_durable in [false, true] {
        let mut s = if is_durable { durable(group(3, 0)) } else { group(3, 0) }.registers();
        let [leader, leaves, _] = s.cast();
        s.isolate(leaves, &[]);
        remove(&mut s, leaves);
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.run_for(Duration::from_millis(300));
        let term = s.term(leader);
        s.heal();
        s.until("it stops", |world| matches!(world.stopped(leaves), Some(StopReason::Removed { .. })));
        s.run_for(Duration::from_millis(300));
        assert_eq!((s.leader(), s.term(leader)), (Some(leader), term), "nobody was disturbed");
        if is_durable {
            s.start(leaves);
            s.until("it stops again", |world| world.stopped(leaves).is_some());
        }
        assert_eq!(s.client(0).value(Get(1)), 1);
    }
}

/// §7.6: a leader that is to leave hands over first; whoever asks goes on asking.
#[test]
pub(crate) fn a_leader_is_removed_and_hands_over_first() {
    let mut s = group(3, 0).registers();
    let [old, n2, n3] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    assert_eq!(s.remove(old), Err(CommandError::NotNow));
    s.client(0).begin_many(20, Add(1, 1));
    remove(&mut s, old);
    s.client(0).end(20);
    assert_eq!(voters(&s), [n2, n3]);
    s.until("it stops", |world| world.stopped(old).is_some());
    assert_eq!(s.client(0).value(Get(1)), 21);
    assert_eq!(s.counters(s.leader().unwrap()).elections_won, 1, "one election, the one asked for");
}

/// §7.6: a dead node of three is removed, and another takes its place.
#[test]
pub(crate) fn a_dead_node_is_removed_and_another_takes_its_place() {
    let mut s = group(3, 1).registers();
    let [_, dead, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.kill(dead);
    remove(&mut s, dead);
    admit(&mut s, 4);
    settle(&mut s);
    assert_eq!(voters(&s).len(), 3);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
    s.converge();
}

/// §7.6: all three are replaced one after the other under load, and nothing is lost or done twice.
#[test]
pub(crate) fn all_nodes_are_replaced_under_load() {
    for seed in 0..5 {
        for is_durable in [false, true] {
            let setup = group(3, 3).seed(seed).clients(2).with(|config| config.network.loss = 0.01);
            let mut s = if is_durable { durable(setup) } else { setup }.registers();
            s.elect();
            let mut load = Load::default();
            for old in 1..=3 {
                load.more(&mut s);
                admit(&mut s, old + 3);
                load.more(&mut s);
                settle(&mut s);
                load.more(&mut s);
                remove(&mut s, old);
                s.kill(old);
            }
            load.finish(&mut s);
            settle(&mut s);
            assert_eq!(voters(&s), [4, 5, 6], "seed {seed}");
            s.converge();
        }
    }
}

/// §7.5: a node in memory comes back as the next incarnation, catches up and votes; what it had promised is forgotten,
/// and nobody waits for it.
#[test]
pub(crate) fn a_forgetful_node_comes_back_as_somebody_else() {
    let mut s = group(3, 0).registers();
    let [_, forgets, other] = s.cast();
    for round in 1..=3u32 {
        assert_eq!(s.client(0).value(Add(1, 1)), u64::from(round));
        s.kill(forgets);
        let me = admit(&mut s, forgets);
        assert_eq!(me, MemberId::new(NodeId(forgets), Incarnation(round + 1)));
        settle(&mut s);
        s.converge();
    }
    // It is needed now.
    s.kill(other);
    assert_eq!(s.client(0).value(Add(1, 1)), 4);
}

/// §7.5: the leader itself forgets; so does a node whose disk was replaced.
#[test]
pub(crate) fn a_forgetful_leader_and_a_replaced_disk_come_back() {
    for is_durable in [false, true] {
        let mut s = if is_durable { durable(group(3, 0)) } else { group(3, 0) }.registers();
        let [old, _, _] = s.cast();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.kill(old);
        if is_durable {
            s.replace_disk(old);
        }
        s.until_another_leads(old);
        admit(&mut s, old);
        settle(&mut s);
        assert_eq!(s.client(0).value(Add(1, 1)), 2);
        s.converge();
        assert_eq!(voters(&s), [1, 2, 3]);
        lead(&mut s, old);
        assert_eq!(s.client(0).value(Add(1, 1)), 3, "as the next incarnation");
        s.converge();
    }
}

/// §7.5: two of three have forgotten everything. One that remembers decides nothing alone, and nobody decides without it.
#[test]
pub(crate) fn a_majority_that_has_forgotten_decides_nothing() {
    let mut s = group(3, 0).registers();
    let [remembers, n2, n3] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.kill(n2);
    s.kill(n3);
    s.client(0).begin(Add(1, 1));
    for _ in 0..100 {
        for id in [n2, n3] {
            assert!(!s.admit(id, true).is_ok_and(|me| me.is_some()), "nobody may let them in");
        }
        s.run_for(Duration::from_millis(10));
    }
    assert_eq!(outstanding(&s), 1, "nothing was acknowledged");
    assert_eq!(s.commit(remembers), s.node(remembers).unwrap().applied());
    // As they were, they are turned away by the one that remembers.
    s.start(n2);
    s.start(n3);
    s.until("they stop", |world| world.stopped(n2).is_some() && world.stopped(n3).is_some());
    assert_eq!(outstanding(&s), 1);
}

/// §7.6: from one node to five and back, under load.
#[test]
pub(crate) fn a_group_grows_and_shrinks() {
    let mut s = group(1, 4).clients(2).registers();
    s.elect();
    let mut load = Load::default();
    for id in 2..=5 {
        load.more(&mut s);
        admit(&mut s, id);
        settle(&mut s);
        assert_eq!(voters(&s).len(), usize::from(id));
    }
    load.more(&mut s);
    for id in 1..=4 {
        remove(&mut s, id);
        load.more(&mut s);
    }
    load.finish(&mut s);
    assert_eq!((voters(&s), s.leader()), (vec![5], Some(5)));
}

/// §7.6: what cannot be is refused, and the refusal says why.
#[test]
pub(crate) fn refusals() {
    let mut s = group(1, 2).registers();
    s.elect();
    let because = |error: ChangeError| CommandError::Change(error);
    let [n1, n2] = [1, 2].map(|id| MemberId::new(NodeId(id), Incarnation(1)));
    assert_eq!(s.remove(1), Err(because(ChangeError::LastVoter(n1))));
    assert_eq!(s.remove(9), Err(because(ChangeError::Unknown(NodeId(9)))));
    assert_eq!(s.hand_leadership(Some(9)), Err(because(ChangeError::Unknown(NodeId(9)))));
    s.repeat("it is let in", |world| world.admit(2, false));
    assert_eq!(s.hand_leadership(Some(2)), Err(because(ChangeError::NotCaughtUp(n2))));
    let there = s.command(|node, now| node.admit(now, NodeId(3), addresses(2), true, Incarnation(0)));
    assert_eq!(there, Err(because(ChangeError::AddressTaken(n2))));
    assert_eq!(s.remove(1), Err(because(ChangeError::LastVoter(n1))), "a learner is no voter");
    remove(&mut s, 2);
    s.kill(2);
    admit(&mut s, 2);
    settle(&mut s);
    // Under way: nothing is committed without the other.
    let acks = s.lose("append_ack").from(2);
    assert_eq!(s.admit(3, true), Ok(None));
    assert_eq!(s.admit(3, true), Err(because(ChangeError::UnderWay)));
    assert_eq!(s.remove(2), Err(because(ChangeError::UnderWay)));
    s.stop(&acks);
    settle_but(&mut s, 3);
}

/// §7.6: with one of three dead, another cannot be removed: nobody would be left to decide.
#[test]
pub(crate) fn a_removal_that_would_leave_no_majority_is_refused() {
    let mut s = group(3, 0).registers();
    let [leader, dead, other] = s.cast();
    s.kill(dead);
    s.run_for(Duration::from_millis(200));
    let refused = s.remove(other);
    assert!(
        matches!(refused, Err(CommandError::Change(ChangeError::NoQuorum(id, 1, 2))) if id.node() == NodeId(other)),
        "{refused:?}"
    );
    assert_eq!(s.client(0).value(Add(1, 1)), 1, "the group works");
    // And so it is for a leader that has only just been elected, and has not missed anybody yet.
    s.hand_leadership(Some(other)).unwrap();
    let new = s.until_another_leads(leader);
    assert!(s.remove(leader).is_err());
    assert_eq!(s.leader(), Some(new));
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
}

/// §7.6: the leader dies between any two things that it does while a voter joins and another leaves. Whoever is next ends
/// what was begun or takes it back; whoever asks goes on asking.
#[test]
pub(crate) fn the_leader_dies_at_any_step_of_a_change() {
    for joins in [true, false] {
        for outputs in 0..60 {
            let mut s = durable(group(3, 1)).seed(u64::from(outputs)).registers();
            let [leader, other, _] = s.cast();
            assert_eq!(s.client(0).value(Add(1, 1)), 1);
            s.crash_after(leader, outputs);
            s.client(0).begin_many(5, Add(1, 1));
            if joins {
                s.repeat("it is let in", |world| {
                    revive(world, leader);
                    world.admit(4, true)
                });
            } else {
                s.repeat("it is removed", |world| {
                    revive(world, leader);
                    removed(world, other)
                });
            }
            revive(&mut s, leader);
            s.spare(leader);
            settle(&mut s);
            s.client(0).end(5);
            assert_eq!(s.client(0).value(Get(1)), 6, "{outputs}");
            assert_eq!(voters(&s).len(), if joins { 4 } else { 2 });
        }
    }
}

/// The same where the leader stays dead, and in memory: the change is ended by another leader, or was never made.
#[test]
pub(crate) fn another_leader_ends_a_change_or_it_never_was() {
    for outputs in 0..40 {
        let mut s = group(3, 1).seed(u64::from(outputs)).registers();
        let [leader, _, _] = s.cast();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.crash_after(leader, outputs);
        _ = s.admit(4, true);
        s.run_for(Duration::from_millis(1));
        s.kill(leader);
        s.until_another_leads(leader);
        s.client(0).begin_many(5, Add(1, 1));
        if s.member(4).is_none() {
            admit(&mut s, 4);
        }
        settle(&mut s);
        remove(&mut s, leader);
        s.client(0).end(5);
        s.converge();
        assert_eq!(voters(&s).len(), 3, "{outputs}");
    }
}

/// §7.6: a voter that is leaving is elected while both majorities still decide. It ends the change by leading no more.
#[test]
pub(crate) fn a_leaving_node_leads_and_hands_over() {
    let mut s = durable(group(5, 0)).registers();
    let [old, leaves, ..] = s.cast::<5>();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.remove(leaves).unwrap();
    s.until("the first half is everywhere", |world| {
        (1..=5).all(|id| world.node(id).is_some_and(|node| node.membership().is_joint()))
    });
    s.isolate(old, &[]);
    // Those that stay vote and do not stand.
    s.lose("vote").not_from(leaves);
    s.until("the leaving one leads", |world| world.leader() == Some(leaves));
    s.heal();
    s.until("it hands over, and the change is over", |world| world.leader() != Some(leaves) && world.members_settled());
    assert_eq!(voters(&s).len(), 4);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
}

/// §7.6: a change that one leader alone has in its log is taken back by the next; from then on the membership before it
/// counts again, for that node too.
#[test]
pub(crate) fn a_change_is_taken_back() {
    for is_durable in [false, true] {
        let mut s = if is_durable { durable(group(3, 1)) } else { group(3, 1) }.registers();
        let [old, n2, n3] = s.cast();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.isolate(old, &[]);
        assert_eq!(s.admit(4, true), Ok(None), "it does not know yet that it is alone");
        assert_eq!(s.node(old).unwrap().membership().members.len(), 4);
        s.until_another_leads(old);
        assert_eq!(s.client(0).value(Add(1, 1)), 2);
        s.heal();
        s.converge();
        assert_eq!(s.node(old).unwrap().membership().members.len(), 3, "it is as if it had never been");
        assert!(s.counters(old).entries_replaced > 0);
        // It counts by that: two of three elect it.
        lead(&mut s, old);
        s.kill(n2);
        assert_eq!(s.client(0).value(Add(1, 1)), 3);
        s.kill(n3);
        s.client(0).begin(Add(1, 1));
        s.run_for(Duration::from_millis(100));
        assert_eq!(outstanding(&s), 1);
    }
}

/// §7.6: a node that is restarted counts by the latest membership of its log, of which it knows not even whether it is
/// committed.
#[test]
pub(crate) fn a_restarted_node_counts_by_what_its_log_says_last() {
    let mut s = durable(group(1, 1)).registers();
    s.elect();
    admit(&mut s, 2);
    // The first half of the promotion is on the disk of the first node and nowhere else.
    let appends = s.lose("append").which(carries_joint);
    s.until("it is on disk", |world| {
        let node = world.node(1).unwrap();
        node.membership().is_joint() && node.consensus().persisted() == node.consensus().log().last()
    });
    s.kill(2);
    s.kill(1);
    s.stop(&appends);
    s.start(1);
    s.run_for(Duration::from_secs(1));
    assert_eq!(s.leader(), None, "both are asked, and one of them is down");
    s.start(2);
    settle(&mut s);
    assert_eq!(voters(&s), [1, 2]);
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
}

/// §7.6: while it slept, all others were replaced: it knows nobody, and finds its group again.
#[test]
pub(crate) fn a_node_that_slept_finds_its_group_among_strangers() {
    for is_durable in [false, true] {
        let mut s = if is_durable { durable(group(3, 2)) } else { group(3, 2) }.registers();
        let [n1, n2, sleeper] = s.cast();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        s.isolate(sleeper, &[]);
        for (old, new) in [(n1, 4), (n2, 5)] {
            admit(&mut s, new);
            settle(&mut s);
            remove(&mut s, old);
            s.kill(old);
        }
        assert_eq!(s.client(0).value(Add(1, 1)), 2);
        let term = s.term(s.leader().unwrap());
        if is_durable {
            s.kill(sleeper);
        }
        s.heal();
        if is_durable {
            s.start(sleeper);
        }
        s.converge();
        assert_eq!(s.term(sleeper), term, "it found them without an election");
        assert_eq!(voters(&s), {
            let mut all = [4, 5, sleeper];
            all.sort_unstable();
            all
        });
        // And it is needed.
        let follower = if s.leader() == Some(4) { 5 } else { 4 };
        s.kill(follower);
        assert_eq!(s.client(0).value(Add(1, 1)), 3);
    }
}

/// §7.6: while it slept, another node was replaced on its host, and leads now: the address is known, the identity is not.
#[test]
pub(crate) fn a_node_that_slept_listens_to_the_next_incarnation_of_a_peer() {
    let mut s = group(5, 0).registers();
    let [_, replaced, sleeper, _, _] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.isolate(sleeper, &[]);
    s.kill(replaced);
    admit(&mut s, replaced);
    settle(&mut s);
    lead(&mut s, replaced);
    assert_eq!(s.client(0).value(Add(1, 1)), 2);
    let term = s.term(replaced);
    s.heal();
    s.converge();
    assert_eq!(s.term(sleeper), term, "nobody was disturbed");
}

/// §7.6: while it was away it was removed, and the only one who can tell it is one that it does not know.
#[test]
pub(crate) fn a_removed_node_is_told_by_a_stranger() {
    let mut s = group(3, 0).registers();
    let [leader, other, leaves] = s.cast();
    s.isolate(leaves, &[]);
    remove(&mut s, leaves);
    remove(&mut s, other);
    admit(&mut s, other);
    settle(&mut s);
    lead(&mut s, other);
    remove(&mut s, leader);
    s.kill(leader);
    s.heal();
    s.until("it stops", |world| matches!(world.stopped(leaves), Some(StopReason::Removed { .. })));
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
}

/// §7.4, §7.6: while a newcomer goes through the log it comes by memberships of which nobody is left. It asks those for
/// bodies who belong to the group now.
#[test]
pub(crate) fn a_newcomer_asks_those_who_are_there() {
    let mut s = group(2, 2).registers();
    s.elect();
    remove(&mut s, 2);
    s.kill(2);
    for round in 1..=10 {
        assert_eq!(s.client(0).value(Add(1, 1)), round);
    }
    admit(&mut s, 3);
    settle(&mut s);
    remove(&mut s, 1);
    s.kill(1);
    admit(&mut s, 4);
    settle(&mut s);
    s.converge();
    assert_eq!(voters(&s), [3, 4]);
    assert!(s.counters(4).bodies_fetched >= 10);
}

/// §7.7: a leader whose disk hangs hands over to one that may lead, though a learner has executed as much.
#[test]
pub(crate) fn a_leader_that_hangs_hands_over_to_a_voter() {
    let mut s = durable(group(3, 1)).registers();
    let [hangs, _, _] = s.cast();
    s.repeat("it is let in", |world| world.admit(4, false));
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.converge();
    s.set_disk(hangs, DiskConfig { latency: Duration::from_secs(60), jitter: Duration::ZERO });
    s.client(0).begin_many(10, Add(1, 1));
    s.until_another_leads(hangs);
    s.client(0).end(10);
    assert!(s.counters(hangs).transfers_stuck > 0);
}

/// Adds to register 1, with both clients, whatever happens to the group.
#[derive(Default)]
pub(super) struct Load {
    begun: u64,
    ended: u64,
}

impl Load {
    /// Some more operations, and a moment for some of them to end.
    pub(super) fn more(&mut self, s: &mut Scenario<Registers>) {
        for client in 0..2 {
            s.client(client).begin_many(10, Add(1, 1));
        }
        self.begun += 20;
        s.run_for(Duration::from_micros(200));
        self.take(s);
    }

    fn take(&mut self, s: &mut Scenario<Registers>) {
        for client in 0..2 {
            for (_, completion) in s.completions(client) {
                assert!(matches!(completion.outcome, Outcome::Ok(_)), "{:?}", completion.outcome);
                self.ended += 1;
            }
        }
    }

    /// What has begun ends: each client has heard of the group as it is now.
    pub(super) fn rest(&mut self, s: &mut Scenario<Registers>) {
        s.until("all is answered", |world| (0..2).all(|client| world.client(client).outstanding() == 0));
        self.take(s);
    }

    /// All have been answered, and took effect once.
    pub(super) fn finish(mut self, s: &mut Scenario<Registers>) {
        self.rest(s);
        assert_eq!(self.ended, self.begun);
        assert_eq!(s.client(0).value(Get(1)), self.begun);
    }
}

/// Lets a node in and starts it.
#[track_caller]
pub(super) fn admit(s: &mut Scenario<Registers>, id: u16) -> MemberId {
    s.repeat("it is let in", |world| world.admit(id, true))
}

/// Removes a node, for good.
#[track_caller]
pub(super) fn remove(s: &mut Scenario<Registers>, id: u16) {
    s.repeat("it is removed", |world| removed(world, id));
}

/// Another attempt to remove a node; whether it is done.
fn removed(world: &mut World<Registers>, id: u16) -> Result<Option<()>, CommandError> {
    let is_member = world.members().is_some_and(|members| members.of_node(NodeId(id)).is_some());
    if is_member {
        world.remove(id)?;
    }
    Ok((!is_member && world.members_settled()).then_some(()))
}

/// Makes a node the leader.
#[track_caller]
pub(super) fn lead(s: &mut Scenario<Registers>, id: u16) {
    s.repeat("it leads", |world| {
        world.hand_leadership(Some(id))?;
        Ok((world.leader() == Some(id)).then_some(()))
    });
}

/// Waits until no change is under way, and all vote who are to.
#[track_caller]
pub(super) fn settle(s: &mut Scenario<Registers>) {
    s.until("no change is under way", World::members_settled);
}

/// The same where one was let in that nobody has started.
#[track_caller]
fn settle_but(s: &mut Scenario<Registers>, id: u16) {
    s.until("it is a learner", |world| {
        world.members().is_some_and(|members| members.of_node(NodeId(id)).is_some() && !members.is_joint())
    });
}

/// Starts a node again if it does not run.
fn revive(world: &mut World<Registers>, id: u16) {
    if world.node(id).is_none() {
        world.start(id);
    }
}

/// The nodes that vote, by the leader's committed membership.
fn voters(s: &Scenario<Registers>) -> Vec<u16> {
    s.members().expect("somebody leads").incoming().map(|id| id.node().0).collect()
}

/// Operations of the first client that have not ended.
fn outstanding(s: &Scenario<Registers>) -> usize {
    let world: &World<Registers> = s;
    world.client(0).outstanding()
}

/// Whether an Append carries a joint membership.
fn carries_joint(flight: &Flight<'_>) -> bool {
    let Some(Message::Append(Append { entries, .. })) = flight.message() else { return false };
    let membership = |body: &bytes::Bytes| Membership::parse(body).is_some_and(|membership| membership.is_joint());
    entries.0.iter().any(|item| item.body.as_ref().is_some_and(membership))
}
