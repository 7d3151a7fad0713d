//! How much a node keeps of everything that can pile up, against its limit (protocol.md §6.11).

use super::Node;
use super::persistence::PROMISES_MAX;
use super::snapshots::{KEPT_MAX, Receiver};

/// Something that can pile up in a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// What it holds, in the plural.
    pub what: &'static str,
    /// How much of it; bytes where `what` says so.
    pub len: usize,
    /// Most it may hold.
    pub max: usize,
}

impl Node {
    /// Everything that can pile up here. Cheap: nothing is counted that is not counted anyway.
    ///
    /// Three are not among them, because their bounds depend on what happened: the log (what is not executed comes on top
    /// of what is kept), the unordered set, and the leader's queue of it (what is needed or comes back is taken whatever
    /// the bounds).
    pub fn queues(&self) -> impl Iterator<Item = Queue> {
        let (limits, queue) = (&self.config.limits, |what, len, max| Queue { what, len, max });
        let window = limits.window_entries_max;
        let (requests, messages) = (self.server.reassembler(), &self.peer_packets);
        let ours = [
            queue("Appends held back", self.held.len(), limits.held.count_max),
            queue("entries held back", self.held.entries(), limits.held.entries_max),
            queue("missing bodies", self.fetcher.len(), limits.fetch.wanted_max),
            queue("bodies asked for", self.fetcher.in_flight(), limits.fetch.in_flight_max),
            queue("plain requests remembered", self.plain.len(), limits.plain.count_max),
            queue("requests in pieces", requests.held_messages(), requests.limits().slots_max),
            queue("bytes of requests in pieces", requests.held_bytes(), requests.limits().bytes_max),
            queue("messages in pieces", messages.held_messages(), messages.limits().slots_max),
            queue("bytes of messages in pieces", messages.held_bytes(), messages.limits().bytes_max),
            queue("entries handed out", (self.dispatched - self.applied) as usize, window),
            queue("replies owed", self.following.replies_owed(), window),
            queue("messages that wait for the disk", self.persistence.promises(), PROMISES_MAX),
            queue("snapshots", self.snapshots.in_use().0, KEPT_MAX),
            queue("chunks read for others", self.snapshots.in_use().1, limits.snapshots.reads_in_flight_max),
            queue(
                "chunks on their way here",
                self.snapshots.receiver.as_ref().map_or(0, Receiver::in_flight),
                limits.snapshots.chunks_in_flight_max,
            ),
            queue("lives of members", self.lives.len(), 2 * crate::membership::MEMBERS_MAX),
        ];
        let leaders = self.leading.iter().flat_map(move |leading| {
            [
                queue("bodies announced", leading.window_bytes.len(), window),
                queue("bytes of bodies announced", leading.window_bytes_sum, limits.window_bytes_max),
                queue("requests learned by hint", leading.by_hint.len(), leading.pending.len()),
            ]
        });
        ours.into_iter().chain(leaders)
    }

    /// Requests that wait to be ordered here, on a leader; what has left the unordered set may still be among them.
    pub fn pending(&self) -> usize {
        self.leading.as_ref().map_or(0, |leading| leading.pending.len())
    }
}
