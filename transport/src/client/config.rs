//! What a client may be told: its mode, its limits, its patience.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::reassembly::ReassemblyLimits;
use crate::wire::{DigestKey, Extensions, HEADER_LEN, PAYLOAD_MAX, Policy};

use super::operations::SLOTS_MAX;

/// Where the first copy of a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Route {
    /// Always to [`Target::Group`](super::Target::Group): the client needs to know nobody's role (`hovercraft`, or a
    /// plain client whose shell resolves the group to one server or router).
    #[default]
    Group,
    /// To the node that answered last; to the group while there is none, and again after an operation's first timeout
    /// or a NOT LEADER reply (`raft`, `unreplicated`).
    Sticky,
}

/// Configuration of a [`Client`](super::Client). Out-of-range values are moved to the nearest permitted one by
/// `Client::new`; [`Client::config`](super::Client::config) shows what came of it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Session mode, for our servers: exactly-once by (session, seq), pipelining, retransmission. `false` is plain
    /// mode, for any R2P2 server: no extensions, and no retransmission (see
    /// [`plain_retransmit`](Self::plain_retransmit)).
    pub sessions: bool,
    /// The addresses of single nodes, at first; none if only the group is known. [`Client::set_nodes`] changes them.
    ///
    /// [`Client::set_nodes`]: super::Client::set_nodes
    pub nodes: Vec<SocketAddrV4>,
    /// Where first copies go.
    pub fan_out: Route,
    /// The policy to write into request headers. `None` states the operation's [`Kind`](super::Kind) as `Replicated`
    /// or `ReplicatedNoSideEffects`; a plain client behind a load-balancing router sets `Some(Policy::LoadBalanced)`.
    pub policy: Option<Policy>,
    /// Plain mode only: retransmit after timeouts. The server cannot tell a copy from a new request, so this is right
    /// for idempotent requests only.
    pub plain_retransmit: bool,
    /// Retransmission timeout before the first round trip has been measured.
    pub retransmit_initial: Duration,
    /// Shortest retransmission timeout (1 µs to 1 h), and the wait before retrying after a NOT LEADER reply.
    pub retransmit_min: Duration,
    /// Longest retransmission timeout (at most 1 h), before jitter (which adds up to a quarter).
    pub retransmit_max: Duration,
    /// How long after its submission an operation is given up, sent or not.
    pub give_up: Duration,
    /// Most operations in flight (1 to 32 768, half of all rids).
    pub outstanding_max: usize,
    /// Most operations accepted but not yet sent: while a session opens, while `outstanding_max` are in flight, or
    /// while the sequence window is full (1 to 524 288).
    pub held_max: usize,
    /// Most admin requests in flight (1 to 1024); they do not count as operations.
    pub admin_max: usize,
    /// Packets waiting for the shell at which retransmissions are skipped and operations are held; one more message
    /// may exceed it (at least 1).
    pub transmits_max: usize,
    /// A seq is used only below first-unacknowledged + `seq_window` (at least 1); must not exceed the servers' window.
    pub seq_window: u64,
    /// Largest request body; at most what `u16` packets of `packet_max` can carry.
    pub request_max: usize,
    /// Largest reply body, in place of `reassembly.message_max`. A longer reply is refused as it arrives and counted,
    /// so the operation ends in [`Outcome::Unknown`](super::Outcome::Unknown).
    pub reply_max: usize,
    /// Largest UDP payload sent (at least 128 B).
    pub packet_max: usize,
    /// A session unused for longer than this is replaced before the next operation. Must be well below the time after
    /// which the servers expire one.
    pub session_idle: Duration,
    /// After this many timeouts of an operation its retransmissions also go to single nodes, in turn.
    pub unicast_after: u32,
    /// Key of the digest on multi-packet requests; the servers' own.
    pub digest_key: DigestKey,
    /// Limits for replies of several packets.
    pub reassembly: ReassemblyLimits,
}

impl Default for ClientConfig {
    /// A session client of a hovercraft group on a 1500 B MTU that only knows the group's address.
    fn default() -> Self {
        Self {
            sessions: true,
            nodes: Vec::new(),
            fan_out: Route::Group,
            policy: None,
            plain_retransmit: false,
            retransmit_initial: Duration::from_millis(20),
            retransmit_min: Duration::from_millis(5),
            retransmit_max: Duration::from_millis(500),
            give_up: Duration::from_secs(10),
            outstanding_max: 1024,
            held_max: 1024,
            admin_max: 16,
            transmits_max: 16_384,
            seq_window: 1024,
            request_max: 1 << 20,
            reply_max: 1 << 20,
            packet_max: HEADER_LEN + PAYLOAD_MAX,
            session_idle: Duration::from_secs(60),
            unicast_after: 2,
            digest_key: DigestKey::default(),
            // One partial reply for each operation in flight: a single server may owe them all.
            reassembly: ReassemblyLimits { slots_per_peer: 1024, ..ReassemblyLimits::default() },
        }
    }
}

impl ClientConfig {
    /// Every value within its documented range.
    pub(super) fn sanitized(mut self) -> Self {
        self.retransmit_min = self.retransmit_min.max(Duration::from_micros(1));
        self.retransmit_min = self.retransmit_min.min(WAIT_CEILING);
        self.retransmit_max = self.retransmit_max.clamp(self.retransmit_min, WAIT_CEILING);
        self.retransmit_initial = self.retransmit_initial.clamp(self.retransmit_min, self.retransmit_max);
        self.outstanding_max = self.outstanding_max.clamp(1, OUTSTANDING_CEILING);
        self.held_max = self.held_max.clamp(1, HELD_CEILING);
        self.admin_max = self.admin_max.clamp(1, ADMIN_CEILING);
        self.transmits_max = self.transmits_max.max(1);
        self.seq_window = self.seq_window.max(1);
        self.packet_max = self.packet_max.clamp(PACKET_FLOOR, UDP_PAYLOAD_CEILING);
        // Every packet but the first of a handshake carries at least this much.
        let message_ceiling = usize::from(u16::MAX - 1) * (self.packet_max - Extensions::HEADER_LEN_MAX);
        self.request_max = self.request_max.min(message_ceiling);
        self.reassembly.message_max = self.reply_max;
        self
    }
}

const WAIT_CEILING: Duration = Duration::from_secs(3600);
/// Half of all rids, so that one is always free and long unused.
const OUTSTANDING_CEILING: usize = 1 << 15;
const HELD_CEILING: usize = 1 << 19;
const ADMIN_CEILING: usize = 1 << 10;
const PACKET_FLOOR: usize = 128;
const UDP_PAYLOAD_CEILING: usize = 65_507;
const _: () = assert!(OUTSTANDING_CEILING + HELD_CEILING + ADMIN_CEILING < SLOTS_MAX);
const _: () = assert!(Extensions::HEADER_LEN_MAX < PACKET_FLOOR);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_become_the_smallest_usable_values() {
        let config = ClientConfig {
            retransmit_initial: Duration::ZERO,
            retransmit_min: Duration::ZERO,
            retransmit_max: Duration::ZERO,
            outstanding_max: 0,
            held_max: 0,
            admin_max: 0,
            transmits_max: 0,
            seq_window: 0,
            packet_max: 0,
            request_max: usize::MAX,
            reply_max: 77,
            ..ClientConfig::default()
        }
        .sanitized();
        assert_eq!(config.retransmit_min, Duration::from_micros(1));
        assert_eq!(config.retransmit_initial, config.retransmit_min);
        assert_eq!(config.retransmit_max, config.retransmit_min);
        assert_eq!((config.outstanding_max, config.held_max, config.admin_max), (1, 1, 1));
        assert_eq!((config.transmits_max, config.seq_window), (1, 1));
        assert_eq!(config.packet_max, PACKET_FLOOR);
        assert_eq!(config.request_max, 65_534 * (PACKET_FLOOR - Extensions::HEADER_LEN_MAX));
        assert_eq!(config.reassembly.message_max, 77);
    }

    #[test]
    fn sensible_values_stay() {
        let config = ClientConfig::default().sanitized();
        assert_eq!(config.request_max, 1 << 20);
        assert_eq!(config.packet_max, 1472);
    }
}
