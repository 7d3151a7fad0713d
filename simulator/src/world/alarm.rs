//! When a process wants to be woken, and the one event that will wake it.
//!
//! Deadlines mostly move away: each answer puts off the next retransmission. So an event that comes too early stays in
//! the schedule and is followed by another when it comes, instead of one event for each deadline that ever was.

use r2p2::Instant;

use super::clock::Clock;

/// The alarm of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    /// When the process wants to be woken, by its own clock.
    deadline: Instant,
    /// When the event comes that looks at it, in the world's time; never if there is none.
    rings: Instant,
    /// Which event that is: others of this process mean nothing.
    number: u64,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { deadline: Instant::FAR_FUTURE, rings: Instant::FAR_FUTURE, number: 0 }
    }
}

/// An event to be scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ring {
    pub(super) at: Instant,
    pub(super) number: u64,
}

impl Alarm {
    /// The process wants to be woken at `deadline` by its clock.
    pub(super) fn set(&mut self, deadline: Instant, now: Instant, clock: &Clock) -> Option<Ring> {
        self.deadline = deadline;
        let at = clock.world(deadline).max(now);
        (at < self.rings).then(|| self.ring(at))
    }

    /// The clock is another one.
    pub(super) fn reset(&mut self, now: Instant, clock: &Clock) -> Option<Ring> {
        self.set(self.deadline, now, clock)
    }

    /// The event of this number has come. Returns whether the process is to be woken, and else the next event.
    pub(super) fn rang(&mut self, number: u64, now: Instant, clock: &Clock) -> (bool, Option<Ring>) {
        if number != self.number {
            return (false, None);
        }
        self.rings = Instant::FAR_FUTURE;
        if self.deadline > clock.local(now) {
            return (false, self.reset(now, clock));
        }
        self.deadline = Instant::FAR_FUTURE;
        (true, None)
    }

    /// There is no process any more.
    pub(super) fn clear(&mut self) {
        *self = Self { number: self.number + 1, ..Self::default() };
    }

    fn ring(&mut self, at: Instant) -> Ring {
        self.rings = at;
        self.number += 1;
        Ring { at, number: self.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_deadline_put_off_needs_no_new_event() {
        let (mut alarm, clock) = (Alarm::default(), Clock::default());
        assert_eq!(alarm.set(at(10), at(0), &clock), Some(Ring { at: at(10), number: 1 }));
        assert_eq!(alarm.set(at(20), at(5), &clock), None);
        assert_eq!(alarm.rang(1, at(10), &clock), (false, Some(Ring { at: at(20), number: 2 })));
        assert_eq!(alarm.rang(2, at(20), &clock), (true, None));
        assert_eq!(alarm.rang(2, at(30), &clock), (false, None), "until it is set again");
    }

    #[test]
    fn an_earlier_deadline_has_an_event_of_its_own() {
        let (mut alarm, clock) = (Alarm::default(), Clock::default());
        assert_eq!(alarm.set(at(20), at(0), &clock), Some(Ring { at: at(20), number: 1 }));
        assert_eq!(alarm.set(at(10), at(5), &clock), Some(Ring { at: at(10), number: 2 }));
        assert_eq!(alarm.rang(2, at(10), &clock), (true, None));
        assert_eq!(alarm.rang(1, at(20), &clock), (false, None), "it means nothing any more");
    }

    #[test]
    fn what_is_overdue_is_now_and_never_is_never() {
        let (mut alarm, clock) = (Alarm::default(), Clock::default());
        assert_eq!(alarm.set(Instant::FAR_FUTURE, at(3), &clock), None);
        assert_eq!(alarm.set(at(1), at(3), &clock), Some(Ring { at: at(3), number: 1 }));
        alarm.clear();
        assert_eq!(alarm.rang(1, at(3), &clock), (false, None));
    }
}
