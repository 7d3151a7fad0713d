//! Recordings of whole runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use r2p2::server::Via;
use simulator::pcap::{GROUP, pcap};
use simulator::recording::{Fate, RecordingConfig};
use simulator::registers::{tell_reply, tell_request};
use simulator::swarm::{self, Options};
use simulator::world::What;

fn config() -> RecordingConfig {
    RecordingConfig { request: tell_request, reply: tell_reply, datagrams_max: usize::MAX, moments_max: usize::MAX }
}

#[test]
fn a_recorded_run_is_the_same_run() {
    for number in 0..6 {
        let options = Options::draw(swarm::seed_of(3, number));
        let (report, recording) = swarm::run_recorded(&options, Some(config()));
        assert_eq!(report, swarm::run_options(&options), "seed {}", options.seed);
        assert_eq!(swarm::run_recorded(&options, None).1.map(|recording| recording.end), None);

        let recording = recording.expect("it was asked for");
        let count = |wanted: fn(Fate) -> bool| recording.datagrams().filter(|datagram| wanted(datagram.fate)).count();
        let arrived = count(|fate| matches!(fate, Fate::Delivered(_) | Fate::Unheard(_)));
        assert_eq!(arrived as u64, report.delivered);
        assert_eq!(count(|fate| matches!(fate, Fate::Lost(_))) as u64, report.faults.lost);
        assert_eq!(count(|fate| matches!(fate, Fate::Cut(_))) as u64, report.faults.cut);
        assert_eq!(recording.datagrams().filter(|datagram| datagram.copy_of.is_some()).count() as u64, {
            report.faults.duplicated
        });
        let kills = recording.moments().filter(|moment| matches!(moment.what, What::Killed(_))).count();
        assert_eq!(kills as u64, report.faults.kills);
        let answered = recording.operations().filter(|operation| operation.end.is_some()).count();
        assert!(answered as u64 >= report.answered && report.answered > 0);
        for datagram in recording.datagrams() {
            assert!(!recording.summary(datagram).is_empty());
        }
    }
}

/// The capture, read back: every packet is what was sent, when it was sent, and multicasts are there once.
#[test]
fn a_capture_holds_what_was_sent() {
    let options = Options::draw(swarm::seed_of(3, 1));
    let (_, recording) = swarm::run_recorded(&options, Some(config()));
    let recording = recording.expect("it was asked for");
    let file = pcap(&recording);
    let (header, mut rest) = file.split_at(24);
    assert_eq!(
        header,
        [
            [0x4d, 0x3c, 0xb2, 0xa1].as_slice(),
            &[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &65_535u32.to_le_bytes(),
            &101u32.to_le_bytes()
        ]
        .concat()
    );
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut captured: BTreeMap<(u64, SocketAddrV4, Vec<u8>), u64> = BTreeMap::new();
    let (mut groups, mut last) = (0, 0);
    while !rest.is_empty() {
        let (seconds, nanos, len) = (word(rest, 0), word(rest, 4), word(rest, 8) as usize);
        assert_eq!(word(rest, 12) as usize, len, "whole packets");
        let time = u64::from(seconds) * 1_000_000_000 + u64::from(nanos);
        assert!(time >= last && nanos < 1_000_000_000, "in the order of sending");
        last = time;
        let packet = &rest[16..16 + len];
        let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        let source = SocketAddrV4::new(source, u16::from_be_bytes([packet[20], packet[21]]));
        groups += u64::from(packet[16..20] == GROUP.octets());
        *captured.entry((time, source, packet[28..].to_vec())).or_default() += 1;
        rest = &rest[16 + len..];
    }
    let sent: BTreeSet<(u64, SocketAddrV4, Vec<u8>)> = recording
        .datagrams()
        .map(|datagram| (datagram.sent.as_nanos(), datagram.source, datagram.packet.to_vec()))
        .collect();
    assert_eq!(captured.keys().cloned().collect::<BTreeSet<_>>(), sent);
    assert!(groups > 100, "{groups}");
    let unicasts = recording
        .datagrams()
        .filter(|datagram| datagram.copy_of.is_none() && (datagram.via == Via::Unicast || datagram.corrupted));
    assert_eq!(captured.values().sum::<u64>(), groups + unicasts.count() as u64);
}
