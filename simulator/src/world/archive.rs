//! A node's archive: slow like its disk, and after a crash it has what was whole.
//!
//! One piece of work after the other; each takes effect at its end. What is under way when the process dies has happened
//! or has not. A node without a disk keeps its archive in memory, so that goes with it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hovercraft::applier::Frozen;
use hovercraft::snapshot::{
    Archive as _, ArchiveEvent, ArchiveWork, MemoryArchive, Opened, SnapshotInfo, SnapshotWanted, carry_out, take,
};
use hovercraft::storage::StorageError;
use hovercraft::{LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::{DiskConfig, DiskFault};

/// A node's archive.
#[derive(Debug)]
pub(super) struct Archive {
    config: DiskConfig,
    rng: SmallRng,
    kept: MemoryArchive,
    /// The first is under way.
    work: VecDeque<Job>,
    is_full: bool,
}

/// Something that an archive is to do.
#[derive(Debug)]
pub(super) enum Job {
    Take(SnapshotWanted, Box<Frozen>),
    Work(ArchiveWork),
}

impl Archive {
    /// An empty one.
    pub(super) fn new(config: DiskConfig, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed ^ 0xa2c4);
        Self { config, rng, kept: MemoryArchive::new(), work: VecDeque::new(), is_full: false }
    }

    /// Takes something to do. Returns how long it takes if it is begun at once, to be ended by [`Archive::end`].
    pub(super) fn push(&mut self, job: Job) -> Option<Duration> {
        self.work.push_back(job);
        if self.work.len() == 1 { self.begin() } else { None }
    }

    /// What was under way is done, on a disk with this fault. Returns what the node is to be told, and how long the next
    /// piece of work takes.
    pub(super) fn end(
        &mut self,
        fault: Option<DiskFault>,
    ) -> Result<(Option<ArchiveEvent>, Option<Duration>), StorageError> {
        let event = match self.work.pop_front() {
            Some(job) => self.carry_out(job, fault.or(self.is_full.then_some(DiskFault::Full)))?,
            None => None,
        };
        Ok((event, self.begin()))
    }

    fn begin(&mut self) -> Option<Duration> {
        let jitter = self.config.jitter.as_nanos() as u64;
        let more = if jitter == 0 { 0 } else { self.rng.random_range(0..jitter) };
        let whole = self.config.latency + Duration::from_nanos(more);
        self.work.front().map(|job| match job {
            // Caches help.
            Job::Work(ArchiveWork::Read { .. } | ArchiveWork::Receive(_)) => whole / 16,
            Job::Take(..) => whole * 8,
            Job::Work(_) => whole,
        })
    }

    fn carry_out(&mut self, job: Job, fault: Option<DiskFault>) -> Result<Option<ArchiveEvent>, StorageError> {
        match (fault, job) {
            (Some(DiskFault::Broken), _) => Err(StorageError::Io("the simulated device says no".to_owned())),
            (Some(DiskFault::Full), Job::Take(wanted, _)) => Ok(Some(ArchiveEvent::NotTaken(wanted.index))),
            (Some(DiskFault::Full), Job::Work(ArchiveWork::Receive(_) | ArchiveWork::Seal)) => {
                let receiving = self.kept.receiving();
                self.kept.abandon()?;
                Ok(receiving.map(ArchiveEvent::NotReceived))
            }
            (_, Job::Take(wanted, frozen)) => take(&mut self.kept, &wanted, *frozen).map(Some),
            (_, Job::Work(work)) => carry_out(&mut self.kept, work),
        }
    }

    /// The process dies, on a machine that keeps what was whole if it is `durable`.
    pub(super) fn crash(&mut self, durable: bool) {
        if let Some(job) = self.work.pop_front()
            && durable
            && self.rng.random_bool(0.5)
        {
            _ = self.carry_out(job, None);
        }
        self.work.clear();
        if durable {
            self.kept.abandon().expect("memory does not fail");
        } else {
            self.kept = MemoryArchive::new();
        }
    }

    /// Whether there is no room, whatever the disk says.
    pub(super) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Makes it faster or slower.
    pub(super) fn set_config(&mut self, config: DiskConfig) {
        self.config = config;
    }

    /// Reads a snapshot.
    pub(super) fn open(&mut self, info: &SnapshotInfo) -> Result<Option<Opened>, StorageError> {
        self.kept.open(info.id)
    }

    /// The newest snapshot and its metadata, for a process that starts.
    pub(super) fn newest(&mut self) -> Result<Option<(SnapshotInfo, Bytes)>, StorageError> {
        let Some(info) = self.kept.list().last().copied() else { return Ok(None) };
        Ok(self.kept.open(info.id)?.map(|opened| (info, opened.meta)))
    }

    /// The term of the last entry of the snapshot of this index, if there is one.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.kept.list().iter().find(|info| info.index == index).map(|info| info.term)
    }
}
