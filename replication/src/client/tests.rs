//! Finding the group, against hand-made answers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use multicast::Group;
use r2p2::Instant;
use r2p2::client::{ClientConfig, Completion, Kind, Outcome};
use r2p2::server::write_response;
use r2p2::wire::{Extensions, Header, Packet, Session};

use super::*;
use crate::admin::MembersReport;
use crate::id::{Incarnation, MemberId};
use crate::membership::{Addresses, Membership};

const MS: Duration = Duration::from_millis(1);

#[test]
fn who_names_a_newer_epoch_is_asked_for_the_members_at_once() {
    let mut world = World::new(&[1, 2, 3], 1);
    world.submit();
    world.open(2, 1);
    assert_eq!(world.questions(), [], "1 is what it knows");
    world.answer_all(3, 2);
    assert_eq!(world.questions(), [at(3)]);
    world.report(3, 2, &[1, 2, 4]);
    assert_eq!(world.endpoint.epoch(), 2);
    assert_eq!(ids(&world), [1, 2, 4]);
    assert_eq!(world.endpoint.group().receivers(), [group_at(1), group_at(2), group_at(4)]);
    world.submit();
    let to: Vec<_> = world.take_sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [Recipient::Group]);
    assert_eq!((world.done.len(), world.endpoint.outstanding()), (1, 1), "questions are no operations");
    assert_eq!(world.endpoint.search_counters().found, 1);
}

#[test]
fn who_knows_no_epoch_asks_whoever_answers_first() {
    let mut world = World::new(&[2], 0);
    world.submit();
    world.open(2, 1);
    assert_eq!(world.questions(), [at(2)]);
    world.report(2, 1, &[1, 2, 3]);
    assert_eq!(ids(&world), [1, 2, 3], "the others too, though nothing has changed");
}

#[test]
fn what_is_in_flight_goes_to_the_new_nodes() {
    let mut world = World::new(&[1, 2, 3], 1);
    world.submit();
    world.open(1, 1);
    world.submit();
    let first = world.take_sent();
    world.answer(1, &first[0], Some(9));
    world.report(1, 9, &[4, 5, 6]);
    let again = world.take_sent();
    assert_eq!(again.len(), 1, "the one that is not answered yet");
    assert_eq!((again[0].to, again[0].header.rid), (Recipient::Group, first[1].header.rid));
    world.answer(5, &again[0], Some(9));
    assert!(world.done.iter().all(|done| matches!(done.outcome, Outcome::Ok(_))));
    assert_eq!(world.questions(), []);
}

#[test]
fn others_are_asked_if_the_one_who_named_it_does_not_say() {
    let mut world = World::new(&[1, 2, 3], 1);
    world.submit();
    world.open(1, 1);
    world.answer_all(3, 5);
    let mut asked = Vec::new();
    let end = world.now + 5 * Duration::from_secs(1);
    while world.now < end {
        asked.extend(world.questions());
        world.step(end);
    }
    asked.dedup();
    assert_eq!(asked[..4], [at(3), at(1), at(2), at(3)], "one after the other");
    let questions = world.endpoint.search_counters().asked_for_newer;
    assert!((5..=12).contains(&questions), "{questions} in 5 s, ever more slowly");
    // One that lags behind has nothing new; the next one has.
    while world.questions().is_empty() {
        world.step(Instant::FAR_FUTURE);
    }
    world.report(2, 1, &[1, 2, 3]);
    assert_eq!(world.endpoint.search_counters().nothing_new, 1);
    while world.questions().is_empty() {
        world.step(Instant::FAR_FUTURE);
    }
    world.report(1, 5, &[1, 2, 7]);
    assert_eq!(ids(&world), [1, 2, 7]);
    assert_eq!(world.endpoint.outstanding(), 0);
}

#[test]
fn in_silence_everybody_ever_known_is_asked() {
    let mut world = World::new(&[1, 2, 3], 1);
    world.submit();
    world.open(1, 1);
    world.answer_all(1, 2);
    world.report(1, 2, &[4, 5, 6]);
    // All of these are gone, and one of the first has come back.
    world.submit();
    let start = world.now;
    let mut asked = Vec::new();
    while asked.is_empty() {
        asked = world.questions();
        world.step(Instant::FAR_FUTURE);
    }
    assert!(world.now.since(start) >= 250 * MS);
    asked.sort();
    assert_eq!(asked, [1, 2, 3, 4, 5, 6].map(at));
    world.report(3, 3, &[3, 7, 8]);
    assert_eq!(ids(&world), [3, 7, 8]);
    world.answer_all(8, 3);
    assert_eq!(world.done.len(), 2);
    assert_eq!(world.endpoint.core().silent_since(), None);
}

#[test]
fn a_long_silence_is_not_filled_with_questions() {
    let mut world = World::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 1);
    world.submit();
    let mut questions: Vec<SocketAddrV4> = Vec::new();
    let end = world.now + Duration::from_secs(9);
    while world.now < end {
        let sent = world.questions();
        assert!(sent.len() <= 8, "{sent:?}");
        questions.extend(sent);
        world.step(end);
    }
    let asked = world.endpoint.search_counters().asked_in_silence;
    assert!((60..=130).contains(&asked), "{asked} nodes asked in 9 s");
    assert!((1..=9).all(|node| questions.contains(&at(node))), "each has its turn");
    while world.step(Instant::FAR_FUTURE) {}
    assert_eq!(world.done.len(), 1, "given up, and nothing of the search shows");
    assert_eq!(world.endpoint.outstanding(), 0);
    assert_eq!(world.endpoint.core().outstanding(), 0, "who waits for nothing asks nothing");
}

#[test]
fn nothing_is_believed_that_is_no_report() {
    let mut world = World::new(&[1, 2, 3], 1);
    world.submit();
    world.open(1, 1);
    world.answer_all(1, 2);
    let question = world.take_question();
    world.respond(1, &question, Extensions { admin: true, ..Extensions::default() }, b"hello");
    let counters = *world.endpoint.search_counters();
    assert_eq!((counters.unreadable, counters.found), (1, 0));
    assert_eq!((world.endpoint.epoch(), ids(&world)), (1, vec![1, 2, 3]));
}

#[test]
fn a_client_without_sessions_asks_nobody() {
    let mut world = World::with(ClientConfig { sessions: false, ..ClientConfig::default() }, &[1, 2, 3], 0);
    world.submit();
    let sent = world.take_sent().remove(0);
    while world.step(Instant::FAR_FUTURE) {}
    assert_eq!(world.questions(), []);
    assert_eq!(world.done.len(), 1);
    world.submit();
    let next = world.take_sent().remove(0);
    assert_ne!(next.header.rid, sent.header.rid);
    world.respond(1, &next, Extensions { epoch: Some(8), ..Extensions::default() }, b"");
    assert_eq!((world.questions(), world.done.len()), (vec![], 2));
}

fn at(node: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node as u8), 1)
}

fn group_at(node: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*at(node).ip(), 2)
}

fn ids(world: &World) -> Vec<u16> {
    world.endpoint.nodes().iter().map(|(node, _)| node.0).collect()
}

struct Sent {
    to: Recipient,
    header: Header,
}

/// A client, a clock, and what the client has said.
struct World {
    now: Instant,
    endpoint: Endpoint,
    sent: Vec<Sent>,
    done: Vec<Completion>,
    timeout: Instant,
    /// The last question, for somebody to answer.
    question: Option<Sent>,
}

impl World {
    fn new(nodes: &[u16], epoch: u64) -> Self {
        Self::with(ClientConfig::default(), nodes, epoch)
    }

    fn with(config: ClientConfig, nodes: &[u16], epoch: u64) -> Self {
        let contacts = Contacts {
            epoch,
            nodes: nodes.iter().map(|node| (NodeId(*node), at(*node))).collect(),
            group: Group::Unicast { members: nodes.iter().map(|node| group_at(*node)).collect() },
            group_stays: false,
        };
        let endpoint = Endpoint::new(config, contacts, 7);
        Self {
            now: Instant::ZERO,
            endpoint,
            sent: Vec::new(),
            done: Vec::new(),
            timeout: Instant::FAR_FUTURE,
            question: None,
        }
    }

    fn submit(&mut self) {
        self.endpoint.submit(self.now, Kind::Write, Bytes::from_static(b"x")).expect("room");
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.endpoint.poll_output(self.now) {
                EndpointOutput::Transmit { to, packet } => {
                    let header = Header::parse(&Packet::new_checked(&packet[..]).expect("whole")).expect("well-formed");
                    self.sent.push(Sent { to, header });
                }
                EndpointOutput::Done(completion) => self.done.push(completion),
                EndpointOutput::Timeout(at, _) => break self.timeout = at,
            }
        }
    }

    /// Lets what is due next happen, if anything is, not after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let next = self.timeout.min(end);
        if next == Instant::FAR_FUTURE {
            return false;
        }
        self.now = self.now.max(next);
        self.endpoint.handle_timeout(self.now);
        self.drain();
        true
    }

    fn respond(&mut self, node: u16, sent: &Sent, extensions: Extensions, body: &[u8]) {
        let mut packets = Vec::new();
        write_response(sent.header.rid, extensions, body, 1472, &mut |packet| packets.push(packet)).expect("short");
        for packet in packets {
            self.endpoint.handle_datagram(self.now, at(node), &packet);
        }
        self.drain();
    }

    /// Takes what was sent and is no question.
    fn take_sent(&mut self) -> Vec<Sent> {
        let (questions, sent) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.header.extensions.admin);
        self.sent = questions;
        sent
    }

    /// A node answers an operation.
    fn answer(&mut self, node: u16, sent: &Sent, epoch: Option<u64>) {
        let session = sent.header.extensions.session;
        self.respond(node, sent, Extensions { session, epoch, ..Extensions::default() }, b"");
    }

    /// A node answers everything that is under way.
    fn answer_all(&mut self, node: u16, epoch: u64) {
        for sent in self.take_sent() {
            self.answer(node, &sent, Some(epoch));
        }
    }

    /// A node opens the session that the client asks for.
    fn open(&mut self, node: u16, epoch: u64) {
        let open = self.take_sent().remove(0);
        let nonce = open.header.extensions.session.expect("it asks for a session");
        let session = Some(Session { client: 77, ..nonce });
        self.respond(node, &open, Extensions { session, epoch: Some(epoch), ..Extensions::default() }, b"");
    }

    /// Whom it has asked for the members since the last time, without repetitions. The last question can be answered.
    fn questions(&mut self) -> Vec<SocketAddrV4> {
        let mut asked: Vec<SocketAddrV4> = Vec::new();
        let is_question = |sent: &mut Sent| sent.header.extensions.admin;
        for sent in self.sent.extract_if(.., is_question) {
            if let Recipient::Address(to) = sent.to
                && !asked.contains(&to)
            {
                asked.push(to);
            }
            self.question = Some(sent);
        }
        asked
    }

    fn take_question(&mut self) -> Sent {
        self.questions();
        self.question.take().expect("it asks")
    }

    /// Node `from` says who the members are.
    fn report(&mut self, from: u16, epoch: u64, nodes: &[u16]) {
        let voter = |node: &u16| {
            let peers = SocketAddrV4::new(*at(*node).ip(), 3);
            let addresses = Addresses { peers, requests: at(*node), group_requests: Some(group_at(*node)) };
            (MemberId::new(NodeId(*node), Incarnation(1)), addresses)
        };
        let membership = Membership { epoch, ..Membership::of_voters(nodes.iter().map(voter)) };
        let report = MembersReport { membership, leader: None, term: 1, lived: BTreeSet::new() }.encode();
        let question = self.take_question();
        let extensions = Extensions { admin: true, epoch: Some(epoch), ..Extensions::default() };
        self.respond(from, &question, extensions, &report);
    }
}
