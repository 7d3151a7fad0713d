//! Nodes with disks: what was acknowledged survives that every process dies at any step (protocol.md §6.1, §6.2, §7.5).

mod common;

use std::time::Duration;

use common::{Cluster, call, cluster_of, converge, drain, value};
use hovercraft::Mode;
use hovercraft::node::StopReason;
use r2p2::client::Kind;
use simulator::registers::Request;
use simulator::world::{DiskConfig, DiskFault};
use simulator::{Party, WorldConfig};

fn durable(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    cluster_of(seed, nodes, |config| {
        config.node.durable = true;
        change(config);
    })
}

fn restart_all(world: &mut Cluster, nodes: u16) {
    for id in 1..=nodes {
        if world.node(id).is_none() {
            world.start(id);
        }
    }
}

#[test]
fn every_size_and_mode_answers_and_remembers() {
    for mode in [Mode::Hovercraft, Mode::Raft] {
        for nodes in 1..=5 {
            let mut world = durable(1, nodes, |config| config.node.mode = mode);
            world.elect();
            for n in 1..=10 {
                assert_eq!(call(&mut world, 0, Request::Add(1, 1)), n);
            }
            for id in 1..=nodes {
                world.kill(id);
            }
            restart_all(&mut world, nodes);
            assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 11, "{nodes} nodes, {mode:?}");
            converge(&mut world);
        }
    }
}

/// Everybody loses power at once, again and again, under load.
#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_die_at_once() {
    for seed in 0..12 {
        let mut world = durable(seed, 3, |config| {
            config.clients = 3;
            config.disk = DiskConfig { latency: Duration::from_micros(300), jitter: Duration::from_micros(600) };
            config.client.give_up = Duration::from_secs(1000);
        });
        world.elect();
        for round in 0..4 {
            for _ in 0..10 {
                for client in 0..3 {
                    world.submit(client, Kind::Write, Request::Add(1, 1).encode());
                }
                world.run_for(Duration::from_micros(200 + 37 * round));
            }
            for id in 1..=3 {
                world.kill(id);
            }
            world.run_for(Duration::from_millis(3));
            restart_all(&mut world, 3);
        }
        let mut replies: Vec<u64> =
            (0..3).flat_map(|client| drain(&mut world, client, 40)).map(|c| value(&c)).collect();
        replies.sort_unstable();
        assert_eq!(replies, (1..=120).collect::<Vec<u64>>(), "seed {seed}");
        converge(&mut world);
    }
}

/// A process can die between any two things it does: after it has handed a batch to its disk and before it has sent an
/// acknowledgement, after it has executed an entry and before it has answered.
#[test]
fn a_node_may_crash_at_any_step() {
    for step in 0..60 {
        for leads in [true, false] {
            let mut world = durable(u64::from(step), 3, |config| {
                config.clients = 2;
                config.client.give_up = Duration::from_secs(1000);
            });
            let leader = world.elect();
            let victim = if leads { leader } else { leader % 3 + 1 };
            call(&mut world, 0, Request::Add(1, 1));
            call(&mut world, 1, Request::Add(1, 1));
            world.crash_after(victim, step);
            for _ in 0..14 {
                world.submit(0, Kind::Write, Request::Add(1, 1).encode());
                world.submit(1, Kind::Write, Request::Add(1, 1).encode());
                world.run_for(Duration::from_micros(150));
            }
            world.run_for(Duration::from_millis(20));
            assert!(world.node(victim).is_none(), "step {step} was reached");
            restart_all(&mut world, 3);
            let mut replies: Vec<u64> =
                (0..2).flat_map(|client| drain(&mut world, client, 14)).map(|c| value(&c)).collect();
            replies.sort_unstable();
            assert_eq!(replies, (3..=30).collect::<Vec<u64>>(), "step {step}, leader {leads}");
            converge(&mut world);
        }
    }
}

/// A voter that forgets its vote votes twice in one term (§7.5): with a disk it does not, even if it dies at once.
#[test]
fn a_vote_survives_a_crash() {
    for seed in 0..20 {
        let mut world = durable(seed, 5, |_| {});
        // Nobody hears a leader for long: elections over elections, in which voters die.
        world.lose_when(|flight| matches!(flight.what, "append" | "heartbeat"));
        for round in 0..20u16 {
            world.run_for(Duration::from_millis(17));
            let victim = round % 5 + 1;
            world.kill(victim);
            world.run_for(Duration::from_millis(1));
            world.start(victim);
        }
        world.heal();
        world.elect();
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
        converge(&mut world);
    }
}

#[test]
fn a_full_disk_stops_its_node_with_an_explanation_and_the_others_go_on() {
    for victim_leads in [false, true] {
        let mut world = durable(1, 3, |_| {});
        let leader = world.elect();
        let victim = if victim_leads { leader } else { leader % 3 + 1 };
        call(&mut world, 0, Request::Add(1, 1));
        world.set_disk_fault(victim, Some(DiskFault::Full));
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 3);
        let reason = world.stopped(victim).expect("a node that cannot keep its promises stops");
        assert!(matches!(reason, StopReason::Storage(_)) && reason.to_string().contains("full"), "{reason}");
        world.set_disk_fault(victim, None);
        world.start(victim);
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 4);
        converge(&mut world);
        assert_eq!(world.running().len(), 3);
    }
}

#[test]
fn a_majority_with_broken_disks_stops_service_and_not_correctness() {
    let mut world = durable(1, 3, |config| config.client.give_up = Duration::from_secs(1000));
    world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    for id in 1..=2 {
        world.set_disk_fault(id, Some(DiskFault::Broken));
    }
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    world.run_for(Duration::from_millis(500));
    assert!(world.completions(0).is_empty(), "one node of three acknowledges nothing");
    for id in 1..=2 {
        world.set_disk_fault(id, None);
    }
    restart_all(&mut world, 3);
    assert_eq!(value(&drain(&mut world, 0, 1)[0]), 2);
    converge(&mut world);
}

/// §7.5: another disk under a known identity has forgotten votes and acknowledgements.
#[test]
fn a_replaced_disk_is_refused() {
    let mut world = durable(1, 3, |_| {});
    let leader = world.elect();
    let victim = leader % 3 + 1;
    call(&mut world, 0, Request::Add(1, 1));
    world.kill(victim);
    world.replace_disk(victim);
    world.start(victim);
    assert!(world.run_until(Duration::from_secs(2), |world| world.stopped(victim).is_some()));
    assert!(matches!(world.stopped(victim), Some(StopReason::AnotherLife { .. })));
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
}

/// What was answered before a crash is executed again after it, and not answered again: a plain client may have given
/// the RPC id to something else by now.
#[test]
fn a_restarted_node_executes_its_log_again_and_answers_nobody() {
    let mut world = durable(1, 3, |_| {});
    world.elect();
    for _ in 0..30 {
        call(&mut world, 0, Request::Add(1, 1));
        call(&mut world, 0, Request::Get(1));
    }
    converge(&mut world);
    for id in 1..=3 {
        world.kill(id);
    }
    restart_all(&mut world, 3);
    let answers = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&answers);
    world.lose_when(move |flight| {
        if flight.what == "response" && flight.to == Party::Client(0) {
            seen.set(seen.get() + 1);
        }
        false
    });
    world.elect();
    converge(&mut world);
    assert!(world.running().iter().all(|id| world.node(*id).unwrap().applied() >= 60));
    assert_eq!(answers.get(), 0);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 31);
}

/// Heartbeats never wait for a disk: one that takes longer than an election timeout does not cost the leader its place.
#[test]
fn slow_disks_cause_no_elections() {
    let mut world = durable(1, 3, |config| config.client.give_up = Duration::from_secs(1000));
    let leader = world.elect();
    world.set_disks(DiskConfig { latency: Duration::from_millis(60), jitter: Duration::from_millis(40) });
    let term = world.node(leader).unwrap().consensus().term();
    for n in 1..=10 {
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), n);
    }
    assert_eq!(world.node(leader).unwrap().consensus().term(), term);
    converge(&mut world);
}

/// §7.7: a leader whose disk hangs is up, is heard, and could hold everybody up for ever: nothing fails.
#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let mut world = durable(1, 3, |config| {
        config.node.limits.window_entries_max = 4;
        config.client.give_up = Duration::from_secs(1000);
    });
    let leader = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    world.set_disk(leader, DiskConfig { latency: Duration::from_secs(10_000), jitter: Duration::ZERO });
    for n in 2..=20 {
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), n);
    }
    assert_ne!(world.leader(), Some(leader));
    assert_eq!(world.node(leader).unwrap().counters().transfers_stuck, 1);
    assert!(world.now() < r2p2::Instant::ZERO + Duration::from_secs(5), "not after many tries: {:?}", world.now());
}

/// §6.11: a follower whose disk hangs keeps no more of the log than it may, whatever the others commit.
#[test]
fn a_follower_whose_disk_hangs_stays_within_its_memory() {
    const BYTES: usize = 20_000;
    let mut world = durable(1, 3, |config| {
        config.node.limits.retention.bytes_max = BYTES;
        config.node.limits.window_bytes_max = BYTES;
        config.client.give_up = Duration::from_secs(1000);
    });
    let leader = world.elect();
    let hangs = leader % 3 + 1;
    let large = |n: u64| {
        let mut body = Request::Add(1, n).encode().to_vec();
        body.resize(1_000, 0);
        body
    };
    for _ in 0..30 {
        world.submit(0, Kind::Write, large(1));
        drain(&mut world, 0, 1);
    }
    world.set_disk(hangs, DiskConfig { latency: Duration::from_secs(10_000), jitter: Duration::ZERO });
    let mut most = 0;
    for _ in 0..200 {
        world.submit(0, Kind::Write, large(1));
        drain(&mut world, 0, 1);
        most = most.max(world.node(hangs).unwrap().consensus().log().bytes());
    }
    assert!(most <= BYTES + 2_000, "{most} bytes");
    assert!(world.node(hangs).unwrap().counters().appends_refused_full > 0);
}
