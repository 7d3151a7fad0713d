//! All nodes of a cluster are replaced, one after the other, under load, by clients that only knew the first ones
//! (protocol.md §7.6): nobody notices.

use hovercraft::Mode;
use hovercraft::cluster::{ClusterConfig, FanOut, LocalPorts};
use system_tests::load::Load;
use system_tests::nodes::{Nodes, number};
use system_tests::{multicast_works, until};

#[test]
fn clients_follow_by_unicast() {
    replace_all_nodes(|config| config.fan_out = FanOut::Unicast);
}

#[test]
fn clients_follow_by_multicast() {
    if multicast_works("clients_follow_by_multicast") {
        replace_all_nodes(|config| config.fan_out = FanOut::Multicast);
    }
}

#[test]
fn clients_follow_the_leader() {
    replace_all_nodes(|config| {
        config.fan_out = FanOut::Unicast;
        config.mode = Mode::Raft;
    });
}

fn replace_all_nodes(change: impl FnOnce(&mut ClusterConfig)) {
    let ports = LocalPorts::free(6).expect("ports");
    let mut config = ClusterConfig::local(6, &ports);
    change(&mut config);
    for entry in &mut config.nodes[3..] {
        entry.join = true;
    }
    let mut cluster = Nodes::new(config);
    for id in 1..=3 {
        cluster.start(id);
    }
    let mut known = cluster.config.clone();
    known.nodes.truncate(3);
    let load = Load::start(&known.client_options(), 3);
    load.answered(50);
    for old in 1..=3 {
        cluster.start(old + 3);
        until("the new one votes", || cluster.role(old + 3).as_deref() == Some("voter"));
        load.answered(20);
        cluster.remove(old);
        load.answered(50);
    }
    let members = cluster.members();
    let nodes: Vec<u64> = members["members"].as_array().expect("members").iter().map(number).collect();
    assert_eq!(nodes, [4, 5, 6]);
    let (answered, epoch) = load.finish();
    assert!(answered >= 3 * 260, "{answered}");
    assert_eq!(Some(epoch), members["epoch"].as_u64(), "every client knows the group as it is");
}
