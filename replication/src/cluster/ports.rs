//! Ports for a group on one machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::NodeEntry;
use super::validate::NODES_MAX;
use crate::entropy;

/// The ports and multicast addresses of a group on one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalPorts {
    /// Requests, group requests, peers; per node.
    nodes: Vec<[u16; 3]>,
    groups: [SocketAddrV4; 2],
    aggregator: u16,
}

impl LocalPorts {
    /// Where the default ports begin.
    pub const BASE_DEFAULT: u16 = 7400;
    /// How many ports a group takes from its base on.
    pub const SPAN: u16 = 10 * NODES_MAX as u16;

    /// Ports that follow from a number, for up to [`NODES_MAX`] nodes: node *i* (from 1) has `base + 10 (i - 1)` for
    /// requests, and the next two; the aggregator has `base + 5`. Bases that are [`LocalPorts::SPAN`] apart do not meet, nor do their multicast
    /// groups.
    ///
    /// # Panics
    /// If there is not that much room above `base`.
    pub fn from_base(base: u16) -> Self {
        assert!(base <= u16::MAX - Self::SPAN, "a base of at most {}", u16::MAX - Self::SPAN);
        let [high, low] = base.to_be_bytes();
        Self {
            nodes: (0..NODES_MAX as u16).map(|i| [0, 1, 2].map(|offset| base + 10 * i + offset)).collect(),
            groups: [
                SocketAddrV4::new(Ipv4Addr::new(239, 192, high, low), base + 3),
                SocketAddrV4::new(Ipv4Addr::new(239, 193, high, low), base + 4),
            ],
            aggregator: base + 5,
        }
    }

    /// Ports that nobody uses now, and multicast groups that probably nobody uses: for tests and demonstrations, any
    /// number of which run at a time.
    ///
    /// # Errors
    /// If the system does not let us look, or nothing is free.
    pub fn free(nodes: usize) -> io::Result<Self> {
        let random = entropy::draw();
        // Every port is looked at once per process, so that two groups of one process never get the same.
        let start = *FREE_START.get_or_init(|| (random % u64::from(CANDIDATES)) as u16);
        let next = || loop {
            let seen = FREE_SEEN.fetch_add(1, Ordering::Relaxed);
            if seen >= usize::from(CANDIDATES) {
                let message = "no UDP port from 12000 to 31999 is free and was not tried before";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            let port = FIRST + (start + seen as u16) % CANDIDATES;
            if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
                return Ok(port);
            }
        };
        let nodes = (0..nodes).map(|_| Ok([next()?, next()?, next()?])).collect::<io::Result<_>>()?;
        let [_, _, _, _, _, a, b, c] = random.to_be_bytes();
        Ok(Self {
            nodes,
            groups: [
                SocketAddrV4::new(Ipv4Addr::new(239, 194, a, b), next()?),
                SocketAddrV4::new(Ipv4Addr::new(239, 195, b, c), next()?),
            ],
            aggregator: next()?,
        })
    }

    /// How many nodes there are ports for.
    pub fn nodes_max(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn request_group(&self) -> SocketAddrV4 {
        self.groups[0]
    }

    pub(super) fn peer_group(&self) -> SocketAddrV4 {
        self.groups[1]
    }

    pub(super) fn aggregator(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.aggregator)
    }

    pub(super) fn node(&self, index: usize) -> NodeEntry {
        let [requests, group_requests, peers] =
            self.nodes[index].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let id = u16::try_from(index + 1).expect("there are few nodes");
        NodeEntry {
            id,
            incarnation: 1,
            join: false,
            learner: false,
            requests,
            group_requests: Some(group_requests),
            peers,
            metrics: None,
        }
    }
}

/// Free ports are looked for below the range from which the system picks ports for those who do not care.
const FIRST: u16 = 12_000;
const CANDIDATES: u16 = 20_000;
/// Where in that range this process began to look, and how many it has looked at.
static FREE_START: OnceLock<u16> = OnceLock::new();
static FREE_SEEN: AtomicUsize = AtomicUsize::new(0);

impl Default for LocalPorts {
    fn default() -> Self {
        Self::from_base(Self::BASE_DEFAULT)
    }
}
