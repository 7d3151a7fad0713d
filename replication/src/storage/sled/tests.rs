use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::segment::Key;
use super::*;
use crate::entry::ENTRY_LEN;
use crate::id::{Incarnation, NodeId};
use crate::membership::Addresses;
use crate::storage::StoredRecord;

const N1: MemberId = MemberId::new(NodeId(1), Incarnation(1));

/// A directory that is removed in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hovercraft-store-{:016x}", entropy::draw())))
    }

    fn open(&self) -> Result<SledStorage, StorageError> {
        match SledStorage::open(&self.0, GroupId(1), N1.node(), Safety::Synced)? {
            Some(store) => Ok(store),
            None => SledStorage::make(&self.0, GroupId(1), N1, &membership(), Safety::Synced),
        }
    }

    /// Opens it with small segments, and reads it.
    fn load(&self) -> (SledStorage, Stored) {
        let mut store = self.open().unwrap();
        store.segment_bytes = 4 << 10;
        let stored = store.load().unwrap();
        (store, stored)
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment_path(&self.0, number)
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

/// A segment's database, as soon as sled has let go of it.
fn database(path: &Path) -> sled::Db {
    Segment::open(path).unwrap().db
}

fn terms(stored: &Stored) -> Vec<u64> {
    stored.records.iter().map(|record| record.term).collect()
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
fn large_batches_are_synced_wherever_sled_puts_them() {
    let place = Place::new();
    let mut store = place.open().unwrap();
    store.load().unwrap();
    for n in 0..20 {
        store.write(&batch(1 + 8 * n, &[1; 8], 64 << 10)).unwrap();
        store.sync().unwrap();
        let blobs = fs::read_dir(place.segment(1).join(BLOBS)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(store.current.blobs, blobs.collect());
    }
    drop(store);
    assert_eq!(terms(&place.load().1).len(), 160);
}

/// sled 0.34 hangs when it is given much at once: see [`segment`].
#[test]
fn much_at_once_does_not_hang() {
    let place = Place::new();
    let mut store = place.open().unwrap();
    store.load().unwrap();
    for n in 0..400 {
        store.write(&batch(1 + 64 * n, &[1; 64], 1000)).unwrap();
        if n % 16 == 0 {
            store.sync().unwrap();
        }
    }
    drop(store);
    assert_eq!(terms(&place.load().1).len(), 64 * 400);
}

#[test]
fn a_last_batch_of_which_parts_are_missing_is_dropped_and_any_other_is_damage() {
    let place = Place::new();
    let (mut store, _) = place.load();
    store.write(&batch(1, &[1], 0)).unwrap();
    store.write(&batch(2, &[1, 1], 8 << 10)).unwrap();
    store.current.db.remove(Key { number: 1, part: 1, parts: 3 }.emit()).unwrap().expect("it was there");
    drop(store);
    let (mut store, stored) = place.load();
    assert_eq!(terms(&stored), [1]);
    store.write(&batch(2, &[5], 0)).unwrap();
    drop(store);
    let (mut store, stored) = place.load();
    assert_eq!(terms(&stored), [1, 5], "the number is used again");
    store.write(&batch(3, &[6], 0)).unwrap();
    store.current.db.remove(Key { number: 1, part: 0, parts: 1 }.emit()).unwrap().expect("it was there");
    drop(store);
    assert!(matches!(place.open().unwrap().load(), Err(StorageError::Damaged(_))));
}

#[test]
fn what_is_not_ours_is_refused() {
    let place = Place::new();
    let store = place.open().unwrap();
    assert!(matches!(place.open(), Err(StorageError::InUse(_))));
    drop(store);
    let other = SledStorage::open(&place.0, GroupId(1), NodeId(2), Safety::Synced);
    let error = other.unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }) && error.to_string().contains("n1.1"), "{error}");
    assert!(SledStorage::open(&place.0, GroupId(2), NodeId(1), Safety::Synced).is_err());
    let somewhere = Place::new();
    fs::create_dir(&somewhere.0).unwrap();
    fs::write(somewhere.0.join("letter"), "dear").unwrap();
    assert!(matches!(somewhere.open(), Err(StorageError::NotAStore(_))));
}

/// A store of three segments, the last of them fresh: identity, beginnings, ends, batches with everything that there is
/// in them.
fn three_segments(place: &Place) {
    let (mut store, _) = place.load();
    store.write(&batch(1, &[1, 1, 1], 2000)).unwrap();
    store.write(&compaction(1, 1)).unwrap();
    store.write(&batch(4, &[2], 10)).unwrap();
    store.write(&Persist { compacted: Some((9, 3)), ..batch(10, &[3], 10) }).unwrap();
    assert_eq!(store.number, 3);
}

#[test]
fn any_changed_value_is_found() {
    let place = Place::new();
    three_segments(&place);
    let expected = place.load().1;
    assert_eq!((expected.base, terms(&expected)), ((9, 3), vec![3]));
    let mut kinds = BTreeMap::new();
    for number in 1..=3 {
        let keys: Vec<_> = database(&place.segment(number)).iter().keys().map(Result::unwrap).collect();
        for key in keys {
            let len = database(&place.segment(number)).get(&key).unwrap().unwrap().len();
            *kinds
                .entry(if key[0] == b'j' { "batch" } else { str::from_utf8(&key).unwrap() }.to_owned())
                .or_insert(0) += 1;
            // Of a batch: version, flags, counts, hard state, compaction, lives, records, checksum.
            for at in (0..len).step_by(if len > 200 { 499 } else { 11 }).chain([len - 1]) {
                let flip = || {
                    let db = database(&place.segment(number));
                    let mut value = db.get(&key).unwrap().unwrap().to_vec();
                    value[at] ^= 1;
                    db.insert(&key, value).unwrap();
                };
                flip();
                let found = place.open().and_then(|mut store| store.load());
                assert!(matches!(found, Err(StorageError::Damaged(_))), "{number} {key:?} {at}: {found:?}");
                flip();
            }
        }
    }
    assert_eq!(
        kinds,
        [("batch", 6), ("beginning", 3), ("identity", 3), ("next", 2)].map(|(k, n)| (k.to_owned(), n)).into()
    );
    assert_eq!(place.load().1, expected);
}

#[test]
fn a_segment_that_is_missing_is_damage() {
    for missing in [2, 3] {
        let place = Place::new();
        three_segments(&place);
        fs::remove_dir_all(place.segment(missing)).unwrap();
        let found = place.open().and_then(|mut store| store.load());
        assert!(matches!(found, Err(StorageError::Damaged(_))), "{missing}: {found:?}");
    }
    let place = Place::new();
    let (mut store, _) = place.load();
    store.write(&batch(1, &[1, 1, 1], 2000)).unwrap();
    store.write(&batch(4, &[2], 10)).unwrap();
    assert_eq!(store.number, 2);
    drop(store);
    fs::remove_dir_all(place.segment(1)).unwrap();
    let found = place.open().and_then(|mut store| store.load());
    assert!(matches!(found, Err(StorageError::Damaged(_))), "{found:?}");
}

#[test]
fn a_newer_version_is_refused() {
    for key in [IDENTITY, BEGINNING] {
        let place = Place::new();
        drop(place.load());
        let db = database(&place.segment(1));
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[1] = 9;
        value.truncate(value.len() - 8);
        db.insert(key, with_checksum(value)).unwrap();
        drop(db);
        let found = place.open().and_then(|mut store| store.load());
        assert_eq!(found.map(|_| ()), Err(StorageError::Version { found: 9, known: codec::VERSION }));
    }
}

#[test]
fn what_version_1_has_left_is_read_and_taken_over() {
    let place = Place::new();
    unpack(include_bytes!("version_1.bin"), &place.0);
    let (mut store, stored) = place.load();
    assert_eq!((terms(&stored), store.identity().life), (vec![1, 2, 2, 2], 0x578b_3707_615c_eade));
    assert_eq!(stored.hard_state, HardState { term: 2, vote: Some(N1) });
    assert_eq!((stored.records[0].body.len(), stored.records[1].body.len()), (10, 9000));
    assert_eq!(stored.lives, [(N1, 1), (N1, 2), (N1, 4)]);
    // A program of version 1 does not take it for its own any more.
    let left = database(&place.0).get(IDENTITY).unwrap().unwrap();
    assert_eq!(left[..2], codec::VERSION.to_be_bytes());
    store.write(&batch(5, &[3], 0)).unwrap();
    drop(store);
    let (mut store, stored) = place.load();
    assert_eq!(terms(&stored), [1, 2, 2, 2, 3]);
    store.write(&compaction(4, 2)).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_eq!(place.names(), ["journal-0000000001"]);
    let (store, stored) = place.load();
    assert_eq!((stored.base, terms(&stored), store.identity().life), ((4, 2), vec![3], 0x578b_3707_615c_eade));
}

/// Files as they were packed: name, length, and the ranges that are not zeros.
fn unpack(mut from: &[u8], to: &Path) {
    use bytes::Buf;
    fs::create_dir_all(to.join(BLOBS)).unwrap();
    while from.has_remaining() {
        let (name_len, len, ranges) = (from.get_u32() as usize, from.get_u32() as usize, from.get_u32());
        let name = String::from_utf8(from.copy_to_bytes(name_len).to_vec()).unwrap();
        let mut bytes = vec![0; len];
        for _ in 0..ranges {
            let (at, len) = (from.get_u32() as usize, from.get_u32() as usize);
            from.copy_to_slice(&mut bytes[at..at + len]);
        }
        fs::write(to.join(name), bytes).unwrap();
    }
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
        most = most.max(place.names().len());
    }
    // Those with the entries that are kept, the one that is written, one that is prepared, what is being removed.
    assert!(most <= 10, "{most} segments");
    assert!(store.number > 20);
    drop(store);
    let stored = place.load().1;
    assert_eq!((stored.base, stored.records.len()), ((185, 3), 14));
    assert_eq!(stored.lives.len(), 199);
}

/// What a death of the process leaves at any moment: copies of the directory, made around every change.
#[test]
fn a_death_at_any_moment_leaves_a_part_of_what_was_written() {
    let batches = [
        batch(1, &[1, 1], 1500),
        batch(3, &[1], 1500),
        compaction(2, 1),
        batch(4, &[2, 2], 1500),
        batch(5, &[3], 1500),
        compaction(5, 3),
        batch(6, &[3], 1500),
        // Beyond the log, with a new term.
        Persist { hard_state: Some(HardState { term: 4, vote: None }), ..compaction(20, 4) },
        batch(21, &[4], 1500),
        // Beside the log.
        Persist { compacted: Some((21, 5)), ..batch(22, &[5], 1500) },
        batch(23, &[5], 3000),
        compaction(23, 5),
        batch(24, &[5], 10),
    ];
    let (states, after) = model(&batches);
    let place = Place::new();
    let copies: Arc<Mutex<Vec<(Place, usize, usize)>>> = Arc::default();
    let progress = Arc::new(Mutex::new((0, 0)));
    let (mut store, _) = place.load();
    let look = {
        let (copies, progress, from) = (Arc::clone(&copies), Arc::clone(&progress), place.0.clone());
        move || {
            let copy = Place::new();
            copy_all(&from, &copy.0);
            let (safe, written) = *progress.lock().unwrap();
            copies.lock().unwrap().push((copy, safe, written));
        }
    };
    store.steps.look = Some(Box::new(look));
    for (n, batch) in batches.iter().enumerate() {
        *progress.lock().unwrap() = (after[n], after[n + 1]);
        store.write(batch).unwrap();
        store.sync().unwrap();
    }
    let removed = place.names().len();
    assert!(store.number >= 5 && removed <= 3, "{} segments, {removed} left", store.number);
    drop(store);
    let copies = std::mem::take(&mut *copies.lock().unwrap());
    assert!(copies.len() > 40, "{}", copies.len());
    for (at, (copy, safe, written)) in copies.iter().enumerate() {
        let stored = copy.load().1;
        let found = (*safe..=*written).any(|state| states[state] == stored);
        assert!(found, "copy {at}, between {safe} and {written}: {stored:?}");
        let again = copy.load().1;
        assert_eq!(again, stored, "copy {at}");
    }
    assert_eq!(place.load().1, states[states.len() - 1]);
}

/// What a store may have after each part of each batch, and the place in there after each whole batch.
fn model(batches: &[Persist]) -> (Vec<Stored>, Vec<usize>) {
    let (mut states, mut after) = (vec![Stored::default()], vec![0]);
    let mut stored = Stored::default();
    for batch in batches {
        stored.hard_state = batch.hard_state.unwrap_or(stored.hard_state);
        stored.lives.extend(&batch.lives);
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
