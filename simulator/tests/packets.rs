//! How many datagrams an operation costs a node, by mode and number of nodes, against what one derives by hand
//! (protocol.md §8). One client writes, one operation after the other: nothing is shared between two of them.
//!
//! `cargo test -p simulator --test packets -- --nocapture` prints the table.

use std::fmt::Write as _;
use std::time::Duration;

use hovercraft::Mode;
use r2p2::client::{Kind, Outcome, Route};
use simulator::registers::Request;
use simulator::{Registers, World, WorldConfig};

/// Writes that are counted.
const OPERATIONS: u64 = 1_000;

/// Datagrams per operation.
#[derive(Clone, Copy, Debug)]
struct Cost {
    leader_sent: f64,
    leader_received: f64,
    follower_sent: f64,
    follower_received: f64,
}

impl Cost {
    fn leader(&self) -> f64 {
        self.leader_sent + self.leader_received
    }
}

fn measure(mode: Mode, nodes: u16) -> Cost {
    let mut config = WorldConfig::new(1, nodes);
    config.node.mode = mode;
    // The same for every number of nodes.
    config.node.early_commit = false;
    config.aggregators = u16::from(mode == Mode::HovercraftPlusPlus);
    if mode == Mode::Raft {
        config.client.fan_out = Route::Sticky;
    }
    let mut world = World::new(config, Registers::default);
    let leader = world.elect();
    write(&mut world, 100);
    let counts = |world: &World<Registers>| {
        (1..=nodes).map(|id| world.packets(id)).map(|packets| (packets.sent, packets.received)).collect::<Vec<_>>()
    };
    let (before, began) = (counts(&world), world.now());
    write(&mut world, OPERATIONS);
    let after = counts(&world);
    // Heartbeats and their answers have to do with time, and nothing with operations.
    let heartbeats = world.now().since(began).as_secs_f64() / Duration::from_millis(10).as_secs_f64();
    let others = f64::from(nodes - 1);
    let per_operation = |count: u64, rhythm: f64| (count as f64 - rhythm).max(0.0) / OPERATIONS as f64;
    let mut follower = (0.0, 0.0);
    let mut of_leader = (0.0, 0.0);
    for (at, (now, then)) in after.iter().zip(&before).enumerate() {
        let (sent, received) = (now.0 - then.0, now.1 - then.1);
        if at as u16 + 1 == leader {
            of_leader = (per_operation(sent, heartbeats), per_operation(received, heartbeats * others));
        } else {
            follower.0 += per_operation(sent, heartbeats) / others;
            follower.1 += per_operation(received, heartbeats) / others;
        }
    }
    Cost {
        leader_sent: of_leader.0,
        leader_received: of_leader.1,
        follower_sent: follower.0,
        follower_received: follower.1,
    }
}

fn write(world: &mut World<Registers>, count: u64) {
    for _ in 0..count {
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        assert!(world.run_until(Duration::from_secs(1), |world| world.has_completions()));
        let (_, completion) = world.completions(0).remove(0);
        assert!(matches!(completion.outcome, Outcome::Ok(_)));
        // Whatever follows from it has time to.
        world.run_for(Duration::from_micros(300));
    }
}

/// What the leader sends and receives for one write, counted on paper. Where nobody owes anything the leader answers.
fn by_hand(mode: Mode, nodes: u16) -> (f64, f64) {
    let others = f64::from(nodes - 1);
    match mode {
        // The Append, the commit notice, the answer; the request, and an acknowledgement of each.
        Mode::Hovercraft => (3.0, 1.0 + others),
        // The Append and the answer; the request, what a majority has, and once what came after that.
        Mode::HovercraftPlusPlus => (2.0, 3.0),
        // An Append to each, the commit notice, the answer; the request, and an acknowledgement of each.
        Mode::Raft => (others + 2.0, 1.0 + others),
        Mode::Unreplicated => (1.0, 1.0),
    }
}

#[test]
fn the_leaders_work_does_not_grow_with_an_aggregator() {
    let mut table = String::from("mode          N  leader sent  by hand  received  by hand  follower sent  received\n");
    let mut leaders = Vec::new();
    for mode in [Mode::Raft, Mode::Hovercraft, Mode::HovercraftPlusPlus] {
        for nodes in [3, 5, 7, 9] {
            let cost = measure(mode, nodes);
            let (sent, received) = by_hand(mode, nodes);
            _ = writeln!(
                table,
                "{:<12} {nodes:>2} {:>12.2} {sent:>8.2} {:>9.2} {received:>8.2} {:>14.2} {:>9.2}",
                mode.name(),
                cost.leader_sent,
                cost.leader_received,
                cost.follower_sent,
                cost.follower_received,
            );
            leaders.push((mode, nodes, cost));
        }
    }
    println!("{table}");
    for (mode, nodes, cost) in &leaders {
        let (sent, received) = by_hand(*mode, *nodes);
        let fits = (cost.leader_sent - sent).abs() < 0.1 && (cost.leader_received - received).abs() < 0.1;
        assert!(fits, "{mode:?} of {nodes}: {cost:?}, by hand {sent} and {received}\n{table}");
    }
    let of = |mode, nodes| leaders.iter().find(|(m, n, _)| (*m, *n) == (mode, nodes)).map(|(_, _, cost)| cost.leader());
    let growth = |mode| of(mode, 9).zip(of(mode, 3)).map(|(nine, three)| nine / three).expect("measured");
    assert!(growth(Mode::HovercraftPlusPlus) <= 1.1, "{table}");
    assert!(growth(Mode::Hovercraft) > 1.5 && growth(Mode::Raft) > 2.0, "{table}");
}
