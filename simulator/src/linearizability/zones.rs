//! Contradictions that show without a search: a state seen that nobody can have brought about yet, or seen again after
//! it was gone.
//!
//! After Gibbons & Korach ("Testing shared memories", 1997): if only one operation leads to a state, the system is in
//! that state once, in one stretch of time. Whoever brought it about, or needed it, did so in that stretch. So from the
//! first time that one of them returned to the last time that one of them was invoked, the system was in that state and
//! in no other. That stretch is the state's zone.

use super::Model;
use super::timeline::{NONE, Timeline};

/// From the event `from` to the event `to` the system was in one state.
struct Zone {
    from: u32,
    to: u32,
    state: u32,
    /// The operation that returned at `from`, or `NONE` if it was the state from the start.
    first: u32,
    /// The operation that was invoked at `to`.
    last: u32,
}

/// Operations that cannot be together in any order.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Contradiction {
    /// The one to point at.
    pub(super) at: u32,
    /// The others.
    pub(super) because: Vec<u32>,
}

impl Zone {
    /// The zone contradicts `others`.
    fn contradicts(&self, others: impl IntoIterator<Item = u32>) -> Contradiction {
        let mut because: Vec<_> = others.into_iter().chain([self.first]).collect();
        because.retain(|&index| index != NONE && index != self.last);
        because.sort_unstable();
        because.dedup();
        Contradiction { at: self.last, because }
    }
}

/// Finds operations that contradict each other. Nothing does not mean that there are none.
pub(super) fn contradiction<M: Model>(timeline: &Timeline<'_, M>) -> Option<Contradiction> {
    let initial = timeline.needed.get(&M::init()).copied();
    let mut is_predictable = vec![true; timeline.needs.len()];
    for (state, &number) in timeline.needed_states() {
        is_predictable[number as usize] = !timeline.wild.iter().any(|&(_, is_possible)| is_possible(state));
    }
    let mut zones = Vec::new();
    for (number, need) in (0_u32..).zip(&timeline.needs) {
        let is_once = need.left_count + usize::from(initial == Some(number)) <= 1;
        if is_predictable[number as usize] && is_once {
            // It ends before it begins, as long as nothing is known about it.
            let from = if initial == Some(number) { 0 } else { NONE };
            zones.push(Zone { from, to: 0, state: number, first: NONE, last: NONE });
        } else {
            zones.push(Zone { from: NONE, to: 0, state: NONE, first: NONE, last: NONE });
        }
    }
    for (index, item) in (0_u32..).zip(&timeline.items) {
        if item.needs != NONE && is_predictable[item.needs as usize] {
            let is_possible = initial == Some(item.needs) || timeline.needs[item.needs as usize].first_left < item.end;
            if !is_possible {
                return Some(Contradiction { at: index, because: Vec::new() });
            }
        }
        for number in [item.needs, item.leaves] {
            if number != NONE {
                let zone = &mut zones[number as usize];
                if item.end < zone.from {
                    (zone.from, zone.first) = (item.end, index);
                }
                if item.call >= zone.to {
                    (zone.to, zone.last) = (item.call, index);
                }
            }
        }
    }
    zones.retain(|zone| zone.state != NONE && zone.from < zone.to);
    zones.sort_unstable_by_key(|zone| zone.from);

    // Two states at once.
    if let Some(both) = zones.windows(2).find(|both| both[1].from < both[0].to) {
        return Some(both[0].contradicts([both[1].first, both[1].last]));
    }
    // Something that is impossible in a zone, within it.
    for (index, item) in (0_u32..).zip(&timeline.items).filter(|(_, item)| item.end != NONE) {
        let after = zones.partition_point(|zone| zone.from <= item.call);
        let Some(zone) = after.checked_sub(1).map(|at| &zones[at]) else { continue };
        let needs_other = item.needs != NONE && item.needs != zone.state;
        let leaves_other = item.overwrites && item.leaves != zone.state;
        if item.end < zone.to && (needs_other || leaves_other) {
            return Some(zone.contradicts([index]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Register, RegisterOperation, read, unknown_write, write};
    use super::*;

    fn culprit(operations: &[RegisterOperation]) -> Option<u32> {
        found(operations).map(|contradiction| contradiction.at)
    }

    fn found(operations: &[RegisterOperation]) -> Option<Contradiction> {
        contradiction(&Timeline::<Register>::new(&operations.iter().collect::<Vec<_>>()))
    }

    #[test]
    fn nothing_is_said_about_a_good_history() {
        assert_eq!(culprit(&[read(0, 0, 1), write(1, 0, 5), read(1, 6, 7), write(2, 6, 9), read(2, 10, 11)]), None);
    }

    #[test]
    fn a_state_from_nowhere_or_from_the_future() {
        assert_eq!(culprit(&[write(1, 0, 1), read(7, 2, 3)]), Some(1));
        assert_eq!(culprit(&[read(1, 0, 1), write(1, 2, 3)]), Some(0));
        assert_eq!(culprit(&[read(1, 0, 1), unknown_write(1, 2)]), Some(0));
        assert_eq!(culprit(&[read(1, 0, 2), write(1, 2, 3)]), None);
    }

    #[test]
    fn a_state_seen_again_after_another_was_seen() {
        assert_eq!(culprit(&[write(1, 0, 1), write(2, 0, 9), read(2, 2, 3), read(1, 4, 5), read(2, 6, 7)]), Some(3));
        assert_eq!(culprit(&[write(1, 0, 1), read(0, 4, 5)]), Some(1));
    }

    #[test]
    fn a_state_seen_again_after_it_was_overwritten() {
        let operations = [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)];
        assert_eq!(found(&operations), Some(Contradiction { at: 2, because: vec![0, 1] }));
        assert_eq!(culprit(&[unknown_write(1, 0), read(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]), Some(3));
        // It may have come back.
        assert_eq!(culprit(&[write(1, 0, 1), write(2, 2, 3), read(1, 4, 5), unknown_write(1, 0)]), None);
    }
}
