use std::net::Ipv4Addr;

use r2p2::client::Outcome;
use r2p2::server::Via;

use super::*;

fn config(most: usize) -> RecordingConfig {
    RecordingConfig { datagrams_max: most, moments_max: most, ..RecordingConfig::default() }
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn send(recording: &mut Recording, id: u64) {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let (from, to, packet) = (Party::Node(1), Party::Node(2), Bytes::from_static(b"x"));
    let flight = Flight { at: at(id), from, to, via: Via::Unicast, what: "append", packet: &packet };
    recording.sent(id, &flight, [address; 2], Sent::default());
}

fn happen(recording: &mut Recording, nanos: u64, what: What) {
    recording.happened(Happening { at: at(nanos), what }, || "why".to_owned());
}

fn delivered(id: u64) -> What {
    What::Delivered { id, from: Party::Node(1), to: Party::Node(2), what: "append", len: 1 }
}

fn lost(id: u64) -> What {
    What::Lost { id, from: Party::Node(1), to: Party::Node(2), what: "append", len: 1 }
}

#[test]
fn datagrams_find_their_fate() {
    let mut recording = Recording::new(config(10), 2, 1);
    for id in 1..=3 {
        send(&mut recording, id);
    }
    happen(&mut recording, 20, delivered(2));
    happen(&mut recording, 30, lost(1));
    let fates: Vec<Fate> = recording.datagrams().map(|datagram| datagram.fate).collect();
    assert_eq!(fates, [Fate::Lost(at(30)), Fate::Delivered(at(20)), Fate::UnderWay]);
    assert_eq!(recording.end, at(30));
    assert_eq!(recording.moments().count(), 0, "a datagram's fate is no moment");
}

#[test]
fn the_oldest_goes_first_and_is_counted() {
    let mut recording = Recording::new(config(2), 2, 1);
    for id in 1..=5 {
        send(&mut recording, id);
        happen(&mut recording, id, What::Killed(id as u16));
        recording.invoked(at(id), 0, Ticket(id), Kind::Write, Bytes::new());
    }
    // What is not there any more is not mistaken for what is.
    happen(&mut recording, 9, lost(1));
    happen(&mut recording, 9, delivered(4));
    assert_eq!(recording.datagrams().map(|datagram| datagram.id).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(
        recording.datagrams().map(|datagram| datagram.fate.name()).collect::<Vec<_>>(),
        ["delivered", "under way"]
    );
    assert_eq!(recording.moments().map(|moment| moment.what).collect::<Vec<_>>(), [What::Killed(4), What::Killed(5)]);
    assert_eq!(recording.left_out(), LeftOut { datagrams: 3, moments: 3, operations: 3 });

    let completion = |ticket| Completion {
        ticket: Ticket(ticket),
        outcome: Outcome::Unknown,
        entry_index: None,
        from: None,
        attempts: 1,
        submitted: at(ticket),
    };
    recording.ended(at(10), 0, &completion(1));
    recording.ended(at(11), 0, &completion(5));
    let ends: Vec<_> = recording.operations().map(|operation| operation.end.as_ref().map(|(at, _)| *at)).collect();
    assert_eq!(ends, [None, Some(at(11))]);
}

#[test]
fn a_partition_is_one_moment() {
    let mut recording = Recording::new(config(9), 3, 1);
    let blocked = |from, to| What::Blocked { from: Party::Node(from), to: Party::Node(to), more: 0 };
    for (nanos, from, to) in [(1, 1, 2), (1, 2, 1), (1, 1, 3), (2, 1, 2)] {
        recording.happened(Happening { at: at(nanos), what: blocked(from, to) }, String::new);
    }
    let told: Vec<String> = recording.moments().map(ToString::to_string).collect();
    let together = "n1 is cut off from n2, and so are 2 more pairs: n1→n2, n2→n1, n1→n3";
    assert_eq!(told, [together, "n1 is cut off from n2"]);
}

#[test]
fn moments_say_why() {
    let mut recording = Recording::new(config(2), 2, 1);
    happen(&mut recording, 1, What::Stopped(2));
    assert_eq!(recording.moments().next().map(ToString::to_string).as_deref(), Some("n2 stops: why"));
}

#[test]
fn unknown_bytes_are_shown_as_they_are() {
    assert_eq!(hexadecimal(&[1, 0xab]), "01ab");
    assert_eq!(hexadecimal(&[0; 17]), format!("{}…", "0".repeat(32)));
}
