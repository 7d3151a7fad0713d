//! What a reassembler counts.

/// What a [`Reassembler`](super::Reassembler) forgot or skipped; all of it only grows. Refused packets are counted by
/// whoever is told the [`Reject`](super::Reject).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReassemblyCounters {
    /// Packets that were there already.
    pub copies: u64,
    /// Messages in pieces forgotten because their sender started anew under the same rid.
    pub restarted: u64,
    /// Messages in pieces forgotten because of `age_max`.
    pub expired: u64,
    /// Messages in pieces forgotten because of `slots_per_peer`.
    pub evicted_slots_per_peer: u64,
    /// Messages in pieces forgotten because of `slots_max`.
    pub evicted_slots: u64,
    /// Messages in pieces forgotten because of `bytes_max`.
    pub evicted_bytes: u64,
}

impl ReassemblyCounters {
    /// Every counter with its name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("copies", self.copies),
            ("restarted", self.restarted),
            ("expired", self.expired),
            ("evicted_slots_per_peer", self.evicted_slots_per_peer),
            ("evicted_slots", self.evicted_slots),
            ("evicted_bytes", self.evicted_bytes),
        ]
        .into_iter()
    }
}
