//! Namespaces: one for everything, and in it one per host, joined by a bridge.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::links;
use super::setup::{Host, INTERFACE, OPERATOR, address};

/// What has to be there, and the Debian package that has it.
const TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux"), ("nsenter", "util-linux")];

/// What only a namespace of one's own permits, in short.
const TRIAL: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link add trial0 type bridge && ip netns add trial \
    && ip link add trial1 type veth peer name trial2 netns trial && ip netns exec trial nft add table ip trial";

/// The words that put a command into namespaces of its own, in which it may do all that is needed here.
///
/// # Errors
/// Why that is not possible, in one line.
pub fn enclosure() -> Result<Vec<OsString>, String> {
    for (tool, package) in TOOLS {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
        if !found {
            return Err(format!("'{tool}' is missing (package {package})"));
        }
    }
    let mut why = String::new();
    for as_root in [true, false] {
        let mut words: Vec<OsString> = vec!["unshare".into()];
        if !as_root {
            words.extend(["--user", "--map-root-user"].map(OsString::from));
        }
        let kinds = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        words.extend(kinds.map(OsString::from));
        let mut trial = Command::new(&words[0]);
        trial.args(&words[1..]).args(["sh", "-c", TRIAL]).stdin(Stdio::null());
        match trial.output() {
            Ok(output) if output.status.success() => return Ok(words),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("the system permits no namespaces with networks of their own: {why}"))
}

/// How delays are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delays {
    /// As long as wanted, and jitter (netem).
    Netem,
    /// A slow link: what is sent fast waits, up to the delay wanted (tbf).
    Slow,
    /// Not at all.
    None,
}

impl Delays {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Netem => "netem",
            Self::Slow => "tbf",
            Self::None => "none",
        }
    }
}

/// The networks. Only in an enclosure.
#[derive(Debug)]
pub struct Lab {
    /// How delays are made here.
    pub delays: Delays,
}

impl Lab {
    /// Makes the bridge and a namespace for each host.
    ///
    /// # Errors
    /// What could not be done.
    pub fn new(hosts: &[Host]) -> io::Result<Self> {
        sh("mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up")?;
        // The operator's clients look for the interface by its name.
        sh(&format!(
            "ip link add {INTERFACE} type bridge mcast_snooping 0 && ip addr add {OPERATOR}/24 dev {INTERFACE} && ip link set {INTERFACE} up"
        ))?;
        for host in hosts {
            let (name, at) = (host.name(), address(*host));
            sh(&format!(
                "ip netns add {name} && ip link add v-{name} type veth peer name {INTERFACE} netns {name} \
                 && ip link set v-{name} master {INTERFACE} up && ip -n {name} link set lo up \
                 && ip -n {name} addr add {at}/24 dev {INTERFACE} && ip -n {name} link set {INTERFACE} up \
                 && ip -n {name} route add 224.0.0.0/4 dev {INTERFACE}"
            ))?;
        }
        let mut lab = Self { delays: Delays::None };
        for delays in [Delays::Netem, Delays::Slow] {
            lab.delays = delays;
            if lab.slow(hosts[0], Duration::from_millis(1)).is_ok() {
                lab.swift(hosts[0])?;
                return Ok(lab);
            }
        }
        lab.delays = Delays::None;
        Ok(lab)
    }

    /// What is to stand in front of a command that runs on that host.
    pub fn enter(host: Host) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net={}", path(host)).into(), "--".into()]
    }

    /// Puts the calling thread onto that host: sockets that it opens are there.
    ///
    /// # Errors
    /// What the system says.
    pub fn move_thread(host: Host) -> io::Result<()> {
        let namespace = File::open(path(host))?;
        // SAFETY: the descriptor is open; only this thread changes its namespace.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Has nftables on that host do what a script says.
    ///
    /// # Errors
    /// What it said about it.
    pub fn filter(&self, host: Host, script: &str) -> io::Result<()> {
        let words = Self::enter(host);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["nft", "-f", "-"]);
        finish(command, script.as_bytes())
    }

    /// How many datagrams were dropped there: to a group, and to it alone.
    pub fn dropped(&self, host: Host) -> (u64, u64) {
        let words = Self::enter(host);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["nft", "list", "counters"]).stdin(Stdio::null());
        command.output().map_or((0, 0), |output| links::dropped(&String::from_utf8_lossy(&output.stdout)))
    }

    /// What that host sends takes up to so much longer.
    ///
    /// # Errors
    /// What could not be done.
    pub fn slow(&self, host: Host, delay: Duration) -> io::Result<()> {
        let us = delay.as_micros().max(1000);
        let how = match self.delays {
            // A quarter of it varies.
            Delays::Netem => format!("netem delay {}us {}us limit 10000", us * 3 / 4, us / 4),
            Delays::Slow => format!("tbf rate 8mbit burst 16kb latency {us}us"),
            Delays::None => return Err(io::Error::other("neither netem nor tbf is there")),
        };
        sh(&format!("tc -n {} qdisc replace dev {INTERFACE} root {how}", host.name()))
    }

    /// What that host sends takes no longer than it must.
    ///
    /// # Errors
    /// What could not be done.
    pub fn swift(&self, host: Host) -> io::Result<()> {
        sh(&format!("tc -n {} qdisc del dev {INTERFACE} root", host.name()))
    }
}

fn path(host: Host) -> String {
    format!("/run/netns/{}", host.name())
}

fn sh(script: &str) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    finish(command, b"").map_err(|error| io::Error::other(format!("{script}: {error}")))
}

fn finish(mut command: Command, input: &[u8]) -> io::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("piped").write_all(input)?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
