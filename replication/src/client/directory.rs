//! Who the nodes are, as far as a client knows.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use multicast::Group;

use crate::id::NodeId;
use crate::membership::Membership;

/// Most addresses remembered of nodes that were learnt about, beside those that the client was told at first.
const LEARNT_MAX: usize = 64;

/// Who the nodes are, and who they were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Directory {
    epoch: u64,
    /// Those who vote, and where each receives requests for it alone.
    nodes: Vec<(NodeId, SocketAddrV4)>,
    group: Group,
    group_stays: bool,
    /// The addresses that the client was told at first: the last resort, never forgotten.
    seeds: Vec<SocketAddrV4>,
    /// Other addresses, the one learnt last at the end.
    learnt: VecDeque<SocketAddrV4>,
}

impl Directory {
    pub(super) fn new(epoch: u64, nodes: Vec<(NodeId, SocketAddrV4)>, group: Group, group_stays: bool) -> Self {
        let seeds = nodes.iter().map(|(_, address)| *address).collect();
        Self { epoch, nodes, group, group_stays, seeds, learnt: VecDeque::new() }
    }

    /// Takes in a membership, if it is newer. Says whether it was.
    pub(super) fn learn(&mut self, membership: &Membership) -> bool {
        if membership.epoch <= self.epoch {
            return false;
        }
        self.epoch = membership.epoch;
        let address = |id| membership.get(id).map(|member| member.addresses.requests);
        self.nodes = membership.voters().filter_map(|id| Some((id.node(), address(id)?))).collect();
        let all = membership.members.values().map(|member| member.addresses);
        if let Group::Unicast { members } = &mut self.group
            && !self.group_stays
        {
            // Learners too: they will need the bodies.
            *members = all.clone().map(|of| of.group_requests.unwrap_or(of.requests)).collect();
        }
        for address in all.map(|of| of.requests).filter(|address| !self.seeds.contains(address)) {
            self.learnt.retain(|known| *known != address);
            self.learnt.push_back(address);
        }
        let excess = self.learnt.len().saturating_sub(LEARNT_MAX);
        self.learnt.drain(..excess);
        true
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn nodes(&self) -> &[(NodeId, SocketAddrV4)] {
        &self.nodes
    }

    /// Where each node receives requests for it alone.
    pub(super) fn addresses(&self) -> Vec<SocketAddrV4> {
        self.nodes.iter().map(|(_, address)| *address).collect()
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// One of all nodes there ever were; each once in [`Directory::known_len`] turns, those learnt last first.
    pub(super) fn known(&self, turn: usize) -> Option<SocketAddrV4> {
        let turn = turn.checked_rem(self.known_len())?;
        self.learnt.iter().rev().chain(&self.seeds).nth(turn).copied()
    }

    pub(super) fn known_len(&self) -> usize {
        self.learnt.len() + self.seeds.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use multicast::Interface;

    use super::*;
    use crate::id::{Incarnation, MemberId};
    use crate::membership::Addresses;

    fn at(node: u16, port: u16) -> SocketAddrV4 {
        let [high, low] = node.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(10, 0, high, low), port)
    }

    fn membership(epoch: u64, nodes: impl IntoIterator<Item = u16>) -> Membership {
        let voter = |node| {
            let addresses = Addresses { peers: at(node, 3), requests: at(node, 1), group_requests: Some(at(node, 2)) };
            (MemberId::new(NodeId(node), Incarnation(1)), addresses)
        };
        Membership { epoch, ..Membership::of_voters(nodes.into_iter().map(voter)) }
    }

    fn directory() -> Directory {
        let group = Group::Unicast { members: vec![at(1, 2), at(2, 2)] };
        Directory::new(0, vec![(NodeId(1), at(1, 1)), (NodeId(2), at(2, 1))], group, false)
    }

    fn known(directory: &Directory) -> Vec<SocketAddrV4> {
        (0..directory.known_len()).filter_map(|turn| directory.known(turn)).collect()
    }

    #[test]
    fn only_a_newer_membership_counts() {
        let mut directory = directory();
        assert!(directory.learn(&membership(4, [2, 3])));
        assert_eq!(directory.nodes(), [(NodeId(2), at(2, 1)), (NodeId(3), at(3, 1))]);
        assert_eq!(directory.group().receivers(), [at(2, 2), at(3, 2)]);
        let before = directory.clone();
        assert!(!directory.learn(&membership(4, [7])));
        assert!(!directory.learn(&membership(3, [7])));
        assert_eq!(directory, before);
    }

    #[test]
    fn everybody_gets_what_is_for_all_and_voters_what_is_for_one() {
        let mut directory = directory();
        let (_, mut next) = membership(1, [1, 2])
            .with_learner(
                NodeId(3),
                membership(1, [3]).members.values().next().unwrap().addresses,
                true,
                Incarnation(0),
            )
            .unwrap();
        next.members.values_mut().for_each(|member| {
            if member.addresses.requests == at(2, 1) {
                member.addresses.group_requests = None;
            }
        });
        assert!(directory.learn(&next));
        assert_eq!(directory.addresses(), [at(1, 1), at(2, 1)]);
        let receivers = directory.group().receivers();
        assert_eq!(receivers, [at(1, 2), at(2, 1), at(3, 2)], "without a port for what is for all, the other");
    }

    #[test]
    fn a_multicast_group_stays() {
        let group = Group::Multicast {
            address: SocketAddrV4::new(Ipv4Addr::new(239, 1, 1, 1), 5),
            interface: Interface::Loopback,
        };
        let mut directory = Directory::new(0, vec![(NodeId(1), at(1, 1))], group.clone(), false);
        assert!(directory.learn(&membership(2, [4, 5, 6])));
        assert_eq!(directory.group(), &group);
        assert_eq!(directory.addresses(), [at(4, 1), at(5, 1), at(6, 1)]);
    }

    #[test]
    fn a_gateway_stays() {
        let group = Group::Unicast { members: vec![at(9, 9)] };
        let mut directory = Directory::new(0, vec![(NodeId(1), at(1, 1))], group.clone(), true);
        assert!(directory.learn(&membership(2, [4, 5, 6])));
        assert_eq!(directory.group(), &group);
        assert_eq!(directory.addresses(), [at(4, 1), at(5, 1), at(6, 1)]);
    }

    #[test]
    fn seeds_are_never_forgotten_and_others_at_the_limit() {
        let mut directory = directory();
        directory.learn(&membership(1, [1, 2, 3]));
        assert_eq!(known(&directory), [at(3, 1), at(1, 1), at(2, 1)]);
        for epoch in 2..=(LEARNT_MAX as u64) {
            directory.learn(&membership(epoch, [epoch as u16 + 2]));
        }
        assert_eq!(directory.known_len(), LEARNT_MAX + 2);
        assert!(known(&directory).contains(&at(3, 1)));
        directory.learn(&membership(1000, [1000]));
        assert_eq!(directory.known_len(), LEARNT_MAX + 2);
        assert!(!known(&directory).contains(&at(3, 1)), "the oldest has gone");
        let all = known(&directory);
        assert_eq!((all[0], &all[LEARNT_MAX..]), (at(1000, 1), &[at(1, 1), at(2, 1)][..]));
        directory.learn(&membership(1001, [4]));
        assert_eq!((directory.known_len(), directory.known(0)), (LEARNT_MAX + 2, Some(at(4, 1))), "each is known once");
    }
}
