//! Which network a run has while there are faults.

use std::time::Duration;

use super::draw::Draw;
use crate::{Latency, NetworkConfig};

/// Draws a network. Many have but a few ways of being bad, or none.
pub(super) fn network(draw: Draw) -> NetworkConfig {
    let mut network = NetworkConfig {
        latency: latency(draw),
        in_order: draw.chance("in order", 0.3),
        loss: draw.share("loss", 0.2),
        duplicate: draw.share("duplicate", 0.2),
        corrupt: draw.share("corrupt", 0.05),
        ..NetworkConfig::default()
    };
    if draw.chance("has spikes", 0.2) {
        network.spikes = draw.range("spikes", 0.0..0.02);
        network.spike = draw.micros("spike", 500..=100_000);
    }
    if draw.chance("reorders", 0.3) {
        network.reorder = draw.range("reorder", 0.0..0.3);
        network.reorder_by = draw.micros("reorder by", 10..=5_000);
    }
    if draw.chance("has bandwidth", 0.25) {
        network.bandwidth = Some(*draw.pick("Mbit/s", &[10, 100, 1_000, 10_000]) * 1_000_000);
        network.queue_max = *draw.pick("queue", &[8 << 10, 64 << 10, 1 << 20]);
    }
    if draw.chance("has processing", 0.25) {
        network.processing = draw.micros("processing", 1..=60);
    }
    if draw.chance("has sockets", 0.25) {
        network.socket_max = *draw.pick("socket", &[8 << 10, 64 << 10, 512 << 10]);
    }
    network
}

fn latency(draw: Draw) -> Latency {
    let min = draw.micros("latency", 1..=50);
    match draw.range("latency's shape", 0..10) {
        0 => Latency::Constant(min),
        1..6 => Latency::jittered(min, draw.micros("jitter", 0..=50)),
        6 | 7 => Latency::jittered(min, draw.micros("jitter", 50..=5_000)),
        8 => Latency::LogNormal { median: min, sigma: draw.range("sigma", 0.2..1.5), max: Duration::from_millis(50) },
        _ => Latency::HeavyTail { min, max: draw.micros("tail", 1_000..=50_000) },
    }
}
