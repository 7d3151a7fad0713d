//! Credits neither leak nor multiply.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Instant;
use crate::feedback::Outbox;
use crate::wire::{Feedback, Packet, write_feedback};

const DEADLINE: Duration = Duration::from_millis(100);
const WORKER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 5);

fn rpc(number: u16) -> RpcId {
    RpcId { client: SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 1), 7), rid: number }
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn feed(credits: &mut Credits<()>, packet: &[u8], may: bool) -> usize {
    let packet = Packet::new_checked(packet).unwrap();
    let mut returned = 0;
    credits.feedback(WORKER, &packet, |()| may, &mut |_, _| returned += 1);
    returned
}

#[test]
fn all_that_can_be_out_and_one_more() {
    let mut credits = Credits::new(DEADLINE, 3, 1);
    assert!((0..3).all(|number| credits.charge(at(0), rpc(number), ())));
    assert!(!credits.charge(at(0), rpc(3), ()));
    assert!(credits.charge(at(0), rpc(0), ()), "in place of its own");
    assert_eq!(credits.out(), 3);
    assert!(credits.give_back(&rpc(1)).is_some() && credits.give_back(&rpc(1)).is_none());
    assert!(credits.charge(at(0), rpc(3), ()));
}

#[test]
fn a_deadline_at_the_limit_and_just_before() {
    let mut credits = Credits::new(DEADLINE, 3, 1);
    credits.charge(at(0), rpc(0), ());
    credits.charge(at(1), rpc(1), ());
    assert_eq!(credits.next_expiry(), Some(at(100)));
    assert_eq!(credits.pop_expired(at(99)), None);
    assert_eq!(credits.pop_expired(at(100)).map(|(rpc, _)| rpc), Some(rpc(0)));
    assert_eq!(credits.pop_expired(at(100)), None);
    assert_eq!((credits.counters().expired, credits.out()), (1, 1));
}

#[test]
fn both_formats_once_each() {
    let mut credits = Credits::new(DEADLINE, 9, 1);
    let feedback = |number| Feedback { rid: number, client: rpc(0).client };
    (0..3).for_each(|number| assert!(credits.charge(at(0), rpc(number), ())));
    let plain = write_feedback(&feedback(0));
    assert_eq!(feed(&mut credits, &plain, false), 0);
    assert_eq!([1, 0].map(|_| feed(&mut credits, &plain, true)), [1, 0]);
    let mut outbox = Outbox::new(1);
    [1, 2, 8].into_iter().for_each(|number| outbox.answered(feedback(number)));
    let mut packets = Vec::new();
    outbox.flush(&mut |packet| packets.push(packet));
    assert_eq!([0, 1].map(|_| feed(&mut credits, &packets[0], true)), [2, 0]);
    let counters = *credits.counters();
    assert_eq!((counters.returned, counters.feedback_unknown, counters.feedback_foreign), (3, 2, 1));
    // A client uses its number again: a late copy of what was said before means nothing.
    credits.charge(at(1), rpc(1), ());
    assert_eq!(feed(&mut credits, &packets[0], true), 0);
    assert_eq!(credits.out(), 1);
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Charge(u16),
    Answer(u16),
    /// The packet after so many others, from somebody who may or may not.
    Deliver {
        index: usize,
        may: bool,
    },
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40u16).prop_map(Step::Charge),
        4 => (0..40u16).prop_map(Step::Answer),
        4 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(index, may)| Step::Deliver { index, may }),
        1 => (0..60u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever is lost, repeated, late or foreign: what is out is exactly what was charged and neither answered (by
    /// somebody who may, heard of once) nor expired; and after a deadline without anything nothing is.
    #[test]
    fn neither_leak_nor_multiply(steps in prop::collection::vec(any_step(), 0..300)) {
        let mut credits: Credits<()> = Credits::new(DEADLINE, 20, 5);
        let mut outbox = Outbox::new(9);
        let mut sent: Vec<Bytes> = Vec::new();
        let mut model: BTreeMap<RpcId, Instant> = BTreeMap::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Charge(number) => {
                    let charged = credits.charge(now, rpc(number), ());
                    prop_assert_eq!(charged, model.len() < 20 || model.contains_key(&rpc(number)));
                    if charged {
                        model.insert(rpc(number), now);
                    }
                }
                Step::Answer(number) => {
                    outbox.answered(Feedback { rid: number, client: rpc(number).client });
                    outbox.flush(&mut |packet| sent.push(packet));
                }
                Step::Deliver { index, may } if !sent.is_empty() => {
                    let packet = Packet::new_checked(&sent[index % sent.len()][..]).unwrap();
                                    let mut returned = Vec::new();
                    credits.feedback(WORKER, &packet, |()| may, &mut |rpc, _| returned.push(rpc));
                    prop_assert!(may || returned.is_empty());
                    for rpc in returned {
                        prop_assert!(model.remove(&rpc).is_some(), "came back twice");
                    }
                }
                Step::Deliver { .. } => {}
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    while let Some((rpc, _)) = credits.pop_expired(now) {
                        let since = model.remove(&rpc).expect("came back twice");
                        prop_assert!(since + DEADLINE <= now);
                    }
                }
            }
            prop_assert_eq!(credits.out(), model.len());
            prop_assert!(credits.out() <= 20);
        }
        while credits.pop_expired(now + DEADLINE).is_some() {}
        prop_assert_eq!(credits.out(), 0);
        let counters = credits.counters();
        prop_assert_eq!(counters.charged, counters.returned + counters.expired);
    }

    /// The map is what a map with times would be.
    #[test]
    fn ageing_is_a_map(steps in prop::collection::vec((0..12u8, 0..4u8, 0..20u64), 0..300)) {
        let mut ageing = Ageing::new(Duration::from_millis(50), 8, 3);
        let mut model: Vec<(u8, u64, Instant)> = Vec::new();
        let mut now = at(0);
        for (value, (key, what, ms)) in (0u64..).zip(steps) {
            now += Duration::from_millis(ms);
            match what {
                0 => {
                    let known = model.iter().position(|entry| entry.0 == key).map(|at| model.remove(at));
                    let expected = if model.len() < 8 { Ok(known.map(|entry| entry.1)) } else { Err(value) };
                    prop_assert_eq!(ageing.insert(now, key, value), expected);
                    if expected.is_ok() {
                        model.push((key, value, now + Duration::from_millis(50)));
                    }
                }
                1 => {
                    let known = model.iter().position(|entry| entry.0 == key).map(|at| model.remove(at).1);
                    prop_assert_eq!(ageing.remove(&key), known);
                }
                2 => {
                    let ended = model.first().is_some_and(|entry| entry.2 <= now).then(|| model.remove(0));
                    prop_assert_eq!(ageing.pop_ended(now), ended.map(|entry| (entry.0, entry.1)));
                }
                _ => {
                    let oldest = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(ageing.pop_oldest(), oldest.map(|entry| (entry.0, entry.1)));
                }
            }
            prop_assert_eq!(ageing.len(), model.len());
            prop_assert_eq!(ageing.next_end(), model.first().map(|entry| entry.2));
            prop_assert_eq!(ageing.get(&key).copied(), model.iter().find(|entry| entry.0 == key).map(|entry| entry.1));
        }
    }
}
