//! What a router may be told.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

/// How a worker is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// Join the bounded shortest queue: at most [`RouterConfig::bound`] at a worker, the others wait here.
    #[default]
    Jbsq,
    /// The worker with the fewest unanswered, at once.
    ShortestQueue,
    /// One after the other, at once.
    RoundRobin,
    /// Any, at once.
    Random,
}

/// Configuration of a [`Router`](super::Router).
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// How a worker is chosen.
    pub choice: Choice,
    /// Most requests at a worker with [`Choice::Jbsq`]: 1 gives the shortest waits, more hide the time that an answer and
    /// the next request need on the network.
    pub bound: usize,
    /// Who may be a worker; anybody if it does not say.
    pub permitted: Option<BTreeSet<SocketAddrV4>>,
    /// Most workers.
    pub workers_max: usize,
    /// How long a worker may say nothing before it is evicted.
    pub silence: Duration,
    /// How long a request may be at a worker before its credit comes back.
    pub credit_deadline: Duration,
    /// Most requests at all workers.
    pub in_flight_max: usize,
    /// Most requests that wait for a worker; further ones are refused.
    pub waiting_max: usize,
    /// The same in bytes of packets.
    pub waiting_bytes_max: usize,
    /// How long one waits before it is refused.
    pub waiting_age_max: Duration,
}

impl Default for RouterConfig {
    /// JBSQ(2), up to 64 workers that register every second, credits for a second; 65 536 requests at workers, 16 384 and
    /// 64 MiB waiting, for 100 ms.
    fn default() -> Self {
        Self {
            choice: Choice::Jbsq,
            bound: 2,
            permitted: None,
            workers_max: 64,
            silence: Duration::from_secs(1),
            credit_deadline: Duration::from_secs(1),
            in_flight_max: 65_536,
            waiting_max: 16_384,
            waiting_bytes_max: 64 << 20,
            waiting_age_max: Duration::from_millis(100),
        }
    }
}
