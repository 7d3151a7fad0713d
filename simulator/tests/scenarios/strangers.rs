//! Messages from somebody else than they say, or not as they were sent (protocol.md §6.12, §7.5).

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::message::{AppendAck, Envelope, Message};
use hovercraft::{GroupId, Incarnation, MemberId, NodeId};
use simulator::registers::Request::Add;
use simulator::world::peer_address;
use simulator::{Registers, Scenario};

/// §7.5: a second process under a known identity is not listened to and is told so.
#[test]
pub(crate) fn two_nodes_with_the_same_id() {
    let mut s = Scenario::cluster(3).registers();
    let [leader, twin, _] = s.cast();
    // Nobody acknowledges a new entry but the impostor, whose word must not commit it.
    s.lose("append");
    s.client(0).begin(Add(1, 1));
    s.run_for(Duration::from_millis(1));
    let (last, commit) = (s.last(leader), s.commit(leader));
    assert!(commit < last);
    let ack = AppendAck { matched: last, applied: commit, commit, ..AppendAck::default() };
    acknowledge(&mut s, leader, peer_address(twin), twin, 0xbad, ack);
    assert_eq!(s.counters(leader).peer_messages_other_life, 1);
    assert_eq!(s.commit(leader), commit);
    s.heal();
    assert_eq!(s.client(0).values(1), [1]);
    // The refusal names the life it is meant for, so the twin that the group knows goes on.
    s.run_for(Duration::from_millis(50));
    assert_eq!(s.stopped(twin), None);
    s.converge();
}

/// An acknowledgement beyond the leader's log would make it commit what nobody holds; from a stranger it is nothing.
#[test]
pub(crate) fn spoofed_acknowledgements_are_counted_and_harmless() {
    let mut s = Scenario::cluster(3).registers();
    let [leader, other, _] = s.cast();
    s.run_for(Duration::from_millis(10));
    let commit = s.commit(leader);
    let inflated = AppendAck { matched: 1 << 40, applied: 1 << 40, ..AppendAck::default() };
    acknowledge(&mut s, leader, "10.9.9.9:777".parse().unwrap(), other, 1, inflated);
    assert_eq!(s.counters(leader).peer_messages_stranger, 1);
    acknowledge(&mut s, leader, peer_address(other), 77, 1, inflated);
    assert_eq!(s.counters(leader).peer_messages_stranger, 2);
    // A member's own acknowledgement, damaged on its way.
    let (sender, captured) = std::sync::mpsc::channel();
    let acks = s.watch("append_ack").from(other).which(move |flight| sender.send(flight.packet.to_vec()).is_ok());
    s.until("it has acknowledged something", |_| acks.hits() > 0);
    s.stop(&acks);
    let mut packet = captured.recv().unwrap();
    let matched = r2p2::wire::HEADER_LEN + hovercraft::message::ENVELOPE_LEN + 2;
    packet[matched..matched + 8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    s.send_raw(peer_address(other), peer_address(leader), packet.into());
    s.run_for(Duration::from_micros(100));
    assert_eq!(s.counters(leader).acks_inflated, 1);
    assert_eq!(s.commit(leader), commit);
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
}

/// §6.12: what comes from a member's address need not come from the member, or whole.
#[test]
pub(crate) fn garbage_from_a_members_address_is_counted_and_harmless() {
    let mut s = Scenario::cluster(3).registers();
    let [leader, other, _] = s.cast();
    let not_r2p2 = [&b""[..], b"x", &[0xcc; 8], &[0; 1400]];
    let not_ours = [&[0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1][..], &[0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1, 1, 99, 0, 1]];
    for packet in not_r2p2.into_iter().chain(not_ours) {
        s.send_raw(peer_address(other), peer_address(leader), Bytes::copy_from_slice(packet));
    }
    s.run_for(Duration::from_millis(1));
    let counters = s.counters(leader);
    assert_eq!(counters.peer_packets_malformed, not_r2p2.len() as u64);
    assert_eq!(counters.peer_messages_malformed, not_ours.len() as u64);
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
}

/// Sends the leader an acknowledgement of its term that says it is from node `id`.
fn acknowledge(s: &mut Scenario<Registers>, leader: u16, from: SocketAddrV4, id: u16, life: u64, ack: AppendAck) {
    let member = MemberId::new(NodeId(id), Incarnation(1));
    let envelope = Envelope { group: GroupId(1), from: member, life, term: s.term(leader) };
    let mut packet = vec![0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1];
    packet.extend_from_slice(&Message::AppendAck(ack).emit(&envelope));
    s.send_raw(from, peer_address(leader), packet.into());
    s.run_for(Duration::from_micros(100));
}
