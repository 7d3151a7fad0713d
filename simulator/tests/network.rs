//! Networks and hosts with limits: load makes queues, queues fill, and what finds no room is dropped.

mod common;

use std::time::Duration;

use common::{Cluster, call, cluster, converge, drain, value};
use r2p2::client::Kind;
use simulator::registers::Request;
use simulator::{Latency, NetworkConfig};

const US: Duration = Duration::from_micros(1);

/// Submits `count` increments at once and returns how long it takes until all are answered.
fn burst(world: &mut Cluster, count: u64) -> Duration {
    let before = world.now();
    for _ in 0..count {
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    }
    let mut replies: Vec<u64> = drain(world, 0, count as usize).iter().map(value).collect();
    replies.sort_unstable();
    let first = replies[0];
    assert_eq!(replies, (first..first + count).collect::<Vec<u64>>(), "each once");
    world.now().since(before)
}

/// A request goes to the leader, an Append to the followers, an acknowledgement back, an answer to the client: four
/// times the latency, and nothing else takes time.
#[test]
fn with_constant_latency_an_operation_takes_four_times_that() {
    let mut world = cluster(3, |config| config.network.latency = Latency::Constant(7 * US));
    let leader = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    for _ in 0..20 {
        let time = burst(&mut world, 1);
        assert!(time >= 4 * 7 * US, "{time:?}");
        // Whom the leader has not chosen learns of the commit by a notice of its own: once more.
        assert!(time <= 6 * 7 * US, "{time:?}");
    }
    assert_eq!(world.leader(), Some(leader));
    converge(&mut world);
}

/// A slow link delays what is long, in proportion.
#[test]
fn a_slow_link_delays_long_requests() {
    let mut world = cluster(3, |config| {
        config.network.bandwidth = Some(100_000_000);
        config.network.latency = Latency::Constant(10 * US);
    });
    world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    let time_of = |world: &mut Cluster, len: usize| {
        let mut body = Request::Add(1, 1).encode().to_vec();
        body.resize(len, 0);
        let before = world.now();
        world.submit(0, Kind::Write, body);
        drain(world, 0, 1);
        world.now().since(before)
    };
    let short = time_of(&mut world, 100);
    let long = time_of(&mut world, 10_100);
    // 10 000 bytes are 800 µs through the client's link, and the last packet's 80 to 120 µs through the receiver's.
    assert!(long > short + 800 * US, "{short:?} and {long:?}");
    assert!(long < short + 2 * 800 * US, "{short:?} and {long:?}");
    assert_eq!(world.faults().overflowed, 0);
    converge(&mut world);
}

/// More than the sender's queue holds, sent at once: the rest is dropped, counted, sent again, and executed once.
#[test]
fn a_burst_overflows_a_short_queue_and_ends_all_the_same() {
    let mut world = cluster(3, |config| {
        config.network.bandwidth = Some(100_000_000);
        config.network.queue_max = 8 << 10;
    });
    world.elect();
    burst(&mut world, 500);
    assert!(world.faults().overflowed > 0);
    assert_eq!(world.faults().lost + world.faults().cut, 0, "what found no room is a loss of its own kind");
    assert_eq!(world.lost(), world.faults().overflowed);
    converge(&mut world);
}

/// Nodes that take their time for every datagram: clients' requests wait, then find no room; peers' messages have a
/// socket of their own, and the leader stays.
#[test]
fn overload_fills_the_sockets_of_slow_nodes() {
    let mut world = cluster(3, |config| {
        config.network.processing = 50 * US;
        config.network.socket_max = 64 << 10;
        config.client.give_up = Duration::from_secs(60);
    });
    let leader = world.elect();
    let term = world.node(leader).unwrap().consensus().term();
    burst(&mut world, 1);
    assert_eq!(world.faults().overflowed, 0);
    burst(&mut world, 1000);
    assert!(world.faults().overflowed > 0);
    assert_eq!(world.node(leader).unwrap().consensus().term(), term, "overload by clients elects nobody");
    converge(&mut world);
}

/// One node is slow: the others answer for it.
#[test]
fn a_slow_node_does_not_slow_down_the_others() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    let fast = burst(&mut world, 300);
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    world.set_processing(slow, Some(100 * US));
    let behind = burst(&mut world, 300);
    assert!(last(&world, slow) <= last(&world, leader));
    assert!(behind < 20 * fast + Duration::from_millis(40), "{fast:?} and {behind:?}");
    world.set_processing(slow, None);
    converge(&mut world);
}

/// What arrives at a paused node waits in its sockets as far as there is room.
#[test]
fn a_paused_nodes_sockets_fill_up() {
    let mut world = cluster(3, |config| config.network.socket_max = 16 << 10);
    let leader = world.elect();
    let paused = (1..=3).find(|id| *id != leader).unwrap();
    world.pause(paused);
    for _ in 0..5 {
        burst(&mut world, 30);
    }
    let overflowed = world.faults().overflowed;
    assert!(overflowed > 0);
    world.resume(paused);
    converge(&mut world);
    assert_eq!(world.node(paused).unwrap().applied(), last(&world, leader));
}

/// Latencies of every kind, in one seed each: nothing is lost, everything is answered.
#[test]
fn every_kind_of_latency_is_survived() {
    let max = Duration::from_millis(30);
    let latencies = [
        Latency::Constant(500 * US),
        Latency::jittered(10 * US, Duration::from_millis(3)),
        Latency::LogNormal { median: 100 * US, sigma: 1.5, max },
        Latency::HeavyTail { min: 20 * US, max },
    ];
    for latency in latencies {
        for in_order in [false, true] {
            let network = NetworkConfig {
                latency,
                in_order,
                spikes: 0.01,
                spike: Duration::from_millis(20),
                reorder: 0.05,
                reorder_by: Duration::from_millis(2),
                ..NetworkConfig::default()
            };
            let mut world = cluster(5, |config| config.network = network);
            world.elect();
            burst(&mut world, 200);
            converge(&mut world);
            assert_eq!(world.lost(), 0, "{network}");
        }
    }
}

fn last(world: &Cluster, id: u16) -> u64 {
    world.node(id).unwrap().consensus().log().last()
}
