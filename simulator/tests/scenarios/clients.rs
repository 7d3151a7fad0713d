//! What clients ask, ask again, give up and are told (protocol.md §3, §7.8).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::{Class, Context, Reply, Service};
use r2p2::client::Outcome;
use simulator::registers::Request::{self, Add, Get, Set};
use simulator::registers::decode_reply;
use simulator::{Party, Registers, Scenario};

const CLIENT: Party = Party::Client(0);

/// §3.3 [7 overtakes 6]: operations under way at the same time may be ordered in any order. That the later one was
/// executed says nothing about the earlier one.
#[test]
pub(crate) fn seven_overtakes_six() {
    let mut s = Scenario::cluster(3).patient_clients().registers();
    s.elect();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    let six = s.hold("request").from(CLIENT);
    s.client(0).begin(Add(1, 10));
    s.stop(&six);
    assert_eq!(s.client(0).value(Add(1, 100)), 101);
    s.release(&six);
    assert_eq!(s.client(0).values(1), [111]);
    s.converge();
}

/// §3.3 [a timed-out SET 1 executed after SET 2]: copies of the first are still in the network when the second has been
/// answered.
#[test]
pub(crate) fn a_timed_out_write_is_fenced_by_the_next_one() {
    let mut s = Scenario::cluster(3).registers();
    let [leader, _, _] = s.cast();
    s.client(0).value(Set(1, 0));
    let late = s.hold("request").from(CLIENT);
    let ticket = s.client(0).begin(Set(1, 1));
    s.run_for(Duration::from_millis(5));
    s.client(0).cancel(ticket);
    assert_eq!(s.client(0).end(1)[0].outcome, Outcome::Unknown);
    s.stop(&late);
    assert_eq!(s.client(0).value(Set(1, 2)), 0);
    s.release(&late);
    s.run_for(Duration::from_millis(100));
    assert_eq!(s.service(leader).value(1), 2);
    s.converge();
}

/// §3.3 [an expired client retransmits an increment]: the answer was lost, the session has expired meanwhile; the copy
/// must not be executed again, and the client is told. Whether the leader's log still knows the request decides who
/// tells it, not what.
#[test]
pub(crate) fn an_expired_client_retransmits_an_increment() {
    for entries_kept in [1, 1000] {
        let setup = Scenario::cluster(3).clients(2).with(|config| {
            config.client.retransmit_initial = Duration::from_secs(700);
            config.client.retransmit_min = Duration::from_secs(700);
            config.client.retransmit_max = Duration::from_secs(800);
            config.client.give_up = Duration::from_secs(3000);
            config.node.timing.tick = Duration::from_millis(50);
            config.node.timing.fresh = Duration::from_millis(500);
            config.node.limits.retention.entries_max = entries_kept;
        });
        let mut s = setup.registers();
        s.elect();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        let answers = s.lose("response").to(CLIENT);
        s.client(0).begin(Add(1, 1));
        s.run_for(Duration::from_secs(650));
        assert_eq!(s.client(1).value(Get(1)), 2, "executed, and log time moves on");
        s.stop(&answers);
        assert_eq!(s.client(0).end_within(Duration::from_secs(1000), 1)[0].outcome, Outcome::Expired);
        assert_eq!(s.client(1).value(Get(1)), 2);
        assert_eq!(s.client(0).value(Add(1, 1)), 3, "a new session serves the next operation");
        s.converge();
    }
}

/// §3.3 [a new leader one hour ahead expires everybody]: log time goes on from where the log ends, by what passes while
/// somebody leads. An hour that only a clock has seen is none.
#[test]
pub(crate) fn a_new_leader_one_hour_ahead_expires_nobody() {
    let setup = Scenario::cluster(3).patient_clients().with(|config| {
        config.node.timing.tick = Duration::from_millis(100);
        config.node.timing.fresh = Duration::from_secs(1);
    });
    let mut s = setup.registers();
    let [old, n2, n3] = s.cast();
    assert_eq!(s.client(0).value(Add(1, 1)), 1);
    s.kill(old);
    s.isolate(n2, &[]);
    s.isolate(n3, &[]);
    s.run_for(Duration::from_secs(3600));
    s.heal();
    let new = s.until_another_leads(old);
    assert_eq!(s.client(0).value(Add(1, 1)), 2, "its session is there");
    let sessions = s.applier(new).unwrap().sessions();
    assert_eq!(sessions.counters().opened, 1);
    assert!(sessions.time() < r2p2::Instant::ZERO + Duration::from_secs(60), "{:?}", sessions.time());
    s.converge();
}

/// §5.7, §7.8: the replier dies after the entry is committed and before it answers. The leader answers the
/// retransmission from the session's cache.
#[test]
pub(crate) fn a_replier_crashes_between_commit_and_reply() {
    for seed in 0..10 {
        let mut s = Scenario::cluster(3).seed(seed).registers();
        let [_, replier, _] = s.cast();
        for n in 1..=5 {
            assert_eq!(s.client(0).value(Add(1, 1)), n);
        }
        let answers = s.lose("response").from(replier);
        s.client(0).begin_many(12, Add(1, 1));
        s.until("it has answered in vain", |_| answers.hits() > 0);
        s.kill(replier);
        assert_eq!(s.client(0).values(12), (6..=17).collect::<Vec<u64>>(), "seed {seed}");
        s.converge();
    }
}

/// §3.2 [a read answered again by another replica at a later index must not fill the gaps of the first answer]: both
/// answers are of several packets, and both have losses.
#[test]
pub(crate) fn a_read_answered_again_while_fragments_of_the_first_answer_arrive() {
    for seed in 0..20 {
        let mut s = Scenario::cluster(3).seed(seed).clients(2).of(Wide::default);
        s.elect();
        s.lose("response").to(CLIENT).which(|flight| flight.packet.len() > 1000).every(3).first(20);
        for round in 1..=10 {
            s.client(0).begin(Get(1));
            s.client(1).begin(Add(1, 1));
            let Outcome::Ok(body) = s.client(0).end(1).remove(0).outcome else { panic!("seed {seed} round {round}") };
            assert_eq!(body.len(), 16_000);
            let words: BTreeSet<&[u8]> = body.chunks(8).collect();
            assert_eq!(words.len(), 1, "seed {seed} round {round}: an answer made of two");
        }
    }
}

/// Registers whose reads are answered by the first one's value, many times over, so that a mixture shows.
#[derive(Default)]
struct Wide(Registers);

impl Service for Wide {
    fn classify(request: &[u8]) -> Class {
        Registers::classify(request)
    }
    fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply) {
        self.0.apply(context, request, reply);
    }
    fn query(&self, _: &Context, _: &Bytes, reply: &mut Reply) {
        reply.write(&self.0.value(1).to_be_bytes().repeat(2000));
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.snapshot()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0.restore(snapshot)
    }
}

/// §1, §3.3: after 65 536 requests a plain client's rid names somebody else, even if the bytes are the same.
#[test]
pub(crate) fn a_rid_wraps_and_is_reused_with_another_body_and_with_the_same_body() {
    let mut s = Scenario::cluster(3).registers();
    s.elect();
    let me = "10.9.9.9:777".parse().unwrap();
    let mut send = |rid: u16, request: Request| {
        let [high, low] = rid.to_be_bytes();
        let mut packet = vec![0xcc, 8, 2, 0xc0, high, low, 0, 1];
        packet.extend_from_slice(&request.encode());
        s.send_raw_to_group(me, packet.into());
        let mut answers = Vec::new();
        s.run_until(Duration::from_millis(20), |world| {
            answers.extend(world.mailbox(me));
            !answers.is_empty()
        });
        answers.first().and_then(|answer| decode_reply(&answer[8..]))
    };
    assert_eq!(send(7, Add(1, 1)), Some(1));
    assert_eq!(send(7, Add(1, 2)), Some(3), "another body is another request at once");
    assert_eq!(send(7, Add(1, 1)), None, "the same body is a copy");
    // The limit is documented: 16 384 newer requests of this address and port, or some seconds.
    for rid in 1000..17_400 {
        assert!(send(rid, Get(1)).is_some(), "{rid}");
    }
    assert_eq!(send(7, Add(1, 1)), Some(4), "now it is a new request");
    s.converge();
}
