//! When a leader is not the right one: it is up and heard, so nobody else will ask, but it does not hear its clients, or
//! it does not get on, or it is about to stop. Then it hands leadership over (protocol.md §7.1, §7.6, §7.7).

use std::time::Duration;

use r2p2::Instant;

use super::Node;
use crate::id::{LogIndex, MemberId};

/// What a leader knows about its own fitness.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Since when the requests below are counted.
    since: Option<Instant>,
    /// Requests ordered, and how many of them this leader did not receive itself.
    ordered: u64,
    by_hint: u64,
    /// Who has heard what it did not.
    pub(super) hinter: Option<MemberId>,
    /// What was executed here when that last changed, or when nothing more was to be.
    executed: Option<(LogIndex, Instant)>,
}

/// Fewest requests ordered by hint that make a leader deaf: one lost datagram must not.
const DEAF_MIN: u64 = 16;

impl Handover {
    /// A request was ordered, perhaps one that only a follower heard of.
    pub(super) fn ordered(&mut self, by_hint: bool) {
        self.ordered += 1;
        self.by_hint += u64::from(by_hint);
    }

    /// Whom a deaf leader hands over to, asked again and again; decides once per window.
    fn deaf(&mut self, now: Instant, window: Duration) -> Option<MemberId> {
        let since = *self.since.get_or_insert(now);
        if now.since(since) < window {
            return None;
        }
        let is_deaf = self.by_hint >= DEAF_MIN && self.by_hint * 2 > self.ordered;
        let hinter = self.hinter.take();
        (self.since, self.ordered, self.by_hint) = (Some(now), 0, 0);
        hinter.filter(|_| is_deaf)
    }

    /// Whether committed entries have waited here for so long while none was executed.
    fn stuck(&mut self, now: Instant, applied: LogIndex, commit: LogIndex, patience: Duration) -> bool {
        match self.executed {
            Some((before, since)) if before == applied && commit > applied => now.since(since) >= patience,
            _ => {
                self.executed = Some((applied, now));
                false
            }
        }
    }
}

impl Node {
    /// A leader that learns of most requests from others hands leadership to one that hears its clients.
    pub(super) fn watch_for_deafness(&mut self, now: Instant) {
        let window = self.config.timing.deaf_window;
        let Some(hinter) = self.leading.as_mut().and_then(|leading| leading.handover.deaf(now, window)) else { return };
        tracing::warn!(
            node = %self.config.me.node(),
            to = %hinter.node(),
            "client multicast does not reach this leader; handing over"
        );
        self.counters.transfers_deaf += 1;
        self.hand_over(now, hinter);
    }

    /// A leader whose disk or service hangs would hold up everybody: its heartbeats go on, its window fills. It hands
    /// leadership to one that has executed more.
    pub(super) fn watch_for_standstill(&mut self, now: Instant) {
        let (applied, commit, patience) = (self.applied, self.consensus.commit(), self.config.timing.stuck_after);
        let fresh = self.config.timing.fresh;
        let membership = self.consensus.membership();
        let may_lead = |id| membership.may_lead(id);
        let Some(leading) = &mut self.leading else { return };
        if !leading.handover.stuck(now, applied, commit, patience) {
            return;
        }
        let Some(ahead) = leading.furthest(now, fresh, may_lead).filter(|(_, theirs)| *theirs > applied) else {
            return;
        };
        tracing::warn!(
            node = %self.config.me.node(),
            to = %ahead.0.node(),
            applied,
            commit,
            "the disk or the service of this leader hangs; handing over"
        );
        self.counters.transfers_stuck += 1;
        self.hand_over(now, ahead.0);
    }

    /// This node is to stop: if it leads, it hands leadership to whoever has most of its log, so that clients wait for a
    /// round trip and not for an election timeout. Returns whether it is worth waiting until it leads no more: for an
    /// election timeout at most, after which a transfer has failed. Drain its outputs in any case: it may have something to
    /// say to routers.
    pub fn resign(&mut self, now: Instant) -> bool {
        self.leave_routers();
        let fresh = self.config.timing.fresh;
        let membership = self.consensus.membership();
        let may_lead = |id| membership.may_lead(id);
        let Some(to) = self.leading.as_ref().and_then(|leading| leading.successor(now, fresh, may_lead)) else {
            return false;
        };
        tracing::info!(node = %self.config.me.node(), to = %to.node(), "stopping; handing over");
        self.hand_over(now, to);
        self.dirty = true;
        true
    }

    fn hand_over(&mut self, now: Instant, to: MemberId) {
        self.consensus.transfer(to);
        self.advance(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};

    const PEER: MemberId = MemberId::new(NodeId(2), Incarnation(1));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn most_by_hint_and_not_too_few_make_it_deaf() {
        let window = Duration::from_millis(100);
        for (own, by_hint, is_deaf) in [(15, 16, true), (16, 16, false), (0, 15, false), (0, 16, true)] {
            let mut handover = Handover { hinter: Some(PEER), ..Handover::default() };
            assert_eq!(handover.deaf(at(0), window), None, "the window begins");
            (0..own).for_each(|_| handover.ordered(false));
            (0..by_hint).for_each(|_| handover.ordered(true));
            assert_eq!(handover.deaf(at(99), window), None);
            assert_eq!(handover.deaf(at(100), window).is_some(), is_deaf, "{own} {by_hint}");
            assert_eq!(handover.deaf(at(200), window), None, "counted anew");
        }
    }

    #[test]
    fn only_who_has_something_to_execute_and_does_not_is_stuck() {
        let patience = Duration::from_millis(100);
        let mut handover = Handover::default();
        assert!(!handover.stuck(at(0), 5, 9, patience));
        assert!(!handover.stuck(at(99), 5, 9, patience));
        assert!(handover.stuck(at(100), 5, 9, patience));
        assert!(!handover.stuck(at(101), 6, 9, patience), "it moves");
        assert!(!handover.stuck(at(150), 9, 9, patience));
        assert!(!handover.stuck(at(500), 9, 9, patience), "nothing to do");
        assert!(!handover.stuck(at(501), 9, 10, patience), "it has only just come");
        assert!(!handover.stuck(at(599), 9, 11, patience));
        assert!(handover.stuck(at(600), 9, 11, patience));
    }
}
