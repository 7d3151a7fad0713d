//! What other versions have left.

use super::*;

#[test]
fn a_newer_version_is_refused() {
    let place = Place::new();
    drop(place.load());
    let refused = |found: Result<Stored, StorageError>| {
        assert!(matches!(found, Err(StorageError::Version { found: 9, .. })), "{found:?}");
    };
    for key in ["identity", "first", "last", "safe"] {
        let copy = place.copy();
        let db = open_database(&registers_path(&copy.0)).unwrap();
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[1] = 9;
        value.truncate(value.len() - 8);
        let sum = codec::checksum(&value);
        value.extend(sum.to_be_bytes());
        db.insert(key, value).unwrap();
        drop(db);
        refused(copy.found());
    }
    change(&place.segment(1), |bytes| {
        bytes[9] = 9;
        let sum = crc32fast::hash(&bytes[..BEGINNING_LEN - 4]);
        bytes[BEGINNING_LEN - 4..BEGINNING_LEN].copy_from_slice(&sum.to_be_bytes());
    });
    refused(place.found());
}

#[test]
fn what_version_2_has_left_is_read_and_taken_over() {
    let place = Place::new();
    unpack(include_bytes!("../version_2.bin"), &place.0);
    // A conversion that died halfway.
    let half = Registers::open(&registers_path(&place.0), Safety::Synced).unwrap();
    half.put(Register::Last, 1).unwrap();
    drop(half);
    fs::write(place.segment(1), [1; 5000]).unwrap();
    let other = DiskStorage::open(&place.0, GroupId(1), NodeId(2), Safety::Synced);
    assert!(matches!(other, Err(StorageError::Foreign { .. })));
    let life = 0x8ef1_bd81_cd04_c10d;
    let check = |place: &Place| {
        let (store, stored) = place.load();
        assert_eq!((store.identity().life, store.identity().membership.as_ref()), (life, Some(&membership())));
        assert_eq!((stored.base, terms(&stored)), ((1, 1), vec![1, 1, 2, 2, 3, 3]));
        assert_eq!(stored.hard_state, HardState { term: 3, vote: Some(N1) });
        assert_eq!(stored.lives, [(N1, 1), (N1, 4), (N1, 5), (N1, 7)]);
        let lens: Vec<usize> = stored.records.iter().map(|record| record.body.len()).collect();
        assert_eq!(lens, [2000, 2000, 10, 9000, 9000, 5]);
        assert!(stored.records.iter().all(|record| record.body.iter().all(|byte| u64::from(*byte) == record.term)));
        store
    };
    check(&place);
    assert_eq!(place.names(), ["registers", "segment-0000000001"]);
    let mut store = check(&place);
    store.write(&batch(8, &[4], 3)).unwrap();
    drop(store);
    assert_eq!(terms(&place.load().1), [1, 1, 2, 2, 3, 3, 4]);
}

#[test]
fn damage_in_what_version_2_has_left_is_found() {
    let place = Place::new();
    unpack(include_bytes!("../version_2.bin"), &place.0);
    fs::remove_dir_all(place.0.join("journal-0000000002")).unwrap();
    assert!(matches!(place.found(), Err(StorageError::Damaged(_))));
    for number in 1..=3 {
        let whole = Place::new();
        unpack(include_bytes!("../version_2.bin"), &whole.0);
        let path = whole.0.join(format!("journal-{number:010}"));
        let keys: Vec<_> = open_database(&path).unwrap().iter().keys().map(Result::unwrap).collect();
        for key in keys {
            let flip = || {
                let db = open_database(&path).unwrap();
                let mut value = db.get(&key).unwrap().unwrap().to_vec();
                let at = value.len() / 2;
                value[at] ^= 1;
                db.insert(&key, value).unwrap();
            };
            flip();
            let found = whole.found();
            assert!(matches!(found, Err(StorageError::Damaged(_))), "{number} {key:?}: {found:?}");
            flip();
        }
    }
}

#[test]
fn version_1_is_refused_by_name() {
    let place = Place::new();
    unpack(include_bytes!("../version_1.bin"), &place.0);
    assert_eq!(place.found(), Err(StorageError::Version { found: 1, known: 3 }));
}

/// Files as they were packed: name, length, and the ranges that are not zeros.
fn unpack(mut from: &[u8], to: &Path) {
    use bytes::Buf;
    while from.has_remaining() {
        let (name_len, len, ranges) = (from.get_u32() as usize, from.get_u32() as usize, from.get_u32());
        let name = String::from_utf8(from.copy_to_bytes(name_len).to_vec()).unwrap();
        let mut bytes = vec![0; len];
        for _ in 0..ranges {
            let (at, len) = (from.get_u32() as usize, from.get_u32() as usize);
            from.copy_to_slice(&mut bytes[at..at + len]);
        }
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(name), bytes).unwrap();
    }
}
