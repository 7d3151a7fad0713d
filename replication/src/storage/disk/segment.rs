//! A part of a journal: a file of records ([`record`]).
//!
//! What is written gathers in a buffer and goes to the file in one piece: whole pages, so that no page has to be read
//! before a part of it is written.
//!
//! A sync is cheap if it changes neither the file's length nor where its blocks are: otherwise the file system commits its own
//! journal, and with it waits for what others have written, such as a snapshot of a gigabyte. So the file of a segment is made of
//! zeros before its turn comes, or is that of a segment which is not needed any more; the first one grows by
//! [`GROWTH`] at a time. Without syncs none of this is done.
//!
//! # Where it ends
//! Whatever comes behind the last record is not one: zeros, or what an earlier segment has left under another salt. Of batches
//! that were being written when the machine died, any part may be there. Nobody was told that they are safe, and so
//! records behind them do not say so either. If one does, something that somebody may rely on is not there any more: damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::{Persist, StorageError, io_error};
use super::Safety;
use super::record::{self, BEGINNING_LEN, Beginning, Record};

/// Bytes that wait for the end of a group. Beyond that they are written at once.
pub(super) const BUFFER_MAX: usize = 1 << 20;
/// By how many bytes a file grows at a time.
const GROWTH: u64 = 1 << 20;
/// Bytes of zeros that are synced at a time, so that others get their turns.
const ZEROS_SYNCED: u64 = 4 << 20;
/// What is written ends where a page does.
const PAGE: u64 = 4096;

/// The segment that is written. See the module.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    salt: u64,
    safety: Safety,
    /// Where the buffer goes.
    end: u64,
    /// Up to there the file has blocks that were written.
    grown: u64,
    buffer: Vec<u8>,
    /// Up to there the file was synced.
    #[cfg(test)]
    synced: u64,
}

impl Segment {
    /// A new one in a file that [`prepare`] has made; nothing of it is written yet.
    pub(super) fn begin(file: File, beginning: &Beginning, safety: Safety) -> Result<Self, StorageError> {
        let grown = file.metadata().map_err(|error| io_error(&error))?.len();
        Ok(Self {
            file,
            salt: beginning.salt,
            safety,
            end: 0,
            grown,
            buffer: beginning.emit().to_vec(),
            #[cfg(test)]
            synced: 0,
        })
    }

    /// One that was read up to `end`. What is behind that is overwritten if `is_torn`: it must not become a part of what is
    /// written next.
    pub(super) fn resume(
        path: &Path,
        salt: u64,
        end: u64,
        is_torn: bool,
        safety: Safety,
    ) -> Result<Self, StorageError> {
        let resume = || {
            let file = open(path)?;
            let grown = file.metadata()?.len();
            if is_torn {
                put_zeros(&file, end, grown)?;
                file.sync_data()?;
            }
            Ok(Self {
                file,
                salt,
                safety,
                end,
                grown,
                buffer: Vec::new(),
                #[cfg(test)]
                synced: end,
            })
        };
        resume().map_err(|error| io_error(&error))
    }

    /// Bytes of it, with those in the buffer.
    pub(super) fn len(&self) -> u64 {
        self.end + self.buffer.len() as u64
    }

    /// Bytes of it that are in the file.
    #[cfg(test)]
    pub(super) fn written(&self) -> u64 {
        self.end
    }

    /// Bytes of it that were synced.
    #[cfg(test)]
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Takes a batch. Batches before `safe` are.
    pub(super) fn put(&mut self, number: u64, safe: u64, batch: &Persist) -> Result<(), StorageError> {
        record::put(&mut self.buffer, self.salt, number, safe, batch)?;
        if self.buffer.len() > BUFFER_MAX { self.write() } else { Ok(()) }
    }

    /// Makes what it was given as safe as the policy demands.
    pub(super) fn make_safe(&mut self) -> Result<(), StorageError> {
        self.write()?;
        match self.safety {
            Safety::Written => Ok(()),
            Safety::Synced => self.sync(),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(|error| io_error(&error))?;
        #[cfg(test)]
        {
            self.synced = self.end;
        }
        Ok(())
    }

    /// Writes what is in the buffer.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        let end = self.len();
        if end == self.end {
            return Ok(());
        }
        let padded = end.next_multiple_of(PAGE);
        self.buffer.resize((padded - self.end) as usize, 0);
        let mut write = || {
            if self.safety == Safety::Synced && padded > self.grown {
                let grown = padded.next_multiple_of(GROWTH);
                put_zeros(&self.file, padded, grown)?;
                self.grown = grown;
            }
            self.file.write_all_at(&self.buffer, self.end)
        };
        write().map_err(|error| io_error(&error))?;
        self.end = end;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_MAX);
        Ok(())
    }
}

/// A file for a segment that is to come: `spare` if it is there, and so many bytes long if syncs are to be cheap.
pub(super) fn prepare(path: &Path, spare: &Path, len: u64, safety: Safety) -> io::Result<File> {
    match fs::rename(spare, path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let file = open(path)?;
    if safety == Safety::Synced {
        let mut at = file.metadata()?.len();
        while at < len {
            let to = len.min(at + ZEROS_SYNCED);
            put_zeros(&file, at, to)?;
            file.sync_data()?;
            at = to;
        }
    }
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn put_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; to.saturating_sub(from).min(GROWTH) as usize];
    while from < to {
        let len = (to - from).min(GROWTH);
        file.write_all_at(&zeros[..len as usize], from)?;
        from += len;
    }
    Ok(())
}

/// Where a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// Number of the batch that would be next.
    pub(super) next: u64,
    /// Where that would be.
    pub(super) at: usize,
}

/// Gives the batches of a segment, in order, to `take`.
pub(super) fn read(
    bytes: &[u8],
    beginning: &Beginning,
    take: &mut dyn FnMut(Persist) -> Result<(), StorageError>,
) -> Result<End, StorageError> {
    let mut end = End { next: beginning.first, at: BEGINNING_LEN };
    while let Some(record) = Record::at(&bytes[end.at..], beginning.salt).filter(|record| record.number == end.next) {
        take(record.batch()?)?;
        end.next += 1;
        end.at += record.len();
    }
    Ok(end)
}

/// Whether there is something behind the end of a last segment that must not be read again.
///
/// # Errors
/// It is not the end.
pub(super) fn is_torn(bytes: &[u8], beginning: &Beginning, end: End) -> Result<bool, StorageError> {
    let damaged = || Err(StorageError::Damaged(format!("batch {} is not what was written", end.next)));
    if end.next == beginning.first {
        // A segment counts only with its first batch.
        return damaged();
    }
    let mut is_torn = false;
    for record in record::find(&bytes[end.at..], beginning.salt) {
        if record.safe > end.next {
            return damaged();
        }
        is_torn = true;
    }
    Ok(is_torn)
}
