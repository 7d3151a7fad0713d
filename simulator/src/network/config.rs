//! How a network behaves.

use std::fmt;
use std::time::Duration;

use super::Latency;

/// How the network behaves, and how fast hosts read from it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NetworkConfig {
    /// How long a datagram takes, drawn for each receiver of a multicast on its own.
    pub latency: Latency,
    /// Share of datagrams that take [`spike`](Self::spike) longer.
    pub spikes: f64,
    /// See [`spikes`](Self::spikes).
    pub spike: Duration,
    /// Whether datagrams from one host to another arrive in the order they were sent, but for those of
    /// [`reorder`](Self::reorder) and for copies. If not, each takes as long as it takes.
    pub in_order: bool,
    /// Share of datagrams that are overtaken: they take up to [`reorder_by`](Self::reorder_by) longer, and nobody waits
    /// for them.
    pub reorder: f64,
    /// See [`reorder`](Self::reorder).
    pub reorder_by: Duration,
    /// Share of datagrams that are lost, decided for each receiver of a multicast on its own.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams of which one bit is flipped, where the protocol has to notice: the marks of the header, or,
    /// in what is fetched, whatever follows the envelope. UDP's checksum stands in front of everything else, and no
    /// protocol without authentication survives a changed request.
    pub corrupt: f64,
    /// What each host can send, and what it can receive, in bits of UDP payload per second; no limit if none. A multicast
    /// is sent once.
    pub bandwidth: Option<u64>,
    /// Most bytes that wait to leave a host, and in the switch for a host's link, if there is a
    /// [`bandwidth`](Self::bandwidth); what is beyond is dropped.
    pub queue_max: usize,
    /// Most bytes that wait in each of a node's two sockets, 256 more counted for each datagram; what is beyond is
    /// dropped.
    pub socket_max: usize,
    /// How long a node takes to read and handle one datagram; meanwhile the others wait in their sockets.
    pub processing: Duration,
}

impl Default for NetworkConfig {
    /// Fast, calm, without limits but for the sockets', which are as large as the runtime's.
    fn default() -> Self {
        Self {
            latency: Latency::jittered(Duration::from_micros(10), Duration::from_micros(10)),
            spikes: 0.0,
            spike: Duration::ZERO,
            in_order: false,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            bandwidth: None,
            queue_max: 1 << 20,
            socket_max: 4 << 20,
            processing: Duration::ZERO,
        }
    }
}

impl fmt::Display for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        write!(f, "latency {}", self.latency)?;
        if self.spikes > 0.0 {
            write!(f, ", {} + {:?}", percent(self.spikes), self.spike)?;
        }
        write!(f, "{}", if self.in_order { ", in order" } else { "" })?;
        if self.reorder > 0.0 {
            write!(f, ", {} overtaken by up to {:?}", percent(self.reorder), self.reorder_by)?;
        }
        let (loss, duplicate, corrupt) = (percent(self.loss), percent(self.duplicate), percent(self.corrupt));
        write!(f, "; loss {loss}, duplicated {duplicate}, corrupt {corrupt}")?;
        if let Some(bandwidth) = self.bandwidth {
            write!(f, "; {:.1} Mbit/s, queues {} B", bandwidth as f64 / 1e6, self.queue_max)?;
        }
        write!(f, "; sockets {} B, {:?} per datagram", self.socket_max, self.processing)
    }
}
