//! The bytes of a batch in a store: version, what there is, a checksum over all of it. Big-endian, like the wire.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | version ([`VERSION`]) |
//! | 2 | flags: 1 = there is a hard state, 2 = something is compacted |
//! | 4, 4 | number of lives, number of records |
//! | 8 | index of the first record |
//! | 16 | term and vote, 0 for none, if there is a hard state |
//! | 16 | index and term of what is compacted, if something is; not in version 1 |
//! | 16 each | lives: member, life |
//! | 8, 64, 4, n each | records: term, entry, length of the body, body |
//! | 8 | SipHash-1-3 of everything before: against accidents, not against forgers |

use std::hash::Hasher;

use bytes::{Buf, BufMut, Bytes};
use siphasher::sip::SipHasher13;

use super::{HardState, Persist, StorageError, StoredRecord};
use crate::entry::ENTRY_LEN;
use crate::id::MemberId;

/// The format that this version writes. It reads the one before, too.
pub(super) const VERSION: u16 = 2;

const FLAG_HARD_STATE: u16 = 1;
const FLAG_COMPACTED: u16 = 2;
const CHECKSUM_LEN: usize = 8;

/// A checksum of what is stored.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Whether this version reads what was written in that format.
pub(super) fn can_read(version: u16) -> bool {
    version == VERSION || version == VERSION - 1
}

/// A batch as bytes; its number is not in there.
pub(super) fn encode(batch: &Persist) -> Vec<u8> {
    let bodies: usize = batch.records.iter().map(|record| 12 + ENTRY_LEN + record.body.len()).sum();
    let mut to = Vec::with_capacity(60 + 16 * batch.lives.len() + bodies);
    to.put_u16(VERSION);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    to.put_u16(flag(batch.hard_state.is_some(), FLAG_HARD_STATE) | flag(batch.compacted.is_some(), FLAG_COMPACTED));
    to.put_u32(batch.lives.len() as u32);
    to.put_u32(batch.records.len() as u32);
    to.put_u64(batch.first);
    if let Some(HardState { term, vote }) = batch.hard_state {
        to.put_u64(term);
        to.put_u64(vote.map_or(0, MemberId::raft));
    }
    if let Some((index, term)) = batch.compacted {
        to.put_u64(index);
        to.put_u64(term);
    }
    for (member, life) in &batch.lives {
        to.put_u64(member.raft());
        to.put_u64(*life);
    }
    for StoredRecord { term, entry, body } in &batch.records {
        debug_assert_eq!(entry.len(), ENTRY_LEN);
        to.put_u64(*term);
        to.put_slice(entry);
        to.put_u32(body.len() as u32);
        to.put_slice(body);
    }
    let sum = checksum(&to);
    to.put_u64(sum);
    to
}

/// The batch of this number again.
///
/// # Errors
/// [`StorageError::Damaged`] if these are not the bytes that were written; [`StorageError::Version`] if a newer version
/// wrote them.
pub(super) fn decode(number: u64, bytes: &Bytes) -> Result<Persist, StorageError> {
    let damaged = || StorageError::Damaged(format!("batch {number} is not what was written"));
    let body = bytes.len().checked_sub(CHECKSUM_LEN).ok_or_else(damaged)?;
    if checksum(&bytes[..body]) != (&bytes[body..]).get_u64() {
        return Err(damaged());
    }
    let mut from = bytes.slice(..body);
    let read = |_| damaged();
    let version = from.try_get_u16().map_err(read)?;
    if !can_read(version) {
        return Err(StorageError::Version { found: version, known: VERSION });
    }
    let flags = from.try_get_u16().map_err(read)?;
    let lives_len = from.try_get_u32().map_err(read)?;
    let records_len = from.try_get_u32().map_err(read)?;
    let first = from.try_get_u64().map_err(read)?;
    let hard_state = if flags & FLAG_HARD_STATE != 0 {
        let term = from.try_get_u64().map_err(read)?;
        let vote = from.try_get_u64().map_err(read)?;
        Some(HardState { term, vote: (vote != 0).then(|| MemberId::from_raft(vote)) })
    } else {
        None
    };
    let known = if version == 1 { FLAG_HARD_STATE } else { FLAG_HARD_STATE | FLAG_COMPACTED };
    let compacted = if flags & known & FLAG_COMPACTED != 0 {
        Some((from.try_get_u64().map_err(read)?, from.try_get_u64().map_err(read)?))
    } else {
        None
    };
    let (mut lives, mut records) = (Vec::new(), Vec::new());
    for _ in 0..lives_len {
        let member = MemberId::from_raft(from.try_get_u64().map_err(read)?);
        lives.push((member, from.try_get_u64().map_err(read)?));
    }
    for _ in 0..records_len {
        let term = from.try_get_u64().map_err(read)?;
        let entry = take(&mut from, ENTRY_LEN).ok_or_else(damaged)?;
        let len = from.try_get_u32().map_err(read)?;
        let body = take(&mut from, len as usize).ok_or_else(damaged)?;
        records.push(StoredRecord { term, entry, body });
    }
    if !from.is_empty() || flags & !known != 0 || first == 0 {
        return Err(damaged());
    }
    Ok(Persist { number, hard_state, lives, compacted, first, records })
}

fn take(from: &mut Bytes, len: usize) -> Option<Bytes> {
    (from.len() >= len).then(|| from.split_to(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batches() -> impl Strategy<Value = Persist> {
        let hard_state = proptest::option::of((0..9u64, 0..3u64)).prop_map(|hard_state| {
            hard_state.map(|(term, vote)| HardState { term, vote: (vote > 0).then(|| MemberId::from_raft(vote)) })
        });
        let lives = proptest::collection::vec((1..9u64, any::<u64>()), 0..3)
            .prop_map(|lives| lives.into_iter().map(|(member, life)| (MemberId::from_raft(member), life)).collect());
        let record = (0..9u64, any::<[u8; ENTRY_LEN]>(), proptest::collection::vec(any::<u8>(), 0..99))
            .prop_map(|(term, entry, body)| StoredRecord { term, entry: entry.to_vec().into(), body: body.into() });
        let records = proptest::collection::vec(record, 0..9);
        let compacted = proptest::option::of((1..99u64, 1..9u64));
        (1..99u64, hard_state, lives, compacted, 1..99u64, records).prop_map(
            |(number, hard_state, lives, compacted, first, records)| Persist {
                number,
                hard_state,
                lives,
                compacted,
                first,
                records,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(batch in batches()) {
            prop_assert_eq!(decode(batch.number, &encode(&batch).into()), Ok(batch));
        }

        #[test]
        fn any_changed_bit_is_found(batch in batches(), at in any::<proptest::sample::Index>(), bit in 0..8u32) {
            let mut bytes = encode(&batch);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let found = decode(batch.number, &bytes.into());
            prop_assert!(matches!(found, Err(StorageError::Damaged(_))), "{:?}", found);
        }

        #[test]
        fn a_part_is_not_taken_for_the_whole(batch in batches(), at in any::<proptest::sample::Index>()) {
            let bytes = Bytes::from(encode(&batch));
            let cut = bytes.slice(..at.index(bytes.len()));
            prop_assert!(decode(batch.number, &cut).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let bytes = of_version(9, &EMPTY);
        assert_eq!(decode(1, &bytes), Err(StorageError::Version { found: 9, known: VERSION }));
    }

    #[test]
    fn the_version_before_is_read_and_knows_no_compaction() {
        assert_eq!(decode(1, &of_version(1, &EMPTY)), Ok(EMPTY));
        let bytes = of_version(1, &Persist { compacted: Some((1, 1)), ..EMPTY });
        assert!(matches!(decode(1, &bytes), Err(StorageError::Damaged(_))));
    }

    const EMPTY: Persist =
        Persist { number: 1, hard_state: None, lives: Vec::new(), compacted: None, first: 1, records: Vec::new() };

    fn of_version(version: u8, batch: &Persist) -> Bytes {
        let mut bytes = encode(batch);
        bytes[1] = version;
        let body = bytes.len() - CHECKSUM_LEN;
        let sum = checksum(&bytes[..body]).to_be_bytes();
        bytes[body..].copy_from_slice(&sum);
        bytes.into()
    }
}
