use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::*;

fn addresses(node: u16) -> Addresses {
    let at = |port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node as u8), port);
    Addresses { peers: at(1), requests: at(2), group_requests: node.is_multiple_of(2).then(|| at(3)) }
}

fn id(node: u16, incarnation: u32) -> MemberId {
    MemberId::new(NodeId(node), Incarnation(incarnation))
}

fn three() -> Membership {
    Membership::of_voters((1..=3).map(|node| (id(node, 1), addresses(node))))
}

fn quorum(membership: &Membership, nodes: &[u16]) -> bool {
    let those: BTreeSet<MemberId> =
        membership.members.keys().copied().filter(|id| nodes.contains(&id.node().0)).collect();
    membership.is_quorum(&those)
}

#[test]
fn a_node_is_replaced_step_by_step() {
    let joint = three().without(NodeId(3)).unwrap();
    assert!(joint.is_joint());
    assert_eq!(joint.outgoing().count(), 3);
    assert_eq!(joint.incoming().count(), 2);
    assert_eq!(joint.without(NodeId(2)), Err(ChangeError::UnderWay));
    let two = joint.settled().unwrap();
    assert_eq!((two.epoch, two.is_joint(), two.settled()), (3, false, None));
    assert!(two.was_removed(id(3, 1)) && !two.was_removed(id(3, 2)) && !two.was_removed(id(1, 1)));
    let (new, learning) = two.with_learner(NodeId(3), addresses(3), true, Incarnation(0)).unwrap();
    assert_eq!(new, id(3, 2), "the same node, another life");
    assert!(learning.was_removed(id(3, 1)));
    assert_eq!(learning.voters().count(), 2, "a learner does not vote");
    assert!(!quorum(&learning, &[1, 3]), "nor count");
    let joint = learning.promoting(new).unwrap();
    assert!(quorum(&joint, &[1, 2]) && !quorum(&joint, &[1, 3]), "both majorities are asked");
    let done = joint.settled().unwrap();
    assert!(quorum(&done, &[1, 3]) && done.is_plain_three());
    assert_eq!(done.epoch, 6);
}

#[test]
fn two_majorities_decide_while_a_voter_leaves() {
    let joint = three().without(NodeId(3)).unwrap();
    assert!(quorum(&joint, &[1, 2]));
    assert!(!quorum(&joint, &[1, 3]), "one of the two that stay is no majority of them");
    assert!(!joint.is_plain_three());
}

#[test]
fn refusals_are_clear() {
    let three = three();
    assert_eq!(three.without(NodeId(9)), Err(ChangeError::Unknown(NodeId(9))));
    assert_eq!(
        three.with_learner(NodeId(1), addresses(8), true, Incarnation(0)),
        Err(ChangeError::AlreadyMember(id(1, 1)))
    );
    assert_eq!(
        three.with_learner(NodeId(8), addresses(1), true, Incarnation(0)),
        Err(ChangeError::AddressTaken(id(1, 1)))
    );
    assert_eq!(three.promoting(id(1, 1)), Err(ChangeError::AlreadyMember(id(1, 1))));
    assert_eq!(three.promoting(id(1, 2)), Err(ChangeError::Unknown(NodeId(1))));
    let one = Membership::of_voters([(id(1, 1), addresses(1))]);
    assert_eq!(one.without(NodeId(1)), Err(ChangeError::LastVoter(id(1, 1))));
    let (_, one_and_learner) = one.with_learner(NodeId(2), addresses(2), false, Incarnation(0)).unwrap();
    assert_eq!(one_and_learner.without(NodeId(1)), Err(ChangeError::LastVoter(id(1, 1))), "a learner is no voter");
}

#[test]
fn who_goes_on_alone_has_buried_the_others() {
    let alone = three().without(NodeId(1)).unwrap().alone(id(1, 1)).unwrap();
    assert_eq!(alone.voters().collect::<Vec<_>>(), [id(1, 1)]);
    assert!(!alone.is_joint() && alone.was_removed(id(2, 1)) && alone.was_removed(id(3, 1)));
    assert!(alone.epoch > 1 << 32);
    assert_eq!(Membership::parse(&alone.emit()), Some(alone));
    assert_eq!(three().alone(id(9, 1)), None);
}

#[test]
fn a_group_founded_anew_knows_nobody_of_the_old_one() {
    let old = three().without(NodeId(3)).unwrap().settled().unwrap();
    let new = old.refounded([1, 3, 4].map(|node| (NodeId(node), addresses(node))));
    assert_eq!(new.voters().collect::<Vec<_>>(), [id(1, 65_537), id(3, 65_537), id(4, 65_536)]);
    assert!((1..=3).all(|node| new.was_removed(id(node, 1))) && !new.was_removed(id(4, 65_536)));
    assert_eq!(Membership::parse(&new.emit()), Some(new));
}

#[test]
fn as_many_as_there_may_be_and_one_more() {
    let mut full = Membership::of_voters([(id(1, 1), addresses(1))]);
    for node in 2..=MEMBERS_MAX as u16 {
        full = full.with_learner(NodeId(node), addresses(node), false, Incarnation(0)).unwrap().1;
    }
    assert_eq!(Membership::parse(&full.emit()).as_ref(), Some(&full));
    assert_eq!(full.with_learner(NodeId(99), addresses(99), false, Incarnation(0)), Err(ChangeError::Full));
}

/// A membership after any steps.
fn memberships() -> impl Strategy<Value = Membership> {
    proptest::collection::vec((0..4u8, 1..9u16), 0..40).prop_map(|steps| {
        let mut membership = three();
        for (step, node) in steps {
            let next = match step {
                0 => membership
                    .with_learner(NodeId(node), addresses(node), node % 3 == 0, Incarnation(0))
                    .map(|(_, next)| next)
                    .ok(),
                1 => membership.without(NodeId(node)).ok(),
                2 => membership.of_node(NodeId(node)).and_then(|(id, _)| membership.promoting(id).ok()),
                _ => membership.settled(),
            };
            membership = next.unwrap_or(membership);
        }
        membership
    })
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(membership in memberships()) {
        prop_assert_eq!(Membership::parse(&membership.emit()), Some(membership));
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(membership) = Membership::parse(&bytes) {
            prop_assert!(membership.voters().next().is_some());
        }
    }

    #[test]
    fn damaged_bytes_never_panic(membership in memberships(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = membership.emit();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = Membership::parse(&bytes);
    }

    /// What makes changes safe: those who may decide before a step and those who may decide after it have somebody in
    /// common, whoever they are.
    #[test]
    fn majorities_before_and_after_a_step_meet(membership in memberships(), step in 0..4u8, node in 1..9u16) {
        let next = match step {
            0 => membership.with_learner(NodeId(node), addresses(node), false, Incarnation(0)).map(|(_, next)| next).ok(),
            1 => membership.without(NodeId(node)).ok(),
            2 => membership.of_node(NodeId(node)).and_then(|(id, _)| membership.promoting(id).ok()),
            _ => membership.settled(),
        };
        let Some(next) = next else { return Ok(()) };
        prop_assert_eq!(next.epoch, membership.epoch + 1);
        let all: Vec<MemberId> = membership.members.keys().chain(next.members.keys()).copied().collect::<BTreeSet<_>>().into_iter().collect();
        for set in 0..1u32 << all.len() {
            let those: BTreeSet<MemberId> = all.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, id)| *id).collect();
            let others: BTreeSet<MemberId> = all.iter().copied().filter(|id| !those.contains(id)).collect();
            prop_assert!(!(membership.is_quorum(&those) && next.is_quorum(&others)), "{:?} and {:?} decide apart", those, others);
        }
    }
}
