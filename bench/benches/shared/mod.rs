//! The hot pieces, each as something that can be done again and again: in memory, no sockets, no clock.

mod group;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::entry::{Entry, EntryKind, RequestHead};
use hovercraft::message::{Append, AppendEntries, AppendEntry, Envelope, Message};
use hovercraft::unordered::{UnorderedLimits, UnorderedSet};
use hovercraft::{GroupId, Incarnation, MemberId, Mode, NodeId};
use measure::latencies::Latencies;
use r2p2::message::{MessageHead, write_packets};
use r2p2::reassembly::{Reassembler, ReassemblyLimits};
use r2p2::wire::{Extensions, Header, MessageType, Packet, Policy, Session};
use r2p2::{Digest, DigestKey, Instant};

/// Operations of a batch.
const BATCH: usize = 64;
/// Longest packet to a client.
const PACKET_MAX: usize = 1472;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);

/// Something that nodes do all the time.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) name: &'static str,
    /// Gets ready to do it.
    pub(crate) make: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub(crate) const PIECES: &[Piece] = &[
    Piece { name: "header_parse", make: header_parse },
    Piece { name: "request_write", make: request_write },
    Piece { name: "reassembly_1_packet", make: || reassembly(24) },
    Piece { name: "reassembly_6_kb", make: || reassembly(6000) },
    Piece { name: "unordered_insert_take", make: unordered },
    Piece { name: "append_build_64", make: append_build },
    Piece { name: "append_parse_64", make: append_parse },
    Piece { name: "histogram_record", make: histogram },
    Piece { name: "unreplicated_64_writes", make: || group(Mode::Unreplicated, 1) },
    Piece { name: "raft_3_64_writes", make: || group(Mode::Raft, 3) },
    Piece { name: "hovercraft_3_64_writes", make: || group(Mode::Hovercraft, 3) },
    Piece { name: "hovercraft_5_64_writes", make: || group(Mode::Hovercraft, 5) },
];

fn head(rid: u16, seq: u64) -> MessageHead {
    let session = Some(Session { client: 7, seq, first_unacked: 1 });
    MessageHead {
        kind: MessageType::Request,
        policy: Policy::Replicated,
        rid,
        extensions: Extensions { session, no_handshake: true, ..Extensions::default() },
    }
}

fn packets(rid: u16, seq: u64, len: usize) -> Vec<Bytes> {
    let mut packets = Vec::new();
    write_packets(&head(rid, seq), &vec![0x5a; len], PACKET_MAX, &mut |packet| packets.push(packet)).expect("fits");
    packets
}

fn header_parse() -> Box<dyn FnMut()> {
    let packet = packets(1, 1, 24).remove(0);
    Box::new(move || {
        let packet = Packet::new_checked(&black_box(&packet)[..]).expect("written by us");
        black_box(Header::parse(&packet).expect("written by us"));
    })
}

fn request_write() -> Box<dyn FnMut()> {
    let (head, body) = (head(1, 1), [0x5a; 24]);
    Box::new(move || {
        write_packets(black_box(&head), &body, PACKET_MAX, &mut |packet| {
            black_box(packet);
        })
        .expect("fits");
    })
}

fn reassembly(len: usize) -> Box<dyn FnMut()> {
    // Without the digest that the client puts into the first of several packets, so in one whose key is not asked for.
    let mut reassembler = Reassembler::new(ReassemblyLimits::default(), DigestKey::default());
    let packets = packets(1, 1, len);
    Box::new(move || {
        let mut whole = false;
        for packet in &packets {
            whole |= reassembler.accept(Instant::ZERO, CLIENT, packet).expect("written by us").is_some();
        }
        assert!(black_box(whole), "all packets make a message");
    })
}

fn unordered() -> Box<dyn FnMut()> {
    let mut set = UnorderedSet::new(UnorderedLimits::default());
    let body = Bytes::from_static(&[0x5a; 24]);
    let mut number = 0_u128;
    let mut insert = move |set: &mut UnorderedSet| {
        number += 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834;
        let head = RequestHead { identity: Digest(number), body_len: 24, ..RequestHead::NONE };
        set.insert(Instant::ZERO, head, body.clone()).expect("there is room");
        head.identity
    };
    for _ in 0..1000 {
        insert(&mut set);
    }
    Box::new(move || {
        let identity = insert(&mut set);
        black_box(set.take(&identity));
    })
}

fn envelope() -> Envelope {
    Envelope { group: GroupId(1), from: MemberId::new(NodeId(1), Incarnation(1)), life: 1, term: 2 }
}

fn append() -> Append {
    let entry = |number: u64| {
        let request = RequestHead {
            client: CLIENT,
            rid: number as u16,
            session: Some(Session { client: 7, seq: number, first_unacked: 1 }),
            identity: Digest(u128::from(number)),
            body_len: 24,
        };
        let entry = Entry {
            kind: EntryKind::Request,
            read_only: false,
            replier: NodeId(1 + (number % 3) as u16),
            request,
            time: Instant::from_nanos(number),
        };
        let mut raw = Vec::new();
        entry.emit(&mut raw);
        AppendEntry { entry, raw: raw.into(), body: None }
    };
    let entries = AppendEntries((1..=BATCH as u64).map(entry).collect());
    Append { prev: 10, prev_term: 2, commit: 10, persisted: 10, arm: 0, entries_term: 2, entries }
}

fn append_build() -> Box<dyn FnMut()> {
    let (message, envelope) = (Message::Append(append()), envelope());
    Box::new(move || {
        black_box(black_box(&message).emit(&envelope));
    })
}

fn append_parse() -> Box<dyn FnMut()> {
    let bytes = Bytes::from(Message::Append(append()).emit(&envelope()));
    Box::new(move || {
        black_box(Message::parse(black_box(&bytes)).expect("written by us"));
    })
}

fn histogram() -> Box<dyn FnMut()> {
    let mut latencies = Latencies::default();
    latencies.record(Duration::from_secs(1));
    let mut nanos = 0_u64;
    Box::new(move || {
        nanos = (nanos + 7919) % 1_000_000;
        latencies.record(Duration::from_nanos(nanos));
    })
}

fn group(mode: Mode, nodes: u16) -> Box<dyn FnMut()> {
    let mut group = group::Group::start(mode, nodes);
    Box::new(move || group.write(BATCH))
}
