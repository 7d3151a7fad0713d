//! Node processes on this machine: started from this very program, watched, stopped, never left behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use r2p2::udp::Clock;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::Failure;

/// For how long a node may take to stop after it has been asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How many bytes from the end of a dead node's log are shown.
const LOG_TAIL: usize = 2000;

/// The id of the aggregator's process: no node has it.
pub(crate) const AGGREGATOR: u16 = 0;

/// What a process is called: "node 3", "the aggregator".
pub(crate) fn name(id: u16) -> String {
    if id == AGGREGATOR { "the aggregator".to_owned() } else { format!("node {id}") }
}

/// A process of a cluster: a node, or the aggregator. Killed when dropped.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    id: u16,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl NodeProcess {
    /// Starts `hovercraft node` with its output in `log`.
    ///
    /// Must be called from a thread that lives as long as the program: the kernel kills the node when that thread ends,
    /// so that even `kill -9` of this program leaves nothing behind.
    pub(crate) fn spawn(id: u16, config: &Path, service: &[OsString], log: PathBuf) -> io::Result<Self> {
        let number = id.to_string();
        let arguments = ["node", "--id", &number, "--config"].map(OsString::from);
        let arguments = arguments.into_iter().chain([config.into()]).chain(service.iter().cloned());
        Self::spawn_with(id, arguments, log)
    }

    /// Starts `hovercraft aggregator`; the id is [`AGGREGATOR`]. Otherwise the same.
    pub(crate) fn spawn_aggregator(config: &Path, log: PathBuf) -> io::Result<Self> {
        Self::spawn_with(AGGREGATOR, ["aggregator".into(), "--config".into(), config.into()], log)
    }

    fn spawn_with(id: u16, arguments: impl IntoIterator<Item = OsString>, log: PathBuf) -> io::Result<Self> {
        let output = File::create(&log)?;
        let mut command = Command::new("/proc/self/exe"); // Still this program if its file has been replaced.
        command
            .arg0("hovercraft")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C at the terminal is ours to forward.
            .process_group(0);
        die_with_us(&mut command);
        Ok(Self { id, child: command.spawn()?, log, ended: None })
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn alive(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether it has ended since it was last asked, and how.
    pub(crate) fn just_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = self.child.try_wait().ok().flatten();
        self.ended
    }

    /// kill -9. When this returns, the process is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended.is_none() {
            _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// The end of what it had to say.
    pub(crate) fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL)..]).into_owned();
        text.trim_end().to_owned()
    }

    /// Where its output is.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    fn signal(&self, signal: libc::c_int) {
        if self.ended.is_none() {
            // SAFETY: the process has not been waited for, so the id is still its own.
            unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has the kernel kill the process when the thread that starts it ends.
pub(crate) fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the kernel was told.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Asks all to stop, waits, and kills those who take too long. Returns the ids of those.
pub(crate) fn stop_all(nodes: &mut [&mut NodeProcess], events: &Events) -> Vec<u16> {
    for node in nodes.iter() {
        node.signal(SIGTERM);
    }
    let clock = Clock::new();
    let deadline = clock.now() + STOP_PATIENCE;
    let all_ended = |nodes: &mut [&mut NodeProcess]| {
        for node in nodes.iter_mut() {
            node.just_ended();
        }
        !nodes.iter().any(|node| node.alive())
    };
    while !all_ended(nodes) && clock.now() < deadline {
        // Rings when a child ends.
        events.wait(deadline.since(clock.now()).min(Duration::from_millis(100)));
    }
    let late = nodes.iter().filter(|node| node.alive()).map(|node| node.id()).collect();
    for node in nodes {
        node.kill();
    }
    late
}

/// How a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(libc::SIGKILL)) => "was killed (signal 9)".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What the kernel tells this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Somebody wants this program to end: Ctrl-C, SIGTERM, the terminal has gone.
    Stop,
    /// A child may have ended.
    Child,
}

/// Signals, one after the other.
#[derive(Debug)]
pub(crate) struct Events(Receiver<Event>);

impl Events {
    /// From now on signals come here.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])
            .map_err(|error| Failure::new(format!("cannot handle signals: {error}")))?;
        let (sender, events) = mpsc::channel();
        let forward = move || {
            for signal in signals.forever() {
                let event = if signal == SIGCHLD { Event::Child } else { Event::Stop };
                if sender.send(event).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(forward)
            .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
        Ok(Self(events))
    }

    /// The next one, if it comes in time.
    pub(crate) fn wait(&self, patience: Duration) -> Option<Event> {
        match self.0.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }

    /// The next one, whenever it comes.
    pub(crate) fn next(&self) -> Event {
        self.0.recv().unwrap_or(Event::Stop)
    }
}
