//! Disks that are full: the node that has one says so and stops, nothing that was acknowledged is lost, and all goes on when
//! there is room.

use std::path::PathBuf;

use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts};
use system_tests::disks::Disks;
use system_tests::load::Load;
use system_tests::nodes::Nodes;
use system_tests::{run, until};

/// Enough for what a test writes.
const DISK: usize = 64 << 20;

fn config(change: impl FnOnce(&mut ClusterConfig)) -> ClusterConfig {
    let ports = LocalPorts::free(3).expect("ports");
    let mut config = ClusterConfig::local(3, &ports);
    config.fan_out = FanOut::Unicast;
    config.durability = Durability::Os;
    config.client.give_up_ms = 600_000;
    change(&mut config);
    config
}

/// Three nodes, each with a small disk of its own.
struct Cluster {
    nodes: Nodes,
    disks: Disks,
}

impl Cluster {
    fn new(test: &str, change: impl FnOnce(&mut ClusterConfig)) -> Option<Self> {
        let disks = Disks::new(test)?;
        let mut cluster = Self { nodes: Nodes::new(config(change)), disks };
        for id in 1..=3 {
            cluster.disks.mount(&cluster.disk(id), DISK);
            let own = ClusterConfig { data_dir: Some(cluster.disk(id)), ..cluster.nodes.config.clone() };
            std::fs::write(cluster.config(id), own.to_toml()).expect("a file");
            cluster.start(id);
        }
        Some(cluster)
    }

    fn disk(&self, id: u16) -> PathBuf {
        self.nodes.directory().join(format!("disk-{id}"))
    }

    fn config(&self, id: u16) -> PathBuf {
        self.nodes.directory().join(format!("node-{id}.toml"))
    }

    fn start(&mut self, id: u16) {
        let config = self.config(id);
        self.nodes.start_by(id, &self.disks.enter(), &config);
    }

    /// Fills a node's disk until it has ended, and looks at what it said.
    fn fill(&mut self, id: u16) {
        let disk = self.disk(id);
        until("it notices that its disk is full", || {
            self.disks.fill(&disk);
            !self.nodes.is_running(id)
        });
        assert_eq!(self.nodes.ended(id), Some(1), "{}", self.nodes.log(id));
        let said = self.nodes.log(id);
        assert!(said.contains("the disk is full") && said.contains("make room"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn full_disks_stop_nodes_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::new("full_disks_stop_nodes_and_nothing_is_lost", |_| {}) else { return };
    let load = Load::pipelined(&cluster.nodes.config.client_options(), 3, 8);
    load.answered(100);
    cluster.fill(1);
    load.answered(100);
    cluster.fill(2);
    // One of three is left: it acknowledges nothing.
    let mut impatient = cluster.nodes.config.clone();
    impatient.client.give_up_ms = 500;
    let path = cluster.nodes.directory().join("impatient.toml");
    std::fs::write(&path, impatient.to_toml()).expect("a file");
    let before = load.total();
    let refused =
        run(["kv".as_ref(), "--config".as_ref(), path.as_os_str(), "set".as_ref(), "a".as_ref(), "1".as_ref()]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    // What was on its way when the second one stopped has arrived since.
    assert!(load.total() <= before + 3 * 8, "nobody can have acknowledged anything");
    // Without room they do not start either, or stop again, and do no harm.
    cluster.start(2);
    assert_eq!(cluster.nodes.ended(2), Some(1), "{}", cluster.nodes.log(2));
    for id in 1..=2 {
        cluster.disks.make_room(&cluster.disk(id));
        cluster.start(id);
    }
    load.answered(100);
    // Those two are a majority: what the third one has is on their disks too.
    cluster.nodes.kill_all();
    (1..=2).for_each(|id| cluster.start(id));
    load.answered(100);
    load.finish();
}

#[test]
fn a_node_without_room_for_a_snapshot_goes_on() {
    let cluster = Cluster::new("a_node_without_room_for_a_snapshot_goes_on", |config| {
        config.limits.snapshot_bytes = 64 << 10;
        config.limits.snapshot_entries = 200;
    });
    let Some(mut cluster) = cluster else { return };
    until("all are there", || (1..=3).all(|id| cluster.nodes.applied(id).is_some()));
    // Its snapshots are on a disk of their own, with less room than a snapshot takes.
    cluster.nodes.stop(3);
    cluster.disks.mount(&cluster.disk(3).join("node-3/snapshots"), 16 << 10);
    cluster.start(3);
    let config = cluster.nodes.path();
    let value = "x".repeat(20_000);
    let set =
        ["kv".as_ref(), "--config".as_ref(), config.as_os_str(), "set".as_ref(), "large".as_ref(), value.as_ref()];
    run(set).good();
    let load = Load::pipelined(&cluster.nodes.config.client_options(), 3, 1);
    until("it has no room", || cluster.nodes.counter(3, "node.snapshots_without_room") > 0);
    until("the others have", || (1..=2).all(|id| cluster.nodes.counter(id, "node.snapshots_taken") > 1));
    assert!(cluster.nodes.log(3).contains("no room for a snapshot"), "{}", cluster.nodes.log(3));
    // It is as good as any other: without it there is no majority now.
    cluster.nodes.stop(1);
    load.answered(100);
    load.finish();
    assert_eq!(cluster.nodes.counter(3, "node.snapshots_taken"), 0);
}
