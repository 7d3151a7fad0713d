//! A hash map from request identities, without randomness.

use std::collections::HashMap;

use ahash::RandomState;
use r2p2::Digest;

/// A hash map from request identities. Never iterated (the order would be an accident); seeded with constants, because
/// identities are keyed hashes already.
pub(crate) type DigestMap<V> = HashMap<Digest, V, RandomState>;

pub(crate) fn digest_map<V>() -> DigestMap<V> {
    DigestMap::with_hasher(RandomState::with_seeds(0x6861_7368, 0x206f_6620, 0x6120_6861, 0x7368_2121))
}
