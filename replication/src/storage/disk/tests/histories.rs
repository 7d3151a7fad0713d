//! Any history, and anything that becomes of it.

use proptest::prelude::*;

use super::*;

/// Batches that fit each other, and whether a sync follows.
fn histories() -> impl Strategy<Value = Vec<(Persist, bool)>> {
    let step = (0..10u8, 0..4u64, prop::collection::vec(0..2u64, 1..4), 0..1200usize, any::<bool>());
    prop::collection::vec(step, 1..14).prop_map(|steps| {
        let (mut stored, mut term) = (Stored::default(), 1);
        let one = |(kind, back, rises, len, sync): (u8, u64, Vec<u64>, usize, bool)| {
            let last = stored.base.0 + stored.records.len() as u64;
            let batch = if kind < 8 {
                let first = (last + 1).saturating_sub(back).max(stored.base.0 + 1);
                let terms: Vec<u64> = rises
                    .iter()
                    .map(|rise| {
                        term += rise;
                        term
                    })
                    .collect();
                batch(first, &terms, len)
            } else {
                let index = if kind == 8 { last.saturating_sub(back) } else { last + back };
                compaction(index.max(stored.base.0), stored.term_at(index).unwrap_or(term))
            };
            if let Some(compacted) = batch.compacted {
                stored.put_compacted(compacted);
            }
            for (record, index) in batch.records.iter().zip(batch.first..) {
                stored.put_record(index, record.clone());
            }
            (batch, sync)
        };
        steps.into_iter().map(one).collect()
    })
}

/// Writes a history. Returns the states of the model, which of them is safe, and a copy of what is there without an end.
fn play(place: &Place, history: &[(Persist, bool)]) -> (Vec<Stored>, usize, usize, Place) {
    let batches: Vec<Persist> = history.iter().map(|(batch, _)| batch.clone()).collect();
    let (states, after) = model(&batches);
    let (mut store, _) = place.load();
    // Nothing is removed while it is copied.
    store.steps.look = Some(Box::new(|| ()));
    // What is safe now, and what was safe before the last group.
    let (mut safe, mut before) = (0, 0);
    for (n, (batch, sync)) in history.iter().enumerate() {
        store.write(batch).unwrap();
        if *sync {
            store.sync().unwrap();
            (safe, before) = (after[n + 1], safe);
        }
    }
    let copy = place.copy();
    (states, safe, before, copy)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Nothing that was acknowledged is lost in silence, whatever becomes of the files of a store that was closed.
    #[test]
    fn a_closed_store_is_whole_or_damaged(
        history in histories(),
        segment in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let place = Place::new();
        let states = play(&place, &history).0;
        let segments = segments_in(&place.0).unwrap();
        let path = place.segment(*segment.get(&segments));
        change(&path, |bytes| {
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 0x10 }
        });
        match place.found() {
            Ok(stored) => prop_assert_eq!(&stored, states.last().unwrap()),
            Err(error) => prop_assert!(matches!(error, StorageError::Damaged(_)), "{}", error),
        }
    }

    /// Of one that was not, only the last group may be lost: after that nobody had the time to say that it is safe.
    #[test]
    fn an_open_store_is_whole_but_for_its_last_group_or_damaged(
        history in histories(),
        segment in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
    ) {
        let place = Place::new();
        let (states, _, before, copy) = play(&place, &history);
        let segments = segments_in(&copy.0).unwrap();
        change(&copy.segment(*segment.get(&segments)), |bytes| {
            // One that was only going to be made may have nothing in it.
            let at = at.index(bytes.len().max(1));
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x10);
        });
        match copy.found() {
            Ok(stored) => prop_assert!(states[before..].contains(&stored), "{:?}", stored),
            Err(error) => prop_assert!(matches!(error, StorageError::Damaged(_)), "{}", error),
        }
    }

    /// The machine dies while a group is written: any of its pages may be missing, and the rest is there.
    #[test]
    fn a_death_of_the_machine_leaves_what_was_safe(
        history in histories(),
        last in prop::collection::vec((1..4u64, 0..6000usize), 1..5),
        lost in any::<u32>(),
    ) {
        let place = Place::new();
        let (states, ..) = play(&place, &history);
        // Closed and opened: all of it is safe.
        let (mut store, stored) = place.load();
        prop_assert_eq!(&stored, states.last().unwrap());
        store.segment_bytes = u64::MAX;
        store.write(&Persist { lives: vec![(N1, 1000)], ..batch(1, &[], 0) }).unwrap();
        store.sync().unwrap();
        let before = fs::read(place.segment(store.number)).unwrap();
        // What is written then is not synced by itself.
        store.rest().unwrap();
        let mut model = stored;
        model.lives.push((N1, 1000));
        let mut may = vec![model.clone()];
        for (count, len) in last {
            let first = model.base.0 + model.records.len() as u64 + 1;
            let batch = Persist { lives: Vec::new(), hard_state: None, ..batch(first, &vec![99; count as usize], len) };
            store.write(&batch).unwrap();
            for (record, index) in batch.records.iter().zip(first..) {
                model.put_record(index, record.clone());
            }
            may.push(model.clone());
        }
        store.sync().unwrap();
        let copy = place.copy();
        change(&copy.segment(store.number), |bytes| {
            for (page, n) in bytes.chunks_mut(512).zip(0..).filter(|(_, n)| lost >> (n % 32) & 1 == 1) {
                let there = before.get(n * 512..).unwrap_or_default();
                let len = there.len().min(page.len());
                page[..len].copy_from_slice(&there[..len]);
                page[len..].fill(0);
            }
        });
        drop(store);
        let found = copy.found();
        prop_assert!(found.as_ref().is_ok_and(|found| may.contains(found)), "{:?}", found);
    }
}
