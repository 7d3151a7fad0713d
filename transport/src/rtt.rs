//! How long to wait before retransmitting, after RFC 6298.

use std::time::Duration;

/// Estimates the retransmission timeout.
///
/// Smoothed round trip plus four times its variation, within [min, max]. Samples come only from exchanges of which one
/// copy was sent (Karn): an answer does not say which copy it belongs to. So that a round trip longer than the timeout
/// can be learnt at all, a timeout raises the floor for whatever is sent next to twice what was waited for, until the
/// next sample.
#[derive(Debug)]
pub struct RttEstimator {
    min: Duration,
    max: Duration,
    initial: Duration,
    measured: Option<Measured>,
    floor: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
}

impl RttEstimator {
    /// Starts from `initial`; never below `min` nor above `max`.
    pub const fn new(initial: Duration, min: Duration, max: Duration) -> Self {
        Self { min, max, initial, measured: None, floor: Duration::ZERO }
    }

    /// An exchange of one copy took `rtt`.
    pub fn sample(&mut self, rtt: Duration) {
        self.floor = Duration::ZERO;
        self.measured = Some(match self.measured {
            None => Measured { smoothed: rtt, variation: rtt / 2 },
            Some(Measured { smoothed, variation }) => Measured {
                variation: variation * 3 / 4 + smoothed.abs_diff(rtt) / 4,
                smoothed: smoothed * 7 / 8 + rtt / 8,
            },
        });
    }

    /// Waiting for `waited` was in vain.
    pub fn timed_out(&mut self, waited: Duration) {
        self.floor = self.floor.max(self.doubled(waited));
    }

    /// How long to wait for the answer to a first copy sent now.
    pub fn timeout(&self) -> Duration {
        let estimate = self.measured.map_or(self.initial, |m| m.smoothed.saturating_add(m.variation.saturating_mul(4)));
        estimate.max(self.floor).clamp(self.min, self.max)
    }

    /// The wait that follows one of `waited`.
    pub fn doubled(&self, waited: Duration) -> Duration {
        waited.saturating_mul(2).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn estimator() -> RttEstimator {
        RttEstimator::new(ms(20), ms(5), ms(500))
    }

    #[test]
    fn starts_with_the_initial_timeout_and_then_follows_rfc_6298() {
        let mut rtt = estimator();
        assert_eq!(rtt.timeout(), ms(20));
        rtt.sample(ms(40));
        assert_eq!(rtt.timeout(), ms(40 + 4 * 20));
        rtt.sample(ms(80));
        // variation = 3/4 * 20 + 1/4 * 40 = 25, smoothed = 7/8 * 40 + 1/8 * 80 = 45
        assert_eq!(rtt.timeout(), ms(45 + 4 * 25));
    }

    #[test]
    fn a_steady_round_trip_converges_and_stays_within_the_limits() {
        let mut rtt = estimator();
        for _ in 0..200 {
            rtt.sample(ms(30));
        }
        assert!(rtt.timeout() >= ms(29) && rtt.timeout() < ms(32), "{:?}", rtt.timeout());
        for _ in 0..200 {
            rtt.sample(Duration::from_micros(10));
        }
        assert_eq!(rtt.timeout(), ms(5));
        for _ in 0..200 {
            rtt.sample(Duration::MAX / 16);
        }
        assert_eq!(rtt.timeout(), ms(500));
    }

    #[test]
    fn a_timeout_backs_off_what_is_sent_next_until_a_sample() {
        let mut rtt = estimator();
        rtt.sample(ms(1));
        assert_eq!(rtt.timeout(), ms(5));
        rtt.timed_out(ms(5));
        assert_eq!(rtt.timeout(), ms(10));
        // Many operations timing out together back off once, not once each.
        rtt.timed_out(ms(5));
        assert_eq!(rtt.timeout(), ms(10));
        rtt.timed_out(ms(400));
        assert_eq!(rtt.timeout(), ms(500));
        rtt.sample(ms(1));
        assert_eq!(rtt.timeout(), ms(5));
    }
}
