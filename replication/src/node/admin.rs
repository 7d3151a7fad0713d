//! What an operator tells this node (see [`crate::admin`]), and what it tells who asks for the group's members.

use r2p2::Instant;

use super::members::CommandError;
use super::{AdminRequest, Node};
use crate::admin::{AdminCommand, AdminReply, LeaderHint, MembersReport, Refusal, RefusalReason, SnapshotsReport};
use crate::membership::ChangeError;

impl Node {
    /// Answers a request about the node or the group, unless it needs the driver: then says what the driver is to answer
    /// by [`Node::answer_admin`].
    pub fn serve_admin(&mut self, now: Instant, request: &AdminRequest) -> Option<AdminCommand> {
        let reply = match AdminCommand::decode(&request.body) {
            Ok(AdminCommand::Status) => return Some(AdminCommand::Status),
            Ok(AdminCommand::Members) => self.members_report().encode(),
            Ok(AdminCommand::Snapshots) => SnapshotsReport { snapshots: self.snapshots().collect() }.encode(),
            Ok(AdminCommand::Chunk { id, number }) => {
                self.read_for_operator(now, request, id, number);
                return None;
            }
            Ok(command) => {
                let reply = self.handle_admin(now, &command);
                tracing::info!(node = %self.config.me.node(), from = %request.from, ?command, ?reply, "admin");
                reply.encode()
            }
            Err(error) => {
                self.counters.admin_not_understood += 1;
                AdminReply::refused(RefusalReason::NotUnderstood, error.to_string()).encode()
            }
        };
        self.answer_admin(request, &reply);
        None
    }

    /// Who makes up the group, by the latest membership that this node knows to be committed.
    pub fn members_report(&self) -> MembersReport {
        let leader = self.consensus.leader().map(|leader| leader.node());
        let membership = self.committed_membership().clone();
        let lived = membership.members.keys().copied().filter(|id| self.has_heard(*id)).collect();
        MembersReport { membership, leader, term: self.consensus.term(), lived }
    }

    /// Does what an operator wants, or begins to, or says why not. What is so already is accepted: commands are repeated.
    pub fn handle_admin(&mut self, now: Instant, command: &AdminCommand) -> AdminReply {
        let done = match *command {
            AdminCommand::Add { node, addresses, after, learner } => {
                let there = self.membership().of_node(node).filter(|(id, _)| id.incarnation() > after);
                if let Some((id, _)) = there.filter(|(_, member)| member.addresses != addresses) {
                    Err(ChangeError::AlreadyMember(id).into())
                } else {
                    self.admit(now, node, addresses, !learner, after)
                }
            }
            AdminCommand::Remove { node } => {
                let committed = self.committed_membership();
                let is_gone = committed.of_node(node).is_none() && committed.removed.contains_key(&node);
                if is_gone { Ok(None) } else { self.remove(now, node).map(|()| None) }
            }
            AdminCommand::Transfer { to } => {
                let leads = self.consensus.leader().map(|leader| leader.node());
                if to.is_some() && to == leads { Ok(None) } else { self.hand_leadership(now, to).map(|()| None) }
            }
            AdminCommand::Recover { node } if node == self.config.me.node() => {
                // Asked again after it has done so: it is so.
                let alone = self.leading.is_some() && self.membership().members.len() == 1;
                if alone { Ok(None) } else { self.recover(now).map(|()| None) }
            }
            AdminCommand::Recover { node } => Err(ChangeError::Unknown(node).into()),
            AdminCommand::Status | AdminCommand::Members | AdminCommand::Snapshots | AdminCommand::Chunk { .. } => {
                return AdminReply::refused(RefusalReason::NotUnderstood, "a question is not a command");
            }
            AdminCommand::Snapshot if !self.has_snapshots() => {
                return AdminReply::refused(RefusalReason::Unsupported, "an unreplicated node takes no snapshots");
            }
            AdminCommand::Snapshot => {
                // Nothing new to be in it: there is one already.
                self.take_snapshot();
                Ok(None)
            }
        };
        match done {
            Ok(member) => AdminReply::Accepted { epoch: self.membership().epoch, member },
            Err(error) => AdminReply::Refused(Refusal {
                reason: reason(&error),
                text: error.to_string(),
                leader: self.leader_hint(),
            }),
        }
    }

    fn leader_hint(&self) -> Option<LeaderHint> {
        let leader = self.consensus.leader()?;
        let member = self.membership().get(leader).or_else(|| self.committed_membership().get(leader))?;
        Some(LeaderHint { node: leader.node(), requests: member.addresses.requests })
    }

    /// The epoch that this node names in its answers: of the latest membership that it knows to be committed.
    pub(super) fn epoch(&self) -> u64 {
        self.committed_membership().epoch
    }
}

fn reason(error: &CommandError) -> RefusalReason {
    match error {
        CommandError::NotLeader { .. } => RefusalReason::NotLeader,
        CommandError::NotNow | CommandError::Change(ChangeError::UnderWay) => RefusalReason::Busy,
        CommandError::NotLost { .. } => RefusalReason::Conflict,
        CommandError::Unreplicated => RefusalReason::Unsupported,
        CommandError::Change(ChangeError::Unknown(_)) => RefusalReason::UnknownNode,
        CommandError::Change(ChangeError::AlreadyMember(_) | ChangeError::AddressTaken(_)) => RefusalReason::Conflict,
        CommandError::Change(ChangeError::LastVoter(_)) => RefusalReason::LastVoter,
        CommandError::Change(ChangeError::NoQuorum(..)) => RefusalReason::NoQuorum,
        CommandError::Change(ChangeError::Full | ChangeError::NotCaughtUp(_)) => RefusalReason::Other,
    }
}
