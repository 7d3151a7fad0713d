//! A node's sockets: what they are for, and how they are opened.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};

use multicast::SenderError;
use r2p2::Instant;
use r2p2::datapath::{Capabilities, Datapath, ReceiveBatch, SocketCounters, SocketId, TransmitBatch, Wake};
use r2p2::fault::{FaultCounters, Faults, Faulty};
use r2p2::udp::{Clock, Sender, SocketOptions, UdpDatapath, Waker};

use super::StartError;
use crate::cluster::{ClusterConfig, FanOut, NodeEntry};

/// Where clients send what is for this node alone, and what answers come from.
pub(super) const REQUESTS: SocketId = SocketId(0);
/// Where clients send what is for all nodes.
pub(super) const GROUP_REQUESTS: SocketId = SocketId(1);
/// Where nodes send what is for this node alone, and what this node sends to them from.
pub(super) const PEERS: SocketId = SocketId(2);
/// Where nodes send what is for all of them, if that is a socket of its own.
pub(super) const PEER_GROUP: SocketId = SocketId(3);

/// Each socket's name in counters.
const NAMES: [&str; 4] = ["requests", "group_requests", "peers", "peer_group"];

/// The datagrams of a node, with faults on purpose if the configuration wants them.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per node")]
pub(super) enum Wires {
    Plain(UdpDatapath),
    Faulty(Faulty<UdpDatapath>),
}

/// Opens all sockets of a node.
pub(super) fn open(config: &ClusterConfig, entry: &NodeEntry, clock: Clock) -> Result<Wires, StartError> {
    let in_field = |field| move |error| StartError::Join { field, error };
    let sender = |field| move |error: SenderError| StartError::Sender { field, error };
    let (request_group, peer_group) = (config.request_fan_out(), config.peer_fan_out());

    let requests = bind("requests", entry.requests)?;
    let group_requests =
        request_group.join(entry.group_requests.unwrap_or(entry.requests)).map_err(in_field("request_group"))?;
    let peers = bind("peers", entry.peers)?;
    peer_group.configure_sender(&peers, config.ttl).map_err(sender("peer_group"))?;
    let joined = match config.fan_out {
        FanOut::Multicast => Some(peer_group.join(entry.peers).map_err(in_field("peer_group"))?),
        FanOut::Unicast => None,
    };

    let options = SocketOptions {
        receive_buffer: config.limits.receive_buffer,
        send_buffer: config.limits.send_buffer,
        ..SocketOptions::default()
    };
    let internal = SocketOptions { datagram_max: options.datagram_max.max(config.packet_max()), ..options };
    let mut builder = UdpDatapath::builder(clock);
    builder.spin(config.spin());
    assert_eq!(builder.socket(requests, options), REQUESTS);
    assert_eq!(builder.socket(group_requests, options), GROUP_REQUESTS);
    assert_eq!(builder.socket(peers, internal), PEERS);
    if let Some(joined) = joined {
        assert_eq!(builder.socket(joined, internal), PEER_GROUP);
    }
    let udp = builder.build().map_err(StartError::Setup)?;
    for advice in (0..udp.socket_count()).filter_map(|socket| udp.buffers(SocketId(socket)).advice()).take(1) {
        tracing::warn!(node = entry.id, "{advice}");
    }
    Ok(if config.faults.any() {
        Wires::Faulty(with_faults(udp, config, u64::from(entry.id)))
    } else {
        Wires::Plain(udp)
    })
}

pub(super) fn bind(field: &'static str, address: SocketAddrV4) -> Result<UdpSocket, StartError> {
    UdpSocket::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { field, address },
        _ => StartError::Bind { field, address, source },
    })
}

/// Loses what arrives, and answers to clients, so that every datagram runs the risk once.
fn with_faults<D: Datapath>(inner: D, config: &ClusterConfig, stream: u64) -> Faulty<D> {
    let (loss, duplicate) = (config.faults.loss, config.faults.duplicate);
    let receiving = Faults { receive_loss: loss, receive_duplication: duplicate, ..Faults::NONE };
    let seed = config.faults.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut faulty = Faulty::new(inner, seed, receiving);
    let both = Faults { transmit_loss: loss, transmit_duplication: duplicate, ..receiving };
    faulty.set(REQUESTS, both);
    faulty
}

impl Wires {
    pub(super) fn udp(&self) -> &UdpDatapath {
        match self {
            Self::Plain(udp) => udp,
            Self::Faulty(faulty) => faulty.inner(),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.udp().clock()
    }

    pub(super) fn waker(&self) -> Waker {
        self.udp().waker()
    }

    pub(super) fn has_peer_group(&self) -> bool {
        self.udp().socket_count() > PEER_GROUP.0
    }

    /// What another thread sends answers with: the same sockets, the same risks.
    pub(super) fn answers(&self, config: &ClusterConfig, entry: &NodeEntry) -> Answers {
        let only = SendOnly(self.udp().sender());
        match self {
            Self::Plain(_) => Answers::Plain(only),
            Self::Faulty(_) => Answers::Faulty(with_faults(only, config, u64::from(entry.id) | 1 << 32)),
        }
    }

    /// Name and value of everything counted on the sockets.
    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (index, name) in NAMES.iter().enumerate().take(self.udp().socket_count()) {
            let socket = SocketId(index);
            let counters = self.udp().counters(socket).iter();
            all.extend(counters.map(|(counter, value)| (format!("net.{name}.{counter}"), value)));
            if let Self::Faulty(faulty) = self {
                all.extend(fault_counters(name, faulty.fault_counters(socket)));
            }
        }
        all
    }
}

fn fault_counters(name: &str, counters: FaultCounters) -> [(String, u64); 4] {
    let FaultCounters { receive_lost, receive_duplicated, transmit_lost, transmit_duplicated } = counters;
    [
        ("receive_lost", receive_lost),
        ("receive_duplicated", receive_duplicated),
        ("transmit_lost", transmit_lost),
        ("transmit_duplicated", transmit_duplicated),
    ]
    .map(|(counter, value)| (format!("faults.{name}.{counter}"), value))
}

impl Datapath for Wires {
    fn capabilities(&self) -> Capabilities {
        self.udp().capabilities()
    }

    fn receive(&mut self, socket: SocketId, budget: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        match self {
            Self::Plain(udp) => udp.receive(socket, budget, batch),
            Self::Faulty(faulty) => faulty.receive(socket, budget, batch),
        }
    }

    fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
        match self {
            Self::Plain(udp) => udp.transmit(batch),
            Self::Faulty(faulty) => faulty.transmit(batch),
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Wake> {
        match self {
            Self::Plain(udp) => udp.wait(deadline),
            Self::Faulty(faulty) => faulty.wait(deadline),
        }
    }

    fn counters(&self, socket: SocketId) -> SocketCounters {
        self.udp().counters(socket)
    }
}

/// The sending half of a node's sockets, for the apply thread.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per node")]
pub(super) enum Answers {
    Plain(SendOnly),
    Faulty(Faulty<SendOnly>),
}

impl Answers {
    pub(super) fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
        match self {
            Self::Plain(only) => only.transmit(batch),
            Self::Faulty(faulty) => faulty.transmit(batch),
        }
    }

    /// Faults on answers.
    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Faulty(faulty) => fault_counters("answers", faulty.fault_counters(REQUESTS)).into(),
        }
    }
}

/// A datapath on which nothing arrives.
#[derive(Debug)]
pub(super) struct SendOnly(Sender);

impl Datapath for SendOnly {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn receive(&mut self, _: SocketId, _: usize, _: &mut ReceiveBatch) -> io::Result<usize> {
        Ok(0)
    }

    fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
        self.0.transmit(batch)
    }

    fn wait(&mut self, _: Option<Instant>) -> io::Result<Wake> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn counters(&self, socket: SocketId) -> SocketCounters {
        self.0.counters(socket)
    }
}
