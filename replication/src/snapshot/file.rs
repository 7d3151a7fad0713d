//! An archive in files: one per snapshot, in a directory of its own.
//!
//! A file has a header, the chunks and a trailer. Each chunk is followed by its checksum, so every chunk has a place that
//! follows from its number, and what is received is written where it belongs.
//!
//! | bytes | what |
//! |---|---|
//! | 8, 2, 2, 4 | `hcraftsn`, version, 0, [`CHUNK_LEN`] |
//! | 8, 8 | index, term |
//! | 8 | checksum of the header |
//! | [`CHUNK_LEN`] and 8 each | chunks, the last one shorter: bytes, checksum |
//! | 32, 8 | name ([`SnapshotInfo::emit`]), its checksum |
//!
//! A file is written under a name that ends in `.part`, synced, and only then given its own name, which says index and
//! id; the directory is synced after that. What ends in `.part` when the archive is opened is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};

use super::reception::Reception;
use super::stream::{Identity, Joined, cut};
use super::{Archive, CHUNK_LEN, Chunk, Opened, Received, Refusal, Sealed, SnapshotInfo, chunk_checksum};
use crate::id::{LogIndex, Term};
use crate::service::SnapshotView;
use crate::storage::{Safety, StorageError, checksum, io_error};

const MAGIC: &[u8; 8] = b"hcraftsn";
/// The format that this version writes.
const VERSION: u16 = 1;

const HEADER_LEN: usize = 40;
const TRAILER_LEN: usize = SnapshotInfo::LEN + 8;
/// A chunk in the file.
const PLACE_LEN: u64 = CHUNK_LEN as u64 + 8;

/// While a snapshot is written, whatever the policy, this many bytes at a time are made safe. File systems write all that
/// is pending, of any file, before they say that anything is safe: so the log on the same disk would wait for all of it.
const SYNC_EVERY: usize = 256 << 10;
/// What is collected before it is written.
const BUFFER_LEN: usize = 64 << 10;

const SUFFIX: &str = ".snapshot";
const PART_SUFFIX: &str = ".part";
const TAKING: &str = "taking.part";
const RECEIVING: &str = "receiving.part";

/// Keeps snapshots in a directory. See the module.
#[derive(Debug)]
pub struct FileArchive {
    path: PathBuf,
    safety: Safety,
    /// What there is, by index.
    kept: Vec<SnapshotInfo>,
    /// The one that was read last.
    reading: Option<(SnapshotInfo, File)>,
    receiving: Option<Receiving>,
    steps: Steps,
}

#[derive(Debug)]
struct Receiving {
    reception: Reception,
    file: File,
    unsynced: usize,
}

impl FileArchive {
    /// Opens the archive in `path`, or makes one. The caller sees to it that nobody else does.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] if a snapshot there cannot be one that was kept, [`StorageError::Version`] if a newer
    /// version has written it, else what the system says. Chunks are checked when they are read.
    pub fn open(path: &Path, safety: Safety) -> Result<Self, StorageError> {
        Self::open_with(path, safety, Steps::default())
    }

    fn open_with(path: &Path, safety: Safety, steps: Steps) -> Result<Self, StorageError> {
        let made = !path.exists();
        fs::create_dir_all(path).map_err(|error| io_error(&error))?;
        let mut archive =
            Self { path: path.to_owned(), safety, kept: Vec::new(), reading: None, receiving: None, steps };
        if made && let Some(parent) = path.parent() {
            archive.sync_directory(parent)?;
        }
        let mut is_changed = false;
        for entry in fs::read_dir(path).map_err(|error| io_error(&error))? {
            let name = entry.map_err(|error| io_error(&error))?.file_name();
            let file = path.join(&name);
            let name = name.to_string_lossy();
            if name.ends_with(PART_SUFFIX) {
                archive.steps.step()?;
                fs::remove_file(&file).map_err(|error| io_error(&error))?;
                is_changed = true;
            } else if name.ends_with(SUFFIX) {
                let info = look(&file)?;
                if file_name(&info) != *name {
                    return Err(StorageError::Damaged(format!("{} holds another snapshot", file.display())));
                }
                archive.kept.push(info);
            }
        }
        archive.kept.sort_by_key(|info| (info.index, info.id));
        if is_changed {
            archive.sync_directory(path)?;
        }
        Ok(archive)
    }

    fn write_file(
        &mut self,
        index: LogIndex,
        term: Term,
        meta: &[u8],
        state: Box<dyn SnapshotView>,
    ) -> Result<SnapshotInfo, StorageError> {
        let path = self.path.join(TAKING);
        self.steps.step()?;
        let mut to = Gradually {
            file: File::create(&path).map_err(|error| io_error(&error))?,
            buffer: Vec::with_capacity(BUFFER_LEN + PLACE_LEN as usize),
            unsynced: 0,
        };
        to.put(&header(index, term))?;
        let steps = &mut self.steps;
        let info = cut(index, term, meta, state, &mut |chunk| {
            steps.step()?;
            to.put(&chunk.bytes)?;
            to.put(&chunk.checksum.to_be_bytes())
        })?;
        to.put(&trailer(&info))?;
        self.steps.step()?;
        to.flush()?;
        self.keep(&path, &to.file, info)?;
        Ok(info)
    }

    /// Makes a file, which is whole, what its name says.
    fn keep(&mut self, path: &Path, file: &File, info: SnapshotInfo) -> Result<(), StorageError> {
        if self.find(info.id).is_some() {
            self.steps.step()?;
            return fs::remove_file(path).map_err(|error| io_error(&error));
        }
        if self.safety == Safety::Synced {
            self.steps.step()?;
            file.sync_all().map_err(|error| io_error(&error))?;
        }
        self.steps.step()?;
        fs::rename(path, self.path.join(file_name(&info))).map_err(|error| io_error(&error))?;
        let path = self.path.clone();
        self.sync_directory(&path).inspect_err(|_| {
            _ = self.discard(&file_name(&info));
        })?;
        self.kept.push(info);
        self.kept.sort_by_key(|info| (info.index, info.id));
        Ok(())
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.safety == Safety::Synced {
            self.steps.step()?;
            File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| io_error(&error))?;
        }
        Ok(())
    }

    fn find(&self, id: u64) -> Option<SnapshotInfo> {
        self.kept.iter().copied().find(|info| info.id == id)
    }

    fn file(&self, info: &SnapshotInfo) -> Result<File, StorageError> {
        let path = self.path.join(file_name(info));
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StorageError::Damaged(format!("{} is gone", path.display())),
            _ => io_error(&error),
        })
    }

    /// What has been received, read again from the file: whether it is what was announced.
    fn check(receiving: &Receiving) -> Result<bool, StorageError> {
        let info = receiving.reception.info();
        let mut identity = Identity::new(info.index, info.term);
        for number in 0..info.chunks() {
            let chunk = read_chunk(&receiving.file, &info, number).map_err(|error| io_error(&error))?;
            if chunk_checksum(number, &chunk.bytes) != chunk.checksum {
                return Err(StorageError::Damaged(format!("chunk {number} is not what was received")));
            }
            identity.add(chunk.checksum);
        }
        Ok(identity.finish(info.len) == info.id)
    }

    fn receive_into(steps: &mut Steps, receiving: &mut Receiving, chunk: &Chunk) -> Result<(), StorageError> {
        let place = HEADER_LEN as u64 + chunk.number * PLACE_LEN;
        let mut bytes = Vec::with_capacity(chunk.bytes.len() + 8);
        bytes.put_slice(&chunk.bytes);
        bytes.put_u64(chunk.checksum);
        steps.step()?;
        receiving.file.write_all_at(&bytes, place).map_err(|error| io_error(&error))?;
        receiving.unsynced += bytes.len();
        if receiving.unsynced >= SYNC_EVERY {
            receiving.unsynced = 0;
            receiving.file.sync_data().map_err(|error| io_error(&error))?;
        }
        Ok(())
    }

    fn seal_file(&mut self, receiving: &Receiving) -> Result<Sealed, StorageError> {
        if !Self::check(receiving)? {
            self.discard(RECEIVING)?;
            return Ok(Sealed::Another);
        }
        let info = receiving.reception.info();
        let end = HEADER_LEN as u64 + info.len + 8 * info.chunks();
        self.steps.step()?;
        receiving.file.write_all_at(&trailer(&info), end).map_err(|error| io_error(&error))?;
        self.keep(&self.path.join(RECEIVING), &receiving.file, info)?;
        Ok(Sealed::Whole(info))
    }

    fn discard(&mut self, name: &str) -> Result<(), StorageError> {
        self.steps.step()?;
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&error)),
            _ => Ok(()),
        }
    }
}

impl Archive for FileArchive {
    fn put(
        &mut self,
        index: LogIndex,
        term: Term,
        meta: &[u8],
        state: Box<dyn SnapshotView>,
    ) -> Result<SnapshotInfo, StorageError> {
        self.write_file(index, term, meta, state).inspect_err(|_| {
            // What failed has failed; the next one to open the archive would clean up too.
            _ = self.discard(TAKING);
        })
    }

    fn list(&self) -> Vec<SnapshotInfo> {
        self.kept.clone()
    }

    fn read(&mut self, id: u64, number: u64) -> Result<Option<Chunk>, StorageError> {
        let Some(info) = self.find(id).filter(|info| number < info.chunks()) else { return Ok(None) };
        if self.reading.as_ref().is_none_or(|(read, _)| *read != info) {
            self.reading = Some((info, self.file(&info)?));
        }
        let Some((_, file)) = &self.reading else { return Ok(None) };
        let chunk = read_chunk(file, &info, number).map_err(|error| read_error(&info, &error))?;
        if chunk_checksum(number, &chunk.bytes) == chunk.checksum {
            return Ok(Some(chunk));
        }
        let name = file_name(&info);
        Err(StorageError::Damaged(format!("chunk {number} of {name} is not what was written")))
    }

    fn open(&mut self, id: u64) -> Result<Option<Opened>, StorageError> {
        let Some(info) = self.find(id) else { return Ok(None) };
        let file = self.file(&info)?;
        let mut state = Joined::new(info, move |number| read_chunk(&file, &info, number));
        let meta = state.meta().map_err(|error| read_error(&info, &error))?;
        Ok(Some(Opened { info, meta, state: Box::new(state) }))
    }

    fn begin(&mut self, info: SnapshotInfo) -> Result<(), StorageError> {
        if self.receiving() == Some(info) {
            return Ok(());
        }
        self.abandon()?;
        self.steps.step()?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.path.join(RECEIVING));
        let file = file.map_err(|error| io_error(&error))?;
        let mut to = &file;
        to.write_all(&header(info.index, info.term)).map_err(|error| io_error(&error))?;
        self.receiving = Some(Receiving { reception: Reception::new(info), file, unsynced: 0 });
        Ok(())
    }

    fn receive(&mut self, chunk: &Chunk) -> Result<Received, StorageError> {
        let Some(receiving) = &mut self.receiving else { return Ok(Received::Refused(Refusal::NothingBegun)) };
        let received = receiving.reception.judge(chunk);
        if received == Received::New {
            if let Err(error) = Self::receive_into(&mut self.steps, receiving, chunk) {
                _ = self.abandon();
                return Err(error);
            }
            receiving.reception.insert(chunk.number);
        }
        Ok(received)
    }

    fn receiving(&self) -> Option<SnapshotInfo> {
        self.receiving.as_ref().map(|receiving| receiving.reception.info())
    }

    fn missing(&self, from: u64) -> Option<u64> {
        self.receiving.as_ref().and_then(|receiving| receiving.reception.missing(from))
    }

    fn seal(&mut self) -> Result<Sealed, StorageError> {
        let Some(receiving) = self.receiving.take() else { return Ok(Sealed::NothingBegun) };
        if let Some(missing) = receiving.reception.missing(0) {
            self.receiving = Some(receiving);
            return Ok(Sealed::Missing(missing));
        }
        self.seal_file(&receiving).inspect_err(|_| {
            _ = self.discard(RECEIVING);
        })
    }

    fn abandon(&mut self) -> Result<(), StorageError> {
        if self.receiving.is_some() {
            self.discard(RECEIVING)?;
            self.receiving = None;
        }
        Ok(())
    }

    fn remove_before(&mut self, index: LogIndex) -> Result<(), StorageError> {
        while let Some(info) = self.kept.first().copied().filter(|info| info.index < index) {
            if self.reading.as_ref().is_some_and(|(read, _)| *read == info) {
                self.reading = None;
            }
            self.discard(&file_name(&info))?;
            self.kept.remove(0);
        }
        Ok(())
    }
}

fn file_name(info: &SnapshotInfo) -> String {
    format!("{:020}-{:016x}{SUFFIX}", info.index, info.id)
}

fn header(index: LogIndex, term: Term) -> Vec<u8> {
    let mut to = Vec::with_capacity(HEADER_LEN);
    to.put_slice(MAGIC);
    to.put_u16(VERSION);
    to.put_u16(0);
    to.put_u32(CHUNK_LEN as u32);
    to.put_u64(index);
    to.put_u64(term);
    let sum = checksum(&to);
    to.put_u64(sum);
    debug_assert_eq!(to.len(), HEADER_LEN);
    to
}

fn trailer(info: &SnapshotInfo) -> [u8; TRAILER_LEN] {
    let mut bytes = [0; TRAILER_LEN];
    let name = info.emit();
    bytes[..SnapshotInfo::LEN].copy_from_slice(&name);
    bytes[SnapshotInfo::LEN..].copy_from_slice(&checksum(&name).to_be_bytes());
    bytes
}

/// Whose snapshot a file is, by its header, its trailer and its length.
fn look(path: &Path) -> Result<SnapshotInfo, StorageError> {
    let damaged = |what: &str| StorageError::Damaged(format!("{} {what}", path.display()));
    let file = File::open(path).map_err(|error| io_error(&error))?;
    let len = file.metadata().map_err(|error| io_error(&error))?.len();
    if len < (HEADER_LEN + TRAILER_LEN) as u64 {
        return Err(damaged("is too short for a snapshot"));
    }
    let mut head = [0; HEADER_LEN];
    file.read_exact_at(&mut head, 0).map_err(|error| io_error(&error))?;
    let u64_at = |bytes: &[u8], at: usize| bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    if !head.starts_with(MAGIC) || u64_at(&head, HEADER_LEN - 8) != checksum(&head[..HEADER_LEN - 8]) {
        return Err(damaged("does not begin like a snapshot"));
    }
    let version = u16::from_be_bytes([head[8], head[9]]);
    if version != VERSION {
        return Err(StorageError::Version { found: version, known: VERSION });
    }
    let mut tail = [0; TRAILER_LEN];
    file.read_exact_at(&mut tail, len - TRAILER_LEN as u64).map_err(|error| io_error(&error))?;
    let (name, rest) = tail.split_first_chunk::<{ SnapshotInfo::LEN }>().ok_or_else(|| damaged("is too short"))?;
    if u64_at(rest, 0) != checksum(name) {
        return Err(damaged("does not end like a snapshot"));
    }
    let info = SnapshotInfo::parse(name);
    if header(info.index, info.term) != head {
        return Err(damaged("begins like another snapshot than it ends"));
    }
    let expected = info.len.checked_add(8 * info.chunks()).and_then(|len| len.checked_add(TRAILER_LEN as u64));
    if expected.and_then(|expected| expected.checked_add(HEADER_LEN as u64)) != Some(len) {
        return Err(damaged("is not as long as it says"));
    }
    Ok(info)
}

fn read_chunk(file: &File, info: &SnapshotInfo, number: u64) -> io::Result<Chunk> {
    let len = info.chunk_len(number);
    let mut bytes = vec![0; len + 8];
    file.read_exact_at(&mut bytes, HEADER_LEN as u64 + number * PLACE_LEN)?;
    let checksum = bytes[len..].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.truncate(len);
    Ok(Chunk { number, checksum, bytes: Bytes::from(bytes) })
}

fn read_error(info: &SnapshotInfo, error: &io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            StorageError::Damaged(format!("{}: {error}", file_name(info)))
        }
        _ => io_error(error),
    }
}

/// Writes to a file in large pieces, and has little unsynced at a time.
struct Gradually {
    file: File,
    buffer: Vec<u8>,
    unsynced: usize,
}

impl Gradually {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.buffer.put_slice(bytes);
        if self.buffer.len() >= BUFFER_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.write_all(&self.buffer).map_err(|error| io_error(&error))?;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(|error| io_error(&error))?;
        }
        Ok(())
    }
}

/// Where tests let something go wrong: before each change to the files.
#[derive(Debug, Default)]
struct Steps {
    /// After how many changes, with what, and whether for ever.
    #[cfg(test)]
    failing: Option<(u32, StorageError, bool)>,
}

#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, clippy::unused_self, clippy::needless_pass_by_ref_mut))]
impl Steps {
    #[inline]
    fn step(&mut self) -> Result<(), StorageError> {
        #[cfg(test)]
        if let Some((left, error, _)) = &mut self.failing {
            if *left == 0 {
                let error = error.clone();
                self.failing = self.failing.take().filter(|(_, _, for_ever)| *for_ever);
                return Err(error);
            }
            *left -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
