//! A disk: slow, and after a crash it has what it synced and a part of what was written since.
//!
//! It keeps exactly what [`hovercraft::storage`] promises and no more. A batch goes in part by part (term and vote, then
//! what is compacted, then records one by one); a crash cuts anywhere between two parts of what is not synced. A disk that is full or broken
//! takes one more part before it says so.

use std::collections::VecDeque;
use std::time::Duration;

use hovercraft::storage::{HardState, Persist, Storage, StorageError, Stored, StoredRecord};
use hovercraft::{LogIndex, MemberId, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How disks behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// Shortest time that a sync takes.
    pub latency: Duration,
    /// Up to this much is added.
    pub jitter: Duration,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { latency: Duration::from_micros(100), jitter: Duration::from_micros(100) }
    }
}

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// No room.
    Full,
    /// Writes and syncs fail.
    Broken,
}

/// A node's disk.
#[derive(Debug)]
pub(super) struct Disk {
    config: DiskConfig,
    rng: SmallRng,
    /// Which storage this is; whoever starts on it is the same process to its peers.
    pub(super) life: u64,
    synced: Stored,
    written: VecDeque<Part>,
    /// Batches that wait until the sync under way is done.
    queue: VecDeque<Persist>,
    /// The last batch that the sync under way covers.
    syncing: Option<u64>,
    fault: Option<DiskFault>,
}

#[derive(Debug)]
enum Part {
    HardState(HardState),
    Lives(Vec<(MemberId, u64)>),
    Compacted((LogIndex, Term)),
    Record(LogIndex, StoredRecord),
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(config: DiskConfig, life: u64) -> Self {
        Self {
            config,
            rng: SmallRng::seed_from_u64(life ^ 0xd15c),
            life,
            synced: Stored::default(),
            written: VecDeque::new(),
            queue: VecDeque::new(),
            syncing: None,
            fault: None,
        }
    }

    /// Takes a batch. Returns how long a sync takes if one begins now, to be ended by [`Disk::end_sync`].
    pub(super) fn submit(&mut self, batch: Persist) -> Result<Option<Duration>, StorageError> {
        self.queue.push_back(batch);
        if self.syncing.is_some() { Ok(None) } else { self.begin_sync() }
    }

    /// The sync under way is done. Returns the last batch that is safe now, and how long the next sync takes, if one
    /// begins.
    pub(super) fn end_sync(&mut self) -> Result<(u64, Option<Duration>), StorageError> {
        let safe = self.syncing.take().expect("a sync is under way");
        self.sync()?;
        Ok((safe, self.begin_sync()?))
    }

    /// One sync for everything that waits.
    fn begin_sync(&mut self) -> Result<Option<Duration>, StorageError> {
        while let Some(batch) = self.queue.pop_front() {
            self.write(&batch)?;
            self.syncing = Some(batch.number);
        }
        let jitter = self.config.jitter.as_nanos() as u64;
        let more = if jitter == 0 { 0 } else { self.rng.random_range(0..jitter) };
        Ok(self.syncing.map(|_| self.config.latency + Duration::from_nanos(more)))
    }

    /// The machine crashes, or only the process: some of what is not synced is lost, or all, or nothing.
    pub(super) fn crash(&mut self) {
        let kept = self.rng.random_range(0..=self.written.len());
        self.written.truncate(kept);
        self.take_written();
        self.queue.clear();
        self.syncing = None;
    }

    /// Makes it faster or slower, from the next sync on.
    pub(super) fn set_config(&mut self, config: DiskConfig) {
        self.config = config;
    }

    /// Breaks, fills or repairs it. Returns what was wrong with it before.
    pub(super) fn set_fault(&mut self, fault: Option<DiskFault>) -> Option<DiskFault> {
        std::mem::replace(&mut self.fault, fault)
    }

    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<DiskFault> {
        self.fault
    }

    /// Term and vote as a crash would leave them at worst.
    pub(super) fn hard_state(&self) -> HardState {
        self.synced.hard_state
    }

    /// The term of the record at `index`, if a crash cannot lose it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.synced.term_at(index)
    }

    fn take_written(&mut self) {
        for part in self.written.drain(..) {
            match part {
                Part::HardState(hard_state) => self.synced.put_hard_state(hard_state),
                Part::Lives(lives) => self.synced.lives.extend(lives),
                Part::Compacted(compacted) => self.synced.put_compacted(compacted),
                Part::Record(index, record) => self.synced.put_record(index, record),
            }
        }
    }

    fn works(&self) -> Result<(), StorageError> {
        match self.fault {
            None => Ok(()),
            Some(DiskFault::Full) => Err(StorageError::Full("no space left on the simulated device".to_owned())),
            Some(DiskFault::Broken) => Err(StorageError::Io("the simulated device says no".to_owned())),
        }
    }
}

impl Storage for Disk {
    fn write(&mut self, batch: &Persist) -> Result<(), StorageError> {
        let hard_state = batch.hard_state.map(Part::HardState).into_iter();
        let lives = (!batch.lives.is_empty()).then(|| Part::Lives(batch.lives.clone())).into_iter();
        let compacted = batch.compacted.map(Part::Compacted);
        let records = batch.records.iter().zip(batch.first..).map(|(record, at)| Part::Record(at, record.clone()));
        let works = self.works();
        let parts = if works.is_ok() { usize::MAX } else { 1 };
        self.written.extend(hard_state.chain(lives).chain(compacted).chain(records).take(parts));
        works
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.works()?;
        self.take_written();
        Ok(())
    }

    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(self.synced.clone())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(term: Term) -> StoredRecord {
        StoredRecord { term, entry: Bytes::new(), body: Bytes::new() }
    }

    fn batch(number: u64, first: LogIndex, terms: &[Term]) -> Persist {
        let hard_state = Some(HardState { term: number, vote: None });
        Persist {
            number,
            hard_state,
            lives: Vec::new(),
            compacted: None,
            first,
            records: terms.iter().map(|term| record(*term)).collect(),
        }
    }

    fn disk(life: u64) -> Disk {
        Disk::new(DiskConfig { latency: Duration::from_micros(100), jitter: Duration::ZERO }, life)
    }

    #[test]
    fn one_sync_serves_all_that_waits() {
        let mut disk = disk(1);
        let sync = Some(Duration::from_micros(100));
        assert_eq!(disk.submit(batch(1, 1, &[1])), Ok(sync));
        assert_eq!(disk.submit(batch(2, 2, &[1])), Ok(None));
        assert_eq!(disk.submit(batch(3, 3, &[1])), Ok(None));
        assert_eq!(disk.term_at(1), None, "nothing is safe yet");
        assert_eq!(disk.end_sync(), Ok((1, sync)));
        assert_eq!((disk.term_at(1), disk.term_at(2)), (Some(1), None));
        assert_eq!(disk.end_sync(), Ok((3, None)));
        assert_eq!((disk.term_at(3), disk.hard_state().term), (Some(1), 3));
    }

    #[test]
    fn a_crash_keeps_what_is_synced_and_any_part_of_the_rest() {
        let mut kept = std::collections::BTreeSet::new();
        for life in 0..64 {
            let mut disk = disk(life);
            disk.submit(batch(1, 1, &[1, 1, 1])).unwrap();
            disk.end_sync().unwrap();
            disk.submit(batch(2, 2, &[2, 2])).unwrap();
            disk.submit(batch(3, 4, &[2])).unwrap();
            disk.crash();
            let stored = disk.load().unwrap();
            kept.insert((stored.hard_state.term, stored.records.iter().map(|record| record.term).collect::<Vec<_>>()));
        }
        let expected =
            [(1, vec![1, 1, 1]), (2, vec![1, 1, 1]), (2, vec![1, 2]), (2, vec![1, 2, 2])].into_iter().collect();
        assert_eq!(kept, expected, "cut anywhere, and what waited for the sync was never written");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_says_so() {
        let mut disk = disk(1);
        disk.set_fault(Some(DiskFault::Full));
        assert!(matches!(disk.submit(batch(1, 1, &[1])), Err(StorageError::Full(_))));
        assert_eq!(disk.written.len(), 1);
        disk.set_fault(Some(DiskFault::Broken));
        assert!(matches!(disk.sync(), Err(StorageError::Io(_))));
        disk.set_fault(None);
        disk.crash();
        assert_eq!(disk.submit(batch(1, 1, &[1])), Ok(Some(Duration::from_micros(100))));
        assert_eq!(disk.end_sync(), Ok((1, None)));
    }
}
