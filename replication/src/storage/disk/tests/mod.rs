mod crashes;
mod damage;
mod histories;
mod versions;

use bytes::Bytes;

use super::directory::{names_in, registers_path, segments_in};
use super::record::BEGINNING_LEN;
use super::registers::{LOG_FILE, open_database};
use super::*;
use crate::entry::ENTRY_LEN;
use crate::id::{GroupId, Incarnation, NodeId};
use crate::membership::{Addresses, Membership};
use crate::storage::{StoredRecord, codec};

const N1: MemberId = MemberId::new(NodeId(1), Incarnation(1));

/// A directory that is removed in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hovercraft-store-{:016x}", entropy::draw())))
    }

    fn open(&self) -> Result<DiskStorage, StorageError> {
        match DiskStorage::open(&self.0, GroupId(1), N1.node(), Safety::Synced)? {
            Some(store) => Ok(store),
            None => DiskStorage::make(&self.0, GroupId(1), N1, &membership(), Safety::Synced),
        }
    }

    /// Opens it with small segments, and reads it.
    fn load(&self) -> (DiskStorage, Stored) {
        let mut store = self.open().unwrap();
        store.segment_bytes = 4 << 10;
        let stored = store.load().unwrap();
        (store, stored)
    }

    /// What is found, or what is wrong with it.
    fn found(&self) -> Result<Stored, StorageError> {
        self.open().and_then(|mut store| store.load())
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment_path(&self.0, number)
    }

    /// As if the process died now.
    fn copy(&self) -> Self {
        let copy = Self::new();
        copy_all(&self.0, &copy.0);
        copy
    }

    fn names(&self) -> Vec<String> {
        let mut names = names_in(&self.0).unwrap();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn membership() -> Membership {
    let address = "127.0.0.1:1".parse().unwrap();
    Membership::of_voters([(N1, Addresses { peers: address, requests: address, group_requests: None })])
}

fn batch(first: u64, terms: &[u64], len: usize) -> Persist {
    let record = |term: &u64| StoredRecord {
        term: *term,
        entry: Bytes::from(vec![*term as u8; ENTRY_LEN]),
        body: Bytes::from(vec![*term as u8; len]),
    };
    let hard_state = terms.last().map(|term| HardState { term: *term, vote: Some(N1) });
    let records = terms.iter().map(record).collect();
    Persist { number: 7, hard_state, lives: vec![(N1, first)], compacted: None, first, records }
}

fn compaction(index: LogIndex, term: u64) -> Persist {
    Persist { compacted: Some((index, term)), hard_state: None, lives: Vec::new(), ..batch(index + 1, &[], 0) }
}

fn terms(stored: &Stored) -> Vec<u64> {
    stored.records.iter().map(|record| record.term).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The salt of a segment, where its records begin, and where the last one ends.
fn records_in(path: &Path) -> (u64, Vec<usize>) {
    let bytes = fs::read(path).unwrap();
    let number = u64::from_be_bytes(bytes[12..20].try_into().unwrap());
    let beginning = Beginning::parse(&bytes, number, Beginning::life_in(&bytes).unwrap()).unwrap();
    let mut starts = vec![BEGINNING_LEN];
    while let Some(record) = record::Record::at(&bytes[starts[starts.len() - 1]..], beginning.salt) {
        starts.push(starts[starts.len() - 1] + record.len());
    }
    (beginning.salt, starts)
}

#[test]
fn what_was_synced_is_there_after_reopening() {
    let place = Place::new();
    let (mut store, stored) = place.load();
    assert_eq!(stored, Stored::default());
    let life = store.identity().life;
    for batch in [batch(1, &[1, 1, 1], 10), batch(2, &[2, 2], 30_000), batch(4, &[2], 0)] {
        store.write(&batch).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let (mut store, stored) = place.load();
    assert_eq!((terms(&stored), store.identity().life), (vec![1, 2, 2, 2], life));
    assert_eq!(stored.hard_state, HardState { term: 2, vote: Some(N1) });
    assert_eq!(stored.records[1].body.len(), 30_000);
    assert_eq!(stored.lives, [(N1, 1), (N1, 2), (N1, 4)]);
    store.write(&batch(5, &[3], 0)).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_eq!(terms(&place.load().1), [1, 2, 2, 2, 3]);
}

#[test]
fn what_does_not_fit_the_buffer_is_written_at_once() {
    let place = Place::new();
    let mut store = place.open().unwrap();
    store.load().unwrap();
    for n in 0..40 {
        store.write(&batch(1 + 8 * n, &[1; 8], 64 << 10)).unwrap();
        let current = store.current_mut();
        assert!(current.len() - current.written() <= BUFFER_MAX as u64);
    }
    store.sync().unwrap();
    let copy = place.copy();
    drop(store);
    assert_eq!(terms(&copy.load().1), [1; 320]);
}

#[test]
fn what_is_not_ours_is_refused() {
    let place = Place::new();
    let store = place.open().unwrap();
    assert!(matches!(place.open(), Err(StorageError::InUse(_))));
    drop(store);
    let other = DiskStorage::open(&place.0, GroupId(1), NodeId(2), Safety::Synced);
    let error = other.unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }) && error.to_string().contains("n1.1"), "{error}");
    assert!(DiskStorage::open(&place.0, GroupId(2), NodeId(1), Safety::Synced).is_err());
    let somewhere = Place::new();
    fs::create_dir(&somewhere.0).unwrap();
    fs::write(somewhere.0.join("letter"), "dear").unwrap();
    assert!(matches!(somewhere.open(), Err(StorageError::NotAStore(_))));
}

/// A store of three segments: beginnings, batches with everything that there is in them.
fn three_segments(place: &Place) {
    let (mut store, _) = place.load();
    store.write(&batch(1, &[1, 1, 1], 2000)).unwrap();
    store.write(&compaction(1, 1)).unwrap();
    store.write(&batch(4, &[2], 10)).unwrap();
    store.write(&batch(5, &[2, 3], 2000)).unwrap();
    store.write(&batch(7, &[3], 10)).unwrap();
    assert_eq!(store.number, 3);
}

#[test]
fn an_endless_log_takes_bounded_room() {
    let place = Place::new();
    let (mut store, _) = place.load();
    let mut most = 0;
    for n in 1..200_u64 {
        store.write(&batch(n, &[n / 50], 500)).unwrap();
        if n % 10 == 0 {
            store.write(&compaction(n - 5, (n - 5) / 50)).unwrap();
        }
        store.sync().unwrap();
        // However slow the thread is that removes them.
        if let Some(removing) = store.removing.take() {
            removing.join().unwrap().unwrap();
        }
        most = most.max(place.names().len());
        if n % 20 == 0 {
            // Files of segments are used again, with what is in them.
            drop(store);
            let stored;
            (store, stored) = place.load();
            assert_eq!((stored.base.0, stored.records.len()), (n - 5, 5));
        }
    }
    // Those with the entries that are kept, the one that is written, one that is prepared, a spare one, the
    // registers.
    assert!(most <= 11, "{most} files");
    assert!(store.number > 20);
    drop(store);
    let stored = place.load().1;
    assert_eq!((stored.base, stored.records.len()), ((185, 3), 14));
    assert_eq!(stored.lives.len(), 199);
}

/// With `os` nothing waits for the disk; otherwise nothing is safe before it is there.
#[test]
fn a_sync_is_one_for_the_disk_if_the_policy_says_so() {
    for safety in [Safety::Written, Safety::Synced] {
        let place = Place::new();
        let mut store = DiskStorage::make(&place.0, GroupId(1), N1, &membership(), safety).unwrap();
        store.segment_bytes = 4 << 10;
        store.load().unwrap();
        for n in 1..20 {
            store.write(&batch(n, &[1], 500)).unwrap();
            store.sync().unwrap();
            let current = store.current_mut();
            assert_eq!(current.len(), current.written());
            assert_eq!(current.synced() == current.written(), safety == Safety::Synced, "{n}");
        }
    }
}

/// What is written makes no file longer, but the first one's.
#[test]
fn syncs_do_not_change_how_long_files_are() {
    let place = Place::new();
    let (mut store, _) = place.load();
    let mut number = 0;
    for n in 1..100_u64 {
        store.write(&batch(n, &[1], 500)).unwrap();
        let before = fs::metadata(place.segment(store.number)).unwrap().len();
        store.sync().unwrap();
        let after = fs::metadata(place.segment(store.number)).unwrap().len();
        assert!(before == after || number != store.number, "{n}: {before} to {after}");
        number = store.number;
    }
    assert!(number > 10);
}

/// What a store may have after each part of each batch, and the place in there after each whole batch.
fn model(batches: &[Persist]) -> (Vec<Stored>, Vec<usize>) {
    let (mut states, mut after) = (vec![Stored::default()], vec![0]);
    let mut stored = Stored::default();
    for batch in batches {
        stored.hard_state = batch.hard_state.unwrap_or(stored.hard_state);
        stored
            .lives
            .extend(batch.lives.iter().filter(|life| !stored.lives.contains(life)).copied().collect::<Vec<_>>());
        states.push(stored.clone());
        if let Some(compacted) = batch.compacted {
            stored.put_compacted(compacted);
            states.push(stored.clone());
        }
        for (record, index) in batch.records.iter().zip(batch.first..) {
            stored.put_record(index, record.clone());
            states.push(stored.clone());
        }
        after.push(states.len() - 1);
    }
    (states, after)
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        // sled renames and removes things on threads of its own.
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            fs::write(to, bytes).unwrap();
        }
    }
}
