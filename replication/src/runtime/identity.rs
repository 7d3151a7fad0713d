//! Who a process is to be: who it was, if it remembers; who the configuration says, if it never was; or somebody new whom
//! the group has let in (protocol.md §7.5, §7.6).
//!
//! | kept | what there is | who it is |
//! |---|---|---|
//! | on disk | its data | who it was |
//! | on disk | nothing | a first member, or with `join` whom the group lets in |
//! | in memory | no mark that it has lived | a first member, or with `join` whom the group lets in |
//! | in memory | a mark | its next incarnation, whom the group lets in: it has forgotten what it promised |
//!
//! To be let in is to be added as a learner, after the removal of the last incarnation if that is a member still. It
//! becomes a voter when it has caught up.

use std::time::Duration;

use crate::admin::{AdminCommand, MembersReport};
use crate::client::{ConnectError, Operator, OperatorError};
use crate::cluster::{ClusterConfig, Durability, NodeEntry};
use crate::entropy;
use crate::id::{GroupId, Incarnation, MemberId};
use crate::membership::{MemberRole, Membership};
use crate::storage::{DiskStorage, Safety};

use super::{StartError, life};

/// Who a process is, and what it keeps.
pub(super) struct Begun {
    pub(super) member: MemberId,
    /// Which process, or which storage if it has one.
    pub(super) life: u64,
    /// Who belongs to the group where its log begins.
    pub(super) membership: Membership,
    pub(super) storage: Option<DiskStorage>,
}

/// Why a node is not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinGroupError {
    /// No socket.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody let it in.
    #[error(
        "{why}; the group did not let it in: {source}. A group without a majority cannot let anybody in: bring its nodes back, \
         or, if they are gone for good, see `hovercraft cluster recover --help`"
    )]
    Refused {
        /// Why it asked.
        why: String,
        /// What became of it.
        source: Box<OperatorError>,
    },
}

pub(super) fn begin(config: &ClusterConfig, entry: &NodeEntry) -> Result<Begun, StartError> {
    let group = GroupId(config.group);
    let node = entry.node();
    match config.durability {
        Durability::Memory => {
            let directory = config.runtime_dir();
            let lived = life::last(&directory, group, node).filter(|lived| lived.0 >= entry.incarnation);
            let (member, membership) = match lived {
                None if !entry.join => (entry.member(), config.first_membership()),
                lived => join(config, entry, lived)?,
            };
            let life = entropy::draw();
            life::mark(&directory, config.runtime_dir.is_none(), group, member, life)?;
            Ok(Begun { member, life, membership, storage: None })
        }
        Durability::Os | Durability::Sync => {
            let safety = if config.durability == Durability::Sync { Safety::Synced } else { Safety::Written };
            let path = config.node_dir(node)?;
            let storage = match DiskStorage::open(&path, group, node, safety)? {
                Some(storage) => storage,
                None => {
                    let (member, membership) = match entry.join {
                        false => (entry.member(), config.first_membership()),
                        true => join(config, entry, None)?,
                    };
                    DiskStorage::make(&path, group, member, &membership, safety)?
                }
            };
            let identity = storage.identity();
            let membership = identity.membership.clone().map(|membership| located(membership, config));
            let membership = membership.unwrap_or_else(|| config.first_membership());
            Ok(Begun { member: identity.member, life: identity.life, membership, storage: Some(storage) })
        }
    }
}

/// The first members of a group, where the configuration says that they are now: a cluster may move as long as it has not
/// changed. Later on the log says where everybody is.
fn located(mut membership: Membership, config: &ClusterConfig) -> Membership {
    if membership.epoch == config.first_membership().epoch {
        for (id, member) in &mut membership.members {
            if let Some(entry) = config.entry(id.node()) {
                member.addresses = entry.addresses();
            }
        }
    }
    membership
}

/// Asks the group to let this node in, after the last incarnation that it knows it has lived as.
fn join(
    config: &ClusterConfig,
    entry: &NodeEntry,
    lived: Option<Incarnation>,
) -> Result<(MemberId, Membership), JoinGroupError> {
    let node = entry.node();
    let why = match lived {
        None => format!("node {node} is to join group {}", config.group),
        Some(lived) => format!(
            "node {node} has lived before as incarnation {} and has forgotten its vote and what it acknowledged, because it \
             keeps its log in memory, so it comes back as another (protocol.md §7.5)",
            lived.0
        ),
    };
    tracing::info!(%node, "{why}; asking the group to let it in");
    let patience = Duration::from_millis(config.timing.join_patience_ms);
    let refused = |source| JoinGroupError::Refused { why: why.clone(), source: Box::new(source) };
    let mut operator = Operator::connect(&config.client_options())?;
    let MembersReport { membership, lived: heard, .. } = operator.members_by_leader(patience).map_err(refused)?;
    // A learner that somebody has added in advance has not lived yet.
    let known = match membership.of_node(node) {
        Some((id, member)) if matches!(member.role, MemberRole::Learner { .. }) && !heard.contains(&id) => {
            id.incarnation().0 - 1
        }
        Some((id, _)) => id.incarnation().0,
        None => membership.removed.get(&node).map_or(0, |removed| removed.0),
    };
    let after = Incarnation(lived.map_or(0, |lived| lived.0).max(known));
    let command = AdminCommand::Add { node, addresses: entry.addresses(), after, learner: entry.learner };
    let is_in =
        |membership: &Membership| membership.of_node(node).map(|(id, _)| id).filter(|id| id.incarnation() > after);
    let done = operator.carry_out(&command, patience, |report| is_in(&report.membership).is_some());
    let (_, report) = done.map_err(refused)?;
    let member = is_in(&report.membership).ok_or_else(|| refused(OperatorError::NotCertain))?;
    tracing::info!(%node, ?member, epoch = report.membership.epoch, "the group has let it in");
    Ok((member, report.membership))
}
