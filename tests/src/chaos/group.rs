//! The node processes: started, killed, stopped, paused, and started again when they have ended and should not have.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use hovercraft::cluster::ClusterConfig;
use r2p2::Instant;

use super::lab::Lab;
use super::setup::{Host, Setup};
use crate::signal;

/// How many lines of its log tell how a process came to its end.
const LAST_WORDS: usize = 8;

/// A node: what it is to be, and what it is.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its number.
    pub id: u16,
    child: Option<Child>,
    /// Whether it is to run; if it does not, it is started.
    pub wanted: bool,
    /// Not before this time.
    pub not_before: Instant,
    /// Whether it was stopped by SIGSTOP.
    pub paused: bool,
    /// Whether it has been asked to stop and is to be started again after that.
    pub stopping: bool,
    /// The last incarnation that it was a voter as, as far as anybody saw; 0 if it never was one.
    pub incarnation: u32,
    /// It has lost what it knew as this incarnation, and has not voted since as a later one.
    pub lost: Option<u32>,
    /// Its removal was asked for: it may end because of that.
    pub leaving: bool,
    /// How much of its log was looked at.
    log_read: u64,
    /// Where in its log the present process begins.
    log_begin: u64,
}

/// How a process has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Which node.
    pub id: u16,
    /// How.
    pub status: ExitStatus,
    /// What it said last.
    pub last_words: String,
}

/// All of them.
#[derive(Debug)]
pub struct Group {
    /// The nodes, by number.
    pub nodes: Vec<NodeProcess>,
    program: PathBuf,
    directory: PathBuf,
    config: PathBuf,
    durable: bool,
}

impl Group {
    /// Nobody runs yet.
    ///
    /// # Errors
    /// If the configuration cannot be written.
    pub fn new(setup: &Setup, config: &ClusterConfig, program: &Path, directory: &Path) -> io::Result<Self> {
        let path = directory.join("cluster.toml");
        fs::write(&path, config.to_toml())?;
        let node = |id| NodeProcess {
            id,
            child: None,
            wanted: !setup.is_spare(id),
            not_before: Instant::ZERO,
            paused: false,
            stopping: false,
            incarnation: u32::from(!setup.is_spare(id)),
            lost: None,
            leaving: false,
            log_read: 0,
            log_begin: 0,
        };
        Ok(Self {
            nodes: setup.ids().map(node).collect(),
            program: program.to_owned(),
            directory: directory.to_owned(),
            config: path,
            durable: setup.durability != hovercraft::cluster::Durability::Memory,
        })
    }

    /// The node of that number.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&mut self, id: u16) -> &mut NodeProcess {
        &mut self.nodes[usize::from(id) - 1]
    }

    /// Those whose processes run, paused ones too.
    pub fn running(&self) -> Vec<u16> {
        self.nodes.iter().filter(|node| node.child.is_some()).map(|node| node.id).collect()
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.directory.join(format!("node-{id}.log"))
    }

    /// Starts who is to run, does not, and may by now.
    ///
    /// # Errors
    /// What the system says.
    pub fn start_wanted(&mut self, now: Instant) -> io::Result<Vec<u16>> {
        let due = |node: &&NodeProcess| node.wanted && node.child.is_none() && node.not_before <= now;
        let due: Vec<u16> = self.nodes.iter().filter(due).map(|node| node.id).collect();
        for &id in &due {
            let log = File::options().create(true).append(true).open(self.log_path(id))?;
            let log_begin = log.metadata()?.len();
            // In memory mode marks say who has lived; on disk only we know whose data was removed.
            let joins = self.durable && self.nodes[usize::from(id) - 1].lost.is_some();
            let words = Lab::enter(Host::Node(id));
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg(&self.program).args(["node", "--id", &id.to_string(), "--config"]);
            command.arg(&self.config).args(joins.then_some("--join"));
            // Ctrl-C is for us.
            command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let child = command.spawn()?;
            let node = self.node(id);
            (node.child, node.paused, node.stopping, node.log_begin) = (Some(child), false, false, log_begin);
        }
        Ok(due)
    }

    /// kill -9; returns when it is gone. False if it does not run.
    pub fn kill(&mut self, id: u16) -> bool {
        let node = self.node(id);
        node.paused = false;
        let Some(mut child) = node.child.take() else { return false };
        _ = child.kill();
        _ = child.wait();
        true
    }

    /// Sends a signal to a node's process. False if it does not run.
    pub fn signal(&mut self, id: u16, number: libc::c_int) -> bool {
        let node = self.node(id);
        match number {
            libc::SIGSTOP => node.paused = true,
            libc::SIGCONT => node.paused = false,
            _ => {}
        }
        node.child.as_ref().is_some_and(|child| signal(child.id(), number))
    }

    /// Removes a durable node's data. It must not run.
    ///
    /// # Errors
    /// What the system says.
    pub fn wipe(&mut self, id: u16) -> io::Result<()> {
        match fs::remove_dir_all(self.directory.join("data").join(format!("node-{id}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whose processes have ended without having been killed.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> io::Result<Vec<Ended>> {
        let mut all = Vec::new();
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            if let Some(status) = child.try_wait()? {
                (node.child, node.paused) = (None, false);
                all.push((node.id, status));
            }
        }
        Ok(all.into_iter().map(|(id, status)| Ended { id, status, last_words: self.last_words(id) }).collect())
    }

    /// What its latest process said last.
    fn last_words(&self, id: u16) -> String {
        let log = fs::read(self.log_path(id)).unwrap_or_default();
        let begin = usize::try_from(self.nodes[usize::from(id) - 1].log_begin).unwrap_or(0).min(log.len());
        let text = String::from_utf8_lossy(&log[begin..]);
        let lines: Vec<_> = text.lines().rev().take(LAST_WORDS).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// What nodes have logged since the last time, each line with the node's number.
    ///
    /// # Errors
    /// What the system says.
    pub fn new_lines(&mut self) -> io::Result<Vec<(u16, String)>> {
        use io::{Read, Seek};
        let mut lines = Vec::new();
        for at in 0..self.nodes.len() {
            let id = self.nodes[at].id;
            let Ok(mut file) = File::open(self.log_path(id)) else { continue };
            file.seek(io::SeekFrom::Start(self.nodes[at].log_read))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            // A line that is being written is left for the next time.
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            self.nodes[at].log_read += whole as u64;
            lines.extend(String::from_utf8_lossy(&bytes[..whole]).lines().map(|line| (id, line.to_owned())));
        }
        Ok(lines)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for id in self.running() {
            self.kill(id);
        }
    }
}
