//! The parts of a configuration with many numbers.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LocalPorts;
use crate::config::{Limits, SnapshotLimits, Timing};
use crate::log::Retention;
use crate::session::SessionLimits;
use crate::unordered::UnorderedLimits;

/// How much of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Longest request, bytes.
    pub request_max: usize,
    /// Longest reply, bytes.
    pub reply_max: usize,
    /// Largest internal datagram, bytes of UDP payload. Default: 1472 if nodes talk over a network, 16384 on one machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_max: Option<usize>,
    /// Most entries whose replier has not reported them applied, per node (B).
    pub replier_queue_max: usize,
    /// Most announced and not yet applied entries of the group (P).
    pub window_entries_max: usize,
    /// The same in bytes of bodies.
    pub window_bytes_max: usize,
    /// Most entries proposed at once.
    pub batch_entries_max: usize,
    /// How far behind the leader a follower may be and still be served by the shared Append.
    pub in_step_entries_max: u64,
    /// Most requests received that no entry names yet.
    pub unordered_count_max: usize,
    /// The same in bytes of bodies.
    pub unordered_bytes_max: usize,
    /// Most entries kept for nodes that are behind.
    pub log_entries_max: usize,
    /// The same in bytes of entries and bodies.
    pub log_bytes_max: usize,
    /// A durable node takes a snapshot when its log has grown by so many bytes since the last one.
    pub snapshot_bytes: usize,
    /// The same in entries.
    pub snapshot_entries: u64,
    /// Most sessions; opening one more forgets the one not used for longest.
    pub sessions_max: usize,
    /// Most bytes of write replies kept for retransmissions.
    pub reply_cache_bytes_max: usize,
    /// Kernel memory for datagrams that wait to be read, per socket, in bytes.
    pub receive_buffer: usize,
    /// Kernel memory for datagrams that wait to be sent, per socket, in bytes.
    pub send_buffer: usize,
}

impl Default for LimitsSection {
    fn default() -> Self {
        let limits = Limits::default();
        let sessions = SessionLimits::default();
        Self {
            request_max: limits.request_max,
            reply_max: limits.reply_max,
            packet_max: None,
            replier_queue_max: limits.replier_queue_max,
            window_entries_max: limits.window_entries_max,
            window_bytes_max: limits.window_bytes_max,
            batch_entries_max: limits.batch_entries_max,
            in_step_entries_max: limits.in_step_entries_max,
            unordered_count_max: limits.unordered.count_max,
            unordered_bytes_max: limits.unordered.bytes_max,
            log_entries_max: limits.retention.entries_max,
            log_bytes_max: limits.retention.bytes_max,
            snapshot_bytes: limits.snapshots.after_bytes,
            snapshot_entries: limits.snapshots.after_entries,
            sessions_max: sessions.sessions_max,
            reply_cache_bytes_max: sessions.cache_bytes_max,
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
        }
    }
}

impl LimitsSection {
    pub(super) fn limits(&self, packet_max: usize, snapshots: SnapshotLimits) -> Limits {
        Limits {
            request_max: self.request_max,
            reply_max: self.reply_max,
            replier_queue_max: self.replier_queue_max,
            window_entries_max: self.window_entries_max,
            window_bytes_max: self.window_bytes_max,
            in_step_entries_max: self.in_step_entries_max,
            batch_entries_max: self.batch_entries_max,
            packet_max,
            unordered: UnorderedLimits {
                count_max: self.unordered_count_max,
                bytes_max: self.unordered_bytes_max,
                ..UnorderedLimits::default()
            },
            retention: Retention { entries_max: self.log_entries_max, bytes_max: self.log_bytes_max },
            snapshots: SnapshotLimits {
                after_bytes: self.snapshot_bytes,
                after_entries: self.snapshot_entries,
                ..snapshots
            },
            ..Limits::default()
        }
    }
}

/// How long snapshots stay, and what their transfer may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotsSection {
    /// Most chunks of 8 KiB that a node which receives a snapshot has asked for and not kept yet.
    pub chunks_in_flight_max: usize,
    /// Most chunks that a node reads for others at once.
    pub reads_in_flight_max: usize,
    /// How long a snapshot that is not needed here stays after another node has read of it.
    pub keep_after_use_ms: u64,
    /// Most entries that a leader keeps for a node which receives a snapshot.
    pub hold_entries_max: usize,
    /// The same in bytes of entries and bodies.
    pub hold_bytes_max: usize,
    /// How long after one for which there was no room until the next attempt.
    pub retry_after_ms: u64,
}

impl Default for SnapshotsSection {
    fn default() -> Self {
        let limits = SnapshotLimits::default();
        Self {
            chunks_in_flight_max: limits.chunks_in_flight_max,
            reads_in_flight_max: limits.reads_in_flight_max,
            keep_after_use_ms: millis(limits.keep_after_use),
            hold_entries_max: limits.hold_entries_max,
            hold_bytes_max: limits.hold_bytes_max,
            retry_after_ms: millis(limits.retry_after),
        }
    }
}

impl SnapshotsSection {
    pub(super) fn limits(&self) -> SnapshotLimits {
        SnapshotLimits {
            chunks_in_flight_max: self.chunks_in_flight_max,
            reads_in_flight_max: self.reads_in_flight_max,
            keep_after_use: Duration::from_millis(self.keep_after_use_ms),
            hold_entries_max: self.hold_entries_max,
            hold_bytes_max: self.hold_bytes_max,
            retry_after: Duration::from_millis(self.retry_after_ms),
            ..SnapshotLimits::default()
        }
    }
}

/// When things happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingSection {
    /// The Raft clock's step. A heartbeat every two, an election after 20 to 40 without one.
    pub tick_ms: u64,
    /// How recently a node must have acknowledged to be chosen as a replier (R).
    pub fresh_ms: u64,
    /// Shortest time after which an unacknowledged Append is repeated.
    pub append_retry_min_us: u64,
    /// Longest such time.
    pub append_retry_max_ms: u64,
    /// How long a follower holds a body that nobody orders before it tells the leader (H).
    pub hint_after_ms: u64,
    /// Over how long the leader watches whether it is deaf to client multicast (D).
    pub deaf_window_ms: u64,
    /// How long a leader whose disk or service hangs keeps its place, in milliseconds.
    pub stuck_after_ms: u64,
    /// How long a node that is to join asks to be let in before it gives up.
    pub join_patience_ms: u64,
    /// How old a request may be for the leader to order it.
    pub order_age_max_ms: u64,
    /// A follower that owes no acknowledgement reports what it has applied after this time at the latest.
    pub applied_report_us: u64,
    /// A session that nobody used for this long, in log time, is forgotten.
    pub session_expiry_s: u64,
}

impl Default for TimingSection {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            tick_ms: millis(timing.tick),
            fresh_ms: millis(timing.fresh),
            append_retry_min_us: micros(timing.append_retry_min),
            append_retry_max_ms: millis(timing.append_retry_max),
            hint_after_ms: millis(timing.hint_after),
            deaf_window_ms: millis(timing.deaf_window),
            stuck_after_ms: millis(timing.stuck_after),
            join_patience_ms: 10_000,
            order_age_max_ms: millis(timing.order_age_max),
            applied_report_us: micros(timing.applied_report),
            session_expiry_s: SessionLimits::default().session_expiry.as_secs(),
        }
    }
}

impl TimingSection {
    pub(crate) fn timing(&self, aggregator: &AggregatorSection) -> Timing {
        Timing {
            tick: Duration::from_millis(self.tick_ms),
            fresh: Duration::from_millis(self.fresh_ms),
            append_retry_min: Duration::from_micros(self.append_retry_min_us),
            append_retry_max: Duration::from_millis(self.append_retry_max_ms),
            hint_after: Duration::from_millis(self.hint_after_ms),
            deaf_window: Duration::from_millis(self.deaf_window_ms),
            stuck_after: Duration::from_millis(self.stuck_after_ms),
            order_age_max: Duration::from_millis(self.order_age_max_ms),
            applied_report: Duration::from_micros(self.applied_report_us),
            aggregate_min: Duration::from_micros(aggregator.deadline_min_us),
            arm_retry_min: Duration::from_millis(aggregator.arm_retry_min_ms),
            arm_retry_max: Duration::from_millis(aggregator.arm_retry_max_ms),
        }
    }
}

/// The aggregator of mode `hovercraft++` (protocol.md §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorSection {
    /// Where it receives, and sends from.
    pub address: SocketAddrV4,
    /// Where its counters can be read by HTTP (`/metrics`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddrV4>,
    /// It passes on what commits nothing at most this often, in microseconds.
    pub forward_after_us: u64,
    /// Shortest time, in microseconds, after which a leader does without one that has not said what a majority has.
    pub deadline_min_us: u64,
    /// How long a leader waits at first before it arms again, in milliseconds.
    pub arm_retry_min_ms: u64,
    /// The longest that it waits, in milliseconds.
    pub arm_retry_max_ms: u64,
}

impl Default for AggregatorSection {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            address: LocalPorts::default().aggregator(),
            metrics: None,
            forward_after_us: 100,
            deadline_min_us: micros(timing.aggregate_min),
            arm_retry_min_ms: millis(timing.arm_retry_min),
            arm_retry_max_ms: millis(timing.arm_retry_max),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("defaults are short")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("defaults are short")
}

/// How patient clients are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSection {
    /// How long an operation may take before it ends as unknown.
    pub give_up_ms: u64,
    /// Most operations of one client in flight; more wait in the client.
    pub outstanding_max: usize,
}

impl Default for ClientSection {
    fn default() -> Self {
        Self { give_up_ms: 10_000, outstanding_max: 1024 }
    }
}

/// Faults on purpose, in every node: on everything it receives, and on its answers to clients, so that every datagram
/// runs the risk once.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultsSection {
    /// Probability, from 0 to 1, that a datagram is lost.
    pub loss: f64,
    /// Probability, from 0 to 1, that a datagram comes twice.
    pub duplicate: f64,
    /// Which ones it hits.
    pub seed: u64,
}

impl FaultsSection {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0
    }
}
