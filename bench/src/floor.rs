//! What the machine and the datapath cost before anybody replicates anything: an echo, one datagram to many receivers, a
//! forwarder. Figures of a system are multiples of these, measured in the same run.
//!
//! Every station is a thread with a datapath like that of a node or a client. The sender never has more than a window of
//! datagrams on their way, so nothing is lost that would have to be guessed. Processor time is the threads' own.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use multicast::{Group, JoinError, SenderError};
use r2p2::Instant;
use r2p2::datapath::{Datapath, ReceiveBatch, SocketId, TransmitBatch};
use r2p2::udp::{Clock, SetupError, SocketOptions, UdpDatapath};
use serde::Serialize;

use crate::latencies::Latencies;
use crate::process;

/// Load before anything counts.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long a station waits before it looks whether it is all over.
const PACE: Duration = Duration::from_millis(20);
/// How long a sender waits for its receivers to catch up. Short against the time that a window takes.
const CATCH_UP: Duration = Duration::from_micros(200);
/// Most datagrams taken from a socket, or sent, at a time.
const BATCH: usize = 64;
/// An echo that did not come back in this time is lost; the window goes on without it.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// How often the measured time is prolonged while nothing has happened.
const EXTENSIONS_MAX: usize = 100;

/// Where stations run, and for how long it is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Bytes of every datagram.
    pub size: usize,
    /// Datagrams on their way.
    pub window: usize,
    /// What counts.
    pub duration: Duration,
    /// Cores of servers, receivers and forwarders; empty: any.
    pub nodes: Vec<usize>,
    /// Cores of the sender; empty: any.
    pub load: Vec<usize>,
    /// For how long a station without work looks for some.
    pub spin: Duration,
}

/// What was measured. Processor times are per datagram sent, in µs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Floor {
    /// What was done.
    pub name: String,
    /// Datagrams sent (and echoed, or received by all) per second.
    pub rate: f64,
    /// Of the sender, or the client.
    pub sender_us: f64,
    /// Of each receiver, server or forwarder on average.
    pub receiver_us: f64,
    /// Round trip, for an echo: half took at most so long, µs.
    pub p50_us: Option<f64>,
    /// 99 % did, µs.
    pub p99_us: Option<f64>,
    /// Datagrams that did not arrive.
    pub lost: u64,
}

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// Nobody can listen there.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Nobody can send there.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// A socket cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The system refuses something.
    #[error("a station failed: {0}")]
    System(#[from] io::Error),
}

/// A client that keeps a window of datagrams in flight, and a server that sends each back.
///
/// # Errors
/// See [`FloorError`].
pub fn echo(setting: &Setting) -> Result<Floor, FloorError> {
    let course = Course::default();
    let server = Station::new(bind()?, setting)?;
    let to = server.address();
    let client = Station::new(bind()?, setting)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| server.run(&setting.nodes, &course, |_, from| Some(from)));
        let client = scope.spawn(|| client.ask(setting, to, &course));
        let took = course.take(setting.duration);
        let (asked, latencies) = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Floor {
            name: format!("echo, {} B, window {}", setting.size, setting.window),
            rate: asked.count as f64 / took.as_secs_f64(),
            sender_us: asked.per_datagram(),
            receiver_us: served.per_datagram(),
            p50_us: Some(latencies.summary().p50_us),
            p99_us: Some(latencies.summary().p99_us),
            lost: asked.lost,
        })
    })
}

/// One sender, and as many receivers as the group has. With a group by unicast the sender makes the copies.
///
/// # Errors
/// See [`FloorError`].
pub fn one_way(
    setting: &Setting,
    name: &str,
    group: &Group,
    receivers: &[SocketAddrV4],
    ttl: u32,
) -> Result<Floor, FloorError> {
    let course = Course::new(receivers.len());
    let stations: Vec<Station> =
        receivers.iter().map(|own| Ok(Station::new(group.join(*own)?, setting)?)).collect::<Result<_, FloorError>>()?;
    let sender = Station::new(group.sender_socket(ttl)?, setting)?;
    std::thread::scope(|scope| {
        let (course, nodes) = (&course, &setting.nodes);
        let receivers: Vec<_> = stations
            .into_iter()
            .enumerate()
            .map(|(number, station)| {
                scope.spawn(move || station.run(nodes, course, move |course, _| course.arrived(number)))
            })
            .collect();
        let sender = scope.spawn(|| sender.pour(setting, group.receivers(), course));
        let took = course.take(setting.duration);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let mut all = Vec::new();
        for receiver in receivers {
            all.push(receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(Floor {
            name: format!("{name}, {} B", setting.size),
            rate: sent.count as f64 / took.as_secs_f64(),
            sender_us: sent.per_datagram(),
            receiver_us: all.iter().map(Tally::per_datagram).sum::<f64>() / all.len().max(1) as f64,
            p50_us: None,
            p99_us: None,
            lost: sent.lost,
        })
    })
}

/// A sender, a station that passes every datagram on, and one where they end.
///
/// # Errors
/// See [`FloorError`].
pub fn forwarder(setting: &Setting) -> Result<Floor, FloorError> {
    let course = Course::new(1);
    let (forwarder, sink) = (Station::new(bind()?, setting)?, Station::new(bind()?, setting)?);
    let (through, to) = (forwarder.address(), sink.address());
    let sender = Station::new(bind()?, setting)?;
    std::thread::scope(|scope| {
        let (course, nodes) = (&course, &setting.nodes);
        let forwarder = scope.spawn(move || forwarder.run(nodes, course, move |_, _| Some(to)));
        let sink = scope.spawn(move || sink.run(nodes, course, |course, _| course.arrived(0)));
        let sender = scope.spawn(|| sender.pour(setting, &[through], course));
        let took = course.take(setting.duration);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let forwarded = forwarder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        sink.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Floor {
            name: format!("forwarder, {} B", setting.size),
            rate: sent.count as f64 / took.as_secs_f64(),
            sender_us: sent.per_datagram(),
            receiver_us: forwarded.per_datagram(),
            p50_us: None,
            p99_us: None,
            lost: sent.lost,
        })
    })
}

fn bind() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Where all stations are in the run.
#[derive(Debug, Default)]
struct Course {
    phase: AtomicU8,
    /// Datagrams that the sender has counted in the measured time.
    measured: AtomicU64,
    /// Datagrams that each receiver has got.
    arrived: Vec<AtomicU64>,
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

impl Course {
    fn new(receivers: usize) -> Self {
        Self { arrived: (0..receivers).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// Lets time pass: so long, and longer on a machine so busy that nothing has happened by then. Says how long it was.
    fn take(&self, duration: Duration) -> Duration {
        // Nobody ever sends: only the deadline ends the wait.
        let (_keep, never): (mpsc::Sender<()>, Receiver<()>) = mpsc::channel();
        _ = never.recv_timeout(WARM_UP);
        let clock = Clock::new();
        self.phase.store(MEASURING, Ordering::SeqCst);
        for _ in 0..EXTENSIONS_MAX {
            _ = never.recv_timeout(duration);
            if self.measured.load(Ordering::Relaxed) > 0 {
                break;
            }
        }
        self.phase.store(OVER, Ordering::SeqCst);
        clock.now().since(Instant::ZERO)
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    /// A datagram has reached a receiver, and goes no further.
    fn arrived(&self, receiver: usize) -> Option<SocketAddrV4> {
        self.arrived[receiver].fetch_add(1, Ordering::Relaxed);
        None
    }

    /// What has reached all of them.
    fn arrived_everywhere(&self) -> u64 {
        self.arrived.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// Datagrams and processor time of a station in the measured time.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    time: Duration,
    lost: u64,
    begun: bool,
}

impl Tally {
    /// Looks where the run is: `true` once it is over.
    fn look(&mut self, course: &Course, start: &mut Duration) -> bool {
        match course.phase() {
            WARMING => false,
            MEASURING => {
                if !self.begun {
                    *self = Self { begun: true, ..Self::default() };
                    *start = process::own_thread_time();
                }
                false
            }
            _ => {
                self.time = process::own_thread_time() - *start;
                true
            }
        }
    }

    /// The sender's: it counts for the whole course.
    fn add(&mut self, count: u64, course: &Course) {
        self.count += count;
        if self.begun {
            course.measured.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn per_datagram(&self) -> f64 {
        self.time.as_nanos() as f64 / 1e3 / self.count.max(1) as f64
    }
}

/// A socket in a datapath.
struct Station {
    datapath: UdpDatapath,
    clock: Clock,
    received: ReceiveBatch,
    transmit: TransmitBatch,
}

const SOCKET: SocketId = SocketId(0);

impl Station {
    fn new(socket: UdpSocket, setting: &Setting) -> Result<Self, SetupError> {
        let clock = Clock::new();
        let mut builder = UdpDatapath::builder(clock);
        builder.spin(setting.spin);
        builder.socket(socket, SocketOptions::default());
        let datapath = builder.build()?;
        Ok(Self { datapath, clock, received: ReceiveBatch::new(), transmit: TransmitBatch::new() })
    }

    fn address(&self) -> SocketAddrV4 {
        self.datapath.local_address(SOCKET)
    }

    /// Receives, and sends on to where `next` says.
    fn run(
        mut self,
        cores: &[usize],
        course: &Course,
        next: impl Fn(&Course, SocketAddrV4) -> Option<SocketAddrV4>,
    ) -> Result<Tally, FloorError> {
        pin(cores)?;
        let (mut tally, mut start) = (Tally::default(), Duration::ZERO);
        while !tally.look(course, &mut start) {
            self.received.clear();
            if self.datapath.receive(SOCKET, BATCH, &mut self.received)? == 0 {
                self.datapath.wait(Some(self.clock.now() + PACE))?;
                continue;
            }
            for datagram in self.received.iter() {
                tally.count += 1;
                if let Some(to) = next(course, datagram.from) {
                    self.transmit.push(SOCKET, to, Bytes::copy_from_slice(datagram.bytes));
                }
            }
            self.datapath.transmit(&mut self.transmit)?;
        }
        Ok(tally)
    }

    /// Sends as much as the receivers can take.
    fn pour(mut self, setting: &Setting, to: &[SocketAddrV4], course: &Course) -> Result<Tally, FloorError> {
        pin(&setting.load)?;
        process::exact_timers();
        let packet = Bytes::from(vec![0x5a; setting.size]);
        let (mut tally, mut start, mut sent) = (Tally::default(), Duration::ZERO, 0_u64);
        let mut progress = (0, Instant::ZERO);
        while !tally.look(course, &mut start) {
            let (arrived, now) = (course.arrived_everywhere(), self.clock.now());
            if arrived != progress.0 {
                progress = (arrived, now);
            }
            if sent - arrived.min(sent) >= setting.window as u64 {
                if now.since(progress.1) > LOST_AFTER {
                    // What has not come by now will not.
                    tally.lost += sent - arrived;
                    sent = arrived;
                    continue;
                }
                self.datapath.wait(Some(now + CATCH_UP))?;
                continue;
            }
            for _ in 0..BATCH {
                self.transmit.push_many(SOCKET, to, packet.clone());
            }
            self.datapath.transmit(&mut self.transmit)?;
            sent += BATCH as u64;
            tally.add(BATCH as u64, course);
        }
        Ok(tally)
    }

    /// Keeps a window of questions in flight.
    fn ask(mut self, setting: &Setting, to: SocketAddrV4, course: &Course) -> Result<(Tally, Latencies), FloorError> {
        pin(&setting.load)?;
        let (mut tally, mut start) = (Tally::default(), Duration::ZERO);
        let mut latencies = Latencies::default();
        let (mut in_flight, mut heard) = (0, self.clock.now());
        let size = setting.size.max(8);
        while !tally.look(course, &mut start) {
            let now = self.clock.now();
            if in_flight > 0 && now.since(heard) > LOST_AFTER {
                tally.lost += in_flight as u64;
                in_flight = 0;
            }
            while in_flight < setting.window {
                let mut packet = vec![0x5a; size];
                packet[..8].copy_from_slice(&now.as_nanos().to_be_bytes());
                self.transmit.push(SOCKET, to, packet.into());
                in_flight += 1;
            }
            self.datapath.transmit(&mut self.transmit)?;
            self.received.clear();
            if self.datapath.receive(SOCKET, BATCH, &mut self.received)? == 0 {
                self.datapath.wait(Some(now + PACE))?;
                continue;
            }
            heard = self.clock.now();
            for datagram in self.received.iter() {
                let Some(&sent) = datagram.bytes.first_chunk::<8>() else { continue };
                in_flight = in_flight.saturating_sub(1);
                tally.add(1, course);
                if tally.begun {
                    latencies.record(heard.since(Instant::from_nanos(u64::from_be_bytes(sent))));
                }
            }
        }
        Ok((tally, latencies))
    }
}

fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() { Ok(()) } else { process::pin(cores) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting {
            size: 32,
            window: 256,
            duration: Duration::from_millis(50),
            nodes: Vec::new(),
            load: Vec::new(),
            spin: Duration::ZERO,
        }
    }

    #[test]
    fn an_echo_comes_back() {
        let floor = echo(&Setting { window: 4, ..setting() }).expect("loopback");
        assert!(floor.rate > 0.0 && floor.p50_us.is_some_and(|us| us > 0.0), "{floor:?}");
    }

    #[test]
    fn a_forwarder_forwards() {
        let floor = forwarder(&setting()).expect("loopback");
        assert!(floor.rate > 0.0 && floor.receiver_us > 0.0, "{floor:?}");
    }

    #[test]
    fn all_receivers_get_everything() {
        let free = || {
            let std::net::SocketAddr::V4(address) = bind().and_then(|socket| socket.local_addr()).expect("a port")
            else {
                panic!("bound to IPv4")
            };
            address
        };
        let members = vec![free(), free()];
        let group = Group::Unicast { members: members.clone() };
        let floor = one_way(&setting(), "unicast to 2", &group, &members, 1).expect("loopback");
        assert!(floor.rate > 0.0, "{floor:?}");
    }
}
