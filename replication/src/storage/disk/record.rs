//! How a segment begins and how batches look in it. Big-endian, like the wire.
//!
//! A segment begins with:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | what this is: `hvrcraft` |
//! | 2, 2 | version ([`VERSION`]), flags: 1 = nothing of the log before it counts |
//! | 8 | the segment's number |
//! | 8 | number of its first batch |
//! | 8 | the store's life: whose it is |
//! | 8 | salt, drawn anew for each segment |
//! | 16 | zeros |
//! | 4 | CRC-32 of everything before |
//!
//! Behind that come records, one per batch:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the segment's salt: what an earlier user of the file has left is not a record |
//! | 4 | CRC-32 of the salt and of everything behind this |
//! | 4 | length of what follows the next two |
//! | 8 | the batch's number |
//! | 8 | batches before this number were safe when this one was written: somebody may rely on them |
//! | n | the batch ([`codec`]), and zeros up to a multiple of 8 |

use bytes::{Buf, BufMut, Bytes};

use super::super::{Persist, StorageError, codec};

/// The format of stores that this version writes. It reads the one before, too.
pub(super) const VERSION: u16 = 3;

const MAGIC: [u8; 8] = *b"hvrcraft";
const FLAG_FRESH: u16 = 1;

/// Bytes with which a segment begins.
pub(super) const BEGINNING_LEN: usize = 64;
/// Where in there the life is.
const LIFE_AT: usize = 28;
/// Bytes of a record before its batch.
const HEAD_LEN: usize = 32;
/// Records begin at a multiple of it.
const ALIGNMENT: usize = 8;
/// Where the first byte is that comes after the checksum.
const CHECKED_FROM: usize = 12;

/// How a segment begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Beginning {
    /// The segment's number.
    pub(super) number: u64,
    /// Number of its first batch.
    pub(super) first: u64,
    /// Nothing of the log before it counts.
    pub(super) fresh: bool,
    /// The life of the store to which it belongs.
    pub(super) life: u64,
    /// What its records begin with.
    pub(super) salt: u64,
}

impl Beginning {
    pub(super) fn emit(&self) -> [u8; BEGINNING_LEN] {
        let mut bytes = [0; BEGINNING_LEN];
        let mut to = &mut bytes[..];
        to.put_slice(&MAGIC);
        to.put_u16(VERSION);
        to.put_u16(if self.fresh { FLAG_FRESH } else { 0 });
        for word in [self.number, self.first, self.life, self.salt] {
            to.put_u64(word);
        }
        let sum = crc32fast::hash(&bytes[..BEGINNING_LEN - 4]);
        bytes[BEGINNING_LEN - 4..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Whose it says that it is, whatever else it says.
    pub(super) fn life_in(bytes: &[u8]) -> Option<u64> {
        Some(bytes.get(LIFE_AT..LIFE_AT + 8)?.get_u64())
    }

    /// How the segment of this number begins, in the store of this life.
    pub(super) fn parse(bytes: &[u8], number: u64, life: u64) -> Result<Self, StorageError> {
        let damaged = || StorageError::Damaged(format!("the beginning of segment {number} is not what was written"));
        let bytes = bytes.get(..BEGINNING_LEN).ok_or_else(damaged)?;
        let (mut from, mut sum) = bytes.split_at(BEGINNING_LEN - 4);
        if crc32fast::hash(from) != sum.get_u32() || from[..8] != MAGIC {
            return Err(damaged());
        }
        from.advance(8);
        let (version, flags) = (from.get_u16(), from.get_u16());
        if version != VERSION {
            return Err(StorageError::Version { found: version, known: VERSION });
        }
        let beginning = Self {
            number: from.get_u64(),
            first: from.get_u64(),
            fresh: flags == FLAG_FRESH,
            life: from.get_u64(),
            salt: from.get_u64(),
        };
        if beginning.life != life {
            return Err(StorageError::Damaged(format!("segment {number} belongs to another store")));
        }
        if beginning.number == number { Ok(beginning) } else { Err(damaged()) }
    }
}

/// Appends a record.
///
/// # Errors
/// The batch is too long.
pub(super) fn put(to: &mut Vec<u8>, salt: u64, number: u64, safe: u64, batch: &Persist) -> Result<(), StorageError> {
    let at = to.len();
    to.put_u64(salt);
    to.put_u64(0);
    to.put_u64(number);
    to.put_u64(safe);
    codec::put(batch, to);
    to.resize(at + (to.len() - at).next_multiple_of(ALIGNMENT), 0);
    let record = &mut to[at..];
    let len = record.len() - HEAD_LEN;
    let len = u32::try_from(len)
        .map_err(|_| StorageError::Io(format!("a batch of {len} bytes is longer than this store can keep")))?;
    record[CHECKED_FROM..CHECKED_FROM + 4].copy_from_slice(&len.to_be_bytes());
    let sum = checksum(record);
    record[8..CHECKED_FROM].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// A record that is what was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) number: u64,
    /// Batches before this number were safe when it was written.
    pub(super) safe: u64,
    batch: &'a [u8],
}

impl<'a> Record<'a> {
    /// The one that begins here, if one does.
    pub(super) fn at(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let mut head = bytes.get(..HEAD_LEN)?;
        if head.get_u64() != salt {
            return None;
        }
        let (sum, len) = (head.get_u32(), head.get_u32() as usize);
        let record = bytes.get(..HEAD_LEN.checked_add(len)?)?;
        let is_whole = len.is_multiple_of(ALIGNMENT) && checksum(record) == sum;
        is_whole.then(|| Self { number: head.get_u64(), safe: head.get_u64(), batch: &record[HEAD_LEN..] })
    }

    /// Bytes of all of it.
    pub(super) fn len(&self) -> usize {
        HEAD_LEN + self.batch.len()
    }

    /// The batch, in memory of its own: a small part of it may be kept for long.
    pub(super) fn batch(&self) -> Result<Persist, StorageError> {
        let (batch, rest) = codec::parse(self.number, Bytes::copy_from_slice(self.batch))?;
        if rest.len() < ALIGNMENT && rest.iter().all(|byte| *byte == 0) {
            Ok(batch)
        } else {
            Err(StorageError::Damaged(format!("batch {} is not what was written", self.number)))
        }
    }
}

/// All records that begin anywhere in there, whatever is between them.
pub(super) fn find(bytes: &[u8], salt: u64) -> impl Iterator<Item = Record<'_>> {
    let wanted = salt.to_be_bytes();
    let starts = bytes.chunks_exact(ALIGNMENT).zip((0..).step_by(ALIGNMENT));
    starts.filter(move |(word, _)| *word == wanted).filter_map(move |(_, at)| Record::at(&bytes[at..], salt))
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..8]);
    hasher.update(&record[CHECKED_FROM..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::codec::tests::batches;
    use super::*;

    fn beginning() -> Beginning {
        Beginning { number: 3, first: 40, fresh: true, life: 0x0102_0304_0506_0708, salt: 99 }
    }

    #[test]
    fn any_changed_bit_of_a_beginning_is_found() {
        let bytes = beginning().emit();
        assert_eq!(Beginning::parse(&bytes, 3, beginning().life), Ok(beginning()));
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = Beginning::parse(&bytes, 3, beginning().life);
            assert!(matches!(found, Err(StorageError::Damaged(_))), "bit {bit}: {found:?}");
        }
        for (number, life) in [(2, beginning().life), (3, 1)] {
            assert!(matches!(Beginning::parse(&bytes, number, life), Err(StorageError::Damaged(_))));
        }
    }

    #[test]
    fn a_beginning_of_a_newer_version_is_named() {
        let mut bytes = beginning().emit();
        bytes[9] = 4;
        let sum = crc32fast::hash(&bytes[..BEGINNING_LEN - 4]);
        bytes[BEGINNING_LEN - 4..].copy_from_slice(&sum.to_be_bytes());
        let found = Beginning::parse(&bytes, 3, beginning().life);
        assert_eq!(found, Err(StorageError::Version { found: 4, known: 3 }));
    }

    proptest! {
        #[test]
        fn records_are_found_whatever_is_between_them(batches in prop::collection::vec(batches(), 0..5), gaps in prop::collection::vec(0..5usize, 5)) {
            let mut bytes = Vec::new();
            for ((batch, gap), number) in batches.iter().zip(gaps).zip(7..) {
                bytes.resize(bytes.len() + gap * ALIGNMENT, 0xa5);
                put(&mut bytes, 99, number, number - 1, batch).unwrap();
            }
            let found: Vec<_> = find(&bytes, 99).collect();
            prop_assert_eq!(found.len(), batches.len());
            for ((record, batch), number) in found.iter().zip(batches).zip(7..) {
                prop_assert_eq!((record.number, record.safe), (number, number - 1));
                prop_assert_eq!(record.batch(), Ok(Persist { number, ..batch }));
            }
            prop_assert!(find(&bytes, 98).next().is_none());
        }

        #[test]
        fn any_changed_bit_and_any_cut_is_found(batch in batches(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let mut bytes = Vec::new();
            put(&mut bytes, 99, 7, 6, &batch).unwrap();
            let at = at.index(bytes.len());
            prop_assert!(Record::at(&bytes[..at], 99).is_none());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(Record::at(&bytes, 99).is_none());
        }
    }
}
