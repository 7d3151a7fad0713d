//! Transmitting, from the datapath's own thread and from others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::socket::Socket;
use super::{Clock, sys};
use crate::Instant;
use crate::datapath::{Outgoing, SocketCounters, SocketId, TransmitBatch};

/// Transmits on the sockets of a [`UdpDatapath`](super::UdpDatapath), from any thread: an apply thread answers clients
/// with it, from the port on which they sent their requests.
///
/// Clones and the datapath share the sockets, which stay open until the last of them is gone.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(super) sockets: Arc<[Socket]>,
    pub(super) clock: Clock,
    pub(super) transmit_wait: Duration,
}

impl Sender {
    /// Like [`Datapath::transmit`](crate::datapath::Datapath::transmit): sends everything in order and leaves the
    /// batch empty.
    ///
    /// # Errors
    /// Only if a socket can no longer be used.
    ///
    /// # Panics
    /// If a socket is not one of the datapath's.
    pub fn transmit(&self, batch: &mut TransmitBatch) -> io::Result<()> {
        let result = transmit_all(batch, &mut Kernel { sender: self, give_up: None });
        batch.clear();
        result
    }

    /// What has happened on one socket so far.
    ///
    /// # Panics
    /// If the socket is not one of the datapath's.
    pub fn counters(&self, socket: SocketId) -> SocketCounters {
        self.sockets[socket.0].counters()
    }
}

/// What transmitting needs from the outside, so that a full buffer and every kind of error can be tested.
trait Wire {
    /// Sends some of these datagrams, which all go out on `socket`, and says how many; an error is about the first.
    fn send<'a>(&mut self, socket: SocketId, datagrams: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize>;

    /// Waits until `socket` may have room again. False if the time for that is used up.
    fn wait_writable(&mut self, socket: SocketId) -> bool;

    /// Told once about every datagram that was sent (with its bytes) or dropped, and about every error.
    fn count(&mut self, socket: SocketId, what: Sent);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Transmitted { datagrams: usize, bytes: usize },
    Dropped,
    Error,
}

fn transmit_all(batch: &TransmitBatch, wire: &mut impl Wire) -> io::Result<()> {
    let mut next = 0;
    let mut retried = None;
    while let Some(Outgoing { socket, .. }) = batch.iter_from(next).next() {
        let run = || batch.iter_from(next).take_while(|outgoing| outgoing.socket == socket);
        match wire.send(socket, run()) {
            Ok(datagrams) => {
                assert!(datagrams > 0, "the kernel sends something or says why not");
                let bytes = run().take(datagrams).map(|outgoing| outgoing.packet.len()).sum();
                wire.count(socket, Sent::Transmitted { datagrams, bytes });
                next += datagrams;
            }
            Err(error) => match Refusal::of(&error) {
                Refusal::Interrupted => {}
                Refusal::Full => {
                    if !wire.wait_writable(socket) {
                        wire.count(socket, Sent::Dropped);
                        next += 1;
                    }
                }
                Refusal::Unusable => return Err(error),
                Refusal::Destination { perhaps_earlier } => {
                    tracing::trace!(?socket, %error, "datagram not sent");
                    wire.count(socket, Sent::Error);
                    if perhaps_earlier && retried != Some(next) {
                        retried = Some(next);
                    } else {
                        next += 1;
                    }
                }
            },
        }
    }
    Ok(())
}

/// What an error of the kernel means for the rest of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// Nothing happened; again.
    Interrupted,
    /// No room now.
    Full,
    /// The socket itself is broken: that is our own mistake, not the network's.
    Unusable,
    /// This datagram cannot go where it shall go. A socket with a fixed peer also reports here, once, that an *earlier*
    /// datagram was refused; the one at hand was then not tried.
    Destination { perhaps_earlier: bool },
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EAGAIN) => Self::Full,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT) => Self::Unusable,
            Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::EPROTO) => {
                Self::Destination { perhaps_earlier: true }
            }
            _ => Self::Destination { perhaps_earlier: false },
        }
    }
}

/// The real thing, for one batch.
struct Kernel<'a> {
    sender: &'a Sender,
    /// When this batch's time for waiting ends; from the first time that it has to.
    give_up: Option<Instant>,
}

impl Wire for Kernel<'_> {
    fn send<'a>(&mut self, socket: SocketId, datagrams: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize> {
        let datagrams = datagrams.map(|outgoing| (outgoing.to, &outgoing.packet[..]));
        sys::send(self.sender.sockets[socket.0].fd(), datagrams)
    }

    fn wait_writable(&mut self, socket: SocketId) -> bool {
        let Sender { sockets, clock, transmit_wait } = self.sender;
        let now = clock.now();
        let give_up = *self.give_up.get_or_insert(now + *transmit_wait);
        let left = give_up.since(now);
        if left.is_zero() {
            return false;
        }
        // Whatever the outcome, the next attempt to send says more; only the time counts.
        let _ = sys::poll(&mut [sys::interest(sockets[socket.0].fd(), libc::POLLOUT)], Some(left));
        true
    }

    fn count(&mut self, socket: SocketId, what: Sent) {
        let counters = &self.sender.sockets[socket.0].counters;
        match what {
            Sent::Transmitted { datagrams, bytes } => {
                counters.transmitted.add(datagrams);
                counters.transmitted_bytes.add(bytes);
            }
            Sent::Dropped => counters.transmit_drops.add(1),
            Sent::Error => counters.transmit_errors.add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

    use bytes::Bytes;

    use super::*;
    use crate::udp::{SocketOptions, UdpDatapath};

    const A: SocketId = SocketId(0);
    const B: SocketId = SocketId(1);

    #[test]
    fn one_call_per_run_of_equal_sockets_and_order_is_kept() {
        let mut script = Script::new([]);
        transmit_all(&batch(&[(A, 3), (B, 2), (A, 1)]), &mut script).expect("sent");
        assert_eq!(script.calls, [(A, 3), (B, 2), (A, 1)]);
        assert_eq!(script.sent, [0, 1, 2, 3, 4, 5]);
        assert_eq!(script.bytes, 6);
    }

    #[test]
    fn partial_success_goes_on_where_it_stopped() {
        let mut script = Script::new([Ok(2), Ok(1)]);
        transmit_all(&batch(&[(A, 5)]), &mut script).expect("sent");
        assert_eq!(script.calls, [(A, 5), (A, 3), (A, 2)]);
        assert_eq!(script.sent, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_full_buffer_is_waited_for() {
        let mut script = Script::new([Ok(1), Err(libc::EAGAIN), Err(libc::EAGAIN)]);
        script.waits_left = 2;
        transmit_all(&batch(&[(A, 3)]), &mut script).expect("sent");
        assert_eq!(script.sent, [0, 1, 2]);
        assert_eq!((script.dropped, script.waits_left), (0, 0));
    }

    #[test]
    fn a_buffer_that_stays_full_costs_its_datagrams_and_nobody_elses() {
        let full = Err(libc::EAGAIN);
        let mut script = Script::new([full, full, full, full]);
        script.waits_left = 1;
        transmit_all(&batch(&[(A, 3), (B, 2)]), &mut script).expect("sent");
        assert_eq!(script.sent, [3, 4]);
        assert_eq!(script.dropped, 3);
    }

    #[test]
    fn an_interrupted_call_is_repeated() {
        let mut script = Script::new([Err(libc::EINTR), Err(libc::EINTR)]);
        transmit_all(&batch(&[(A, 2)]), &mut script).expect("sent");
        assert_eq!((script.sent, script.errors), (vec![0, 1], 0));
    }

    #[test]
    fn an_impossible_destination_is_skipped() {
        for error in [libc::EINVAL, libc::EMSGSIZE, libc::EPERM, libc::EACCES, libc::ENOBUFS] {
            let mut script = Script::new([Ok(1), Err(error)]);
            transmit_all(&batch(&[(A, 4)]), &mut script).expect("sent");
            assert_eq!((script.sent, script.errors), (vec![0, 2, 3], 1));
        }
    }

    #[test]
    fn an_error_about_an_earlier_datagram_does_not_cost_the_next() {
        for error in [libc::ECONNREFUSED, libc::EHOSTUNREACH] {
            let mut script = Script::new([Ok(1), Err(error)]);
            transmit_all(&batch(&[(A, 3)]), &mut script).expect("sent");
            assert_eq!((script.sent, script.errors), (vec![0, 1, 2], 1));

            let mut script = Script::new([Ok(1), Err(error), Err(error), Err(error)]);
            transmit_all(&batch(&[(A, 3)]), &mut script).expect("sent");
            assert_eq!((script.sent, script.errors), (vec![0, 2], 3));
        }
    }

    #[test]
    fn a_broken_socket_is_an_error() {
        let mut script = Script::new([Err(libc::EBADF)]);
        let error = transmit_all(&batch(&[(A, 3)]), &mut script).expect_err("broken");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn waiting_for_room_ends() {
        for wait in [Duration::ZERO, Duration::from_micros(200)] {
            let mut builder = UdpDatapath::builder(Clock::new());
            builder.transmit_wait(wait);
            let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let a = builder.socket(bind(), SocketOptions::default());
            let b = builder.socket(bind(), SocketOptions::default());
            let sender = builder.build().expect("build").sender();
            let mut kernel = Kernel { sender: &sender, give_up: None };
            // There is room, so each wait returns at once; a kernel that would say "full" nevertheless is asked again
            // for so long and no longer.
            while kernel.wait_writable(a) {}
            assert!(!kernel.wait_writable(b), "the time is for the whole batch");
            assert!(sender.clock.now() >= kernel.give_up.expect("set by the first wait"));
        }
    }

    /// Runs of datagrams, numbered through.
    fn batch(runs: &[(SocketId, usize)]) -> TransmitBatch {
        let mut batch = TransmitBatch::new();
        for &(socket, count) in runs {
            for _ in 0..count {
                let number = u8::try_from(batch.len()).expect("few");
                batch.push(socket, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9), Bytes::copy_from_slice(&[number]));
            }
        }
        batch
    }

    /// Answers to `send` in order; when they are used up, everything is sent.
    struct Script {
        answers: VecDeque<Result<usize, i32>>,
        waits_left: usize,
        calls: Vec<(SocketId, usize)>,
        sent: Vec<u8>,
        bytes: usize,
        dropped: usize,
        errors: usize,
    }

    impl Script {
        fn new<const N: usize>(answers: [Result<usize, i32>; N]) -> Self {
            Self {
                answers: answers.into(),
                waits_left: 0,
                calls: Vec::new(),
                sent: Vec::new(),
                bytes: 0,
                dropped: 0,
                errors: 0,
            }
        }
    }

    impl Wire for Script {
        fn send<'a>(&mut self, socket: SocketId, datagrams: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize> {
            let datagrams: Vec<u8> = datagrams.map(|outgoing| outgoing.packet[0]).collect();
            self.calls.push((socket, datagrams.len()));
            let count =
                self.answers.pop_front().unwrap_or(Ok(datagrams.len())).map_err(io::Error::from_raw_os_error)?;
            self.sent.extend(&datagrams[..count]);
            Ok(count)
        }

        fn wait_writable(&mut self, _: SocketId) -> bool {
            self.waits_left.checked_sub(1).inspect(|left| self.waits_left = *left).is_some()
        }

        fn count(&mut self, _: SocketId, what: Sent) {
            match what {
                Sent::Transmitted { bytes, .. } => self.bytes += bytes,
                Sent::Dropped => self.dropped += 1,
                Sent::Error => self.errors += 1,
            }
        }
    }
}
