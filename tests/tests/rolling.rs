//! Nodes are restarted one by one under load, as for a new program: no operation fails, and there is one order of all of them.

use hovercraft::Mode;
use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts};
use system_tests::load::Load;
use system_tests::nodes::Nodes;
use system_tests::until;

#[test]
fn durable_nodes_are_stopped_and_started() {
    restart_everybody(Durability::Os, Mode::Hovercraft);
}

#[test]
fn nodes_that_sync_are_stopped_and_started() {
    restart_everybody(Durability::Sync, Mode::Hovercraft);
}

#[test]
fn durable_nodes_of_plain_raft_are_stopped_and_started() {
    restart_everybody(Durability::Os, Mode::Raft);
}

#[test]
fn nodes_without_disks_are_stopped_and_let_in_again() {
    restart_everybody(Durability::Memory, Mode::Hovercraft);
}

fn restart_everybody(durability: Durability, mode: Mode) {
    let ports = LocalPorts::free(3).expect("ports");
    let mut config = ClusterConfig { durability, mode, fan_out: FanOut::Unicast, ..ClusterConfig::local(3, &ports) };
    // Nobody is so slow, but a machine that does many other things.
    config.client.give_up_ms = 60_000;
    config.limits.snapshot_entries = 500;
    let mut cluster = Nodes::new(config);
    (1..=3).for_each(|id| cluster.start(id));
    let load = Load::pipelined(&cluster.config.client_options(), 3, 4);
    load.answered(50);
    for round in 0..2 {
        for id in 1..=3 {
            cluster.stop(id);
            load.answered(30);
            let before = (1..=3).filter_map(|id| cluster.applied(id)).max().expect("two are there");
            cluster.start(id);
            until("it has caught up", || cluster.applied(id).is_some_and(|applied| applied >= before));
            until("it votes", || cluster.role(id).as_deref() == Some("voter"));
            load.answered(30);
        }
        assert_eq!(cluster.members()["members"].as_array().map(Vec::len), Some(3), "after round {round}");
    }
    let (answered, _) = load.finish();
    assert!(answered >= 3 * (50 + 2 * 3 * 60), "{answered}");
}
