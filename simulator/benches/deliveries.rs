//! How many datagrams a second of one core delivers: `cargo bench -p simulator --bench deliveries`.
//!
//! Counted in processor time of this process, so that a busy machine does not matter much. An argument is the number of
//! millions of deliveries per measurement (1 by default); memory is looked at after each tenth.

#![allow(missing_docs, reason = "a program")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::Timing;
use r2p2::Instant;
use r2p2::client::Kind;
use simulator::network::Network;
use simulator::registers::Request;
use simulator::schedule::Schedule;
use simulator::{NetworkConfig, Registers, World, WorldConfig};

fn main() {
    let millions = std::env::args().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(1.0);
    let deliveries = (millions * 1e6) as u64;
    println!("{:<44} {:>14} {:>12}  resident memory in MiB, by tenths", "", "deliveries", "per second");
    measure("network and scheduler, trivial core", &mut Trivial::new(deliveries));
    measure("the same through a world, with its checks", &mut Raw::new(deliveries));
    for nodes in [3, 5] {
        measure(&format!("{nodes} real nodes, all checkers"), &mut Cluster::new(nodes, deliveries));
    }
}

/// Something that delivers datagrams.
trait Run {
    /// Goes on until so many have been delivered since the start, in tenths of all.
    fn run_to(&mut self, tenth: u64) -> u64;
}

fn measure(name: &str, run: &mut impl Run) {
    let start = processor_time();
    let mut delivered = 0;
    let mut memory = Vec::new();
    for tenth in 1..=10 {
        delivered = run.run_to(tenth);
        memory.push(resident_mib().map_or("?".to_owned(), |mib| mib.to_string()));
    }
    let seconds = (processor_time() - start).as_secs_f64();
    println!("{name:<44} {delivered:>14} {:>12.0}  {}", delivered as f64 / seconds, memory.join(" "));
}

/// Hosts that send every datagram on to the next host.
struct Trivial {
    deliveries: u64,
    delivered: u64,
    now: Instant,
    network: Network,
    schedule: Schedule<(usize, Bytes)>,
}

const HOSTS: usize = 9;
const UNDER_WAY: usize = 512;

impl Trivial {
    fn new(deliveries: u64) -> Self {
        let network = Network::new(1, HOSTS, NetworkConfig::default());
        let mut trivial = Self { deliveries, delivered: 0, now: Instant::ZERO, network, schedule: Schedule::default() };
        for number in 0..UNDER_WAY {
            trivial.send(number % HOSTS, Bytes::from(vec![number as u8; 64]));
        }
        trivial
    }

    fn send(&mut self, from: usize, datagram: Bytes) {
        let to = (from + 1) % HOSTS;
        let Some(departed) = self.network.depart(self.now, from, datagram.len()) else { return };
        let crossing = self.network.cross(departed, Some(from), Some(to));
        if let Some(at) = crossing.copy_at {
            self.schedule.push(at, (to, datagram.clone()));
        }
        if !crossing.lost {
            self.schedule.push(crossing.at, (to, datagram));
        }
    }
}

impl Run for Trivial {
    fn run_to(&mut self, tenth: u64) -> u64 {
        let end = self.deliveries * tenth / 10;
        while self.delivered < end
            && let Some((at, (host, datagram))) = self.schedule.pop_until(Instant::FAR_FUTURE)
        {
            self.now = at;
            self.delivered += 1;
            self.send(host, datagram);
        }
        self.delivered
    }
}

/// Two addresses outside any cluster, and datagrams between them: everything a world does with a datagram but for the
/// cores.
struct Raw {
    deliveries: u64,
    world: World<Registers>,
}

const RAW: [SocketAddrV4; 2] =
    [SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 1), SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 2), 1)];

impl Raw {
    fn new(deliveries: u64) -> Self {
        let mut config = WorldConfig::new(1, 1);
        config.clients = 0;
        let mut world = World::new(config, Registers::default);
        for number in 0..UNDER_WAY {
            world.send_raw(RAW[number % 2], RAW[(number + 1) % 2], Bytes::from(vec![number as u8; 64]));
        }
        Self { deliveries, world }
    }
}

impl Run for Raw {
    fn run_to(&mut self, tenth: u64) -> u64 {
        let end = self.deliveries * tenth / 10;
        while self.world.delivered() < end {
            self.world.step(Instant::FAR_FUTURE);
            for (at, to) in [(RAW[0], RAW[1]), (RAW[1], RAW[0])] {
                for datagram in self.world.mailbox(at) {
                    self.world.send_raw(at, to, datagram);
                }
            }
        }
        self.world.delivered()
    }
}

/// A cluster under load: clients that have so many operations outstanding at any time.
struct Cluster {
    deliveries: u64,
    world: World<Registers>,
    clients: usize,
    submitted: u64,
}

const CLIENTS: usize = 8;
const PIPELINE: usize = 16;

impl Cluster {
    fn new(nodes: u16, deliveries: u64) -> Self {
        let mut config = WorldConfig::new(1, nodes);
        config.clients = CLIENTS;
        config.node.timing = Timing { tick: Duration::from_millis(5), ..Timing::default() };
        let mut world = World::new(config, Registers::default);
        world.elect();
        let mut cluster = Self { deliveries, world, clients: CLIENTS, submitted: 0 };
        for client in 0..cluster.clients {
            for _ in 0..PIPELINE {
                cluster.submit(client);
            }
        }
        cluster
    }

    /// Three writes, then a read.
    fn submit(&mut self, client: usize) {
        self.submitted += 1;
        let register = self.submitted % 1000;
        let (kind, request) = match self.submitted % 4 {
            0 => (Kind::Read, Request::Get(register)),
            _ => (Kind::Write, Request::Add(register, 1)),
        };
        self.world.submit(client, kind, request.encode());
    }
}

impl Run for Cluster {
    fn run_to(&mut self, tenth: u64) -> u64 {
        let end = self.deliveries * tenth / 10;
        while self.world.delivered() < end {
            self.world.step(Instant::FAR_FUTURE);
            if self.world.has_completions() {
                for client in 0..self.clients {
                    for _ in 0..self.world.completions(client).len() {
                        self.submit(client);
                    }
                }
            }
        }
        self.world.delivered()
    }
}

/// Processor time that this process has used.
fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of the right size, and zeroes are a valid value of it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Memory of this process in use, if the system says so.
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
