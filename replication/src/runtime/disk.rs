//! The thread that writes: nobody else waits for the disk (protocol.md §5.5, §6.2).
//!
//! One sync serves every batch that waits when it begins (group commit): the slower the disk, the larger the groups.
//! What waits is bounded by the node core, which takes nothing beyond its window while what it has is not safe.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, unbounded};
use r2p2::udp::Waker;

use super::NodeError;
use crate::id::NodeId;
use crate::storage::{Persist, Storage, StorageError};

/// How long nothing comes before the store has time for other things.
const REST_AFTER: Duration = Duration::from_millis(20);

/// The network thread's end.
pub(super) struct Disk {
    to_write: Option<Sender<Persist>>,
    /// The last batch handed over, and the last one that the node was told is safe.
    handed: u64,
    told: u64,
    shared: Arc<Shared>,
    node: NodeId,
    /// Until it has been waited for.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The last batch that is safe.
    safe: AtomicU64,
    failed: AtomicBool,
    error: Mutex<Option<StorageError>>,
    batches: AtomicU64,
    syncs: AtomicU64,
}

impl Disk {
    pub(super) fn spawn(storage: impl Storage + Send + 'static, waker: Waker, node: NodeId) -> io::Result<Self> {
        let (to_write, batches) = unbounded();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let write = move || {
            let guard = Failing { shared: &theirs, waker: &waker };
            let result = write_all(storage, &batches, &theirs, &waker);
            if let Err(error) = result {
                *theirs.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            drop(guard);
        };
        let thread = thread::Builder::new().name(format!("{node}-disk")).spawn(write)?;
        Ok(Self { to_write: Some(to_write), handed: 0, told: 0, shared, node, thread: Some(thread) })
    }

    /// Hands over the next batch.
    pub(super) fn push(&mut self, batch: Persist) {
        self.handed = batch.number;
        // Without a receiver the thread has ended, which `progress` notices.
        if let Some(to_write) = &self.to_write {
            _ = to_write.send(batch);
        }
    }

    /// The last batch that is safe, if that is news.
    ///
    /// # Errors
    /// The disk has failed.
    pub(super) fn progress(&mut self) -> Result<Option<u64>, StorageError> {
        if self.shared.failed.load(Ordering::Acquire) {
            let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(error.unwrap_or_else(|| {
                StorageError::Io("the disk thread panicked; the message is on standard error".to_owned())
            }));
        }
        let safe = self.shared.safe.load(Ordering::Acquire);
        let news = safe > self.told;
        self.told = safe;
        Ok(news.then_some(safe))
    }

    /// Lets what is handed over be written, and waits for that.
    pub(super) fn finish(&mut self) -> Result<(), NodeError> {
        self.to_write = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| NodeError::Panicked { node: self.node, thread: "disk" })
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 3] {
        [
            ("disk.batches", self.shared.batches.load(Ordering::Relaxed)),
            ("disk.syncs", self.shared.syncs.load(Ordering::Relaxed)),
            ("disk.waiting", self.handed - self.told),
        ]
    }
}

/// Says that the thread has failed when it ends, however it ends, unless it was to.
struct Failing<'a> {
    shared: &'a Shared,
    waker: &'a Waker,
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if error || thread::panicking() {
            self.shared.failed.store(true, Ordering::Release);
            self.waker.wake();
        }
    }
}

fn write_all(
    mut storage: impl Storage,
    batches: &Receiver<Persist>,
    shared: &Shared,
    waker: &Waker,
) -> Result<(), StorageError> {
    loop {
        let first = match batches.recv_timeout(REST_AFTER) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                storage.rest()?;
                match batches.recv() {
                    Ok(first) => first,
                    Err(RecvError) => return Ok(()),
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut number = first.number;
        storage.write(&first)?;
        let mut count = 1;
        // No more than there are now: a stream without end must not put off the sync.
        for batch in batches.try_iter().take(batches.len()) {
            number = batch.number;
            storage.write(&batch)?;
            count += 1;
        }
        storage.sync()?;
        shared.batches.fetch_add(count, Ordering::Relaxed);
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        shared.safe.store(number, Ordering::Release);
        waker.wake();
    }
}
