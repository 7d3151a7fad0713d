//! What the core itself must find again with a snapshot. Network byte order:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | version ([`VERSION`]) |
//! | 8, 8 | index and term of the last entry |
//! | 8 | a term in which that was known to be committed: that of the node that took the snapshot |
//! | 8 | the latest time of any entry, in nanoseconds of log time |
//! | 4, n | the membership there: length, bytes |
//! | 4 | the version of the service in force there |
//! | 4 | number of plain requests |
//! | 4, 2, 8, 16 each | plain requests ordered lately, the oldest first: address, port, age in nanoseconds, identity |

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use r2p2::{Digest, Instant};

use crate::id::{LogIndex, Term};
use crate::membership::Membership;

/// The format that this version writes, and the only one it reads.
pub(super) const VERSION: u16 = 1;

/// Most plain requests that go along. A copy of an older one may be executed again by a node that has begun from a
/// snapshot; who needs more uses a session.
pub(super) const PLAIN_MAX: usize = 65_536;

/// Bytes before the membership.
const HEAD_LEN: usize = 2 + 4 * 8;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) struct Meta {
    pub(in crate::node) index: LogIndex,
    pub(in crate::node) term: Term,
    /// Whoever leads this term or a later one has the entry; an earlier leader may not know that it is committed, and have
    /// another one there.
    pub(in crate::node) known_in: Term,
    pub(in crate::node) log_time: Instant,
    pub(in crate::node) membership: Membership,
    pub(in crate::node) version: u32,
    pub(in crate::node) plain: Vec<(SocketAddrV4, Digest, Duration)>,
}

impl Meta {
    pub(super) fn emit(&self) -> Bytes {
        let membership = self.membership.emit();
        let mut to = Vec::with_capacity(HEAD_LEN + 12 + membership.len() + 30 * self.plain.len());
        to.put_u16(VERSION);
        for number in [self.index, self.term, self.known_in, self.log_time.as_nanos()] {
            to.put_u64(number);
        }
        to.put_u32(membership.len() as u32);
        to.put_slice(&membership);
        to.put_u32(self.version);
        to.put_u32(self.plain.len() as u32);
        for (client, identity, age) in &self.plain {
            to.put_slice(&client.ip().octets());
            to.put_u16(client.port());
            to.put_u64(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
            to.put_u128(identity.0);
        }
        to.into()
    }

    /// From bytes; `None` if they are not what some node of this version wrote.
    pub(in crate::node) fn parse(mut from: &[u8]) -> Option<Self> {
        if !is_readable(from) {
            return None;
        }
        from.advance(2);
        let mut number = || from.try_get_u64().ok();
        let (index, term, known_in, log_time) = (number()?, number()?, number()?, number()?);
        let membership_len = from.try_get_u32().ok()? as usize;
        let (membership, mut from) = from.split_at_checked(membership_len)?;
        let membership = Membership::parse(membership)?;
        let version = from.try_get_u32().ok()?;
        let count = from.try_get_u32().ok()? as usize;
        if from.len() != count.checked_mul(30)? || known_in < term {
            return None;
        }
        let plain = (0..count).map(|_| {
            let ip = Ipv4Addr::from(from.try_get_u32().ok()?);
            let client = SocketAddrV4::new(ip, from.try_get_u16().ok()?);
            let age = Duration::from_nanos(from.try_get_u64().ok()?);
            Some((client, Digest(from.try_get_u128().ok()?), age))
        });
        let plain = plain.collect::<Option<_>>()?;
        Some(Self { index, term, known_in, log_time: Instant::from_nanos(log_time), membership, version, plain })
    }
}

/// The same, of another group that begins where this one was: with members of its own, and without what only this one's
/// clients could still send. Also the term of its first entry's predecessor, which its members have seen.
pub(crate) fn refounded(
    meta: &[u8],
    membership: &dyn Fn(&Membership) -> Membership,
) -> Option<(Bytes, Membership, Term)> {
    let meta = Meta::parse(meta)?;
    let membership = membership(&meta.membership);
    let known_in = meta.known_in;
    let founded = Meta { membership: membership.clone(), plain: Vec::new(), ..meta };
    Some((founded.emit(), membership, known_in))
}

/// Whether bytes begin like metadata that this version can read.
pub(super) fn is_readable(from: &[u8]) -> bool {
    version_of(from) == Some(VERSION)
}

/// The version that wrote these bytes, if they are long enough to say.
pub(super) fn version_of(mut from: &[u8]) -> Option<u16> {
    from.try_get_u16().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Incarnation, MemberId, NodeId};
    use crate::membership::Addresses;
    use crate::snapshot::SnapshotInfo;
    use crate::storage::StorageError;

    fn sample() -> Meta {
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let member = MemberId::new(NodeId(1), Incarnation(2));
        let addresses = Addresses { peers: at(1), requests: at(2), group_requests: None };
        Meta {
            index: 7,
            term: 3,
            known_in: 4,
            log_time: Instant::from_nanos(99),
            membership: Membership::of_voters([(member, addresses)]),
            version: 2,
            plain: vec![(at(9), Digest(5), Duration::from_nanos(3)), (at(8), Digest(6), Duration::ZERO)],
        }
    }

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_less() {
        let bytes = sample().emit();
        assert_eq!(Meta::parse(&bytes), Some(sample()));
        for len in 0..bytes.len() {
            assert_eq!(Meta::parse(&bytes[..len]), None);
        }
        assert_eq!(Meta::parse(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn another_version_is_not_read() {
        let mut bytes = sample().emit().to_vec();
        assert!(is_readable(&bytes));
        bytes[1] += 1;
        assert!(!is_readable(&bytes) && Meta::parse(&bytes).is_none());
        let info = SnapshotInfo { id: 1, index: sample().index, term: sample().term, len: 9 };
        let newer = Err(StorageError::Version { found: 2, known: VERSION });
        assert_eq!(super::super::parse(&info, Some(&bytes)), newer);
        assert_eq!(super::super::parse(&info, Some(&sample().emit())), Ok(sample()));
        assert!(matches!(super::super::parse(&info, Some(&[])), Err(StorageError::Damaged(_))));
    }

    #[test]
    fn what_is_of_a_later_term_than_it_was_known_in_is_refused() {
        let wrong = Meta { known_in: 2, ..sample() };
        assert_eq!(Meta::parse(&wrong.emit()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), like in any::<bool>()) {
            if like && bytes.len() > 2 {
                bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
            }
            _ = Meta::parse(&bytes);
        }
    }
}
