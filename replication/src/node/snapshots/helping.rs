//! The leader's side: telling those who need a snapshot, keeping the log for them, and believing those who have one only
//! what the own log says too.

use std::time::Duration;

use r2p2::Instant;

use super::super::Node;
use crate::id::{LogIndex, MemberId, Term};
use crate::log::Retention;
use crate::message::{AppendAck, Behind, Installed, Message, Receiving};

impl Node {
    /// Tells a follower that the log does not go back as far as it would have to.
    pub(in super::super) fn tell_behind(&mut self, to: MemberId) {
        if !self.has_snapshots() {
            return;
        }
        let min = self.consensus.log().first() - 1;
        let Some(leading) = &mut self.leading else { return };
        leading.hold(to, min);
        self.counters.behinds_sent += 1;
        self.send(to.node(), self.consensus.term(), &Message::Behind(Behind { min }));
    }

    /// A follower receives a snapshot.
    pub(in super::super) fn handle_receiving(&mut self, from: MemberId, term: Term, receiving: Receiving) {
        let first = self.consensus.log().first();
        match &mut self.leading {
            Some(leading) if term == self.consensus.term() => {
                // One that is older than the log is replaced when the follower hears that again.
                if receiving.index + 1 >= first {
                    leading.hold(from, receiving.index);
                }
            }
            _ => self.counters.peer_messages_unexpected += 1,
        }
    }

    /// A follower has everything up to an entry. If the own log has it too, that is an acknowledgement.
    pub(in super::super) fn handle_installed(&mut self, now: Instant, from: MemberId, term: Term, said: Installed) {
        let Some(leading) = self.leading.as_mut().filter(|_| term == self.consensus.term()) else {
            self.counters.peer_messages_unexpected += 1;
            return;
        };
        let Some((applied, version)) = leading.peer(from).map(|peer| peer.said()) else { return };
        let log = self.consensus.log();
        if log.term_at(said.index) == Some(said.term) {
            let ack = AppendAck { matched: said.index, applied, version, ..AppendAck::default() };
            self.handle_ack(now, from, term, &ack);
        } else if said.index < log.first() {
            self.tell_behind(from);
        } else {
            self.counters.installs_disbelieved += 1;
        }
    }

    /// Forgets what nobody needs any more of the log. Those who receive a snapshot will need what comes after it.
    pub(in super::super) fn compact_log(&mut self, now: Instant) {
        let (limits, applied) = (self.config.limits, self.applied);
        let within = self.config.timing.election_min();
        let held = self.leading.as_ref().and_then(|leading| leading.held(now, within));
        let log = self.consensus.log_mut();
        log.compact(held.map_or(applied, |held| held.min(applied)), &limits.retention);
        if held.is_some() {
            let entries_max = limits.snapshots.hold_entries_max.max(limits.retention.entries_max);
            let bytes_max = limits.snapshots.hold_bytes_max.max(limits.retention.bytes_max);
            log.compact(applied, &Retention { entries_max, bytes_max });
        }
    }
}

impl super::super::leading::Leading {
    /// A follower will need the log from this index on.
    fn hold(&mut self, member: MemberId, index: LogIndex) {
        if let Some(peer) = self.peer(member) {
            peer.hold = Some(index);
        }
    }

    /// From where on somebody who is heard will need the log.
    fn held(&self, now: Instant, within: Duration) -> Option<LogIndex> {
        self.holds(now, within).min()
    }
}
