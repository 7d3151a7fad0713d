//! The kernel's UDP sockets as a [`Datapath`] (Linux): batched system calls, an adaptive wait, every loss counted. The
//! one module of this crate that touches the kernel; it knows nothing of what is in a datagram.

mod clock;
mod sender;
mod socket;
mod sys;
mod waker;

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use libc::pollfd;

pub use clock::Clock;
pub use sender::Sender;
pub use socket::{BufferSizes, DATAGRAM_MAX, SetupError, SocketOptions};
pub use waker::Waker;

use crate::Instant;
use crate::datapath::{Capabilities, Datapath, ReceiveBatch, SocketCounters, SocketId, TransmitBatch, Wake};
use socket::Socket;
use waker::Sleeper;

#[cfg(not(target_os = "linux"))]
compile_error!("r2p2::udp needs Linux: recvmmsg, sendmmsg, ppoll and eventfd");

/// Collects what a [`UdpDatapath`] is made of.
#[derive(Debug)]
pub struct Builder {
    clock: Clock,
    spin: Duration,
    transmit_wait: Duration,
    sockets: Vec<(UdpSocket, SocketOptions)>,
}

impl Builder {
    /// Adds a bound socket. Joining a group and choosing the interface, TTL and loop-back for sending to one are done
    /// before (crate `multicast`).
    pub fn socket(&mut self, socket: UdpSocket, options: SocketOptions) -> SocketId {
        self.sockets.push((socket, options));
        SocketId(self.sockets.len() - 1)
    }

    /// For how long a wait looks for datagrams again and again before it blocks; 20 µs unless told.
    ///
    /// Spinning saves the microseconds that a thread needs to wake up, and burns a core meanwhile. It is adaptive: while
    /// nothing comes within this time it is shortened, down to not spinning at all. Zero always blocks at once;
    /// [`Duration::MAX`] never blocks, which is for dedicated cores.
    pub fn spin(&mut self, spin: Duration) -> &mut Self {
        self.spin = spin;
        self
    }

    /// For how long altogether one transmit waits for room in full send buffers before it drops datagrams; 1 ms unless
    /// told.
    pub fn transmit_wait(&mut self, transmit_wait: Duration) -> &mut Self {
        self.transmit_wait = transmit_wait;
        self
    }

    /// Makes the sockets non-blocking, sets their buffers, and makes the datapath.
    ///
    /// # Errors
    /// If the system refuses one of these or the options are impossible; too small a buffer is no error but reported by
    /// [`UdpDatapath::buffers`].
    pub fn build(self) -> Result<UdpDatapath, SetupError> {
        let Self { clock, spin, transmit_wait, sockets } = self;
        let sockets: Arc<[Socket]> =
            sockets.into_iter().map(|(socket, options)| Socket::new(socket, options)).collect::<Result<_, _>>()?;
        let sleeper = Sleeper::new().map_err(SetupError::system("make an eventfd"))?;
        let mut interests: Vec<pollfd> =
            sockets.iter().map(|socket| sys::interest(socket.fd(), libc::POLLIN)).collect();
        interests.push(sys::interest(sleeper.fd(), libc::POLLIN));
        Ok(UdpDatapath {
            kernel_drops: sockets.iter().all(|socket| sys::kernel_drops(socket.fd()).is_ok()),
            sender: Sender { sockets, clock, transmit_wait },
            sleeper,
            interests,
            spin: Spin::new(spin),
            heads: Vec::with_capacity(sys::SYSCALL_BATCH),
        })
    }
}

/// Datagrams through the kernel's UDP sockets.
#[derive(Debug)]
pub struct UdpDatapath {
    sender: Sender,
    sleeper: Sleeper,
    /// What to poll: every socket, then the sleeper's event.
    interests: Vec<pollfd>,
    spin: Spin,
    heads: Vec<sys::Head>,
    kernel_drops: bool,
}

impl UdpDatapath {
    /// Begins to make one. Deadlines are instants of `clock`.
    pub fn builder(clock: Clock) -> Builder {
        Builder { clock, spin: Duration::from_micros(20), transmit_wait: Duration::from_millis(1), sockets: Vec::new() }
    }

    /// The clock that deadlines refer to.
    pub fn clock(&self) -> Clock {
        self.sender.clock
    }

    /// A handle with which other threads end a [`Datapath::wait`].
    pub fn waker(&self) -> Waker {
        self.sleeper.waker()
    }

    /// A handle with which other threads transmit on the same sockets.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// How many sockets there are; their ids count from zero.
    pub fn socket_count(&self) -> usize {
        self.sender.sockets.len()
    }

    /// Whether the last wait that ended with [`Wake::Readable`] found something to read on this socket: for those who have
    /// so many sockets that reading them all would cost too much.
    pub fn readable(&self, socket: SocketId) -> bool {
        self.interests[socket.0].revents != 0
    }

    /// The address a socket is bound to.
    pub fn local_address(&self, socket: SocketId) -> SocketAddrV4 {
        self.sender.sockets[socket.0].local
    }

    /// How large the kernel's buffers for a socket have become.
    pub fn buffers(&self, socket: SocketId) -> BufferSizes {
        self.sender.sockets[socket.0].buffers
    }

    fn wait_until(&mut self, start: Instant, deadline: Option<Instant>) -> io::Result<Wake> {
        let sockets = self.interests.len() - 1;
        let spin_end = (start + self.spin.now()).min(deadline.unwrap_or(Instant::FAR_FUTURE));
        let mut now = start;
        while now < spin_end {
            if self.sleeper.take() {
                return Ok(Wake::Woken);
            }
            if poll_now(&mut self.interests[..sockets])? {
                return Ok(Wake::Readable);
            }
            std::hint::spin_loop();
            now = self.clock().now();
        }

        if !self.sleeper.fall_asleep() {
            return Ok(Wake::Woken);
        }
        let ready = sys::poll(&mut self.interests, deadline.map(|deadline| deadline.since(now)));
        let event = ready.is_ok() && self.interests[sockets].revents != 0;
        let woken = self.sleeper.awake(event);
        match ready {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            // Interrupted: a signal handler has run and may have left a message.
            Err(_) => Ok(Wake::Woken),
            Ok(_) if woken => Ok(Wake::Woken),
            Ok(0) => Ok(Wake::Deadline),
            Ok(_) => Ok(Wake::Readable),
        }
    }
}

impl Datapath for UdpDatapath {
    fn capabilities(&self) -> Capabilities {
        Capabilities { multicast: true, kernel_drops: self.kernel_drops, ..Capabilities::default() }
    }

    fn receive(&mut self, id: SocketId, budget: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        let socket = &self.sender.sockets[id.0];
        let counters = &socket.counters;
        let stride = stride(socket.datagram_max);
        let mut taken = 0;
        let mut errors = 0;
        while taken < budget {
            let count = (budget - taken).min(sys::SYSCALL_BATCH);
            let start = batch.used();
            let spare = batch.spare(count * stride);
            match sys::receive(socket.fd(), spare, count, stride, socket.datagram_max, &mut self.heads) {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => return Err(error),
                    // About a datagram sent earlier (somebody's port is closed), or the kernel is short of memory.
                    _ => {
                        tracing::trace!(socket = id.0, %error, "error reported on receiving");
                        counters.receive_errors.add(1);
                        errors += 1;
                        if errors == RECEIVE_ERRORS_MAX {
                            break;
                        }
                        continue;
                    }
                },
            }
            taken += self.heads.len();
            let (mut received, mut bytes, mut truncated) = (0, 0, 0);
            for (i, head) in self.heads.iter().enumerate() {
                match head {
                    sys::Head { truncated: true, .. } => truncated += 1,
                    sys::Head { from: Some(from), len, .. } => {
                        batch.record(id, *from, start + i * stride, *len);
                        received += 1;
                        bytes += len;
                    }
                    sys::Head { from: None, .. } => counters.receive_errors.add(1),
                }
            }
            counters.received.add(received);
            counters.received_bytes.add(bytes);
            counters.truncated.add(truncated);
            if self.heads.len() < count {
                break;
            }
        }
        Ok(taken)
    }

    fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
        self.sender.transmit(batch)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Wake> {
        let start = self.clock().now();
        let wake = self.wait_until(start, deadline)?;
        let waited = self.clock().now().since(start);
        self.spin.learn(waited, wake != Wake::Deadline);
        Ok(wake)
    }

    fn counters(&self, socket: SocketId) -> SocketCounters {
        self.sender.counters(socket)
    }
}

/// How many errors in one receive are read past, before the caller gets to do something else.
const RECEIVE_ERRORS_MAX: usize = 16;

/// The distance between the places of two datagrams: whole cache lines, and one more so that the beginnings of large
/// datagrams do not all compete for the same set of the cache.
const fn stride(datagram_max: usize) -> usize {
    datagram_max.next_multiple_of(64) + 64
}

/// Whether one of `sockets` has something to report.
fn poll_now(sockets: &mut [pollfd]) -> io::Result<bool> {
    match sys::poll(sockets, Some(Duration::ZERO)) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Decides how long spinning is worth while.
#[derive(Debug)]
struct Spin {
    max: Duration,
    now: Duration,
}

impl Spin {
    fn new(max: Duration) -> Self {
        Self { max, now: max }
    }

    fn now(&self) -> Duration {
        self.now
    }

    /// After a wait that took this long and ended with an event or with the deadline.
    fn learn(&mut self, waited: Duration, event: bool) {
        if event && waited <= self.max {
            self.now = self.max;
        } else if waited > self.now {
            self.now /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use bytes::Bytes;

    use super::*;

    /// Only a guard against a hanging test: nothing here takes that long.
    const GUARD: Duration = Duration::from_secs(60);

    #[test]
    fn a_batch_arrives_complete_and_in_order() {
        let Pair { mut left, mut right, a, b } = pair(SocketOptions::default());
        // More than one system call each way.
        let contents: Vec<Bytes> =
            (0..200_u16).map(|i| Bytes::from(vec![i.to_be_bytes()[1]; usize::from(i)])).collect();
        let mut batch = TransmitBatch::new();
        for packet in &contents {
            batch.push(a, right.local_address(b), packet.clone());
        }
        left.transmit(&mut batch).expect("transmit");
        assert!(batch.is_empty());

        let mut received = ReceiveBatch::new();
        receive_all(&mut right, b, 200, &mut received);
        for (received, sent) in received.iter().zip(&contents) {
            assert_eq!((received.socket, received.from), (b, left.local_address(a)));
            assert_eq!(received.bytes, sent);
        }
        let bytes = (0..200).sum();
        let counters = left.counters(a);
        assert_eq!((counters.transmitted, counters.transmitted_bytes), (200, bytes));
        let counters = right.counters(b);
        assert_eq!((counters.received, counters.received_bytes), (200, bytes));
        assert_eq!(right.receive(b, 1, &mut received).expect("nothing left"), 0);
    }

    #[test]
    fn a_budget_is_kept() {
        let Pair { mut left, mut right, a, b } = pair(SocketOptions::default());
        send(&mut left, a, right.local_address(b), 100, 10);
        let mut received = ReceiveBatch::new();
        assert_eq!(right.receive(b, 0, &mut received).expect("receive"), 0);
        for budget in (0..100).map(|round| round % 3 + 1) {
            if received.len() == 100 {
                break;
            }
            wait_readable(&mut right);
            let before = received.len();
            let taken = right.receive(b, budget, &mut received).expect("receive");
            assert!((1..=budget).contains(&taken), "{taken} of {budget}");
            assert_eq!(received.len(), before + taken);
        }
        assert_eq!(received.len(), 100);
    }

    #[test]
    fn the_largest_datagram_there_is() {
        let Pair { mut left, mut right, a, b } =
            pair(SocketOptions { datagram_max: DATAGRAM_MAX, ..SocketOptions::default() });
        let sent: Vec<u8> = (0..DATAGRAM_MAX).map(|i| (i % 251) as u8).collect();
        let mut batch = TransmitBatch::new();
        for len in [DATAGRAM_MAX, 1, DATAGRAM_MAX, DATAGRAM_MAX + 1, 0] {
            batch.push(a, right.local_address(b), Bytes::from([&sent[..], &[0]].concat()).slice(..len));
        }
        left.transmit(&mut batch).expect("transmit");
        let mut received = ReceiveBatch::new();
        receive_all(&mut right, b, 4, &mut received);
        assert!(received.iter().map(|received| received.bytes).eq([&sent[..], &sent[..1], &sent[..], &[]]));
        assert_eq!(left.counters(a).transmit_errors, 1, "one was too large to send");
    }

    #[test]
    fn a_datagram_too_large_for_its_socket_is_counted_and_not_delivered() {
        let Pair { mut left, mut right, a, b } = pair(SocketOptions { datagram_max: 100, ..SocketOptions::default() });
        for len in [99, 101, 100, 1000] {
            send(&mut left, a, right.local_address(b), 1, len);
        }
        let mut received = ReceiveBatch::new();
        let mut taken = 0;
        while taken < 4 {
            wait_readable(&mut right);
            taken += right.receive(b, 10, &mut received).expect("receive");
        }
        assert!(received.iter().map(|received| received.bytes.len()).eq([99, 100]));
        let counters = right.counters(b);
        assert_eq!((counters.received, counters.truncated), (2, 2));
    }

    #[test]
    fn one_packet_to_many() {
        let clock = Clock::new();
        let mut builder = UdpDatapath::builder(clock);
        let ids: Vec<SocketId> = (0..4).map(|_| builder.socket(bind(), SocketOptions::default())).collect();
        let mut datapath = builder.build().expect("build");
        let addresses: Vec<SocketAddrV4> = ids.iter().map(|&id| datapath.local_address(id)).collect();
        let mut batch = TransmitBatch::new();
        batch.push_many(ids[0], &addresses[1..], Bytes::from_static(b"to all of you"));
        datapath.transmit(&mut batch).expect("transmit");
        let mut received = ReceiveBatch::new();
        for &id in &ids[1..] {
            received.clear();
            receive_all(&mut datapath, id, 1, &mut received);
            let only = received.iter().next().expect("one");
            assert_eq!((only.socket, only.from, only.bytes), (id, addresses[0], &b"to all of you"[..]));
        }
        assert_eq!(datapath.counters(ids[0]).transmitted, 3);
    }

    #[test]
    fn nobody_listening_costs_nobody_else_anything() {
        let Pair { mut left, mut right, a, b } = pair(SocketOptions::default());
        let closed = closed_port();
        let open = right.local_address(b);
        let mut batch = TransmitBatch::new();
        for i in 0..20 {
            batch.push_many(a, &[closed, open], Bytes::from(vec![i]));
        }
        left.transmit(&mut batch).expect("transmit");
        let mut received = ReceiveBatch::new();
        receive_all(&mut right, b, 20, &mut received);
        assert!(received.iter().map(|received| received.bytes[0]).eq(0..20));
    }

    #[test]
    fn an_impossible_destination_costs_nobody_else_anything() {
        let Pair { mut left, mut right, a, b } = pair(SocketOptions::default());
        let impossible = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let open = right.local_address(b);
        let mut batch = TransmitBatch::new();
        for i in 0..3 {
            batch.push_many(a, &[impossible, open], Bytes::from(vec![i]));
        }
        left.transmit(&mut batch).expect("transmit");
        let mut received = ReceiveBatch::new();
        receive_all(&mut right, b, 3, &mut received);
        let counters = left.counters(a);
        assert_eq!((counters.transmitted, counters.transmit_errors), (3, 3));
    }

    #[test]
    fn refusals_on_a_connected_socket_are_survived() {
        let (connected, other) = (bind(), bind());
        let closed = closed_port();
        connected.connect(closed).expect("connect");
        let mut builder = UdpDatapath::builder(Clock::new());
        let a = builder.socket(connected, SocketOptions::default());
        let b = builder.socket(other, SocketOptions::default());
        let mut datapath = builder.build().expect("build");
        let open = datapath.local_address(b);
        let mut received = ReceiveBatch::new();
        // How many of the refusals the kernel reports is up to its rate limit; what is done about them is tested with
        // `sender`.
        for i in 0..10 {
            let mut batch = TransmitBatch::new();
            batch.push_many(a, &[closed, open], Bytes::from(vec![i]));
            datapath.transmit(&mut batch).expect("transmit");
            assert_eq!(datapath.receive(a, 10, &mut received).expect("receive"), 0);
        }
        receive_all(&mut datapath, b, 10, &mut received);
        assert!(received.iter().map(|received| received.bytes[0]).eq(0..10));
    }

    #[test]
    fn what_the_kernel_drops_is_counted() {
        let Pair { mut left, mut right, a, b } =
            pair(SocketOptions { receive_buffer: 8192, ..SocketOptions::default() });
        if !right.capabilities().kernel_drops {
            println!("skipped: this kernel does not say what it drops (SO_MEMINFO)");
            return;
        }
        assert_eq!(right.counters(b).kernel_drops, 0);
        let sent = 500;
        send(&mut left, a, right.local_address(b), sent, 1000);
        let mut received = ReceiveBatch::new();
        let guard = right.clock().now() + GUARD;
        while right.counters(b).kernel_drops + received.len() as u64 != sent as u64 {
            right.receive(b, sent, &mut received).expect("receive");
            assert!(right.clock().now() < guard, "{} received, {:?}", received.len(), right.counters(b));
        }
        assert!(right.counters(b).kernel_drops > 0);
        assert!(!received.is_empty());
    }

    #[test]
    fn a_deadline_ends_a_wait_and_never_early() {
        for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
            let mut datapath = single(spin).0;
            let clock = datapath.clock();
            for wait in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(300)] {
                let deadline = clock.now() + wait;
                assert_eq!(datapath.wait(Some(deadline)).expect("wait"), Wake::Deadline);
                assert!(clock.now() >= deadline);
            }
        }
    }

    #[test]
    fn a_wait_goes_on_being_readable_until_all_is_read() {
        for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
            let (mut datapath, id) = single(spin);
            let own = datapath.local_address(id);
            send(&mut datapath, id, own, 2, 5);
            let mut received = ReceiveBatch::new();
            wait_readable(&mut datapath);
            assert_eq!(datapath.receive(id, 1, &mut received).expect("receive"), 1);
            wait_readable(&mut datapath);
            assert_eq!(datapath.receive(id, 1, &mut received).expect("receive"), 1);
            assert_eq!(datapath.wait(Some(Instant::ZERO)).expect("wait"), Wake::Deadline);
        }
    }

    #[test]
    fn a_wake_up_before_the_wait_ends_it_once() {
        for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
            let mut datapath = single(spin).0;
            let waker = datapath.waker();
            waker.wake();
            waker.clone().wake();
            assert_eq!(datapath.wait(None).expect("wait"), Wake::Woken);
            assert_eq!(datapath.wait(Some(Instant::ZERO)).expect("wait"), Wake::Deadline);
        }
    }

    #[test]
    fn no_wake_up_from_another_thread_is_lost() {
        for spin in [Duration::ZERO, Duration::from_micros(5), Duration::MAX] {
            let mut datapath = single(spin).0;
            let waker = datapath.waker();
            let (give, take) = mpsc::channel();
            let (answer, answered) = mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for i in 0..5000_u32 {
                        give.send(i).expect("receiver");
                        waker.wake();
                        // Half of the time the other side is surely waiting again, or about to.
                        if i % 2 == 0 {
                            answered.recv().expect("sender");
                        }
                    }
                });
                let mut expected = 0;
                while expected < 5000 {
                    let deadline = datapath.clock().now() + GUARD;
                    assert_eq!(datapath.wait(Some(deadline)).expect("wait"), Wake::Woken);
                    for i in take.try_iter() {
                        assert_eq!(i, expected);
                        expected += 1;
                        if i % 2 == 0 {
                            answer.send(()).expect("receiver");
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn another_thread_sends_from_the_same_port() {
        let Pair { left, mut right, a, b } = pair(SocketOptions::default());
        let (to, from) = (right.local_address(b), left.local_address(a));
        let sender = left.sender();
        drop(left);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut batch = TransmitBatch::new();
                batch.push(a, to, Bytes::from_static(b"reply"));
                sender.transmit(&mut batch).expect("transmit");
                assert_eq!(sender.counters(a).transmitted, 1);
            });
            let mut received = ReceiveBatch::new();
            receive_all(&mut right, b, 1, &mut received);
            let only = received.iter().next().expect("one");
            assert_eq!((only.from, only.bytes), (from, &b"reply"[..]));
        });
    }

    #[test]
    fn handles_go_to_other_threads() {
        fn shared<T: Clone + Send + Sync>(_: &T) {}
        fn moved<T: Send>(_: &T) {}
        let datapath = single(Duration::ZERO).0;
        shared(&datapath.waker());
        shared(&datapath.sender());
        shared(&datapath.clock());
        moved(&datapath);
    }

    #[test]
    fn spinning_adapts() {
        let (short, long) = (Duration::from_micros(20), Duration::from_millis(1));
        let mut spin = Spin::new(short);
        spin.learn(long, true);
        assert_eq!(spin.now(), short / 2);
        spin.learn(Duration::from_micros(1), false);
        assert_eq!(spin.now(), short / 2, "the deadline was too near to tell");
        for _ in 0..100 {
            spin.learn(long, false);
        }
        assert_eq!(spin.now(), Duration::ZERO);
        spin.learn(short, true);
        assert_eq!(spin.now(), short, "spinning would have caught that one");

        let mut forever = Spin::new(Duration::MAX);
        for _ in 0..200 {
            forever.learn(GUARD, false);
        }
        assert_eq!(forever.now(), Duration::MAX);
    }

    #[test]
    fn faults_on_real_sockets() {
        use crate::fault::{Faults, Faulty};

        let Pair { left, right, a, b } = pair(SocketOptions::default());
        let to = right.local_address(b);
        let mut left = Faulty::new(left, 1, Faults { transmit_duplication: 1.0, ..Faults::NONE });
        let mut right = Faulty::new(right, 2, Faults { receive_loss: 0.5, ..Faults::NONE });
        send(&mut left, a, to, 100, 10);
        assert_eq!(left.counters(a).transmitted, 200);
        assert_eq!(left.fault_counters(a).transmit_duplicated, 100);
        let mut received = ReceiveBatch::new();
        let mut taken = 0;
        while taken < 200 {
            let guard = right.inner().clock().now() + GUARD;
            assert_eq!(right.wait(Some(guard)).expect("wait"), Wake::Readable);
            taken += right.receive(b, 30, &mut received).expect("receive");
        }
        assert_eq!(right.counters(b).received, 200);
        let lost = right.fault_counters(b).receive_lost;
        assert!(lost > 0);
        assert_eq!(received.len() as u64, 200 - lost);
    }

    struct Pair {
        left: UdpDatapath,
        right: UdpDatapath,
        a: SocketId,
        b: SocketId,
    }

    fn pair(options: SocketOptions) -> Pair {
        let clock = Clock::new();
        let make = || {
            let mut builder = UdpDatapath::builder(clock);
            let id = builder.socket(bind(), options);
            (builder.build().expect("build"), id)
        };
        let ((left, a), (right, b)) = (make(), make());
        Pair { left, right, a, b }
    }

    fn single(spin: Duration) -> (UdpDatapath, SocketId) {
        let mut builder = UdpDatapath::builder(Clock::new());
        builder.spin(spin);
        let id = builder.socket(bind(), SocketOptions::default());
        (builder.build().expect("build"), id)
    }

    fn bind() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind to loopback")
    }

    /// A port that is not bound now; should somebody take it, a test sends him a few bytes and no harm is done.
    fn closed_port() -> SocketAddrV4 {
        match bind().local_addr().expect("bound") {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
        }
    }

    fn send(datapath: &mut impl Datapath, socket: SocketId, to: SocketAddrV4, count: usize, len: usize) {
        let mut batch = TransmitBatch::new();
        for _ in 0..count {
            batch.push(socket, to, Bytes::from(vec![7; len]));
        }
        datapath.transmit(&mut batch).expect("transmit");
    }

    fn wait_readable(datapath: &mut UdpDatapath) {
        let guard = datapath.clock().now() + GUARD;
        assert_eq!(datapath.wait(Some(guard)).expect("wait"), Wake::Readable);
    }

    /// Until `batch` holds `count` datagrams, and no more.
    fn receive_all(datapath: &mut UdpDatapath, socket: SocketId, count: usize, batch: &mut ReceiveBatch) {
        while batch.len() < count {
            wait_readable(datapath);
            datapath.receive(socket, count + 1, batch).expect("receive");
        }
        assert_eq!(batch.len(), count);
    }
}
