//! Memberships change one step at a time (protocol.md §7.6): a leader proposes one only when the one before is committed
//! and so is an entry of its own term, and those who decide before a step and those who decide after it have somebody in
//! common, so that no two leaders ever decide apart.

use std::collections::BTreeSet;

use hovercraft::{LogIndex, MemberId, Membership, NodeId, Term};

use super::{Result, Violation};

/// The latest membership by which a node counts is said by the entry at `since` of its log, which goes from `first` to
/// `last`; `is_one` says whether the entry there is a membership.
///
/// # Errors
/// That entry is gone, and what it said with it.
pub fn said(
    node: NodeId,
    since: LogIndex,
    (first, last): (LogIndex, LogIndex),
    is_one: impl Fn(LogIndex) -> bool,
) -> Result {
    if since < first || since <= last && is_one(since) {
        Ok(())
    } else {
        Err(Violation::SaidByNobody { node, since, last })
    }
}

/// A leader of `term` has put a membership into its log at `index`, after the one at `before_at`. It has committed
/// everything up to `commit`, whose entry is of `commit_term`.
///
/// # Errors
/// It was not yet to do that, or it is no step.
pub fn proposed(
    leader: NodeId,
    term: Term,
    (before_at, before): (LogIndex, &Membership),
    (index, after): (LogIndex, &Membership),
    (commit, commit_term): (LogIndex, Option<Term>),
) -> Result {
    if before_at > commit || commit_term.is_some_and(|of| of != term) {
        let epoch = after.epoch;
        return Err(Violation::ChangedTooEarly { leader, term, index, epoch, before_at, commit, commit_term });
    }
    if is_step(before, after) {
        Ok(())
    } else {
        Err(Violation::NoStep { leader, index, before: Box::new(before.clone()), after: Box::new(after.clone()) })
    }
}

/// Whether a membership may follow another: the same vote before and after, or a joint one is begun or left.
fn is_step(before: &Membership, after: &Membership) -> bool {
    let sorted = |ids: &mut dyn Iterator<Item = MemberId>| ids.collect::<BTreeSet<MemberId>>();
    let (old, new) = (sorted(&mut before.incoming()), sorted(&mut after.incoming()));
    let safe = match (before.is_joint(), after.is_joint()) {
        (false, true) => sorted(&mut after.outgoing()) == old,
        (true, false) | (false, false) => old == new,
        (true, true) => false,
    };
    // Who is gone comes back as another one only.
    let returns = after.members.keys().any(|id| before.was_removed(*id));
    safe && !returns && after.epoch == before.epoch + 1
}

#[cfg(test)]
mod tests {
    use super::super::samples::{M2, N1, group, with_joining, with_learner};
    use super::*;

    fn next(membership: &Membership) -> Membership {
        Membership { epoch: membership.epoch + 1, ..membership.clone() }
    }

    fn check(
        before_at: LogIndex,
        commit: LogIndex,
        commit_term: Term,
        before: &Membership,
        after: &Membership,
    ) -> Result {
        proposed(N1, 3, (before_at, before), (9, after), (commit, Some(commit_term)))
    }

    #[test]
    fn one_step_after_the_other_is_fine() {
        let (two, learning, joint) = (group(2), next(&with_learner(2, 3)), next(&next(&with_joining(2, 3))));
        assert_eq!(check(0, 5, 3, &two, &learning), Ok(()));
        assert_eq!(check(6, 6, 3, &learning, &joint), Ok(()));
        let three = joint.settled().unwrap();
        assert_eq!(check(8, 8, 3, &joint, &three), Ok(()));
        assert_eq!(check(8, 8, 3, &three, &three.without(M2.node()).unwrap()), Ok(()));
    }

    #[test]
    fn what_counts_is_what_the_log_says() {
        assert_eq!(said(N1, 4, (5, 9), |_| false), Ok(()), "no longer kept");
        assert_eq!(said(N1, 7, (5, 9), |index| index == 7), Ok(()));
        let replaced = Violation::SaidByNobody { node: N1, since: 7, last: 9 };
        assert_eq!(said(N1, 7, (5, 9), |_| false), Err(replaced));
        assert!(said(N1, 10, (5, 9), |_| true).is_err(), "taken back");
    }

    #[test]
    fn before_the_one_before_or_an_entry_of_the_term_is_committed_is_too_early() {
        let (two, learning) = (group(2), next(&with_learner(2, 3)));
        assert!(matches!(check(7, 6, 3, &two, &learning), Err(Violation::ChangedTooEarly { before_at: 7, .. })));
        assert!(matches!(check(6, 6, 2, &two, &learning), Err(Violation::ChangedTooEarly { .. })));
    }

    #[test]
    fn what_skips_the_joint_half_or_an_epoch_or_brings_somebody_back_is_found() {
        let (two, three) = (group(2), next(&group(3)));
        assert!(matches!(check(0, 5, 3, &two, &three), Err(Violation::NoStep { .. })));
        assert!(matches!(check(0, 5, 3, &two, &next(&three)), Err(Violation::NoStep { .. })));
        assert!(matches!(check(0, 5, 3, &two, &next(&next(&two))), Err(Violation::NoStep { .. })), "an epoch");
        let mut without = two.clone();
        without.members.remove(&M2);
        without.removed.insert(M2.node(), M2.incarnation());
        let back = Membership { epoch: 2, ..with_learner(1, 2) };
        assert!(matches!(check(0, 5, 3, &without, &back), Err(Violation::NoStep { .. })), "2.1 was removed");
    }
}
