//! Why a membership does not change.

use crate::id::{MemberId, NodeId};

/// Why there is no such step. Every message says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is nobody of that number.
    #[error("there is no node {0} in this group; `hovercraft cluster members` lists those there are")]
    Unknown(NodeId),
    /// It is there already.
    #[error("{0:?} is a member already; remove it first, or choose another id")]
    AlreadyMember(MemberId),
    /// Somebody else is there.
    #[error("{0:?} has one of these addresses already; every node has its own")]
    AddressTaken(MemberId),
    /// One at a time.
    #[error("another change of membership is under way; try again when it is done")]
    UnderWay,
    /// Nobody would be left.
    #[error("{0:?} is the last voter; a group without voters could never do anything again")]
    LastVoter(MemberId),
    /// Too few would be left.
    #[error(
        "without {0:?} only {heard} of the {voters} voters that are left would be heard from, which is no majority; bring \
         the others back first",
        heard = .1,
        voters = .2
    )]
    NoQuorum(MemberId, usize, usize),
    /// Too many.
    #[error("a group has at most {max} members, learners included; remove one first", max = super::MEMBERS_MAX)]
    Full,
    /// A learner has not caught up.
    #[error("{0:?} has not caught up yet; it becomes a voter by itself when it has")]
    NotCaughtUp(MemberId),
}
