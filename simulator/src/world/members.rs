//! Nodes that come and go: what an operator says to the group, and what they then start (protocol.md §7.5, §7.6).

use hovercraft::membership::MemberRole;
use hovercraft::node::CommandError;
use hovercraft::{Incarnation, MemberId, Membership, Node, NodeId, Service};
use r2p2::Instant;

use super::World;
use super::addresses::{addresses, member};
use super::archive::Archive;
use crate::flight::Party;

/// The membership that a group of so many nodes begins with.
pub(super) fn first_membership(nodes: u16) -> Membership {
    Membership::of_voters((1..=nodes).map(|id| (member(id), addresses(id))))
}

impl<S: Service> World<S> {
    /// Tells whoever leads to let in a node on this host, where nothing runs, or nothing that remembers anything; when
    /// that is done, starts it. To be repeated until it says who the node is: the identity after the last that has run
    /// here.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn admit(&mut self, id: u16, promote: bool) -> Result<Option<MemberId>, CommandError> {
        let last = self.host(id).member.as_ref().map_or(Incarnation(0), |(me, _)| me.incarnation());
        let admitted = self.command(|node, now| node.admit(now, NodeId(id), addresses(id), promote, last))?;
        let Some(me) = admitted else { return Ok(None) };
        if let Err(violation) = self.checkers.admitted(me) {
            self.report(violation);
        }
        // The operator asks anybody; who leads is as good as any.
        let told = self.leader().and_then(|leader| self.node(leader)).map(|node| node.committed_membership().clone());
        let Some(told) = told.filter(|told| told.get(me).is_some()) else { return Ok(None) };
        self.faults.admissions += 1;
        let disk = self.new_disk(id);
        let archive = Archive::new(self.config.disk, id.into());
        let host = self.host_mut(id);
        (host.disk, host.archive) = (disk, archive);
        self.start_as(me, told);
        Ok(Some(me))
    }

    /// Tells whoever leads to remove a node. To be repeated until the node is unknown.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn remove(&mut self, id: u16) -> Result<(), CommandError> {
        self.command(|node, now| node.remove(now, NodeId(id)))
    }

    /// Tells whoever leads to hand leadership to a node, or to whoever is best.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn hand_leadership(&mut self, to: Option<u16>) -> Result<(), CommandError> {
        self.command(|node, now| node.hand_leadership(now, to.map(NodeId)))
    }

    /// How many hosts there are, with a node or without.
    pub fn hosts(&self) -> u16 {
        self.config.hosts()
    }

    /// Who the node on this host is, or was.
    pub fn member(&self, id: u16) -> Option<MemberId> {
        self.host(id).member.as_ref().map(|(me, _)| *me)
    }

    /// Whether the node on this host was started as the only voter of its group: started so again, it asks nobody.
    pub fn began_alone(&self, id: u16) -> bool {
        self.host(id).member.as_ref().is_some_and(|(me, first)| first.voters().eq([*me]))
    }

    /// Whether what the node on this host has promised is lost: it must come back as another one.
    pub fn is_gone(&self, id: u16) -> bool {
        self.host(id).is_gone
    }

    /// The latest committed membership that the leader knows, if somebody leads.
    pub fn members(&self) -> Option<&Membership> {
        Some(self.node(self.leader()?)?.committed_membership())
    }

    /// Whether somebody leads, all who belong to the group by its log do so for good, and those who were to vote do.
    pub fn members_settled(&self) -> bool {
        let Some(node) = self.leader().and_then(|id| self.node(id)) else { return false };
        let membership = node.membership();
        let waits = membership.members.values().any(|member| member.role == MemberRole::Learner { promote: true });
        !membership.is_joint() && !waits && node.committed_membership() == membership
    }

    /// Tells whoever leads something.
    ///
    /// # Errors
    /// What that node says, or that nobody leads.
    pub fn command<T>(
        &mut self,
        command: impl FnOnce(&mut Node, Instant) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let leader = self.leader().ok_or(CommandError::NotLeader { leader: None })?;
        let now = self.local_now(Party::Node(leader));
        let Some(running) = &mut self.host_mut(leader).running else {
            return Err(CommandError::NotLeader { leader: None });
        };
        let done = command(&mut running.node, now);
        self.drive_node(leader);
        done
    }
}
