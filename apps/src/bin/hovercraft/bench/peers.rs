//! Redis and etcd beside us, where they are installed: the same number of connections, one operation in flight each, values
//! of the same size, everything on the same cores.
//!
//! Redis keeps everything in memory, alone or with two replicas of which one must have it (`WAIT 1`), which is replication
//! without consensus. etcd always writes to disk; it is talked to by its JSON gateway, so what it costs includes that.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use measure::latencies::Summary;
use measure::process;
use measure::tcp::{self, Dialogue};
use r2p2::udp::Clock;
use serde::Serialize;

use super::load::LoadArgs;
use super::progress::{self, Watch};
use super::system::PlaceArgs;
use crate::output::Failure;
use crate::processes::{self, Events};

/// For how long a peer may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait before asking again.
const PACE: Duration = Duration::from_millis(50);

/// What was found of one peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Peer {
    name: String,
    /// Why there is nothing else.
    skipped: Option<String>,
    rate: f64,
    latency: Summary,
    busiest_us: f64,
    all_us: f64,
}

impl Peer {
    fn skipped(name: &str, why: &str) -> Self {
        let (rate, busiest_us, all_us) = (0.0, 0.0, 0.0);
        let skipped = Some(why.to_owned());
        Self { name: name.to_owned(), skipped, rate, latency: Summary::default(), busiest_us, all_us }
    }

    /// Cells: name, replies per second, p50, p99, p99.9, busiest, all.
    pub(crate) fn cells(&self) -> Vec<String> {
        let Summary { p50_us, p99_us, p999_us, .. } = self.latency;
        match &self.skipped {
            Some(why) => vec![self.name.clone(), format!("skipped: {why}")],
            None => [self.name.clone(), crate::output::grouped(self.rate as u64)]
                .into_iter()
                .chain([p50_us, p99_us, p999_us].map(|us| format!("{us:.1}")))
                .chain([self.busiest_us, self.all_us].map(|us| format!("{us:.2}")))
                .collect(),
        }
    }
}

/// All of them, one after the other.
pub(crate) fn run(load: &LoadArgs, place: &PlaceArgs, events: &Events) -> Result<Vec<Peer>, Failure> {
    let scratch = Scratch::new()?;
    let bench = Bench { load, place, events };
    let mut peers = Vec::new();
    for replicas in [0, 2] {
        let name = if replicas == 0 { "Redis, alone" } else { "Redis, 2 replicas, WAIT 1" };
        peers.push(match installed("redis-server") {
            false => Peer::skipped(name, "redis-server is not installed"),
            true => bench.redis(name, replicas, &scratch.0)?,
        });
    }
    let name = "etcd, 3 members";
    peers.push(match installed("etcd") {
        false => Peer::skipped(name, "etcd is not installed"),
        true => bench.etcd(name, &scratch.0)?,
    });
    Ok(peers)
}

struct Bench<'a> {
    load: &'a LoadArgs,
    place: &'a PlaceArgs,
    events: &'a Events,
}

impl Bench<'_> {
    fn redis(&self, name: &str, replicas: u16, scratch: &Path) -> Result<Peer, Failure> {
        let ports = free_ports(1 + usize::from(replicas))?;
        let mut processes = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let directory = scratch.join(format!("redis-{port}"));
            let mut command = Command::new("redis-server");
            command
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
                .arg(&directory);
            if number > 0 {
                command.args(["--replicaof", "127.0.0.1", &ports[0].to_string()]);
            }
            processes.push(self.spawn(command, &directory)?);
        }
        let server = at(ports[0]);
        let ready = b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n100\r\n";
        wait_until(name, || match replicas {
            0 => says(server, b"PING\r\n").starts_with(b"+PONG"),
            _ => says(server, ready).starts_with(b":2"),
        })?;
        let mut dialogue = Resp { lines: if replicas == 0 { 1 } else { 2 }, number: 0, load: self.load };
        self.measure(name, &[server], &mut dialogue, &processes)
    }

    fn etcd(&self, name: &str, scratch: &Path) -> Result<Peer, Failure> {
        let ports = free_ports(6)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let members: Vec<String> = (0..3).map(|member| format!("m{member}={}", url(ports[2 * member + 1]))).collect();
        let mut processes = Vec::new();
        for member in 0..3 {
            let (clients, peers) = (url(ports[2 * member]), url(ports[2 * member + 1]));
            let directory = scratch.join(format!("etcd-{member}"));
            let mut command = Command::new("etcd");
            command
                .args([
                    "--name",
                    &format!("m{member}"),
                    "--listen-client-urls",
                    &clients,
                    "--advertise-client-urls",
                    &clients,
                ])
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new", "--data-dir"])
                .arg(&directory);
            processes.push(self.spawn(command, &directory)?);
        }
        let servers = [at(ports[0]), at(ports[2]), at(ports[4])];
        let mut dialogue = Gateway { number: 0, load: self.load };
        let mut put = Vec::new();
        dialogue.request(&mut put);
        wait_until(name, || servers.iter().all(|server| says(*server, &put).starts_with(b"HTTP/1.1 200")))?;
        self.measure(name, &servers, &mut dialogue, &processes)
    }

    fn spawn(&self, mut command: Command, directory: &Path) -> Result<Process, Failure> {
        let program = command.get_program().to_owned();
        let cannot = |error| Failure::new(format!("cannot start {}: {error}", program.display()));
        fs::create_dir_all(directory).map_err(cannot)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        processes::die_with_us(&mut command);
        // Processes run where the thread that starts them may.
        let before = process::cores().map_err(cannot)?;
        let own = self.place.nodes();
        if !own.is_empty() {
            process::pin(&own).map_err(cannot)?;
        }
        let child = command.spawn();
        process::pin(&before).map_err(cannot)?;
        child.map(Process).map_err(cannot)
    }

    fn measure(
        &self,
        name: &str,
        servers: &[SocketAddrV4],
        dialogue: &mut dyn Dialogue,
        processes: &[Process],
    ) -> Result<Peer, Failure> {
        let edges: RefCell<Vec<(u64, Vec<Duration>)>> = RefCell::default();
        let used = |process: &Process| process::processor_time(process.0.id()).unwrap_or_default();
        let look = |_, answered| edges.borrow_mut().push((answered, processes.iter().map(used).collect()));
        let bar = progress::bar(name.to_owned());
        let mut watch = Watch { bar: bar.clone(), events: self.events, at_the_edges: Box::new(look) };
        let (load, cores) = (self.load, self.place.load());
        let report =
            tcp::closed_loop(servers, load.clients as usize, load.warm_up, load.duration, &cores, dialogue, &mut watch)
                .map_err(|error| Failure::new(format!("{name}: {error}")))?;
        drop(watch);
        bar.finish_and_clear();
        let edges = edges.into_inner();
        let [(before, times_before), (after, times_after)] = &edges[..] else {
            return Err(Failure::new(format!("{name}: the measured time has no end")));
        };
        let operations = after.saturating_sub(*before).max(1) as f64;
        let costs: Vec<f64> = times_after
            .iter()
            .zip(times_before)
            .map(|(after, before)| after.saturating_sub(*before).as_nanos() as f64 / 1e3 / operations)
            .collect();
        Ok(Peer {
            name: name.to_owned(),
            skipped: None,
            rate: report.answered as f64 / load.duration.as_secs_f64(),
            latency: report.latencies.summary(),
            busiest_us: costs.iter().copied().fold(0.0, f64::max),
            all_us: costs.iter().sum(),
        })
    }
}

/// SET, and WAIT if two lines are to come back.
struct Resp<'a> {
    lines: usize,
    number: u64,
    load: &'a LoadArgs,
}

impl Dialogue for Resp<'_> {
    fn request(&mut self, to: &mut Vec<u8>) {
        self.number += 1;
        let (key, value) = (format!("user{:012}", self.number % self.load.records), vec![b'x'; self.load.value_len()]);
        to.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len()).as_bytes());
        to.extend_from_slice(&value);
        to.extend_from_slice(b"\r\n");
        if self.lines == 2 {
            to.extend_from_slice(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n");
        }
    }

    fn answered(&self, bytes: &[u8]) -> Result<bool, String> {
        if bytes.first() == Some(&b'-') {
            return Err(format!("Redis says {}", String::from_utf8_lossy(bytes).trim()));
        }
        Ok(bytes.iter().filter(|byte| **byte == b'\n').count() >= self.lines)
    }
}

/// Puts by etcd's JSON gateway.
struct Gateway<'a> {
    number: u64,
    load: &'a LoadArgs,
}

impl Dialogue for Gateway<'_> {
    fn request(&mut self, to: &mut Vec<u8>) {
        self.number += 1;
        // Both are base64 of something.
        let value = "eHh4".repeat(self.load.value_len().div_ceil(3));
        let body = format!("{{\"key\":\"{:012}\",\"value\":\"{value}\"}}", self.number % self.load.records);
        let head = format!("POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n", body.len());
        to.extend_from_slice(head.as_bytes());
        to.extend_from_slice(body.as_bytes());
    }

    fn answered(&self, bytes: &[u8]) -> Result<bool, String> {
        let Some(head_len) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8_lossy(&bytes[..head_len]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(format!("etcd says {}", String::from_utf8_lossy(bytes)));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.ok_or("etcd does not say how long its answer is")?;
        Ok(bytes.len() >= head_len + 4 + length)
    }
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A directory that goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("hovercraft-peers-{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|error| Failure::new(format!("cannot make the directory {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// Ports that nobody has right now.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let cannot = |error| Failure::new(format!("no ports are free: {error}"));
    // All at once, so that they differ.
    let listeners = (0..count).map(|_| listen()).collect::<Result<Vec<_>, _>>().map_err(cannot)?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port()).map_err(cannot)).collect()
}

/// What a server answers to one request on a connection of its own; nothing if it is not there.
fn says(server: SocketAddrV4, request: &[u8]) -> Vec<u8> {
    let ask = || {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(request)?;
        let mut answer = vec![0; 256];
        let len = stream.read(&mut answer)?;
        answer.truncate(len);
        Ok::<_, std::io::Error>(answer)
    };
    ask().unwrap_or_default()
}

fn wait_until(name: &str, mut ready: impl FnMut() -> bool) -> Result<(), Failure> {
    let clock = Clock::new();
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    while !ready() {
        if clock.now().since(r2p2::Instant::ZERO) > START_PATIENCE {
            return Err(Failure::new(format!("{name} did not become ready within {START_PATIENCE:?}")));
        }
        // Only the deadline ends the wait.
        _ = never.recv_timeout(PACE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_redis() {
        let arguments = <LoadArgs as clap::Args>::augment_args(clap::Command::new("load")).get_matches_from(["load"]);
        let load = <LoadArgs as clap::FromArgMatches>::from_arg_matches(&arguments).expect("all have defaults");
        let mut redis = Resp { lines: 2, number: 0, load: &load };
        assert_eq!(redis.answered(b"+OK\r\n"), Ok(false));
        assert_eq!(redis.answered(b"+OK\r\n:1\r\n"), Ok(true));
        assert!(redis.answered(b"-ERR no\r\n").is_err());
        let mut request = Vec::new();
        redis.request(&mut request);
        assert!(request.starts_with(b"*3\r\n$3\r\nSET\r\n$16\r\nuser000000000001\r\n$24\r\n"));
        let etcd = Gateway { number: 0, load: &load };
        assert_eq!(etcd.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), Ok(false));
        assert_eq!(etcd.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok(true));
        assert!(etcd.answered(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}").is_err());
    }
}
