//! An aggregator says only what it was told under its arm id: of each member nothing that this member did not acknowledge
//! under this id, in this term and by this epoch; of the leader what it said that it has persisted; and it announces what a
//! majority of the voters has, never an index before the first of the term (protocol.md §6.7). A leader arms it for no
//! membership that is joint or may be taken back.
//!
//! Everything is read from the datagrams that reach an aggregator and leave it, and nothing is believed of its own memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use hovercraft::message::{Arm, Message};
use hovercraft::{LogIndex, MemberId, Membership, NodeId, Term};

use super::{Result, Violation, bound};
use crate::flight::message;

/// What all aggregators have been told.
#[derive(Debug, Default)]
pub struct Aggregated {
    /// What members have asked to be armed for, by term, leader and request.
    asked: BTreeMap<(Term, MemberId, u64), Arm>,
    /// What a process has said under an arm id: the term, and who belongs to it.
    armed: BTreeMap<(u16, u64), (Term, Arm)>,
    /// What each member has said to it: index, by aggregator, arm id and member.
    said: BTreeMap<(u16, u64, MemberId), LogIndex>,
}

impl Aggregated {
    /// A process starts on this host: it has been told nothing.
    pub fn started(&mut self, number: u16) {
        self.armed.retain(|(of, _), _| *of != number);
        self.said.retain(|(of, ..), _| *of != number);
    }

    /// A leader asks for an arming; its log has this membership, known to be committed or not.
    ///
    /// # Errors
    /// The membership is joint, or may be taken back.
    pub fn asks(&self, node: NodeId, arm: &Arm, membership: &Membership, committed: bool) -> Result {
        let fits = arm.epoch == membership.epoch && !membership.is_joint() && committed;
        if fits { Ok(()) } else { Err(Violation::ArmsDuringChange { node, epoch: arm.epoch }) }
    }

    /// A datagram reaches an aggregator.
    pub fn heard(&mut self, number: u16, packet: &Bytes) {
        let Some((envelope, message)) = message(packet) else { return };
        let from = envelope.from;
        match message {
            Message::Arm(arm) => {
                self.asked.insert((envelope.term, from, arm.request), arm);
                bound(&mut self.asked);
            }
            Message::Append(append) if self.is(number, append.arm, envelope.term) => {
                self.say(number, append.arm, from, append.persisted);
            }
            Message::AppendAck(ack) if self.is(number, ack.arm, envelope.term) => {
                let fits = self.armed.get(&(number, ack.arm)).is_some_and(|(_, arm)| arm.epoch == ack.epoch);
                if fits {
                    self.say(number, ack.arm, from, ack.matched);
                }
            }
            _ => {}
        }
    }

    /// An aggregator sends a datagram.
    ///
    /// # Errors
    /// It says what it was not told, or announces what no majority has.
    pub fn says(&mut self, number: u16, packet: &Bytes) -> Result {
        let Some((envelope, message)) = message(packet) else { return Ok(()) };
        match message {
            Message::Armed(armed) => {
                let mut of_term = self
                    .asked
                    .iter()
                    .filter(|((term, _, request), _)| *term == envelope.term && *request == armed.request);
                if let Some((_, arm)) = of_term.next_back() {
                    self.armed.entry((number, armed.arm)).or_insert((envelope.term, arm.clone()));
                    bound(&mut self.armed);
                }
                Ok(())
            }
            Message::AggCommit(said) => {
                let Some((_, arm)) = self.armed.get(&(number, said.arm)) else {
                    return Err(Violation::AggregatorNotArmed { number, arm: said.arm });
                };
                let told = |id| self.said.get(&(number, said.arm, id)).copied().unwrap_or(0);
                for of in &said.members {
                    if of.matched > told(of.id) {
                        let (member, told) = (of.id, told(of.id));
                        return Err(Violation::AggregatorInvents { number, member, said: of.matched, told });
                    }
                }
                let voters = arm.members.iter().filter(|member| member.voter);
                let mut have: Vec<LogIndex> = voters.map(|member| told(member.id)).collect();
                have.sort_unstable_by(|a, b| b.cmp(a));
                let majority = have.get(have.len() / 2).copied().unwrap_or(0);
                if said.commit > 0 && (said.commit > majority || said.commit < arm.first) {
                    let (commit, first) = (said.commit, arm.first);
                    return Err(Violation::AggregatorAnnounces { number, commit, majority, first });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is(&self, number: u16, arm: u64, term: Term) -> bool {
        self.armed.get(&(number, arm)).is_some_and(|(of, _)| *of == term)
    }

    fn say(&mut self, number: u16, arm: u64, member: MemberId, index: LogIndex) {
        let known = self.said.entry((number, arm, member)).or_default();
        *known = index.max(*known);
        bound(&mut self.said);
    }
}

#[cfg(test)]
mod tests {
    use hovercraft::message::{AggCommit, AppendAck, ArmMember, Armed, Envelope, Figures, Message};
    use hovercraft::{GroupId, Incarnation};
    use r2p2::message::{MessageHead, write_packets};
    use r2p2::wire::{Extensions, MessageType, Policy};

    use super::super::samples::{M1, M2, M3, N1, group, with_joining};
    use super::*;
    use crate::world::peer_address;

    const TERM: Term = 3;
    const ARM: u64 = 77;

    fn datagram(from: MemberId, term: Term, message: &Message) -> Bytes {
        let envelope = Envelope { group: GroupId(1), from, life: 1, term };
        let extensions = Extensions::default();
        let head = MessageHead { kind: MessageType::RaftMessage, policy: Policy::Fixed, rid: 1, extensions };
        let mut only = Bytes::new();
        write_packets(&head, &message.emit(&envelope), 1472, &mut |packet| only = packet).unwrap();
        only
    }

    fn aggregator(message: &Message) -> Bytes {
        datagram(MemberId::new(NodeId::NONE, Incarnation(0)), TERM, message)
    }

    fn arm() -> Arm {
        let member = |id: MemberId| ArmMember { id, voter: id != M3, life: 1, address: peer_address(id.node().0) };
        Arm { request: 1, epoch: 1, first: 10, members: [M1, M2, M3].map(member).to_vec() }
    }

    /// Armed for nodes 1 and 2, which vote, and 3, which does not.
    fn armed() -> Aggregated {
        let mut checker = Aggregated::default();
        checker.heard(0, &datagram(M1, TERM, &Message::Arm(arm())));
        let armed = Message::Armed(Armed { request: 1, arm: ARM });
        assert_eq!(checker.says(0, &aggregator(&armed)), Ok(()));
        checker
    }

    fn ack(checker: &mut Aggregated, from: MemberId, matched: LogIndex, change: impl FnOnce(&mut AppendAck)) {
        let mut ack = AppendAck { matched, arm: ARM, epoch: 1, ..AppendAck::default() };
        change(&mut ack);
        checker.heard(0, &datagram(from, TERM, &Message::AppendAck(ack)));
    }

    fn says(checker: &mut Aggregated, commit: LogIndex, of: &[(MemberId, LogIndex)]) -> Result {
        let figures = |&(id, matched): &(MemberId, LogIndex)| Figures { id, matched, applied: 0 };
        let members = of.iter().map(figures).collect();
        checker.says(0, &aggregator(&Message::AggCommit(AggCommit { arm: ARM, epoch: 1, commit, members })))
    }

    #[test]
    fn what_it_was_told_it_may_say() {
        let mut checker = armed();
        ack(&mut checker, M1, 12, |_| {});
        ack(&mut checker, M2, 11, |_| {});
        ack(&mut checker, M3, 12, |_| {});
        assert_eq!(says(&mut checker, 11, &[(M1, 12), (M2, 11), (M3, 12)]), Ok(()));
        assert_eq!(says(&mut checker, 0, &[(M2, 3)]), Ok(()), "less is no lie");
    }

    #[test]
    fn what_it_was_not_told_is_found() {
        let mut checker = armed();
        ack(&mut checker, M2, 11, |ack| ack.epoch = 2);
        ack(&mut checker, M2, 11, |ack| ack.arm = ARM + 1);
        let other_term = AppendAck { matched: 11, arm: ARM, epoch: 1, ..AppendAck::default() };
        checker.heard(0, &datagram(M2, TERM - 1, &Message::AppendAck(other_term)));
        let invents = Violation::AggregatorInvents { number: 0, member: M2, said: 11, told: 0 };
        assert_eq!(says(&mut checker, 0, &[(M2, 11)]), Err(invents));
        checker.started(0);
        let unarmed = Violation::AggregatorNotArmed { number: 0, arm: ARM };
        assert_eq!(says(&mut checker, 0, &[]), Err(unarmed), "a new process knows nothing");
    }

    #[test]
    fn what_no_majority_of_voters_has_or_is_of_another_term_is_found() {
        let mut checker = armed();
        ack(&mut checker, M1, 12, |_| {});
        ack(&mut checker, M3, 12, |_| {});
        let learner = Violation::AggregatorAnnounces { number: 0, commit: 12, majority: 0, first: 10 };
        assert_eq!(says(&mut checker, 12, &[]), Err(learner), "one of two voters, and a learner");
        ack(&mut checker, M2, 9, |_| {});
        let before = Violation::AggregatorAnnounces { number: 0, commit: 9, majority: 9, first: 10 };
        assert_eq!(says(&mut checker, 9, &[]), Err(before));
    }

    #[test]
    fn nobody_arms_during_a_change() {
        let checker = Aggregated::default();
        assert_eq!(checker.asks(N1, &arm(), &group(3), true), Ok(()));
        let during = Err(Violation::ArmsDuringChange { node: N1, epoch: 1 });
        assert_eq!(checker.asks(N1, &arm(), &with_joining(2, 3), true), during, "joint");
        assert_eq!(checker.asks(N1, &arm(), &group(3), false), during, "not committed");
    }
}
