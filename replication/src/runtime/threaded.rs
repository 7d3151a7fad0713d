//! Executing on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use r2p2::udp::{Clock, Waker};
use r2p2::{Instant, TransmitBatch};

use super::NodeError;
use super::archive::Archivist;
use super::execution::{Backlog, Execution, Report};
use super::sockets::{Answers, REQUESTS};
use crate::applier::{Applier, Work};
use crate::handoff::{AppliedIndex, Returner, Returns, WakeFlag, return_ring};
use crate::id::{LogIndex, NodeId};
use crate::service::Service;

/// Most work handed over at once.
const BATCH_MAX: usize = 64;
/// Most batches handed over and not yet begun; what is beyond waits on the network thread.
const BATCHES_MAX: usize = 64;
/// How long answers wait for company, unless one operation takes longer.
const FLUSH_AFTER: Duration = Duration::from_micros(50);

/// The network thread's end.
pub(super) struct Threaded {
    backlog: Backlog,
    /// The channel was full when it was last tried; the apply thread wakes us when that has changed.
    full: bool,
    report: Asked,
    to_apply: Option<Sender<Item>>,
    reports: Receiver<Report>,
    returns: Returns<Vec<Work>>,
    shared: Arc<Shared>,
    node: NodeId,
    /// Until it has been waited for.
    thread: Option<JoinHandle<Result<(), NodeError>>>,
}

/// How far the wish for a report is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    /// Not passed on yet.
    Wanted,
    Passed,
}

/// For the apply thread.
enum Item {
    Work(Vec<Work>),
    Report,
}

struct Shared {
    applied: AppliedIndex,
    network: WakeFlag,
    /// Asked to stop.
    stop: AtomicBool,
    /// The apply thread ends, asked or not.
    ended: AtomicBool,
}

impl Threaded {
    pub(super) fn spawn<S: Service>(
        applier: Applier<S>,
        archive: Archivist,
        answers: Answers,
        clock: Clock,
        waker: Waker,
        node: NodeId,
    ) -> io::Result<Self> {
        let (to_apply, work) = bounded(BATCHES_MAX);
        // At most one report is on its way.
        let (to_network, reports) = bounded(1);
        // As many as can be on their way, and one that is filled and one that is emptied.
        let (returner, returns) = return_ring(BATCHES_MAX + 2);
        let shared = Arc::new(Shared {
            applied: AppliedIndex::new(applier.applied()),
            network: WakeFlag::new(),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let last_flush = clock.now();
        let apply = Apply {
            applier,
            archive,
            work,
            to_network,
            returner,
            shared: Arc::clone(&shared),
            waker,
            clock,
            answers,
            batch: TransmitBatch::new(),
            last_flush,
            unflushed: false,
        };
        let thread = thread::Builder::new().name(format!("{node}-apply")).spawn(move || apply.run())?;
        Ok(Self {
            backlog: Backlog::default(),
            full: false,
            report: Asked::No,
            to_apply: Some(to_apply),
            reports,
            returns,
            shared,
            node,
            thread: Some(thread),
        })
    }

    /// Hands over one item; gives it back if there is no room.
    fn pass(&mut self, item: Item) -> Result<(), Item> {
        // Without a receiver the thread has ended, which `advance` notices.
        let Some(to_apply) = &self.to_apply else { return Err(item) };
        to_apply.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) | TrySendError::Disconnected(item) => item,
        })
    }

    /// Tells the apply thread to stop after the operation at hand, and waits for that.
    fn end(&mut self) -> Result<(), NodeError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.to_apply = None;
        self.join()
    }

    fn join(&mut self) -> Result<(), NodeError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(NodeError::Panicked { node: self.node, thread: "apply" }))
    }
}

impl Execution for Threaded {
    fn push(&mut self, work: Work) {
        self.backlog.push(work);
    }

    fn advance(&mut self, _: &mut TransmitBatch) -> Result<(), NodeError> {
        if self.report == Asked::Wanted && self.pass(Item::Report).is_ok() {
            self.report = Asked::Passed;
        }
        self.full = false;
        while !self.backlog.is_empty() {
            let mut batch = self.returns.take().unwrap_or_default();
            batch.extend(std::iter::from_fn(|| self.backlog.pop()).take(BATCH_MAX));
            if let Err(item) = self.pass(Item::Work(batch)) {
                if let Item::Work(mut batch) = item {
                    self.backlog.put_back(&mut batch);
                }
                self.full = true;
                break;
            }
        }
        if self.shared.ended.load(Ordering::Acquire) {
            return self.join();
        }
        Ok(())
    }

    fn applied(&self) -> LogIndex {
        self.shared.applied.read()
    }

    fn unfinished(&self) -> bool {
        !self.full && !self.backlog.is_empty()
    }

    fn may_sleep(&self) -> bool {
        self.shared.network.prepare_sleep()
    }

    fn awake(&self) {
        self.shared.network.awake();
    }

    fn ask_report(&mut self) {
        if self.report == Asked::No {
            self.report = Asked::Wanted;
        }
    }

    fn take_report(&mut self) -> Option<Report> {
        let report = self.reports.try_recv().ok()?;
        self.report = Asked::No;
        Some(report)
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.backlog.counters()
    }

    fn finish(mut self) -> Result<(), NodeError> {
        self.end()
    }
}

impl Drop for Threaded {
    /// Only if the network thread panics or never started is there still something to do.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Says that the apply thread ends, whether it returns or panics.
struct Ending {
    shared: Arc<Shared>,
    waker: Waker,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The apply thread.
struct Apply<S: Service> {
    applier: Applier<S>,
    archive: Archivist,
    work: Receiver<Item>,
    to_network: Sender<Report>,
    returner: Returner<Vec<Work>>,
    shared: Arc<Shared>,
    waker: Waker,
    clock: Clock,
    answers: Answers,
    batch: TransmitBatch,
    last_flush: Instant,
    unflushed: bool,
}

impl<S: Service> Apply<S> {
    fn run(mut self) -> Result<(), NodeError> {
        let _ending = Ending { shared: Arc::clone(&self.shared), waker: self.waker.clone() };
        self.execute()
    }

    /// Executes until it is told to stop.
    fn execute(&mut self) -> Result<(), NodeError> {
        loop {
            let item = match self.work.try_recv() {
                Ok(item) => item,
                Err(TryRecvError::Empty) => {
                    self.flush()?;
                    match self.work.recv() {
                        Ok(item) => item,
                        Err(_) => return Ok(()),
                    }
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
            };
            match item {
                Item::Work(mut batch) => {
                    for work in batch.drain(..) {
                        if self.shared.stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        self.unflushed = true;
                        match work {
                            Work::Snapshot(wanted) => self.archive.take(wanted, self.applier.freeze()),
                            Work::Install(info) => {
                                // Nothing comes if the archive has failed, and says why, or if the node stops.
                                let Ok(opened) = self.archive.open(info).recv() else { return Ok(()) };
                                if !self.archive.restore(opened, &mut self.applier)? {
                                    return Ok(());
                                }
                            }
                            work => {
                                let answers = &mut self.batch;
                                self.applier.handle(work, &mut |to, packet| answers.push(REQUESTS, to, packet))?;
                            }
                        }
                        if self.clock.now() >= self.last_flush + FLUSH_AFTER {
                            self.flush()?;
                        }
                    }
                    // If it has no place for it, it is dropped.
                    let _ = self.returner.give(batch);
                }
                Item::Report => {
                    self.flush()?;
                    let mut report = Report::of(&self.applier);
                    report.counters.extend(self.answers.counters());
                    // There is room: the next one is asked for only after this one was taken.
                    let _ = self.to_network.try_send(report);
                    self.wake();
                }
            }
        }
    }

    /// Sends the answers, then says how far it is.
    fn flush(&mut self) -> Result<(), NodeError> {
        self.last_flush = self.clock.now();
        if !self.unflushed {
            return Ok(());
        }
        self.unflushed = false;
        let batch = &mut self.batch;
        self.applier.flush_feedback(&mut |to, packet| batch.push(REQUESTS, to, packet));
        if !self.batch.is_empty() {
            self.answers.transmit(&mut self.batch).map_err(NodeError::Sockets)?;
        }
        self.shared.applied.publish(self.applier.applied());
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if self.shared.network.wake() {
            self.waker.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
    use std::sync::{Condvar, Mutex};

    use bytes::Bytes;
    use r2p2::Digest;
    use r2p2::datapath::Datapath;
    use r2p2::udp::{SocketOptions, UdpDatapath};

    use super::*;
    use crate::applier::{ApplierConfig, Committed};
    use crate::cluster::{ClusterConfig, LocalPorts};
    use crate::entry::{Entry, EntryKind, RequestHead};
    use crate::runtime::archive::ArchiveThread;
    use crate::runtime::sockets::Wires;
    use crate::service::{Class, Context, Reply};
    use crate::snapshot::MemoryArchive;

    /// Only a guard against hanging: nothing here takes that long.
    const GUARD: Duration = Duration::from_secs(60);

    #[test]
    fn a_full_channel_is_waited_for_without_spinning_and_order_is_kept() {
        let gate = Arc::new(Gate::default());
        let (mut wires, mut execution) = spawn(Arc::clone(&gate));
        let mut none = TransmitBatch::new();
        // One batch each: more than fit into the channel.
        let total = 3 * BATCHES_MAX as u64;
        for index in 1..=total {
            execution.push(Work::Apply(committed(index)));
            execution.advance(&mut none).unwrap();
        }
        assert!(execution.full && !execution.backlog.is_empty());
        assert!(!execution.unfinished(), "there is nothing to do until the apply thread has made room");
        assert_eq!(execution.applied(), 0);
        gate.open();
        let (clock, mut last) = (wires.clock(), 0);
        let end = clock.now() + GUARD;
        while execution.applied() < total {
            execution.advance(&mut none).unwrap();
            if !execution.unfinished() && execution.may_sleep() {
                wires.wait(Some(end)).unwrap();
                execution.awake();
            }
            assert!(last <= execution.applied());
            last = execution.applied();
            assert!(clock.now() < end, "hangs at {last}");
        }
        assert!(execution.backlog.is_empty());
        assert!(none.is_empty(), "the apply thread sends its answers itself");
        execution.finish().unwrap();
        assert_eq!(*gate.seen.lock().unwrap(), (1..=total).collect::<Vec<_>>());
    }

    #[test]
    fn a_report_comes_after_the_work_before_it() {
        let gate = Arc::new(Gate::default());
        let (mut wires, mut execution) = spawn(Arc::clone(&gate));
        let mut none = TransmitBatch::new();
        for index in 1..=10 {
            execution.push(Work::Apply(committed(index)));
        }
        execution.advance(&mut none).unwrap();
        execution.ask_report();
        execution.ask_report();
        execution.advance(&mut none).unwrap();
        assert!(execution.take_report().is_none(), "it is behind the gate");
        gate.open();
        let end = wires.clock().now() + GUARD;
        let report = loop {
            if let Some(report) = execution.take_report() {
                break report;
            }
            if execution.may_sleep() {
                wires.wait(Some(end)).unwrap();
                execution.awake();
            }
            assert!(wires.clock().now() < end, "hangs");
        };
        assert_eq!(report.applied, 10);
        assert!(execution.take_report().is_none(), "asking twice before it came is asking once");
    }

    #[test]
    fn a_panic_outside_the_service_is_noticed() {
        let gate = Arc::new(Gate::default());
        gate.open();
        let (mut wires, mut execution) = spawn(gate);
        let mut none = TransmitBatch::new();
        // The applier insists on the order of the log.
        execution.push(Work::Apply(committed(2)));
        let end = wires.clock().now() + GUARD;
        let error = loop {
            if let Err(error) = execution.advance(&mut none) {
                break error;
            }
            if execution.may_sleep() {
                wires.wait(Some(end)).unwrap();
                execution.awake();
            }
            assert!(wires.clock().now() < end, "hangs");
        };
        assert!(matches!(error, NodeError::Panicked { node: NodeId(1), thread: "apply" }), "{error}");
    }

    fn spawn(gate: Arc<Gate>) -> (Wires, Threaded) {
        let clock = Clock::new();
        let mut builder = UdpDatapath::builder(clock);
        builder.socket(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), SocketOptions::default());
        let wires = Wires::Plain(builder.build().unwrap());
        let config = ClusterConfig::local(1, &LocalPorts::default());
        let answers = wires.answers(&config, &config.nodes[0]);
        let applier = Applier::new(Gated { gate }, ApplierConfig::new(NodeId(1)));
        let archive = ArchiveThread::spawn(Box::new(MemoryArchive::new()), wires.waker(), NodeId(1)).unwrap();
        let execution =
            Threaded::spawn(applier, archive.archivist(), answers, clock, wires.waker(), NodeId(1)).unwrap();
        (wires, execution)
    }

    fn committed(index: LogIndex) -> Committed {
        let request = RequestHead {
            client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9),
            rid: 1,
            session: None,
            identity: Digest(index.into()),
            body_len: 1,
        };
        let kind = EntryKind::Request;
        let entry = Entry { kind, read_only: false, replier: NodeId(2), request, time: Instant::ZERO };
        Committed { index, entry, body: Bytes::from_static(b"x"), replayed: false }
    }

    /// Holds operations back until it is opened, and remembers them.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        seen: Mutex<Vec<u64>>,
    }

    impl Gate {
        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    struct Gated {
        gate: Arc<Gate>,
    }

    impl Service for Gated {
        fn classify(_: &[u8]) -> Class {
            Class::Write
        }

        fn apply(&mut self, context: &Context, _: &Bytes, _: &mut Reply) {
            let open = self.gate.open.lock().unwrap();
            drop(self.gate.opened.wait_timeout_while(open, GUARD, |open| !*open).unwrap());
            self.gate.seen.lock().unwrap().push(context.index);
        }

        fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}

        fn snapshot(&self) -> Vec<u8> {
            Vec::new()
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
}
