//! What the log itself decides, such as who belongs to the group: what it says at each place.

use std::collections::VecDeque;

use crate::id::LogIndex;

/// What is in force, by the latest entry that says so, and what was before each entry that is kept.
#[derive(Debug)]
pub(crate) struct InForce<T> {
    /// After the last entry that is no longer kept.
    base: T,
    /// The entries that have changed that, among those kept.
    changes: VecDeque<(LogIndex, T)>,
}

impl<T> InForce<T> {
    pub(crate) fn new(base: T) -> Self {
        Self { base, changes: VecDeque::new() }
    }

    /// By the latest entry that says so.
    pub(crate) fn latest(&self) -> &T {
        self.changes.back().map_or(&self.base, |(_, value)| value)
    }

    /// The entry that said so; none, if it is no longer kept.
    pub(crate) fn since(&self) -> Option<LogIndex> {
        self.changes.back().map(|(index, _)| *index)
    }

    /// At `index`; of what is no longer kept, the last.
    pub(crate) fn at(&self, index: LogIndex) -> &T {
        let at = self.changes.iter().rev().find(|(changed, _)| *changed <= index);
        at.map_or(&self.base, |(_, value)| value)
    }

    /// What was in force at `index` and all later, each with the entry that said so first; `base` is the last one that is
    /// no longer kept.
    pub(crate) fn from(&self, index: LogIndex, base: LogIndex) -> impl Iterator<Item = (LogIndex, &T)> {
        let later = self.changes.partition_point(|(changed, _)| *changed <= index);
        let base = (later == 0).then_some((base, &self.base)).into_iter();
        let kept = self.changes.range(later.saturating_sub(1)..);
        base.chain(kept.map(|(changed, value)| (*changed, value)))
    }

    /// The entry at `index`, the last there is, says so.
    pub(crate) fn change(&mut self, index: LogIndex, value: T) {
        self.changes.push_back((index, value));
    }

    /// The entry at `index`, the last there is, is replaced.
    pub(crate) fn take_back(&mut self, index: LogIndex) {
        if self.since() == Some(index) {
            self.changes.pop_back();
        }
    }

    /// The entry at `index`, the first there is, is no longer kept.
    pub(crate) fn forget(&mut self, index: LogIndex) {
        if self.changes.front().is_some_and(|(changed, _)| *changed == index)
            && let Some((_, value)) = self.changes.pop_front()
        {
            self.base = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_not_in_force_and_what_is_forgotten_still_is() {
        let mut names = InForce::new("before");
        names.change(3, "third");
        names.change(7, "seventh");
        assert_eq!((*names.latest(), names.since()), ("seventh", Some(7)));
        assert_eq!([2, 3, 6, 7, 9].map(|index| *names.at(index)), ["before", "third", "third", "seventh", "seventh"]);
        assert_eq!(names.from(2, 0).collect::<Vec<_>>(), [(0, &"before"), (3, &"third"), (7, &"seventh")]);
        assert_eq!(names.from(3, 0).collect::<Vec<_>>(), [(3, &"third"), (7, &"seventh")]);

        names.take_back(8);
        names.take_back(7);
        assert_eq!((*names.latest(), names.since()), ("third", Some(3)));

        (1..=3).for_each(|index| names.forget(index));
        assert_eq!((*names.latest(), names.since()), ("third", None));
        assert_eq!(names.from(9, 3).collect::<Vec<_>>(), [(3, &"third")]);
    }
}
