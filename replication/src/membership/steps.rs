//! The steps from one membership to the next. Each is a whole membership, one epoch later.

use super::{Addresses, ChangeError, Member, MemberRole, Membership};
use crate::id::{Incarnation, MemberId, NodeId};

/// Most members of a group, learners included. What a membership takes in the log and in a datagram is bounded by it.
pub const MEMBERS_MAX: usize = 16;

/// By how much the epoch rises when a member goes on alone.
const RECOVERY_EPOCHS: u64 = 1 << 32;

/// By how much incarnations rise when a group is founded anew from a snapshot: the old one may have gone on since.
const REFOUNDED_INCARNATIONS: u32 = 1 << 16;

impl Membership {
    /// Adds a node as a learner, as the incarnation after its last: the last member it was, or `after` if that is later.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn with_learner(
        &self,
        node: NodeId,
        addresses: Addresses,
        promote: bool,
        after: Incarnation,
    ) -> Result<(MemberId, Self), ChangeError> {
        self.is_settled()?;
        if let Some((id, _)) = self.of_node(node) {
            return Err(ChangeError::AlreadyMember(id));
        }
        if let Some((id, _)) = self.members.iter().find(|(_, member)| member.addresses.overlap(&addresses)) {
            return Err(ChangeError::AddressTaken(*id));
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(ChangeError::Full);
        }
        let last = self.removed.get(&node).map_or(0, |incarnation| incarnation.0).max(after.0);
        let id = MemberId::new(node, Incarnation(if mutated!(IncarnationReused) { last.max(1) } else { last + 1 }));
        let mut next = self.next();
        next.members.insert(id, Member { role: MemberRole::Learner { promote }, addresses });
        next.removed.remove(&node);
        Ok((id, next))
    }

    /// Makes a learner a voter: the first half, joint.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn promoting(&self, id: MemberId) -> Result<Self, ChangeError> {
        self.is_settled()?;
        let mut next = self.next();
        match next.members.get_mut(&id) {
            Some(member) if matches!(member.role, MemberRole::Learner { .. }) => member.role = MemberRole::Joining,
            Some(_) => return Err(ChangeError::AlreadyMember(id)),
            None => return Err(ChangeError::Unknown(id.node())),
        }
        Ok(next)
    }

    /// Removes a node: a learner at once, a voter by its first half, joint.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn without(&self, node: NodeId) -> Result<Self, ChangeError> {
        self.is_settled()?;
        let (id, member) = self.of_node(node).ok_or(ChangeError::Unknown(node))?;
        let mut next = self.next();
        if matches!(member.role, MemberRole::Learner { .. }) {
            next.bury(id);
            return Ok(next);
        }
        if self.incoming().all(|voter| voter == id) {
            return Err(ChangeError::LastVoter(id));
        }
        if let Some(member) = next.members.get_mut(&id) {
            member.role = MemberRole::Leaving;
        }
        Ok(next)
    }

    /// The second half of a joint membership: only those after the change.
    pub fn settled(&self) -> Option<Self> {
        if !self.is_joint() {
            return None;
        }
        let mut next = self.next();
        for (id, member) in &self.members {
            match member.role {
                MemberRole::Leaving => next.bury(*id),
                MemberRole::Joining => {
                    next.members.insert(*id, Member { role: MemberRole::Voter, ..*member });
                }
                MemberRole::Voter | MemberRole::Learner { .. } => {}
            }
        }
        Some(next)
    }

    /// Only this member is left, because the others are gone for good. Not a step that a group could decide.
    ///
    /// Those who are gone may have gone on to later epochs without it; this one is far beyond them.
    pub fn alone(&self, id: MemberId) -> Option<Self> {
        let mut alone = Self { epoch: self.epoch + RECOVERY_EPOCHS, ..self.clone() };
        for other in self.members.keys().filter(|other| **other != id) {
            alone.bury(*other);
        }
        alone.members.get_mut(&id)?.role = MemberRole::Voter;
        Some(alone)
    }

    /// The first membership of a group that begins where this one was: with these nodes, each as somebody whom this group
    /// has not known.
    #[must_use]
    pub fn refounded(&self, nodes: impl IntoIterator<Item = (NodeId, Addresses)>) -> Self {
        let after = |node: NodeId| {
            let here = self.of_node(node).map(|(id, _)| id.incarnation());
            here.max(self.removed.get(&node).copied()).map_or(0, |last| last.0)
        };
        let voters = nodes.into_iter().map(|(node, at)| {
            (MemberId::new(node, Incarnation(after(node).saturating_add(REFOUNDED_INCARNATIONS))), at)
        });
        let mut founded = Self { epoch: self.epoch + RECOVERY_EPOCHS, ..Self::of_voters(voters) };
        for id in self.members.keys() {
            if founded.of_node(id.node()).is_none() {
                founded.removed.insert(id.node(), id.incarnation());
            }
        }
        founded
    }

    fn next(&self) -> Self {
        Self { epoch: self.epoch + 1, ..self.clone() }
    }

    fn is_settled(&self) -> Result<(), ChangeError> {
        if self.is_joint() { Err(ChangeError::UnderWay) } else { Ok(()) }
    }

    fn bury(&mut self, id: MemberId) {
        self.members.remove(&id);
        self.removed.insert(id.node(), id.incarnation());
    }
}

impl Addresses {
    fn overlap(&self, other: &Self) -> bool {
        let all = |of: &Self| [Some(of.peers), Some(of.requests), of.group_requests];
        all(self).iter().flatten().any(|ours| all(other).iter().flatten().any(|theirs| ours == theirs))
    }
}
