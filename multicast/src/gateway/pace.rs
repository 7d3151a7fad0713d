//! How much a group can answer in a given time.
//!
//! By Little's law, what is in flight divided by the rate of answers is how long an answer takes. So the limit on what is in
//! flight is that rate times the target. The rate is the highest of the last few windows, as in BBR: a window in which too
//! little was asked for says nothing about how much could have been answered, and counts only if it shows more than is known.
//! If less is in flight than the group could work on at once, each window shows more than the one before (as long as the
//! target is above what an answer takes at least), so the limit finds its way up from anywhere; and when the group slows
//! down, what it could do earlier is forgotten after [`WINDOWS`] windows.

use std::time::Duration;

use r2p2::Instant;

/// Over how long answers are counted.
const WINDOW: Duration = Duration::from_millis(10);
/// How many windows are remembered.
const WINDOWS: usize = 10;
/// The least that may be in flight: without any, nothing would ever be answered.
const FLOOR: usize = 16;

#[derive(Debug)]
pub(super) struct Pace {
    target: Duration,
    ceiling: usize,
    /// When the current window began; none before the first request.
    began: Option<Instant>,
    completed: u64,
    /// Whether something was refused in this window: the group had all that it was permitted to have.
    saturated: bool,
    /// Answers per second in the last windows, and where the next goes.
    rates: [f64; WINDOWS],
    next: usize,
    limit: usize,
}

impl Pace {
    pub(super) fn new(target: Duration, ceiling: usize) -> Self {
        Self {
            target,
            ceiling,
            began: None,
            completed: 0,
            saturated: false,
            rates: [0.0; WINDOWS],
            next: 0,
            limit: ceiling,
        }
    }

    /// How many requests may be in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A request wants to pass; `refused` if it may not.
    pub(super) fn wanted(&mut self, now: Instant, refused: bool) {
        self.roll(now);
        self.saturated |= refused;
    }

    /// A request was answered.
    pub(super) fn completed(&mut self, now: Instant) {
        self.roll(now);
        self.completed += 1;
    }

    fn roll(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.since(began);
        if elapsed < WINDOW {
            return;
        }
        let rate = self.completed as f64 / elapsed.as_secs_f64();
        // A long window is as many as would have fitted.
        let windows = (elapsed.as_nanos() / WINDOW.as_nanos()).min(WINDOWS as u128) as usize;
        if self.saturated || rate > self.highest() {
            for _ in 0..windows {
                self.rates[self.next] = rate;
                self.next = (self.next + 1) % WINDOWS;
            }
            let limit = self.highest() * self.target.as_secs_f64();
            self.limit = (limit as usize).clamp(FLOOR.min(self.ceiling), self.ceiling);
        }
        (self.began, self.completed, self.saturated) = (Some(now), 0, false);
    }

    fn highest(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A server that answers one request every `service`, and each at the earliest after `least`. Offers it a request
    /// every `interval` for `duration`. Gives the answers per second and the longest an answer took, in the second half.
    fn run(
        pace: &mut Pace,
        start: Duration,
        service: Duration,
        least: Duration,
        interval: Duration,
        duration: Duration,
    ) -> (f64, Duration) {
        let begin = Instant::ZERO + start;
        let (mut now, mut free_at) = (begin, begin);
        let mut in_flight: VecDeque<(Instant, Instant)> = VecDeque::new();
        let (mut answered, mut longest) = (0, Duration::ZERO);
        while now < begin + duration {
            while let Some(&(sent, done)) = in_flight.front().filter(|(_, done)| *done <= now) {
                in_flight.pop_front();
                pace.completed(done);
                if done >= begin + duration / 2 {
                    answered += 1;
                    longest = longest.max(done.since(sent));
                }
            }
            let refused = in_flight.len() >= pace.limit();
            pace.wanted(now, refused);
            if !refused {
                free_at = free_at.max(now) + service;
                in_flight.push_back((now, free_at.max(now + least)));
            }
            now += interval;
        }
        (answered as f64 / (duration / 2).as_secs_f64(), longest)
    }

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn overload_is_refused_so_that_answers_come_in_time() {
        let target = Duration::from_millis(5);
        let mut pace = Pace::new(target, 100_000);
        // It can do 100 000/s and is offered 300 000/s.
        let (rate, longest) =
            run(&mut pace, Duration::ZERO, 10 * MICRO, 100 * MICRO, 3 * MICRO, Duration::from_secs(1));
        assert!(rate > 98_000.0, "{rate}");
        assert!(longest < target * 13 / 10, "{longest:?}");
    }

    #[test]
    fn the_limit_finds_its_way_up_and_down() {
        let target = Duration::from_millis(5);
        let mut pace = Pace::new(target, 100_000);
        let second = Duration::from_secs(1);
        let (rate, _) = run(&mut pace, Duration::ZERO, 10 * MICRO, 100 * MICRO, 2000 * MICRO, second);
        assert!(rate < 510.0 && pace.limit() == FLOOR, "{rate} {}", pace.limit());
        let (rate, _) = run(&mut pace, second, 10 * MICRO, 100 * MICRO, 3 * MICRO, second);
        assert!(rate > 98_000.0, "{rate}");
        let (rate, longest) = run(&mut pace, 2 * second, 100 * MICRO, 200 * MICRO, 3 * MICRO, second);
        assert!(rate > 9800.0 && longest < target * 13 / 10, "{rate} {longest:?}");
    }

    #[test]
    fn the_limit_at_its_bounds() {
        let mut pace = Pace::new(Duration::from_millis(5), 8);
        run(&mut pace, Duration::ZERO, MICRO, MICRO, MICRO, Duration::from_millis(100));
        assert_eq!(pace.limit(), 8);
        // A group that answers nothing.
        let mut pace = Pace::new(Duration::from_millis(5), 1000);
        for ms in 0..300 {
            pace.wanted(Instant::ZERO + Duration::from_millis(ms), true);
        }
        assert_eq!(pace.limit(), FLOOR);
    }
}
