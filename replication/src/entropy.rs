//! Randomness that no seed determines; for shells only.

use std::hash::{BuildHasher, RandomState};

/// A number that nobody else has drawn.
pub(crate) fn draw() -> u64 {
    // Every `RandomState` has another key, from the system's randomness.
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_differ() {
        assert_ne!(super::draw(), super::draw());
    }
}
