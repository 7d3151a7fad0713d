//! The 128-bit keyed hash that names a request's bytes (protocol.md §1 "digest").

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Keyed hash over an operation's name and body; on the wire 16 bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

/// The key of [`digest`]: all clients and nodes of a group must use the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey([u8; 16]);

/// SipHash-1-3-128 (its first half being the lower 64 bits) over three words in little-endian order and then `body`. The words are 1, client id and seq for an
/// operation of a session, and three zeroes without one, so that no two operations share the bytes that are hashed.
///
/// First-unacknowledged is not covered: it differs between retransmissions of one operation.
pub fn digest(key: &DigestKey, session: Option<(u64, u64)>, body: &[u8]) -> Digest {
    let words = session.map_or([0, 0, 0], |(client, seq)| [1, client, seq]);
    let mut prefix = [0; 24];
    for (bytes, word) in prefix.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut hasher = SipHasher13::new_with_key(&key.0);
    hasher.write(&prefix);
    hasher.write(body);
    // Not `as_u128`, which swaps bytes on big-endian machines.
    let hash = hasher.finish128();
    Digest(u128::from(hash.h1) | u128::from(hash.h2) << 64)
}

impl DigestKey {
    /// A key of 16 bytes.
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl Default for DigestKey {
    /// The fixed, published key `"R2P2 digest key "`, for as long as R2P2 has no authentication: a digest under it
    /// detects mixed-up packets and other accidents, not an attacker (protocol.md §10).
    fn default() -> Self {
        Self(*b"R2P2 digest key ")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Debug for DigestKey {
    /// Says nothing: keys do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From another implementation of SipHash, checked against the published vector of SipHash-2-4-128.
    #[test]
    fn known_answers() {
        let key = DigestKey::default();
        let long: Vec<u8> = (0..4000).map(|at| (at % 251) as u8).collect();
        let answers = [
            (None, &b""[..], 0x8568d546c576b06af75ae17401d68a39),
            (None, b"set k v", 0xaf766e00313896470c02f29be2197c01),
            (Some((7, 8)), b"set k v", 0x3e194896ec231cebcb905a88f3153401),
            (Some((7, 8)), &long, 0xd12bd73699d90d99511409182c08e572),
        ];
        for (session, body, answer) in answers {
            assert_eq!(digest(&key, session, body), Digest(answer));
        }
    }

    #[test]
    fn covers_key_session_and_body() {
        let key = DigestKey::default();
        let all = [
            digest(&key, None, b""),
            digest(&key, Some((0, 0)), b""),
            digest(&key, Some((0, 1)), b""),
            digest(&key, Some((1, 0)), b""),
            digest(&key, None, b"\0"),
            digest(&key, None, &[0; 24]),
            digest(&DigestKey::new([0; 16]), None, b""),
        ];
        let different: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", DigestKey::default()), "DigestKey(..)");
        assert_eq!(format!("{}", Digest(0xab)), "000000000000000000000000000000ab");
    }
}
