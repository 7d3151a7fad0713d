//! Schedules around restarts and slow disks, found by reviewers: each once broke a promise, or kept an answer back.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, call, cluster_of, converge, drain};
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::message::{Append, AppendEntries, AppendEntry, Envelope, Message, Vote};
use hovercraft::storage::{HardState, Stored, StoredRecord};
use hovercraft::{
    GroupId, Incarnation, LogIndex, MemberId, Membership, Node, NodeConfig, NodeId, Output, Service, Term,
};
use r2p2::client::Kind;
use r2p2::message::write_packets;
use r2p2::server::Via;
use r2p2::wire::{Extensions, MessageType, Policy};
use r2p2::{Instant, MessageHead};
use simulator::registers::Request;
use simulator::world::{DiskConfig, addresses, peer_address};
use simulator::{Flight, Party, Registers, WorldConfig};

fn durable(seed: u64, nodes: u16, change: impl FnOnce(&mut WorldConfig)) -> Cluster {
    cluster_of(seed, nodes, |config| {
        config.node.durable = true;
        change(config);
    })
}

/// What a restarted node finds in its log it executes without an answer. What takes the place of a part that never was
/// committed is new, and this node may be its replier.
#[test]
fn entries_in_place_of_what_a_restarted_node_had_are_answered() {
    let mut world = durable(1, 3, |config| config.clients = 2);
    let old = world.elect();
    call(&mut world, 0, Request::Add(1, 1));
    call(&mut world, 1, Request::Add(1, 1));
    // A leader alone with one client: what it orders is on its disk and nowhere else.
    let before = world.node(old).unwrap().consensus().log().last();
    for id in (1..=3).filter(|id| *id != old) {
        world.block(Party::Node(old), Party::Node(id));
        world.block(Party::Node(id), Party::Node(old));
        world.block(Party::Client(1), Party::Node(id));
    }
    let lost: Vec<_> = (0..30).map(|_| world.submit(1, Kind::Write, Request::Add(2, 1).encode())).collect();
    world.run_for(Duration::from_millis(2));
    assert!(world.node(old).unwrap().consensus().persisted() >= before + 20, "it has them on disk");
    world.kill(old);
    for ticket in lost {
        world.cancel(1, ticket);
    }
    world.heal();
    world.elect();
    let answers = Rc::new(Cell::new(0));
    let seen = Rc::clone(&answers);
    world.lose_when(move |flight| {
        if flight.what == "response" && flight.from == Party::Node(old) {
            seen.set(seen.get() + 1);
        }
        false
    });
    world.start(old);
    world.run_for(Duration::from_millis(10));
    for _ in 0..20 {
        world.submit(0, Kind::Write, Request::Add(1, 1).encode());
    }
    drain(&mut world, 0, 20);
    converge(&mut world);
    let node = world.node(old).unwrap();
    assert!(node.counters().entries_replaced >= 20, "what it had was replaced");
    let (log, term) = (node.consensus().log(), node.consensus().term());
    let owed = (before + 1..=log.last()).filter_map(|index| log.get(index)).filter(|record| {
        record.term == term && record.entry.kind != EntryKind::TermStart && record.entry.replier == NodeId(old)
    });
    let owed = owed.count();
    assert!(owed >= 5, "it was chosen as a replier");
    assert_eq!(answers.get(), owed);
}

/// A group of one needs nobody's vote, so it leads at once; it must not lead the same term twice all the same.
#[test]
fn a_group_of_one_orders_nothing_before_its_term_is_safe() {
    for seed in 0..20 {
        let mut world = durable(seed, 1, |config| {
            config.disk = DiskConfig { latency: Duration::from_millis(5), jitter: Duration::from_millis(1) };
        });
        let ticket = world.submit(0, Kind::Write, Request::Add(1, 1).encode());
        assert!(world.run_until(Duration::from_secs(1), |world| world.leader().is_some()));
        world.run_for(Duration::from_millis(4));
        world.cancel(0, ticket);
        world.completions(0);
        world.kill(1);
        world.start(1);
        call(&mut world, 0, Request::Add(2, 1));
    }
}

/// A vote takes two syncs, one after the other. Where they take longer than an election timeout, a group must still find
/// a leader.
#[test]
fn slow_disks_do_not_prevent_elections() {
    for (seed, millis) in [(1, 15), (2, 30), (3, 60), (4, 150)] {
        for nodes in [3, 5] {
            let mut world = durable(seed, nodes, |_| {});
            let leader = world.elect();
            call(&mut world, 0, Request::Add(1, 1));
            world.set_disks(DiskConfig { latency: Duration::from_millis(millis), jitter: Duration::from_millis(1) });
            world.kill(leader);
            let elected = world.run_until(Duration::from_secs(20), |world| world.leader().is_some());
            assert!(elected, "{nodes} nodes, {millis} ms: {world:?}");
            world.start(leader);
            assert_eq!(call(&mut world, 0, Request::Add(1, 1)), 2);
            converge(&mut world);
        }
    }
}

/// A follower that is restarted within a term, on an idle system, learns what is committed although nothing is new.
#[test]
fn a_restarted_follower_of_an_idle_leader_executes_its_log() {
    for nodes in [2, 3, 5] {
        let mut world = durable(1, nodes, |_| {});
        let leader = world.elect();
        for _ in 0..5 {
            call(&mut world, 0, Request::Add(1, 1));
        }
        converge(&mut world);
        let term = world.node(leader).unwrap().consensus().term();
        let follower = leader % nodes + 1;
        world.kill(follower);
        world.start(follower);
        converge(&mut world);
        let last = world.node(leader).unwrap().consensus().log().last();
        assert_eq!(world.node(follower).unwrap().applied(), last);
        assert_eq!(world.node(leader).unwrap().consensus().term(), term, "no election was needed");
    }
}

/// §6.1: whoever acknowledges in a term has made the term safe. Otherwise it could be restarted in an earlier one, let
/// that one's leader replace what it has acknowledged, and the leader that counts on it would for ever send what follows.
#[test]
fn an_acknowledgement_waits_for_its_term() {
    let mut core = Core::new(HardState { term: 1, vote: None }, &[1, 1]);
    core.append(3, 3, (2, 1), &[], 2);
    let said = core.outputs();
    let batch = said.iter().find_map(|output| match output {
        Output::Persist(batch) => Some(batch),
        _ => None,
    });
    assert_eq!(batch.and_then(|batch| batch.hard_state), Some(HardState { term: 3, vote: None }));
    assert!(matched(&said).iter().all(|matched| *matched == 0), "the disk does not know of the term");
    core.persisted(1);
    assert_eq!(matched(&core.outputs()), [2]);
}

/// Entries that were replaced and came back are on disk only when they were written again: between the two the disk has
/// what replaced them.
#[test]
fn what_was_replaced_and_came_back_is_not_persisted_by_the_first_write() {
    for separate in [true, false] {
        let mut core = Core::new(HardState::default(), &[]);
        core.append(2, 2, (0, 0), &[2, 2, 2, 2], 0);
        let mut batches = persists(&core.outputs());
        core.append(3, 3, (0, 0), &[3], 0);
        if separate {
            batches += persists(&core.outputs());
        }
        // Another leader that has the entries of term 2.
        core.append(2, 4, (0, 0), &[2, 2, 2, 2], 0);
        if separate {
            batches += persists(&core.outputs());
        }
        core.persisted(1);
        assert_eq!(core.node.consensus().persisted(), 0, "handed out {batches}");
        batches += persists(&core.outputs());
        for number in 2..batches {
            core.persisted(number);
            assert_eq!(core.node.consensus().persisted(), 0, "{number} of {batches}");
        }
        core.persisted(batches);
        assert_eq!(core.node.consensus().persisted(), 4);
        assert_eq!(matched(&core.outputs()), [4]);
    }
}

/// What is not replaced counts as soon as it is safe, whatever else is still being written.
#[test]
fn what_is_in_front_of_a_replacement_is_persisted_without_it() {
    let mut core = Core::new(HardState::default(), &[]);
    core.append(2, 2, (0, 0), &[2, 2, 2, 2], 0);
    assert_eq!(persists(&core.outputs()), 1);
    core.append(3, 3, (2, 2), &[3], 0);
    core.persisted(1);
    assert_eq!(core.node.consensus().persisted(), 2);
    assert_eq!(persists(&core.outputs()), 1);
    core.persisted(2);
    assert_eq!(core.node.consensus().persisted(), 3);
}

/// §5.6: that the leader has persisted an entry makes it one of three; this node's own disk makes it two.
#[test]
fn a_follower_commits_early_only_what_it_has_persisted_itself() {
    let mut core = Core::new(HardState::default(), &[]);
    core.append(2, 1, (0, 0), &[1, 1], 2);
    core.outputs();
    assert_eq!(core.node.consensus().commit(), 0);
    core.persisted(1);
    assert_eq!(core.node.consensus().commit(), 2);
}

/// §7.5: the vote is part of what a node continues with.
#[test]
fn a_restarted_node_remembers_whom_it_voted_for() {
    let vote = Vote { pre: false, transfer: false, last: 9, last_term: 4, commit: 0, commit_term: 0 };
    for (from, granted) in [(3, false), (2, true)] {
        let mut core = Core::new(HardState { term: 5, vote: Some(voter(2)) }, &[1]);
        core.receive(from, 5, &Message::Vote(vote));
        let replies: Vec<bool> = messages(&core.outputs())
            .into_iter()
            .filter_map(|message| match message {
                Message::VoteReply(reply) => Some(!reply.reject),
                _ => None,
            })
            .collect();
        assert_eq!(replies, [granted], "n{from} asks");
    }
}

/// The core of node 1 of three, without a world: the disk reports when the test says so.
struct Core {
    node: Node,
}

impl Core {
    /// Restarted with entries of these terms.
    fn new(hard_state: HardState, terms: &[Term]) -> Self {
        let mut config = NodeConfig::new(voter(1), Membership::of_voters((1..=3).map(|id| (voter(id), addresses(id)))));
        config.durable = true;
        let records = terms.iter().map(|term| StoredRecord { term: *term, entry: raw(), body: Bytes::new() }).collect();
        let stored = Stored { hard_state, records, ..Stored::default() };
        Self { node: Node::restart(Instant::ZERO, config, Registers::classify, stored).unwrap() }
    }

    fn receive(&mut self, from: u16, term: Term, message: &Message) {
        let envelope = Envelope { group: GroupId(1), from: voter(from), life: u64::from(from), term };
        let (kind, extensions) = (MessageType::RaftMessage, Extensions::default());
        let head = MessageHead { kind, policy: Policy::Fixed, rid: 1, extensions };
        write_packets(&head, &message.emit(&envelope), 1472, &mut |packet| {
            self.node.handle_peer_packet(Instant::ZERO, peer_address(from), &packet);
        })
        .unwrap();
    }

    /// An Append by the leader of `term`, after an entry with this index and term; all entries are of one term.
    fn append(
        &mut self,
        from: u16,
        term: Term,
        (prev, prev_term): (LogIndex, Term),
        terms: &[Term],
        persisted: LogIndex,
    ) {
        let item = || AppendEntry { entry: Entry::term_start(), raw: raw(), body: None };
        let entries = AppendEntries(terms.iter().map(|_| item()).collect());
        let entries_term = terms.first().copied().unwrap_or(prev_term);
        let append = Append { prev, prev_term, commit: 0, persisted, arm: 0, entries_term, entries };
        self.receive(from, term, &Message::Append(append));
    }

    fn persisted(&mut self, number: u64) {
        self.node.handle_persisted(Instant::ZERO, number);
    }

    fn outputs(&mut self) -> Vec<Output> {
        let next = || Some(self.node.poll_output(Instant::ZERO)).filter(|next| !matches!(next, Output::Timeout(..)));
        std::iter::from_fn(next).collect()
    }
}

fn voter(id: u16) -> MemberId {
    MemberId::new(NodeId(id), Incarnation(1))
}

fn raw() -> Bytes {
    let mut raw = Vec::new();
    Entry::term_start().emit(&mut raw);
    raw.into()
}

fn persists(outputs: &[Output]) -> u64 {
    outputs.iter().filter(|output| matches!(output, Output::Persist(_))).count() as u64
}

fn messages(outputs: &[Output]) -> Vec<Message> {
    let (at, from, to, via) = (Instant::ZERO, Party::Node(1), Party::Raw, Via::Unicast);
    let packets = outputs.iter().filter_map(|output| match output {
        Output::Peers { packet, .. } => Some(packet),
        _ => None,
    });
    packets.filter_map(|packet| Flight { at, from, to, via, what: "", packet }.message()).collect()
}

/// What is acknowledged in these.
fn matched(outputs: &[Output]) -> Vec<LogIndex> {
    let acks = messages(outputs).into_iter().filter_map(|message| match message {
        Message::AppendAck(ack) => Some(ack.matched),
        _ => None,
    });
    acks.collect()
}
