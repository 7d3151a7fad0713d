//! The shell, around a core that passes everything on.

use std::net::Ipv4Addr;
use std::time::Duration;

use prost::Message as _;
use r2p2::server::response_head;
use r2p2::udp::Clock;
use r2p2::wire::{Extensions, Header, MessageType, Packet, Policy};
use std::net::{SocketAddr, UdpSocket};

use super::*;

/// Only a guard against a hanging test: nothing here takes that long.
const GUARD: Duration = Duration::from_secs(60);

/// Passes on what comes, and says something by itself once, when its time has come.
struct Forwarder {
    to: To,
    greet_at: Instant,
    waiting: Vec<Bytes>,
    forwarded: u64,
}

impl Role for Forwarder {
    const NAME: &'static str = "forwarder";

    fn handle_packet(&mut self, _: Instant, _: SocketAddrV4, packet: &[u8]) {
        self.forwarded += 1;
        self.waiting.insert(0, Bytes::copy_from_slice(packet));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.greet_at {
            self.greet_at = Instant::FAR_FUTURE;
            self.waiting.insert(0, Bytes::from_static(b"it is time"));
        }
    }

    fn poll_output(&mut self, _: Instant) -> Output {
        match self.waiting.pop() {
            Some(packet) => Output::Send { to: self.to.clone(), packet },
            None => Output::Timeout(self.greet_at),
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        vec![("forwarded".to_owned(), self.forwarded)]
    }

    fn gauges(&self) -> Vec<(String, u64)> {
        vec![("waiting".to_owned(), self.waiting.len() as u64)]
    }
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind to loopback");
    socket.set_read_timeout(Some(GUARD)).expect("a timeout");
    socket
}

fn at(socket: &UdpSocket) -> SocketAddrV4 {
    match socket.local_addr().expect("bound") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
    }
}

fn forwarder(to: To, greet_at: Instant) -> Forwarder {
    Forwarder { to, greet_at, waiting: Vec::new(), forwarded: 0 }
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let len = socket.recv(&mut buffer).expect("nothing came");
    buffer.truncate(len);
    buffer
}

fn ask(socket: &UdpSocket, role: &RunningRole, rid: u16, body: &[u8]) {
    let extensions = Extensions { admin: true, ..Extensions::default() };
    let head =
        r2p2::MessageHead { kind: MessageType::Request, policy: Policy::Fixed, ..response_head(rid, extensions) };
    r2p2::message::write_packets(&head, body, 1472, &mut |packet| {
        socket.send_to(&packet, role.address()).expect("sent");
    })
    .expect("short");
}

#[test]
fn what_comes_goes_out_in_order_to_everybody_from_the_roles_address() {
    let (client, one, two) = (bind(), bind(), bind());
    let core = forwarder(To::Each([at(&one), at(&two)].into()), Instant::FAR_FUTURE);
    let role = start(core, Clock::new(), bind(), Vec::new(), RoleOptions::default()).expect("started");
    for number in 0..100 {
        client.send_to(&[number], role.address()).expect("sent");
    }
    for receiver in [&one, &two] {
        for number in 0..100 {
            let mut buffer = [0; 10];
            let (len, from) = receiver.recv_from(&mut buffer).expect("nothing came");
            assert_eq!((&buffer[..len], from), (&[number][..], role.address().into()));
        }
    }
    role.stop();
    role.wait().expect("stopped because it was asked to");
}

#[test]
fn it_listens_to_groups_that_it_has_joined_and_keeps_time() {
    let (receiver, joined) = (bind(), bind());
    let group = at(&joined);
    let clock = Clock::new();
    let core = forwarder(To::One(at(&receiver)), clock.now() + Duration::from_millis(5));
    let role = start(core, clock, bind(), vec![joined], RoleOptions::default()).expect("started");
    assert_eq!(receive(&receiver), b"it is time");
    receiver.send_to(b"to the group", group).expect("sent");
    assert_eq!(receive(&receiver), b"to the group");
    drop(role);
}

#[test]
fn it_says_how_it_is_and_the_core_hears_nothing_of_it() {
    let client = bind();
    let core = forwarder(To::One(at(&client)), Instant::FAR_FUTURE);
    let options = RoleOptions { group: 7, ..RoleOptions::default() };
    let role = start(core, Clock::new(), bind(), Vec::new(), options).expect("started");
    client.send_to(b"pass this on", role.address()).expect("sent");
    assert_eq!(receive(&client), b"pass this on");

    // What only nodes know is counted, and not answered.
    ask(&client, &role, 8, b"members");
    ask(&client, &role, 9, b"status");
    let answer = receive(&client);
    let packet = Packet::new_checked(&answer[..]).expect("a packet");
    let header = Header::parse(&packet).expect("a header");
    assert_eq!((header.kind, header.rid, header.extensions.admin), (MessageType::Response, 9, true));
    let status = RoleStatus::decode(packet.payload()).expect("a report");
    assert_eq!((status.role.as_str(), status.group), ("forwarder", 7));
    assert_eq!(status.address, role.address().to_string());
    let values = ["forwarder.forwarded", "runtime.admin_answered", "runtime.admin_not_understood", "net.own.received"];
    assert_eq!(values.map(|name| status.value(name)), [1, 1, 1, 3]);
}
