//! Clients that go where their group goes (protocol.md §7.6).

use std::time::Duration;

use hovercraft::{Mode, NodeId};
use r2p2::client::Route;
use simulator::flight::Party;
use simulator::registers::Request::{Add, Get};
use simulator::scenario::Setup;
use simulator::{Registers, Scenario, World};

use super::members::{Load, admit, group, lead, remove, settle};

/// Clients that know only the first three nodes, and send as the mode has it.
fn clients(mode: Mode, unicast: bool) -> Setup {
    group(3, 3).clients(2).with(|config| {
        config.unicast = unicast;
        config.node.mode = mode;
        config.client.fan_out = if mode == Mode::Raft { Route::Sticky } else { Route::Group };
    })
}

fn nodes(s: &Scenario<Registers>, client: usize) -> Vec<NodeId> {
    let world: &World<Registers> = s;
    world.client(client).nodes().iter().map(|(node, _)| *node).collect()
}

const NEW: [NodeId; 3] = [NodeId(4), NodeId(5), NodeId(6)];

/// All three are replaced one after the other under load; no operation fails, and all take effect once.
#[test]
pub(crate) fn clients_go_where_the_group_goes() {
    for mode in [Mode::Hovercraft, Mode::Raft] {
        for unicast in [true, false] {
            for seed in 0..10 {
                let setup = clients(mode, unicast).seed(seed).with(|config| {
                    config.network.loss = 0.01;
                    config.node.durable = seed % 2 == 1;
                });
                let mut s = setup.registers();
                s.elect();
                let mut load = Load::default();
                for old in 1..=3 {
                    load.more(&mut s);
                    admit(&mut s, old + 3);
                    load.more(&mut s);
                    settle(&mut s);
                    load.more(&mut s);
                    remove(&mut s, old);
                    s.kill(old);
                    load.more(&mut s);
                    load.rest(&mut s);
                }
                load.finish(&mut s);
                settle(&mut s);
                for client in 0..2 {
                    s.client(client).value(Get(1));
                    s.run_for(Duration::from_millis(500));
                    assert_eq!(nodes(&s, client), NEW, "{mode:?} unicast {unicast} seed {seed}");
                }
                s.converge();
            }
        }
    }
}

/// One client sleeps while two of three nodes are replaced. The one left that it knows does not lead, and in mode raft
/// does not even listen to clients; it says who does.
#[test]
pub(crate) fn a_client_that_was_away_finds_the_group_by_one_node() {
    for mode in [Mode::Hovercraft, Mode::Raft] {
        let mut s = clients(mode, true).registers();
        s.elect();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        assert_eq!(s.client(1).value(Add(1, 1)), 2);
        for old in [1, 2] {
            admit(&mut s, old + 3);
            settle(&mut s);
            remove(&mut s, old);
            s.kill(old);
            s.client(0).value(Add(1, 1));
        }
        lead(&mut s, 4);
        assert_eq!(nodes(&s, 1), [1, 2, 3].map(NodeId), "it has heard nothing");
        assert_eq!(s.client(1).value(Add(1, 1)), 5);
        s.run_for(Duration::from_millis(500));
        assert_eq!(nodes(&s, 1), [3, 4, 5].map(NodeId));
        let world: &World<Registers> = &s;
        let asked = world.client(1).search_counters().asked_in_silence;
        assert_eq!(asked > 0, mode == Mode::Raft, "only there nobody answers");
        // And so it can do without the last one of those it was told of.
        admit(&mut s, 6);
        settle(&mut s);
        remove(&mut s, 3);
        s.kill(3);
        assert_eq!(s.client(1).value(Add(1, 1)), 6);
    }
}

/// Whoever answers with a newer epoch is gone when it is asked who the members are: others know too.
#[test]
pub(crate) fn who_names_the_epoch_dies_before_it_is_asked() {
    let mut s = clients(Mode::Raft, true).registers();
    s.elect();
    s.client(0).value(Add(1, 1));
    lead(&mut s, 1);
    let questions =
        s.hold("request").from(Party::Client(0)).to(Party::Node(1)).which(|flight| flight.packet.ends_with(b"members"));
    admit(&mut s, 4);
    settle(&mut s);
    s.client(0).value(Add(1, 1));
    s.run_for(Duration::from_millis(1));
    assert!(questions.hits() > 0, "it is asked, and hears nothing");
    s.kill(1);
    s.until_another_leads(1);
    assert_eq!(s.client(0).value(Add(1, 1)), 3);
    s.run_for(Duration::from_secs(1));
    assert_eq!(nodes(&s, 0), [1, 2, 3, 4].map(NodeId), "a dead member is one");
}

/// A node that begins from a snapshot has never executed the entries that said who the members are; its answers name
/// the epoch all the same, when it joins and when it is started again.
#[test]
pub(crate) fn who_begins_from_a_snapshot_names_its_epoch() {
    let setup = clients(Mode::Hovercraft, true).with(|config| {
        config.node.durable = true;
        config.node.limits.retention.entries_max = 20;
        config.node.limits.snapshots.after_entries = 50;
    });
    let mut s = setup.registers();
    s.elect();
    admit(&mut s, 4);
    settle(&mut s);
    for register in 0..300 {
        s.client(0).value(Add(1000 + register, 1));
    }
    s.converge();
    admit(&mut s, 5);
    settle(&mut s);
    s.converge();
    let epoch = s.members().expect("somebody leads").epoch;
    let named = |s: &Scenario<Registers>, id| {
        let world: &World<Registers> = s;
        world.applier(id).map(|applier| (applier.membership_epoch(), applier.counters().writes_applied < 250))
    };
    assert_eq!(named(&s, 5), Some((epoch, true)), "from a snapshot");
    for register in 0..100 {
        s.client(0).value(Add(1000 + register, 1));
    }
    s.converge();
    s.kill(5);
    s.start(5);
    assert_eq!(named(&s, 5), Some((epoch, true)), "from its own snapshot");
}
