//! What a packet costs that passes through a gateway or a router, against one that passes through a forwarder that does
//! nothing: processor time of the thread in between, in one run, on the same loopback.
//!
//! ```text
//! cargo bench -p multicast --bench forwarding     a million requests each; `-- 100000` for fewer
//! ```
//!
//! Requests go out in batches of 32 and the next batch follows when the last has come out, so nothing is lost and nobody
//! waits for long. For every request there is one FEEDBACK item; a FEEDBACK packet per batch, as busy nodes send them.
//! *bare* reads with recvmmsg and writes the same buffers with sendmmsg, in C's way, and does nothing else.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use multicast::gateway::{Gateway, GatewayConfig};
use multicast::role::{Output, Role, RoleOptions, To, start};
use r2p2::Instant;
use r2p2::feedback::Outbox;
use r2p2::message::{MessageHead, write_packets};
use r2p2::router::{Router, RouterConfig};
use r2p2::udp::{Clock, SocketOptions};
use r2p2::wire::{Extensions, Feedback, MessageType, Policy, Session};

const BATCH: usize = 32;
const BODY: usize = 64;
const ROUNDS: usize = 3;

fn main() {
    let requests = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000_usize);
    println!("{requests} requests of {BODY} B, batches of {BATCH}; processor time of the thread in between");
    println!("{:<28} {:>14} {:>18} {:>10}", "", "ns per packet", "ns per request", "of bare");
    let mut bare = f64::INFINITY;
    // The least of a few rounds: whatever else the machine does only adds.
    let mut least = [f64::INFINITY; 4];
    for _ in 0..ROUNDS {
        least[0] = least[0].min(measure(requests, None));
        least[1] = least[1].min(measure(requests, Some(Kind::Copying)));
        least[2] = least[2].min(measure(requests, Some(Kind::Gateway)));
        least[3] = least[3].min(measure(requests, Some(Kind::Router)));
    }
    for (name, per_request) in ["bare", "shell that copies", "gateway", "router"].into_iter().zip(least) {
        bare = bare.min(per_request);
        // In and out, and a share of a FEEDBACK in.
        println!(
            "{name:<28} {:>14.0} {per_request:>18.0} {:>9.2}x",
            per_request / (2.0 + 1.0 / BATCH as f64),
            per_request / bare
        );
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Copying,
    Gateway,
    Router,
}

/// Passes on what comes, byte for byte.
struct Copying {
    to: SocketAddrV4,
    from_server: SocketAddrV4,
    waiting: VecDeque<bytes::Bytes>,
}

impl Role for Copying {
    const NAME: &'static str = "copying";

    fn handle_packet(&mut self, _: Instant, from: SocketAddrV4, packet: &[u8]) {
        if from != self.from_server {
            self.waiting.push_back(bytes::Bytes::copy_from_slice(packet));
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_output(&mut self, _: Instant) -> Output {
        match self.waiting.pop_front() {
            Some(packet) => Output::Send { to: To::One(self.to), packet },
            None => Output::Timeout(Instant::FAR_FUTURE),
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// Nanoseconds of processor time per request of whoever passes them on.
fn measure(requests: usize, kind: Option<Kind>) -> f64 {
    let (client, server) = (bind(), bind());
    let to = at(&server);
    let options = RoleOptions { spin: Duration::ZERO, socket: SocketOptions::default(), ..RoleOptions::default() };
    match kind {
        None => {
            let socket = bind();
            let address = at(&socket);
            let thread = std::thread::spawn(move || bare(&socket, to));
            let cost = drive(requests, &client, &server, address, Policy::Replicated);
            client.send_to(b"", address).expect("sent");
            thread.join().expect("no panic");
            cost
        }
        Some(Kind::Copying) => {
            let core = Copying { to, from_server: to, waiting: VecDeque::new() };
            let role = start(core, Clock::new(), bind(), Vec::new(), options).expect("started");
            drive(requests, &client, &server, role.address(), Policy::Replicated)
        }
        Some(Kind::Gateway) => {
            let config = GatewayConfig { receivers: [to].into(), nodes: [to].into(), ..GatewayConfig::default() };
            let role = start(Gateway::new(config, 1), Clock::new(), bind(), Vec::new(), options).expect("started");
            drive(requests, &client, &server, role.address(), Policy::Replicated)
        }
        Some(Kind::Router) => {
            let config =
                RouterConfig { bound: 2 * BATCH, silence: Duration::from_secs(600), ..RouterConfig::default() };
            let role = start(Router::new(config, 1), Clock::new(), bind(), Vec::new(), options).expect("started");
            server.send_to(&Outbox::new(1).registration(false), role.address()).expect("sent");
            drive(requests, &client, &server, role.address(), Policy::LoadBalanced)
        }
    }
}

/// Sends requests to `through`, takes them where they come out, and says that they are answered.
fn drive(requests: usize, client: &UdpSocket, server: &UdpSocket, through: SocketAddrV4, policy: Policy) -> f64 {
    let mut outbox = Outbox::new(1);
    let mut buffer = [0; 2048];
    let body = [7; BODY];
    let from = at(client);
    let mut seq = 0;
    let before = others();
    for _ in 0..requests / BATCH {
        for _ in 0..BATCH {
            seq += 1;
            let rid = seq as u16;
            // As our clients send them; a router's have no sessions.
            let session = (policy == Policy::Replicated).then_some(Session { client: 9, seq, first_unacked: seq });
            let head = MessageHead {
                kind: MessageType::Request,
                policy,
                rid,
                extensions: Extensions { session, ..Extensions::default() },
            };
            write_packets(&head, &body, 1472, &mut |packet| {
                client.send_to(&packet, through).expect("sent");
            })
            .expect("short");
            outbox.answered(Feedback { rid, client: from });
        }
        for _ in 0..BATCH {
            server.recv(&mut buffer).expect("it comes out");
        }
        outbox.flush(&mut |packet| {
            server.send_to(&packet, through).expect("sent");
        });
    }
    (others() - before) as f64 / (requests / BATCH * BATCH) as f64
}

/// Nanoseconds of processor time that all threads but this one have used.
fn others() -> u64 {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the answer, and both clocks exist.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        assert_eq!(result, 0, "clocks can be read");
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    read(libc::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// Passes on to `to` what does not come from there, until something empty comes.
fn bare(socket: &UdpSocket, to: SocketAddrV4) {
    const PLACES: usize = 64;
    let mut buffers = vec![[0_u8; 2048]; PLACES];
    let mut names = vec![kernel(to); PLACES];
    let receiver = kernel(to);
    let mut parts: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: all zeroes are a valid `mmsghdr`.
    let mut messages = vec![unsafe { std::mem::zeroed::<libc::mmsghdr>() }; PLACES];
    let name_len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    loop {
        for (at, message) in messages.iter_mut().enumerate() {
            parts[at].iov_len = 2048;
            message.msg_hdr.msg_name = (&raw mut names[at]).cast();
            message.msg_hdr.msg_namelen = name_len;
            message.msg_hdr.msg_iov = &raw mut parts[at];
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every message points to a name and a part of its own, which live until the end of this function.
        // MSG_WAITFORONE: it blocks for the first and takes what else is there.
        let received = unsafe {
            let flags = libc::MSG_WAITFORONE as _;
            libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), PLACES as _, flags, std::ptr::null_mut())
        };
        let received = usize::try_from(received).expect("received");
        let mut kept = 0;
        for at in 0..received {
            let len = messages[at].msg_len as usize;
            if len == 0 {
                return;
            }
            if names[at].sin_port == receiver.sin_port {
                continue;
            }
            parts[at].iov_len = len;
            messages[kept].msg_hdr.msg_iov = &raw mut parts[at];
            messages[kept].msg_hdr.msg_name = (&raw const receiver).cast_mut().cast();
            messages[kept].msg_hdr.msg_namelen = name_len;
            kept += 1;
        }
        let mut sent = 0;
        while sent < kept {
            // SAFETY: the first `kept` messages point to the receiver's name and to parts that were filled.
            let more =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), messages[sent..].as_mut_ptr(), (kept - sent) as _, 0) };
            sent += usize::try_from(more).expect("sent");
        }
    }
}

fn kernel(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind to loopback");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    socket
}

fn at(socket: &UdpSocket) -> SocketAddrV4 {
    match socket.local_addr().expect("bound") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
    }
}
