//! A network in virtual time: when a datagram that one host sends reaches another, if at all.
//!
//! Hosts are numbers; each hangs on one switch by a link of its own. A datagram leaves its host through the egress queue
//! of that link ([`Network::depart`]), crosses the network ([`Network::cross`]: latency, loss, copies, order), waits in
//! the switch for the receiver's link ([`Network::arrive`]), and then in a socket until the receiver reads it
//! ([`Sockets`]). Whoever asks keeps the datagrams and the time; nothing here knows what a datagram means.

mod config;
mod latency;
mod link;
mod sockets;

use r2p2::Instant;
use rand::Rng;
use rand::rngs::SmallRng;

pub use config::NetworkConfig;
pub use latency::Latency;
pub use sockets::{Full, Socket, Sockets};

use crate::streams::stream;
use link::Link;

/// The network. See the module.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    dice: Dice,
    /// From each host to the switch.
    up: Vec<Link>,
    /// From the switch to each host.
    down: Vec<Link>,
    /// When the last datagram that keeps the order arrives, by sender and receiver.
    last: Vec<Instant>,
}

/// Randomness for each thing there is to decide, so that a network which does without one of them decides the others
/// just the same.
#[derive(Debug)]
struct Dice {
    loss: SmallRng,
    copies: SmallRng,
    latency: SmallRng,
    spikes: SmallRng,
    order: SmallRng,
}

/// What becomes of a datagram on its way across.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// Whether it is lost by chance.
    pub lost: bool,
    /// When it reaches the switch's link to its receiver, if it is not lost.
    pub at: Instant,
    /// When a copy of it does, if there is one.
    pub copy_at: Option<Instant>,
}

impl Network {
    /// A network of so many hosts, of which everything random comes from `seed`.
    pub fn new(seed: u64, hosts: usize, config: NetworkConfig) -> Self {
        Self {
            config,
            dice: Dice {
                loss: stream(seed, "loss", 0),
                copies: stream(seed, "copies", 0),
                latency: stream(seed, "latency", 0),
                spikes: stream(seed, "spikes", 0),
                order: stream(seed, "order", 0),
            },
            up: vec![Link::default(); hosts],
            down: vec![Link::default(); hosts],
            last: vec![Instant::ZERO; hosts * hosts],
        }
    }

    /// For how many hosts it was made.
    pub fn hosts(&self) -> usize {
        self.up.len()
    }

    /// How it behaves.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Changes how it behaves. What is under way arrives when it would have.
    pub fn set_config(&mut self, config: NetworkConfig) {
        self.config = config;
    }

    /// A host hands a datagram of `len` bytes to its link, once however many receivers it has. Returns when it has left,
    /// or nothing if the queue is full.
    pub fn depart(&mut self, now: Instant, from: usize, len: usize) -> Option<Instant> {
        let NetworkConfig { bandwidth, queue_max, .. } = self.config;
        bandwidth.map_or(Some(now), |bandwidth| self.up[from].pass(now, len, bandwidth, queue_max))
    }

    /// A datagram that left at `departed` crosses to one receiver. Either host may be none of the network's: then there
    /// is no order to keep.
    ///
    /// What is drawn depends on the configuration and on how many have crossed, and on nothing else.
    pub fn cross(&mut self, departed: Instant, from: Option<usize>, to: Option<usize>) -> Crossing {
        let lost = happens(&mut self.dice.loss, self.config.loss);
        let copied = happens(&mut self.dice.copies, self.config.duplicate);
        let at = self.arrival(departed, from, to);
        let copy_at = copied.then(|| departed + self.config.latency.draw(&mut self.dice.copies));
        Crossing { lost, at, copy_at }
    }

    /// Whether links take time, so that [`Network::arrive`] has to be asked when a datagram has crossed.
    pub fn has_links(&self) -> bool {
        self.config.bandwidth.is_some()
    }

    /// A datagram reaches the link to its receiver. Returns when the receiver has all of it, or nothing if the queue is
    /// full. To be asked in the order of arrivals.
    pub fn arrive(&mut self, now: Instant, to: usize, len: usize) -> Option<Instant> {
        let NetworkConfig { bandwidth, queue_max, .. } = self.config;
        bandwidth.map_or(Some(now), |bandwidth| self.down[to].pass(now, len, bandwidth, queue_max))
    }

    fn arrival(&mut self, departed: Instant, from: Option<usize>, to: Option<usize>) -> Instant {
        let mut at = departed + self.delay();
        if let (true, Some(from), Some(to)) = (self.config.in_order, from, to) {
            let last = &mut self.last[from * self.up.len() + to];
            at = at.max(*last);
            *last = at;
        }
        if happens(&mut self.dice.order, self.config.reorder) {
            at += self.config.reorder_by.mul_f64(self.dice.order.random());
        }
        at
    }

    fn delay(&mut self) -> std::time::Duration {
        let delay = self.config.latency.draw(&mut self.dice.latency);
        if happens(&mut self.dice.spikes, self.config.spikes) { delay + self.config.spike } else { delay }
    }
}

fn happens(rng: &mut SmallRng, share: f64) -> bool {
    share > 0.0 && rng.random_bool(share)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn network(config: NetworkConfig) -> Network {
        Network::new(7, 2, config)
    }

    fn crossings(network: &mut Network, count: u64) -> Vec<Crossing> {
        (0..count).map(|n| network.cross(Instant::from_nanos(n * 1000), Some(0), Some(1))).collect()
    }

    #[test]
    fn a_quiet_network_with_constant_latency_only_delays() {
        let mut network = network(NetworkConfig { latency: Latency::Constant(3 * US), ..NetworkConfig::default() });
        let departed = network.depart(Instant::ZERO, 0, 1500).unwrap();
        let expected = Crossing { lost: false, at: Instant::ZERO + 3 * US, copy_at: None };
        assert_eq!(network.cross(departed, Some(0), Some(1)), expected);
        assert!(!network.has_links());
        assert_eq!(network.arrive(expected.at, 1, 1500), Some(expected.at));
    }

    #[test]
    fn equal_seeds_draw_equal_networks() {
        let config = NetworkConfig {
            loss: 0.1,
            duplicate: 0.1,
            reorder: 0.1,
            reorder_by: 100 * US,
            spikes: 0.1,
            spike: 50 * US,
            ..NetworkConfig::default()
        };
        let draw = |seed| crossings(&mut Network::new(seed, 2, config), 500);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_network_without_one_fault_is_otherwise_the_same() {
        let all = NetworkConfig { loss: 0.1, duplicate: 0.1, spikes: 0.1, spike: 50 * US, ..NetworkConfig::default() };
        let without = NetworkConfig { duplicate: 0.0, ..all };
        let (all, without) = (crossings(&mut network(all), 500), crossings(&mut network(without), 500));
        assert!(all.iter().any(|crossing| crossing.copy_at.is_some()));
        let all: Vec<Crossing> = all.into_iter().map(|crossing| Crossing { copy_at: None, ..crossing }).collect();
        assert_eq!(all, without);
    }

    #[test]
    fn shares_are_what_they_say() {
        let config = NetworkConfig { loss: 0.25, duplicate: 0.5, ..NetworkConfig::default() };
        let crossings = crossings(&mut network(config), 4000);
        let lost = crossings.iter().filter(|crossing| crossing.lost).count();
        let copied = crossings.iter().filter(|crossing| crossing.copy_at.is_some()).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert!((1900..2100).contains(&copied), "{copied}");
    }

    #[test]
    fn independent_latencies_reorder_and_a_network_in_order_does_not() {
        let latency = Latency::Uniform { min: US, max: 100 * US };
        let is_sorted = |in_order| {
            let mut network = network(NetworkConfig { latency, in_order, ..NetworkConfig::default() });
            crossings(&mut network, 100).is_sorted_by_key(|crossing| crossing.at)
        };
        assert!(!is_sorted(false));
        assert!(is_sorted(true));
    }

    #[test]
    fn what_is_reordered_overtakes_alone() {
        let latency = Latency::Constant(US);
        let (reorder, reorder_by) = (0.1, 50 * US);
        let config = NetworkConfig { latency, in_order: true, reorder, reorder_by, ..NetworkConfig::default() };
        let late = crossings(&mut network(config), 1000)
            .iter()
            .enumerate()
            .filter(|(n, crossing)| {
                let expected = Instant::from_nanos(*n as u64 * 1000) + US;
                assert!(crossing.at >= expected && crossing.at <= expected + reorder_by);
                crossing.at > expected
            })
            .count();
        assert!((60..140).contains(&late), "{late} of 1000 were delayed, and nobody waited for them");
    }

    #[test]
    fn a_spike_is_added_to_a_share() {
        let latency = Latency::Constant(US);
        let config = NetworkConfig { latency, spikes: 0.1, spike: 500 * US, ..NetworkConfig::default() };
        let mut spikes = 0;
        for (n, crossing) in crossings(&mut network(config), 1000).iter().enumerate() {
            match crossing.at.since(Instant::from_nanos(n as u64 * 1000)) {
                delay if delay == US => {}
                delay if delay == 501 * US => spikes += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((60..140).contains(&spikes), "{spikes}");
    }

    /// Both directions of a host's link, and the links of two hosts, are independent.
    #[test]
    fn links_do_not_share_their_bandwidth() {
        let mut network = network(NetworkConfig { bandwidth: Some(1_000_000_000), ..NetworkConfig::default() });
        assert!(network.has_links());
        for at in [12, 24, 36] {
            assert_eq!(network.depart(Instant::ZERO, 0, 1500), Some(Instant::ZERO + at * US));
        }
        assert_eq!(network.depart(Instant::ZERO, 1, 1500), Some(Instant::ZERO + 12 * US));
        assert_eq!(network.arrive(Instant::ZERO, 0, 1500), Some(Instant::ZERO + 12 * US));
    }
}
