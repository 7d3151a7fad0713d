//! Puts load on a group: threads, each with a socket and a client core for every one of its logical clients, driven by a
//! [`Load`].
//!
//! A logical client is what a server takes for one: an address and a session of its own. A thread waits on the sockets of
//! all its clients at once. The calling thread starts them, tells its [`Observer`] when the measured time begins and ends,
//! and waits.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use hovercraft::client::{Completion, Endpoint, EndpointOutput, Kind, Outcome, Recipient, Ticket};
use multicast::SenderError;
use r2p2::Instant;
use r2p2::datapath::{Datapath, ReceiveBatch, SocketId, TransmitBatch};
use r2p2::udp::{Clock, SetupError, SocketOptions, UdpDatapath};
use serde::Serialize;

use crate::load::{End, InFlight, Load, Pace, Part, Plan};
use crate::process;
use crate::verdict::Measured;

/// Most datagrams taken from a socket at a time.
const RECEIVE_BUDGET: usize = 256;
/// Most operations submitted between two looks at the sockets.
const SUBMIT_BUDGET: usize = 256;
/// How often the observer hears how far it is.
const PROGRESS: Duration = Duration::from_millis(100);

/// What to put load on: makes client cores, each from a seed.
pub type Target<'a> = dyn Fn(u64) -> Endpoint + Sync + 'a;

/// A request, and perhaps one that follows its answer: together they are one operation.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is to the transport.
    pub kind: Kind,
    /// Its bytes.
    pub body: Bytes,
    /// What follows.
    pub then: Option<(Kind, Bytes)>,
}

/// An endless stream of requests; every thread has its own.
pub trait Requests {
    /// The next one.
    fn draw(&mut self) -> Request;
}

/// Makes the stream of thread `part`, from 0.
pub type MakeRequests<'a> = dyn Fn(usize) -> Box<dyn Requests> + Sync + 'a;

/// How much load, and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// What makes operations due.
    pub pace: Pace,
    /// Logical clients of all threads.
    pub clients: usize,
    /// Threads; not more than clients.
    pub threads: usize,
    /// Load before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub duration: Duration,
    /// Ends after so many operations, if not by time.
    pub operations_max: Option<u64>,
    /// Decides arrivals, request ids, and which client sends.
    pub seed: u64,
    /// Cores for the threads; empty: any.
    pub cores: Vec<usize>,
    /// How many networks multicast may cross.
    pub ttl: u32,
    /// For how long a thread without work looks for some before it blocks.
    pub spin: Duration,
}

/// Hears how a run goes. Called by the thread that called [`run`].
pub trait Observer {
    /// Now and then: the share of the whole run that is over, and operations answered so far.
    fn progress(&mut self, share: f64, answered: u64);
    /// The measured time begins.
    fn begins(&mut self, answered: u64);
    /// The measured time is over.
    fn ends(&mut self, answered: u64);
    /// Whether nobody wants to know any more.
    fn give_up(&mut self) -> bool {
        false
    }
}

/// Nobody who wants to hear.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn progress(&mut self, _: f64, _: u64) {}
    fn begins(&mut self, _: u64) {}
    fn ends(&mut self, _: u64) {}
}

/// What clients counted in the measured time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Copies of requests beyond the first.
    pub retransmissions: u64,
    /// DROPs that made a client wait or give up.
    pub drops: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Datagrams lost in the clients' own receive buffers.
    pub kernel_drops: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was measured.
    pub measured: Measured,
    /// What clients counted in the measured time.
    pub counts: Counts,
    /// Processor time of the load's threads in the measured time.
    pub processor_time: Duration,
    /// Answers by the address they came from, whole run.
    pub replies: BTreeMap<SocketAddrV4, u64>,
    /// The first answer that was a failure of the service, if there was one.
    pub failure: Option<String>,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// No socket that can send there.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// A socket cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A socket stopped working, or a thread cannot be pinned.
    #[error("a client's thread failed: {0}")]
    System(#[from] io::Error),
    /// A request is refused by its own client.
    #[error("a client refuses a request: {0}")]
    Submit(hovercraft::client::SubmitError),
    /// The observer gave up.
    #[error("interrupted")]
    GivenUp,
}

struct Shared<'a> {
    options: &'a Options,
    target: &'a Target<'a>,
    clock: Clock,
    start: Instant,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// Puts load on `target` and waits until all of it has ended.
///
/// # Errors
/// Why there was no run, or what ended it.
///
/// # Panics
/// If there are no threads, or fewer clients than threads.
pub fn run(
    options: &Options,
    target: &Target<'_>,
    requests: &MakeRequests<'_>,
    observer: &mut dyn Observer,
) -> Result<Report, GeneratorError> {
    assert!(options.threads > 0 && options.clients >= options.threads, "every thread has a client");
    let clock = Clock::new();
    let shared = Shared {
        options,
        target,
        clock,
        start: clock.now(),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut results = Vec::new();
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel();
        for part in 0..options.threads {
            let (shared, ended) = (&shared, ended.clone());
            scope.spawn(move || {
                // Only fails if nobody waits any more.
                _ = ended.send(Worker::new(shared, part).and_then(|worker| worker.run(requests(part).as_mut())));
            });
        }
        drop(ended);
        watch(&shared, observer, &end, &mut results);
    });
    let mut parts = Vec::new();
    let mut report = Report {
        measured: Measured::merge(options.pace, options.duration.as_secs_f64(), Vec::new()),
        counts: Counts::default(),
        processor_time: Duration::ZERO,
        replies: BTreeMap::new(),
        failure: None,
    };
    for result in results {
        let mut own = result?;
        parts.push(own.part);
        report.counts.add(&own.counts);
        report.processor_time += own.processor_time;
        for (from, count) in own.replies {
            *report.replies.entry(from).or_default() += count;
        }
        report.failure = report.failure.or(own.failure.take());
    }
    report.measured = Measured::merge(options.pace, options.duration.as_secs_f64(), parts);
    Ok(report)
}

/// Tells the observer what it wants to know, until all threads have ended.
fn watch<T>(
    shared: &Shared<'_>,
    observer: &mut dyn Observer,
    ends: &mpsc::Receiver<Result<T, GeneratorError>>,
    results: &mut Vec<Result<T, GeneratorError>>,
) {
    let begin = shared.start + shared.options.warm_up;
    let end = begin + shared.options.duration;
    let (mut begun, mut ended) = (false, false);
    let answered = || shared.answered.load(Ordering::Relaxed);
    while results.len() < shared.options.threads {
        let now = shared.clock.now();
        let next = if !begun {
            begin
        } else if !ended {
            end
        } else {
            Instant::FAR_FUTURE
        };
        match ends.recv_timeout(next.since(now).min(PROGRESS)) {
            Ok(result) => {
                // One that failed ends all.
                shared.stop.fetch_or(result.is_err(), Ordering::Relaxed);
                results.push(result);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = shared.clock.now();
        if !begun && now >= begin {
            begun = true;
            observer.begins(answered());
        } else if begun && !ended && now >= end {
            ended = true;
            observer.ends(answered());
        } else {
            let share = now.since(shared.start).as_secs_f64() / end.since(shared.start).as_secs_f64().max(1e-9);
            observer.progress(share.min(1.0), answered());
        }
        if observer.give_up() && !shared.stop.swap(true, Ordering::Relaxed) {
            results.push(Err(GeneratorError::GivenUp));
            return;
        }
    }
}

/// What one thread brings home.
struct Own {
    part: Part,
    counts: Counts,
    processor_time: Duration,
    replies: BTreeMap<SocketAddrV4, u64>,
    failure: Option<String>,
}

/// One thread.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    load: Load,
    clients: Vec<LogicalClient>,
    datapath: UdpDatapath,
    received: ReceiveBatch,
    transmit: TransmitBatch,
    replies: BTreeMap<SocketAddrV4, u64>,
    failure: Option<String>,
    /// Counts and processor time at the beginning of the measured time, and at its end.
    begin: Option<(Counts, Duration)>,
    end: Option<(Counts, Duration)>,
}

struct LogicalClient {
    core: Endpoint,
    timeout: Instant,
    /// Whether the core has to be asked what it wants done.
    touched: bool,
    waiting: AHashMap<Ticket, (InFlight, Option<(Kind, Bytes)>)>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, part: usize) -> Result<Self, GeneratorError> {
        let options = shared.options;
        if !options.cores.is_empty() {
            process::pin(&options.cores)?;
        }
        process::exact_timers();
        // Clients are dealt out one by one, so the first threads may have one more.
        let clients = (options.clients - part).div_ceil(options.threads);
        let mut builder = UdpDatapath::builder(shared.clock);
        builder.spin(options.spin);
        let mut own = Vec::new();
        for client in 0..clients {
            let number = (client * options.threads + part) as u64;
            let core = (shared.target)(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
            builder.socket(core.group().sender_socket(options.ttl)?, SocketOptions::default());
            own.push(LogicalClient { core, timeout: Instant::FAR_FUTURE, touched: false, waiting: AHashMap::new() });
        }
        let plan = Plan {
            pace: options.pace,
            clients,
            part,
            parts: options.threads,
            warm_up: options.warm_up,
            duration: options.duration,
            operations_max: options.operations_max.map(|max| max.div_ceil(options.threads as u64)),
            seed: options.seed,
        };
        Ok(Self {
            shared,
            load: Load::new(plan, shared.start),
            clients: own,
            datapath: builder.build()?,
            received: ReceiveBatch::new(),
            transmit: TransmitBatch::new(),
            replies: BTreeMap::new(),
            failure: None,
            begin: None,
            end: None,
        })
    }

    fn run(mut self, requests: &mut dyn Requests) -> Result<Own, GeneratorError> {
        let measured_from = self.shared.start + self.shared.options.warm_up;
        let measured_until = measured_from + self.shared.options.duration;
        let mut everything = true;
        loop {
            self.receive(everything)?;
            let now = self.shared.clock.now();
            if self.begin.is_none() && now >= measured_from {
                self.begin = Some(self.snapshot());
            }
            if self.end.is_none() && now >= measured_until {
                self.end = Some(self.snapshot());
            }
            for client in &mut self.clients {
                if now >= client.timeout {
                    client.core.handle_timeout(now);
                    client.touched = true;
                }
            }
            let more = self.submit_and_drain(now, requests)?;
            self.datapath.transmit(&mut self.transmit)?;
            if self.load.finished(now) || self.shared.stop.load(Ordering::Relaxed) {
                return Ok(self.into_own());
            }
            let wake = if more { now } else { self.load.wake() };
            let wake = self.clients.iter().map(|client| client.timeout).fold(wake, Instant::min);
            // Somebody may want to stop although nothing happens.
            let wake = wake.min(now + PROGRESS);
            everything = self.datapath.wait(Some(wake))? == r2p2::datapath::Wake::Woken;
        }
    }

    /// Hands in what has arrived.
    fn receive(&mut self, everything: bool) -> Result<(), GeneratorError> {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let socket = SocketId(index);
            if !everything && !self.datapath.readable(socket) {
                continue;
            }
            self.received.clear();
            self.datapath.receive(socket, RECEIVE_BUDGET, &mut self.received)?;
            let now = self.shared.clock.now();
            for received in self.received.iter() {
                client.core.handle_datagram(now, received.from, received.bytes);
                client.touched = true;
            }
        }
        Ok(())
    }

    /// Submits what is due and does what the cores want. Says whether more is due.
    fn submit_and_drain(&mut self, now: Instant, requests: &mut dyn Requests) -> Result<bool, GeneratorError> {
        let mut budget = SUBMIT_BUDGET;
        loop {
            while budget > 0
                && let Some(due) = self.load.due(now)
            {
                budget -= 1;
                let request = requests.draw();
                let client = &mut self.clients[due.client];
                match client.core.submit(now, request.kind, request.body) {
                    Ok(ticket) => {
                        client.touched = true;
                        client.waiting.insert(ticket, (self.load.submitted(due, now), request.then));
                    }
                    Err(hovercraft::client::SubmitError::Full { .. }) => self.load.refused(due),
                    Err(error) => return Err(GeneratorError::Submit(error)),
                }
            }
            let mut completed = false;
            for index in 0..self.clients.len() {
                completed |= std::mem::take(&mut self.clients[index].touched) && self.drain(now, index);
            }
            if !completed || budget == 0 {
                return Ok(budget == 0);
            }
        }
    }

    /// Does what one core wants. Says whether an operation has ended.
    fn drain(&mut self, now: Instant, index: usize) -> bool {
        let mut completed = false;
        loop {
            let client = &mut self.clients[index];
            match client.core.poll_output(now) {
                EndpointOutput::Transmit { to: Recipient::Group, packet } => {
                    self.transmit.push_many(SocketId(index), client.core.group().receivers(), packet);
                }
                EndpointOutput::Transmit { to: Recipient::Address(address), packet } => {
                    self.transmit.push(SocketId(index), address, packet);
                }
                EndpointOutput::Done(completion) => {
                    completed = true;
                    self.done(now, index, completion);
                }
                EndpointOutput::Timeout(at, _) => {
                    client.timeout = at;
                    return completed;
                }
            }
        }
    }

    fn done(&mut self, now: Instant, index: usize, completion: Completion) {
        let client = &mut self.clients[index];
        let Some((operation, then)) = client.waiting.remove(&completion.ticket) else { return };
        if let Some(from) = completion.from {
            *self.replies.entry(from).or_default() += 1;
        }
        let end = match completion.outcome {
            Outcome::Ok(_) => {
                if let Some((kind, body)) = then
                    && let Ok(ticket) = client.core.submit(now, kind, body)
                {
                    client.waiting.insert(ticket, (operation, None));
                    return;
                }
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                End::Answered
            }
            Outcome::Unknown => End::TimedOut,
            Outcome::NotExecuted(_) | Outcome::TooLarge { .. } => End::Refused,
            Outcome::Expired | Outcome::ReplyGone => End::Failed,
            Outcome::ServiceError(why) => {
                self.failure.get_or_insert_with(|| String::from_utf8_lossy(&why).into_owned());
                End::Failed
            }
        };
        self.load.ended(operation, now, end);
    }

    fn snapshot(&self) -> (Counts, Duration) {
        let mut counts = Counts::default();
        for (index, client) in self.clients.iter().enumerate() {
            let counted = client.core.counters();
            counts.add(&Counts {
                retransmissions: counted.retransmissions,
                drops: counted.drops,
                packets_sent: counted.packets_sent,
                packets_received: counted.packets_received,
                kernel_drops: self.datapath.counters(SocketId(index)).kernel_drops,
            });
        }
        (counts, process::own_thread_time())
    }

    fn into_own(self) -> Own {
        let (end, time) = self.end.clone().unwrap_or_else(|| self.snapshot());
        let (begin, time_before) = self.begin.clone().unwrap_or_default();
        Own {
            part: self.load.into_part(),
            counts: end.since(&begin),
            processor_time: time.saturating_sub(time_before),
            replies: self.replies,
            failure: self.failure,
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.retransmissions += other.retransmissions;
        self.drops += other.drops;
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.kernel_drops += other.kernel_drops;
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            retransmissions: self.retransmissions - before.retransmissions,
            drops: self.drops - before.drops,
            packets_sent: self.packets_sent - before.packets_sent,
            packets_received: self.packets_received - before.packets_received,
            kernel_drops: self.kernel_drops - before.kernel_drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use hovercraft::client::Contacts;
    use multicast::Group;
    use r2p2::client::ClientConfig;

    use super::*;
    use crate::arrivals::Process;

    /// Nothing takes that long: loads here end by count.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_closed_loop_of_many_clients_ends_by_count() {
        let (server, _echo) = echo();
        let report = load(server, Pace::Closed { window: 4 }, Duration::ZERO, LONG, Some(1000));
        let total = &report.measured.total;
        assert_eq!((total.offered, total.from_due.count()), (1000, 1000));
        assert_eq!(total.answered + total.timed_out, 1000);
        assert!(total.answered > 900, "{} answered", total.answered);
        assert_eq!(report.replies.keys().copied().collect::<Vec<_>>(), [server]);
        assert!(report.counts.packets_sent >= 1000);
        assert!(report.processor_time > Duration::ZERO);
        assert_eq!(total.gaps.len(), 0);
    }

    #[test]
    fn an_open_loop_sends_on_schedule_and_tells_when_it_begins_and_ends() {
        let (server, _echo) = echo();
        let pace = Pace::Open { process: Process::Poisson, rate: 2000.0 };
        let (warm_up, duration) = (Duration::from_millis(20), Duration::from_millis(200));
        let report = load(server, pace, warm_up, duration, None);
        let total = &report.measured.total;
        // 400 expected; six standard deviations are 120. However busy the machine, all that was due was sent.
        assert!((280..=520).contains(&total.offered), "{}", total.offered);
        assert_eq!(total.answered + total.timed_out + total.overrun, total.offered);
        assert!(total.gaps.len() > 200);
        assert_eq!(total.lag.count(), total.offered - total.overrun);
    }

    /// A load of three clients on two threads.
    fn load(server: SocketAddrV4, pace: Pace, warm_up: Duration, duration: Duration, max: Option<u64>) -> Report {
        let options = Options {
            pace,
            clients: 3,
            threads: 2,
            warm_up,
            duration,
            operations_max: max,
            seed: 1,
            cores: Vec::new(),
            ttl: 1,
            spin: Duration::ZERO,
        };
        let config = ClientConfig { sessions: false, give_up: Duration::from_secs(2), ..ClientConfig::default() };
        let contacts = Contacts {
            epoch: 0,
            nodes: Vec::new(),
            group: Group::Unicast { members: vec![server] },
            group_stays: true,
        };
        let target = move |seed| Endpoint::new(config.clone(), contacts.clone(), seed);
        let mut heard = Heard::default();
        let report = run(&options, &target, &|_| Box::new(Ping), &mut heard).expect("runs");
        if max.is_none() {
            assert_eq!(heard.0, ["begins", "ends"]);
        }
        report
    }

    struct Ping;

    impl Requests for Ping {
        fn draw(&mut self) -> Request {
            Request { kind: Kind::Write, body: Bytes::from_static(b"ping"), then: None }
        }
    }

    #[derive(Default)]
    struct Heard(Vec<&'static str>);

    impl Observer for Heard {
        fn progress(&mut self, _: f64, _: u64) {}
        fn begins(&mut self, _: u64) {
            self.0.push("begins");
        }
        fn ends(&mut self, _: u64) {
            self.0.push("ends");
        }
    }

    /// Stops the server.
    struct Echo(SocketAddrV4);

    impl Drop for Echo {
        fn drop(&mut self) {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.send_to(&[], self.0).expect("loopback");
        }
    }

    /// A server that makes a response of every request, until it gets an empty datagram.
    fn echo() -> (SocketAddrV4, Echo) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let std::net::SocketAddr::V4(address) = socket.local_addr().expect("bound") else { panic!("bound to IPv4") };
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((len @ 1.., from)) = socket.recv_from(&mut datagram) {
                // The type is in the upper half of the third byte.
                datagram[2] = 0x10 | datagram[2] & 0x0f;
                _ = socket.send_to(&datagram[..len], from);
            }
        });
        (address, Echo(address))
    }
}
