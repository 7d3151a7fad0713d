//! Whatever anybody sends, an aggregator announces only what a majority of voters has truly said.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{Harness, address, datagram, envelope, member};
use super::*;

/// What one datagram is like: mostly an honest acknowledgement or Append, sometimes with something about it that is wrong.
#[derive(Clone, Debug)]
enum Event {
    Append {
        last: u64,
        persisted: u64,
    },
    Ack {
        node: u16,
        matched: u64,
        applied: u64,
    },
    /// An acknowledgement of 30 of which one thing is wrong.
    Wrong {
        node: u16,
        what: u8,
    },
    Garbage(Vec<u8>),
    Wait(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (11..30u64, 0..30u64).prop_map(|(last, persisted)| Event::Append { last, persisted: persisted.min(last) }),
        6 => (2..=5u16, 0..30u64, 0..30u64).prop_map(|(node, matched, applied)| Event::Ack { node, matched, applied }),
        4 => (2..=7u16, 0..7u8).prop_map(|(node, what)| Event::Wrong { node, what }),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Event::Garbage),
        2 => (1..2_000u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn only_what_a_majority_has_said_is_announced(events in prop::collection::vec(any_event(), 0..60)) {
        let mut it = Harness::armed(5);
        // What each member has said in earnest, and how far the leader's log goes.
        let mut said: BTreeMap<u16, u64> = (1..=5).map(|node| (node, 0)).collect();
        let (mut last, mut commit) = (0, 0);
        for event in events {
            match event {
                Event::Append { last: end, persisted } => {
                    it.append(end, persisted);
                    last = last.max(end);
                    said.entry(1).and_modify(|had| *had = persisted.max(*had));
                }
                Event::Ack { node, matched, applied } => {
                    it.ack(node, matched, applied);
                    said.entry(node).and_modify(|had| *had = matched.max(*had));
                }
                Event::Wrong { node, what } => wrong(&mut it, node, what),
                Event::Garbage(bytes) => it.core.handle_packet(it.now, address(2), &bytes),
                Event::Wait(micros) => it.wait(micros),
            }
            while let Some(announced) = it.said() {
                let mut have: Vec<u64> = said.values().copied().collect();
                have.sort_unstable();
                prop_assert!(announced.commit >= commit, "it never goes back");
                prop_assert!(announced.commit <= have[2], "three of five have said {:?}", have);
                prop_assert!(announced.commit == 0 || announced.commit >= 11, "not before the term");
                prop_assert!(announced.commit <= last, "not beyond the leader's log");
                for figures in &announced.members {
                    prop_assert!(figures.matched <= said[&figures.id.node().0]);
                }
                commit = announced.commit;
            }
        }
    }

    #[test]
    fn without_an_arming_nothing_is_ever_said(events in prop::collection::vec(any_event(), 0..40)) {
        let mut it = Harness::new(5);
        it.arm = 77;
        for event in events {
            match event {
                Event::Append { last, persisted } => it.append(last, persisted),
                Event::Ack { node, matched, applied } => it.ack(node, matched, applied),
                Event::Wrong { node, what } => wrong(&mut it, node, what),
                Event::Garbage(bytes) => it.core.handle_packet(it.now, address(2), &bytes),
                Event::Wait(micros) => it.wait(micros),
            }
            prop_assert_eq!(it.said(), None);
        }
        prop_assert_eq!(it.core.poll_output(it.now), Output::Timeout(Instant::FAR_FUTURE));
    }
}

/// An acknowledgement of 30, which no Append ever shows, with something wrong about it.
fn wrong(it: &mut Harness, node: u16, what: u8) {
    let right = AppendAck { matched: 30, arm: it.arm, epoch: 2, ..AppendAck::default() };
    let mut from = address(node);
    let mut head = envelope(node);
    let mut ack = right;
    match what {
        0 => ack.arm ^= 1,
        1 => ack.epoch += 1,
        2 => head.term += 1,
        3 => head.life += 1,
        4 => from = address(node + 1),
        5 => head.from = member(node + 100),
        // Nothing but that it is beyond the leader's log.
        _ => {}
    }
    let packet = datagram(&head, kind::APPEND_ACK, |to| ack.emit(to));
    it.core.handle_packet(it.now, from, &packet);
}
