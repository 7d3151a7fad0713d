//! Node processes with one configuration, each started, killed and stopped by itself.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hovercraft::NodeId;
use hovercraft::cluster::ClusterConfig;
use serde_json::Value;

use crate::{Finished, fresh_directory, program, run, signal, until};

/// Node processes, killed when dropped.
#[derive(Debug)]
pub struct Nodes {
    /// What all of them were told, but for where they keep their data.
    pub config: ClusterConfig,
    directory: PathBuf,
    running: Vec<(u16, Child)>,
}

impl Nodes {
    /// Nobody runs yet. Durable nodes keep their data in a directory of this test's own, unless `config` says where.
    ///
    /// # Panics
    /// If there is no place for files.
    pub fn new(mut config: ClusterConfig) -> Self {
        let directory = fresh_directory();
        fs::create_dir(&directory).expect("a directory");
        config.runtime_dir = Some(directory.join("run"));
        config.data_dir.get_or_insert_with(|| directory.join("data"));
        config.validate().expect("a configuration that nodes take");
        let nodes = Self { config, directory, running: Vec::new() };
        fs::write(nodes.path(), nodes.config.to_toml()).expect("a file");
        nodes
    }

    /// The configuration file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("cluster.toml")
    }

    /// Where everything of this cluster is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a node.
    #[track_caller]
    pub fn start(&mut self, id: u16) {
        self.start_by(id, &[], &self.path());
    }

    /// Starts a node by way of another program, with a configuration of its own.
    #[track_caller]
    pub fn start_by(&mut self, id: u16, wrapper: &[OsString], config: &Path) {
        assert!(!self.is_running(id), "node {id} runs");
        let log = File::options().create(true).append(true).open(self.log_path(id)).expect("a file");
        let mut words: Vec<OsString> = wrapper.to_vec();
        words.push(program().into());
        let id_text = id.to_string();
        words.extend(["node", "--id", &id_text, "--config"].map(OsString::from));
        words.push(config.into());
        let mut command = Command::new(&words[0]);
        let node = command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.running.retain(|(node, _)| *node != id);
        self.running.push((id, node.expect("a process")));
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.directory.join(format!("node-{id}.log"))
    }

    /// All that a node has said.
    pub fn log(&self, id: u16) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    /// Whether its process runs.
    ///
    /// # Panics
    /// If that cannot be found out.
    pub fn is_running(&mut self, id: u16) -> bool {
        let node = self.running.iter_mut().find(|(node, _)| *node == id);
        node.is_some_and(|(_, process)| process.try_wait().expect("a child").is_none())
    }

    /// kill -9 of all that run, at once; returns when they are gone.
    #[track_caller]
    pub fn kill_all(&mut self) {
        for (_, node) in &self.running {
            signal(node.id(), libc::SIGKILL);
        }
        for (_, mut node) in self.running.drain(..) {
            node.wait().expect("it ends");
        }
    }

    /// Sends a signal to a node's process.
    ///
    /// # Panics
    /// If it was not started, or is gone.
    #[track_caller]
    pub fn signal(&self, id: u16, number: libc::c_int) {
        let (_, node) = self.running.iter().find(|(node, _)| *node == id).expect("it was started");
        assert!(signal(node.id(), number), "node {id} is gone");
    }

    /// Stops a node as an operator does; returns when it has ended, well.
    ///
    /// # Panics
    /// If it does not run or complains.
    #[track_caller]
    pub fn stop(&mut self, id: u16) {
        let (_, node) = self.running.iter().find(|(node, _)| *node == id).expect("it runs");
        assert!(signal(node.id(), libc::SIGTERM), "node {id} is gone");
        assert_eq!(self.ended(id), Some(0), "{}", self.log(id));
    }

    /// Waits until a node has ended by itself. Returns its exit code.
    ///
    /// # Panics
    /// If it was not started or does not end.
    #[track_caller]
    pub fn ended(&mut self, id: u16) -> Option<i32> {
        let (_, node) = self.running.iter_mut().find(|(node, _)| *node == id).expect("it was started");
        let mut status = None;
        until("the node ends", || {
            status = node.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// `hovercraft cluster` with these arguments.
    pub fn cluster(&self, arguments: &[&str]) -> Finished {
        let config = self.path();
        let mut all: Vec<&OsStr> = vec!["cluster".as_ref()];
        all.extend(arguments.iter().map(OsStr::new));
        all.extend(["--config".as_ref(), config.as_os_str()]);
        run(all)
    }

    /// `hovercraft status --json`.
    pub fn status(&self) -> Value {
        let config = self.path();
        let all: [&OsStr; 4] = ["status".as_ref(), "--json".as_ref(), "--config".as_ref(), config.as_os_str()];
        serde_json::from_str(&run(all).stdout).expect("status prints JSON")
    }

    /// A counter of a node; 0 if it does not answer.
    pub fn counter(&self, id: u16, name: &str) -> u64 {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["node"] == id);
        node.and_then(|node| node["counters"][name].as_u64()).unwrap_or(0)
    }

    /// How far a node has executed the log, if it answers.
    pub fn applied(&self, id: u16) -> Option<u64> {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["node"] == id)?["applied"].as_u64()
    }

    /// Who belongs to the group.
    ///
    /// # Panics
    /// If nobody says so.
    pub fn members(&self) -> Value {
        self.cluster(&["members", "--json"]).json()
    }

    /// What a node may do in the group, if it belongs to it.
    pub fn role(&self, id: u16) -> Option<String> {
        let members = self.members();
        let all = members["members"].as_array().expect("members");
        let member = all.iter().find(|member| number(member) == u64::from(id))?;
        member["role"].as_str().map(str::to_owned)
    }

    /// Removes a node; its process is told so, and ends.
    #[track_caller]
    pub fn remove(&mut self, id: u16) {
        self.cluster(&["remove", &NodeId(id).to_string()]).good();
        self.ended(id);
    }
}

/// The id of a member.
///
/// # Panics
/// If it has none.
pub fn number(member: &Value) -> u64 {
    member["node"].as_u64().expect("a number")
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (_, node) in &mut self.running {
            _ = node.kill();
            _ = node.wait();
        }
        if std::thread::panicking() {
            for entry in &self.config.nodes {
                eprintln!("n{} said:\n{}", entry.id, self.log(entry.id));
            }
        }
        _ = fs::remove_dir_all(&self.directory);
    }
}
