//! What the death of a process leaves, or of the machine.

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn a_store_that_was_not_finished_is_made_again() {
    let place = Place::new();
    drop(Registers::open(&registers_path(&place.0), Safety::Synced).unwrap());
    assert_eq!(place.copy().found(), Ok(Stored::default()));
    fs::write(place.segment(1), "half").unwrap();
    assert_eq!(place.copy().found(), Ok(Stored::default()));
    let whole = Place::new();
    drop(whole.open().unwrap());
    fs::copy(whole.segment(1), place.segment(1)).unwrap();
    assert_eq!(place.found(), Ok(Stored::default()));
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
    assert!(store.number >= 5 && removed <= 5, "{} segments, {removed} left", store.number);
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

/// Of a group that was being written, a later part may be there without an earlier one.
#[test]
fn a_torn_group_is_dropped_for_good() {
    let place = Place::new();
    let (mut store, _) = place.load();
    store.write(&batch(1, &[1], 100)).unwrap();
    store.sync().unwrap();
    store.write(&batch(2, &[2], 100)).unwrap();
    store.write(&batch(3, &[3], 100)).unwrap();
    store.sync().unwrap();
    let copy = place.copy();
    drop(store);
    let (_, starts) = records_in(&copy.segment(1));
    let [.., second, third, _] = starts[..] else { panic!("{starts:?}") };
    change(&copy.segment(1), |bytes| bytes[second..third].fill(0));
    let (mut store, stored) = copy.load();
    assert_eq!(terms(&stored), [1]);
    // As long as what was there: what came behind that must not come back.
    store.write(&batch(2, &[4], 100)).unwrap();
    store.sync().unwrap();
    let copy = copy.copy();
    drop(store);
    assert_eq!(terms(&copy.load().1), [1, 4]);
}
