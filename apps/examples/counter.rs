//! A replicated counter in one process: three nodes, one client, and the leader's death.
//!
//! `cargo run --release --example counter`
//!
//! What the library needs from you: a [`hovercraft::Service`] (`apps/src/counter.rs`, 20 lines) and a configuration that
//! all nodes and clients share. What this example chose: nodes as threads of one process, ports that are free now, a
//! directory of its own for the nodes' marks that they have lived.

use std::error::Error;

use hovercraft::client::{Client, Outcome, status};
use hovercraft::cluster::{ClusterConfig, FanOut, LocalPorts};
use hovercraft::{NodeId, runtime};
use hovercraft_apps::counter::Counter;

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = ClusterConfig::local(3, &LocalPorts::free(3)?);
    if config.fan_out_works().is_err() {
        config.fan_out = FanOut::Unicast;
    }
    let directory = std::env::temp_dir().join(format!("hovercraft-example-{}", std::process::id()));
    config.runtime_dir = Some(directory.clone());
    let result = run(&config);
    // All nodes of this cluster are gone, so their marks may go too.
    std::fs::remove_dir_all(&directory)?;
    result
}

fn run(config: &ClusterConfig) -> Result<(), Box<dyn Error>> {
    let mut nodes = (1..=3)
        .map(|id| runtime::start(config, NodeId(id), "counter", Counter::default()))
        .collect::<Result<Vec<_>, _>>()?;

    let options = config.client_options();
    let mut client = Client::connect(&options)?;
    for _ in 0..3 {
        show("increment", client.write("+"));
    }
    show("read", client.read(""));

    let leader = NodeId(status(&options, nodes[0].id())?.leader.try_into()?);
    println!("stopping the leader, {leader}");
    nodes.retain(|node| node.id() != leader); // Dropping a node stops it.

    show("increment", client.write("+"));
    show("read", client.read(""));
    Ok(())
}

fn show(what: &str, outcome: Outcome) {
    match outcome {
        Outcome::Ok(reply) => println!("{what}: {}", String::from_utf8_lossy(&reply)),
        Outcome::Unknown => println!("{what}: no answer in time, it may or may not have happened"),
        other => println!("{what}: {other:?}"),
    }
}
