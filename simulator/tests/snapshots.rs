//! Snapshots: how they are taken, how nodes begin from them, how they cross the network (protocol.md §7.4).

mod common;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use common::{Cluster, call, cluster_of, converge, drain, jitter, value};
use r2p2::MessageHead;
use r2p2::client::Kind;
use r2p2::message::write_packets;
use r2p2::wire::{Extensions, MessageType, Policy};
use simulator::registers::Request;
use simulator::world::request_address;
use simulator::{Party, WorldConfig};

/// Durable nodes that keep little of their log and take snapshots often.
fn durable(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    short_log(seed, nodes, |config| {
        config.node.durable = true;
        change(config);
    })
}

/// Nodes that keep little of their log.
fn short_log(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    cluster_of(seed, nodes, |config| {
        let limits = &mut config.node.limits;
        limits.retention.entries_max = 20;
        limits.snapshots.after_entries = 50;
        limits.snapshots.chunks_in_flight_max = 4;
        limits.snapshots.keep_after_use = Duration::from_millis(200);
        limits.snapshots.retry_after = Duration::from_millis(50);
        change(config);
    })
}

/// Writes as many registers, some at a time, so that there is time for a snapshot now and then.
fn fill(world: &mut Cluster, client: usize, registers: u64) {
    for from in (0..registers).step_by(50) {
        let keys = from..registers.min(from + 50);
        for key in keys.clone() {
            world.submit(client, Kind::Write, Request::Add(1000 + key, 1).encode());
        }
        drain(world, client, keys.count());
        world.run_for(Duration::from_millis(3));
    }
}

#[test]
fn a_durable_node_takes_snapshots_and_begins_from_one() {
    let mut world = durable(1, 3, |_| {});
    let leader = world.elect();
    fill(&mut world, 0, 300);
    converge(&mut world);
    for id in 1..=3 {
        let node = world.node(id).unwrap();
        assert!(node.counters().snapshots_taken >= 4, "{:?}", node.counters());
        assert_eq!(node.snapshots().count(), 1, "older ones are removed");
    }
    let follower = leader % 3 + 1;
    let applied = world.node(follower).unwrap().applied();
    world.kill(follower);
    world.start(follower);
    let node = world.node(follower).unwrap();
    assert!(node.applied() > 100 && node.applied() <= applied, "at once, from its snapshot: {node:?}");
    converge(&mut world);
    assert_eq!(call(&mut world, 0, Request::Add(1000, 1)), 2);
    converge(&mut world);
}

#[test]
fn all_nodes_lose_power_and_begin_from_their_snapshots() {
    for seed in 0..10 {
        let mut world = durable(seed, 3, |config| config.clients = 2);
        world.elect();
        for round in 1..=5 {
            fill(&mut world, 0, 70);
            assert_eq!(call(&mut world, 1, Request::Add(1, 1)), round);
            for id in 1..=3 {
                world.kill(id);
            }
            for id in 1..=3 {
                world.start(id);
            }
            world.elect();
        }
        converge(&mut world);
        assert_eq!(call(&mut world, 1, Request::Get(1000)), 5);
        assert!(world.applier(1).unwrap().counters().writes_applied < 200, "most of it came with a snapshot");
    }
}

/// Cuts a node off while the others order more than they keep.
fn leave_behind(world: &mut Cluster, id: u16) {
    world.isolate(id, &[]);
    fill(world, 0, 300);
}

fn counters(world: &Cluster, id: u16) -> &hovercraft::node::Counters {
    world.node(id).unwrap().counters()
}

fn given_by(world: &Cluster, ids: impl IntoIterator<Item = u16>) -> u64 {
    ids.into_iter().filter_map(|id| world.node(id)).map(|node| node.counters().chunks_given).sum()
}

#[test]
fn a_node_that_is_far_behind_catches_up_by_a_snapshot_from_a_follower() {
    for is_durable in [false, true] {
        for seed in 0..5 {
            let mut world = short_log(seed, 3, |config| config.node.durable = is_durable);
            let leader = world.elect();
            let behind = leader % 3 + 1;
            leave_behind(&mut world, behind);
            world.heal();
            converge(&mut world);
            let leader = world.leader().unwrap();
            assert_eq!(counters(&world, behind).snapshots_installed, 1, "{:?}", counters(&world, behind));
            let follower = 6 - leader - behind;
            assert!(given_by(&world, [follower]) > 0, "a follower gives it");
            assert_eq!(given_by(&world, [leader]), 0, "the leader has enough to do");
            assert_eq!(call(&mut world, 0, Request::Add(1000, 1)), 2);
            converge(&mut world);
            // Nobody reads it any more, and without a disk nobody needs it.
            world.run_for(Duration::from_secs(1));
            for id in 1..=3 {
                assert_eq!(world.node(id).unwrap().snapshots().count(), usize::from(is_durable), "n{id}");
            }
        }
    }
}

#[test]
fn a_node_catches_up_while_the_group_is_busy_and_the_network_is_bad() {
    for seed in 0..10 {
        let mut world = short_log(seed, 5, |config| {
            config.node.durable = seed % 2 == 0;
            config.clients = 2;
            config.network.loss = 0.05;
            config.network.duplicate = 0.05;
            config.network.corrupt = 0.02;
            config.network.reorder = 0.1;
            config.network.latency = jitter(300);
        });
        let leader = world.elect();
        let behind = leader % 5 + 1;
        leave_behind(&mut world, behind);
        world.heal();
        // It catches up while there is always something to order.
        let mut outstanding = 0;
        let caught_up = world.run_until(Duration::from_secs(20), |world| {
            outstanding -= world.completions(1).len();
            while outstanding < 20 {
                world.submit(1, Kind::Write, Request::Add(1, 1).encode());
                outstanding += 1;
            }
            let last = world.leader().and_then(|id| world.node(id)).map_or(0, |node| node.consensus().log().last());
            counters(world, behind).snapshots_installed > 0 && world.node(behind).unwrap().applied() + 200 > last
        });
        assert!(caught_up, "seed {seed}: {world:?} {:?}", counters(&world, behind));
        world.set_network(simulator::NetworkConfig::default());
        converge(&mut world);
    }
}

#[test]
fn the_source_dies_and_another_one_goes_on() {
    let mut world = durable(3, 5, |_| {});
    let leader = world.elect();
    let behind = leader % 5 + 1;
    leave_behind(&mut world, behind);
    fill(&mut world, 0, 2000);
    converge_but(&mut world, behind);
    world.heal();
    let source = Rc::new(Cell::new(0));
    let seen = Rc::clone(&source);
    world.lose_when(move |flight| {
        if let (Party::Node(from), "snapshot_chunk", Party::Node(to)) = (flight.from, flight.what, flight.to)
            && to == behind
        {
            seen.set(from);
        }
        false
    });
    assert!(world.run_until(Duration::from_secs(5), |world| counters(world, behind).chunks_received > 2));
    let source = source.get();
    assert_eq!(counters(&world, behind).snapshots_received, 0, "in the middle of it");
    world.kill(source);
    let done = |world: &mut Cluster| counters(world, behind).snapshots_installed == 1;
    assert!(world.run_until(Duration::from_secs(10), done), "{:?}", counters(&world, behind));
    assert!(counters(&world, behind).sources_changed > 0, "{:?}", counters(&world, behind));
    world.start(source);
    converge(&mut world);
}

#[test]
fn the_receiver_may_die_after_anything_it_does() {
    for outputs in 0..60 {
        let mut world = durable(7, 3, |_| {});
        let leader = world.elect();
        let behind = leader % 3 + 1;
        leave_behind(&mut world, behind);
        world.heal();
        assert!(world.run_until(Duration::from_secs(5), |world| counters(world, behind).chunks_received > 0));
        world.crash_after(behind, outputs);
        world.run_for(Duration::from_millis(20));
        if world.node(behind).is_some() {
            world.spare(behind);
            world.kill(behind);
        }
        world.start(behind);
        converge(&mut world);
        assert_eq!(call(&mut world, 0, Request::Add(1000, 1)), 2);
        converge(&mut world);
    }
}

#[test]
fn leaders_come_and_go_while_a_snapshot_is_on_its_way() {
    for seed in 0..10 {
        let mut world = durable(seed, 5, |config| config.node.limits.snapshots.chunks_in_flight_max = 1);
        let leader = world.elect();
        let behind = leader % 5 + 1;
        leave_behind(&mut world, behind);
        fill(&mut world, 0, 1000);
        world.heal();
        assert!(world.run_until(Duration::from_secs(5), |world| counters(world, behind).chunks_received > 0));
        for _ in 0..3 {
            let Some(leader) = world.leader() else { break };
            world.kill(leader);
            world.run_for(Duration::from_millis(2));
            world.start(leader);
            world.elect();
        }
        converge(&mut world);
        assert_eq!(call(&mut world, 0, Request::Add(1000, 1)), 3);
        converge(&mut world);
    }
}

/// What was answered before a snapshot is answered again behind it, and not executed.
#[test]
fn sessions_go_along() {
    let mut world = durable(1, 3, |config| {
        config.clients = 2;
        config.client.retransmit_min = Duration::from_millis(300);
        config.client.retransmit_max = Duration::from_millis(300);
    });
    world.elect();
    assert_eq!(call(&mut world, 1, Request::Add(7, 1)), 1);
    // The answer is lost, and everything is forgotten but snapshots.
    world.lose_when(|flight| flight.what == "response" && flight.to == Party::Client(1));
    let ticket = world.submit(1, Kind::Write, Request::Add(7, 1).encode());
    world.run_for(Duration::from_millis(20));
    fill(&mut world, 0, 200);
    for id in 1..=3 {
        world.kill(id);
    }
    for id in 1..=3 {
        world.start(id);
    }
    world.elect();
    world.heal();
    let completions = drain(&mut world, 1, 1);
    assert_eq!(value(&completions[0]), 2, "{ticket:?}");
    assert_eq!(call(&mut world, 1, Request::Get(7)), 2);
    converge(&mut world);
}

/// A copy of a plain request that the network brings late is not executed again by a leader that began from a snapshot.
#[test]
fn plain_requests_are_remembered_across_snapshots() {
    let mut world = durable(1, 3, |_| {});
    world.elect();
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 1000);
    let head = MessageHead {
        kind: MessageType::Request,
        policy: Policy::Replicated,
        rid: 7,
        extensions: Extensions::default(),
    };
    let mut packets = Vec::new();
    write_packets(&head, &Request::Add(5, 1).encode(), 1472, &mut |packet| packets.push(packet)).unwrap();
    let send = |world: &mut Cluster| {
        for id in 1..=3 {
            world.send_raw(from, request_address(id), packets[0].clone());
        }
        world.run_for(Duration::from_millis(5));
    };
    send(&mut world);
    fill(&mut world, 0, 200);
    converge(&mut world);
    assert_eq!(world.applier(1).unwrap().service().value(5), 1);
    for id in 1..=3 {
        world.kill(id);
    }
    for id in 1..=3 {
        world.start(id);
        assert!(world.node(id).unwrap().consensus().log().first() > 100, "its entry is in no log");
    }
    world.elect();
    send(&mut world);
    world.run_for(Duration::from_secs(1));
    converge(&mut world);
    assert_eq!(world.applier(1).unwrap().service().value(5), 1, "executed again");
}

/// No room for a snapshot loses nothing: the node goes on and tries again.
#[test]
fn a_snapshot_without_room_is_taken_later() {
    let mut world = short_log(1, 3, |_| {});
    let leader = world.elect();
    fill(&mut world, 0, 30);
    world.set_archive_full(leader, true);
    assert!(world.take_snapshot(leader));
    world.run_for(Duration::from_millis(20));
    let node = world.node(leader).unwrap();
    assert_eq!((node.counters().snapshots_without_room, node.snapshots().count()), (1, 0));
    assert_eq!(call(&mut world, 0, Request::Add(1000, 1)), 2, "it goes on");
    world.set_archive_full(leader, false);
    assert!(world.take_snapshot(leader));
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.node(leader).unwrap().snapshots().count(), 1);
    assert!(!world.take_snapshot(leader), "there is nothing new");
}

/// Everybody but one node has the same.
fn converge_but(world: &mut Cluster, but: u16) {
    let same = world.run_until(Duration::from_secs(5), |world| {
        let ids: Vec<u16> = world.running().into_iter().filter(|id| *id != but).collect();
        let applied = |id: &u16| world.node(*id).unwrap().applied();
        ids.iter().all(|id| applied(id) == world.node(ids[0]).unwrap().consensus().log().last())
    });
    assert!(same, "{world:?}");
}
