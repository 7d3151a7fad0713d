//! What the tests of whole clusters share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part, and none is a crate of its own")]

use std::time::Duration;

use hovercraft::Timing;
use r2p2::client::{Completion, Kind, Outcome};
use simulator::registers::{Request, decode_reply};
use simulator::{Latency, Registers, World, WorldConfig};

pub type Cluster = World<Registers>;

/// The configuration of a cluster with a tick of a millisecond, so that elections do not dominate the tests.
pub fn config_of(seed: u64, nodes: u16) -> WorldConfig {
    let mut config = WorldConfig::new(seed, nodes);
    config.node.timing = Timing { tick: Duration::from_millis(1), ..Timing::default() };
    config
}

pub fn cluster(nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    cluster_of(1, nodes, change)
}

pub fn cluster_of(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    let mut config = config_of(seed, nodes);
    change(&mut config);
    World::new(config, Registers::default)
}

/// 10 µs and up to `micros` more.
pub fn jitter(micros: u64) -> Latency {
    Latency::jittered(Duration::from_micros(10), Duration::from_micros(micros))
}

pub fn kind_of(request: Request) -> Kind {
    if matches!(request, Request::Get(_)) { Kind::Read } else { Kind::Write }
}

/// One operation, to its end.
pub fn call(world: &mut Cluster, client: usize, request: Request) -> u64 {
    world.submit(client, kind_of(request), request.encode());
    value(&drain(world, client, 1)[0])
}

/// Runs until `count` operations of a client have ended.
pub fn drain(world: &mut Cluster, client: usize, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    let all = world.run_until(Duration::from_secs(2000), |world| {
        done.extend(world.completions(client).into_iter().map(|(_, completion)| completion));
        done.len() >= count
    });
    assert!(all, "{} of {count} operations ended; {world:?}", done.len());
    done
}

pub fn value(completion: &Completion) -> u64 {
    match &completion.outcome {
        Outcome::Ok(reply) => decode_reply(reply).expect("a number"),
        other => panic!("{other:?}"),
    }
}

/// Whether every running node ends with the same log and the same state.
pub fn converged(world: &mut Cluster) -> bool {
    world.run_until(Duration::from_secs(5), |world| {
        let ids = world.running();
        let view = |id: &u16| {
            let node = world.node(*id).unwrap();
            (node.consensus().log().last(), node.applied(), world.applier(*id).unwrap().state_hash())
        };
        let first = view(&ids[0]);
        first.0 == first.1 && ids.iter().all(|id| view(id) == first)
    })
}

/// Every running node ends with the same log and the same state.
pub fn converge(world: &mut Cluster) {
    assert!(converged(world), "{world:?}");
}
