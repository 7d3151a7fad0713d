//! What a run is made of.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use hovercraft::repliers::ReplierChoice;
use hovercraft::{Mode, Timing};
use multicast::gateway::GatewayConfig;
use r2p2::client::Route;

use super::faults::{self, FaultId};
use crate::world::{ClockConfig, DiskConfig};
use crate::{NetworkConfig, WorldConfig};

/// Everything that a seed decides about a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Nodes that the group begins with, 1 to 9.
    pub nodes: u16,
    /// Hosts without a node, on which some may be added.
    pub spares: u16,
    /// The mode.
    pub mode: Mode,
    /// In mode `hovercraft++`: whether aggregators die and are started again.
    pub aggregator_crashes: bool,
    /// Whether they stand still, and another one is started meanwhile as often as not.
    pub aggregator_pauses: bool,
    /// Whether they are cut off from some nodes.
    pub aggregator_cuts: bool,
    /// Whether a second one is there at times.
    pub aggregator_twins: bool,
    /// How a replier is chosen.
    pub replier_choice: ReplierChoice,
    /// The gateway, if there is one: most requests in flight, how long a credit is out, how much delay is aimed at.
    pub gateway: Option<GatewayDraw>,
    /// Whether the gateway crashes and is started again.
    pub gateway_crashes: bool,
    /// Whether the gateway is paused.
    pub gateway_pauses: bool,
    /// Whether the gateway is cut off from some nodes.
    pub gateway_cuts: bool,
    /// Followers of groups of three commit without a notice.
    pub early_commit: bool,
    /// The network while there are faults.
    pub network: NetworkConfig,
    /// Share of datagrams that each node loses on top, decided per receiver.
    pub receiver_loss: Vec<f64>,
    /// A node that takes this long to deal with a datagram while there are faults.
    pub slow: Option<(u16, Duration)>,
    /// A node that hears no client while there are faults.
    pub deaf: Option<u16>,
    /// Whether the nodes are split into two sides now and then.
    pub splits: bool,
    /// Whether they are split such that one side still hears the other.
    pub one_way: bool,
    /// Whether some pairs of nodes are cut off from each other.
    pub partial: bool,
    /// Most nodes killed; never a majority, because these do not come back.
    pub kills: u16,
    /// Whether nodes are added.
    pub joins: bool,
    /// Whether members are removed.
    pub leaves: bool,
    /// Whether members lose all they know and come back as somebody else.
    pub replaces: bool,
    /// Whether leadership is handed over for no reason.
    pub transfers: bool,
    /// The nodes' disks, if they are durable.
    pub disk: Option<DiskConfig>,
    /// Whether durable nodes crash at any step and are started again.
    pub crashes: bool,
    /// Whether all durable nodes lose power at once.
    pub blackouts: bool,
    /// Whether disks are full, or fail.
    pub disk_faults: bool,
    /// Whether disks become slow.
    pub slow_disks: bool,
    /// Whether nodes are paused.
    pub pauses: bool,
    /// Most by which clocks are faster or slower than they should be, in parts per million.
    pub drift_ppm_max: u32,
    /// Clocks jump ahead by up to this; they do not if it is nothing.
    pub jump_max: Duration,
    /// Clocks are set back by up to this, and stand still; they do not if it is nothing.
    pub stall_max: Duration,
    /// Of the faults that come and go, only these; none: all.
    pub only: Option<BTreeSet<FaultId>>,
    /// How often faults come: see [`FaultKind`](super::FaultKind).
    pub fault_every: Duration,
    /// How long there are faults.
    pub fault_time: Duration,
    /// The Raft clock's step.
    pub tick: Duration,
    /// How long a leader that hangs keeps its place.
    pub stuck_after: Duration,
    /// B.
    pub replier_queue_max: usize,
    /// P.
    pub window_entries_max: usize,
    /// Most entries proposed at once.
    pub batch_entries_max: usize,
    /// Entries kept after they are applied.
    pub retained_entries_max: usize,
    /// A durable node takes a snapshot after this many entries.
    pub snapshot_after: u64,
    /// Chunks of a snapshot asked for at once.
    pub chunks_max: usize,
    /// Entries that a leader keeps for those who receive a snapshot.
    pub held_entries_max: usize,
    /// Age at which a request is too old to be ordered; bodies are kept for three times that.
    pub order_age_max: Duration,
    /// Bodies that wait to be ordered.
    pub unordered_max: usize,
    /// Bodies asked for at once.
    pub fetches_max: usize,
    /// Longest request that nodes accept.
    pub request_max: usize,
    /// A session unused for this long ends.
    pub session_expiry: Duration,
    /// Most sessions at a time.
    pub sessions_max: usize,
    /// Memory for replies that might be asked for again.
    pub reply_cache_bytes_max: usize,
    /// Clients with sessions.
    pub clients: usize,
    /// Clients without, that only read and write what nobody checks.
    pub plain_clients: usize,
    /// Operations of each client.
    pub operations: usize,
    /// Most of them outstanding at once.
    pub pipeline: usize,
    /// Registers.
    pub registers: u64,
    /// How often a client reads, sets, compares, adds.
    pub mix: [u32; 4],
    /// Share of operations that are cancelled.
    pub cancels: f64,
    /// Share of requests of several packets.
    pub large: f64,
    /// Share of requests that are too long for the nodes.
    pub oversized: f64,
    /// Mean time between an answer and the next operation.
    pub think: Duration,
    /// Share of operations after which a client rests for long enough to lose its session.
    pub rests: f64,
}

/// A gateway that was drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatewayDraw {
    /// Most requests in flight.
    pub in_flight_max: usize,
    /// How long a credit is out.
    pub credit_deadline: Duration,
    /// How much delay is aimed at.
    pub delay_target: Option<Duration>,
}

/// After how many timeouts a client goes around the gateway.
const AROUND_GATEWAY_AFTER: u32 = 6;

/// So many faults are listed one by one; more are counted.
const LISTED_MAX: usize = 12;

/// Clocks show anything up to this when their processes start.
const CLOCK_START_MAX: Duration = Duration::from_secs(24 * 3600);

impl Options {
    /// Makes it a cluster of so many nodes, and takes away what then makes no sense.
    pub fn set_nodes(&mut self, nodes: u16) {
        self.nodes = nodes;
        self.receiver_loss.resize(nodes.into(), 0.0);
        self.deaf = self.deaf.filter(|id| *id <= nodes);
        self.slow = self.slow.filter(|(id, _)| *id <= nodes);
        self.kills = self.kills.min((nodes - 1) / 2);
    }

    /// Makes it a cluster of this mode.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        if mode == Mode::Unreplicated {
            self.set_nodes(1);
            self.disk = None;
            self.spares = 0;
            (self.joins, self.leaves, self.replaces, self.transfers) = (false, false, false, false);
        }
    }

    /// Hosts for aggregators.
    pub fn aggregators(&self) -> u16 {
        if self.mode == Mode::HovercraftPlusPlus { 2 } else { 0 }
    }

    /// Whether the members of the group may become others.
    pub fn changes_members(&self) -> bool {
        self.joins || self.leaves || self.replaces
    }

    /// The world of this run.
    pub fn world(&self) -> WorldConfig {
        let mut config = WorldConfig::new(self.seed, self.nodes);
        config.collect = true;
        config.spares = self.spares;
        config.aggregators = self.aggregators();
        config.clients = self.clients + self.plain_clients;
        config.plain_clients = self.plain_clients;
        config.network = self.network;
        config.clocks = ClockConfig { drift_ppm_max: self.drift_ppm_max, start_max: CLOCK_START_MAX };
        config.disk = self.disk.unwrap_or_default();
        let node = &mut config.node;
        node.mode = self.mode;
        node.replier_choice = self.replier_choice;
        node.early_commit = self.early_commit;
        node.durable = self.disk.is_some();
        node.timing = Timing {
            tick: self.tick,
            order_age_max: self.order_age_max,
            stuck_after: self.stuck_after,
            ..Timing::default()
        };
        node.limits.unordered.age_max = self.order_age_max * 3;
        node.limits.replier_queue_max = self.replier_queue_max;
        node.limits.window_entries_max = self.window_entries_max;
        node.limits.batch_entries_max = self.batch_entries_max;
        node.limits.retention.entries_max = self.retained_entries_max;
        node.limits.snapshots.after_entries = self.snapshot_after;
        node.limits.snapshots.chunks_in_flight_max = self.chunks_max;
        node.limits.snapshots.hold_entries_max = self.held_entries_max;
        node.limits.snapshots.keep_after_use = Duration::from_millis(500);
        node.limits.snapshots.retry_after = Duration::from_millis(100);
        node.limits.unordered.count_max = self.unordered_max;
        node.limits.fetch.in_flight_max = self.fetches_max;
        node.limits.request_max = self.request_max;
        config.sessions.session_expiry = self.session_expiry;
        config.sessions.sessions_max = self.sessions_max;
        config.sessions.cache_bytes_max = self.reply_cache_bytes_max;
        // Whoever waits gets an answer; giving up would hide that there is none.
        config.client.give_up = Duration::from_secs(3600);
        if !self.mode.is_spread() {
            config.client.fan_out = Route::Sticky;
        }
        if let Some(gateway) = self.gateway {
            config.gateway = Some(GatewayConfig {
                in_flight_max: gateway.in_flight_max,
                credit_deadline: gateway.credit_deadline,
                delay_target: gateway.delay_target,
                ..GatewayConfig::default()
            });
            config.client.fan_out = Route::Group;
            config.client.unicast_after = AROUND_GATEWAY_AFTER;
            config.client.packet_max -= r2p2::FORWARDED_LEN;
        }
        config
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        writeln!(f, "seed       {}", self.seed)?;
        writeln!(
            f,
            "cluster    {} nodes, mode {}, repliers {:?}, early commit {}, tick {:?}, stuck after {:?}",
            self.nodes,
            self.mode.name(),
            self.replier_choice,
            self.early_commit,
            self.tick,
            self.stuck_after
        )?;
        writeln!(
            f,
            "limits     B {}, P {}, batch {}, retained {}, unordered {} for {:?}, fetches {}, request {} B",
            self.replier_queue_max,
            self.window_entries_max,
            self.batch_entries_max,
            self.retained_entries_max,
            self.unordered_max,
            self.order_age_max,
            self.fetches_max,
            self.request_max
        )?;
        writeln!(
            f,
            "snapshots  after {} entries, {} chunks at once, {} entries held",
            self.snapshot_after, self.chunks_max, self.held_entries_max
        )?;
        if let Some(GatewayDraw { in_flight_max, credit_deadline, delay_target }) = self.gateway {
            writeln!(
                f,
                "gateway    {in_flight_max} in flight for {credit_deadline:?}, delay aimed at {delay_target:?}; crashes {}, \
                 pauses {}, cuts {}",
                self.gateway_crashes, self.gateway_pauses, self.gateway_cuts
            )?;
        }
        writeln!(f, "network    {}", self.network)?;
        let receivers: Vec<String> = self.receiver_loss.iter().map(|share| percent(*share)).collect();
        writeln!(
            f,
            "receivers  loss {}; slow: {:?}; deaf to clients: {:?}",
            receivers.join(" "),
            self.slow,
            self.deaf
        )?;
        writeln!(
            f,
            "faults     for {:?}, pace {:?}: splits {}, one-way {}, partial {}, pauses {}, at most {} kills",
            self.fault_time, self.fault_every, self.splits, self.one_way, self.partial, self.pauses, self.kills
        )?;
        writeln!(
            f,
            "members    {} spare hosts; joins {}, leaves {}, replaced {}, leadership transferred {}",
            self.spares, self.joins, self.leaves, self.replaces, self.transfers
        )?;
        if self.aggregators() > 0 {
            writeln!(
                f,
                "aggregator crashes {}, pauses {}, cut off {}, there twice {}",
                self.aggregator_crashes, self.aggregator_pauses, self.aggregator_cuts, self.aggregator_twins
            )?;
        }
        writeln!(
            f,
            "clocks     drift up to {} ppm, jump by up to {:?}, stand still for up to {:?}",
            self.drift_ppm_max, self.jump_max, self.stall_max
        )?;
        match self.disk {
            Some(disk) => writeln!(
                f,
                "disks      sync {:?} + {:?}, crashes {}, blackouts {}, full or failing {}, slow {}",
                disk.latency, disk.jitter, self.crashes, self.blackouts, self.disk_faults, self.slow_disks
            )?,
            None => writeln!(f, "disks      none, everything in memory")?,
        }
        let schedule = faults::schedule(self);
        if schedule.len() <= LISTED_MAX {
            let faults: Vec<String> = schedule.iter().map(ToString::to_string).collect();
            writeln!(f, "schedule   {}", if faults.is_empty() { "nothing".to_owned() } else { faults.join(", ") })?;
        } else {
            writeln!(f, "schedule   {} faults", schedule.len())?;
        }
        writeln!(
            f,
            "sessions   at most {}, over after {:?}, {} B of replies kept",
            self.sessions_max, self.session_expiry, self.reply_cache_bytes_max
        )?;
        write!(
            f,
            "workload   {} clients + {} plain, {} operations each ({} at once, thinking {:?}), {} registers, \
             get:set:cas:add {:?}, cancelled {}, large {}, oversized {}, rests after {}",
            self.clients,
            self.plain_clients,
            self.operations,
            self.pipeline,
            self.think,
            self.registers,
            self.mix,
            percent(self.cancels),
            percent(self.large),
            percent(self.oversized),
            percent(self.rests)
        )
    }
}
