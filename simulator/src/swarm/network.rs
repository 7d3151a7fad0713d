//! Which network a run has while there are faults.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use super::options::{micros, pick, share};
use crate::{Latency, NetworkConfig};

/// Draws a network. Many have but a few ways of being bad, or none.
pub(super) fn draw(rng: &mut SmallRng) -> NetworkConfig {
    let mut network = NetworkConfig {
        latency: draw_latency(rng),
        in_order: rng.random_bool(0.3),
        loss: share(rng, 0.2),
        duplicate: share(rng, 0.2),
        corrupt: share(rng, 0.05),
        ..NetworkConfig::default()
    };
    if rng.random_bool(0.2) {
        network.spikes = rng.random_range(0.0..0.02);
        network.spike = micros(rng, 500, 100_000);
    }
    if rng.random_bool(0.3) {
        network.reorder = rng.random_range(0.0..0.3);
        network.reorder_by = micros(rng, 10, 5_000);
    }
    if rng.random_bool(0.25) {
        network.bandwidth = Some(*pick(rng, &[10, 100, 1_000, 10_000]) * 1_000_000);
        network.queue_max = *pick(rng, &[8 << 10, 64 << 10, 1 << 20]);
    }
    if rng.random_bool(0.25) {
        network.processing = micros(rng, 1, 60);
    }
    if rng.random_bool(0.25) {
        network.socket_max = *pick(rng, &[8 << 10, 64 << 10, 512 << 10]);
    }
    network
}

fn draw_latency(rng: &mut SmallRng) -> Latency {
    let min = micros(rng, 1, 50);
    match rng.random_range(0..10) {
        0 => Latency::Constant(min),
        1..6 => Latency::jittered(min, micros(rng, 0, 50)),
        6 | 7 => Latency::jittered(min, micros(rng, 50, 5_000)),
        8 => Latency::LogNormal { median: min, sigma: rng.random_range(0.2..1.5), max: Duration::from_millis(50) },
        _ => Latency::HeavyTail { min, max: micros(rng, 1_000, 50_000) },
    }
}
