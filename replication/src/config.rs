//! What a node core needs to know, with a default and a bound for everything.

use std::net::SocketAddrV4;
use std::time::Duration;

use r2p2::DigestKey;
use serde::{Deserialize, Serialize};

use crate::fetcher::FetchLimits;
use crate::held::HeldLimits;
use crate::id::{GroupId, MemberId};
use crate::log::Retention;
use crate::membership::Membership;
use crate::plain::PlainLimits;
use crate::repliers::ReplierChoice;
use crate::unordered::UnorderedLimits;

/// How requests become replicated (protocol.md §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One node, no log.
    Unreplicated,
    /// Bodies inside Append, by unicast; the leader answers. The baseline.
    Raft,
    /// Bodies by multicast, Append carries metadata only, replies and reads are spread.
    #[default]
    Hovercraft,
    /// The same, with acknowledgements folded by an aggregator in the network.
    #[serde(rename = "hovercraft++")]
    HovercraftPlusPlus,
}

impl Mode {
    /// Its name, as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreplicated => "unreplicated",
            Self::Raft => "raft",
            Self::Hovercraft => "hovercraft",
            Self::HovercraftPlusPlus => "hovercraft++",
        }
    }

    /// Whether bodies reach all nodes by themselves, and any node answers.
    pub fn is_spread(self) -> bool {
        matches!(self, Self::Hovercraft | Self::HovercraftPlusPlus)
    }
}

/// Everything a [`crate::Node`] is told at birth.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The group it belongs to.
    pub group: GroupId,
    /// Who it is.
    pub me: MemberId,
    /// Which process it is: drawn at random by whoever starts it, so that peers can tell two processes under one
    /// identity apart (protocol.md §7.5).
    pub life: u64,
    /// The group's members when it began, or as they are known to a node that joins; what the log says comes first.
    pub membership: Membership,
    /// The mode.
    pub mode: Mode,
    /// The service's version: [`crate::Service::VERSION`].
    pub service_version: u32,
    /// Whether promises count only once the driver has persisted them, as [`crate::storage`] says; otherwise the memory
    /// of a majority is enough, and a process that has ended must not come back.
    pub durable: bool,
    /// Whether there is an archive ([`crate::snapshot`]). A node without takes, gives and receives no snapshots: its journal
    /// grows for ever, and if it is further behind than the leader's log goes back it stays behind.
    pub archive: bool,
    /// Seed of the little randomness there is: election timeouts, whom to ask first.
    pub seed: u64,
    /// Key of the request identities; the same in the whole group and in its clients.
    pub digest_key: DigestKey,
    /// Where the aggregator is, in mode `hovercraft++`. Without one that mode is `hovercraft`.
    pub aggregator: Option<SocketAddrV4>,
    /// When things happen.
    pub timing: Timing,
    /// How much of everything.
    pub limits: Limits,
    /// How a replier is chosen.
    pub replier_choice: ReplierChoice,
    /// With three voters, a follower commits what it and the leader hold without waiting for a notice (§5.6).
    pub early_commit: bool,
    /// Gateways and routers: what they pass on counts as sent by the client that they name, and they are told what is
    /// answered or refused (protocol.md §9).
    pub forwarders: Vec<SocketAddrV4>,
    /// Whether this node tells its forwarders that it is a worker: those are routers, and the mode is
    /// [`Mode::Unreplicated`].
    pub registers: bool,
    /// Under which epoch it counts what it tells them ([`r2p2::feedback`]): drawn for each process, also of one that goes
    /// on from its storage.
    pub feedback_epoch: u64,
}

/// When things happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The Raft clock's step. A heartbeat every [`Timing::HEARTBEAT_TICKS`], an election after 20 to 40 without one. Terms without
    /// a leader, one after the other, wait longer: see [`Timing::ELECTION_TICKS`].
    pub tick: Duration,
    /// R: how recently a node must have acknowledged to be chosen as a replier, and to count as in step.
    pub fresh: Duration,
    /// Shortest time after which an unacknowledged Append is repeated; adapts upwards, and doubles while unanswered.
    pub append_retry_min: Duration,
    /// Longest such time.
    pub append_retry_max: Duration,
    /// H: how long a follower holds a body that nobody orders before it tells the leader.
    pub hint_after: Duration,
    /// D: over how long the leader watches whether it is deaf to client multicast.
    pub deaf_window: Duration,
    /// How long a leader that has committed entries to execute and executes none keeps its place, if another gets on.
    pub stuck_after: Duration,
    /// How old a request may be for the leader to order it. Less than the unordered set's age on followers, by more
    /// than two client retransmissions, so that bodies do not expire there while still queued here (§7.1).
    pub order_age_max: Duration,
    /// A follower that owes no acknowledgement reports what it has applied after this time at the latest.
    pub applied_report: Duration,
    /// Shortest time after which a leader does without an aggregator that has not said what a majority has; adapts upwards
    /// to what it takes, up to [`Timing::append_retry_max`].
    pub aggregate_min: Duration,
    /// How long a leader waits before it arms again: at first, and at most if it is in vain again and again.
    pub arm_retry_min: Duration,
    /// See there.
    pub arm_retry_max: Duration,
}

impl Timing {
    /// Ticks between two heartbeats.
    pub const HEARTBEAT_TICKS: usize = 2;
    /// Fewest ticks without a heartbeat before an election; the most is just below twice as many. Both double with every
    /// term without a leader from the third in a row on, up to sixteen times as many: votes may wait for slow disks.
    pub const ELECTION_TICKS: usize = 20;

    /// Fewest time without a heartbeat before an election.
    pub fn election_min(&self) -> Duration {
        self.tick * Self::ELECTION_TICKS as u32
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(5),
            fresh: Duration::from_millis(50),
            append_retry_min: Duration::from_millis(1),
            append_retry_max: Duration::from_millis(50),
            hint_after: Duration::from_millis(25),
            deaf_window: Duration::from_millis(500),
            stuck_after: Duration::from_secs(1),
            order_age_max: Duration::from_secs(1),
            applied_report: Duration::from_millis(1),
            aggregate_min: Duration::from_millis(2),
            arm_retry_min: Duration::from_millis(10),
            arm_retry_max: Duration::from_secs(1),
        }
    }
}

/// When snapshots are taken, how long they are kept, and what their transfer may take (protocol.md §7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotLimits {
    /// A durable node takes one when what it has written of its log since the last has so many bytes. Twice that is about
    /// what the log takes on disk. While an older snapshot is being read by another node it may become four times that.
    pub after_bytes: usize,
    /// The same in entries.
    pub after_entries: u64,
    /// Most chunks that a node which receives a snapshot has asked for and not kept yet.
    pub chunks_in_flight_max: usize,
    /// Most chunks that are being read for other nodes. Whoever asks for more is not answered, and asks again.
    pub reads_in_flight_max: usize,
    /// How long a snapshot that this node does not need itself stays after somebody has read of it.
    pub keep_after_use: Duration,
    /// Most entries that a leader keeps for a node that receives a snapshot, to go on from there.
    pub hold_entries_max: usize,
    /// The same in bytes of entries and bodies.
    pub hold_bytes_max: usize,
    /// When there was no room for a snapshot: how long until the next attempt.
    pub retry_after: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            after_bytes: 512 << 20,
            after_entries: 8_000_000,
            chunks_in_flight_max: 64,
            reads_in_flight_max: 128,
            keep_after_use: Duration::from_secs(30),
            hold_entries_max: 1 << 20,
            hold_bytes_max: 1 << 30,
            retry_after: Duration::from_secs(10),
        }
    }
}

/// How much of everything. Every queue of the core has its limit here and a counter for what it refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest request, bytes.
    pub request_max: usize,
    /// Longest reply, bytes.
    pub reply_max: usize,
    /// B: most entries whose replier has not reported them applied, per node.
    pub replier_queue_max: usize,
    /// P: most announced and not yet applied entries of the group.
    pub window_entries_max: usize,
    /// The same in bytes of bodies.
    pub window_bytes_max: usize,
    /// W: how far behind the leader's last index a follower may be and still be in step.
    pub in_step_entries_max: u64,
    /// Most entries proposed at once.
    pub batch_entries_max: usize,
    /// Most entries sent to one node at once when it catches up or an Append is repeated.
    pub burst_entries_max: u64,
    /// Largest internal datagram, bytes of UDP payload: 1472 on Ethernet, more on loopback.
    pub packet_max: usize,
    /// Bodies received that no entry names yet.
    pub unordered: UnorderedLimits,
    /// What is kept of the log.
    pub retention: Retention,
    /// Bodies asked for.
    pub fetch: FetchLimits,
    /// Appends held back.
    pub held: HeldLimits,
    /// Plain requests remembered.
    pub plain: PlainLimits,
    /// Snapshots.
    pub snapshots: SnapshotLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_max: 64 << 10,
            reply_max: 64 << 10,
            replier_queue_max: 32,
            window_entries_max: 4096,
            window_bytes_max: 32 << 20,
            in_step_entries_max: 4096,
            batch_entries_max: 512,
            burst_entries_max: 512,
            packet_max: 1472,
            unordered: UnorderedLimits::default(),
            retention: Retention::default(),
            fetch: FetchLimits::default(),
            held: HeldLimits::default(),
            plain: PlainLimits::default(),
            snapshots: SnapshotLimits::default(),
        }
    }
}

impl NodeConfig {
    /// A node of a group with everything else at its default.
    pub fn new(me: MemberId, membership: Membership) -> Self {
        Self {
            group: GroupId(1),
            me,
            life: me.raft(),
            membership,
            mode: Mode::default(),
            service_version: 1,
            durable: false,
            archive: false,
            seed: me.raft(),
            digest_key: DigestKey::default(),
            aggregator: None,
            timing: Timing::default(),
            limits: Limits::default(),
            replier_choice: ReplierChoice::default(),
            early_commit: true,
            forwarders: Vec::new(),
            registers: false,
            feedback_epoch: me.raft(),
        }
    }
}
