//! Many operations in flight on one socket.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::client::{ClientCounters, Completion, Kind, SubmitError, Ticket};
use r2p2::datapath::{Datapath, ReceiveBatch, SocketCounters, SocketId, TransmitBatch, Wake};
use r2p2::udp::{Clock, SocketOptions, UdpDatapath, Waker};

use super::{ClientOptions, ConnectError, Endpoint, EndpointOutput, Recipient, SearchCounters};
use crate::entropy;
use crate::id::NodeId;

/// Most datagrams taken from the socket before they are looked at.
const RECEIVE_BUDGET: usize = 256;

/// A client with many operations in flight.
///
/// [`submit`](Self::submit) only queues: what was submitted is sent, and answers are received, in
/// [`wait`](Self::wait), [`poll`](Self::poll) and [`flush`](Self::flush). Operations in flight are concurrent: what has
/// to happen after another operation is submitted after that one has completed.
///
/// ```no_run
/// use hovercraft::client::{Kind, PipelinedClient};
/// use hovercraft::cluster::ClusterConfig;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = PipelinedClient::connect(&ClusterConfig::default().client_options())?;
/// for _ in 0..100 {
///     client.submit(Kind::Write, "increment")?;
/// }
/// while client.outstanding() > 0 {
///     for completion in client.wait(Duration::from_secs(1))? {
///         println!("{:?}: {:?}", completion.ticket, completion.outcome);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PipelinedClient {
    core: Endpoint,
    datapath: UdpDatapath,
    clock: Clock,
    /// When the core wants its next timeout.
    timeout: Instant,
    received: ReceiveBatch,
    transmit: TransmitBatch,
    completed: Vec<Completion>,
}

/// The one socket.
const SOCKET: SocketId = SocketId(0);

impl PipelinedClient {
    /// Opens a socket for talking to a group. Sends nothing: whether anybody is there shows with the first operation.
    ///
    /// # Errors
    /// Why there is no socket that could send to the group, and what to do about it.
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        let clock = Clock::new();
        let mut builder = UdpDatapath::builder(clock);
        builder.spin(options.spin);
        let socket = builder.socket(options.group.sender_socket(options.ttl)?, SocketOptions::default());
        assert_eq!(socket, SOCKET);
        Ok(Self {
            core: options.endpoint(options.seed.unwrap_or_else(entropy::draw)),
            datapath: builder.build()?,
            clock,
            timeout: Instant::FAR_FUTURE,
            received: ReceiveBatch::new(),
            transmit: TransmitBatch::new(),
            completed: Vec::new(),
        })
    }

    /// Queues an operation. Its ticket comes back with exactly one completion.
    ///
    /// # Errors
    /// Why it was not accepted; nothing of it was kept.
    pub fn submit(&mut self, kind: Kind, body: impl Into<Bytes>) -> Result<Ticket, SubmitError> {
        self.core.submit(self.clock.now(), kind, body.into())
    }

    /// Queues a request to the node at `node` about itself.
    pub(super) fn submit_admin(&mut self, node: SocketAddrV4, body: Bytes) -> Result<Ticket, SubmitError> {
        self.core.submit_admin(self.clock.now(), node, body)
    }

    /// Gives an operation up. Unless it has ended already, its completion says whether it may have been executed; later
    /// it will not be. Returns whether there was such an operation.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.core.cancel(self.clock.now(), ticket)
    }

    /// Gives an operation up without touching the socket.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> Vec<Completion> {
        self.cancel(ticket);
        let now = self.clock.now();
        // Whether anything could be sent does not matter any more.
        let _ = self.drain(now);
        std::mem::take(&mut self.completed)
    }

    /// Waits until at least one operation is complete, at most for `patience`, and returns those that are. It also
    /// returns, perhaps with none, after a [`PipelinedClient::waker`] was used or a signal handler has run.
    ///
    /// # Errors
    /// If the socket can no longer be used. Operations in flight stay so.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Vec<Completion>> {
        let end = self.clock.now() + patience;
        loop {
            let more = self.turn()?;
            if !self.completed.is_empty() || self.clock.now() >= end {
                return Ok(std::mem::take(&mut self.completed));
            }
            if !more && self.datapath.wait(Some(end.min(self.timeout)))? == Wake::Woken {
                while self.turn()? {}
                return Ok(std::mem::take(&mut self.completed));
            }
        }
    }

    /// Sends and receives what can be without waiting, and returns the operations that are complete.
    ///
    /// # Errors
    /// If the socket can no longer be used.
    pub fn poll(&mut self) -> io::Result<Vec<Completion>> {
        while self.turn()? {}
        Ok(std::mem::take(&mut self.completed))
    }

    /// Sends what was submitted.
    ///
    /// # Errors
    /// If the socket can no longer be used.
    pub fn flush(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        self.drain(now)
    }

    /// Operations accepted and not complete.
    pub fn outstanding(&self) -> usize {
        self.core.outstanding()
    }

    /// What the client has counted.
    pub fn counters(&self) -> &ClientCounters {
        self.core.counters()
    }

    /// What it has counted about finding the group.
    pub fn search_counters(&self) -> &SearchCounters {
        self.core.search_counters()
    }

    /// The epoch of the membership that it goes by; 0 as long as it has only what it was told at first.
    pub fn epoch(&self) -> u64 {
        self.core.epoch()
    }

    /// The nodes as it knows them, and where each receives requests for it alone.
    pub fn nodes(&self) -> &[(NodeId, SocketAddrV4)] {
        self.core.nodes()
    }

    /// What has happened on its socket.
    pub fn socket_counters(&self) -> SocketCounters {
        self.datapath.counters(SOCKET)
    }

    /// The time now, on the clock of [`Completion::submitted`].
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Ends a [`wait`](Self::wait) early, from any thread.
    pub fn waker(&self) -> Waker {
        self.datapath.waker()
    }

    /// One round of receiving and sending. Returns whether there may be more to receive.
    fn turn(&mut self) -> io::Result<bool> {
        self.received.clear();
        let taken = self.datapath.receive(SOCKET, RECEIVE_BUDGET, &mut self.received)?;
        let more = taken >= RECEIVE_BUDGET;
        let now = self.clock.now();
        for received in self.received.iter() {
            self.core.handle_datagram(now, received.from, received.bytes);
        }
        // Only when all that has arrived was looked at: an answer that is here must not be called late.
        if !more && now >= self.timeout {
            self.core.handle_timeout(now);
        }
        self.drain(now)?;
        Ok(more)
    }

    /// Does everything that the core wants done now.
    fn drain(&mut self, now: Instant) -> io::Result<()> {
        loop {
            match self.core.poll_output(now) {
                EndpointOutput::Transmit { to: Recipient::Group, packet } => {
                    self.transmit.push_many(SOCKET, self.core.group().receivers(), packet);
                }
                EndpointOutput::Transmit { to: Recipient::Address(address), packet } => {
                    self.transmit.push(SOCKET, address, packet);
                }
                EndpointOutput::Done(completion) => self.completed.push(completion),
                EndpointOutput::Timeout(at, _) => {
                    self.timeout = at;
                    return self.datapath.transmit(&mut self.transmit);
                }
            }
        }
    }
}
