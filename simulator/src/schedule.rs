//! What is still to happen, in the order in which it will.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use r2p2::Instant;

/// Events of type `E`, each due at some time. Of those due at the same time, the one added first comes first.
#[derive(Clone, Debug)]
pub struct Schedule<E> {
    /// The next one first. The events themselves stay where they are, because a heap moves its elements about.
    due: BinaryHeap<Reverse<Due>>,
    events: Vec<Option<E>>,
    /// Places in `events` that are empty.
    free: Vec<u32>,
    added: u64,
}

/// When an event is due, and its place. Compared by time, then by the order of addition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due {
    at: Instant,
    number: u64,
    place: u32,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), added: 0 }
    }
}

impl<E> Schedule<E> {
    /// Adds an event; at [`Instant::FAR_FUTURE`] nothing is ever due.
    pub fn push(&mut self, at: Instant, event: E) {
        if at == Instant::FAR_FUTURE {
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer events than that fit into memory")
        });
        self.events[place as usize] = Some(event);
        self.added += 1;
        self.due.push(Reverse(Due { at, number: self.added, place }));
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// Takes the next event if it is due at `end` or before.
    pub fn pop_until(&mut self, end: Instant) -> Option<(Instant, E)> {
        if self.next_at()? > end {
            return None;
        }
        let Reverse(Due { at, place, .. }) = self.due.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }

    /// How many events are to come.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn the_next_one_first_and_at_the_same_time_the_first_one_added() {
        let mut schedule = Schedule::default();
        for (nanos, event) in [(5, 'd'), (3, 'a'), (4, 'c'), (3, 'b'), (9, 'e')] {
            schedule.push(at(nanos), event);
        }
        assert_eq!((schedule.next_at(), schedule.len()), (Some(at(3)), 5));
        let mut popped = Vec::new();
        while let Some((_, event)) = schedule.pop_until(at(5)) {
            popped.push(event);
        }
        assert_eq!(popped, ['a', 'b', 'c', 'd']);
        assert_eq!((schedule.next_at(), schedule.len()), (Some(at(9)), 1));
    }

    #[test]
    fn never_is_not_kept() {
        let mut schedule = Schedule::default();
        schedule.push(Instant::FAR_FUTURE, ());
        assert!(schedule.is_empty());
    }

    #[test]
    fn places_are_used_again() {
        let mut schedule = Schedule::default();
        for round in 0..1000 {
            schedule.push(at(round), [round; 4]);
            schedule.push(at(round), [round; 4]);
            assert_eq!(schedule.pop_until(at(round)), Some((at(round), [round; 4])));
            assert_eq!(schedule.pop_until(at(round)), Some((at(round), [round; 4])));
        }
        assert_eq!(schedule.events.len(), 2);
    }

    proptest! {
        #[test]
        fn like_sorting(times in proptest::collection::vec(0u64..20, 0..60)) {
            let mut schedule = Schedule::default();
            for (number, nanos) in times.iter().enumerate() {
                schedule.push(at(*nanos), number);
            }
            let mut expected: Vec<(Instant, usize)> = times.iter().enumerate().map(|(n, nanos)| (at(*nanos), n)).collect();
            expected.sort_unstable();
            let popped: Vec<(Instant, usize)> = std::iter::from_fn(|| schedule.pop_until(at(20))).collect();
            prop_assert_eq!(popped, expected);
        }
    }
}
