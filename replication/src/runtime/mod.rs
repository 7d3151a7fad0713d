//! Runs a node: sockets, threads and a clock around the cores. Decides nothing that a core could decide.
//!
//! ```no_run
//! use hovercraft::cluster::ClusterConfig;
//! use hovercraft::{NodeId, runtime};
//! # use bytes::Bytes;
//! # use hovercraft::{Class, Context, Reply, Service};
//! # struct Counter(u64);
//! # impl Service for Counter {
//! #     fn classify(_: &[u8]) -> Class { Class::Write }
//! #     fn apply(&mut self, _: &Context, _: &Bytes, _: &mut Reply) { self.0 += 1 }
//! #     fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}
//! #     fn snapshot(&self) -> Vec<u8> { Vec::new() }
//! #     fn restore(&mut self, _: &[u8]) -> Result<(), String> { Ok(()) }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClusterConfig::default();
//! let node = runtime::start(&config, NodeId(1), "counter", Counter(0))?;
//! let stopper = node.stopper(); // Give it to whoever handles signals ...
//! # stopper.stop();
//! node.wait()?; // ... and wait here.
//! # Ok(()) }
//! ```
//!
//! # Threads
//! With one thread, everything happens on it: it looks at the network at the latest after 50 µs of executing (or after
//! a single longer operation). With two, the second executes and answers clients itself; the first never waits for it,
//! so that heartbeats go out however long an operation takes. An idle node blocks in the kernel until its next timer.
//!
//! # What it leaves behind
//! A node with memory durability leaves a small file in [`ClusterConfig::runtime_dir`] that says that this identity has
//! lived; if it finds it there, it asks the others to let it in as its next incarnation (protocol.md §7.5). Any other node
//! leaves its data, in [`ClusterConfig::node_dir`], and goes on from there. A thread of its own writes it
//! ([`crate::storage`]), and one more keeps snapshots ([`crate::snapshot`]); without durability these are in memory.

mod archive;
mod disk;
mod driver;
mod execution;
mod identity;
mod inline;
mod life;
mod restore;
mod roles;
mod sockets;
mod threaded;

use std::fmt;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use multicast::{JoinError, SenderError};
use r2p2::udp::{Clock, SetupError, Waker};

pub use identity::JoinGroupError;
pub use life::LifeError;
pub use restore::{RestoreNodeError, restore};
pub use roles::{RoleStartError, RunningPart, aggregator, gateway, router};

use crate::applier::{Applier, ApplierConfig, ApplyPanic, RestoreError};
use crate::cluster::{ClusterConfig, ConfigError, Threads};
use crate::config::NodeConfig;
use crate::entropy;
use crate::id::NodeId;
use crate::metrics::{MetricsError, MetricsServer, Subject};
use crate::node::{Node, StopReason};
use crate::service::Service;
use crate::snapshot::{Archive, FileArchive, MemoryArchive};
use crate::storage::{Storage, StorageError, Stored};
use archive::ArchiveThread;
use disk::Disk;
use driver::{About, Driver};
use identity::Begun;
use inline::Inline;
use threaded::Threaded;

/// Where a node's snapshots are, in its directory.
const SNAPSHOTS: &str = "snapshots";

/// Starts the node `node` of the group that `config` describes, as threads of this process, with `service` as its state
/// machine. `name` is the service's name, for [`crate::client::status`].
///
/// When it returns, the sockets are open, so nothing that is sent to the node from then on is lost for lack of a
/// receiver.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn start<S: Service>(
    config: &ClusterConfig,
    node: NodeId,
    name: &str,
    service: S,
) -> Result<RunningNode, StartError> {
    config.validate()?;
    let entry = *config.entry(node).ok_or_else(|| config.no_such_node(node))?;
    let clock = Clock::new();
    let wires = sockets::open(config, &entry, clock)?;
    // As late as possible: what did not start has not lived.
    let Begun { member, life, membership, mut storage } = identity::begin(config, &entry)?;
    let (stored, archive): (_, Box<dyn Archive>) = match &mut storage {
        None => (Stored::default(), Box::new(MemoryArchive::new())),
        Some(storage) => {
            let mut archive = FileArchive::open(&config.node_dir(node)?.join(SNAPSHOTS), storage.safety())?;
            let mut stored = storage.load()?;
            if let Some(newest) = archive.list().last() {
                stored.snapshot = archive.open(newest.id)?.map(|opened| (opened.info, opened.meta));
            }
            let snapshot = stored.snapshot.as_ref().map_or(0, |(info, _)| info.index);
            tracing::info!(%node, entries = stored.records.len(), snapshot, "storage read");
            (stored, Box::new(archive))
        }
    };
    let node_config =
        NodeConfig { archive: true, service_version: S::VERSION, ..config.node_config(member, life, membership) };

    let feedback_epoch = entropy::draw();
    let node_config = NodeConfig { feedback_epoch, ..node_config };
    let applier_config = ApplierConfig { feedback_epoch: !feedback_epoch, ..config.applier_config(node) };
    let applier = Applier::new(service, applier_config);
    let waker = wires.waker();
    let stop = Arc::new(AtomicBool::new(false));
    let about = About::new(config, name);
    let core = Node::restart(clock.now(), node_config, S::classify, stored)?;
    let disk =
        storage.map(|storage| Disk::spawn(storage, wires.waker(), node)).transpose().map_err(StartError::Thread)?;
    let archive = ArchiveThread::spawn(archive, wires.waker(), node).map_err(StartError::Thread)?;
    let archivist = archive.archivist();
    let run_apart = match config.threads {
        Threads::Auto => thread::available_parallelism().is_ok_and(|cores| cores.get() >= 4),
        Threads::One => false,
        Threads::Two => true,
    };
    let thread_name = format!("{node}-network");
    let asked = Arc::clone(&stop);
    let thread = if run_apart {
        let answers = wires.answers(config, &entry);
        let execution =
            Threaded::spawn(applier, archivist, answers, clock, wires.waker(), node).map_err(StartError::Thread)?;
        let driver = Driver::new(core, wires, execution, disk, archive, about, asked);
        thread::Builder::new().name(thread_name).spawn(move || driver.run())
    } else {
        let execution = Inline::new(applier, archivist, clock);
        let driver = Driver::new(core, wires, execution, disk, archive, about, asked);
        thread::Builder::new().name(thread_name).spawn(move || driver.run())
    };
    let thread = thread.map_err(StartError::Thread)?;
    let stopper = Stopper { asked: stop, waker };
    let mut running = RunningNode { node, stopper, thread: Some(thread), metrics: None };
    if let Some(address) = entry.metrics {
        running.metrics = Some(MetricsServer::start(address, Subject::Node(node), config.client_options())?);
    }
    tracing::info!(%node, service = name, requests = %entry.requests, peers = %entry.peers, "node started");
    Ok(running)
}

/// A node that runs on threads of this process. Dropping it stops it and waits until it has stopped.
#[derive(Debug)]
pub struct RunningNode {
    node: NodeId,
    stopper: Stopper,
    /// Until it has been waited for.
    thread: Option<JoinHandle<Result<(), NodeError>>>,
    metrics: Option<MetricsServer>,
}

impl RunningNode {
    /// Which node this is.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// Where its numbers are read, if the configuration says so.
    pub fn metrics(&self) -> Option<SocketAddrV4> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Asks it to stop, and returns at once.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// A handle to stop it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Whether it has stopped, asked or not: [`RunningNode::wait`] will not block.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it has stopped: its threads have ended, its sockets are closed.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to.
    pub fn wait(mut self) -> Result<(), NodeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), NodeError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(NodeError::Panicked { node: self.node, thread: "network" }))
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            if let Err(error) = self.join() {
                tracing::warn!(node = %self.node, %error, "node had stopped");
            }
        }
    }
}

/// Stops a node from any thread. Asking twice is asking once.
#[derive(Clone)]
pub struct Stopper {
    asked: Arc<AtomicBool>,
    waker: Waker,
}

impl Stopper {
    /// Asks the node to stop, and returns at once.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopper").field(&self.asked).finish()
    }
}

/// Why a node could not be started. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Somebody has the port.
    #[error(
        "`{field}`: UDP port {} at {} is taken by another process, perhaps by this very node, already running; \
         stop that process (`ss -ulnp 'sport = :{}'` shows which it is) or change `{field}` in the configuration",
        address.port(),
        address.ip(),
        address.port()
    )]
    PortInUse {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        address: SocketAddrV4,
    },
    /// The address cannot be used for another reason.
    #[error(
        "`{field}`: cannot open a socket at {address}: {source}; check that this machine has that address (`ip addr`) \
         and that the port is at least 1024"
    )]
    Bind {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The group cannot be joined.
    #[error("`{field}`: {error}")]
    Join {
        /// The field of the configuration.
        field: &'static str,
        /// Why.
        error: JoinError,
    },
    /// The group cannot be sent to.
    #[error("`{field}`: {error}")]
    Sender {
        /// The field of the configuration.
        field: &'static str,
        /// Why.
        error: SenderError,
    },
    /// The sockets cannot be used.
    #[error(transparent)]
    Setup(SetupError),
    /// The group of nodes does not let it in.
    #[error(transparent)]
    NotLetIn(#[from] JoinGroupError),
    /// It has lived before, or cannot leave a mark.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// Its data cannot be used.
    #[error("the node's data: {0}")]
    Storage(#[from] StorageError),
    /// Its numbers cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// No thread.
    #[error("the system does not let us start a thread: {0}; check the limit on processes (`ulimit -u`)")]
    Thread(#[source] io::Error),
}

/// Why a node stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The service panicked on a write. It would on every replica.
    #[error(transparent)]
    Apply(#[from] ApplyPanic),
    /// A snapshot cannot be put in place. Its archive has checked it: the service disagrees with what it has written, or
    /// the nodes are configured differently.
    #[error("a snapshot cannot be used: {0}")]
    Restore(#[from] RestoreError),
    /// It may not go on.
    #[error(transparent)]
    Stopped(#[from] StopReason),
    /// Its sockets became useless.
    #[error("the node's sockets can no longer be used: {0}; this is a bug or the system is out of resources")]
    Sockets(#[source] io::Error),
    /// A bug.
    #[error(
        "the {thread} thread of node {node} panicked; the message is on standard error; this is a bug, please report it"
    )]
    Panicked {
        /// Which node.
        node: NodeId,
        /// Which thread.
        thread: &'static str,
    },
}
