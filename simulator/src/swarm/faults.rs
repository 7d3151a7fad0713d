//! Does to a world what the options say.

use std::time::Duration;

use hovercraft::Service;
use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::options::{Options, Partition};
use crate::{Party, World};

/// Decides when which fault comes.
#[derive(Debug)]
pub(super) struct Injector {
    rng: SmallRng,
    next: Instant,
    kills_left: u16,
}

impl Injector {
    /// Sets up the faults that last, and schedules the first of the others.
    pub(super) fn new<S: Service>(options: &Options, world: &mut World<S>) -> Self {
        let mut rng = SmallRng::seed_from_u64(options.seed ^ 0xfa01);
        lasting_rules(options, world, &mut rng);
        if let Some((slow, processing)) = options.slow {
            world.set_processing(slow, Some(processing));
        }
        let next = world.now() + wait(&mut rng, options.fault_every);
        Self { rng, next, kills_left: options.kills }
    }

    /// When the next fault is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Does what is due.
    pub(super) fn act<S: Service>(&mut self, options: &Options, world: &mut World<S>) {
        if world.now() < self.next {
            return;
        }
        self.next = world.now() + wait(&mut self.rng, options.fault_every);
        match self.rng.random_range(0..6) {
            0 | 1 if !options.partitions.is_empty() => {
                let partition = options.partitions[self.rng.random_range(0..options.partitions.len())];
                self.cut(options, world, partition);
            }
            2 if !options.partitions.is_empty() => self.reconnect(options, world),
            3 if options.pauses => {
                if let Some(id) = self.victim(world) {
                    world.pause(id);
                }
            }
            4 => {
                for id in world.running() {
                    if self.rng.random_bool(0.7) {
                        world.resume(id);
                    }
                }
            }
            5 if self.kills_left > 0 => {
                if let Some(id) = self.victim(world) {
                    self.kills_left -= 1;
                    world.kill(id);
                }
            }
            _ => {}
        }
    }

    /// Somebody who runs; as often as not the leader.
    fn victim<S: Service>(&mut self, world: &World<S>) -> Option<u16> {
        let leader = self.rng.random_bool(0.5);
        let running = world.running();
        let at = self.rng.random_range(0..running.len().max(1));
        let anybody = running.get(at).copied();
        if leader { world.leader().or(anybody) } else { anybody }
    }

    fn reconnect<S: Service>(&mut self, options: &Options, world: &mut World<S>) {
        world.heal();
        lasting_rules(options, world, &mut self.rng);
    }

    fn cut<S: Service>(&mut self, options: &Options, world: &mut World<S>, partition: Partition) {
        self.reconnect(options, world);
        let mut nodes: Vec<u16> = (1..=options.nodes).collect();
        nodes.shuffle(&mut self.rng);
        let clients = options.clients + options.plain_clients;
        let (one, other) = nodes.split_at(self.rng.random_range(0..nodes.len()));
        let mut sides: [Vec<Party>; 2] =
            [one.iter().map(|id| Party::Node(*id)).collect(), other.iter().map(|id| Party::Node(*id)).collect()];
        for client in 0..clients {
            // Some clients reach both sides.
            if let Some(side) = sides.get_mut(self.rng.random_range(0..3)) {
                side.push(Party::Client(client));
            }
        }
        let [one, other] = sides;
        match partition {
            Partition::Symmetric | Partition::Asymmetric => {
                for &a in &one {
                    for &b in &other {
                        world.block(a, b);
                        if partition == Partition::Symmetric {
                            world.block(b, a);
                        }
                    }
                }
            }
            Partition::Partial => {
                for &a in &nodes {
                    for &b in &nodes {
                        if a < b && self.rng.random_bool(0.3) {
                            world.block(Party::Node(a), Party::Node(b));
                            world.block(Party::Node(b), Party::Node(a));
                        }
                    }
                }
            }
        }
    }
}

/// Loss at single receivers, and the deaf one.
fn lasting_rules<S: Service>(options: &Options, world: &mut World<S>, rng: &mut SmallRng) {
    for (at, &share) in options.receiver_loss.iter().enumerate() {
        if share > 0.0 {
            let mut rng = SmallRng::seed_from_u64(rng.random());
            let receiver = Party::Node(at as u16 + 1);
            world.lose_when(move |flight| flight.to == receiver && rng.random_bool(share));
        }
    }
    if let Some(deaf) = options.deaf {
        world.lose_when(move |flight| flight.to == Party::Node(deaf) && matches!(flight.from, Party::Client(_)));
    }
}

/// A time with this mean, never none.
pub(super) fn wait(rng: &mut SmallRng, mean: Duration) -> Duration {
    Duration::from_nanos(1 + rng.random_range(0..=2 * mean.as_nanos() as u64))
}
