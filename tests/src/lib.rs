//! Whole clusters as a user has them: the `hovercraft` program, real processes, real sockets. What the tests share.
//!
//! Nothing here sleeps. Waiting is for something to happen (a line of output, the end of a process, an answer to a
//! status request), with a deadline that only a hang reaches.

pub mod chaos;
pub mod disks;
pub mod load;
pub mod nodes;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use hovercraft::cluster::ClusterConfig;
use multicast::{Group, Interface, PROBE_PATIENCE};
use r2p2::Instant;
use r2p2::udp::Clock;
use serde_json::Value;

/// Longer than anything takes on a busy machine: whoever waits so long waits for ever.
pub const HANG: Duration = Duration::from_secs(60);

/// The program, built from the present sources.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // <target>/<profile>/deps/<test>, or <target>/<profile>/<program>
        let own = std::env::current_exe().expect("this program has a file");
        let folder = own.parent().expect("a file is in a folder");
        let is_test = folder.file_name() == Some(OsStr::new("deps"));
        let profile = if is_test { folder.parent().expect("cargo put it into <profile>/deps") } else { folder };
        let target = profile.parent().expect("cargo put the profile into its target directory");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "-p", "hovercraft-apps", "--bin", "hovercraft"]);
        if profile.file_name() == Some(OsStr::new("release")) {
            build.arg("--release");
        }
        build.env("CARGO_TARGET_DIR", target).current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = build.status().expect("cargo runs");
        assert!(built.success(), "the program does not build");
        profile.join("hovercraft")
    })
}

/// Runs the program to its end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Finished {
    run_with_input(args, b"")
}

/// Runs the program to its end, with a directory for temporary files of its own.
pub fn run_in<S: AsRef<OsStr>>(temporary: &Path, args: impl IntoIterator<Item = S>) -> Finished {
    let mut command = Command::new(program());
    command.args(args).env("TMPDIR", temporary);
    finish(command, b"")
}

/// Runs the program to its end, with something to read.
pub fn run_with_input<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Finished {
    let mut command = Command::new(program());
    command.args(args);
    finish(command, input)
}

fn finish(mut command: Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let guard = HangGuard::new(child.id());
    // One that has failed before it read everything says more than a broken pipe.
    _ = std::io::Write::write_all(&mut child.stdin.take().expect("piped"), input);
    let output = child.wait_with_output().expect("the program ends");
    drop(guard);
    Finished::new(output)
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Its output without the end of line, if it did well.
    #[track_caller]
    pub fn good(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim_end_matches('\n')
    }

    /// Its output as JSON, if it did well.
    ///
    /// # Panics
    /// If it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.good()).expect("one JSON object")
    }

    /// Its complaint, if it ended with that code.
    #[track_caller]
    pub fn bad(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        &self.stderr
    }
}

/// Kills a process that does not end in time.
struct HangGuard {
    _done: mpsc::Sender<()>,
}

impl HangGuard {
    fn new(pid: u32) -> Self {
        let (done, watched) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if watched.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("process {pid} hangs and is killed");
                signal(pid, libc::SIGKILL);
            }
        });
        Self { _done: done }
    }
}

/// Sends a signal; false if there is no such process.
pub fn signal(pid: u32, signal: libc::c_int) -> bool {
    // SAFETY: takes two numbers.
    unsafe { libc::kill(pid as libc::pid_t, signal) == 0 }
}

/// Whether there is such a process.
pub fn alive(pid: u32) -> bool {
    // One that has ended, but that nobody has waited for, does not count.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_some_and(|state| !"ZX".contains(state))
}

/// Asks again and again until it is so.
///
/// # Panics
/// If it never becomes so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::new();
    let pace = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on which nothing arrives");
    pace.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
    while !is_so() {
        assert!(clock.now() < Instant::ZERO + HANG, "{what}: still not so after {HANG:?}");
        _ = pace.recv(&mut [0]);
    }
}

/// Whether multicast on loopback works here. Says so if not.
pub fn multicast_works(test: &str) -> bool {
    let group = Group::Multicast {
        address: SocketAddrV4::new(Ipv4Addr::new(239, 192, 255, 254), 7399),
        interface: Interface::Loopback,
    };
    match group.probe(PROBE_PATIENCE) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{test} skipped: {error}");
            false
        }
    }
}

/// A directory name that nobody else has.
pub fn fresh_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("hovercraft-test-{}-{count}", std::process::id()))
}

/// A directory for a test's files, removed with everything in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty one.
    ///
    /// # Panics
    /// If there is no place for it.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let scratch = Self(fresh_directory());
        std::fs::create_dir_all(&scratch.0).expect("a directory");
        scratch
    }

    /// Where something of this name is in it.
    ///
    /// # Panics
    /// If that cannot be written as text.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `hovercraft up`, ready. Killed when dropped, and with it all its nodes.
#[derive(Debug)]
pub struct Up {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<std::thread::JoinHandle<String>>,
    /// Where it keeps its files.
    pub directory: PathBuf,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Up {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        let directory = fresh_directory();
        let mut command = Command::new(program());
        command.arg("up").arg("--json").arg("--dir").arg(&directory).args(args);
        Self::spawn(command, directory)
    }

    /// Starts a cluster without options, where `temporary` is the directory for temporary files.
    #[track_caller]
    pub fn start_in(temporary: &Path) -> Self {
        // SAFETY: has no preconditions and cannot fail.
        let uid = unsafe { libc::getuid() };
        let mut command = Command::new(program());
        command.args(["up", "--json"]).env("TMPDIR", temporary);
        Self::spawn(command, temporary.join(format!("hovercraft-{uid}")))
    }

    #[track_caller]
    fn spawn(mut command: Command, directory: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                _ = sender.send(line);
            }
        });
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            _ = stderr.read_to_string(&mut text);
            text
        });
        let mut up = Self { child, lines, stderr: Some(stderr), directory, ready: Value::Null };
        match up.lines.recv_timeout(HANG) {
            Ok(line) => up.ready = serde_json::from_str(&line).expect("the ready line is JSON"),
            Err(error) => {
                _ = up.child.kill();
                panic!("not ready ({error}): {}", up.complaints());
            }
        }
        up
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("default.toml")
    }

    /// Its configuration.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn config(&self) -> ClusterConfig {
        ClusterConfig::load(&self.config_path()).expect("written by `up`")
    }

    /// The ids of its nodes.
    pub fn ids(&self) -> Vec<u16> {
        let nodes = self.ready["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| node["id"].as_u64().expect("id") as u16).collect()
    }

    /// A node's process.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn pid(&self, id: u16) -> u32 {
        let nodes = self.ready["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["id"] == id).expect("no such node");
        node["pid"].as_u64().expect("pid") as u32
    }

    /// kill -9 of a node; returns when it is gone.
    #[track_caller]
    pub fn kill(&self, id: u16) {
        let pid = self.pid(id);
        assert!(signal(pid, libc::SIGKILL), "node {id} was not alive");
        until("the node is dead", || !alive(pid));
    }

    /// `hovercraft kv`.
    pub fn kv(&self, args: &[&str]) -> Finished {
        self.kv_with_input(args, b"")
    }

    /// `hovercraft kv` with something to read.
    pub fn kv_with_input(&self, args: &[&str], input: &[u8]) -> Finished {
        let config = self.config_path();
        let mut all: Vec<&OsStr> = vec!["kv".as_ref(), "--config".as_ref(), config.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        run_with_input(all, input)
    }

    /// `hovercraft cluster`.
    pub fn cluster(&self, args: &[&str]) -> Finished {
        let config = self.config_path();
        let mut all: Vec<&OsStr> = vec!["cluster".as_ref()];
        all.extend(args.iter().map(OsStr::new));
        all.extend(["--config".as_ref(), config.as_os_str()]);
        run(all)
    }

    /// `hovercraft status --json`.
    pub fn status(&self) -> Value {
        let config = self.config_path();
        let all: [&OsStr; 4] = ["status".as_ref(), "--json".as_ref(), "--config".as_ref(), config.as_os_str()];
        serde_json::from_str(&run(all).stdout).expect("status prints JSON")
    }

    /// Who leads now, once somebody does.
    pub fn leader(&self) -> u16 {
        let mut leader = None;
        until("there is a leader", || {
            leader = self.status()["leader"].as_u64();
            leader.is_some()
        });
        leader.expect("just seen") as u16
    }

    /// The process that is `up` itself.
    pub fn own_pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself or by a signal. Returns how, and what it said on stderr.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let guard = HangGuard::new(self.child.id());
        let status = self.child.wait().expect("ends");
        drop(guard);
        (status, self.complaints())
    }

    /// The lines it has printed after the ready line.
    pub fn more_lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    fn complaints(&mut self) -> String {
        self.stderr.take().map_or_else(String::new, |reader| reader.join().unwrap_or_default())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A counter of a node in the output of `status --json`; 0 if it is not there.
pub fn counter(status: &Value, id: u16, name: &str) -> u64 {
    let nodes = status["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["node"] == id).expect("no such node");
    node["counters"][name].as_u64().unwrap_or(0)
}
