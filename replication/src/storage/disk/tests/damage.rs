//! What is not what was written.

use super::*;

#[test]
fn a_segment_of_another_store_is_damage() {
    let (place, other) = (Place::new(), Place::new());
    three_segments(&place);
    three_segments(&other);
    fs::copy(other.segment(2), place.segment(2)).unwrap();
    let found = place.found();
    assert!(matches!(&found, Err(StorageError::Damaged(what)) if what.contains("another store")), "{found:?}");
}

#[test]
fn any_changed_byte_is_found() {
    let place = Place::new();
    three_segments(&place);
    let expected = place.load().1;
    assert_eq!((expected.base, terms(&expected)), ((1, 1), vec![1, 1, 2, 2, 3, 3]));
    for number in 1..=3 {
        let path = place.segment(number);
        let end = *records_in(&path).1.last().unwrap();
        for at in (0..end).step_by(if end > 1000 { 37 } else { 5 }).chain([end - 1]) {
            change(&path, |bytes| bytes[at] ^= 1);
            let found = place.found();
            assert!(matches!(found, Err(StorageError::Damaged(_))), "{number} {at} of {end}: {found:?}");
            change(&path, |bytes| bytes[at] ^= 1);
        }
    }
    let registers = registers_path(&place.0);
    let keys: Vec<_> = open_database(&registers).unwrap().iter().keys().map(Result::unwrap).collect();
    assert_eq!(keys, ["first", "identity", "last", "safe"]);
    for key in keys {
        let len = open_database(&registers).unwrap().get(&key).unwrap().unwrap().len();
        for at in (0..len).step_by(3) {
            let flip = || {
                let db = open_database(&registers).unwrap();
                let mut value = db.get(&key).unwrap().unwrap().to_vec();
                value[at] ^= 1;
                db.insert(&key, value).unwrap();
            };
            flip();
            let found = place.found();
            assert!(matches!(found, Err(StorageError::Damaged(_))), "{key:?} {at}: {found:?}");
            flip();
        }
        let value = open_database(&registers).unwrap().remove(&key).unwrap().unwrap();
        let found = place.found();
        assert!(matches!(found, Err(StorageError::Damaged(_))), "without {key:?}: {found:?}");
        open_database(&registers).unwrap().insert(&key, value).unwrap();
    }
    assert_eq!(place.load().1, expected);
}

/// Whatever becomes of sled's log: all of it is there, or it is damage.
#[test]
fn registers_that_lose_something_are_damage() {
    let place = Place::new();
    three_segments(&place);
    let expected = place.load().1;
    let log = registers_path(&place.0).join(LOG_FILE);
    let len = fs::read(&log).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    let mut refused = 0;
    for at in (0..len).step_by(len / 60) {
        let copy = place.copy();
        change(&registers_path(&copy.0).join(LOG_FILE), |bytes| bytes[at] ^= 1);
        match copy.found() {
            Ok(stored) => assert_eq!(stored, expected, "byte {at}"),
            Err(error) => {
                assert!(matches!(error, StorageError::Damaged(_)), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_segment_that_is_missing_is_damage() {
    for missing in 1..=3 {
        let place = Place::new();
        three_segments(&place);
        fs::remove_file(place.segment(missing)).unwrap();
        let found = place.found();
        assert!(matches!(found, Err(StorageError::Damaged(_))), "{missing}: {found:?}");
    }
}

#[test]
fn missing_registers_are_damage() {
    for segments in [1, 3] {
        let place = Place::new();
        three_segments(&place);
        if segments == 1 {
            (2..=3).for_each(|number| fs::remove_file(place.segment(number)).unwrap());
        }
        fs::remove_dir_all(registers_path(&place.0)).unwrap();
        assert!(matches!(place.found(), Err(StorageError::Damaged(_))));
        fs::create_dir(registers_path(&place.0)).unwrap();
        assert!(matches!(place.found(), Err(StorageError::Damaged(_))));
    }
}

/// A torn group may be dropped; this was none.
#[test]
fn a_batch_that_is_missing_before_one_that_says_it_was_safe_is_damage() {
    for synced in [false, true] {
        let place = Place::new();
        let (mut store, _) = place.load();
        store.write(&batch(1, &[1], 100)).unwrap();
        store.write(&batch(2, &[2], 100)).unwrap();
        if synced {
            store.sync().unwrap();
        }
        store.write(&batch(3, &[3], 100)).unwrap();
        store.sync().unwrap();
        let copy = place.copy();
        drop(store);
        let (_, starts) = records_in(&copy.segment(1));
        let [.., first, second, _, _] = starts[..] else { panic!("{starts:?}") };
        change(&copy.segment(1), |bytes| bytes[first..second].fill(0));
        let found = copy.found();
        assert_eq!(matches!(found, Err(StorageError::Damaged(_))), synced, "{found:?}");
    }
}

#[test]
fn a_journal_that_goes_on_where_the_registers_say_it_ends_is_damage() {
    let place = Place::new();
    three_segments(&place);
    Registers::open(&registers_path(&place.0), Safety::Synced).unwrap().put(Register::Last, 2).unwrap();
    assert!(matches!(place.found(), Err(StorageError::Damaged(_))));
}

/// Nothing is behind it but what was written when nothing happened any more.
#[test]
fn a_last_batch_that_changes_after_a_rest_is_damage() {
    for rest in [false, true] {
        let place = Place::new();
        let (mut store, _) = place.load();
        store.write(&batch(1, &[1], 100)).unwrap();
        store.sync().unwrap();
        if rest {
            store.rest().unwrap();
            let next = store.next;
            store.rest().unwrap();
            assert_eq!(store.next, next, "once is enough");
        }
        let copy = place.copy();
        assert_eq!(terms(&copy.copy().load().1), [1]);
        drop(store);
        let last = records_in(&copy.segment(1)).1[1];
        change(&copy.segment(1), |bytes| bytes[last + 99] ^= 1);
        let found = copy.found();
        assert_eq!(matches!(found, Err(StorageError::Damaged(_))), rest, "{found:?}");
    }
}
