//! What arrives from the network that is not one of our clients: the C implementation's, and anything at all.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use hovercraft_apps::kv::{Request, Response};
use multicast::TTL_DEFAULT;
use system_tests::{HANG, Up, counter, multicast_works, until};

/// A request of one datagram as the C implementation sends it: 8 bytes and the body.
fn plain_request(policy: u8, rid: u16, body: &[u8]) -> Vec<u8> {
    let [high, low] = rid.to_be_bytes();
    let mut packet = vec![0xcc, 8, policy, 0xc0, high, low, 0, 1];
    packet.extend_from_slice(body);
    packet
}

#[test]
fn a_plain_request_is_answered_in_the_format_of_the_c_implementation() {
    if !multicast_works("a_plain_request_is_answered_in_the_format_of_the_c_implementation") {
        return;
    }
    let up = Up::start(&["--fan-out", "multicast"]);
    let config = up.config();
    let group = config.request_fan_out();
    let socket = group.sender_socket(TTL_DEFAULT).expect("socket");
    socket.set_read_timeout(Some(HANG)).expect("timeout");
    let nodes: Vec<SocketAddrV4> = config.nodes.iter().map(|entry| entry.requests).collect();

    let mut answered = Vec::new();
    let mut ask = |policy: u8, rid: u16, request: &Request| {
        let packet = plain_request(policy, rid, &request.encode());
        socket.send_to(&packet, config.request_group).expect("sent");
        let mut buffer = [0xa5; 2048];
        let (len, from) = socket.recv_from(&mut buffer).expect("an answer");
        let [high, low] = rid.to_be_bytes();
        // Type RESPONSE, policy FIXED, first and last packet of 1.
        assert_eq!(buffer[..8], [0xcc, 8, 0x11, 0xc0, high, low, 0, 1]);
        answered.push(rid);
        assert!(nodes.iter().any(|node| from == (*node).into()), "{from} is the unicast address of no node");
        Response::decode(&Bytes::copy_from_slice(&buffer[8..len])).expect("a reply of the service")
    };
    // REPLICATED, and REPLICATED_NO_SIDE_EFFECTS.
    let set = Request::Set { key: "k".into(), value: "v".into() };
    assert_eq!(ask(2, 7, &set), Response::Stored);
    assert_eq!(ask(3, 8, &Request::Get { key: "k".into() }), Response::Value(Some("v".into())));
    // Each is answered once, by one node: a second answer to one would be taken for the answer to the next.
    for rid in 100..200 {
        assert_eq!(ask(2, rid, &Request::Incr { key: "n".into(), delta: 1 }), Response::Number(i64::from(rid) - 99));
    }
    // The policy is the client's opinion; what is a write is known by the service.
    assert_eq!(ask(3, 300, &Request::Set { key: "k".into(), value: "w".into() }), Response::Stored);
    assert_eq!(ask(2, 301, &Request::Get { key: "k".into() }), Response::Value(Some("w".into())));
    drop(answered);
}

/// Bytes that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// A datagram: of any bytes, or with the beginning of a correct header.
    fn datagram(&mut self) -> Vec<u8> {
        let len = (self.next() % 1400) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
        let header: &[u8] = match self.next() % 4 {
            0 => &[],
            1 => &[0xcc],
            2 => &[0xcc, 8],
            _ => &[0xcc, 8, 0x70, 0xc0, 0, 1, 0, 1],
        };
        for (byte, correct) in bytes.iter_mut().zip(header) {
            *byte = *correct;
        }
        bytes
    }
}

#[test]
fn garbage_at_every_port_is_counted_and_harmless() {
    const AT_A_TIME: usize = 20;
    const ENOUGH: u64 = 300;
    for fan_out in ["multicast", "unicast"] {
        if fan_out == "multicast" && !multicast_works("garbage_at_every_port_is_counted_and_harmless") {
            continue;
        }
        let up = Up::start(&["--fan-out", fan_out]);
        up.kv(&["set", "before", "1"]).good();
        let config = up.config();
        let stranger = config.request_fan_out().sender_socket(TTL_DEFAULT).expect("socket");
        let mut targets: Vec<SocketAddrV4> = Vec::new();
        for entry in &config.nodes {
            targets.extend([entry.requests, entry.peers]);
            if fan_out == "unicast" {
                targets.extend(entry.group_requests);
            }
        }
        if fan_out == "multicast" {
            targets.extend([config.request_group, config.peer_group]);
        }
        let mut noise = Noise(1);
        until("the garbage has been counted", || {
            // Some at a time: what finds no room in a socket's buffer is garbage that the node never sees.
            for _ in 0..AT_A_TIME {
                for target in &targets {
                    stranger.send_to(&noise.datagram(), target).expect("sent");
                }
            }
            let status = up.status();
            up.ids().into_iter().all(|id| {
                let requests: u64 = [
                    "bad_magic",
                    "bad_header_size",
                    "unknown_type",
                    "unknown_policy",
                    "bad_flags",
                    "truncated",
                    "unexpected_kind",
                ]
                .iter()
                .map(|reason| counter(&status, id, &format!("requests.{reason}")))
                .sum();
                let peers = ["peer_messages_stranger", "peer_packets_malformed"];
                let peers: u64 = peers.iter().map(|reason| counter(&status, id, &format!("node.{reason}"))).sum();
                requests > ENOUGH && peers > ENOUGH
            })
        });
        assert_eq!(up.kv(&["get", "before"]).good(), "1");
        up.kv(&["set", "after", "2"]).good();
        assert!(up.ids().into_iter().all(|id| system_tests::alive(up.pid(id))));
    }
}

#[test]
fn empty_datagrams_and_the_longest_ones_are_harmless() {
    let up = Up::start(&["--fan-out", "unicast"]);
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    stranger.set_write_timeout(Some(Duration::from_secs(10))).expect("timeout");
    for entry in &up.config().nodes {
        for port in [Some(entry.requests), Some(entry.peers), entry.group_requests].into_iter().flatten() {
            for len in [0, 1, 7, 8, 9, 1472, 1473, 16_384, 65_507] {
                stranger.send_to(&vec![0xcc; len], port).expect("sent");
            }
        }
    }
    up.kv(&["set", "a", "1"]).good();
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
    assert!(up.ids().into_iter().all(|id| system_tests::alive(up.pid(id))));
}
