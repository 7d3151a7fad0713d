//! What a run is made of, drawn from its seed.

use std::fmt;
use std::time::Duration;

use hovercraft::repliers::ReplierChoice;
use hovercraft::{Mode, Timing};
use r2p2::client::Route;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::network;
use crate::{NetworkConfig, WorldConfig};

/// How a partition cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Partition {
    /// Two sides, nothing passes.
    Symmetric,
    /// Two sides, one of which still hears the other.
    Asymmetric,
    /// Some pairs of nodes, whatever sides there are.
    Partial,
}

/// Everything that a seed decides about a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Nodes, 1 to 9.
    pub nodes: u16,
    /// The mode.
    pub mode: Mode,
    /// How a replier is chosen.
    pub replier_choice: ReplierChoice,
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
    /// Partitions that come up.
    pub partitions: Vec<Partition>,
    /// Most nodes killed; never a majority, because nodes do not come back.
    pub kills: u16,
    /// Whether nodes are paused.
    pub pauses: bool,
    /// Mean time between two faults.
    pub fault_every: Duration,
    /// How long there are faults.
    pub fault_time: Duration,
    /// The Raft clock's step.
    pub tick: Duration,
    /// B.
    pub replier_queue_max: usize,
    /// P.
    pub window_entries_max: usize,
    /// Most entries proposed at once.
    pub batch_entries_max: usize,
    /// Entries kept after they are applied.
    pub retained_entries_max: usize,
    /// Bodies that wait to be ordered.
    pub unordered_max: usize,
    /// Bodies asked for at once.
    pub fetches_max: usize,
    /// Longest request that nodes accept.
    pub request_max: usize,
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
}

impl Options {
    /// What this seed stands for.
    pub fn draw(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0907_1045);
        let rng = &mut rng;
        let nodes = *pick(rng, &[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 8, 9]);
        let mode = *pick(rng, &[Mode::Hovercraft, Mode::Hovercraft, Mode::Hovercraft, Mode::Raft]);
        let network = network::draw(rng);
        let lossy_receivers = rng.random_bool(0.3);
        let receiver_loss = (0..nodes).map(|_| if lossy_receivers { share(rng, 0.5) } else { 0.0 }).collect();
        let deaf = (rng.random_bool(0.2)).then(|| rng.random_range(1..=nodes));
        let slow = rng.random_bool(0.2).then(|| (rng.random_range(1..=nodes), micros(rng, 10, 500)));
        let kinds = [Partition::Symmetric, Partition::Asymmetric, Partition::Partial];
        let partitions = kinds.into_iter().filter(|_| rng.random_bool(0.3)).collect();
        let may_kill = rng.random_bool(0.5);
        let kills = if may_kill { rng.random_range(0..=(nodes - 1) / 2) } else { 0 };
        // Who has fallen behind the log needs a snapshot, which does not exist yet: that is as bad as a killed node.
        let short_log = kills == 0 && rng.random_bool(0.3);
        Self {
            seed,
            nodes,
            mode,
            replier_choice: *pick(rng, &[ReplierChoice::Jbsq, ReplierChoice::Jbsq, ReplierChoice::Random]),
            early_commit: rng.random_bool(0.7),
            network,
            receiver_loss,
            slow,
            deaf,
            partitions,
            kills,
            pauses: rng.random_bool(0.4),
            fault_every: micros(rng, 5_000, 150_000),
            fault_time: micros(rng, 100_000, 2_000_000),
            tick: micros(rng, 1_000, 5_000),
            replier_queue_max: *pick(rng, &[1, 2, 4, 32, 32]),
            window_entries_max: *pick(rng, &[1, 3, 16, 256, 4096, 4096]),
            batch_entries_max: *pick(rng, &[1, 2, 16, 512, 512]),
            retained_entries_max: if short_log { rng.random_range(10..300) } else { 65_536 },
            unordered_max: *pick(rng, &[8, 64, 65_536, 65_536]),
            fetches_max: *pick(rng, &[1, 4, 256, 256]),
            request_max: *pick(rng, &[3_000, 8_000, 65_536]),
            clients: rng.random_range(1..=8),
            plain_clients: if rng.random_bool(0.3) { rng.random_range(1..=2) } else { 0 },
            operations: rng.random_range(20..=200),
            pipeline: *pick(rng, &[1, 1, 2, 4, 16]),
            registers: rng.random_range(1..=5),
            mix: [rng.random_range(0..=4), rng.random_range(0..=3), rng.random_range(0..=2), rng.random_range(1..=4)],
            cancels: share(rng, 0.1),
            large: share(rng, 0.2),
            oversized: share(rng, 0.05),
            think: micros(rng, 0, 5_000),
        }
    }

    /// The world of this run.
    pub fn world(&self) -> WorldConfig {
        let mut config = WorldConfig::new(self.seed, self.nodes);
        config.collect = true;
        config.clients = self.clients + self.plain_clients;
        config.plain_clients = self.plain_clients;
        config.network = self.network;
        let node = &mut config.node;
        node.mode = self.mode;
        node.replier_choice = self.replier_choice;
        node.early_commit = self.early_commit;
        node.timing = Timing { tick: self.tick, ..Timing::default() };
        node.limits.replier_queue_max = self.replier_queue_max;
        node.limits.window_entries_max = self.window_entries_max;
        node.limits.batch_entries_max = self.batch_entries_max;
        node.limits.retention.entries_max = self.retained_entries_max;
        node.limits.unordered.count_max = self.unordered_max;
        node.limits.fetch.in_flight_max = self.fetches_max;
        node.limits.request_max = self.request_max;
        // Whoever waits gets an answer; giving up would hide that there is none.
        config.client.give_up = Duration::from_secs(3600);
        if self.mode == Mode::Raft {
            config.client.fan_out = Route::Sticky;
        }
        config
    }
}

/// A time from a range.
pub(super) fn micros(rng: &mut SmallRng, from: u64, to: u64) -> Duration {
    Duration::from_micros(rng.random_range(from..=to))
}

/// How hard a fault is: many runs have but a few kinds of them, or none.
pub(super) fn share(rng: &mut SmallRng, most: f64) -> f64 {
    if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 }
}

pub(super) fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        writeln!(f, "seed       {}", self.seed)?;
        writeln!(
            f,
            "cluster    {} nodes, mode {}, repliers {:?}, early commit {}, tick {:?}",
            self.nodes,
            self.mode.name(),
            self.replier_choice,
            self.early_commit,
            self.tick
        )?;
        writeln!(
            f,
            "limits     B {}, P {}, batch {}, retained {}, unordered {}, fetches {}, request {} B",
            self.replier_queue_max,
            self.window_entries_max,
            self.batch_entries_max,
            self.retained_entries_max,
            self.unordered_max,
            self.fetches_max,
            self.request_max
        )?;
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
            "faults     for {:?}, one in {:?}: partitions {:?}, at most {} kills, pauses {}",
            self.fault_time, self.fault_every, self.partitions, self.kills, self.pauses
        )?;
        write!(
            f,
            "workload   {} clients + {} plain, {} operations each ({} at once, thinking {:?}), {} registers, \
             get:set:cas:add {:?}, cancelled {}, large {}, oversized {}",
            self.clients,
            self.plain_clients,
            self.operations,
            self.pipeline,
            self.think,
            self.registers,
            self.mix,
            percent(self.cancels),
            percent(self.large),
            percent(self.oversized)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same() {
        assert_eq!(format!("{:?}", Options::draw(7)), format!("{:?}", Options::draw(7)));
        assert_ne!(Options::draw(7).to_string(), Options::draw(8).to_string());
    }

    #[test]
    fn draws_stay_within_what_the_protocol_survives() {
        for seed in 0..2_000 {
            let options = Options::draw(seed);
            assert!((1..=9).contains(&options.nodes));
            assert!(options.kills * 2 < options.nodes, "a majority stays");
            assert!(options.kills == 0 || options.retained_entries_max == 65_536);
        }
    }
}
