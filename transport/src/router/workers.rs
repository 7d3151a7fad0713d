//! Who the workers are, and how much each has to do.

use std::net::SocketAddrV4;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Choice;
use crate::Instant;

/// One life of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WorkerRef {
    pub(super) address: SocketAddrV4,
    /// Which registration at that address, over all addresses.
    number: u64,
}

#[derive(Debug)]
struct Worker {
    me: WorkerRef,
    epoch: u64,
    /// Requests it has not answered.
    unanswered: usize,
    heard: Instant,
    /// When it was chosen last, by `Workers::turn`.
    chosen: u64,
}

/// What came of a registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Registration {
    Known,
    New,
    Full,
}

#[derive(Debug)]
pub(super) struct Workers {
    choice: Choice,
    bound: usize,
    limit: usize,
    /// In the order in which they registered.
    all: Vec<Worker>,
    next_number: u64,
    turn: u64,
    rng: SmallRng,
}

impl Workers {
    pub(super) fn new(choice: Choice, bound: usize, limit: usize, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { choice, bound: bound.max(1), limit, all: Vec::new(), next_number: 0, turn: 0, rng }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddrV4, usize)> {
        self.all.iter().map(|worker| (worker.me.address, worker.unanswered))
    }

    /// Where a worker is, if it is the one that it was.
    pub(super) fn address(&self, worker: WorkerRef) -> Option<SocketAddrV4> {
        self.all.iter().find(|known| known.me == worker).map(|known| known.me.address)
    }

    pub(super) fn register(&mut self, now: Instant, address: SocketAddrV4, epoch: u64) -> Registration {
        let known = self.all.iter().position(|worker| worker.me.address == address);
        if let Some(index) = known {
            if self.all[index].epoch == epoch {
                return Registration::Known;
            }
            // It has begun anew, and has forgotten what it was sent.
            self.all.remove(index);
        } else if self.all.len() >= self.limit {
            return Registration::Full;
        }
        let me = WorkerRef { address, number: self.next_number };
        self.next_number += 1;
        self.all.push(Worker { me, epoch, unanswered: 0, heard: now, chosen: 0 });
        Registration::New
    }

    /// Something came from there. Says whether that is a worker.
    pub(super) fn heard(&mut self, now: Instant, address: SocketAddrV4) -> bool {
        let worker = self.all.iter_mut().find(|worker| worker.me.address == address);
        worker.map(|worker| worker.heard = now).is_some()
    }

    pub(super) fn remove(&mut self, address: SocketAddrV4) -> bool {
        let before = self.all.len();
        self.all.retain(|worker| worker.me.address != address);
        self.all.len() < before
    }

    /// Forgets those of whom nothing was heard for that long.
    pub(super) fn pop_silent(&mut self, now: Instant, silence: Duration) -> Vec<SocketAddrV4> {
        let silent = |worker: &Worker| worker.heard + silence <= now;
        let gone = self.all.iter().filter(|worker| silent(worker)).map(|worker| worker.me.address).collect();
        self.all.retain(|worker| !silent(worker));
        gone
    }

    pub(super) fn next_silent(&self, silence: Duration) -> Option<Instant> {
        self.all.iter().map(|worker| worker.heard + silence).min()
    }

    /// Whether [`choose`](Self::choose) would find somebody.
    pub(super) fn any_free(&self) -> bool {
        self.all.iter().any(|worker| self.is_free(worker))
    }

    fn is_free(&self, worker: &Worker) -> bool {
        self.choice != Choice::Jbsq || worker.unanswered < self.bound
    }

    /// Whose turn it is.
    pub(super) fn choose(&mut self) -> Option<(WorkerRef, SocketAddrV4)> {
        let chosen = match self.choice {
            Choice::Random if self.all.is_empty() => None,
            Choice::Random => Some(self.rng.random_range(0..self.all.len())),
            Choice::RoundRobin => self.least(|worker| (0, worker.chosen)),
            Choice::Jbsq | Choice::ShortestQueue => self.least(|worker| (worker.unanswered, worker.chosen)),
        }?;
        self.turn += 1;
        let worker = &mut self.all[chosen];
        worker.chosen = self.turn;
        Some((worker.me, worker.me.address))
    }

    fn least(&self, key: impl Fn(&Worker) -> (usize, u64)) -> Option<usize> {
        let free = self.all.iter().enumerate().filter(|(_, worker)| self.is_free(worker));
        free.min_by_key(|(_, worker)| key(worker)).map(|(index, _)| index)
    }

    /// It has one more to answer.
    pub(super) fn burden(&mut self, worker: WorkerRef) {
        if let Some(known) = self.all.iter_mut().find(|known| known.me == worker) {
            known.unanswered += 1;
        }
    }

    /// It has one fewer; nothing happens if it is not who it was.
    pub(super) fn relieve(&mut self, worker: WorkerRef) {
        if let Some(known) = self.all.iter_mut().find(|known| known.me == worker) {
            debug_assert!(known.unanswered > 0, "a credit comes back once");
            known.unanswered = known.unanswered.saturating_sub(1);
        }
    }
}
