//! What a seed stands for. Each option is drawn from a stream of its own, so that one more option changes no other.

use std::time::Duration;

use hovercraft::Mode;
use hovercraft::repliers::ReplierChoice;
use rand::Rng;
use rand::distr::uniform::SampleRange;

use super::network::network;
use super::options::{GatewayDraw, Options};
use crate::streams::stream;
use crate::world::DiskConfig;

impl Options {
    /// What this seed stands for.
    pub fn draw(seed: u64) -> Self {
        let draw = Draw(seed);
        let mode = match *draw.pick("mode", &MODES) {
            // Drawn from a stream of its own: what was drawn before it existed stays what it was.
            Mode::Hovercraft if draw.chance("aggregator", 0.4) => Mode::HovercraftPlusPlus,
            mode => mode,
        };
        let nodes = *draw.pick("nodes", &[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 8, 9]);
        let lossy_receivers = draw.chance("lossy receivers", 0.3);
        let loss_of = |id: u16| if lossy_receivers { draw.share_of("receiver loss", id.into(), 0.5) } else { 0.0 };
        let kills = if draw.chance("may kill", 0.5) { draw.range("kills", 0..=(nodes - 1) / 2) } else { 0 };
        let durable = draw.chance("durable", 0.4);
        let short_log = draw.chance("short log", 0.3);
        let members = draw.chance("members", 0.4);
        let changes = |what: &str| members && draw.chance(what, 0.7);
        let (clients, plain_clients) = (
            draw.range("clients", 1..=8),
            if draw.chance("plain", 0.3) { draw.range("plain clients", 1..=2) } else { 0 },
        );
        let short_sessions = draw.chance("short sessions", 0.2);
        let few_sessions = draw.chance("few sessions", 0.1);
        let mut options = Self {
            seed,
            nodes,
            mode,
            replier_choice: *draw
                .pick("replier choice", &[ReplierChoice::Jbsq, ReplierChoice::Jbsq, ReplierChoice::Random]),
            aggregator_crashes: draw.chance("aggregator crashes", 0.5),
            aggregator_pauses: draw.chance("aggregator pauses", 0.5),
            aggregator_cuts: draw.chance("aggregator cuts", 0.5),
            aggregator_twins: draw.chance("aggregator twins", 0.5),
            gateway: draw.chance("gateway", 0.3).then(|| GatewayDraw {
                in_flight_max: *draw.pick("gateway in flight", &[1, 3, 10, 1024]),
                credit_deadline: Duration::from_millis(*draw.pick("gateway credit", &[20, 100, 1_000])),
                delay_target: draw.chance("gateway target", 0.3).then_some(Duration::from_millis(5)),
            }),
            gateway_crashes: draw.chance("gateway crashes", 0.5),
            gateway_pauses: draw.chance("gateway pauses", 0.3),
            gateway_cuts: draw.chance("gateway cuts", 0.3),
            early_commit: draw.chance("early commit", 0.7),
            network: network(draw),
            receiver_loss: (1..=nodes).map(loss_of).collect(),
            slow: draw
                .chance("slow", 0.2)
                .then(|| (draw.range("slow node", 1..=nodes), draw.micros("slowness", 10..=500))),
            deaf: draw.chance("deaf", 0.2).then(|| draw.range("deaf node", 1..=nodes)),
            splits: draw.chance("splits", 0.3),
            one_way: draw.chance("one-way", 0.3),
            partial: draw.chance("partial", 0.3),
            kills,
            spares: if members { draw.range("spares", 0..=3) } else { 0 },
            joins: changes("joins"),
            leaves: changes("leaves"),
            replaces: changes("replaces"),
            transfers: changes("transfers"),
            disk: durable.then(|| DiskConfig {
                latency: draw.micros("sync", 1..=1_000),
                jitter: draw.micros("sync jitter", 0..=2_000),
            }),
            crashes: draw.chance("crashes", 0.7),
            blackouts: draw.chance("blackouts", 0.3),
            disk_faults: draw.chance("disk faults", 0.3),
            slow_disks: draw.chance("slow disks", 0.3),
            pauses: draw.chance("pauses", 0.4),
            drift_ppm_max: *draw.pick("drift", &[0, 0, 200, 200, 200, 100_000]),
            // Who jumps past the time for which plain requests are remembered has forgotten them.
            jump_max: if plain_clients > 0 { Duration::ZERO } else { *draw.pick("jump", &JUMPS) },
            stall_max: if draw.chance("stalls", 0.25) { draw.micros("stall", 1_000..=500_000) } else { Duration::ZERO },
            only: None,
            fault_every: draw.micros("fault every", 5_000..=150_000),
            fault_time: draw.micros("fault time", 100_000..=2_000_000),
            tick: draw.micros("tick", 1_000..=5_000),
            stuck_after: Duration::from_millis(*draw.pick("stuck after", &[50, 200, 1_000])),
            replier_queue_max: *draw.pick("B", &[1, 2, 4, 32, 32]),
            window_entries_max: *draw.pick("P", &[1, 3, 16, 256, 4096, 4096]),
            batch_entries_max: *draw.pick("batch", &[1, 2, 16, 512, 512]),
            retained_entries_max: if short_log { draw.range("retained", 10..300) } else { 65_536 },
            snapshot_after: *draw.pick("snapshot after", &[20, 100, 500, 8_000_000]),
            chunks_max: *draw.pick("chunks", &[1, 3, 64]),
            held_entries_max: *draw.pick("held", &[20, 1_000, 1 << 20]),
            order_age_max: Duration::from_millis(*draw.pick("order age", &[40, 200, 1_000, 1_000, 1_000])),
            unordered_max: *draw.pick("unordered", &[8, 64, 65_536, 65_536]),
            fetches_max: *draw.pick("fetches", &[1, 4, 256, 256]),
            request_max: *draw.pick("request", &[3_000, 8_000, 65_536]),
            session_expiry: if short_sessions { draw.micros("expiry", 20_000..=300_000) } else { LONG },
            // Fewer than there are clients would have them throw each other out for ever.
            sessions_max: if few_sessions { clients + plain_clients } else { 65_536 },
            reply_cache_bytes_max: *draw.pick("reply cache", &[300, 3_000, 64 << 20, 64 << 20, 64 << 20]),
            clients,
            plain_clients,
            operations: draw.range("operations", 20..=200),
            pipeline: *draw.pick("pipeline", &[1, 1, 2, 4, 16]),
            registers: draw.range("registers", 1..=5),
            mix: [
                draw.range("get", 0..=4),
                draw.range("set", 0..=3),
                draw.range("cas", 0..=2),
                draw.range("add", 1..=4),
            ],
            cancels: draw.share("cancels", 0.1),
            large: draw.share("large", 0.2),
            oversized: draw.share("oversized", 0.05),
            think: draw.micros("think", 0..=5_000),
            rests: if short_sessions { 0.02 } else { 0.0 },
        };
        options.set_mode(mode);
        options
    }
}

/// The modes there are, by how often they are drawn.
const MODES: [Mode; 12] = {
    let mut modes = [Mode::Hovercraft; 12];
    modes[9] = Mode::Raft;
    modes[10] = Mode::Raft;
    modes[11] = Mode::Unreplicated;
    modes
};

/// How far clocks jump ahead: mostly not at all, sometimes past every timeout.
const JUMPS: [Duration; 6] = [
    Duration::ZERO,
    Duration::ZERO,
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_secs(1),
    Duration::from_secs(1200),
];

/// Longer than any run.
const LONG: Duration = Duration::from_secs(600);

/// Draws by name.
#[derive(Clone, Copy)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn range<T: rand::distr::uniform::SampleUniform, R: SampleRange<T>>(self, name: &str, range: R) -> T {
        stream(self.0, name, 0).random_range(range)
    }

    pub(super) fn chance(self, name: &str, share: f64) -> bool {
        stream(self.0, name, 0).random_bool(share)
    }

    pub(super) fn pick<T>(self, name: &str, from: &'static [T]) -> &'static T {
        &from[self.range(name, 0..from.len())]
    }

    pub(super) fn micros(self, name: &str, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.range(name, range))
    }

    /// How hard: as often as not, not at all.
    pub(super) fn share(self, name: &str, most: f64) -> f64 {
        self.share_of(name, 0, most)
    }

    fn share_of(self, name: &str, number: u64, most: f64) -> f64 {
        let mut rng = stream(self.0, name, number);
        if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same() {
        assert_eq!(Options::draw(7), Options::draw(7));
        assert_ne!(Options::draw(7).to_string(), Options::draw(8).to_string());
    }

    #[test]
    fn draws_stay_within_what_the_protocol_survives() {
        for seed in 0..2_000 {
            let options = Options::draw(seed);
            assert!((1..=9).contains(&options.nodes));
            assert!(options.mode != Mode::Unreplicated || options.nodes == 1);
            assert!(options.kills * 2 < options.nodes, "a majority stays");
            assert!(options.disk.is_none() || options.mode != Mode::Unreplicated);
        }
    }
}
