//! Sockets, a thread and a clock around any role's core. Decides nothing that the core could decide.

use std::fmt;
use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prost::Message as _;
use r2p2::Instant;
use r2p2::datapath::{Datapath, ReceiveBatch, SocketId, TransmitBatch};
use r2p2::server::write_response;
use r2p2::udp::{Clock, SetupError, SocketOptions, UdpDatapath, Waker};
use r2p2::wire::{Extensions, HEADER_LEN, Header, MessageType, PAYLOAD_MAX, Packet};

use super::{CounterValue, Output, Role, RoleStatus};

/// Most datagrams taken from one socket before the others have their turn.
const BUDGET: usize = 256;
/// Most questions of operators answered in one turn; further ones are dropped and asked again.
const ADMIN_MAX: usize = 16;
/// The socket at the role's own address, from which everything is sent.
const OWN: SocketId = SocketId(0);

/// How a role's shell works.
#[derive(Clone, Copy, Debug)]
pub struct RoleOptions {
    /// The group it serves, for its status; 0 if none in particular.
    pub group: u32,
    /// For how long a wait looks for datagrams again and again before it blocks.
    pub spin: Duration,
    /// What its sockets are to be able to do.
    pub socket: SocketOptions,
}

impl Default for RoleOptions {
    /// No group, 20 µs, and full Ethernet frames with a forwarder's extension.
    fn default() -> Self {
        Self { group: 0, spin: Duration::from_micros(20), socket: SocketOptions::default() }
    }
}

/// Runs `core` on a thread of its own, on `own` (bound to the role's address, able to send wherever the core wants to)
/// and on the sockets of `joined`, on which it only listens.
///
/// When it returns, nothing that is sent to the role is lost any more for lack of a receiver. `clock` is the one whose
/// instants the core has been told, if it has been told any.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn start<R: Role>(
    core: R,
    clock: Clock,
    own: UdpSocket,
    joined: Vec<UdpSocket>,
    options: RoleOptions,
) -> Result<RunningRole, RoleStartError> {
    let mut builder = UdpDatapath::builder(clock);
    builder.spin(options.spin);
    assert_eq!(builder.socket(own, options.socket), OWN);
    for socket in joined {
        builder.socket(socket, options.socket);
    }
    let datapath = builder.build()?;
    for advice in (0..datapath.socket_count()).filter_map(|socket| datapath.buffers(SocketId(socket)).advice()).take(1)
    {
        tracing::warn!(role = R::NAME, "{advice}");
    }
    let (address, waker) = (datapath.local_address(OWN), datapath.waker());
    let asked = Arc::new(AtomicBool::new(false));
    let shell = Shell {
        core,
        clock,
        datapath,
        group: options.group,
        stop: Arc::clone(&asked),
        timeout: Instant::ZERO,
        received: ReceiveBatch::new(),
        outgoing: TransmitBatch::new(),
        questions: Vec::new(),
        counters: Counters::default(),
    };
    let thread = thread::Builder::new().name(R::NAME.to_owned()).spawn(move || shell.run())?;
    tracing::info!(role = R::NAME, %address, "role started");
    Ok(RunningRole { name: R::NAME, address, stopper: RoleStopper { asked, waker }, thread: Some(thread) })
}

/// A role that runs on a thread of this process. Dropping it stops it and waits until it has stopped.
#[derive(Debug)]
pub struct RunningRole {
    name: &'static str,
    address: SocketAddrV4,
    stopper: RoleStopper,
    /// Until it has been waited for.
    thread: Option<JoinHandle<Result<(), RoleError>>>,
}

impl RunningRole {
    /// [`Role::NAME`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Asks it to stop, and returns at once.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// A handle to stop it from elsewhere.
    pub fn stopper(&self) -> RoleStopper {
        self.stopper.clone()
    }

    /// Waits until it has stopped: its thread has ended, its sockets are closed.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to.
    pub fn wait(mut self) -> Result<(), RoleError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), RoleError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(RoleError::Panicked { role: self.name }))
    }
}

impl Drop for RunningRole {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            if let Err(error) = self.join() {
                tracing::warn!(role = self.name, %error, "role had stopped");
            }
        }
    }
}

/// Stops a role from any thread. Asking twice is asking once.
#[derive(Clone)]
pub struct RoleStopper {
    asked: Arc<AtomicBool>,
    waker: Waker,
}

impl RoleStopper {
    /// Asks the role to stop, and returns at once.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl fmt::Debug for RoleStopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoleStopper").field(&self.asked).finish()
    }
}

/// Why a role could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RoleStartError {
    /// Its sockets cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No thread.
    #[error("the system does not let us start a thread: {0}; check the limit on processes (`ulimit -u`)")]
    Thread(#[from] io::Error),
}

/// Why a role stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Its sockets became useless.
    #[error("the role's sockets can no longer be used: {0}; this is a bug or the system is out of resources")]
    Sockets(#[from] io::Error),
    /// A bug.
    #[error("the thread of the {role} panicked; the message is on standard error; this is a bug, please report it")]
    Panicked {
        /// Which role.
        role: &'static str,
    },
}

struct Shell<R> {
    core: R,
    clock: Clock,
    datapath: UdpDatapath,
    group: u32,
    stop: Arc<AtomicBool>,
    /// When the core wants its next timeout.
    timeout: Instant,
    received: ReceiveBatch,
    outgoing: TransmitBatch,
    /// Who asked how the role is, and under which rid, in this turn.
    questions: Vec<(SocketAddrV4, u16)>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    turns: u64,
    sleeps: u64,
    admin_answered: u64,
    admin_not_understood: u64,
    admin_refused_full: u64,
}

impl<R: Role> Shell<R> {
    fn run(mut self) -> Result<(), RoleError> {
        let result = self.turns();
        match &result {
            Ok(()) => tracing::info!(role = R::NAME, "role stops"),
            Err(error) => tracing::error!(role = R::NAME, %error, "role stops"),
        }
        result
    }

    fn turns(&mut self) -> Result<(), RoleError> {
        while !self.stop.load(Ordering::Acquire) {
            self.counters.turns += 1;
            let mut more = false;
            self.received.clear();
            for socket in (0..self.datapath.socket_count()).map(SocketId) {
                more |= self.datapath.receive(socket, BUDGET, &mut self.received)? >= BUDGET;
            }
            let now = self.clock.now();
            // Read last and handed in first: what is said to the role alone is about what was said to all.
            let (to_all, to_us) = (self.received.iter(), self.received.iter());
            let in_order = to_all.filter(|one| one.socket != OWN).chain(to_us.filter(|one| one.socket == OWN));
            for received in in_order {
                match Question::of(received.bytes) {
                    None => self.core.handle_packet(now, received.from, received.bytes),
                    Some(Question::NotUnderstood) => self.counters.admin_not_understood += 1,
                    Some(Question::Status { .. }) if self.questions.len() >= ADMIN_MAX => {
                        self.counters.admin_refused_full += 1;
                    }
                    Some(Question::Status { rid }) => self.questions.push((received.from, rid)),
                }
            }
            if now >= self.timeout {
                self.core.handle_timeout(now);
            }
            self.timeout = loop {
                match self.core.poll_output(now) {
                    Output::Send { to, packet } => self.outgoing.push_many(OWN, to.addresses(), packet),
                    Output::Timeout(at) => break at,
                }
            };
            if !self.outgoing.is_empty() {
                self.datapath.transmit(&mut self.outgoing)?;
            }
            self.answer()?;
            if !more {
                self.counters.sleeps += 1;
                self.datapath.wait(Some(self.timeout))?;
            }
        }
        Ok(())
    }

    /// Answers the questions of this turn.
    fn answer(&mut self) -> io::Result<()> {
        if self.questions.is_empty() {
            return Ok(());
        }
        self.counters.admin_answered += self.questions.len() as u64;
        let report = self.status().encode_to_vec();
        let extensions = Extensions { admin: true, ..Extensions::default() };
        for (to, rid) in self.questions.drain(..) {
            let outgoing = &mut self.outgoing;
            let written = write_response(rid, extensions, &report, HEADER_LEN + PAYLOAD_MAX, &mut |packet| {
                outgoing.push(OWN, to, packet);
            });
            debug_assert!(written.is_ok(), "reports are short");
        }
        self.datapath.transmit(&mut self.outgoing)
    }

    fn status(&self) -> RoleStatus {
        let &Counters { turns, sleeps, admin_answered, admin_not_understood, admin_refused_full } = &self.counters;
        let runtime = [
            ("turns", turns),
            ("sleeps", sleeps),
            ("admin_answered", admin_answered),
            ("admin_not_understood", admin_not_understood),
            ("admin_refused_full", admin_refused_full),
        ];
        let runtime = runtime.map(|(name, value)| (format!("runtime.{name}"), value));
        let core = self.core.counters().into_iter().map(|(name, value)| (format!("{}.{name}", R::NAME), value));
        let gauges = self.core.gauges().into_iter().map(|(name, value)| (format!("{}.{name}", R::NAME), value));
        let sockets = (0..self.datapath.socket_count()).flat_map(|index| {
            let part = if index == OWN.0 { "own".to_owned() } else { format!("joined{index}") };
            let counters = self.datapath.counters(SocketId(index)).iter();
            counters.map(move |(name, value)| (format!("net.{part}.{name}"), value))
        });
        let value = |(name, value)| CounterValue { name, value };
        RoleStatus {
            role: R::NAME.to_owned(),
            counters: core.chain(runtime).chain(sockets).map(value).collect(),
            group: self.group,
            gauges: gauges.map(value).collect(),
            address: self.datapath.local_address(OWN).to_string(),
        }
    }
}

/// What an operator wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// How the role is.
    Status {
        /// The question's number at who asks.
        rid: u16,
    },
    /// Something else, which only nodes know.
    NotUnderstood,
}

/// The type of the extension *admin* (protocol.md §3.3).
const ADMIN: u8 = 7;

impl Question {
    /// The question in a packet, if it is one. Most packets are not, and are told apart by few bytes.
    fn of(bytes: &[u8]) -> Option<Self> {
        let [_, header_size, kind, ..] = bytes else { return None };
        if kind >> 4 != MessageType::Request as u8 || usize::from(*header_size) == HEADER_LEN {
            return None;
        }
        let packet = Packet::new_checked(bytes).ok()?;
        if !packet.extensions().any(|extension| extension.is_ok_and(|extension| extension.kind == ADMIN)) {
            return None;
        }
        let header = Header::parse(&packet).ok()?;
        match packet.payload() {
            b"" | b"status" if header.first && header.last => Some(Self::Status { rid: header.rid }),
            _ => Some(Self::NotUnderstood),
        }
    }
}
