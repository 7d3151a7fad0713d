//! Of both archives.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entropy;
use crate::id::NodeId;
use crate::storage::Safety;

/// A directory that is removed in the end.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hovercraft-archive-{:016x}", entropy::draw())))
    }

    pub(super) fn open(&self) -> FileArchive {
        FileArchive::open(&self.0, Safety::Written).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A state of `len` bytes, none like its neighbours.
pub(super) fn state(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Metadata and state of a snapshot, read to the end.
pub(super) fn content(archive: &mut dyn Archive, id: u64) -> Result<(Bytes, Vec<u8>), StorageError> {
    let mut opened = archive.open(id)?.expect("it is there");
    let mut bytes = Vec::new();
    opened.state.read_to_end(&mut bytes).map_err(|error| StorageError::Damaged(error.to_string()))?;
    Ok((opened.meta, bytes))
}

fn both(place: &Place) -> [Box<dyn Archive>; 2] {
    [Box::new(MemoryArchive::new()), Box::new(place.open())]
}

fn all_chunks(archive: &mut dyn Archive, info: &SnapshotInfo) -> Vec<Chunk> {
    (0..info.chunks()).map(|number| archive.read(info.id, number).unwrap().unwrap()).collect()
}

#[test]
fn a_name_leads_back() {
    let info = SnapshotInfo { id: 1, index: 2, term: 3, len: u64::MAX };
    assert_eq!(SnapshotInfo::parse(&info.emit()), info);
    assert_eq!(info.emit()[7..16], [1, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!((info.chunks(), info.chunk_len(u64::MAX)), (1 << 51, 0));
}

#[test]
fn what_is_put_is_there_until_it_is_removed() {
    let place = Place::new();
    for mut archive in both(&place) {
        let lens = [0, 1, CHUNK_LEN - 8, CHUNK_LEN - 7, 5 * CHUNK_LEN];
        let infos: Vec<SnapshotInfo> =
            (1..).zip(lens).map(|(index, len)| archive.put(index, 9, b"meta", Box::new(state(len))).unwrap()).collect();
        assert_eq!(infos.iter().map(SnapshotInfo::chunks).collect::<Vec<_>>(), [1, 1, 1, 2, 6]);
        assert_eq!(archive.list(), infos);
        for (info, len) in infos.iter().zip(lens) {
            assert_eq!(info.len, 8 + len as u64);
            assert_eq!(content(&mut *archive, info.id), Ok((Bytes::from_static(b"meta"), state(len))));
            assert_eq!(archive.read(info.id, info.chunks()), Ok(None));
        }
        assert_eq!(archive.put(2, 9, b"meta", Box::new(state(1))), Ok(infos[1]), "the very same");
        assert_eq!(archive.list(), infos);
        let ids = [infos[1].id, archive.put(2, 8, b"meta", Box::new(state(1))).unwrap().id];
        assert_ne!(ids[0], ids[1], "of another term");
        let mut opened = archive.open(infos[0].id).unwrap().unwrap();
        archive.remove_before(3).unwrap();
        assert_eq!(archive.list(), infos[2..]);
        assert!(archive.open(infos[0].id).unwrap().is_none());
        assert_eq!(archive.read(infos[0].id, 0), Ok(None));
        assert_eq!(opened.state.read_to_end(&mut Vec::new()).unwrap(), 0, "whoever reads it reads on");
    }
    assert_eq!(place.open().list().len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Chunks that come in any order, several times, from two sources, with wrong ones among them.
    #[test]
    fn what_is_received_is_what_was_sent(
        len in 0..6 * CHUNK_LEN,
        order in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 0..40),
    ) {
        let place = Place::new();
        for mut archive in both(&place) {
            let mut source = MemoryArchive::new();
            let info = source.put(7, 3, &[5; 40], Box::new(state(len))).unwrap();
            let chunks = all_chunks(&mut source, &info);
            prop_assert_eq!(archive.receive(&chunks[0]), Ok(Received::Refused(Refusal::NothingBegun)));
            prop_assert_eq!(archive.seal(), Ok(Sealed::NothingBegun));
            archive.begin(info).unwrap();
            let mut there = BTreeMap::new();
            for (which, what) in &order {
                let mut chunk = chunks[which.index(chunks.len())].clone();
                let expected = match what {
                    0 => {
                        chunk.checksum ^= 1 << 40;
                        if there.contains_key(&chunk.number) { Received::Known } else { Received::Refused(Refusal::Checksum) }
                    }
                    1 => {
                        chunk.number = info.chunks();
                        Received::Refused(Refusal::Misfit)
                    }
                    2 => {
                        // Another source begins anew with the same snapshot.
                        archive.begin(info).unwrap();
                        continue;
                    }
                    _ if there.insert(chunk.number, ()).is_some() => Received::Known,
                    _ => Received::New,
                };
                prop_assert_eq!(archive.receive(&chunk), Ok(expected));
                let missing = (0..info.chunks()).find(|number| !there.contains_key(number));
                prop_assert_eq!(archive.missing(0), missing);
                prop_assert!(archive.list().is_empty());
            }
            while let Some(number) = archive.missing(0) {
                prop_assert_eq!(archive.seal(), Ok(Sealed::Missing(number)));
                prop_assert_eq!(archive.receive(&chunks[number as usize]), Ok(Received::New));
            }
            prop_assert_eq!(archive.receiving(), Some(info));
            prop_assert_eq!(archive.seal(), Ok(Sealed::Whole(info)));
            prop_assert_eq!((archive.receiving(), archive.list()), (None, vec![info]));
            prop_assert_eq!(content(&mut *archive, info.id), Ok((Bytes::from_static(&[5; 40]), state(len))));
            prop_assert_eq!(all_chunks(&mut *archive, &info), chunks);
        }
    }
}

#[test]
fn chunks_of_another_snapshot_are_found_out_in_the_end() {
    let place = Place::new();
    for mut archive in both(&place) {
        let mut source = MemoryArchive::new();
        let right = source.put(7, 3, b"", Box::new(state(3 * CHUNK_LEN))).unwrap();
        let mut other = state(3 * CHUNK_LEN);
        other[2 * CHUNK_LEN] ^= 1;
        let wrong = source.put(7, 3, b"", Box::new(other)).unwrap();
        archive.begin(right).unwrap();
        for chunk in all_chunks(&mut source, &wrong) {
            assert_eq!(archive.receive(&chunk), Ok(Received::New));
        }
        assert_eq!(archive.seal(), Ok(Sealed::Another));
        assert_eq!((archive.receiving(), archive.list()), (None, vec![]));
        // Of another one nothing stays.
        archive.begin(wrong).unwrap();
        let chunks = all_chunks(&mut source, &right);
        archive.receive(&chunks[1]).unwrap();
        archive.begin(right).unwrap();
        assert_eq!(archive.missing(1), Some(1));
        archive.abandon().unwrap();
        assert_eq!((archive.receiving(), archive.missing(0)), (None, None));
    }
}

#[test]
fn damage_in_memory_is_found() {
    let mut archive = MemoryArchive::new();
    let info = archive.put(7, 3, b"meta", Box::new(state(3 * CHUNK_LEN))).unwrap();
    archive.damage(info.id, 2, 5);
    assert!(archive.read(info.id, 1).is_ok());
    assert!(matches!(archive.read(info.id, 2), Err(StorageError::Damaged(_))));
    assert!(matches!(content(&mut archive, info.id), Err(StorageError::Damaged(_))));
}

#[test]
fn work_becomes_events() {
    let (mut source, mut archive) = (MemoryArchive::new(), MemoryArchive::new());
    let info = source.put(7, 3, b"meta", Box::new(state(CHUNK_LEN))).unwrap();
    let work = |archive: &mut MemoryArchive, work| carry_out(archive, work).unwrap();
    let to = NodeId(2);
    assert_eq!(work(&mut archive, ArchiveWork::Begin(info)), None);
    for number in 0..info.chunks() {
        let Some(ArchiveEvent::Read { to: Reader::Peer(NodeId(2)), info: of, chunk }) =
            work(&mut source, ArchiveWork::Read { to: Reader::Peer(to), id: info.id, number })
        else {
            panic!("chunk {number} is there");
        };
        assert_eq!(of, info);
        let event = work(&mut archive, ArchiveWork::Receive(chunk));
        assert_eq!(event, Some(ArchiveEvent::Received { number, received: Received::New }));
    }
    let nowhere = ArchiveEvent::NotHere { to: Reader::Peer(to), id: info.id, number: 0 };
    assert_eq!(work(&mut archive, ArchiveWork::Read { to: Reader::Peer(to), id: info.id, number: 0 }), Some(nowhere));
    let sealed = ArchiveEvent::Sealed { sealed: Sealed::Whole(info), meta: Some(Bytes::from_static(b"meta")) };
    assert_eq!(work(&mut archive, ArchiveWork::Seal), Some(sealed));
    let sealed = ArchiveEvent::Sealed { sealed: Sealed::NothingBegun, meta: None };
    assert_eq!(work(&mut archive, ArchiveWork::Seal), Some(sealed));
    work(&mut archive, ArchiveWork::Begin(info));
    work(&mut archive, ArchiveWork::Abandon);
    assert_eq!(archive.receiving(), None);
    work(&mut archive, ArchiveWork::RemoveBefore(8));
    assert_eq!(archive.list(), []);
}
