//! What version 2 of the store has left: it is read, written anew, and removed.
//!
//! Its journal was cut into segments, too, but each was a sled database in a directory of its own; the first could be
//! in the store's directory itself, where version 1 had its only one. A database has batches as parts of 8 KiB under (number,
//! part), and three more values: whose it is, how it begins, and, once there is a next one, that. A last batch
//! of which parts are missing is dropped; anything else that is missing is damage.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use sled::Db;

use super::super::identity::Identity;
use super::super::{Persist, StorageError, Stored, codec, io_error};
use super::directory::names_in;
use super::record;
use super::registers::{LOG_FILE, open_database, sled_error};
use super::replay::Replay;

const VERSION: u16 = 2;
/// The segment in the store's directory.
const ROOT: u64 = 0;
/// Names of segments begin with it, of those that were being removed with the other.
const SEGMENT_NAME: &str = "journal-";
const OLD_NAME: &str = "old-";
const BATCHES: u8 = b'j';

/// Whether there is such a store.
pub(super) fn is_in(path: &Path) -> Result<bool, StorageError> {
    Ok(!segments_in(path)?.is_empty())
}

/// Whose it is, and what it keeps.
pub(super) fn read(path: &Path) -> Result<(Identity, Stored), StorageError> {
    let Some(mut number) = segments_in(path)?.first().copied() else {
        return Err(StorageError::Damaged("all segments of the journal are missing".to_owned()));
    };
    let mut db = open_database(&segment_path(path, number))?;
    let identity = db.get("identity").map_err(sled_error)?;
    let identity = identity.ok_or_else(|| StorageError::Damaged("the identity is missing".to_owned()))?;
    if let [0, 1, ..] = identity[..] {
        return Err(StorageError::Version { found: 1, known: record::VERSION });
    }
    let parsed = Identity::parse(&identity)?;
    let mut replay = Replay::default();
    let mut next = None;
    loop {
        let (first, fresh) = beginning(&db, number)?;
        let number_there = next.unwrap_or(first);
        if number_there != first {
            return Err(StorageError::Damaged(format!("batch {number_there} is missing")));
        }
        replay.begin(fresh);
        next = Some(batches(&db, first, &mut replay)?);
        let Some(bytes) = db.get("next").map_err(sled_error)? else { break };
        let known = checked::<18>(&bytes).filter(|bytes| u64_at(bytes, 2) == number + 1);
        check_version(known.ok_or_else(|| damaged(&format!("the end of segment {number}")))?)?;
        number += 1;
        let path = segment_path(path, number);
        if !path.join(LOG_FILE).exists() {
            return Err(StorageError::Damaged(format!("segment {number} is missing")));
        }
        db = open_database(&path)?;
        if db.get("identity").map_err(sled_error)?.as_ref() != Some(&identity) {
            return Err(damaged(&format!("the identity of segment {number}")));
        }
    }
    Ok((parsed, replay.finish()?))
}

/// Removes it.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    let is_roots = |name: &str| name == LOG_FILE || name == "conf" || name == "blobs" || name.starts_with("snap.");
    for name in names_in(path)? {
        if name.starts_with(SEGMENT_NAME) || name.starts_with(OLD_NAME) || is_roots(&name) {
            let left = path.join(name);
            let removed = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
            removed.map_err(|error| io_error(&error))?;
        }
    }
    Ok(())
}

/// Numbers of the segments there are.
fn segments_in(path: &Path) -> Result<Vec<u64>, StorageError> {
    let named = names_in(path)?.into_iter();
    let mut numbers: Vec<u64> = named.filter_map(|name| name.strip_prefix(SEGMENT_NAME)?.parse().ok()).collect();
    if path.join(LOG_FILE).exists() {
        numbers.push(ROOT);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn segment_path(path: &Path, number: u64) -> PathBuf {
    if number == ROOT { path.to_owned() } else { path.join(format!("{SEGMENT_NAME}{number:010}")) }
}

/// Number of a segment's first batch, and whether nothing of the log before it counts.
fn beginning(db: &Db, number: u64) -> Result<(u64, bool), StorageError> {
    match db.get("beginning").map_err(sled_error)? {
        // Version 1 did not say.
        None if number == ROOT => Ok((0, true)),
        None => Err(StorageError::Damaged(format!("the beginning of segment {number} is missing"))),
        Some(bytes) => {
            let bytes = checked::<28>(&bytes).filter(|bytes| u64_at(bytes, 4) == number);
            let bytes = bytes.ok_or_else(|| damaged(&format!("the beginning of segment {number}")))?;
            check_version(bytes)?;
            Ok((u64_at(bytes, 12), bytes[3] == 1))
        }
    }
}

/// Replays the batches of a segment. Returns the number of the next one.
fn batches(db: &Db, mut next: u64, replay: &mut Replay) -> Result<u64, StorageError> {
    // Of the batch that is being put together.
    let (mut parts, mut bytes) = (Vec::new(), Vec::new());
    for item in db.scan_prefix([BATCHES]) {
        let (key, value) = item.map_err(sled_error)?;
        let key = Key::parse(&key).ok_or_else(|| StorageError::Damaged(format!("the key {key:02x?}")))?;
        if parts.first().is_some_and(|first: &Key| first.number != key.number) {
            replay.take(join(next, &parts, std::mem::take(&mut bytes))?)?;
            next += 1;
            parts.clear();
        }
        parts.push(key);
        bytes.extend_from_slice(&value);
    }
    match parts.first() {
        Some(first) if parts.len() == usize::from(first.parts) => {
            replay.take(join(next, &parts, bytes)?)?;
            Ok(next + 1)
        }
        _ => Ok(next),
    }
}

/// Where a part of a batch is.
struct Key {
    number: u64,
    part: u16,
    parts: u16,
}

impl Key {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 13] = bytes.try_into().ok()?;
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self { number: u64_at(bytes, 1), part: u16_at(9), parts: u16_at(11) })
    }
}

/// The batch of this number, which these parts are.
fn join(number: u64, parts: &[Key], bytes: Vec<u8>) -> Result<Persist, StorageError> {
    let damaged = || damaged(&format!("batch {number}"));
    if parts.iter().any(|key| key.number != number) {
        return Err(StorageError::Damaged(format!("batch {number} is missing")));
    }
    if !parts.iter().zip(0..).all(|(key, part)| key.part == part && usize::from(key.parts) == parts.len()) {
        return Err(StorageError::Damaged(format!("parts of batch {number} are missing")));
    }
    let len = bytes.len().checked_sub(8).filter(|len| *len >= 2).ok_or_else(damaged)?;
    if codec::checksum(&bytes[..len]) != u64_at(&bytes, len) {
        return Err(damaged());
    }
    let mut from = Bytes::from(bytes).slice(..len);
    // Batches of version 1 are the same but for what they cannot say.
    match from.get_u16() {
        1 | VERSION => (),
        found => return Err(StorageError::Version { found, known: record::VERSION }),
    }
    let (batch, rest) = codec::parse(number, from)?;
    if rest.is_empty() { Ok(batch) } else { Err(damaged()) }
}

/// Bytes of this length with the right checksum at their end.
fn checked<const LEN: usize>(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.len() == LEN && codec::checksum(&bytes[..LEN - 8]) == u64_at(bytes, LEN - 8)).then_some(bytes)
}

fn check_version(bytes: &[u8]) -> Result<(), StorageError> {
    match u16::from_be_bytes([bytes[0], bytes[1]]) {
        VERSION => Ok(()),
        found => Err(StorageError::Version { found, known: record::VERSION }),
    }
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged(format!("{what} is not what was written"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
