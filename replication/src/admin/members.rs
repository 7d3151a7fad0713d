//! Who makes up a group, as a node tells it.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use bytes::Bytes;
use prost::Message as _;

use crate::id::{MemberId, NodeId, Term};
use crate::membership::{Member, Membership};

/// Who makes up a group, as far as the node that answers knows: the latest membership that it knows to be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembersReport {
    /// Everybody, with the epoch.
    pub membership: Membership,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// The term in which it does: the later, the truer.
    pub term: Term,
    /// Members that have lived, as far as the node knows: it has heard their processes.
    pub lived: BTreeSet<MemberId>,
}

impl MembersReport {
    /// As it is sent. Protobuf: rare, structured, and read by programs of other versions.
    pub fn encode(&self) -> Bytes {
        let leader = self.leader.map_or(0, |leader| leader.0.into());
        let lived = self.lived.iter().map(|id| id.raft()).collect();
        ReportMessage { membership: self.membership.emit(), leader, term: self.term, lived }.encode_to_vec().into()
    }

    /// Reads what came from outside. Any bytes are safe; `None` if it is no report, or names an address at which nobody
    /// can be.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = ReportMessage::decode(bytes).ok()?;
        let membership = Membership::parse(&message.membership)?;
        let addresses = membership.members.values().map(|member| member.addresses);
        let mut all = addresses.flat_map(|of| [Some(of.peers), Some(of.requests), of.group_requests]).flatten();
        if !all.all(is_host) {
            return None;
        }
        let leader = u16::try_from(message.leader).ok().map(NodeId).filter(|node| membership.of_node(*node).is_some());
        let lived = membership.members.keys().copied().filter(|id| message.lived.contains(&id.raft())).collect();
        Some(Self { membership, leader, term: message.term, lived })
    }

    /// The leader, if it is known and a member.
    pub fn leader(&self) -> Option<(MemberId, &Member)> {
        self.membership.of_node(self.leader?)
    }
}

/// Whether one host can be there.
pub(super) fn is_host(address: SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_multicast() && !ip.is_unspecified() && !ip.is_broadcast()
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReportMessage {
    /// The message that [`Membership::emit`] writes.
    #[prost(bytes = "vec", tag = "1")]
    membership: Vec<u8>,
    #[prost(uint32, tag = "2")]
    leader: u32,
    #[prost(uint64, tag = "3")]
    term: Term,
    /// As Raft's ids.
    #[prost(uint64, repeated, tag = "4")]
    lived: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::id::Incarnation;
    use crate::membership::Addresses;

    fn addresses(node: u8) -> Addresses {
        let at = |port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, node), port);
        Addresses { peers: at(3), requests: at(1), group_requests: Some(at(2)) }
    }

    fn report(change: impl Fn(u8, &mut Addresses)) -> MembersReport {
        let voter = |node: u8| {
            let mut addresses = addresses(node);
            change(node, &mut addresses);
            (MemberId::new(NodeId(node.into()), Incarnation(1)), addresses)
        };
        MembersReport {
            membership: Membership::of_voters([1, 2, 3].map(voter)),
            leader: Some(NodeId(2)),
            term: 4,
            lived: BTreeSet::new(),
        }
    }

    #[test]
    fn there_and_back() {
        let report = report(|_, _| ());
        assert_eq!(MembersReport::decode(&report.encode()), Some(report.clone()));
        assert_eq!(report.leader().map(|(id, _)| id.node()), Some(NodeId(2)));
        let nobody_leads = MembersReport { leader: None, ..report };
        assert_eq!(MembersReport::decode(&nobody_leads.encode()), Some(nobody_leads));
    }

    #[test]
    fn a_leader_who_is_no_member_is_none() {
        let report = MembersReport { leader: Some(NodeId(9)), ..report(|_, _| ()) };
        assert_eq!(MembersReport::decode(&report.encode()).unwrap().leader, None);
    }

    #[test]
    fn one_impossible_address_spoils_the_report() {
        let wrong: [fn(&mut Addresses); 4] = [
            |of| of.requests.set_port(0),
            |of| of.group_requests = Some(SocketAddrV4::new(Ipv4Addr::new(239, 0, 0, 1), 5)),
            |of| of.peers.set_ip(Ipv4Addr::UNSPECIFIED),
            |of| of.requests.set_ip(Ipv4Addr::BROADCAST),
        ];
        for change in wrong {
            let report = report(|node, of| {
                if node == 2 {
                    change(of)
                }
            });
            assert_eq!(MembersReport::decode(&report.encode()), None);
        }
        let without = report(|_, of| of.group_requests = None);
        assert!(MembersReport::decode(&without.encode()).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(report) = MembersReport::decode(&bytes) {
                prop_assert_eq!(MembersReport::decode(&report.encode()), Some(report));
            }
        }

        #[test]
        fn damaged_reports_are_safe(at in any::<prop::sample::Index>(), byte: u8, cut in 0..40usize) {
            let mut bytes = report(|_, _| ()).encode().to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(bytes.len() - cut);
            if let Some(report) = MembersReport::decode(&bytes) {
                prop_assert_eq!(MembersReport::decode(&report.encode()), Some(report));
            }
        }
    }
}
