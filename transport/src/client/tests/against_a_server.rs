//! Against an exactly-once server over a network that loses, doubles and reorders.

use proptest::prelude::{Just, ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};

use super::*;

#[test]
fn a_perfect_network_needs_no_retransmission() {
    let mut pair = Pair::new(config(), Faults::none(), 1);
    (0..500).for_each(|_| pair.submit());
    pair.drive();
    pair.check();
    assert_eq!(pair.client.counters().completed_ok, 500);
    assert_eq!(pair.client.counters().retransmissions, 0);
    // One for the session, one for each operation, two more for each of 71 long bodies.
    assert_eq!(pair.transmitted, 1 + 500 + 2 * 71);
}

#[test]
fn a_silent_group_is_given_up_and_forgotten() {
    let mut pair = Pair::new(config(), Faults { loss: 1.0, ..Faults::none() }, 1);
    (0..10).for_each(|_| pair.submit());
    pair.drive();
    assert_eq!(pair.client.counters().completed_not_executed, 10);
    assert_eq!(pair.client.outstanding(), 0);
    assert!(pair.client.operations.len() == 0 && pair.client.timers.is_empty());
}

#[test]
fn a_server_slower_than_the_first_timeout_is_learnt() {
    let slow = Faults { latency_max: ms(60), latency_min: ms(50), ..Faults::none() };
    let mut pair = Pair::new(config(), slow, 1);
    for _ in 0..100 {
        pair.submit();
        pair.drive();
    }
    pair.check();
    assert_eq!(pair.client.counters().completed_ok, 100);
    assert!(pair.client.counters().retransmissions < 10, "{}", pair.client.counters().retransmissions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// However often each node is replaced, one at a time: without loss nothing fails, with loss nothing is doubled.
    #[test]
    fn replaced_nodes_fail_nobody(
        seed: u64,
        loss in prop_oneof![Just(0.0), 0.0..0.3f64],
        duplication in 0.0..0.3f64,
        latency_max in 1..40u64,
        sticky: bool,
        steps in proptest::collection::vec((0..300u64, 0..NODES.len()), 10..60),
    ) {
        let faults = Faults { loss, duplication, latency_max: ms(latency_max), latency_min: ms(0), ..Faults::none() };
        let fan_out = if sticky { Route::Sticky } else { Route::Group };
        let mut pair = Pair::new(ClientConfig { fan_out, ..config() }, faults, seed);
        let mut replaced = 0;
        for (pause, place) in steps {
            pair.submit();
            pair.drive_bounded(ms(pause));
            if pair.is_up_to_date() {
                pair.replace(place);
                replaced += 1;
            }
        }
        pair.drive();
        pair.check();
        prop_assert_eq!(pair.client.counters().nodes_changed, replaced - u64::from(!pair.is_up_to_date()));
        if loss == 0.0 {
            prop_assert_eq!(pair.client.counters().completed_ok, pair.done.len() as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// protocol.md §6.8, §6.9 from the client's side: each operation ends once, with the reply to its own single
    /// execution, or unknown; and nothing is left behind.
    #[test]
    fn every_operation_ends_ok_or_unknown_whatever_the_network_does(
        seed: u64,
        loss in 0.0..0.6f64,
        duplication in 0.0..0.5f64,
        refusal in 0.0..0.3f64,
        latency_max in 1..80u64,
        expiry in prop_oneof![Just(0.0), 0.0..0.02f64],
        seq_window in 1..20u64,
        outstanding_max in 1..20usize,
        sticky: bool,
        pauses in proptest::collection::vec(0..2000u64, 1..60),
    ) {
        let faults = Faults { loss, duplication, refusal, expiry, latency_min: ms(0), latency_max: ms(latency_max) };
        let config = ClientConfig {
            seq_window,
            outstanding_max,
            give_up: ms(3000),
            session_idle: ms(1500),
            fan_out: if sticky { Route::Sticky } else { Route::Group },
            ..config()
        };
        let mut pair = Pair::new(config, faults, seed);
        for pause in pauses {
            pair.submit();
            // Half of the time without a pause, so that operations overlap.
            pair.drive_bounded(ms(pause.saturating_sub(1000)));
        }
        pair.drive();
        pair.check();
    }

    #[test]
    fn any_bytes_are_survived(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50)) {
        let mut world = World::open(config());
        world.submit("a");
        for packet in &packets {
            world.receive(NODES[0], packet);
        }
        prop_assert_eq!(world.client.outstanding(), 1);
        world.run_to(world.now + config().give_up * 2);
        prop_assert_eq!(world.done().len(), 1);
    }

    /// Like any bytes, but close to valid: a reply with some bytes changed and its tail cut.
    #[test]
    fn damaged_replies_are_survived(
        opened: bool,
        sessions: bool,
        body_len in 0..3000usize,
        changes in proptest::collection::vec((0..60usize, any::<u8>()), 0..4),
        cut in 0..40usize,
    ) {
        let mut world = if opened && sessions {
            World::open(config())
        } else {
            World::new(ClientConfig { sessions, ..config() })
        };
        world.submit("a");
        world.client.submit(world.now, Kind::Write, vec![1; 2000].into()).unwrap();
        for sent in world.sent() {
            for packet in packets_of(&reply(&sent), &vec![3; body_len]) {
                let mut packet = packet.to_vec();
                for &(at, byte) in &changes {
                    if let Some(target) = packet.get_mut(at) {
                        *target = byte;
                    }
                }
                packet.truncate(packet.len().saturating_sub(cut));
                world.receive(NODES[0], &packet);
            }
        }
        world.run_to(world.now + config().give_up * 2);
        prop_assert_eq!(world.client.outstanding(), 0);
        prop_assert_eq!(world.done().len(), 2);
    }
}
