//! One node, and whoever the tests pretend to be: what it does with a snapshot, output by output.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use r2p2::message::{MessageHead, write_packets};
use r2p2::wire::{Extensions, MessageType, Policy};
use r2p2::{Digest, Instant};

use super::super::Output;
use super::*;
use crate::config::NodeConfig;
use crate::entry::{Entry, EntryKind, RequestHead};
use crate::id::{GroupId, Incarnation, MemberId, NodeId};
use crate::membership::{Addresses, Member, MemberRole, Membership};
use crate::message::{
    Append, AppendEntries, AppendEntry, Behind, Envelope, Installed, Message, SnapshotChunk, SnapshotFetch,
};
use crate::service::Class;
use crate::snapshot::{Archive, MemoryArchive, carry_out};
use crate::storage::{HardState, Persist, Stored, StoredRecord};

const PLAIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 999);

/// A snapshot is received from a node that knows of a later term than the leader this one follows. It takes that term with
/// it: the leader of the earlier one may have something else there.
#[test]
fn a_stale_leader_is_not_followed_behind_a_snapshot() {
    let mut core = Core::new(&[1, 1], 2);
    let (info, mut giving) = snapshot(6, 2, 4);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    let said = core.transfer(3, info, &mut giving);
    assert!(said.iter().any(|output| matches!(output, Output::Apply(Work::Install(installed)) if *installed == info)));
    let persists: Vec<&Persist> = said
        .iter()
        .filter_map(|output| match output {
            Output::Persist(batch) => Some(batch),
            _ => None,
        })
        .collect();
    assert!(persists.iter().any(|batch| batch.compacted == Some((6, 2))), "{persists:?}");
    assert!(persists.iter().any(|batch| batch.hard_state == Some(HardState { term: 4, vote: None })), "{persists:?}");
    assert_eq!((core.node.consensus().term(), core.node.consensus().commit()), (4, 6));
    // The leader of term 2 has other entries where the snapshot is.
    core.append(2, 2, (4, 1), &[2, 2, 2, 2]);
    let log = core.node.consensus().log();
    assert_eq!((log.last(), log.term_at(6)), (6, Some(2)), "nothing of it is taken");
    // A copy of a plain request that was ordered before the snapshot is known.
    assert!(core.node.plain.knows(core.now, PLAIN, &Digest(77)));
}

/// What lies behind the snapshot's entry in the own log may have been acknowledged and counted.
#[test]
fn a_snapshot_of_what_is_here_takes_nothing_away() {
    let mut core = Core::new(&[1, 1, 1, 2, 2, 2, 2, 2], 2);
    let (info, mut giving) = snapshot(6, 2, 2);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    let said = core.transfer(3, info, &mut giving);
    assert!(!said.iter().any(|output| matches!(output, Output::Apply(Work::Install(_)))));
    let consensus = core.node.consensus();
    assert_eq!((consensus.commit(), consensus.log().first(), consensus.log().last()), (6, 1, 8));
    assert_eq!(core.node.counters().snapshots_not_needed, 1);
}

/// What was here before the process began was mostly executed long ago: to order it again would be to execute it twice.
#[test]
fn requests_from_before_a_restart_do_not_come_back_behind_a_snapshot() {
    let head = RequestHead { client: PLAIN, rid: 5, session: None, identity: Digest(5), body_len: 1 };
    let entry = Entry { kind: EntryKind::Request, request: head, ..Entry::term_start() };
    let mut raw = Vec::new();
    entry.emit(&mut raw);
    let old = StoredRecord { term: 1, entry: raw.into(), body: Bytes::from_static(b"x") };
    let hard_state = HardState { term: 2, vote: None };
    let stored = Stored { hard_state, records: vec![old; 3], ..Stored::default() };
    let node = Node::restart(Instant::ZERO, config(group()), |_| Class::Write, stored).unwrap();
    let mut core = Core { node, archive: MemoryArchive::new(), now: Instant::ZERO };
    core.receive(2, 2, &Message::Heartbeat(crate::message::Heartbeat { last: 0, commit: 0 }));
    let (info, mut giving) = snapshot(6, 2, 2);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    core.transfer(3, info, &mut giving);
    assert_eq!((core.node.consensus().commit(), core.node.unordered().len()), (6, 0));
}

/// The applier takes its time. Snapshot after snapshot would never let it get on, and take away what it is to begin from.
#[test]
fn the_next_snapshot_waits_until_the_last_is_in_place() {
    let mut core = Core::new(&[1], 2);
    let (info, mut giving) = snapshot(6, 2, 2);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    core.transfer(3, info, &mut giving);
    core.receive(2, 2, &Message::Behind(Behind { min: 90 }));
    let asks = |core: &mut Core| core.sent().iter().any(|(_, message)| matches!(message, Message::SnapshotFetch(_)));
    assert!(!asks(&mut core));
    core.node.handle_archive(core.now, ArchiveEvent::Installed(info));
    core.receive(2, 2, &Message::Behind(Behind { min: 90 }));
    assert!(asks(&mut core));
}

/// A batch that forgets what it brings could not be read again.
#[test]
fn the_journal_forgets_only_what_it_has() {
    let mut core = Core::new(&[1, 1, 1], 2);
    let (info, mut giving) = snapshot(6, 2, 2);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    let mut held = Vec::new();
    for number in 0..info.chunks() {
        let chunk = giving.read(info.id, number).unwrap().unwrap();
        core.receive(3, 2, &Message::SnapshotChunk(SnapshotChunk { info, chunk }));
    }
    for _ in 0..100 {
        for output in core.outputs() {
            let Output::Archive(work) = output else { continue };
            match carry_out(&mut core.archive, work).unwrap() {
                Some(sealed @ ArchiveEvent::Sealed { .. }) => held.push(sealed),
                Some(event) => core.node.handle_archive(core.now, event),
                None => {}
            }
        }
    }
    // It has caught up by the log in the meantime, and hears of both at once.
    let item = || AppendEntry { entry: Entry::term_start(), raw: raw(), body: None };
    let entries = AppendEntries((0..4).map(|_| item()).collect());
    let append = Append { prev: 3, prev_term: 1, commit: 0, persisted: 0, arm: 0, entries_term: 2, entries };
    core.receive(2, 2, &Message::Append(append));
    core.node.handle_archive(core.now, held.remove(0));
    let batches = |core: &mut Core| -> Vec<Persist> {
        let said = core.outputs().into_iter();
        said.filter_map(|output| if let Output::Persist(batch) = output { Some(batch) } else { None }).collect()
    };
    let first = batches(&mut core);
    assert_eq!((first[0].first, first[0].compacted), (4, None));
    core.node.handle_persisted(core.now, first[0].number);
    let later = batches(&mut core);
    assert!(later.iter().any(|batch| batch.compacted == Some((6, 2)) && batch.records.is_empty()), "{later:?}");
}

#[test]
fn a_damaged_chunk_is_not_kept() {
    let mut core = Core::new(&[1], 2);
    let (info, mut giving) = snapshot(6, 2, 2);
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    core.outputs();
    let chunk = giving.read(info.id, 0).unwrap().unwrap();
    let mut bytes = chunk.bytes.to_vec();
    bytes[9] ^= 4;
    let damaged = crate::snapshot::Chunk { bytes: bytes.into(), ..chunk.clone() };
    core.receive(3, 2, &Message::SnapshotChunk(SnapshotChunk { info, chunk: damaged }));
    assert!(!core.outputs().iter().any(|output| matches!(output, Output::Archive(_))));
    assert_eq!(core.node.counters().chunks_damaged, 1);
    core.receive(3, 2, &Message::SnapshotChunk(SnapshotChunk { info, chunk }));
    assert!(core.outputs().iter().any(|output| matches!(output, Output::Archive(ArchiveWork::Receive(_)))));
}

/// Twenty chunks by a window of three: never more are under way, and a silent source is replaced.
#[test]
fn the_window_is_kept_and_a_silent_source_replaced() {
    let mut core = Core::new(&[1], 2);
    core.node.config.limits.snapshots.chunks_in_flight_max = 3;
    core.receive(2, 2, &Message::Behind(Behind { min: 6 }));
    let (mut asked, mut to) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        for (node, message) in core.sent() {
            if let Message::SnapshotFetch(SnapshotFetch { count, .. }) = message {
                asked.push(count);
                to.push(node);
            }
        }
        core.now += std::time::Duration::from_millis(10);
        core.node.handle_timeout(core.now);
    }
    assert!(asked.iter().all(|count| *count <= 3), "{asked:?}");
    assert_eq!(to[..5], [NodeId(3); 5], "a few attempts each, the leader last");
    assert!(to.contains(&NodeId(2)), "{to:?}");
    assert!(core.node.counters().sources_changed > 1);
}

#[test]
fn a_leader_believes_who_has_a_snapshot_only_what_its_own_log_says() {
    let mut membership = Membership::of_voters([(member(1), addresses(1))]);
    let learner = Member { role: MemberRole::Learner { promote: false }, addresses: addresses(2) };
    membership.members.insert(member(2), learner);
    let mut core = Core::with(membership, &[1, 1], 1);
    core.node.config.durable = false;
    core.node.campaign(core.now);
    core.outputs();
    assert!(core.node.consensus().is_leader());
    let matched = |core: &Core| core.node.status(core.now).peers[0].matched;
    core.receive(2, 2, &Message::Installed(Installed { index: 2, term: 7 }));
    assert_eq!((matched(&core), core.node.counters().installs_disbelieved), (0, 1));
    core.receive(2, 2, &Message::Installed(Installed { index: 900, term: 2 }));
    assert_eq!((matched(&core), core.node.counters().installs_disbelieved), (0, 2));
    core.receive(2, 2, &Message::Installed(Installed { index: 2, term: 1 }));
    assert_eq!((matched(&core), core.node.counters().installs_disbelieved), (2, 2));
}

#[test]
fn a_restarted_node_goes_on_from_the_newest_of_what_it_kept() {
    let (info, mut archive) = snapshot(3, 2, 4);
    let meta = archive.open(info.id).unwrap().unwrap().meta;
    let hard_state = HardState { term: 3, vote: Some(member(2)) };
    let restart = |base, terms: &[Term], has_snapshot: bool| {
        let snapshot = has_snapshot.then(|| (info, meta.clone()));
        let stored = Stored { hard_state, base, records: records(terms), snapshot, ..Stored::default() };
        Node::restart(Instant::ZERO, config(group()), |_| Class::Write, stored)
    };
    // The log, and the term and vote that it begins with.
    for (base, terms, has_snapshot, first, last) in [
        ((0, 0), &[1, 1, 2, 3][..], false, 1, 4),
        ((0, 0), &[1, 1, 2, 3], true, 4, 4),
        ((0, 0), &[1, 1, 1, 3], true, 4, 3),
        ((0, 0), &[1, 1], true, 4, 3),
        ((3, 2), &[3, 3], true, 4, 5),
        ((2, 1), &[2, 3], true, 4, 4),
    ] {
        let mut node = restart(base, terms, has_snapshot).unwrap();
        let log = node.consensus().log();
        assert_eq!((log.first(), log.last()), (first, last), "{base:?} {terms:?}");
        let expected = if has_snapshot { HardState { term: 4, vote: None } } else { hard_state };
        assert_eq!(node.consensus().hard_state(), expected, "the snapshot was known in term 4");
        assert_eq!(node.consensus().commit(), first - 1);
        let installs = std::iter::from_fn(|| Some(node.poll_output(Instant::ZERO)))
            .take_while(|output| !matches!(output, Output::Timeout(..)))
            .filter(|output| matches!(output, Output::Apply(Work::Install(_))))
            .count();
        assert_eq!(installs, usize::from(has_snapshot));
    }
    for (base, has_snapshot) in [((1, 1), false), ((4, 2), true)] {
        let lost = restart(base, &[2, 3], has_snapshot).map(|_| ());
        assert!(matches!(lost, Err(StorageError::Damaged(_))), "{base:?}: {lost:?}");
    }
}

/// Node 1 with archive and disk, which do what they are told at once.
struct Core {
    node: Node,
    archive: MemoryArchive,
    now: Instant,
}

impl Core {
    /// One of three, with entries of these terms, following node 2 in `term`.
    fn new(terms: &[Term], term: Term) -> Self {
        let mut core = Self::with(group(), terms, term);
        core.receive(2, term, &Message::Heartbeat(crate::message::Heartbeat { last: 0, commit: 0 }));
        core.outputs();
        core
    }

    fn with(membership: Membership, terms: &[Term], term: Term) -> Self {
        let hard_state = HardState { term, vote: None };
        let stored = Stored { hard_state, records: records(terms), ..Stored::default() };
        let node = Node::restart(Instant::ZERO, config(membership), |_| Class::Write, stored).unwrap();
        Self { node, archive: MemoryArchive::new(), now: Instant::ZERO }
    }

    fn receive(&mut self, from: u16, term: Term, message: &Message) {
        let envelope = Envelope { group: GroupId(1), from: member(from), life: from.into(), term };
        let (kind, extensions) = (MessageType::RaftMessage, Extensions::default());
        let head = MessageHead { kind, policy: Policy::Fixed, rid: 1, extensions };
        write_packets(&head, &message.emit(&envelope), 60_000, &mut |packet| {
            self.node.handle_peer_packet(self.now, addresses(from).peers, &packet);
        })
        .unwrap();
    }

    fn append(&mut self, from: u16, term: Term, (prev, prev_term): (LogIndex, Term), terms: &[Term]) {
        let item = || AppendEntry { entry: Entry::term_start(), raw: raw(), body: None };
        let entries = AppendEntries(terms.iter().map(|_| item()).collect());
        let entries_term = terms.first().copied().unwrap_or(prev_term);
        let append = Append { prev, prev_term, commit: 0, persisted: 0, arm: 0, entries_term, entries };
        self.receive(from, term, &Message::Append(append));
        self.outputs();
    }

    /// Everything it says now.
    fn outputs(&mut self) -> Vec<Output> {
        let next = || Some(self.node.poll_output(self.now)).filter(|next| !matches!(next, Output::Timeout(..)));
        std::iter::from_fn(next).collect()
    }

    /// What it sends now.
    fn sent(&mut self) -> Vec<(NodeId, Message)> {
        let sent = self.outputs().into_iter().filter_map(|output| match output {
            Output::Peers { to: super::super::Destination::Peer { node, .. }, packet } => {
                let body = packet.slice(r2p2::wire::HEADER_LEN..);
                Some((node, Message::parse(&body).ok()?.1))
            }
            _ => None,
        });
        sent.collect()
    }

    /// Gives it a snapshot as `from` would, until it asks for no more. Returns everything else it said.
    fn transfer(&mut self, from: u16, info: SnapshotInfo, giving: &mut MemoryArchive) -> Vec<Output> {
        let mut said = Vec::new();
        for number in 0..info.chunks() {
            let chunk = giving.read(info.id, number).unwrap().unwrap();
            self.receive(from, 2, &Message::SnapshotChunk(SnapshotChunk { info, chunk }));
        }
        for _ in 0..100 {
            for output in self.outputs() {
                match output {
                    Output::Archive(work) => {
                        if let Some(event) = carry_out(&mut self.archive, work).unwrap() {
                            self.node.handle_archive(self.now, event);
                        }
                    }
                    output => said.push(output),
                }
            }
        }
        said
    }
}

/// A snapshot as another node took it, in the term `known_in`.
fn snapshot(index: LogIndex, term: Term, known_in: Term) -> (SnapshotInfo, MemoryArchive) {
    let plain = vec![(PLAIN, Digest(77), std::time::Duration::ZERO)];
    let meta = Meta { index, term, known_in, log_time: Instant::ZERO, membership: group(), version: 1, plain };
    let mut archive = MemoryArchive::new();
    let info = archive.put(index, term, &meta.emit(), Box::new(vec![7; 30_000])).unwrap();
    (info, archive)
}

fn config(membership: Membership) -> NodeConfig {
    NodeConfig { durable: true, archive: true, ..NodeConfig::new(member(1), membership) }
}

fn group() -> Membership {
    Membership::of_voters((1..=3).map(|id| (member(id), addresses(id))))
}

fn member(id: u16) -> MemberId {
    MemberId::new(NodeId(id), Incarnation(1))
}

fn addresses(id: u16) -> Addresses {
    let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port + id);
    Addresses { peers: at(7000), requests: at(8000), group_requests: None }
}

fn records(terms: &[Term]) -> Vec<StoredRecord> {
    terms.iter().map(|term| StoredRecord { term: *term, entry: raw(), body: Bytes::new() }).collect()
}

fn raw() -> Bytes {
    let entry = Entry { kind: EntryKind::TermStart, request: RequestHead::NONE, ..Entry::term_start() };
    let mut raw = Vec::new();
    entry.emit(&mut raw);
    raw.into()
}
