//! One arming: who belongs to it, what each has said, what follows from that.

use std::net::SocketAddrV4;

use r2p2::Instant;

use super::{AggregatorConfig, Counters};
use crate::id::{LogIndex, MemberId, Term};
use crate::message::{AggCommit, AppendAck, AppendHead, Arm, Envelope, Figures};
use crate::role::To;

/// What a leader has asked for, and what came of it.
#[derive(Debug)]
pub(super) struct Arming {
    pub(super) id: u64,
    pub(super) term: Term,
    pub(super) leader: MemberId,
    pub(super) request: u64,
    /// Who is told.
    pub(super) to: To,
    epoch: u64,
    /// First index of the term.
    first: LogIndex,
    members: Vec<Member>,
    /// End of the leader's log, as far as it has said.
    last: LogIndex,
    /// What a majority of voters has; 0 as long as that is nothing of this term.
    commit: LogIndex,
    /// The commit index has risen and nobody has been told.
    risen: bool,
    /// When what else has changed is passed on.
    forward_at: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    voter: bool,
    life: u64,
    address: SocketAddrV4,
    matched: LogIndex,
    applied: LogIndex,
    /// About entries that the leader has not shown yet, and since when it waits.
    early: Option<(AppendAck, Instant)>,
}

/// Why an acknowledgement does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    NotArmed,
    OtherArm,
    OtherTerm,
    OtherEpoch,
    Stranger,
    OtherLife,
    /// It waits for the Append that it is about.
    Early,
}

impl Arming {
    pub(super) fn new(id: u64, envelope: &Envelope, arm: &Arm, to: To) -> Self {
        let members = arm.members.iter().map(|member| Member {
            id: member.id,
            voter: member.voter,
            life: member.life,
            address: member.address,
            matched: 0,
            applied: 0,
            early: None,
        });
        Self {
            id,
            term: envelope.term,
            leader: envelope.from,
            request: arm.request,
            to,
            epoch: arm.epoch,
            first: arm.first,
            members: members.collect(),
            last: 0,
            commit: 0,
            risen: false,
            forward_at: None,
        }
    }

    /// The mistake of going on with what was said under an earlier id.
    #[cfg(feature = "mutations")]
    pub(super) fn keeping(mut self, before: Option<&Self>) -> Self {
        let before = before.filter(|_| mutated!(AggregatorKeepsCounts));
        for old in before.iter().flat_map(|before| &before.members) {
            if let Some(member) = self.members.iter_mut().find(|member| member.id == old.id) {
                (member.matched, member.applied) = (old.matched, old.applied);
            }
        }
        self
    }

    /// Whether this comes from the leader that has armed.
    pub(super) fn is_leader(&self, from: SocketAddrV4, envelope: &Envelope) -> bool {
        let is_it = |member: &Member| member.id == self.leader && member.is(from, envelope);
        envelope.term == self.term && self.members.iter().any(is_it)
    }

    /// Whether a member is there.
    pub(super) fn is_member_at(&self, address: SocketAddrV4) -> bool {
        self.members.iter().any(|member| member.address == address)
    }

    /// The leader has sent this under this id.
    pub(super) fn see_append(&mut self, now: Instant, head: &AppendHead, config: &AggregatorConfig) {
        // What it has persisted it has: an Append need not be the last of its batch.
        self.last = self.last.max(head.last()).max(head.persisted);
        let persisted = if mutated!(AggregatorCountsLeaderUnsynced) { head.last() } else { head.persisted };
        let leader = self.leader;
        if let Some(member) = self.members.iter_mut().find(|member| member.id == leader)
            && persisted > member.matched
        {
            member.matched = persisted;
            // Only the leader itself would learn anything, and it knows: nothing to pass on but what that commits.
        }
        self.take_early(now, config);
        self.recount();
    }

    /// A member says what it has.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        envelope: &Envelope,
        ack: AppendAck,
        config: &AggregatorConfig,
    ) -> Result<(), Refused> {
        let any = mutated!(AggregatorCountsAnyArm);
        if ack.arm != self.id && !any {
            return Err(Refused::OtherArm);
        }
        if envelope.term != self.term && !any {
            return Err(Refused::OtherTerm);
        }
        let Some(member) = self.members.iter_mut().find(|member| member.id == envelope.from) else {
            return Err(Refused::Stranger);
        };
        if member.address != from {
            return Err(Refused::Stranger);
        }
        if member.life != envelope.life {
            return Err(Refused::OtherLife);
        }
        if ack.epoch != self.epoch && !any {
            return Err(Refused::OtherEpoch);
        }
        if member.id == self.leader {
            // It knows its own log.
            self.last = self.last.max(ack.matched);
        }
        if ack.matched.max(ack.applied) > self.last {
            member.early = Some((ack, now));
            return Err(Refused::Early);
        }
        if member.take(&ack) {
            self.forward_at.get_or_insert(now + config.forward_after);
        }
        self.recount();
        Ok(())
    }

    /// What is to be said now, if anything is.
    pub(super) fn take_due(&mut self, now: Instant, counters: &mut Counters) -> Option<AggCommit> {
        if self.risen {
            counters.commits_announced += 1;
        } else if self.forward_at.is_some_and(|at| now >= at) {
            counters.changes_forwarded += 1;
        } else {
            return None;
        }
        self.risen = false;
        self.forward_at = None;
        let figures = |member: &Member| Figures { id: member.id, matched: member.matched, applied: member.applied };
        Some(AggCommit {
            arm: self.id,
            epoch: self.epoch,
            commit: self.commit,
            members: self.members.iter().map(figures).collect(),
        })
    }

    /// When there is something to be done.
    pub(super) fn next_due(&self, config: &AggregatorConfig) -> Option<Instant> {
        let early = self.members.iter().filter_map(|member| member.early);
        early.map(|(_, since)| since + config.early_max).chain(self.forward_at).min()
    }

    /// Forgets acknowledgements whose Appends have not come.
    pub(super) fn forget_early(&mut self, now: Instant, config: &AggregatorConfig, counters: &mut Counters) {
        for member in &mut self.members {
            if member.early.take_if(|(_, since)| now.since(*since) >= config.early_max).is_some() {
                counters.acks_beyond_log += 1;
            }
        }
    }

    fn take_early(&mut self, now: Instant, config: &AggregatorConfig) {
        let last = self.last;
        for member in &mut self.members {
            let in_time = |(ack, since): &mut (AppendAck, Instant)| {
                ack.matched.max(ack.applied) <= last && now.since(*since) < config.early_max
            };
            if let Some((ack, _)) = member.early.take_if(in_time)
                && member.take(&ack)
            {
                self.forward_at.get_or_insert(now + config.forward_after);
            }
        }
    }

    /// What a majority of voters has.
    fn recount(&mut self) {
        let counts = |member: &&Member| member.voter || mutated!(AggregatorCountsLearners);
        // Sorted in place, without memory of its own.
        let mut matched = [0; crate::message::MEMBERS_MAX];
        let mut voters = 0;
        for member in self.members.iter().filter(counts) {
            matched[voters] = member.matched;
            voters += 1;
        }
        let matched = &mut matched[..voters];
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&majority) = matched.get(voters / 2) else { return };
        let of_term = majority >= self.first || mutated!(AggregatorBelowFirst);
        if majority > self.commit && of_term {
            self.commit = majority;
            self.risen = true;
        }
    }
}

impl Member {
    /// Whether this comes from it.
    fn is(&self, from: SocketAddrV4, envelope: &Envelope) -> bool {
        self.id == envelope.from && self.address == from && self.life == envelope.life
    }

    /// Returns whether anything is new.
    fn take(&mut self, ack: &AppendAck) -> bool {
        let is_new = ack.matched > self.matched || ack.applied > self.applied;
        self.matched = self.matched.max(ack.matched);
        self.applied = self.applied.max(ack.applied);
        is_new
    }
}
