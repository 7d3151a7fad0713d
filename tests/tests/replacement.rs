//! All nodes of a cluster are replaced, one after the other, under load, by clients that only knew the first ones
//! (protocol.md §7.6): nobody notices.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hovercraft::cluster::{ClusterConfig, FanOut, LocalPorts};
use hovercraft::{Mode, NodeId};
use serde_json::Value;
use system_tests::load::Load;
use system_tests::{fresh_directory, multicast_works, program, run, until};

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
    let mut cluster = Cluster::new(config);
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

fn number(member: &Value) -> u64 {
    member["node"].as_u64().expect("a number")
}

/// Node processes with one configuration, killed when dropped.
struct Cluster {
    config: ClusterConfig,
    directory: PathBuf,
    nodes: Vec<(u16, Child)>,
}

impl Cluster {
    fn new(mut config: ClusterConfig) -> Self {
        let directory = fresh_directory();
        std::fs::create_dir(&directory).expect("a directory");
        config.runtime_dir = Some(directory.join("run"));
        std::fs::write(directory.join("cluster.toml"), config.to_toml()).expect("a file");
        Self { config, directory, nodes: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("cluster.toml")
    }

    fn start(&mut self, id: u16) {
        let log = std::fs::File::create(self.directory.join(format!("node-{id}.log"))).expect("a file");
        let mut command = Command::new(program());
        command.args(["node", "--id", &id.to_string(), "--config"]).arg(self.path());
        let node = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.nodes.push((id, node.expect("a process")));
    }

    fn members(&self) -> Value {
        let members = cluster(&self.path(), &["members", "--json"]);
        serde_json::from_str(members.good()).expect("one JSON object")
    }

    fn role(&self, id: u16) -> Option<String> {
        let members = self.members();
        let all = members["members"].as_array().expect("members");
        let member = all.iter().find(|member| number(member) == u64::from(id))?;
        member["role"].as_str().map(str::to_owned)
    }

    /// Removes a node; its process is told so, and ends.
    fn remove(&mut self, id: u16) {
        cluster(&self.path(), &["remove", &NodeId(id).to_string()]).good();
        let (_, node) = self.nodes.iter_mut().find(|(node, _)| *node == id).expect("it runs");
        until("the removed one ends", || node.try_wait().expect("a child").is_some());
    }
}

fn cluster(config: &Path, arguments: &[&str]) -> system_tests::Finished {
    let mut all: Vec<&OsStr> = vec!["cluster".as_ref()];
    all.extend(arguments.iter().map(OsStr::new));
    all.extend(["--config".as_ref(), config.as_os_str()]);
    run(all)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (id, node) in &mut self.nodes {
            _ = node.kill();
            _ = node.wait();
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.directory.join(format!("node-{id}.log"))).unwrap_or_default();
                eprintln!("n{id} said:\n{log}");
            }
        }
        _ = std::fs::remove_dir_all(&self.directory);
    }
}
