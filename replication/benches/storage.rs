//! `cargo bench -p hovercraft --bench storage`: the store on disk against a bare append and fdatasync of as many bytes, on
//! the same disk, in turns.
//!
//! What counts is the ratio: disks differ, and this one has other users.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::entry::ENTRY_LEN;
use hovercraft::storage::{DiskStorage, Persist, Safety, Storage, StoredRecord};
use hovercraft::{Addresses, GroupId, Incarnation, MemberId, Membership, NodeId};
use r2p2::udp::Clock;

/// Bytes of each request.
const BODY: usize = 64;
/// Turns of each side, and syncs in a turn.
const TURNS: usize = 20;
const SYNCS: usize = 25;

fn main() {
    let directory = std::env::temp_dir().join(format!("hovercraft-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory for temporary files");
    println!("in {}, {BODY} B per request, {} syncs each", directory.display(), TURNS * SYNCS);
    println!("{:>8} {:>12} {:>12} {:>8} {:>14}", "entries", "bare", "store", "ratio", "CPU per entry");
    for entries in [1, 32, 512] {
        measure(&directory.join(entries.to_string()), entries);
    }
    fs::remove_dir_all(&directory).expect("it is ours");
}

fn measure(directory: &Path, entries: u64) {
    let member = MemberId::new(NodeId(1), Incarnation(1));
    let address = "127.0.0.1:1".parse().expect("an address");
    let membership =
        Membership::of_voters([(member, Addresses { peers: address, requests: address, group_requests: None })]);
    let mut store = DiskStorage::make(directory, GroupId(1), member, &membership, Safety::Synced).expect("a store");
    store.load().expect("nothing yet");
    let mut bare = File::create(directory.join("bare")).expect("a file");
    let record = StoredRecord { term: 1, entry: vec![7; ENTRY_LEN].into(), body: Bytes::from_static(&[7; BODY]) };
    let bytes = vec![7; entries as usize * (ENTRY_LEN + BODY + 12)];
    let (mut bare_time, mut store_time, mut cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut batch = Persist {
        number: 0,
        hard_state: None,
        lives: Vec::new(),
        compacted: None,
        first: 1,
        records: vec![record; entries as usize],
    };
    let clock = Clock::new();
    for _ in 0..TURNS {
        let began = clock.now();
        for _ in 0..SYNCS {
            bare.write_all(&bytes).and_then(|()| bare.sync_data()).expect("room");
        }
        let (turn, cpu_before) = (clock.now(), cpu_time());
        for _ in 0..SYNCS {
            batch.number += 1;
            store.write(&batch).and_then(|()| store.sync()).expect("room");
            batch.first += entries;
        }
        bare_time += turn.since(began);
        store_time += clock.now().since(turn);
        cpu += cpu_time() - cpu_before;
    }
    let per_sync = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6 / (TURNS * SYNCS) as f64);
    println!(
        "{entries:>8} {:>12} {:>12} {:>7.0}% {:>14}",
        per_sync(bare_time),
        per_sync(store_time),
        100.0 * bare_time.as_secs_f64() / store_time.as_secs_f64(),
        format!("{:.2} us", cpu.as_secs_f64() * 1e6 / (TURNS * SYNCS) as f64 / entries as f64),
    );
}

/// Processor time of this process, all threads.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero timespec is one, and the call writes a whole one.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
