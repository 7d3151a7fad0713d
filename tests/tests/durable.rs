//! Processes that are killed and come back with what they had acknowledged.

use std::path::PathBuf;

use system_tests::{Up, fresh_directory, run, signal};

/// Removed with everything in it.
struct Data(PathBuf);

impl Data {
    fn new() -> Self {
        Self(fresh_directory())
    }

    fn up(&self, more: &[&str]) -> Up {
        let data = self.0.to_str().expect("a plain path");
        Up::start(&[&["--data", data], more].concat())
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn count(up: &Up, expected: u64) {
    assert_eq!(up.kv(&["incr", "visits"]).good(), expected.to_string());
}

#[test]
fn kill_9_of_everybody_at_once_loses_nothing() {
    for durability in ["sync", "os"] {
        let data = Data::new();
        let mut visits = 0;
        for _ in 0..3 {
            let up = data.up(&["--durability", durability]);
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
        let up = data.up(&["--durability", durability]);
        count(&up, visits + 1);
        signal(up.own_pid(), libc::SIGINT);
        assert_eq!(up.ended().0.code(), Some(0));
        let up = data.up(&["--durability", durability]);
        count(&up, visits + 2);
    }
}

#[test]
fn a_killed_node_comes_back_under_its_identity() {
    let data = Data::new();
    let up = data.up(&[]);
    count(&up, 1);
    let leader = up.leader();
    up.kill(leader);
    count(&up, 2);
    let mut node = std::process::Command::new(system_tests::program())
        .args(["node", "--config"])
        .arg(up.config_path())
        .args(["--id", &leader.to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a process");
    system_tests::until("the node has caught up", || {
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
    let data = Data::new();
    std::fs::create_dir_all(data.0.join("node-1")).expect("a directory");
    std::fs::write(data.0.join("node-1").join("letter"), "dear").expect("a file");
    let path = data.0.to_str().expect("a plain path");
    let directory = Data::new();
    let dir = directory.0.to_str().expect("a plain path");
    let why = run(["up", "--dir", dir, "--data", path]);
    let why = why.bad(1);
    assert!(why.contains("holds files and no node's data"), "{why}");
}
