//! `cargo bench -p hovercraft --bench restart`: how long a node with a log of 1 GB takes from disk to being ready, and how
//! long merely reading as many bytes takes. `-- 64` only with bodies of 64 bytes.
//!
//! What counts is the ratio, and that it is below 10 s: disks differ, and this one has other users.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use hovercraft::config::NodeConfig;
use hovercraft::entry::{Entry, EntryKind, RequestHead};
use hovercraft::storage::{DiskStorage, HardState, Persist, Safety, Storage, StoredRecord};
use hovercraft::{Addresses, Class, GroupId, Incarnation, MemberId, Membership, Node, NodeId};
use r2p2::udp::Clock;
use r2p2::{Digest, Instant};

/// Bytes of entries and bodies.
const LOG_BYTES: u64 = 1 << 30;
/// Bytes of a batch.
const BATCH_BYTES: u64 = 64 << 10;

fn main() {
    let wanted: Vec<usize> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let directory = env::temp_dir().join(format!("hovercraft-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory for temporary files");
    println!("in {}, a log of {} MiB", directory.display(), LOG_BYTES >> 20);
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "body", "entries", "on disk", "read raw", "load", "check", "total", "memory"
    );
    for body in [1000, 64].into_iter().filter(|body| wanted.is_empty() || wanted.contains(body)) {
        measure(&directory.join(body.to_string()), body);
    }
    fs::remove_dir_all(&directory).expect("it is ours");
}

fn measure(directory: &Path, body: usize) {
    let member = MemberId::new(NodeId(1), Incarnation(1));
    let address = "127.0.0.1:1".parse().expect("an address");
    let addresses = Addresses { peers: address, requests: address, group_requests: None };
    let membership = Membership::of_voters([(member, addresses)]);
    let entries = write(directory, member, &membership, body);
    let clock = Clock::new();
    let began = clock.now();
    let on_disk = read_raw(directory);
    let read = clock.now();
    let store = DiskStorage::open(directory, GroupId(1), member.node(), Safety::Synced).expect("ours");
    let stored = store.expect("it is there").load().expect("whole");
    assert_eq!(stored.records.len() as u64, entries);
    let loaded = clock.now();
    let config = NodeConfig { durable: true, ..NodeConfig::new(member, membership) };
    let node = Node::restart(loaded, config, |_| Class::Write, stored).expect("it was a node's");
    let checked = clock.now();
    println!(
        "{body:>6} {entries:>9} {:>8}M {:>9} {:>9} {:>9} {:>9} {:>11}M",
        on_disk >> 20,
        seconds(read.since(began)),
        seconds(loaded.since(read)),
        seconds(checked.since(loaded)),
        seconds(checked.since(read)),
        peak_memory() >> 20,
    );
    drop(node);
}

/// Fills a store; returns how many entries are in it.
fn write(directory: &Path, member: MemberId, membership: &Membership, body: usize) -> u64 {
    let mut store = DiskStorage::make(directory, GroupId(1), member, membership, Safety::Synced).expect("a store");
    store.load().expect("nothing yet");
    let request = RequestHead {
        client: "127.0.0.1:9".parse().expect("an address"),
        rid: 1,
        session: Some(r2p2::wire::Session { client: 1, seq: 1, first_unacked: 1 }),
        identity: Digest(1),
        body_len: body as u32,
    };
    let kind = EntryKind::Request;
    let entry = Entry { kind, read_only: false, replier: NodeId(1), request, time: Instant::ZERO };
    let mut bytes = Vec::new();
    entry.emit(&mut bytes);
    let record = StoredRecord { term: 1, entry: bytes.into(), body: vec![7; body].into() };
    let len = (record.entry.len() + record.body.len()) as u64;
    let per_batch = BATCH_BYTES / len;
    let mut batch = Persist {
        number: 0,
        hard_state: Some(HardState { term: 1, vote: None }),
        lives: Vec::new(),
        compacted: None,
        first: 1,
        records: vec![record; per_batch as usize],
    };
    while batch.first * len < LOG_BYTES {
        batch.number += 1;
        store.write(&batch).expect("room");
        if batch.number.is_multiple_of(64) {
            store.sync().expect("room");
        }
        batch.first += per_batch;
    }
    store.sync().expect("room");
    batch.first - 1
}

/// Reads all files, as a lower limit. Returns how many bytes that were.
fn read_raw(directory: &Path) -> u64 {
    let (mut sum, mut buffer) = (0, vec![0; 1 << 20]);
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_dir() {
            sum += read_raw(&entry.path());
            continue;
        }
        let mut file = File::open(entry.path()).expect("a file");
        loop {
            let len = file.read(&mut buffer).expect("bytes");
            if len == 0 {
                break;
            }
            sum += len as u64;
        }
    }
    sum
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The most memory that this process has had.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}
