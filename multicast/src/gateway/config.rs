//! What a gateway may be told.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

/// Configuration of a [`Gateway`](super::Gateway).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayConfig {
    /// Where nodes receive what is for all of them: a multicast group's address, or each node's.
    pub receivers: Arc<[SocketAddrV4]>,
    /// From where nodes send FEEDBACK; that of anybody else is ignored.
    pub nodes: BTreeSet<SocketAddrV4>,
    /// Most requests admitted and not answered (at least 1).
    pub in_flight_max: usize,
    /// Admit only what the group can answer within this time, by how fast it has answered lately. Must be well above what
    /// an answer takes when there is nothing else to do.
    pub delay_target: Option<Duration>,
    /// How long a request may be unanswered before its credit comes back (at least 1 ms).
    pub credit_deadline: Duration,
    /// How long an operation is remembered: for as long as clients may send it again.
    pub remember: Duration,
    /// Most operations remembered; beyond that the oldest is forgotten, and a retransmission of it needs a credit.
    pub remembered_max: usize,
}

impl Default for GatewayConfig {
    /// Nobody behind it; 1024 in flight for a second each, 262 144 operations remembered for 10 s.
    fn default() -> Self {
        Self {
            receivers: [].into(),
            nodes: BTreeSet::new(),
            in_flight_max: 1024,
            delay_target: None,
            credit_deadline: Duration::from_secs(1),
            remember: Duration::from_secs(10),
            remembered_max: 262_144,
        }
    }
}

impl GatewayConfig {
    /// Every value within its documented range.
    pub(super) fn sanitized(mut self) -> Self {
        self.in_flight_max = self.in_flight_max.max(1);
        self.credit_deadline = self.credit_deadline.max(Duration::from_millis(1));
        // Whatever holds a credit is remembered.
        self.remember = self.remember.max(self.credit_deadline);
        self.remembered_max = self.remembered_max.max(self.in_flight_max);
        self
    }
}
