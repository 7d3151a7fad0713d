//! Whose a store is.
//!
//! | bytes, big-endian | what |
//! |---|---|
//! | 2 | version ([`VERSION`]) |
//! | 4, 8, 8 | group, member, life |
//! | n | the membership at first; nothing if a program made the store that did not keep it |
//! | 8 | checksum over everything before |

use bytes::BufMut;

use super::{StorageError, codec};
use crate::id::{GroupId, MemberId};
use crate::membership::Membership;

/// The format that this version writes.
const VERSION: u16 = 2;

const HEAD_LEN: usize = 22;
const CHECKSUM_LEN: usize = 8;

/// Whose a store is, since it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// In which group.
    pub group: GroupId,
    /// Which member.
    pub member: MemberId,
    /// Which storage this is: drawn once, when it was made (protocol.md §7.5).
    pub life: u64,
    /// Who belonged to the group where this member's log begins, as far as it was told; `None` in stores that version 1 made. Kept
    /// because a configuration that has been edited since must not change who elects whom.
    pub membership: Option<Membership>,
}

impl Identity {
    /// As it is stored.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.put_u16(VERSION);
        to.put_u32(self.group.0);
        to.put_u64(self.member.raft());
        to.put_u64(self.life);
        to.extend(self.membership.iter().flat_map(Membership::emit));
        let sum = codec::checksum(&to);
        to.put_u64(sum);
        to
    }

    /// Reads what was stored.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, StorageError> {
        let damaged = || StorageError::Damaged("the identity is not what was written".to_owned());
        let len = bytes.len().checked_sub(CHECKSUM_LEN).filter(|len| *len >= HEAD_LEN).ok_or_else(damaged)?;
        let u64_at = |at: usize| bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        if codec::checksum(&bytes[..len]) != u64_at(len) {
            return Err(damaged());
        }
        let version = u16::from_be_bytes([bytes[0], bytes[1]]);
        let membership = match version {
            VERSION if len == HEAD_LEN => None,
            VERSION => Some(Membership::parse(&bytes[HEAD_LEN..len]).ok_or_else(damaged)?),
            found => return Err(StorageError::Version { found, known: VERSION }),
        };
        let group = GroupId(u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]));
        Ok(Self { group, member: MemberId::from_raft(u64_at(6)), life: u64_at(14), membership })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};
    use crate::membership::Addresses;

    fn identity() -> Identity {
        let member = MemberId::new(NodeId(3), Incarnation(2));
        let address = "10.0.0.3:7420".parse().unwrap();
        let addresses = Addresses { peers: address, requests: address, group_requests: None };
        let membership = Some(Membership::of_voters([(member, addresses)]));
        Identity { group: GroupId(7), member, life: 0x0102_0304_0506_0708, membership }
    }

    #[test]
    fn there_and_back_and_any_changed_bit_is_found() {
        let bytes = identity().emit();
        assert_eq!(Identity::parse(&bytes), Ok(identity()));
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::parse(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Identity::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn any_other_version_is_named_and_the_membership_may_be_missing() {
        let stored = |version: u16| {
            let mut bytes = version.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
            let sum = codec::checksum(&bytes);
            bytes.put_u64(sum);
            bytes
        };
        let old = Identity { membership: None, ..identity() };
        assert_eq!(Identity::parse(&stored(2)), Ok(old.clone()));
        assert_eq!(Identity::parse(&old.emit()), Ok(old));
        for found in [1, 3] {
            assert_eq!(Identity::parse(&stored(found)), Err(StorageError::Version { found, known: 2 }));
        }
    }
}
