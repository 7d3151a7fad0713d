//! The one place that reads a clock.

use crate::Instant;

/// Monotonic time (CLOCK_MONOTONIC), counted from the creation of the clock. Copies share their zero.
///
/// A process makes one and hands copies to whoever drives cores, so that all its instants can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: std::time::Instant,
}

impl Clock {
    /// A clock that says [`Instant::ZERO`] now.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn new() -> Self {
        Self { zero: std::time::Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.zero.elapsed()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_their_zero_and_never_go_back() {
        let clock = Clock::new();
        let copy = clock;
        let mut last = Instant::ZERO;
        for _ in 0..1000 {
            for now in [clock.now(), copy.now()] {
                assert!(last <= now);
                last = now;
            }
        }
    }
}
