//! The thread that keeps snapshots: writes them, reads them for others, takes in what others send (protocol.md §7.4).
//!
//! One piece of work after the other, as slowly as it must, with less claim to the processor than the threads that
//! serve. What waits is bounded by the node core, which has only so many chunks on their way.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use r2p2::udp::Waker;

use super::NodeError;
use crate::applier::{Applier, Frozen, RestoreError};
use crate::id::NodeId;
use crate::service::{Service, SnapshotView};
use crate::snapshot::{
    Archive, ArchiveEvent, ArchiveWork, Opened, Received, SnapshotInfo, SnapshotWanted, carry_out, keep,
};
use crate::storage::StorageError;

/// How much the thread gives way to others when processors are scarce; see `nice(2)`.
const NICE: libc::c_int = 10;

/// The network thread's end.
pub(super) struct ArchiveThread {
    archivist: Archivist,
    events: Receiver<ArchiveEvent>,
    node: NodeId,
    /// Until it has been waited for.
    thread: Option<JoinHandle<()>>,
}

/// Gives the archive things to do; for the threads that execute, too.
#[derive(Clone)]
pub(super) struct Archivist {
    jobs: Sender<Job>,
    to_network: Sender<ArchiveEvent>,
    waker: Waker,
    shared: Arc<Shared>,
}

enum Job {
    Work(ArchiveWork),
    Take(SnapshotWanted, Box<Frozen>),
    /// Open a snapshot, for somebody else to read.
    Open(SnapshotInfo, Box<dyn FnOnce(Opened) + Send>),
    /// There is nothing more to do.
    End,
}

#[derive(Default)]
struct Shared {
    /// Asked to stop: what is under way is given up.
    stop: AtomicBool,
    failed: AtomicBool,
    error: Mutex<Option<StorageError>>,
    pushed: AtomicU64,
    done: AtomicU64,
    taken: AtomicU64,
    installed: AtomicU64,
    read: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
}

impl ArchiveThread {
    pub(super) fn spawn(archive: Box<dyn Archive>, waker: Waker, node: NodeId) -> io::Result<Self> {
        let (jobs, to_do) = unbounded();
        let (to_network, events) = unbounded();
        let archivist = Archivist { jobs, to_network, waker, shared: Arc::new(Shared::default()) };
        let theirs = archivist.clone();
        let work = move || {
            give_way();
            let guard = Failing { archivist: &theirs };
            let result = work_on(archive, &to_do, &theirs);
            if let Err(error) = result {
                *theirs.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            drop(guard);
        };
        let thread = thread::Builder::new().name(format!("{node}-archive")).spawn(work)?;
        Ok(Self { archivist, events, node, thread: Some(thread) })
    }

    /// For whoever executes.
    pub(super) fn archivist(&self) -> Archivist {
        self.archivist.clone()
    }

    /// Hands over work.
    pub(super) fn push(&self, work: ArchiveWork) {
        self.archivist.push(Job::Work(work));
    }

    /// The next of what has happened.
    ///
    /// # Errors
    /// The archive has failed.
    pub(super) fn next_event(&mut self) -> Result<Option<ArchiveEvent>, StorageError> {
        if self.archivist.shared.failed.load(Ordering::Acquire) {
            let error = self.archivist.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(error.unwrap_or_else(|| {
                StorageError::Io("the archive thread panicked; the message is on standard error".to_owned())
            }));
        }
        Ok(self.events.try_recv().ok())
    }

    /// Gives up what is under way and what waits, and waits for that.
    pub(super) fn finish(&mut self) -> Result<(), NodeError> {
        self.archivist.shared.stop.store(true, Ordering::Relaxed);
        self.archivist.push(Job::End);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| NodeError::Panicked { node: self.node, thread: "archive" })
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 6] {
        let shared = &self.archivist.shared;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("archive.waiting", value(&shared.pushed).saturating_sub(value(&shared.done))),
            ("archive.snapshots_taken", value(&shared.taken)),
            ("archive.snapshots_installed", value(&shared.installed)),
            ("archive.chunks_read", value(&shared.read)),
            ("archive.chunks_received", value(&shared.received)),
            ("archive.chunks_refused", value(&shared.refused)),
        ]
    }
}

impl Drop for ArchiveThread {
    /// Only if the network thread panics or never started is there still something to do.
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Archivist {
    /// Has a snapshot kept.
    pub(super) fn take(&self, wanted: SnapshotWanted, frozen: Frozen) {
        self.push(Job::Take(wanted, Box::new(frozen)));
    }

    /// Opens a snapshot. Nothing comes if the archive fails or stops, which the network thread notices.
    pub(super) fn open(&self, info: SnapshotInfo) -> Receiver<Opened> {
        let (give, opened) = bounded(1);
        self.push(Job::Open(info, Box::new(move |opened| _ = give.send(opened))));
        opened
    }

    /// Has an applier go on from a snapshot, on the archive's thread. It comes back when it has; nothing comes if the
    /// archive fails or stops.
    pub(super) fn install<S: Service>(
        &self,
        info: SnapshotInfo,
        mut applier: Applier<S>,
    ) -> Receiver<Result<Applier<S>, RestoreError>> {
        let (give, installed) = bounded(1);
        let archivist = self.clone();
        let restore = move |opened| {
            let restored = archivist.restore(opened, &mut applier);
            if let Some(result) = restored.map(|there| there.then_some(applier)).transpose() {
                _ = give.send(result);
                archivist.waker.wake();
            }
        };
        self.push(Job::Open(info, Box::new(restore)));
        installed
    }

    /// Has an applier go on from a snapshot, and says so. False if that was given up because the node stops: nobody may ask
    /// the applier anything any more.
    pub(super) fn restore<S: Service>(&self, opened: Opened, applier: &mut Applier<S>) -> Result<bool, RestoreError> {
        let mut state = Interrupted { inner: opened.state, shared: &self.shared };
        let restored = applier.restore(&mut state);
        if self.stops() {
            return Ok(false);
        }
        restored?;
        self.shared.installed.fetch_add(1, Ordering::Relaxed);
        self.tell(ArchiveEvent::Installed(opened.info));
        Ok(true)
    }

    /// Whether it was asked to stop.
    pub(super) fn stops(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn push(&self, job: Job) {
        self.shared.pushed.fetch_add(1, Ordering::Relaxed);
        // Without a receiver the thread has ended, which `next_event` notices.
        _ = self.jobs.send(job);
    }

    fn tell(&self, event: ArchiveEvent) {
        _ = self.to_network.send(event);
        self.waker.wake();
    }
}

/// Says that the thread has failed when it ends, however it ends, unless it was to.
struct Failing<'a> {
    archivist: &'a Archivist,
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        let shared = &self.archivist.shared;
        let error = shared.error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if error || thread::panicking() {
            shared.failed.store(true, Ordering::Release);
            self.archivist.waker.wake();
        }
    }
}

fn work_on(mut archive: Box<dyn Archive>, jobs: &Receiver<Job>, archivist: &Archivist) -> Result<(), StorageError> {
    while let Ok(job) = jobs.recv() {
        if archivist.stops() {
            break;
        }
        let event = match job {
            Job::Work(work) => carry_out(&mut *archive, work),
            Job::Take(wanted, frozen) => {
                let view = Interruptible { view: frozen, shared: Arc::clone(&archivist.shared) };
                keep(&mut *archive, &wanted, Box::new(view)).map(Some)
            }
            Job::Open(info, give) => {
                let missing = || StorageError::Damaged(format!("the snapshot of entry {} is gone", info.index));
                archive.open(info.id).and_then(|opened| opened.ok_or_else(missing)).map(|opened| {
                    give(opened);
                    None
                })
            }
            Job::End => break,
        };
        if archivist.stops() {
            break;
        }
        let shared = &archivist.shared;
        shared.done.fetch_add(1, Ordering::Relaxed);
        if let Some(event) = event? {
            let counter = match &event {
                ArchiveEvent::Taken(_) => Some(&shared.taken),
                ArchiveEvent::Read { .. } => Some(&shared.read),
                ArchiveEvent::Received { received: Received::Refused(_), .. } => Some(&shared.refused),
                ArchiveEvent::Received { .. } => Some(&shared.received),
                _ => None,
            };
            counter.map(|counter| counter.fetch_add(1, Ordering::Relaxed));
            archivist.tell(event);
        }
    }
    // What it has begun to receive is of no use to anybody.
    archive.abandon()
}

/// The serving threads come first.
fn give_way() {
    // SAFETY: no memory is involved. Of Linux's threads each has a niceness of its own, and 0 is the calling one.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the archive thread has the claim of any other");
    }
}

/// A state whose writing ends when the node does.
struct Interruptible {
    view: Box<dyn SnapshotView>,
    shared: Arc<Shared>,
}

impl SnapshotView for Interruptible {
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        self.view.write(&mut Interrupted { inner: to, shared: &self.shared })
    }
}

/// Reads or writes until the node is to stop.
struct Interrupted<'a, T> {
    inner: T,
    shared: &'a Shared,
}

impl<T> Interrupted<'_, T> {
    fn check(&self) -> io::Result<()> {
        if self.shared.stop.load(Ordering::Relaxed) { Err(io::Error::other("the node stops")) } else { Ok(()) }
    }
}

impl<T: Read> Read for Interrupted<'_, T> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(to)
    }
}

impl<T: Write> Write for Interrupted<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use bytes::Bytes;
    use r2p2::udp::{Clock, SocketOptions, UdpDatapath};

    use super::*;
    use crate::applier::ApplierConfig;
    use crate::service::{Class, Context, Reply};
    use crate::snapshot::MemoryArchive;

    struct Nothing;

    impl Service for Nothing {
        fn classify(_: &[u8]) -> Class {
            Class::Write
        }

        fn apply(&mut self, _: &Context, _: &Bytes, _: &mut Reply) {}

        fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}

        fn snapshot(&self) -> Vec<u8> {
            Vec::new()
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }

    /// What is read of a snapshot breaks off in both cases; only in one of them something is wrong with it.
    #[test]
    fn a_snapshot_given_up_because_the_node_stops_is_no_failure() {
        let mut builder = UdpDatapath::builder(Clock::new());
        builder.socket(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), SocketOptions::default());
        let datapath = builder.build().unwrap();
        let mut archive = ArchiveThread::spawn(Box::new(MemoryArchive::new()), datapath.waker(), NodeId(1)).unwrap();
        let archivist = archive.archivist();
        let mut applier = Applier::new(Nothing, ApplierConfig::new(NodeId(1)));
        let info = SnapshotInfo { id: 1, index: 9, term: 1, len: 100 };
        let opened = || Opened { info, meta: Bytes::new(), state: Box::new(io::empty()) };
        let broken = archivist.restore(opened(), &mut applier);
        assert!(matches!(broken, Err(RestoreError::Snapshot(_))), "{broken:?}");

        archive.finish().unwrap();
        assert!(matches!(archivist.restore(opened(), &mut applier), Ok(false)));
        assert_eq!(archivist.shared.installed.load(Ordering::Relaxed), 0);
    }
}
