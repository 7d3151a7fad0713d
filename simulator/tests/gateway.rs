//! The gateway in front of simulated clusters (protocol.md §9).

mod common;

use std::time::Duration;

use common::{Cluster, call, cluster_of, converge, kind_of};
use multicast::gateway::GatewayConfig;
use r2p2::client::Outcome;
use simulator::registers::Request;
use simulator::swarm::{self, GatewayDraw, Options, Verdict};
use simulator::{Party, WorldConfig};

fn behind_a_gateway(seed: u64, in_flight_max: usize, adapt: impl FnOnce(&mut WorldConfig)) -> Cluster {
    cluster_of(seed, 3, |config| {
        config.gateway = Some(GatewayConfig { in_flight_max, ..GatewayConfig::default() });
        config.client.unicast_after = 6;
        adapt(config);
    })
}

/// Submits so many operations at each client, and gives how many were answered in time.
fn answered(world: &mut Cluster, clients: usize, each: u64) -> u64 {
    for _ in 0..each {
        for client in 0..clients {
            let request = Request::Add(1, 1);
            world.submit(client, kind_of(request), request.encode());
        }
    }
    let mut sum = 0;
    let total = each * clients as u64;
    world.run_until(Duration::from_secs(20), |world| {
        for client in 0..clients {
            let ended = world.completions(client);
            sum += ended.iter().filter(|(_, ended)| matches!(ended.outcome, Outcome::Ok(_))).count() as u64;
        }
        sum >= total
    });
    sum
}

#[test]
fn everything_goes_through_it_and_every_credit_comes_back() {
    for unicast in [false, true] {
        let mut world = behind_a_gateway(1, 1024, |config| (config.clients, config.unicast) = (4, unicast));
        world.elect();
        assert_eq!(answered(&mut world, 4, 50), 200);
        converge(&mut world);
        assert_eq!(call(&mut world, 0, Request::Get(1)), 200);
        world.run_for(Duration::from_millis(100));
        let gateway = world.gateway().unwrap();
        let credits = gateway.credits();
        // All of them, a session for each client and the last read.
        assert_eq!((credits.charged, credits.expired, gateway.in_flight()), (205, 0, 0));
        assert_eq!(gateway.gateway_counters().requests_refused, 0);
    }
}

#[test]
fn what_is_too_much_is_refused_and_comes_again() {
    let mut world = behind_a_gateway(2, 2, |config| config.clients = 8);
    world.elect();
    assert_eq!(answered(&mut world, 8, 20), 160);
    assert_eq!(call(&mut world, 0, Request::Get(1)), 160);
    assert!(world.gateway().unwrap().gateway_counters().requests_refused > 0);
}

#[test]
fn without_feedback_credits_come_back_by_the_deadline() {
    let mut world = behind_a_gateway(3, 4, |config| {
        config.gateway.as_mut().unwrap().credit_deadline = Duration::from_millis(20);
    });
    world.elect();
    world.lose_when(|flight| flight.what == "feedback");
    assert_eq!(answered(&mut world, 1, 20), 20);
    world.run_for(Duration::from_millis(100));
    let gateway = world.gateway().unwrap();
    assert_eq!((gateway.in_flight(), gateway.credits().returned), (0, 0));
    assert!(gateway.credits().expired >= 20);
}

#[test]
fn clients_go_around_a_gateway_that_is_not_there() {
    let mut world = behind_a_gateway(4, 1024, |_| {});
    world.elect();
    assert_eq!(answered(&mut world, 1, 5), 5);
    world.kill_gateway();
    assert_eq!(answered(&mut world, 1, 5), 5);
    world.start_gateway();
    assert_eq!(answered(&mut world, 1, 5), 5);
    assert_eq!(call(&mut world, 0, Request::Get(1)), 15);
}

#[test]
fn a_replier_that_dies_keeps_no_credit() {
    let mut world = behind_a_gateway(5, 8, |config| config.clients = 4);
    let leader = world.elect();
    assert_eq!(answered(&mut world, 4, 5), 20);
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    world.lose_when(move |flight| flight.from == Party::Node(victim) && flight.what == "feedback");
    for client in 0..4 {
        world.submit(client, kind_of(Request::Add(1, 1)), Request::Add(1, 1).encode());
    }
    world.run_for(Duration::from_micros(50));
    world.kill(victim);
    assert!(answered(&mut world, 4, 20) >= 80, "those before the death too");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.gateway().unwrap().in_flight(), 0);
}

/// Swarm runs, every one of them behind a gateway.
#[test]
fn drawn_clusters_behind_gateways_are_clean() {
    for number in 0..20 {
        let mut options = Options::draw(swarm::seed_of(11, number));
        options.gateway = Some(GatewayDraw {
            in_flight_max: [1, 3, 10, 1024][number as usize % 4],
            credit_deadline: Duration::from_millis([20, 100, 1_000][number as usize % 3]),
            delay_target: number.is_multiple_of(5).then_some(Duration::from_millis(5)),
        });
        let report = swarm::run_options(&options);
        assert_eq!(report.verdict, Verdict::Clean, "{options}");
    }
}
