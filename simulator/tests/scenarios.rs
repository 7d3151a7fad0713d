//! Written-out schedules: each was found by looking for a way to lose, double or stall something (the bracketed ones of
//! protocol.md).

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, call, cluster, cluster_of, config_of, converge, drain, value};
use hovercraft::message::{AppendAck, Envelope, Message};
use hovercraft::{GroupId, Incarnation, MemberId, NodeId};
use r2p2::client::{Kind, Outcome};
use simulator::registers::{Request, decode_reply};
use simulator::world::{peer_address, request_address};
use simulator::{Party, Registers, World};

/// §6.6: F holds an entry of a deposed leader where the new leader has committed another. The new leader's notice and
/// heartbeats reach F, its Appends do not: F must commit nothing.
#[test]
fn a_commit_notice_overtakes_its_append_on_a_follower_with_a_divergent_tail() {
    let mut world = cluster(5, |config| config.clients = 2);
    let old = world.elect();
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
    let divergent = (1..=5).find(|id| *id != old).unwrap();
    // The old leader reaches only F, with an entry that therefore never commits.
    world.lose_when(move |flight| {
        flight.what == "append" && flight.from == Party::Node(old) && flight.to != Party::Node(divergent)
    });
    let last = world.node(old).unwrap().consensus().log().last();
    world.submit(0, Kind::Write, Request::Set(1, 100).encode());
    assert!(world.run_until(Duration::from_millis(20), |world| {
        world.node(divergent).unwrap().consensus().log().last() > last
    }));
    world.heal();
    world.isolate(old, &[]);
    world.isolate(divergent, &[]);
    let elected = world.run_until(Duration::from_secs(5), |world| {
        world.leader().is_some_and(|leader| leader != old && leader != divergent)
    });
    assert!(elected);
    let new = world.leader().unwrap();
    call(&mut world, 1, Request::Add(1, 10));
    call(&mut world, 1, Request::Add(1, 10));
    // F hears everything from the new leader but its Appends.
    world.heal();
    world.isolate(old, &[]);
    let rule = world.lose_when(move |flight| flight.what == "append" && flight.to == Party::Node(divergent));
    let commit = world.node(divergent).unwrap().consensus().commit();
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.leader(), Some(new));
    assert_eq!(world.node(divergent).unwrap().consensus().commit(), commit, "committed what it cannot know");
    world.remove_rule(rule);
    world.heal();
    converge(&mut world);
}

/// The replier dies after the entry is committed and before it answers: the leader answers the retransmission from the
/// session's cache.
#[test]
fn a_replier_crashes_between_commit_and_reply() {
    for seed in 0..10 {
        let mut world = cluster_of(seed, 3, |_| {});
        let leader = world.elect();
        for _ in 0..5 {
            call(&mut world, 0, Request::Add(1, 1));
        }
        let victim = (1..=3).find(|id| *id != leader).unwrap();
        world.lose_when(move |flight| flight.what == "response" && flight.from == Party::Node(victim));
        for _ in 0..12 {
            world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        }
        world.run_for(Duration::from_micros(200));
        world.kill(victim);
        let mut replies: Vec<u64> = drain(&mut world, 0, 12).iter().map(value).collect();
        replies.sort_unstable();
        assert_eq!(replies, (6..=17).collect::<Vec<u64>>(), "seed {seed}");
        converge(&mut world);
    }
}

/// §3.3 [an expired client retransmits an increment]: the answer was lost, the session has expired meanwhile; the copy
/// must not be executed again, and the client is told.
#[test]
fn an_expired_client_retransmits_an_increment() {
    let mut world = cluster(3, |config| {
        config.clients = 2;
        config.client.retransmit_initial = Duration::from_secs(700);
        config.client.retransmit_min = Duration::from_secs(700);
        config.client.retransmit_max = Duration::from_secs(800);
        config.client.give_up = Duration::from_secs(3000);
        config.node.timing.tick = Duration::from_millis(50);
        config.node.timing.fresh = Duration::from_millis(500);
    });
    world.elect();
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
    let rule = world.lose_when(|flight| flight.what == "response" && flight.to == Party::Client(0));
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    world.run_for(Duration::from_secs(650));
    assert_eq!(call(&mut world, 1, Request::Get(1)), 2, "executed, and log time moves on");
    world.remove_rule(rule);
    let completion = drain(&mut world, 0, 1).remove(0);
    assert_eq!(completion.outcome, Outcome::Expired);
    assert_eq!(call(&mut world, 1, Request::Get(1)), 2);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 3, "a new session serves the next operation");
    converge(&mut world);
}

/// §3.3 [a timed-out SET 1 executed after SET 2]: a copy of the first is still in the network when the second has been
/// answered.
#[test]
fn a_timed_out_write_is_fenced_by_the_next_one() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    call(&mut world, 0, Request::Set(1, 0));
    // Captures the first write on its way.
    let captured = std::rc::Rc::new(std::cell::RefCell::new(None));
    let keep = captured.clone();
    let rule = world.lose_when(move |flight| {
        if flight.what == "request" {
            *keep.borrow_mut() = Some(flight.packet.clone());
        }
        flight.what == "request"
    });
    let ticket = world.submit(0, Kind::Write, Request::Set(1, 1).encode());
    world.run_for(Duration::from_millis(5));
    world.cancel(0, ticket);
    assert_eq!(drain(&mut world, 0, 1)[0].outcome, Outcome::Unknown);
    world.remove_rule(rule);
    assert_eq!(call(&mut world, 0, Request::Set(1, 2)), 0);
    let late: Bytes = captured.borrow().clone().expect("the first write was sent");
    let client = simulator::world::client_address(0);
    for id in 1..=3 {
        world.send_raw(client, request_address(id), late.clone());
    }
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.applier(leader).unwrap().service().value(1), 2);
    converge(&mut world);
}

/// §3.2: two answers to one read, at different indices and from different replicas, both of several packets and both
/// with losses: the client must not make one out of two.
#[test]
fn a_read_answered_again_while_fragments_of_the_first_answer_arrive() {
    // The reply repeats the value, so that a mixture shows.
    struct Wide(Registers);
    impl hovercraft::Service for Wide {
        fn classify(request: &[u8]) -> hovercraft::Class {
            Registers::classify(request)
        }
        fn apply(&mut self, context: &hovercraft::Context, request: &Bytes, reply: &mut hovercraft::Reply) {
            self.0.apply(context, request, reply);
        }
        fn query(&self, _: &hovercraft::Context, _: &Bytes, reply: &mut hovercraft::Reply) {
            reply.write(&self.0.value(1).to_be_bytes().repeat(2000));
        }
        fn snapshot(&self) -> Vec<u8> {
            self.0.snapshot()
        }
        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            self.0.restore(snapshot)
        }
    }
    for seed in 0..20 {
        let mut config = config_of(seed, 3);
        config.clients = 2;
        let mut world = World::new(config, || Wide(Registers::default()));
        world.elect();
        let mut dropped = 0;
        world.lose_when(move |flight| {
            let fragment = flight.what == "response" && flight.to == Party::Client(0) && flight.packet.len() > 1000;
            dropped += u32::from(fragment);
            fragment && dropped % 3 == 1 && dropped < 60
        });
        for round in 1..=10 {
            world.submit(0, Kind::Read, Request::Get(1).encode());
            world.submit(1, Kind::Write, Request::Add(1, 1).encode());
            let mut reply = None;
            assert!(world.run_until(Duration::from_secs(10), |world| {
                reply = world.completions(0).pop();
                reply.is_some()
            }));
            let Outcome::Ok(body) = reply.unwrap().1.outcome else { panic!("seed {seed} round {round}") };
            assert_eq!(body.len(), 16_000);
            let words: std::collections::BTreeSet<&[u8]> = body.chunks(8).collect();
            assert_eq!(words.len(), 1, "seed {seed} round {round}: an answer made of two");
        }
    }
}

/// §1, §3.3: after 65 536 requests a plain client's rid names somebody else, even if the bytes are the same.
#[test]
fn a_rid_wraps_and_is_reused_with_another_body_and_with_the_same_body() {
    let mut world = cluster(3, |_| {});
    world.elect();
    let me = "10.9.9.9:777".parse().unwrap();
    let send = |world: &mut Cluster, rid: u16, request: Request| {
        let [high, low] = rid.to_be_bytes();
        let mut packet = vec![0xcc, 8, 2, 0xc0, high, low, 0, 1];
        packet.extend_from_slice(&request.encode());
        world.send_raw_to_group(me, packet.into());
        let mut answers = Vec::new();
        world.run_until(Duration::from_millis(20), |world| {
            answers.extend(world.mailbox(me));
            !answers.is_empty()
        });
        answers.first().and_then(|answer| decode_reply(&answer[8..]))
    };
    assert_eq!(send(&mut world, 7, Request::Add(1, 1)), Some(1));
    assert_eq!(send(&mut world, 7, Request::Add(1, 2)), Some(3), "another body is another request at once");
    assert_eq!(send(&mut world, 7, Request::Add(1, 1)), None, "the same body is a copy");
    // The limit is documented: 16 384 newer requests of this address and port, or some seconds.
    for rid in 1000..17_400 {
        assert!(send(&mut world, rid, Request::Get(1)).is_some(), "{rid}");
    }
    assert_eq!(send(&mut world, 7, Request::Add(1, 1)), Some(4), "now it is a new request");
    converge(&mut world);
}

/// §7.5 [it votes twice in one term]: a second process under a known identity is not listened to and is told so.
#[test]
fn two_nodes_with_the_same_id() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    let twin = (1..=3).find(|id| *id != leader).unwrap();
    let term = world.node(leader).unwrap().consensus().term();
    // Nobody acknowledges a new entry but the impostor, whose word must not commit it.
    world.lose_when(move |flight| flight.what == "append");
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    world.run_for(Duration::from_millis(1));
    let (last, commit) = (last(&world, leader), world.node(leader).unwrap().consensus().commit());
    assert!(commit < last);
    let from = MemberId::new(NodeId(twin), Incarnation(1));
    let envelope = Envelope { group: GroupId(1), from, life: 0xbad, term };
    let ack = Message::AppendAck(AppendAck { matched: last, applied: commit, commit, ..AppendAck::default() });
    let mut packet = vec![0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1];
    packet.extend_from_slice(&ack.emit(&envelope));
    world.send_raw(peer_address(twin), peer_address(leader), packet.into());
    world.run_for(Duration::from_micros(100));
    assert_eq!(world.node(leader).unwrap().counters().peer_messages_other_life, 1);
    assert_eq!(world.node(leader).unwrap().consensus().commit(), commit);
    world.heal();
    assert_eq!(value(&drain(&mut world, 0, 1)[0]), 1);
    // The refusal names the life it is meant for, so the twin that the group knows goes on.
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.stopped(twin), None);
    converge(&mut world);
}

/// An acknowledgement beyond the leader's log would make it commit what nobody holds; from a stranger it is nothing.
#[test]
fn spoofed_acknowledgements_are_counted_and_harmless() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    let term = world.node(leader).unwrap().consensus().term();
    let commit = world.node(leader).unwrap().consensus().commit();
    let send = |world: &mut Cluster, from, member: u16, life: u64| {
        let envelope = Envelope { group: GroupId(1), from: MemberId::new(NodeId(member), Incarnation(1)), life, term };
        let ack = Message::AppendAck(AppendAck { matched: 1 << 40, applied: 1 << 40, ..AppendAck::default() });
        let mut packet = vec![0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1];
        packet.extend_from_slice(&ack.emit(&envelope));
        world.send_raw(from, peer_address(leader), packet.into());
        world.run_for(Duration::from_micros(100));
    };
    let other = (1..=3).find(|id| *id != leader).unwrap();
    send(&mut world, "10.9.9.9:777".parse().unwrap(), other, 1);
    assert_eq!(world.node(leader).unwrap().counters().peer_messages_stranger, 1);
    send(&mut world, peer_address(other), 77, 1);
    assert_eq!(world.node(leader).unwrap().counters().peer_messages_stranger, 2);
    // A member's own acknowledgement, damaged on its way.
    let captured = std::rc::Rc::new(std::cell::RefCell::new(None));
    let keep = captured.clone();
    let rule = world.lose_when(move |flight| {
        if flight.what == "append_ack" {
            *keep.borrow_mut() = Some((flight.from, flight.packet.to_vec()));
        }
        false
    });
    world.run_for(Duration::from_millis(20));
    world.remove_rule(rule);
    let Some((Party::Node(member), mut packet)) = captured.take() else { panic!("no acknowledgement") };
    let matched = r2p2::wire::HEADER_LEN + hovercraft::message::ENVELOPE_LEN + 2;
    packet[matched..matched + 8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    world.send_raw(peer_address(member), peer_address(leader), packet.into());
    world.run_for(Duration::from_micros(100));
    assert_eq!(world.node(leader).unwrap().counters().acks_inflated, 1);
    assert_eq!(world.node(leader).unwrap().consensus().commit(), commit);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
}

/// §6.12: what comes from a member's address need not come from the member, or whole.
#[test]
fn garbage_from_a_members_address_is_counted_and_harmless() {
    let mut world = cluster(3, |_| {});
    let leader = world.elect();
    let other = (1..=3).find(|id| *id != leader).unwrap();
    let not_r2p2 = [&b""[..], b"x", &[0xcc; 8], &[0; 1400]];
    let not_ours = [&[0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1][..], &[0xcc, 8, 0x71, 0xc0, 0, 1, 0, 1, 1, 99, 0, 1]];
    for packet in not_r2p2.into_iter().chain(not_ours) {
        world.send_raw(peer_address(other), peer_address(leader), Bytes::copy_from_slice(packet));
    }
    world.run_for(Duration::from_millis(1));
    let counters = *world.node(leader).unwrap().counters();
    assert_eq!(counters.peer_packets_malformed, not_r2p2.len() as u64);
    assert_eq!(counters.peer_messages_malformed, not_ours.len() as u64);
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
}

/// §7.1 [overload: bodies expire on followers while still queued at the leader]: what is too old is not ordered.
#[test]
fn a_request_too_old_is_refused_and_retried() {
    let mut world = cluster(3, |config| {
        config.client.give_up = Duration::from_secs(20);
        config.node.timing.order_age_max = Duration::from_millis(30);
    });
    let leader = world.elect();
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 1);
    // No acknowledgement arrives: the leader's window fills and it can order nothing more.
    let rule = world.lose_when(move |flight| flight.what == "append_ack");
    for _ in 0..200 {
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    }
    world.run_for(Duration::from_millis(80));
    world.remove_rule(rule);
    let mut replies: Vec<u64> = drain(&mut world, 0, 200).iter().map(value).collect();
    replies.sort_unstable();
    assert_eq!(replies, (2..=201).collect::<Vec<u64>>());
    let _ = leader;
    converge(&mut world);
}

fn last(world: &Cluster, id: u16) -> u64 {
    world.node(id).unwrap().consensus().log().last()
}
