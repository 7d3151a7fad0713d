//! One socket of the datapath: its options, its counters, its buffers.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::SockRef;

use super::sys;
use crate::datapath::SocketCounters;

/// The largest UDP payload over IPv4.
pub const DATAGRAM_MAX: usize = 65_507;

/// What a socket is to be able to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// The largest datagram it shall receive, from 1 to [`DATAGRAM_MAX`]. Larger ones are counted as truncated and not
    /// delivered. The default is enough for a full Ethernet frame; internal sockets on loopback take
    /// [`DATAGRAM_MAX`].
    pub datagram_max: usize,
    /// Bytes of kernel memory for datagrams that have arrived and were not yet read. Per datagram the kernel takes a
    /// few hundred bytes on top of its payload.
    pub receive_buffer: usize,
    /// Bytes of kernel memory for datagrams that have not left yet.
    pub send_buffer: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { datagram_max: 2048, receive_buffer: 4 << 20, send_buffer: 4 << 20 }
    }
}

/// The kernel's buffers of one socket, in bytes: what was asked for, and what the system allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferSizes {
    /// [`SocketOptions::receive_buffer`].
    pub receive_wanted: usize,
    /// What it became.
    pub receive: usize,
    /// [`SocketOptions::send_buffer`].
    pub send_wanted: usize,
    /// What it became.
    pub send: usize,
}

impl BufferSizes {
    /// If the system allowed less than was asked for: a sentence saying what that means and what to do.
    pub fn advice(&self) -> Option<String> {
        let mut limits = Vec::new();
        if self.receive < self.receive_wanted {
            limits.push(format!("net.core.rmem_max={}", self.receive_wanted));
        }
        if self.send < self.send_wanted {
            limits.push(format!("net.core.wmem_max={}", self.send_wanted));
        }
        (!limits.is_empty()).then(|| {
            format!(
                "socket buffers are smaller than wanted (receive {} of {} bytes, send {} of {} bytes), so bursts lose \
                 datagrams earlier; to allow more: sudo sysctl -w {}",
                self.receive,
                self.receive_wanted,
                self.send,
                self.send_wanted,
                limits.join(" "),
            )
        })
    }
}

/// Why a socket cannot be part of a datapath.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The addresses in this crate are IPv4.
    #[error("the socket is bound to {0}, which is not an IPv4 address; bind it to one")]
    NotIpv4(SocketAddr),
    /// Outside what UDP can carry.
    #[error("datagram_max is {0}, but a UDP payload has 1 to {DATAGRAM_MAX} bytes")]
    DatagramMax(usize),
    /// The kernel refused.
    #[error("the system does not let us {what}: {source}")]
    System {
        /// What we tried to do.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SetupError {
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// A socket as the datapath and its senders share it.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    pub local: SocketAddrV4,
    pub datagram_max: usize,
    pub buffers: BufferSizes,
    pub counters: Counters,
}

impl Socket {
    pub(super) fn new(socket: UdpSocket, options: SocketOptions) -> Result<Self, SetupError> {
        let SocketOptions { datagram_max, receive_buffer, send_buffer } = options;
        if !(1..=DATAGRAM_MAX).contains(&datagram_max) {
            return Err(SetupError::DatagramMax(datagram_max));
        }
        let local = match socket.local_addr().map_err(SetupError::system("read a socket's address"))? {
            SocketAddr::V4(local) => local,
            other @ SocketAddr::V6(_) => return Err(SetupError::NotIpv4(other)),
        };
        socket.set_nonblocking(true).map_err(SetupError::system("make a socket non-blocking"))?;
        let buffers = set_buffers(&socket, receive_buffer, send_buffer)
            .map_err(SetupError::system("set or read a socket's buffer sizes"))?;
        if let Some(advice) = buffers.advice() {
            tracing::info!(%local, "{advice}");
        }
        Ok(Self { socket, local, datagram_max, buffers, counters: Counters::default() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn counters(&self) -> SocketCounters {
        if let Ok(drops) = sys::kernel_drops(self.fd()) {
            self.counters.kernel_drops_are(drops);
        }
        self.counters.read()
    }
}

/// Asks politely first; beyond the system's limit only the privileged option helps, and if that is refused too, less
/// must do.
fn set_buffers(socket: &UdpSocket, receive_wanted: usize, send_wanted: usize) -> io::Result<BufferSizes> {
    let fd = socket.as_fd();
    let socket = SockRef::from(socket);
    // The kernel doubles what it is told, for its own bookkeeping, and reports the double.
    let receive = || Ok::<_, io::Error>(socket.recv_buffer_size()? / 2);
    let send = || Ok::<_, io::Error>(socket.send_buffer_size()? / 2);

    socket.set_recv_buffer_size(receive_wanted)?;
    if receive()? < receive_wanted {
        let _ = sys::force_buffer_size(fd, libc::SO_RCVBUFFORCE, receive_wanted);
    }
    socket.set_send_buffer_size(send_wanted)?;
    if send()? < send_wanted {
        let _ = sys::force_buffer_size(fd, libc::SO_SNDBUFFORCE, send_wanted);
    }
    Ok(BufferSizes { receive_wanted, receive: receive()?, send_wanted, send: send()? })
}

/// The counters of one socket, written by the datapath's thread and by senders on others.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub received: Counter,
    pub received_bytes: Counter,
    pub truncated: Counter,
    kernel_drops: Counter,
    pub receive_errors: Counter,
    pub transmitted: Counter,
    pub transmitted_bytes: Counter,
    pub transmit_drops: Counter,
    pub transmit_errors: Counter,
}

impl Counters {
    /// The kernel counts modulo 2^32.
    fn kernel_drops_are(&self, drops: u32) {
        let _ = self.kernel_drops.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let more = drops.wrapping_sub(before as u32);
            // Two threads may have read in the other order than they come here: then this is the older figure.
            (more < 1 << 31).then(|| before + u64::from(more))
        });
    }

    fn read(&self) -> SocketCounters {
        SocketCounters {
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
            truncated: self.truncated.get(),
            kernel_drops: self.kernel_drops.get(),
            receive_errors: self.receive_errors.get(),
            transmitted: self.transmitted.get(),
            transmitted_bytes: self.transmitted_bytes.get(),
            transmit_drops: self.transmit_drops.get(),
            transmit_errors: self.transmit_errors.get(),
        }
    }
}

/// A number that only grows; nothing is synchronised by it.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: usize) {
        if more > 0 {
            self.0.fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn kernel_drops_go_on_beyond_32_bits() {
        let counters = Counters::default();
        for (drops, total) in
            [(0, 0), (5, 5), (5, 5), (3, 5), (1 << 31, 1 << 31), (u32::MAX, (1 << 32) - 1), (1, (1 << 32) + 1)]
        {
            counters.kernel_drops_are(drops);
            assert_eq!(counters.read().kernel_drops, total, "after {drops}");
        }
    }

    #[test]
    fn sizes_outside_udp_and_other_families_are_refused() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        for datagram_max in [1, DATAGRAM_MAX] {
            Socket::new(bind(), SocketOptions { datagram_max, ..SocketOptions::default() }).expect("possible");
        }
        for datagram_max in [0, DATAGRAM_MAX + 1] {
            let error = Socket::new(bind(), SocketOptions { datagram_max, ..SocketOptions::default() });
            assert!(matches!(error, Err(SetupError::DatagramMax(_))));
        }
        match UdpSocket::bind("[::1]:0") {
            Ok(socket) => {
                let error = Socket::new(socket, SocketOptions::default()).expect_err("IPv6");
                assert!(error.to_string().contains("[::1]"), "{error}");
            }
            Err(error) => println!("skipped the IPv6 half: {error}"),
        }
    }

    #[test]
    fn buffers_have_the_size_they_report() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let options = SocketOptions { receive_buffer: 100_000, send_buffer: 90_000, ..SocketOptions::default() };
        let socket = Socket::new(socket, options).expect("set up");
        let wanted = BufferSizes { receive_wanted: 100_000, receive: 100_000, send_wanted: 90_000, send: 90_000 };
        assert_eq!(socket.buffers, wanted);
        assert_eq!(wanted.advice(), None);
        let advice = BufferSizes { receive: 50_000, ..wanted }.advice().expect("too small");
        assert!(advice.contains("sysctl -w net.core.rmem_max=100000"), "{advice}");
        assert!(!advice.contains("wmem"), "{advice}");
    }
}
