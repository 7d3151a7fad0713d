//! The normal path and its repairs on whole simulated clusters (protocol.md §5, §7).

mod common;

use std::time::Duration;

use common::{Cluster, call, cluster, cluster_of, converge, drain, jitter, kind_of, value};
use hovercraft::node::Counters;
use hovercraft::{Mode, Timing};
use r2p2::client::{Kind, Outcome};
use simulator::NetworkConfig;
use simulator::registers::{Request, decode_reply};

#[test]
fn every_size_elects_orders_and_answers() {
    for nodes in 1..=9 {
        for mode in [Mode::Hovercraft, Mode::Raft] {
            let mut world = cluster(nodes, |config| config.node.mode = mode);
            world.elect();
            assert_eq!(call(&mut world, 0, Request::Add(1, 5)), 5, "{nodes} nodes, {mode:?}");
            assert_eq!(call(&mut world, 0, Request::Get(1)), 5, "{nodes} nodes, {mode:?}");
            converge(&mut world);
        }
    }
}

#[test]
fn unreplicated_needs_no_log() {
    let mut world = cluster(1, |config| config.node.mode = Mode::Unreplicated);
    assert_eq!(call(&mut world, 0, Request::Add(1, 5)), 5);
    assert_eq!(call(&mut world, 0, Request::Get(1)), 5);
}

#[test]
fn replies_come_from_all_nodes_in_similar_shares_and_reads_run_once() {
    let mut world = cluster(3, |_| {});
    world.elect();
    let operations = 900;
    let mut tickets = 0;
    while tickets < operations {
        for _ in 0..30 {
            let request = if tickets % 2 == 0 { Request::Get(1) } else { Request::Add(1, 1) };
            world.submit(0, kind_of(request), request.encode());
            tickets += 1;
        }
        world.run_for(Duration::from_millis(2));
    }
    drain(&mut world, 0, operations);
    converge(&mut world);
    let shares: Vec<u64> = (1..=3).map(|id| counters(&world, id).replies_assigned).collect();
    assert!(shares.iter().all(|share| *share > operations as u64 / 6), "{shares:?}");
    let queries: u64 = (1..=3).map(|id| world.applier(id).unwrap().service().queries.get()).sum();
    assert_eq!(queries, operations as u64 / 2, "each read runs on one node only");
}

#[test]
fn one_append_serves_all_followers() {
    let mut packets = Vec::new();
    for nodes in [3, 5, 9] {
        let mut world = cluster(nodes, |_| {});
        let leader = world.elect();
        call(&mut world, 0, Request::Add(1, 1));
        let before = counters(&world, leader);
        for _ in 0..50 {
            call(&mut world, 0, Request::Add(1, 1));
        }
        let after = counters(&world, leader);
        assert_eq!(after.appends_unicast, before.appends_unicast, "{nodes} nodes");
        packets.push(after.appends_shared - before.appends_shared);
    }
    assert_eq!(packets, [50, 50, 50]);
}

/// §7.6: whoever stops on purpose hands over first, so that clients wait for round trips and not for a timeout.
#[test]
fn a_leader_that_is_to_stop_hands_over_without_an_election_timeout() {
    for nodes in [2, 3, 5] {
        let mut world = cluster(nodes, |_| {});
        let leader = world.elect();
        for n in 1..=20 {
            assert_eq!(call(&mut world, 0, Request::Add(1, 1)), n);
        }
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        let began = world.now();
        assert!(world.resign(leader));
        let follower = leader % nodes + 1;
        assert!(!world.resign(follower), "it leads nothing");
        let over = world.run_until(Duration::from_secs(1), |world| world.leader().is_some_and(|now| now != leader));
        assert!(over, "{nodes} nodes");
        assert_eq!(value(&drain(&mut world, 0, 1)[0]), 21);
        let election_min = Timing { tick: Duration::from_millis(1), ..Timing::default() }.election_min();
        assert!(world.now().since(began) < election_min, "{:?}", world.now().since(began));
        converge(&mut world);
    }
}

#[test]
fn loss_is_repaired_by_fetch_and_nothing_happens_twice() {
    for seed in 0..20 {
        let mut world = cluster_of(seed, 3, |config| {
            config.clients = 4;
            config.network.loss = 0.05;
            config.network.duplicate = 0.05;
            config.network.latency = jitter(100);
        });
        world.elect();
        let per_client = 50;
        for _ in 0..per_client {
            for client in 0..4 {
                world.submit(client, Kind::Write, Request::Add(7, 1).encode());
            }
            world.run_for(Duration::from_micros(300));
        }
        let mut replies = Vec::new();
        for client in 0..4 {
            for completion in drain(&mut world, client, per_client) {
                replies.push(value(&completion));
            }
        }
        replies.sort_unstable();
        assert_eq!(replies, (1..=200).collect::<Vec<u64>>(), "seed {seed}");
        converge(&mut world);
        let fetched: u64 = (1..=3).map(|id| counters(&world, id).bodies_fetched).sum();
        assert!(fetched > 0, "seed {seed}: Fetch had nothing to do");
    }
}

#[test]
fn a_killed_leader_loses_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let mut world = cluster_of(seed, 3, |config| config.clients = 3);
        let leader = world.elect();
        for round in 0..60 {
            for client in 0..3 {
                world.submit(client, Kind::Write, Request::Add(1, 1).encode());
            }
            world.run_for(Duration::from_micros(50));
            if round == 30 {
                world.kill(leader);
            }
        }
        let mut replies = Vec::new();
        for client in 0..3 {
            replies.extend(drain(&mut world, client, 60).iter().map(value));
        }
        replies.sort_unstable();
        assert_eq!(replies, (1..=180).collect::<Vec<u64>>(), "seed {seed}");
        assert_ne!(world.leader(), Some(leader));
        converge(&mut world);
    }
}

#[test]
fn two_of_three_dead_means_unknown_and_never_a_wrong_answer() {
    let mut world = cluster(3, |config| config.client.give_up = Duration::from_secs(1));
    let leader = world.elect();
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
    for id in (1..=3).filter(|id| *id != leader) {
        world.kill(id);
    }
    world.submit(0, Kind::Read, Request::Get(1).encode());
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    for completion in drain(&mut world, 0, 2) {
        assert_eq!(completion.outcome, Outcome::Unknown);
    }
}

#[test]
fn a_restarted_memory_node_is_refused_with_an_explanation() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    world.kill(victim);
    world.run_for(Duration::from_millis(50));
    world.start(victim);
    assert!(world.run_until(Duration::from_secs(2), |world| world.stopped(victim).is_some()));
    let reason = world.stopped(victim).unwrap().to_string();
    assert!(reason.contains("forgotten its vote"), "{reason}");
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
}

#[test]
fn a_node_far_behind_is_shown_as_needing_a_snapshot_and_is_assigned_nothing() {
    let mut world = cluster(3, |config| {
        config.node.limits.retention.entries_max = 50;
        config.node.archive = false;
    });
    let leader = world.elect();
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    world.isolate(lagging, &[]);
    for round in 1..=200 {
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), round);
    }
    world.heal();
    world.run_for(Duration::from_millis(500));
    let leader = world.leader().unwrap();
    let status = world.node(leader).unwrap().status(world.now());
    let peer = status.peers.iter().find(|peer| peer.node == u32::from(lagging)).unwrap();
    assert!(peer.needs_snapshot, "{peer:?}");
    assert_eq!(peer.owed, 0);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 201);
}

#[test]
fn a_short_gap_is_caught_up_from_the_log_while_load_goes_on() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    world.isolate(lagging, &[]);
    for round in 1..=500 {
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), round);
    }
    world.heal();
    for round in 501..=600 {
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), round);
    }
    converge(&mut world);
}

#[test]
fn multi_packet_requests_and_replies_travel_whole() {
    let mut world = cluster_of(3, 3, |config| {
        config.network = NetworkConfig { loss: 0.02, latency: jitter(200), ..NetworkConfig::default() };
    });
    world.elect();
    for round in 1..=30 {
        let mut body = Request::Add(1, 1).encode().to_vec();
        body.resize(20_000, 0xa5);
        world.submit(0, Kind::Write, body);
        assert_eq!(value(&drain(&mut world, 0, 1)[0]), round);
    }
    converge(&mut world);
}

#[test]
fn a_request_at_the_limit_and_one_past_it() {
    let mut world = cluster(3, |config| {
        config.node.limits.request_max = 3000;
        config.client.request_max = 10_000;
    });
    world.elect();
    for (len, fits) in [(3000, true), (3001, false)] {
        let mut body = Request::Add(1, 1).encode().to_vec();
        body.resize(len, 0);
        world.submit(0, Kind::Write, body);
        let outcome = drain(&mut world, 0, 1).remove(0).outcome;
        match outcome {
            Outcome::Ok(_) => assert!(fits, "{len}"),
            Outcome::TooLarge { limit } => assert_eq!((fits, limit), (false, 3000)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(call(&mut world, 0, Request::Get(1)), 1);
}

#[test]
fn a_plain_client_is_answered_in_the_c_format() {
    for (policy, request, expected) in [(2, Request::Add(1, 7), 7), (3, Request::Get(1), 7)] {
        let mut world = cluster(3, |_| {});
        world.elect();
        if policy == 3 {
            call(&mut world, 0, Request::Add(1, 7));
        }
        let me = "10.9.9.9:777".parse().unwrap();
        let mut packet = vec![0xcc, 8, policy, 0xc0, 0xab, 0xcd, 0, 1];
        packet.extend_from_slice(&request.encode());
        // A copy in the network is not a second request.
        world.send_raw_to_group(me, packet.clone().into());
        world.send_raw_to_group(me, packet.into());
        world.run_for(Duration::from_millis(50));
        let answers = world.mailbox(me);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0][..8], [0xcc, 8, 0x11, 0xc0, 0xab, 0xcd, 0, 1]);
        assert_eq!(decode_reply(&answers[0][8..]), Some(expected));
        converge(&mut world);
    }
}

#[test]
fn a_plain_request_of_several_packets_is_acknowledged_once_by_the_leader() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    world.run_for(Duration::from_millis(20));
    let me = "10.9.9.9:777".parse().unwrap();
    let mut body = Request::Add(1, 7).encode().to_vec();
    body.resize(2000, 0);
    let mut first = vec![0xcc, 8, 2, 0x80, 0, 9, 0, 3];
    first.extend_from_slice(&body[..14]);
    world.send_raw_to_group(me, first.into());
    world.run_for(Duration::from_millis(1));
    let acks = world.mailbox(me);
    assert_eq!(acks.len(), 1, "a second ACK aborts the C client");
    assert_eq!(acks[0][..], [&[0xcc, 8, 0x31, 0xc0, 0, 9, 0, 1][..], b"ACK"].concat());
    for (order, last, range) in [(1, 0, 14..1478), (2, 0x40, 1478..2000)] {
        let mut packet = vec![0xcc, 8, 2, last, 0, 9, 0, order];
        packet.extend_from_slice(&body[range]);
        world.send_raw(me, simulator::world::request_address(leader), packet.into());
    }
    world.run_for(Duration::from_millis(50));
    let answers = world.mailbox(me);
    assert_eq!(answers.len(), 1);
    assert_eq!(decode_reply(&answers[0][8..]), Some(7));
    converge(&mut world);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut world = cluster_of(seed, 3, |config| config.network.loss = 0.1);
        let leader = world.elect();
        for round in 0..50 {
            world.submit(0, Kind::Write, Request::Add(1, 1).encode());
            world.run_for(Duration::from_micros(200));
            if round == 25 {
                world.kill(leader);
            }
        }
        drain(&mut world, 0, 50);
        (world.trace(), world.delivered(), world.now())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

fn counters(world: &Cluster, id: u16) -> Counters {
    *world.node(id).unwrap().counters()
}
