//! Schedules found by reviewers and by sweeps: each once lost, doubled or stalled something, and is kept.

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use common::{call, cluster_of, converge, converged, drain, jitter};
use hovercraft::config::Mode;
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::message::{Append, AppendEntries, AppendEntry, Envelope, Message};
use hovercraft::{
    Class, Context, GroupId, Incarnation, MemberId, Membership, Node, NodeConfig, NodeId, Output, Reply, Service,
};
use r2p2::client::{Kind, Outcome, Ticket};
use r2p2::message::write_packets;
use r2p2::wire::{Extensions, Header, MessageType, Policy, Session};
use r2p2::{Instant, MessageHead};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::registers::Request;
use simulator::world::{addresses, peer_address, request_address};
use simulator::{Party, Registers, World, WorldConfig};

/// More bodies missing than may be asked for at a time, and the first answers are lost.
#[test]
fn fetch_goes_on_after_lost_answers_while_more_wait() {
    let mut world = cluster_of(1, 3, |_| {});
    let leader = world.elect();
    let deaf = (1..=3).find(|id| *id != leader).unwrap();
    world.lose_when(move |flight| {
        flight.to == Party::Node(deaf)
            && (flight.what == "request" || flight.what == "bodies" || flight.what == "fragment")
    });
    for round in 0..20 {
        for _ in 0..30 {
            world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        }
        world.run_for(Duration::from_micros(if round == 0 { 2000 } else { 200 }));
    }
    drain(&mut world, 0, 600);
    world.heal();
    converge(&mut world);
}

/// Bodies that nobody has any more must not occupy the fetcher's F places for ever.
#[test]
fn bodies_that_died_with_their_leader_do_not_block_later_ones() {
    let mut world = cluster_of(1, 3, |config| {
        config.clients = 2;
        config.node.limits.fetch.in_flight_max = 16;
    });
    world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    for _ in 0..2 {
        let leader = world.elect();
        // Only the leader hears the clients, and is cut off before a body could be fetched from it.
        world.lose_when(move |flight| {
            (flight.what == "request" && flight.to != Party::Node(leader))
                || (flight.what == "bodies" && flight.from == Party::Node(leader))
        });
        let tickets: Vec<Ticket> =
            (0..200).map(|_| world.submit(0, Kind::Write, Request::Add(2, 1).encode())).collect();
        world.run_for(Duration::from_millis(2));
        world.isolate(leader, &[]);
        for ticket in tickets {
            world.cancel(0, ticket);
        }
        // By then the leader has forgotten them too.
        world.run_for(Duration::from_secs(5));
        world.heal();
        world.elect();
        world.run_for(Duration::from_millis(200));
    }
    world.completions(0);
    // From now on bodies reach the followers by Fetch only.
    let leader = world.elect();
    world.lose_when(move |flight| flight.what == "request" && flight.to != Party::Node(leader));
    world.submit(1, Kind::Write, Request::Add(1, 1).encode());
    let done = world.run_until(Duration::from_secs(2), |world| !world.completions(1).is_empty());
    assert!(done, "a lost body is never fetched again; {world:?}");
}

/// A follower whose unordered set is full of what anybody sent still takes the bodies that the log needs.
#[test]
fn followers_flooded_with_requests_still_take_the_bodies_of_entries() {
    let mut world = cluster_of(1, 3, |config| config.node.limits.unordered.count_max = 64);
    let leader = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    let mut rid = 0;
    let mut junk = 0;
    let mut done = 0;
    for _ in 0..2000 {
        // Anybody may send these: requests to the followers alone, which the leader never hears of.
        for id in (1..=3).filter(|id| *id != leader) {
            rid += 1;
            junk += 1;
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 1000 + (rid >> 12) as u16);
            let packet = plain_request(rid as u16, &Request::Add(1_000 + junk, 1).encode());
            for _ in 0..1 {
                world.send_raw(from, request_address(id), packet.clone());
            }
        }
        if world.client(0).outstanding() == 0 {
            world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        }
        world.run_for(Duration::from_micros(500));
        done +=
            world.completions(0).iter().filter(|(_, completion)| matches!(completion.outcome, Outcome::Ok(_))).count();
    }
    let full: u64 = world.running().iter().map(|id| world.node(*id).unwrap().counters().requests_refused_full).sum();
    assert!(done > 100, "{done} operations in one second, refused for lack of room {full}; {world:?}");
}

/// What has lain in the unordered set for too long to be ordered must not stand in the way of its own retransmission.
#[test]
fn a_request_that_waited_for_a_leader_is_ordered_when_its_client_repeats_it() {
    let mut world = cluster_of(1, 3, |_| {});
    world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    for a in 1..=3 {
        for b in 1..=3 {
            if a != b {
                world.block(Party::Node(a), Party::Node(b));
            }
        }
    }
    world.run_for(Duration::from_millis(200));
    world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    world.run_for(Duration::from_millis(1100));
    world.heal();
    world.elect();
    let healed = world.now();
    drain(&mut world, 0, 1);
    let took = world.now().since(healed);
    assert!(
        took < Duration::from_millis(300),
        "a leader is there, the client repeats every 100 ms, and it took {took:?}"
    );
}

/// A plain request that was executed, but whose reply is too long, must not end as "certainly not executed".
#[test]
fn a_plain_request_that_was_executed_never_ends_as_not_executed() {
    let mut config = WorldConfig::new(1, 3);
    config.client.sessions = false;
    let mut world: World<Verbose> = World::new(config, Verbose::default);
    world.elect();
    world.submit(0, Kind::Write, &b"x"[..]);
    world.run_for(Duration::from_secs(1));
    let executed = world.applier(1).unwrap().service().0;
    let completions = world.completions(0);
    for (_, completion) in completions {
        assert!(
            executed == 0 || !matches!(completion.outcome, Outcome::NotExecuted(_)),
            "executed {executed} times, the client was told {:?}",
            completion.outcome
        );
    }
}

/// Counts its writes and answers them at too great a length.
#[derive(Default)]
struct Verbose(u64);

impl Service for Verbose {
    fn classify(_: &[u8]) -> Class {
        Class::Write
    }
    fn apply(&mut self, _: &Context, _: &Bytes, reply: &mut Reply) {
        self.0 += 1;
        reply.write(&[0; 70_000]);
    }
    fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The leader has no room for a plain request, but a follower has it, hints, and it is executed: a DROP would have told its
/// client that it certainly is not.
#[test]
fn a_plain_request_that_a_full_leader_drops_is_not_executed_later() {
    let mut refuted = true;
    for seed in 0..10 {
        let mut world = cluster_of(seed, 3, |config| {
            config.client.sessions = false;
            config.node.limits.unordered.count_max = 4;
            config.node.limits.window_entries_max = 1;
            config.network.latency = jitter(200);
        });
        world.elect();
        for key in 0..40 {
            world.submit(0, Kind::Write, Request::Add(key, 1).encode());
        }
        let mut dropped = Vec::new();
        world.run_until(Duration::from_secs(3), |world| {
            for (_, completion) in world.completions(0) {
                if matches!(completion.outcome, Outcome::NotExecuted(_)) {
                    dropped.push(completion.ticket);
                }
            }
            false
        });
        // Tickets count up with the keys.
        let id = world.leader().unwrap();
        let executed: u64 = (0..40).map(|key| world.applier(id).unwrap().service().value(key)).sum();
        if executed + dropped.len() as u64 > 40 {
            eprintln!("seed {seed}: {executed} executed, {} \"certainly not\", of 40", dropped.len());
            refuted = false;
        }
    }
    assert!(refuted, "requests were executed whose clients were told that they certainly were not");
}

/// A session whose opening reply was lost can be opened again although the log has been compacted past it.
#[test]
fn a_session_opens_although_its_first_answer_was_lost_and_the_log_moved_on() {
    let mut world = cluster_of(1, 3, |config| {
        config.clients = 2;
        config.node.limits.retention.entries_max = 8;
    });
    world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    world.lose_when(|flight| flight.what == "response" && flight.to == Party::Client(1));
    world.submit(1, Kind::Write, Request::Add(2, 1).encode());
    world.run_for(Duration::from_micros(500));
    for _ in 0..30 {
        call(&mut world, 0, Request::Add(1, 1));
    }
    world.heal();
    let healed = world.now();
    drain(&mut world, 1, 1);
    let took = world.now().since(healed);
    assert!(took < Duration::from_millis(500), "it took {took:?}");
}

/// Log time must not go back (an assertion of the applier) when all that is kept of the log are entries without a time.
#[test]
fn log_time_survives_compaction_and_changes_of_leader() {
    let mut world = cluster_of(1, 5, |config| config.node.limits.retention.entries_max = 1);
    world.elect();
    world.run_for(Duration::from_secs(5));
    call(&mut world, 0, Request::Add(1, 1));
    world.run_for(Duration::from_millis(100));
    for _ in 0..2 {
        let leader = world.elect();
        world.kill(leader);
        world.elect();
    }
    assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
}

/// A late copy of a plain request must not be executed again by a new leader that finds it in its unordered set.
#[test]
fn a_late_copy_of_a_plain_request_is_not_executed_again_by_a_new_leader() {
    let mut world = cluster_of(1, 3, |config| {
        config.clients = 1;
        config.node.limits.retention.entries_max = 8;
    });
    let leader = world.elect();
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 1000);
    let packet = plain_request(7, &Request::Add(5, 1).encode());
    for id in 1..=3 {
        world.send_raw(from, request_address(id), packet.clone());
    }
    world.run_for(Duration::from_millis(5));
    assert_eq!(world.applier(leader).unwrap().service().value(5), 1);
    for _ in 0..30 {
        call(&mut world, 0, Request::Add(1, 1));
    }
    // The network's copy arrives late, everywhere.
    for id in 1..=3 {
        world.send_raw(from, request_address(id), packet.clone());
    }
    world.run_for(Duration::from_millis(1));
    world.kill(leader);
    world.elect();
    world.run_for(Duration::from_secs(1));
    let id = world.running()[0];
    assert_eq!(world.applier(id).unwrap().service().value(5), 1, "executed again");
}

fn plain_request(rid: u16, body: &[u8]) -> Bytes {
    let head =
        MessageHead { kind: MessageType::Request, policy: Policy::Replicated, rid, extensions: Extensions::default() };
    let mut packets = Vec::new();
    write_packets(&head, body, 1472, &mut |packet| packets.push(packet)).unwrap();
    packets.remove(0)
}

/// A follower whose service is slower than the group's must not collect entries and work without bound (§6.11, §7.4).
#[test]
fn a_follower_that_does_not_get_on_with_applying_stops_taking_entries() {
    let voter = |id: u16| MemberId::new(NodeId(id), Incarnation(1));
    let mut config = NodeConfig::new(voter(1), Membership::of_voters((1..=3).map(|id| (voter(id), addresses(id)))));
    config.limits.retention.entries_max = 100;
    config.limits.window_entries_max = 64;
    let mut node = Node::new(Instant::ZERO, config, Registers::classify);
    let envelope = Envelope { group: GroupId(1), from: voter(2), life: 1, term: 1 };
    let (mut work, mut rid, mut prev) = (0, 0, 0);
    for round in 0..2000 {
        let now = Instant::from_nanos(round * 100_000);
        let entries: Vec<AppendEntry> = (0..16)
            .map(|_| {
                let entry = if prev == 0 {
                    Entry::term_start()
                } else {
                    Entry { kind: EntryKind::Request, ..Entry::term_start() }
                };
                let mut raw = Vec::new();
                entry.emit(&mut raw);
                AppendEntry { entry, raw: raw.into(), body: None }
            })
            .collect();
        let count = entries.len() as u64;
        let append = Append {
            prev,
            prev_term: u64::from(prev > 0),
            commit: prev,
            persisted: prev + count,
            arm: 0,
            entries_term: 1,
            entries: AppendEntries(entries),
        };
        prev += count;
        rid += 1;
        let head = MessageHead {
            kind: MessageType::RaftMessage,
            policy: Policy::Fixed,
            rid,
            extensions: Extensions::default(),
        };
        write_packets(&head, &Message::Append(append).emit(&envelope), 1472, &mut |packet| {
            node.handle_peer_packet(now, peer_address(2), &packet);
        })
        .unwrap();
        loop {
            match node.poll_output(now) {
                Output::Timeout(..) => break,
                Output::Apply(_) => work += 1,
                _ => {}
            }
        }
    }
    let len = node.consensus().log().len();
    assert!(len < 10_000 && work < 10_000, "nothing was applied, {len} entries are held and {work} handed out");
}

/// Whatever clients send, no node panics and the group goes on.
#[test]
fn any_request_bytes_are_safe() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = cluster_of(seed, 3, |config| {
            config.node.mode = if seed % 4 == 0 { Mode::Raft } else { Mode::Hovercraft };
            config.network.latency = jitter(100);
        });
        world.elect();
        for round in 0..600 {
            let numbers = [0, 1, 2, 7, 40, 1023, 1024, 1025, (1 << 62) - 1, 1 << 62, u64::MAX];
            let mut number = || numbers[rng.random_range(0..numbers.len())];
            let session = Session { client: number(), seq: number(), first_unacked: number() };
            let digest = r2p2::Digest(u128::from(number()));
            let kinds = [MessageType::Request, MessageType::Request, MessageType::Feedback, MessageType::Response];
            let header = Header {
                kind: kinds[rng.random_range(0..4)],
                policy: Policy::Replicated,
                first: rng.random_bool(0.7),
                last: rng.random_bool(0.7),
                rid: rng.random_range(0..8),
                order: [0, 1, 2, 3, u16::MAX][rng.random_range(0..5)],
                extensions: Extensions {
                    session: rng.random_bool(0.6).then_some(session),
                    entry_index: rng.random_bool(0.1).then_some(3),
                    digest: rng.random_bool(0.1).then_some(digest),
                    no_handshake: rng.random_bool(0.3),
                    admin: rng.random_bool(0.1),
                    ..Extensions::default()
                },
            };
            let body_len = [0, 1, 16, 24, 900][rng.random_range(0..5)];
            let mut body = Request::Add(3, 1).encode().to_vec();
            body.resize(body_len, rng.random());
            let mut packet = vec![0; header.header_len()];
            header.emit(&mut packet);
            packet.extend_from_slice(&body);
            if rng.random_bool(0.2) {
                let at = rng.random_range(0..packet.len());
                packet[at] = rng.random();
            }
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, rng.random_range(0..3)), rng.random_range(0..3));
            let packet = Bytes::from(packet);
            for id in 1..=3 {
                if rng.random_bool(0.7) {
                    world.send_raw(from, request_address(id), packet.clone());
                }
                if rng.random_bool(0.1) {
                    world.send_raw(from, peer_address(id), packet.clone());
                }
            }
            world.run_for(Duration::from_micros(rng.random_range(1..300)));
            if round == 300 {
                let leader = world.leader().unwrap();
                world.kill(leader);
            }
        }
        world.run_for(Duration::from_secs(4));
        assert!(converged(&mut world), "seed {seed}: {world:?}");
        assert_eq!(call(&mut world, 0, Request::Add(900, 1)), 1, "seed {seed}");
    }
}

/// A follower that missed 20 000 entries with their bodies catches up from the log.
#[test]
fn a_long_gap_within_retention_is_caught_up() {
    let mut world = cluster_of(1, 3, |config| config.network.loss = 0.01);
    let leader = world.elect();
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    world.isolate(lagging, &[]);
    let mut done = 0;
    while done < 20_000 {
        for _ in 0..100 {
            world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        }
        done += drain(&mut world, 0, 100).len();
    }
    world.heal();
    let healed = world.now();
    converge(&mut world);
    let took = world.now().since(healed);
    assert!(took < Duration::from_secs(2), "{took:?}");
}
