//! What became of every kind of message.

use std::collections::BTreeMap;

use crate::flight::Party;

/// Every kind that a datagram can be, as [`crate::Flight::what`] names it: what clients and nodes say to each other,
/// then what nodes say among themselves (protocol.md §4). What arrives with a flipped bit counts as garbage, whatever it
/// looks like.
pub const KINDS: [&str; 29] = [
    "request",
    "response",
    "ack",
    "drop",
    "feedback",
    "append",
    "append_ack",
    "heartbeat",
    "commit_notice",
    "vote",
    "vote_reply",
    "timeout_now",
    "fetch",
    "bodies",
    "hint",
    "refused",
    "members_query",
    "members",
    "behind",
    "snapshot_fetch",
    "snapshot_chunk",
    "snapshot_missing",
    "receiving",
    "installed",
    "arm",
    "armed",
    "agg_commit",
    "fragment",
    "garbage",
];

/// What became of the datagrams of one kind. One of a multicast counts once per receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fates {
    /// They were sent.
    pub sent: u64,
    /// They arrived.
    pub delivered: u64,
    /// They arrived after one from the same sender to the same receiver that was sent later.
    pub reordered: u64,
    /// They were lost, by chance or cut off.
    pub lost: u64,
    /// They were to arrive twice.
    pub duplicated: u64,
    /// A bit was flipped.
    pub corrupted: u64,
}

/// What became of every kind of message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    fates: [Fates; KINDS.len()],
    /// The highest number that arrived, by sender and receiver.
    newest: BTreeMap<(Party, Party), u64>,
}

impl Traffic {
    /// Every kind, those never seen too.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Fates)> {
        KINDS.into_iter().zip(self.fates)
    }

    pub(super) fn sent(&mut self, what: &str) {
        self.of(what).sent += 1;
    }

    /// The datagram of this number arrives; those sent later have higher ones.
    pub(super) fn delivered(&mut self, from: Party, to: Party, number: u64, what: &str) {
        let newest = self.newest.entry((from, to)).or_default();
        let is_late = number < *newest;
        *newest = number.max(*newest);
        let fates = self.of(what);
        fates.delivered += 1;
        fates.reordered += u64::from(is_late);
    }

    pub(super) fn lost(&mut self, what: &str) {
        self.of(what).lost += 1;
    }

    pub(super) fn duplicated(&mut self, what: &str) {
        self.of(what).duplicated += 1;
    }

    pub(super) fn corrupted(&mut self, what: &str) {
        self.of(what).corrupted += 1;
    }

    fn of(&mut self, what: &str) -> &mut Fates {
        let at = KINDS.iter().position(|kind| *kind == what).expect("`describe` knows no other kind");
        &mut self.fates[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_overtaken_is_reordered() {
        let (a, b) = (Party::Node(1), Party::Node(2));
        let mut traffic = Traffic::default();
        for (from, to, number) in [(a, b, 2), (b, a, 1), (a, b, 1), (a, b, 3)] {
            traffic.sent("append");
            traffic.delivered(from, to, number, "append");
        }
        let append = traffic.iter().find(|(kind, _)| *kind == "append").unwrap().1;
        assert_eq!(append, Fates { sent: 4, delivered: 4, reordered: 1, ..Fates::default() });
    }
}
