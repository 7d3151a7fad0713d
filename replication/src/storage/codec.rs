//! The bytes of a batch in a store. Big-endian, like the wire. Whoever stores them adds a checksum and a version.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | flags: 1 = there is a hard state, 2 = something is compacted |
//! | 4, 4 | number of lives, number of records |
//! | 8 | index of the first record |
//! | 16 | term and vote, 0 for none, if there is a hard state |
//! | 16 | index and term of what is compacted, if something is |
//! | 16 each | lives: member, life |
//! | 8, 64, 4, n each | records: term, entry, length of the body, body |

use std::hash::Hasher;

use bytes::{Buf, BufMut, Bytes};
use siphasher::sip::SipHasher13;

use super::{HardState, Persist, StorageError, StoredRecord};
use crate::entry::ENTRY_LEN;
use crate::id::MemberId;

const FLAG_HARD_STATE: u16 = 1;
const FLAG_COMPACTED: u16 = 2;
/// Of a batch without lives and records, at most.
const HEAD_LEN: usize = 50;
/// Of a record without its body.
const RECORD_LEN: usize = 8 + ENTRY_LEN + 4;

/// A checksum of what is stored: against accidents, not against forgers.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Appends a batch; its number is not in there.
pub(super) fn put(batch: &Persist, to: &mut Vec<u8>) {
    let records: usize = batch.records.iter().map(|record| RECORD_LEN + record.body.len()).sum();
    to.reserve(HEAD_LEN + 16 * batch.lives.len() + records);
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
}

/// The batch of this number again, and what is behind it. Its bodies share the memory of `from`.
///
/// # Errors
/// [`StorageError::Damaged`] if these cannot be the bytes that were written.
pub(super) fn parse(number: u64, mut from: Bytes) -> Result<(Persist, Bytes), StorageError> {
    let damaged = || StorageError::Damaged(format!("batch {number} is not what was written"));
    let read = |_| damaged();
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
    let compacted = if flags & FLAG_COMPACTED != 0 {
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
    if flags & !(FLAG_HARD_STATE | FLAG_COMPACTED) != 0 || first == 0 {
        return Err(damaged());
    }
    Ok((Persist { number, hard_state, lives, compacted, first, records }, from))
}

fn take(from: &mut Bytes, len: usize) -> Option<Bytes> {
    (from.len() >= len).then(|| from.split_to(len))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn batches() -> impl Strategy<Value = Persist> {
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
        fn what_is_read_is_what_was_written(batch in batches(), behind in 0..9usize) {
            let mut bytes = Vec::new();
            put(&batch, &mut bytes);
            bytes.resize(bytes.len() + behind, 7);
            prop_assert_eq!(parse(batch.number, bytes.into()), Ok((batch, vec![7; behind].into())));
        }

        #[test]
        fn a_part_is_not_taken_for_the_whole(batch in batches(), at in any::<proptest::sample::Index>()) {
            let mut bytes = Vec::new();
            put(&batch, &mut bytes);
            bytes.truncate(at.index(bytes.len()));
            prop_assert!(parse(batch.number, bytes.into()).is_err());
        }
    }
}
