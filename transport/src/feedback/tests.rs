//! What is answered is heard of once, whatever happens to the packets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wire::{Answered, Feedback, Packet};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 5);

fn item(number: u64) -> Feedback {
    let [.., a, b, high, low] = number.to_be_bytes();
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, a, b), 1000);
    Feedback { rid: u16::from_be_bytes([high, low]), client }
}

fn flush(outbox: &mut Outbox) -> Vec<Bytes> {
    let mut packets = Vec::new();
    outbox.flush(&mut |packet| packets.push(packet));
    packets
}

fn accept(inbox: &mut Inbox, from: SocketAddrV4, packet: &Bytes) -> Vec<Feedback> {
    let packet = Packet::new_checked(&packet[..]).unwrap();
    let answered = Answered::of(&packet).unwrap().unwrap();
    let mut taken = Vec::new();
    inbox.accept(from, answered, packet.payload(), &mut |item| taken.push(item));
    taken
}

#[test]
fn one_packet_says_all_and_repeats_the_last() {
    let (mut outbox, mut inbox) = (Outbox::new(7), Inbox::new());
    assert!(flush(&mut outbox).is_empty());
    for number in 0..40 {
        outbox.answered(item(number));
    }
    let packets = flush(&mut outbox);
    assert_eq!(packets.len(), 1);
    assert!(accept(&mut inbox, SERVER, &packets[0]).into_iter().eq((0..40).map(item)));
    assert!(flush(&mut outbox).is_empty(), "nothing new");
    outbox.answered(item(40));
    let packets = flush(&mut outbox);
    assert_eq!(accept(&mut inbox, SERVER, &packets[0]), [item(40)]);
    assert_eq!(*inbox.counters(), InboxCounters { fresh: 41, repeated: 16, ..InboxCounters::default() });
}

#[test]
fn more_than_a_packet_holds_and_more_than_may_wait() {
    let (mut outbox, mut inbox) = (Outbox::new(7), Inbox::new());
    let total = FRESH_MAX as u64 + 1;
    for number in 0..total {
        outbox.answered(item(number));
    }
    assert_eq!(outbox.untold(), 1);
    let packets = flush(&mut outbox);
    assert!(packets.iter().all(|packet| packet.len() <= 1472));
    let heard: Vec<_> = packets.iter().flat_map(|packet| accept(&mut inbox, SERVER, packet)).collect();
    // What does not wait any more is among those repeated this time.
    assert!(heard.into_iter().eq((0..total).map(item)));
    assert!(accept(&mut inbox, SERVER, &outbox.registration(false)).is_empty());
}

#[test]
fn a_lost_packet_is_made_up_for_by_the_next() {
    let (mut outbox, mut inbox) = (Outbox::new(7), Inbox::new());
    outbox.answered(item(0));
    assert_eq!(accept(&mut inbox, SERVER, &flush(&mut outbox)[0]).len(), 1);
    for number in 1..=REPEATED as u64 {
        outbox.answered(item(number));
        flush(&mut outbox);
    }
    let registration = outbox.registration(true);
    let heard = accept(&mut inbox, SERVER, &registration);
    assert!(heard.into_iter().eq((1..=REPEATED as u64).map(item)));
    let packet = Packet::new_checked(&registration[..]).unwrap();
    let answered = Answered::of(&packet).unwrap().unwrap();
    assert_eq!(answered, Answered { epoch: 7, count: REPEATED as u64 + 1, registers: false, leaves: true });
}

#[test]
fn what_was_passed_over_is_counted_when_it_leaves_the_window() {
    let mut inbox = Inbox::new();
    let mut hear = |number: u64| {
        let mut payload = [0; Feedback::LEN];
        item(number).emit(&mut payload);
        let answered = Answered { epoch: 1, count: number, registers: false, leaves: false };
        let mut taken = 0;
        inbox.accept(SERVER, answered, &payload, &mut |_| taken += 1);
        (taken, inbox.counters().lost)
    };
    assert_eq!(hear(10), (1, 0));
    assert_eq!(hear(12), (1, 0));
    assert_eq!(hear(11 + 1024), (1, 1), "11 has left");
    assert_eq!(hear(11), (0, 1));
    assert_eq!(hear(12 + 1024 + 2048), (1, 1 + 1022 + 1025));
    assert_eq!(hear(12 + 1024 + 2048), (0, 1 + 1022 + 1025));
}

#[test]
fn streams_at_the_limit_and_one_past_it() {
    let mut inbox = Inbox::new();
    let packets: Vec<_> = (0..=STREAMS_PER_SENDER as u64)
        .map(|epoch| {
            let mut outbox = Outbox::new(epoch);
            outbox.answered(item(epoch));
            flush(&mut outbox).remove(0)
        })
        .collect();
    let (last, others) = packets.split_last().unwrap();
    assert!(others.iter().all(|packet| accept(&mut inbox, SERVER, packet).len() == 1));
    assert!(others.iter().all(|packet| accept(&mut inbox, SERVER, packet).is_empty()));
    assert_eq!(accept(&mut inbox, SERVER, last).len(), 1);
    assert_eq!(inbox.streams(), STREAMS_PER_SENDER);
    assert!(accept(&mut inbox, SERVER, &others[1]).is_empty(), "only the oldest has gone");
    inbox.forget(SERVER);
    assert_eq!(inbox.streams(), 0);
}

#[test]
fn impossible_bodies() {
    let mut inbox = Inbox::new();
    let mut none = |_| panic!("nothing is in it");
    let answered = |count| Answered { epoch: 1, count, registers: false, leaves: false };
    for (count, len) in [(5, 7), (5, 9), (0, 8), (1, 16), (u64::MAX, 8)] {
        inbox.accept(SERVER, answered(count), &vec![0; len], &mut none);
    }
    assert_eq!(inbox.counters().malformed, 5);
    inbox.accept(SERVER, answered(u64::MAX), &[], &mut none);
    assert_eq!(inbox.streams(), 0);
}

/// What happens to a packet.
#[derive(Clone, Debug)]
enum Fate {
    Arrives,
    Lost,
    /// Comes again, later, as often as this.
    Repeated(u8),
    /// Comes when this many others have.
    Late(u8),
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => (1..4u8).prop_map(Fate::Repeated),
        1 => (1..5u8).prop_map(Fate::Late),
    ]
}

proptest! {
    /// Nothing is heard of twice, and nothing that arrives is missed.
    #[test]
    fn once_each(batches in prop::collection::vec((0..60u64, any_fate()), 0..60)) {
        let (mut outbox, mut inbox) = (Outbox::new(3), Inbox::new());
        let mut heard: BTreeMap<Feedback, u32> = BTreeMap::new();
        let mut arrived: std::collections::BTreeSet<Feedback> = std::collections::BTreeSet::new();
        let mut later: Vec<(usize, Bytes)> = Vec::new();
        let mut next = 0;
        let mut begun = false;
        let mut deliver = |packet: &Bytes, arrived: &mut std::collections::BTreeSet<Feedback>| {
            let view = Packet::new_checked(&packet[..]).unwrap();
            // Before the first packet nobody listens.
            for item in view.payload().chunks(Feedback::LEN) {
                arrived.insert(Feedback::parse(item).unwrap());
            }
            for item in accept(&mut inbox, SERVER, packet) {
                *heard.entry(item).or_default() += 1;
            }
        };
        for (turn, (len, fate)) in batches.into_iter().enumerate() {
            for _ in 0..len {
                outbox.answered(item(next));
                next += 1;
            }
            for packet in flush(&mut outbox) {
                match if begun { fate.clone() } else { Fate::Arrives } {
                    Fate::Arrives => deliver(&packet, &mut arrived),
                    Fate::Lost => {}
                    Fate::Repeated(times) => {
                        deliver(&packet, &mut arrived);
                        later.extend((0..times).map(|after| (turn + usize::from(after), packet.clone())));
                    }
                    Fate::Late(after) => later.push((turn + usize::from(after), packet)),
                }
                begun = true;
            }
            later.retain(|(due, packet)| {
                let is_due = *due <= turn;
                if is_due {
                    deliver(packet, &mut arrived);
                }
                !is_due
            });
        }
        for (_, packet) in later {
            deliver(&packet, &mut arrived);
        }
        prop_assert!(heard.values().all(|times| *times == 1));
        prop_assert!(heard.keys().eq(arrived.iter()));
    }
}
