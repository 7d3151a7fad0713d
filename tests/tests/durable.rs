//! Processes that are killed and come back with what they had acknowledged.

use std::path::Path;

use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts};
use system_tests::load::Load;
use system_tests::nodes::Nodes;
use system_tests::{Scratch, Up, program, run, signal, until};

fn start(scratch: &Scratch, more: &[&str]) -> Up {
    Up::start(&[&["--data", &scratch.path("data")], more].concat())
}

fn count(up: &Up, expected: u64) {
    assert_eq!(up.kv(&["incr", "visits"]).good(), expected.to_string());
}

#[test]
fn kill_9_of_everybody_at_once_loses_nothing() {
    for durability in ["sync", "os"] {
        let scratch = Scratch::new();
        let mut visits = 0;
        for _ in 0..3 {
            let up = start(&scratch, &["--durability", durability]);
            for _ in 0..5 {
                visits += 1;
                count(&up, visits);
            }
            for id in up.ids() {
                up.kill(id);
            }
            let (ended, complaints) = up.ended();
            assert_eq!(ended.code(), Some(1));
            assert!(complaints.contains("all nodes are dead") && complaints.contains("Start it again"), "{complaints}");
        }
        let up = start(&scratch, &["--durability", durability]);
        count(&up, visits + 1);
        signal(up.own_pid(), libc::SIGINT);
        assert_eq!(up.ended().0.code(), Some(0));
        let up = start(&scratch, &["--durability", durability]);
        count(&up, visits + 2);
    }
}

#[test]
fn kill_9_of_everybody_under_load_loses_nothing_that_was_synced() {
    kill_everybody_again_and_again(|config| config.durability = Durability::Sync);
}

#[test]
fn kill_9_of_everybody_under_load_loses_nothing_that_the_system_has() {
    kill_everybody_again_and_again(|config| config.durability = Durability::Os);
}

#[test]
fn kill_9_of_everybody_among_snapshots_loses_nothing() {
    let mut cluster = kill_everybody_again_and_again(|config| {
        config.durability = Durability::Os;
        config.limits.snapshot_bytes = 64 << 10;
        config.limits.snapshot_entries = 200;
        config.limits.log_entries_max = 4096;
    });
    // They begin from snapshots: what is in front of those is in no journal any more.
    cluster.kill_all();
    for id in 1..=3 {
        let snapshots = cluster.directory().join(format!("data/node-{id}/snapshots"));
        assert!(std::fs::read_dir(&snapshots).is_ok_and(|mut files| files.next().is_some()), "{snapshots:?}");
    }
}

/// All nodes are killed at once while clients ask, and started again. Clients are patient; nothing that they ask fails.
fn kill_everybody_again_and_again(change: impl FnOnce(&mut ClusterConfig)) -> Nodes {
    let ports = LocalPorts::free(3).expect("ports");
    let mut config = ClusterConfig::local(3, &ports);
    config.fan_out = FanOut::Unicast;
    config.client.give_up_ms = 600_000;
    change(&mut config);
    let mut cluster = Nodes::new(config);
    (1..=3).for_each(|id| cluster.start(id));
    let load = Load::pipelined(&cluster.config.client_options(), 3, 8);
    for round in 0..5 {
        load.answered(200);
        cluster.kill_all();
        // Not always in the same order.
        (0..3).for_each(|n| cluster.start((n + round) % 3 + 1));
    }
    load.answered(200);
    let (answered, _) = load.finish();
    assert!(answered >= 6 * 3 * 200, "{answered}");
    cluster
}

#[test]
fn a_killed_node_comes_back_under_its_identity() {
    let scratch = Scratch::new();
    let up = start(&scratch, &[]);
    count(&up, 1);
    let leader = up.leader();
    up.kill(leader);
    count(&up, 2);
    let mut node = std::process::Command::new(program())
        .args(["node", "--config"])
        .arg(up.config_path())
        .args(["--id", &leader.to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a process");
    until("the node has caught up", || {
        let status = up.status();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        let applied: Vec<_> = nodes.iter().map(|node| node["applied"].as_u64()).collect();
        applied.iter().all(|index| index.is_some() && *index == applied[0])
    });
    // With another one gone, it is needed.
    let other = up.ids().into_iter().find(|id| *id != leader).expect("another one");
    up.kill(other);
    count(&up, 3);
    signal(node.id(), libc::SIGTERM);
    assert!(node.wait().expect("it ends").success());
}

#[test]
fn a_data_directory_that_holds_something_else_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let node = Path::new(&path).join("node-1");
    std::fs::create_dir_all(&node).expect("a directory");
    std::fs::write(node.join("letter"), "dear").expect("a file");
    let directory = scratch.path("run");
    let why = run(["up", "--dir", &directory, "--data", &path]);
    let why = why.bad(1);
    assert!(why.contains("holds files and no node's data"), "{why}");
}
