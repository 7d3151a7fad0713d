//! Clocks that start anywhere, run at rates of their own, jump ahead and stand still: time is what a process takes for
//! it, and no two processes agree.

mod common;

use std::time::Duration;

use common::{Cluster, call, cluster, cluster_of, converge, drain, value};
use r2p2::client::{Kind, Outcome};
use simulator::registers::Request;
use simulator::world::ClockConfig;
use simulator::{Party, WorldConfig};

const HOUR: Duration = Duration::from_secs(3600);

fn others(world: &Cluster, id: u16) -> Vec<u16> {
    world.running().into_iter().filter(|other| *other != id).collect()
}

/// The next leader, if this one dies.
fn depose(world: &mut Cluster, leader: u16) -> u16 {
    world.kill(leader);
    let elected = world.run_until(Duration::from_secs(10), |world| world.leader().is_some());
    assert!(elected);
    world.elect()
}

/// A cluster that can live through the minutes after which sessions expire: its ticks are long.
fn patient(config: &mut WorldConfig) {
    config.clients = 2;
    config.client.give_up = HOUR;
    config.node.timing.tick = Duration::from_millis(50);
    config.node.timing.fresh = Duration::from_millis(500);
}

/// The time of the last entry of a node's log.
fn log_time(world: &Cluster, id: u16) -> Duration {
    let log = world.node(id).unwrap().consensus().log();
    log.get(log.last()).unwrap().entry.time.since(r2p2::Instant::ZERO)
}

/// §3.3 [a new leader one hour ahead expires everybody]: every follower's clock is one hour ahead of the leader's, and one
/// of them leads next. The log's time goes on from its last entry, and nobody's session ends.
#[test]
fn a_new_leader_one_hour_ahead_expires_nobody() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
    for id in others(&world, leader) {
        world.jump_clock(Party::Node(id), HOUR);
    }
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
    let before = log_time(&world, leader);
    let new = depose(&mut world, leader);
    assert!(world.local_now(Party::Node(new)).since(world.now()) >= HOUR);
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    assert_eq!(drain(&mut world, 0, 1)[0].outcome, Outcome::Ok(3u64.to_be_bytes().to_vec().into()));
    let passed = log_time(&world, new) - before;
    assert!(passed < Duration::from_secs(10), "the log's time has gone on by {passed:?}");
    assert_eq!(world.faults().clock_jumps, 2);
    converge(&mut world);
}

/// The other way round: a new leader whose clock shows less than any entry of the log does not hold its time back, and
/// an unused session ends when it has been unused for long enough.
#[test]
fn sessions_expire_under_a_leader_whose_clock_is_behind() {
    let mut world = cluster(3, |config| {
        patient(config);
        config.client.retransmit_min = Duration::from_secs(700);
        config.client.retransmit_initial = Duration::from_secs(700);
        config.client.retransmit_max = Duration::from_secs(800);
    });
    let leader = world.elect();
    // The leader's clock jumps ahead before anything happens, and stays ahead of everybody's.
    world.jump_clock(Party::Node(leader), HOUR);
    let leader = world.elect();
    assert_eq!(call(&mut world, 1, Request::Add(1, 1)), 1);
    let new = depose(&mut world, leader);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
    let rule = world.lose_when(|flight| flight.what == "response" && flight.to == Party::Client(0));
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    world.run_for(Duration::from_secs(650));
    assert_eq!(call(&mut world, 1, Request::Get(1)), 3);
    world.remove_rule(rule);
    assert_eq!(drain(&mut world, 0, 1)[0].outcome, Outcome::Expired);
    assert_eq!(call(&mut world, 1, Request::Get(1)), 3, "and the copy was not executed");
    assert!(world.node(new).is_some());
    converge(&mut world);
}

/// Restarted with a clock that begins again at zero: timers, sessions and the log's time do not care.
#[test]
fn a_restarted_process_has_a_clock_of_its_own() {
    let mut world = cluster(3, |config| config.node.durable = true);
    world.elect();
    world.run_for(Duration::from_secs(60));
    let mut expected = 0;
    for _ in 0..6 {
        let leader = world.elect();
        expected += 1;
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), expected);
        let before = log_time(&world, leader);
        world.kill(leader);
        world.start(leader);
        assert!(world.local_now(Party::Node(leader)).since(r2p2::Instant::ZERO) < Duration::from_millis(1));
        let new = world.elect();
        expected += 1;
        assert_eq!(call(&mut world, 0, Request::Add(1, 1)), expected);
        assert!(log_time(&world, new) >= before, "the log's time never goes back");
    }
    converge(&mut world);
}

/// Clocks that differ by a tenth and start up to a day apart: there is a leader, and it stays.
#[test]
fn clocks_that_drift_hard_elect_one_leader_who_stays() {
    for seed in 0..10 {
        let mut world = cluster_of(seed, 5, |config| {
            config.clients = 3;
            config.clocks = ClockConfig { drift_ppm_max: 100_000, start_max: 24 * HOUR };
        });
        let leader = world.elect();
        let term = world.node(leader).unwrap().consensus().term();
        for _ in 0..20 {
            for client in 0..3 {
                world.submit(client, Kind::Write, Request::Add(1, 1).encode());
            }
            for client in 0..3 {
                drain(&mut world, client, 1);
            }
            world.run_for(Duration::from_millis(30));
        }
        assert_eq!(world.node(leader).unwrap().consensus().term(), term, "seed {seed}");
        assert_eq!(call(&mut world, 0, Request::Get(1)), 60);
        converge(&mut world);
    }
}

/// Everybody's clock jumps ahead in turn, while operations are outstanding: each ends, and each takes effect once.
#[test]
fn clocks_jump_while_operations_are_outstanding() {
    for by in [Duration::from_millis(7), Duration::from_millis(300), Duration::from_secs(20)] {
        let mut world = cluster(3, |config| config.client.give_up = HOUR);
        world.elect();
        let jumping = [Party::Node(1), Party::Node(2), Party::Node(3), Party::Client(0)];
        for party in jumping {
            for _ in 0..20 {
                world.submit(0, Kind::Write, Request::Add(1, 1).encode());
            }
            world.run_for(Duration::from_micros(25));
            world.jump_clock(party, by);
            drain(&mut world, 0, 20);
        }
        assert_eq!(call(&mut world, 0, Request::Get(1)), 80, "{by:?}");
        world.elect();
        converge(&mut world);
    }
}

/// A leader whose clock is set back by a minute stands still: others lead, and when its time is up it follows.
#[test]
fn a_leader_whose_clock_stands_still_is_replaced() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    world.set_clock_back(Party::Node(leader), Duration::from_secs(60));
    let shown = world.local_now(Party::Node(leader));
    let replaced = world.run_until(Duration::from_secs(5), |world| world.leader() != Some(leader));
    assert!(replaced, "it does not say that it lives, so it does not lead");
    for _ in 0..10 {
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    }
    let replies: u64 = drain(&mut world, 0, 10).iter().map(value).max().unwrap();
    assert_eq!(replies, 10);
    assert_eq!(world.local_now(Party::Node(leader)), shown);
    assert_eq!(world.faults().clock_stalls, 1);
    world.run_for(Duration::from_secs(61));
    assert!(world.local_now(Party::Node(leader)) > shown);
    converge(&mut world);
}

/// A client whose clock runs twice as slow retransmits twice as late; nothing else is any different.
#[test]
fn a_slow_client_waits_longer() {
    let copies = |ppm: i64| {
        let mut world = cluster(3, |_| {});
        world.elect();
        call(&mut world, 0, Request::Add(1, 1));
        world.set_drift(Party::Client(0), ppm);
        world.lose_when(|flight| flight.what == "response");
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        let sent = world.faults().cut;
        world.run_for(Duration::from_secs(2));
        (world.faults().cut - sent, world.client(0).outstanding())
    };
    let ((even, _), (slow, outstanding)) = (copies(0), copies(-500_000));
    assert!(slow < even, "{slow} answers lost instead of {even}");
    assert_eq!(outstanding, 1);
}
