//! Who gets which request, and who waits.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::feedback::Outbox;
use crate::message::{MessageHead, write_packets};
use crate::wire::{Extensions, Feedback, Forwarded, write_feedback};

fn worker(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 7400)
}

fn client(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, number), 1000)
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn request(rid: u16, len: usize) -> Vec<Bytes> {
    let extensions = Extensions { no_handshake: len > 1400, ..Extensions::default() };
    let head = MessageHead { kind: MessageType::Request, policy: Policy::LoadBalanced, rid, extensions };
    let mut packets = Vec::new();
    write_packets(&head, &vec![7; len], 1472, &mut |packet| packets.push(packet)).unwrap();
    packets
}

/// A router with `workers` workers, numbered from 0.
fn router(config: RouterConfig, workers: u8) -> Router {
    let mut router = Router::new(config, 1);
    for number in 0..workers {
        let registration = Outbox::new(number.into()).registration(false);
        router.handle_packet(at(0), worker(number), &registration);
    }
    assert_eq!(router.workers().count(), workers.into());
    router
}

/// Where a request goes at once, and to whom a DROP.
fn send(router: &mut Router, now: Instant, from: u8, rid: u16) -> Vec<SocketAddrV4> {
    router.handle_packet(now, client(from), &request(rid, 5)[0]);
    drain(router)
}

fn drain(router: &mut Router) -> Vec<SocketAddrV4> {
    std::iter::from_fn(|| router.poll_transmit()).map(|(to, _)| to).collect()
}

fn answer(router: &mut Router, now: Instant, by: SocketAddrV4, from: u8, rid: u16) -> Vec<SocketAddrV4> {
    router.handle_packet(now, by, &write_feedback(&Feedback { rid, client: client(from) }));
    drain(router)
}

#[test]
fn the_shortest_queue_and_then_those_who_wait() {
    let mut router = router(RouterConfig { bound: 2, ..RouterConfig::default() }, 2);
    let order: Vec<_> = (0..4).flat_map(|rid| send(&mut router, at(0), 1, rid)).collect();
    assert_eq!(order, [worker(0), worker(1), worker(0), worker(1)]);
    assert!(send(&mut router, at(0), 1, 4).is_empty() && send(&mut router, at(0), 1, 5).is_empty());
    assert_eq!((router.in_flight(), router.waiting()), (4, 2));
    // Whoever is free first gets who has waited longest.
    assert_eq!(answer(&mut router, at(1), worker(1), 1, 3), [worker(1)]);
    assert_eq!(answer(&mut router, at(1), worker(1), 1, 4), [worker(1)]);
    assert_eq!(router.workers().map(|(_, unanswered)| unanswered).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn it_is_passed_on_in_the_clients_name() {
    let mut router = router(RouterConfig::default(), 1);
    router.handle_packet(at(0), client(3), &request(9, 5)[0]);
    let (to, packet) = router.poll_transmit().unwrap();
    let header = Header::parse(&Packet::new_checked(&packet[..]).unwrap()).unwrap();
    assert_eq!((to, header.rid), (worker(0), 9));
    assert_eq!(header.extensions.forwarded, Some(Forwarded { client: client(3), hop: 1 }));
}

#[test]
fn the_other_choices_never_wait() {
    let mut shortest = router(RouterConfig { choice: Choice::ShortestQueue, ..RouterConfig::default() }, 3);
    let mut turn = router(RouterConfig { choice: Choice::RoundRobin, ..RouterConfig::default() }, 3);
    let mut random = router(RouterConfig { choice: Choice::Random, ..RouterConfig::default() }, 3);
    let mut shares: BTreeMap<SocketAddrV4, u32> = BTreeMap::new();
    for rid in 0..300 {
        let to = send(&mut shortest, at(0), 1, rid);
        assert_eq!(to, [worker((rid % 3) as u8)]);
        // The first worker is always done at once.
        answer(&mut shortest, at(0), worker(9), 1, rid);
        assert_eq!(send(&mut turn, at(0), 1, rid), [worker((rid % 3) as u8)]);
        *shares.entry(send(&mut random, at(0), 1, rid)[0]).or_default() += 1;
    }
    assert!(shares.values().all(|share| (60..140).contains(share)), "{shares:?}");
    answer(&mut shortest, at(0), worker(2), 1, 2);
    assert_eq!(send(&mut shortest, at(0), 2, 1), [worker(2)]);
}

#[test]
fn all_packets_of_a_request_go_to_the_same_worker() {
    let mut router = router(RouterConfig { bound: 1, ..RouterConfig::default() }, 2);
    let packets = request(1, 4000);
    router.handle_packet(at(0), client(1), &packets[2]);
    assert_eq!(send(&mut router, at(0), 2, 7), [worker(0), worker(1)]);
    router.handle_packet(at(0), client(1), &packets[0]);
    router.handle_packet(at(0), client(1), &packets[1]);
    assert_eq!(drain(&mut router), [worker(0); 2]);
    // One that waits, with a copy.
    let waits = request(2, 4000);
    for packet in [&waits[0], &waits[1], &waits[0]] {
        router.handle_packet(at(0), client(1), packet);
    }
    assert!(drain(&mut router).is_empty());
    assert_eq!(answer(&mut router, at(1), worker(1), 2, 7), [worker(1); 2]);
    router.handle_packet(at(1), client(1), &waits[2]);
    assert_eq!(drain(&mut router), [worker(1)]);
    assert_eq!(router.counters().packets_of_known, 4);
}

#[test]
fn too_many_wait_or_for_too_long() {
    let mut router = router(RouterConfig { bound: 1, waiting_max: 2, ..RouterConfig::default() }, 1);
    (0..3).for_each(|rid| drop(send(&mut router, at(0), 1, rid)));
    assert_eq!((router.waiting(), send(&mut router, at(0), 1, 3)), (2, vec![client(1)]));
    assert_eq!(router.counters().requests_refused_full, 1);
    router.handle_timeout(at(99));
    assert!(drain(&mut router).is_empty());
    assert_eq!(router.next_timeout(), Some(at(100)));
    router.handle_timeout(at(100));
    assert_eq!((drain(&mut router), router.waiting()), (vec![client(1); 2], 0));
}

#[test]
fn bytes_that_wait_at_the_limit_and_one_past_it() {
    let len = request(1, 5)[0].len() + crate::FORWARDED_LEN;
    let config = RouterConfig { bound: 1, waiting_bytes_max: 2 * len, ..RouterConfig::default() };
    let mut router = router(config, 1);
    (0..3).for_each(|rid| drop(send(&mut router, at(0), 1, rid)));
    assert_eq!((router.waiting(), send(&mut router, at(0), 1, 3)), (2, vec![client(1)]));
    answer(&mut router, at(0), worker(0), 1, 0);
    assert!(send(&mut router, at(0), 1, 3).is_empty(), "there is room again");
}

#[test]
fn workers_come_and_go() {
    let config = RouterConfig { workers_max: 2, permitted: Some((0..4).map(worker).collect()), ..Default::default() };
    let mut router = router(config, 2);
    for (number, epoch) in [(2, 7), (9, 7), (0, 0)] {
        router.handle_packet(at(0), worker(number), &Outbox::new(epoch).registration(false));
    }
    assert_eq!((router.counters().workers_refused_full, router.counters().workers_not_permitted), (1, 1));
    assert_eq!(router.counters().workers_registered, 2);
    // One leaves.
    router.handle_packet(at(0), worker(0), &Outbox::new(0).registration(true));
    assert_eq!(send(&mut router, at(0), 1, 1), [worker(1)]);
    // The other begins anew, and owes nothing; what it had is sent once more when its client asks again.
    router.handle_packet(at(500), worker(1), &Outbox::new(99).registration(false));
    assert_eq!(router.workers().collect::<Vec<_>>(), [(worker(1), 0)]);
    assert_eq!(send(&mut router, at(500), 1, 1), [worker(1)]);
    assert_eq!(router.workers().collect::<Vec<_>>(), [(worker(1), 1)]);
    // And then is silent.
    router.handle_timeout(at(1499));
    assert_eq!(router.workers().count(), 1);
    router.handle_timeout(at(1500));
    assert_eq!((router.workers().count(), router.counters().workers_evicted), (0, 1));
    assert!(send(&mut router, at(1500), 1, 2).is_empty());
    assert_eq!(answer(&mut router, at(1500), worker(1), 1, 1), [], "nobody's feedback");
    assert_eq!(router.counters().feedback_stranger, 3);
    // Somebody comes for who waits.
    router.handle_packet(at(1550), worker(3), &Outbox::new(1).registration(false));
    assert_eq!(drain(&mut router), [worker(3)]);
}

#[test]
fn only_who_has_it_gives_it_back() {
    let mut router = router(RouterConfig { bound: 1, ..RouterConfig::default() }, 2);
    assert_eq!(send(&mut router, at(0), 1, 1), [worker(0)]);
    answer(&mut router, at(0), worker(1), 1, 1);
    answer(&mut router, at(0), client(1), 1, 1);
    assert_eq!(router.in_flight(), 1);
    assert_eq!((router.credits_counters().feedback_foreign, router.counters().feedback_stranger), (1, 1));
    answer(&mut router, at(0), worker(0), 1, 1);
    assert_eq!(router.in_flight(), 0);
}

#[test]
fn as_many_in_flight_as_the_limit_and_one_more() {
    let config = RouterConfig { in_flight_max: 2, choice: Choice::ShortestQueue, ..RouterConfig::default() };
    let mut router = router(config, 2);
    assert_eq!((send(&mut router, at(0), 1, 1).len(), send(&mut router, at(0), 1, 2).len()), (1, 1));
    assert!(send(&mut router, at(0), 1, 3).is_empty());
    assert_eq!((router.counters().credits_exhausted, router.waiting()), (1, 1));
    assert_eq!(answer(&mut router, at(0), worker(0), 1, 1).len(), 1);
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Request {
        client: u8,
        rid: u16,
        long: bool,
    },
    /// A worker answers what it has had for longest, or not; and its FEEDBACK comes once, twice or never.
    Answer {
        worker: u8,
        times: u8,
    },
    Restart {
        worker: u8,
    },
    Leave {
        worker: u8,
    },
    Register {
        worker: u8,
    },
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, 0..40u16, prop::bool::weighted(0.2))
            .prop_map(|(client, rid, long)| Step::Request { client, rid, long }),
        8 => (0..3u8, 0..3u8).prop_map(|(worker, times)| Step::Answer { worker, times }),
        1 => (0..3u8).prop_map(|worker| Step::Restart { worker }),
        1 => (0..3u8).prop_map(|worker| Step::Leave { worker }),
        2 => (0..3u8).prop_map(|worker| Step::Register { worker }),
        2 => (0..300u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens, no worker is ever given more than the bound that it has not answered by what the router knows,
    /// and in the end nothing is in flight and nobody waits.
    #[test]
    fn the_bound_holds_and_nothing_leaks(steps in prop::collection::vec(any_step(), 0..300)) {
        let config = RouterConfig { bound: 2, waiting_max: 10, in_flight_max: 5, ..RouterConfig::default() };
        let mut router = Router::new(config, 7);
        let mut outboxes: Vec<Outbox> = (0..3).map(Outbox::new).collect();
        let mut queues: Vec<Vec<(SocketAddrV4, u16)>> = vec![Vec::new(); 3];
        let mut now = at(0);
        let mut epoch = 10;
        for step in steps {
            match step {
                Step::Request { client: number, rid, long } => {
                    for packet in request(rid, if long { 2000 } else { 5 }) {
                        router.handle_packet(now, client(number), &packet);
                    }
                }
                Step::Answer { worker: number, times } => {
                    let index = usize::from(number);
                    if !queues[index].is_empty() {
                        let (client, rid) = queues[index].remove(0);
                        outboxes[index].answered(Feedback { rid, client });
                    }
                    let mut packets = Vec::new();
                    outboxes[index].flush(&mut |packet| packets.push(packet));
                    for packet in &packets {
                        (0..times).for_each(|_| router.handle_packet(now, worker(number), packet));
                    }
                }
                Step::Restart { worker } => {
                    epoch += 1;
                    outboxes[usize::from(worker)] = Outbox::new(epoch);
                    queues[usize::from(worker)].clear();
                }
                Step::Leave { worker: number } => {
                    router.handle_packet(now, worker(number), &outboxes[usize::from(number)].registration(true));
                }
                Step::Register { worker: number } => {
                    router.handle_packet(now, worker(number), &outboxes[usize::from(number)].registration(false));
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    router.handle_timeout(now);
                }
            }
            while let Some((to, packet)) = router.poll_transmit() {
                let header = Header::parse(&Packet::new_checked(&packet[..]).unwrap()).unwrap();
                if let (true, Some(forwarded)) = (header.first, header.extensions.forwarded) {
                    let index = (0..3).find(|number| worker(*number) == to).expect("a worker");
                    queues[usize::from(index)].push((forwarded.client, header.rid));
                }
            }
            let unanswered: usize = router.workers().map(|(_, unanswered)| unanswered).sum();
            prop_assert!(router.workers().all(|(_, unanswered)| unanswered <= 2));
            prop_assert!(unanswered <= router.in_flight() && router.in_flight() <= 5);
            prop_assert!(router.waiting() <= 10);
        }
        // Nobody says anything any more: the deadline, the eviction and the age do.
        for ms in [1000, 1100, 2200] {
            router.handle_timeout(now + Duration::from_millis(ms));
        }
        prop_assert_eq!((router.in_flight(), router.waiting(), router.workers().count()), (0, 0, 0));
        prop_assert_eq!(router.next_timeout(), None);
    }
}
