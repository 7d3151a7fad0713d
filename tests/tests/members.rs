//! Who makes up a cluster, from the command line.

use std::ffi::OsStr;

use hovercraft::cluster::{ClusterConfig, LocalPorts};
use serde_json::Value;
use system_tests::{Up, fresh_directory, run, until};

fn nodes(members: &Value) -> Vec<u64> {
    let members = members["members"].as_array().expect("members");
    members.iter().map(|member| member["node"].as_u64().expect("a number")).collect()
}

#[test]
fn members_and_their_status() {
    let up = Up::start(&["--fan-out", "unicast"]);
    let leader = u64::from(up.leader());
    let members = up.cluster(&["members", "--json"]).json();
    assert_eq!((members["epoch"].as_u64(), members["leader"].as_u64()), (Some(1), Some(leader)));
    assert_eq!(nodes(&members), [1, 2, 3]);
    let config = up.config();
    for (member, entry) in members["members"].as_array().expect("members").iter().zip(&config.nodes) {
        assert_eq!(member["requests"], entry.requests.to_string());
        assert_eq!(member["peers"], entry.peers.to_string());
        assert_eq!(member["role"], "voter");
    }
    let text = up.cluster(&["members"]);
    assert!(text.good().starts_with(&format!("epoch 1, n{leader} leads\n")), "{text:?}");

    let victim = up.ids().into_iter().find(|id| u64::from(*id) != leader).expect("a follower");
    up.kill(victim);
    let status = up.cluster(&["status", "--json"]).json();
    for member in status["members"].as_array().expect("members") {
        let is_dead = member["node"] == victim;
        assert_eq!(member["reachable"], !is_dead, "{member}");
        assert_eq!(member["state"] == "leader", member["node"] == leader, "{member}");
    }
    let text = up.cluster(&["status"]);
    assert!(text.good().contains("unreachable"), "{text:?}");
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let up = Up::start(&["--fan-out", "unicast"]);
    for to in [2, 3, 1] {
        let led = up.cluster(&["transfer", &to.to_string(), "--json"]).json();
        assert_eq!(led["leader"], to);
        up.kv(&["incr", "visits"]).good();
    }
    let elsewhere = up.cluster(&["transfer", "--json"]).json();
    assert_ne!(elsewhere["leader"], 1);
    assert_eq!(up.kv(&["get", "visits"]).good(), "3");
    let refused = up.cluster(&["transfer", "n9"]);
    assert!(refused.bad(1).contains("no node n9"), "{refused:?}");
    up.cluster(&["transfer", "n0"]).bad(2);
}

#[test]
fn nodes_leave_until_one_is_left() {
    let up = Up::start(&["--fan-out", "unicast"]);
    up.kv(&["set", "a", "1"]).good();
    // Whoever leads can go too.
    let first = up.leader().to_string();
    assert_eq!(nodes(&up.cluster(&["remove", &first, "--json"]).json()).len(), 2);
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
    let left = up.cluster(&["remove", &first, "--json"]).json();
    assert_eq!(left["removed"][0]["node"].to_string(), first, "asking twice is asking once");

    let left = nodes(&left);
    assert_eq!(nodes(&up.cluster(&["remove", &left[0].to_string(), "--json"]).json()), [left[1]]);
    assert_eq!(up.kv(&["incr", "n"]).good(), "1");
    let refused = up.cluster(&["remove", &left[1].to_string()]);
    assert!(refused.bad(1).contains("last voter"), "{refused:?}");
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
}

#[test]
fn whoever_keeps_a_majority_alive_cannot_leave() {
    let up = Up::start(&["--fan-out", "unicast"]);
    let leader = up.leader();
    let others: Vec<u16> = up.ids().into_iter().filter(|id| *id != leader).collect();
    up.kill(others[0]);
    // Until the leader has noticed, it takes the dead one for living.
    until("the leader misses it", || {
        let status = up.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        let peers = nodes.iter().find(|node| node["node"] == leader).map(|node| &node["peers"]);
        let peers = peers.and_then(Value::as_array).expect("the leader lives");
        let dead = peers.iter().find(|peer| peer["node"] == others[0]).expect("a member");
        dead["heard_us_ago"].as_u64().is_none_or(|us| us > 500_000)
    });
    let refused = up.cluster(&["remove", &others[1].to_string()]);
    assert!(refused.bad(1).contains("no majority"), "{refused:?}");
    // The dead one can.
    assert_eq!(nodes(&up.cluster(&["remove", &others[0].to_string(), "--json"]).json()).len(), 2);
    assert_eq!(up.kv(&["incr", "n"]).good(), "1");
}

#[test]
fn a_cluster_that_is_not_there() {
    let directory = fresh_directory();
    std::fs::create_dir(&directory).expect("a directory");
    let path = directory.join("nobody.toml");
    let ports = LocalPorts::free(3).expect("ports");
    std::fs::write(&path, ClusterConfig::local(3, &ports).to_toml()).expect("a file");
    for command in ["members", "status", "transfer"] {
        let arguments = ["cluster", command, "--timeout", "0.5", "--config"].map(OsStr::new);
        let gone = run(arguments.into_iter().chain([path.as_os_str()]));
        assert!(gone.bad(1).contains("nobody answers"), "{gone:?}");
    }
    _ = std::fs::remove_dir_all(&directory);
}

#[test]
fn one_node_goes_on_when_a_majority_is_gone_for_good() {
    for data in [false, true] {
        let directory = fresh_directory();
        let path = directory.to_str().expect("a plain path").to_owned();
        let durable = ["--fan-out", "unicast", "--data", &path];
        let up = Up::start(if data { &durable } else { &durable[..2] });
        up.kv(&["set", "kept", "yes"]).good();
        let refused = up.cluster(&["recover", "1", "--lose-what-others-acknowledged"]);
        assert!(refused.bad(1).contains("nothing to recover"), "{refused:?}");
        up.cluster(&["recover", "1"]).bad(2);
        until("all have it", || {
            let status = up.status();
            let nodes = status["nodes"].as_array().expect("nodes").clone();
            nodes.iter().all(|node| node["applied"] == nodes[0]["applied"] && !node["applied"].is_null())
        });
        let leader = up.leader();
        let left = up.ids().into_iter().find(|id| *id != leader).expect("a follower");
        for id in up.ids().into_iter().filter(|id| *id != left) {
            up.kill(id);
        }
        let recovered = || up.cluster(&["recover", &left.to_string(), "--lose-what-others-acknowledged", "--json"]);
        // It may take an election timeout until it has noticed that nobody leads.
        until("it goes on", || recovered().code == Some(0));
        let members = recovered().json();
        assert_eq!(nodes(&members), [u64::from(left)], "asking twice is asking once");
        assert_eq!(up.kv(&["get", "kept"]).good(), "yes");
        assert_eq!(up.kv(&["incr", "visits"]).good(), "1");
        drop(up);
        _ = std::fs::remove_dir_all(&directory);
    }
}

/// A node is decided upon first and started then; another one is a copy without a vote.
#[test]
fn nodes_are_added() {
    let up = Up::start(&["--fan-out", "unicast"]);
    up.kv(&["set", "a", "1"]).good();
    let ports = LocalPorts::free(5).expect("free ports");
    let mut config = up.config();
    for (at, learner) in [(3, false), (4, true)] {
        let mut entry = ClusterConfig::local(5, &ports).nodes[at];
        (entry.join, entry.learner) = (true, learner);
        config.nodes.push(entry);
    }
    let path = up.directory.join("five.toml");
    std::fs::write(&path, config.to_toml()).expect("a file");
    let file = path.to_str().expect("a plain path");
    let missing = up.cluster(&["add", "7"]);
    assert!(missing.bad(2).contains("no node n7"), "{missing:?}");
    let added = run(["cluster", "add", "4", "--json", "--config", file]).json();
    assert_eq!(added["members"][3]["role"], "learner");
    let mut started: Vec<_> = [4, 5]
        .map(|id: u16| {
            std::process::Command::new(system_tests::program())
                .args(["node", "--config", file, "--id", &id.to_string()])
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a process")
        })
        .into();
    until("one votes and one does not", || {
        let members = up.cluster(&["members", "--json"]).json();
        let role = |node: u64| {
            let members = members["members"].as_array().expect("members");
            members.iter().find(|member| member["node"] == node).map(|member| member["role"].clone())
        };
        role(4) == Some("voter".into()) && role(5) == Some("learner".into())
    });
    up.kv(&["set", "a", "2"]).good();
    for node in &mut started {
        node.kill().expect("it runs");
        node.wait().expect("it ends");
    }
    assert_eq!(up.kv(&["get", "a"]).good(), "2", "three of four voters are left");
}
