//! What JBSQ is worth: the tail of response times behind the router, by load and by how it chooses a worker.
//!
//! ```text
//! cargo bench -p r2p2 --bench router              the table; `-- plot.svg` also draws it
//! ```
//!
//! In virtual time, with the real router core: clients send requests at random moments (Poisson), and four workers, each
//! doing one thing at a time in order of arrival, answer them. One request of ten takes ten times as long as the others
//! (bimodal, mean 50 µs). Every datagram takes 5 µs, so JBSQ(1) leaves a worker idle for 10 µs after each request. Nothing depends on the machine, and every run gives the same.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use r2p2::Instant;
use r2p2::feedback::Outbox;
use r2p2::message::{MessageHead, write_packets};
use r2p2::router::{Choice, Router, RouterConfig};
use r2p2::wire::{Extensions, Feedback, Header, MessageType, Packet, Policy};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const WORKERS: usize = 4;
const MEAN_NS: f64 = 50_000.0;
/// What most requests take; every tenth takes ten times that.
const SHORT_NS: f64 = MEAN_NS / 1.9;
const HOP: Duration = Duration::from_micros(5);
const REQUESTS: u64 = 400_000;
/// Requests before the system is warm.
const WARM: u64 = 20_000;

const CHOICES: [(&str, Choice, usize); 6] = [
    ("random", Choice::Random, 1),
    ("round robin", Choice::RoundRobin, 1),
    ("shortest queue", Choice::ShortestQueue, 1),
    ("JBSQ(4)", Choice::Jbsq, 4),
    ("JBSQ(2)", Choice::Jbsq, 2),
    ("JBSQ(1)", Choice::Jbsq, 1),
];
const LOADS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];

fn main() {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    println!(
        "response time behind a router, 4 workers, mean service 50 µs, 10 % of the requests take 10 times as long"
    );
    println!(
        "{:<16} {:>6} {:>10} {:>10} {:>10} {:>10}",
        "choice", "load", "median µs", "p99 µs", "p99.9 µs", "refused"
    );
    let mut curves = Vec::new();
    let mut at_80 = Vec::new();
    for (name, choice, bound) in CHOICES {
        let mut curve = Vec::new();
        for load in LOADS {
            let run = run(choice, bound, load);
            println!(
                "{name:<16} {load:>6.2} {:>10.1} {:>10.1} {:>10.1} {:>10}",
                run.quantile(0.5),
                run.quantile(0.99),
                run.quantile(0.999),
                run.refused
            );
            curve.push((load, run.quantile(0.99)));
            if load == 0.8 {
                at_80.push((name, run.quantile(0.99)));
            }
        }
        curves.push((name, curve));
    }
    let random = at_80[0].1;
    println!("\nat 80 % load, p99 of random is");
    for (name, p99) in &at_80[1..] {
        println!("  {:.2} times that of {name}", random / p99);
    }
    if let Some(path) = path {
        std::fs::write(&path, plot(&curves)).expect("the plot can be written");
        println!("drawn in {path}");
    }
}

/// Sorted response times in nanoseconds.
struct Run {
    times: Vec<u64>,
    refused: u64,
}

impl Run {
    fn quantile(&self, share: f64) -> f64 {
        let at = ((self.times.len() as f64 * share) as usize).min(self.times.len() - 1);
        self.times[at] as f64 / 1e3
    }
}

/// What happens at some moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request leaves its client.
    Send,
    /// A packet reaches the router.
    AtRouter { from: SocketAddrV4, packet: Vec<u8> },
    /// A request reaches a worker.
    AtWorker { worker: usize, request: u64 },
    /// A worker has done what it did.
    Done { worker: usize },
    /// A worker says that it is there.
    Register { worker: usize },
    /// The router wants to be woken.
    Timeout,
}

struct Worker {
    queue: VecDeque<u64>,
    outbox: Outbox,
}

fn worker_address(worker: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, worker as u8 + 1), 7400)
}

/// A request's client: few use one number twice while it is on its way.
fn client_of(request: u64) -> (SocketAddrV4, u16) {
    (SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, (request >> 16) as u8), 1000), request as u16)
}

fn run(choice: Choice, bound: usize, load: f64) -> Run {
    let config = RouterConfig {
        choice,
        bound,
        credit_deadline: Duration::from_secs(60),
        waiting_age_max: Duration::from_secs(60),
        ..RouterConfig::default()
    };
    let mut router = Router::new(config, 1);
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|worker| Worker { queue: VecDeque::new(), outbox: Outbox::new(worker as u64) }).collect();
    // The same requests whatever is done with them.
    let mut arrivals = SmallRng::seed_from_u64(7);
    let mut services = SmallRng::seed_from_u64(8);
    let lengths: Vec<u64> =
        (0..REQUESTS).map(|_| if services.random_bool(0.1) { SHORT_NS * 10.0 } else { SHORT_NS } as u64).collect();
    let mut sent_at = Vec::with_capacity(REQUESTS as usize);
    let mut run = Run { times: Vec::new(), refused: 0 };
    let mut serial = 0;
    let mut events: BinaryHeap<Reverse<(Instant, u64, Event)>> = BinaryHeap::new();
    let mut push = |events: &mut BinaryHeap<_>, at, event| {
        serial += 1;
        events.push(Reverse((at, serial, event)));
    };
    for worker in 0..WORKERS {
        push(&mut events, Instant::ZERO, Event::Register { worker });
    }
    push(&mut events, Instant::ZERO + Duration::from_millis(1), Event::Send);
    while let Some(Reverse((now, _, event))) = events.pop() {
        match event {
            Event::Send => {
                let request = sent_at.len() as u64;
                sent_at.push(now);
                let (from, rid) = client_of(request);
                push(&mut events, now + HOP, Event::AtRouter { from, packet: packet(rid) });
                if request + 1 < REQUESTS {
                    let mean = MEAN_NS / WORKERS as f64 / load;
                    let gap = -mean * (1.0 - arrivals.random::<f64>()).ln();
                    push(&mut events, now + Duration::from_nanos(gap as u64), Event::Send);
                }
            }
            Event::AtRouter { from, packet } => router.handle_packet(now, from, &packet),
            Event::Timeout => router.handle_timeout(now),
            Event::Register { worker } => {
                let packet = workers[worker].outbox.registration(false).to_vec();
                push(&mut events, now, Event::AtRouter { from: worker_address(worker), packet });
                if (sent_at.len() as u64) < REQUESTS {
                    push(&mut events, now + Duration::from_millis(250), Event::Register { worker });
                }
            }
            Event::AtWorker { worker, request } => {
                workers[worker].queue.push_back(request);
                if workers[worker].queue.len() == 1 {
                    push(&mut events, now + Duration::from_nanos(lengths[request as usize]), Event::Done { worker });
                }
            }
            Event::Done { worker } => {
                let Worker { queue, outbox } = &mut workers[worker];
                let request = queue.pop_front().expect("it has done something");
                if request >= WARM {
                    run.times.push((now + HOP).since(sent_at[request as usize]).as_nanos() as u64);
                }
                let (client, rid) = client_of(request);
                outbox.answered(Feedback { rid, client });
                outbox.flush(&mut |packet| {
                    let event = Event::AtRouter { from: worker_address(worker), packet: packet.to_vec() };
                    push(&mut events, now + HOP, event);
                });
                if let Some(next) = workers[worker].queue.front() {
                    push(&mut events, now + Duration::from_nanos(lengths[*next as usize]), Event::Done { worker });
                }
            }
        }
        while let Some((to, packet)) = router.poll_transmit() {
            let header = Header::parse(&Packet::new_checked(&packet[..]).expect("whole")).expect("whole");
            if header.kind == MessageType::Drop {
                run.refused += 1;
                continue;
            }
            let client = header.extensions.forwarded.expect("in somebody's name").client;
            let request = u64::from(client.ip().octets()[3]) << 16 | u64::from(header.rid);
            let worker = (0..WORKERS).find(|worker| worker_address(*worker) == to).expect("a worker");
            push(&mut events, now + HOP, Event::AtWorker { worker, request });
        }
        // It is woken often enough by what comes; only the end would be quiet.
        if events.is_empty() && router.in_flight() > 0 {
            push(&mut events, now + Duration::from_secs(61), Event::Timeout);
        }
    }
    run.times.sort_unstable();
    run
}

fn packet(rid: u16) -> Vec<u8> {
    let head = MessageHead {
        kind: MessageType::Request,
        policy: Policy::LoadBalanced,
        rid,
        extensions: Extensions::default(),
    };
    let mut packet = Vec::new();
    write_packets(&head, b"request", 1472, &mut |bytes| packet = bytes.to_vec()).expect("short");
    packet
}

/// p99 by load, each choice a line; upwards logarithmic, from 10 µs to 10 ms.
fn plot(curves: &[(&str, Vec<(f64, f64)>)]) -> String {
    const COLOURS: [&str; 6] = ["#c0392b", "#e67e22", "#8e44ad", "#2980b9", "#16a085", "#2c3e50"];
    let x = |load: f64| 70.0 + load * 560.0;
    let y = |micros: f64| 380.0 - (micros / 10.0).log10().clamp(0.0, 3.0) * 110.0;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 440\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"800\" height=\"440\" fill=\"white\"/>\n\
         <text x=\"70\" y=\"28\" font-size=\"15\">p99 of the response time behind the router, 4 workers, bimodal service \
         times (mean 50 µs)</text>\n",
    );
    let mut line = |text: std::fmt::Arguments<'_>| _ = svg.write_fmt(text);
    for micros in [10.0, 100.0, 1000.0, 10_000.0] {
        let y = y(micros);
        line(format_args!("<line x1=\"70\" y1=\"{y}\" x2=\"630\" y2=\"{y}\" stroke=\"#ddd\"/>\n"));
        line(format_args!("<text x=\"62\" y=\"{}\" text-anchor=\"end\">{micros} µs</text>\n", y + 4.0));
    }
    for percent in (0..=100).step_by(20) {
        let x = x(f64::from(percent) / 100.0);
        line(format_args!("<line x1=\"{x}\" y1=\"50\" x2=\"{x}\" y2=\"380\" stroke=\"#eee\"/>\n"));
        line(format_args!("<text x=\"{x}\" y=\"400\" text-anchor=\"middle\">{percent} %</text>\n"));
    }
    line(format_args!("<text x=\"350\" y=\"425\" text-anchor=\"middle\">load</text>\n"));
    for (number, ((name, curve), colour)) in curves.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> =
            curve.iter().map(|(load, micros)| format!("{:.1},{:.1}", x(*load), y(*micros))).collect();
        let points = points.join(" ");
        line(format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"));
        let at = 90 + number * 24;
        line(format_args!(
            "<line x1=\"650\" y1=\"{at}\" x2=\"680\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"3\"/>\n"
        ));
        line(format_args!("<text x=\"688\" y=\"{}\">{name}</text>\n", at + 4));
    }
    svg + "</svg>\n"
}
