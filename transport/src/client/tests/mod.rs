//! The client against hand-made answers, then against a small exactly-once server over a lossy network, in virtual time.

mod against_a_server;
mod matching;
mod moving;
mod opening;
mod pair;
mod plain;
mod retransmission;
mod routing;
mod windows;

use std::net::Ipv4Addr;

use super::*;
use crate::wire::{Digest, Policy};
use pair::{Faults, Pair};

const NODES: [SocketAddrV4; 3] = [
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000),
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 9000),
];
/// The session of a [`World`] that starts with one.
const SESSION: u64 = 100;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config() -> ClientConfig {
    ClientConfig { nodes: NODES.to_vec(), ..ClientConfig::default() }
}

const fn session(client: u64, seq: u64, first_unacked: u64) -> wire::Session {
    wire::Session { client, seq, first_unacked }
}

/// A packet that the client sent.
#[derive(Clone, Debug)]
struct Sent {
    target: Target,
    bytes: Bytes,
    head: Header,
    payload: Bytes,
}

impl Sent {
    fn new(target: Target, bytes: Bytes) -> Self {
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        let head = Header::parse(&packet).unwrap();
        let payload = Bytes::copy_from_slice(packet.payload());
        Self { target, bytes, head, payload }
    }

    fn session(&self) -> wire::Session {
        self.head.extensions.session.unwrap()
    }
}

fn reply(request: &Sent) -> MessageHead {
    MessageHead {
        kind: MessageType::Response,
        policy: request.head.policy,
        rid: request.head.rid,
        extensions: Extensions { session: request.head.extensions.session, ..Extensions::default() },
    }
}

fn open_reply(request: &Sent, client: u64) -> MessageHead {
    let mut head = reply(request);
    head.extensions.session = Some(wire::Session { client, ..request.session() });
    head.extensions.entry_index = Some(client);
    head
}

fn packets_of(head: &MessageHead, body: &[u8]) -> Vec<Bytes> {
    let mut packets = Vec::new();
    write_packets(head, body, config().packet_max, &mut |packet| packets.push(packet)).unwrap();
    packets
}

fn control_packet(kind: MessageType, rid: u16, body: &[u8]) -> Bytes {
    let head = MessageHead { kind, policy: Policy::LoadBalanced, rid, extensions: Extensions::default() };
    packets_of(&head, body).remove(0)
}

fn ack_of(request: &Sent) -> Bytes {
    control_packet(MessageType::Ack, request.head.rid, b"ACK")
}

/// A client, a clock, and what the client has said so far.
struct World {
    now: Instant,
    client: Client,
    sent: Vec<Sent>,
    done: Vec<Completion>,
    timeout: (Instant, &'static str),
}

impl World {
    fn new(config: ClientConfig) -> Self {
        Self {
            now: Instant::ZERO,
            client: Client::new(config, 7),
            sent: Vec::new(),
            done: Vec::new(),
            timeout: (Instant::FAR_FUTURE, ""),
        }
    }

    /// With the session [`SESSION`] open, after a round trip of no time, and nothing outstanding.
    fn open(config: ClientConfig) -> Self {
        let mut world = Self::new(config);
        world.submit("open");
        let request = world.only_sent();
        world.answer_with(&request, NODES[0], open_reply(&request, SESSION), b"");
        world.drain();
        let held = std::mem::take(&mut world.sent).remove(0);
        world.answer(&held, NODES[0], b"");
        world.done();
        // As if that operation had not been: the cases count from seq 1.
        let opened = Session::new(SESSION, world.now);
        world.client.sessions.insert(SESSION, opened);
        world
    }

    fn submit(&mut self, body: &'static str) -> Ticket {
        let ticket = self.client.submit(self.now, Kind::Write, body.into()).unwrap();
        self.drain();
        ticket
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets the client's next timer fire, which must be due for this reason.
    fn fire(&mut self, why: &str) {
        let timeout = self.timeout();
        assert_eq!(timeout.1, why);
        self.now = self.now.max(timeout.0);
        self.client.handle_timeout(self.now);
        self.drain();
    }

    /// Lets everything fire that is due until `end`, and forgets what is sent.
    fn run_to(&mut self, end: Instant) {
        while self.timeout().0 <= end {
            self.now = self.now.max(self.timeout.0);
            self.client.handle_timeout(self.now);
        }
        self.now = end;
        self.sent();
    }

    fn receive(&mut self, from: SocketAddrV4, packet: &[u8]) {
        self.client.handle_datagram(self.now, from, packet);
        self.drain();
    }

    fn receive_message(&mut self, from: SocketAddrV4, head: &MessageHead, body: &[u8]) {
        for packet in packets_of(head, body) {
            self.receive(from, &packet);
        }
    }

    fn answer(&mut self, request: &Sent, from: SocketAddrV4, body: &[u8]) {
        self.answer_with(request, from, reply(request), body);
    }

    fn answer_status(&mut self, request: &Sent, from: SocketAddrV4, status: ReplyStatus, body: &[u8]) {
        let mut head = reply(request);
        head.extensions.status = Some(status);
        self.answer_with(request, from, head, body);
    }

    fn answer_with(&mut self, request: &Sent, from: SocketAddrV4, head: MessageHead, body: &[u8]) {
        assert_eq!(head.rid, request.head.rid);
        self.receive_message(from, &head, body);
    }

    fn client_has_answer(&mut self, request: &Sent, body: &'static [u8]) {
        self.answer(request, NODES[0], body);
        assert_eq!(self.only_done().outcome, Outcome::Ok(Bytes::from_static(body)));
    }

    fn drop_packet(&mut self, request: &Sent) {
        self.receive(NODES[0], &control_packet(MessageType::Drop, request.head.rid, b"DROP"));
    }

    fn drain(&mut self) {
        loop {
            match self.client.poll_output(self.now) {
                ClientOutput::Transmit { target, packet } => self.sent.push(Sent::new(target, packet)),
                ClientOutput::Done(completion) => self.done.push(completion),
                ClientOutput::Timeout(at, why) => break self.timeout = (at, why),
            }
        }
    }

    fn sent(&mut self) -> Vec<Sent> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn only_sent(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn targets(&mut self) -> Vec<Target> {
        self.sent().iter().map(|sent| sent.target).collect()
    }

    fn done(&mut self) -> Vec<Completion> {
        self.drain();
        std::mem::take(&mut self.done)
    }

    fn only_done(&mut self) -> Completion {
        let mut done = self.done();
        assert_eq!(done.len(), 1, "{done:?}");
        done.remove(0)
    }

    fn timeout(&mut self) -> (Instant, &'static str) {
        self.drain();
        self.timeout
    }
}
