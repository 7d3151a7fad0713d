//! Opening a store, and making one: whose it is, whether it is whole, what is in it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::super::identity::Identity;
use super::super::{Persist, StorageError, Stored, io_error};
use super::directory::{lock, names_in, registers_path, remove_segment, segment_path, segments_in, sync_directory};
use super::record::{self, BEGINNING_LEN, Beginning};
use super::registers::{Register, Registers};
use super::replay::Replay;
use super::segment::{self, Segment};
use super::terms::Terms;
use super::{DiskStorage, FIRST, Older, Safety, version_2};
use crate::entropy;
use crate::id::{GroupId, MemberId, NodeId};
use crate::membership::Membership;

/// Records in a batch that is written anew.
const REWRITTEN: usize = 64;

impl DiskStorage {
    /// Opens the store of `node` in `path`; `None` if there is none, nor anything else. One that the version before has
    /// left is written anew.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(path: &Path, group: GroupId, node: NodeId, safety: Safety) -> Result<Option<Self>, StorageError> {
        if names_in(path)?.is_empty() {
            return Ok(None);
        }
        let (has_registers, segments) = (registers_path(path).exists(), segments_in(path)?);
        let is_version_2 = version_2::is_in(path)?;
        if !has_registers && segments.is_empty() && !is_version_2 {
            return Err(StorageError::NotAStore(path.to_owned()));
        }
        let lock = lock(path)?;
        if has_registers {
            let registers = Registers::open(&registers_path(path), safety)?;
            if let Some(identity) = registers.identity()? {
                check_owner(path, &identity, group, node)?;
                version_2::remove(path)?;
                return Ok(Some(Self::with(path, safety, identity, registers, lock)));
            }
        }
        if is_version_2 {
            let (identity, stored) = version_2::read(path)?;
            check_owner(path, &identity, group, node)?;
            tracing::info!(?path, "what version 2 has left is written anew");
            let store = Self::make_with(path, safety, identity, &stored, lock)?;
            version_2::remove(path)?;
            return Ok(Some(store));
        }
        // A process died while it made this store: then nothing but a beginning can be there.
        let is_begun = segments.is_empty() || segments == [FIRST] && !is_used(&segment_path(path, FIRST), FIRST, None)?;
        if has_registers && is_begun {
            Ok(None)
        } else {
            Err(StorageError::Damaged("the registers are missing, which say whose it is".to_owned()))
        }
    }

    /// Makes a store in `path`, where there is nothing, for a member that begins with this membership.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn make(
        path: &Path,
        group: GroupId,
        member: MemberId,
        membership: &Membership,
        safety: Safety,
    ) -> Result<Self, StorageError> {
        fs::create_dir_all(path).map_err(|error| io_error(&error))?;
        let lock = lock(path)?;
        let identity = Identity { group, member, life: entropy::draw(), membership: Some(membership.clone()) };
        let store = Self::make_with(path, safety, identity, &Stored::default(), lock)?;
        sync_directory(path.parent().unwrap_or(path))?;
        Ok(store)
    }

    /// Makes a store that keeps this. It counts once the registers have its identity.
    fn make_with(
        path: &Path,
        safety: Safety,
        identity: Identity,
        stored: &Stored,
        lock: File,
    ) -> Result<Self, StorageError> {
        let registers = Registers::open(&registers_path(path), safety)?;
        segments_in(path)?.into_iter().try_for_each(|number| remove_segment(path, number))?;
        let mut store = Self::with(path, safety, identity, registers, lock);
        store.hard_state = stored.hard_state;
        store.lives.clone_from(&stored.lives);
        store.log = Terms::after(stored.base);
        let mut current = store.new_segment(FIRST, None)?;
        let mut batch = Persist {
            number: 0,
            hard_state: None,
            lives: Vec::new(),
            compacted: None,
            first: stored.base.0 + 1,
            records: Vec::new(),
        };
        for records in stored.records.chunks(REWRITTEN) {
            batch.records.extend_from_slice(records);
            current.put(store.next, store.safe, &batch)?;
            store.next += 1;
            batch.first += records.len() as u64;
            batch.records.clear();
        }
        current.make_safe()?;
        sync_directory(path)?;
        let numbers = [(Register::First, FIRST), (Register::Last, FIRST), (Register::Safe, store.next)];
        store.registers.begin(&store.identity, &numbers)?;
        sync_directory(path)?;
        Ok(store)
    }

    /// Reads what is kept. From then on it can be written.
    pub(super) fn read_all(&mut self) -> Result<Stored, StorageError> {
        assert!(self.current.is_none(), "what is kept is read once");
        let (first, last) = (self.registers.number(Register::First)?, self.registers.number(Register::Last)?);
        let safe = self.registers.number(Register::Safe)?;
        let mut replay = Replay::default();
        let mut bytes = Vec::new();
        let mut current = None;
        for number in first..=last {
            let path = segment_path(&self.path, number);
            read_segment(&path, number, self.safety, &mut bytes)?;
            let beginning = Beginning::parse(&bytes, number, self.identity.life)?;
            if number > first && beginning.first != self.next {
                return Err(StorageError::Damaged(format!("batch {} is missing", self.next)));
            }
            replay.begin(beginning.fresh);
            if beginning.fresh {
                self.older.iter_mut().for_each(|older| older.highest = 0);
            }
            let mut highest = 0;
            let end = segment::read(&bytes, &beginning, &mut |batch| {
                highest = replay.take(batch)?.max(highest);
                Ok(())
            })?;
            self.next = end.next;
            if number < last {
                self.older.push_back(Older { number, highest });
                continue;
            }
            let is_torn = segment::is_torn(&bytes, &beginning, end)?;
            if end.next < safe {
                return Err(StorageError::Damaged(format!("batch {} is missing", end.next)));
            }
            if is_torn {
                tracing::warn!(
                    number = end.next,
                    "the last batches were not written completely; nobody relied on them"
                );
            }
            current = Some(Segment::resume(&path, beginning.salt, end.at as u64, is_torn, self.safety)?);
            self.highest = highest;
        }
        self.number = last;
        self.remove_uncounted(first, last)?;
        if self.safety == Safety::Synced {
            sync_directory(&self.path)?;
        }
        let stored = replay.finish()?;
        self.hard_state = stored.hard_state;
        self.lives.clone_from(&stored.lives);
        self.log = Terms::after(stored.base);
        self.log.put(stored.base.0 + 1, stored.records.iter().map(|record| record.term));
        self.safe = self.next;
        if self.safe > safe {
            self.registers.put(Register::Safe, self.safe)?;
        }
        self.known_safe = self.safe;
        self.current = Some(current.ok_or_else(|| StorageError::Damaged("there is no segment".to_owned()))?);
        Ok(stored)
    }

    /// Removes files of segments that do not count: before the first one, those that were being removed; behind the last
    /// one, such as were only prepared.
    fn remove_uncounted(&self, first: u64, last: u64) -> Result<(), StorageError> {
        for number in segments_in(&self.path)?.into_iter().filter(|number| !(first..=last).contains(number)) {
            let path = segment_path(&self.path, number);
            if number > last && is_used(&path, number, Some(self.identity.life))? {
                return Err(StorageError::Damaged(format!("segment {number} is not where the journal ends")));
            }
            remove_segment(&self.path, number)?;
        }
        Ok(())
    }
}

/// Reads the file of a segment that counts, and makes sure that it is as safe as the policy demands: what a killed process
/// has written may be in the system's memory only, and is relied on from now on.
fn read_segment(path: &Path, number: u64, safety: Safety, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
    bytes.clear();
    let mut read = || {
        let mut file = File::open(path)?;
        file.read_to_end(bytes)?;
        if safety == Safety::Synced { file.sync_all() } else { Ok(()) }
    };
    read().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::Damaged(format!("segment {number} is missing")),
        _ => io_error(&error),
    })
}

/// Whether there is more than its beginning in a segment that does not count; of this store, if its life is known.
fn is_used(path: &Path, number: u64, life: Option<u64>) -> Result<bool, StorageError> {
    let bytes = fs::read(path).map_err(|error| io_error(&error))?;
    let life = life.or_else(|| Beginning::life_in(&bytes)).unwrap_or(0);
    let Ok(beginning) = Beginning::parse(&bytes, number, life) else { return Ok(false) };
    let used = record::find(&bytes[BEGINNING_LEN..], beginning.salt).any(|record| record.number > beginning.first);
    Ok(used)
}

/// Refuses what belongs to somebody else.
fn check_owner(path: &Path, identity: &Identity, group: GroupId, node: NodeId) -> Result<(), StorageError> {
    if identity.group == group && identity.member.node() == node {
        return Ok(());
    }
    Err(StorageError::Foreign {
        path: path.to_owned(),
        found: identity.member,
        found_group: identity.group.0,
        expected: node,
        expected_group: group.0,
    })
}
