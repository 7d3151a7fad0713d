//! How much may be in pieces.

use std::time::Duration;

use super::slot::SLOT_COST;

/// Limits of a [`Reassembler`](super::Reassembler). What exceeds one makes it forget its oldest message in pieces: the
/// likeliest to have lost a packet for good. One slot with no body and one nanosecond are always granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReassemblyLimits {
    /// Longest message in bytes of body, of one packet or many. Packets of a longer one are refused by name.
    pub message_max: usize,
    /// Most messages in pieces from one address and port.
    pub slots_per_peer: usize,
    /// Most messages in pieces in all.
    pub slots_max: usize,
    /// Most bytes held for messages in pieces in all, bookkeeping included. A message may need twice its length
    /// while it grows, so less than twice `message_max` can be the stricter limit of a message.
    pub bytes_max: usize,
    /// A message whose packets have not all come this long after the one that came first is forgotten. Long enough for
    /// a retransmission to fill the gaps.
    pub age_max: Duration,
}

impl Default for ReassemblyLimits {
    /// Messages of 1 MiB, 64 in pieces from one peer, 4096 in all, 64 MiB, 1 s.
    fn default() -> Self {
        Self {
            message_max: 1 << 20,
            slots_per_peer: 64,
            slots_max: 4096,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(1),
        }
    }
}

impl ReassemblyLimits {
    pub(super) fn sanitized(self) -> Self {
        Self {
            slots_per_peer: self.slots_per_peer.max(1),
            slots_max: self.slots_max.max(1),
            bytes_max: self.bytes_max.max(SLOT_COST),
            age_max: self.age_max.max(Duration::from_nanos(1)),
            ..self
        }
    }
}
