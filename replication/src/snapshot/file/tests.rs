use super::super::carry_out;
use super::super::tests::{Place, content, state};
use super::*;
use crate::snapshot::{ArchiveEvent, ArchiveWork, MemoryArchive};

/// Everything that can be read of an archive in this directory: snapshots by index with their contents.
fn everything(place: &Place) -> Result<Vec<(LogIndex, Vec<u8>)>, StorageError> {
    let mut archive = FileArchive::open(&place.0, Safety::Synced)?;
    archive.list().iter().map(|info| Ok((info.index, content(&mut archive, info.id)?.1))).collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let place = Place::new();
    // Two chunks, the second of them short.
    let info = place.open().put(7, 3, b"meta", Box::new(state(CHUNK_LEN + 20))).unwrap();
    let file = place.0.join(file_name(&info));
    let good = fs::read(&file).unwrap();
    // All of what there is one of, and enough of the first chunk.
    let first = HEADER_LEN + 9..HEADER_LEN + CHUNK_LEN;
    for at in (0..good.len()).filter(|at| !first.contains(at) || at % 61 == 0) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, &bytes).unwrap();
        let found = everything(&place);
        assert!(matches!(found, Err(StorageError::Damaged(_))), "byte {at}: {found:?}");
    }
    for len in [0, HEADER_LEN, good.len() / 2, good.len() - 1] {
        fs::write(&file, &good[..len]).unwrap();
        assert!(matches!(everything(&place), Err(StorageError::Damaged(_))), "{len} bytes");
    }
    fs::write(&file, [&good[..], &[0]].concat()).unwrap();
    assert!(matches!(everything(&place), Err(StorageError::Damaged(_))));
    fs::write(&file, &good).unwrap();
    assert_eq!(everything(&place), Ok(vec![(7, state(CHUNK_LEN + 20))]));
    fs::rename(&file, place.0.join(file_name(&SnapshotInfo { index: 8, ..info }))).unwrap();
    assert!(matches!(everything(&place), Err(StorageError::Damaged(_))), "under another name");
}

#[test]
fn a_newer_version_is_named() {
    let place = Place::new();
    let info = place.open().put(7, 3, b"meta", Box::new(state(20))).unwrap();
    let file = place.0.join(file_name(&info));
    let mut bytes = fs::read(&file).unwrap();
    bytes[9] = 9;
    let sum = checksum(&bytes[..HEADER_LEN - 8]).to_be_bytes();
    bytes[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&sum);
    fs::write(&file, bytes).unwrap();
    assert_eq!(everything(&place), Err(StorageError::Version { found: 9, known: VERSION }));
}

#[test]
fn what_is_damaged_is_not_given_to_others() {
    let place = Place::new();
    let mut archive = place.open();
    let info = archive.put(7, 3, b"meta", Box::new(state(3 * CHUNK_LEN))).unwrap();
    let file = OpenOptions::new().write(true).open(place.0.join(file_name(&info))).unwrap();
    file.write_all_at(&[0xff; 2], HEADER_LEN as u64 + PLACE_LEN + 100).unwrap();
    assert!(archive.read(info.id, 0).is_ok());
    assert!(matches!(archive.read(info.id, 1), Err(StorageError::Damaged(_))));
    fs::remove_file(place.0.join(file_name(&info))).unwrap();
    assert!(matches!(archive.open(info.id), Err(StorageError::Damaged(_))));
}

#[test]
fn the_same_bytes_are_read_by_the_next_version() {
    // What this version writes, byte for byte: whoever changes it has to go on reading this.
    let place = Place::new();
    let info = place.open().put(7, 3, b"meta", Box::new(b"state".to_vec())).unwrap();
    assert_eq!(fs::read(place.0.join(file_name(&info))).unwrap(), VERSION_1);
}

/// What can be done with an archive that has a snapshot of index 1, and which indices may be there afterwards, whenever
/// it stops.
type Doing = (&'static str, fn(&mut FileArchive) -> Result<(), StorageError>, &'static [&'static [LogIndex]]);

const DOINGS: &[Doing] = &[
    ("put", |archive| archive.put(2, 1, b"", Box::new(state(2 * CHUNK_LEN))).map(|_| ()), &[&[1], &[1, 2]]),
    ("receive", receive, &[&[1], &[1, 3]]),
    (
        "put and remove",
        |archive| {
            archive.put(2, 1, b"", Box::new(state(CHUNK_LEN)))?;
            archive.remove_before(2)
        },
        &[&[1], &[1, 2], &[2]],
    ),
    (
        "abandon",
        |archive| {
            archive.begin(SnapshotInfo { id: 1, index: 3, term: 1, len: 100 })?;
            archive.abandon()
        },
        &[&[1]],
    ),
];

fn receive(archive: &mut FileArchive) -> Result<(), StorageError> {
    let mut source = MemoryArchive::new();
    let info = source.put(3, 1, b"", Box::new(state(2 * CHUNK_LEN))).unwrap();
    archive.begin(info)?;
    for number in 0..info.chunks() {
        archive.receive(&source.read(info.id, number)?.unwrap())?;
    }
    archive.seal().map(|_| ())
}

/// Lets each step of each doing fail; calls `check` with the archive, what the doing returned and what may be there.
fn fail_everywhere(error: &StorageError, for_ever: bool, check: fn(&Place, FileArchive, Doing)) {
    for doing @ (name, run, _) in DOINGS.iter().copied() {
        let mut failed = 0;
        for steps in 0.. {
            let place = Place::new();
            place.open().put(1, 1, b"", Box::new(state(100))).unwrap();
            let mut archive = FileArchive::open(&place.0, Safety::Synced).unwrap();
            archive.steps.failing = Some((steps, error.clone(), for_ever));
            let result = run(&mut archive);
            let is_done = archive.steps.failing.is_some() && result.is_ok();
            archive.steps.failing = archive.steps.failing.filter(|_| !is_done);
            assert_eq!(result, if is_done { Ok(()) } else { Err(error.clone()) }, "{name}, {steps} steps");
            check(&place, archive, doing);
            if is_done {
                break;
            }
            failed += 1;
        }
        assert!(failed >= 2, "{name} has only {failed} steps");
    }
}

#[test]
fn a_death_anywhere_leaves_the_old_or_the_new() {
    let died = StorageError::Io("died".to_owned());
    fail_everywhere(&died, true, |place, archive, (name, _, allowed)| {
        drop(archive);
        let there: Vec<LogIndex> = everything(place).unwrap().into_iter().map(|(index, _)| index).collect();
        assert!(allowed.contains(&&there[..]), "{name}: {there:?}");
        let parts = fs::read_dir(&place.0).unwrap().count();
        assert_eq!(parts, there.len(), "nothing else is left");
    });
}

#[test]
fn a_full_disk_leaves_the_archive_usable() {
    let full = StorageError::Full("no space".to_owned());
    fail_everywhere(&full, false, |place, mut archive, (name, _, allowed)| {
        let listed: Vec<LogIndex> = archive.list().iter().map(|info| info.index).collect();
        assert!(allowed.contains(&&listed[..]), "{name}: {listed:?}");
        archive.abandon().unwrap();
        assert_eq!(archive.receiving(), None);
        let info = archive.put(9, 1, b"", Box::new(state(5))).unwrap();
        assert_eq!(content(&mut archive, info.id).unwrap().1, state(5));
        let left = fs::read_dir(&place.0).unwrap().count();
        assert_eq!(left, archive.list().len());
    });
}

#[test]
fn a_full_disk_is_an_event() {
    let place = Place::new();
    let mut archive = place.open();
    let mut source = MemoryArchive::new();
    let info = source.put(3, 1, b"", Box::new(state(10))).unwrap();
    let full = || Some((0, StorageError::Full("no space".to_owned()), false));
    archive.steps.failing = full();
    let begun = carry_out(&mut archive, ArchiveWork::Begin(info));
    assert_eq!(begun, Ok(Some(ArchiveEvent::NotReceived(info))));
    archive.begin(info).unwrap();
    archive.steps.failing = full();
    let received = carry_out(&mut archive, ArchiveWork::Receive(source.read(info.id, 0).unwrap().unwrap()));
    assert_eq!((received, archive.receiving()), (Ok(Some(ArchiveEvent::NotReceived(info))), None));
}

const VERSION_1: &[u8] = b"\
    hcraftsn\0\x01\0\0\0\0\x20\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x03w\xbbSvg)\xd5\xbc\
    \0\0\0\x04metastateU\xf3+\xfd\xdcYqj\
    \x87\xb8\x1d\xc3\xd4\x91\xfdK\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x0d\x0e\xa33(t<\xc1\xbc";
