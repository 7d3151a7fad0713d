//! One direction of a host's link: a queue that empties at the link's rate.

use std::time::Duration;

use r2p2::Instant;

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// When everything in the queue has passed.
    free: Instant,
}

impl Link {
    /// A datagram of `len` bytes joins the queue of a link of `bandwidth` bits per second. Returns when it has passed, or
    /// nothing if it would make more than `queue_max` bytes wait, the one that is passing included.
    pub(super) fn pass(&mut self, now: Instant, len: usize, bandwidth: u64, queue_max: usize) -> Option<Instant> {
        let free = self.free.max(now) + time_of(len, bandwidth);
        if free.since(now) > time_of(queue_max, bandwidth) {
            return None;
        }
        self.free = free;
        Some(free)
    }
}

/// How long so many bytes take; a part of a nanosecond counts as one.
fn time_of(len: usize, bandwidth: u64) -> Duration {
    let bits = len as u128 * 8;
    let nanos = (bits * 1_000_000_000).div_ceil(u128::from(bandwidth.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABIT: u64 = 1_000_000_000;
    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_gigabit_spaces_datagrams_of_1500_bytes_by_12_microseconds() {
        let mut link = Link::default();
        for at in 1..=10 {
            assert_eq!(link.pass(Instant::ZERO, 1500, GIGABIT, usize::MAX), Some(Instant::ZERO + at * 12 * US));
        }
        let idle = Instant::ZERO + 1000 * US;
        assert_eq!(link.pass(idle, 1500, GIGABIT, usize::MAX), Some(idle + 12 * US), "an empty queue delays nobody");
    }

    #[test]
    fn at_the_limit_is_queued_and_one_byte_past_it_is_dropped() {
        let mut link = Link::default();
        assert!(link.pass(Instant::ZERO, 1500, GIGABIT, 3000).is_some());
        assert_eq!(link.pass(Instant::ZERO, 1501, GIGABIT, 3000), None);
        assert_eq!(link.pass(Instant::ZERO, 1500, GIGABIT, 3000), Some(Instant::ZERO + 24 * US));
        assert_eq!(link.pass(Instant::ZERO, 1, GIGABIT, 3000), None);
        let later = Instant::ZERO + 12 * US;
        assert_eq!(link.pass(later, 1500, GIGABIT, 3000), Some(later + 24 * US), "one has left");
    }

    #[test]
    fn a_slow_link_rounds_up_and_no_length_overflows() {
        assert_eq!(time_of(1, 3 * GIGABIT), Duration::from_nanos(3));
        assert_eq!(time_of(usize::MAX, 1), Duration::from_nanos(u64::MAX));
        assert_eq!(time_of(0, 1), Duration::ZERO);
    }
}
