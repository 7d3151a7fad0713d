//! Appends that cannot be taken yet: an earlier one, or a body, is still on its way (protocol.md §5.5, §7.2).

use std::collections::BTreeMap;
use std::time::Duration;

use r2p2::Instant;

use crate::id::{LogIndex, Term};
use crate::message::Append;

/// Bounds of [`HeldAppends`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLimits {
    /// Most Appends held. What does not fit is dropped; the leader repeats it.
    pub count_max: usize,
    /// Most entries in them.
    pub entries_max: usize,
    /// How long a gap may stay open before it is called one: what multicast reorders arrives within this.
    pub patience: Duration,
}

impl Default for HeldLimits {
    fn default() -> Self {
        Self { count_max: 256, entries_max: 16_384, patience: Duration::from_millis(1) }
    }
}

/// The buffer in front of Raft. See the module.
#[derive(Debug)]
pub struct HeldAppends {
    limits: HeldLimits,
    term: Term,
    held: BTreeMap<LogIndex, (Instant, Append)>,
    entries: usize,
}

impl HeldAppends {
    /// Nothing is held.
    pub fn new(limits: HeldLimits) -> Self {
        Self { limits, term: 0, held: BTreeMap::new(), entries: 0 }
    }

    /// Holds an Append of `term`; what an earlier term left is forgotten. Returns false if there was no room.
    pub fn hold(&mut self, now: Instant, term: Term, append: Append) -> bool {
        if self.term != term && !mutated!(HeldOutliveTerm) {
            self.clear();
            self.term = term;
        }
        let new = append.entries.0.len();
        let at = match self.held.get(&append.prev) {
            // Of two that begin at the same place the longer says it all.
            Some((_, old)) if old.entries.0.len() >= new => return true,
            Some((at, old)) => {
                self.entries -= old.entries.0.len();
                *at
            }
            None => now,
        };
        let count = self.held.len() + usize::from(!self.held.contains_key(&append.prev));
        if count > self.limits.count_max || self.entries + new > self.limits.entries_max {
            self.entries += self.held.get(&append.prev).map_or(0, |(_, old)| old.entries.0.len());
            return false;
        }
        self.entries += new;
        self.held.insert(append.prev, (at, append));
        true
    }

    /// Takes the first Append of `term` that begins at or before `last`.
    pub fn take_ready(&mut self, term: Term, last: LogIndex) -> Option<Append> {
        if self.term != term && !mutated!(HeldOutliveTerm) {
            self.clear();
            return None;
        }
        let (&prev, _) = self.held.first_key_value()?;
        if prev > last {
            return None;
        }
        self.take(prev)
    }

    /// Takes the first Append of `term` if it begins beyond `last` and that gap has been open for too long.
    pub fn take_overdue(&mut self, now: Instant, term: Term, last: LogIndex) -> Option<Append> {
        if self.term != term && !mutated!(HeldOutliveTerm) {
            self.clear();
            return None;
        }
        let (&prev, (at, _)) = self.held.first_key_value()?;
        if prev <= last || now.since(*at) < self.limits.patience {
            return None;
        }
        self.take(prev)
    }

    /// Where what is held ends.
    #[cfg(feature = "mutations")]
    pub(crate) fn end(&self) -> LogIndex {
        self.held.last_key_value().map_or(0, |(prev, (_, append))| prev + append.entries.0.len() as u64)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many Appends are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// How many entries are in them.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// When the first gap has been open for too long. Only what begins beyond `last` is a gap; the rest waits for a body.
    pub fn next_overdue(&self, last: LogIndex) -> Option<Instant> {
        let (&prev, (at, _)) = self.held.first_key_value()?;
        (prev > last).then(|| *at + self.limits.patience)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.held.clear();
        self.entries = 0;
    }

    fn take(&mut self, prev: LogIndex) -> Option<Append> {
        let (_, append) = self.held.remove(&prev)?;
        self.entries -= append.entries.0.len();
        Some(append)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::Entry;
    use crate::message::{AppendEntries, AppendEntry};

    #[test]
    fn releases_in_order_once_the_gap_is_closed() {
        let mut held = HeldAppends::new(HeldLimits::default());
        assert!(held.hold(Instant::ZERO, 1, append(6, 2)));
        assert!(held.hold(Instant::ZERO, 1, append(4, 2)));
        assert_eq!(held.take_ready(1, 3), None);
        assert_eq!(held.take_ready(1, 4).map(|a| a.prev), Some(4));
        assert_eq!(held.take_ready(1, 4), None);
        assert_eq!(held.take_ready(1, 6).map(|a| a.prev), Some(6));
        assert!(held.is_empty());
        assert_eq!(held.entries, 0);
    }

    #[test]
    fn a_gap_is_overdue_at_the_limit_and_not_before() {
        let patience = HeldLimits::default().patience;
        let mut held = HeldAppends::new(HeldLimits::default());
        held.hold(Instant::ZERO, 1, append(6, 1));
        assert_eq!(held.next_overdue(5), Some(Instant::ZERO + patience));
        assert_eq!(held.next_overdue(6), None, "no gap: it waits for a body");
        assert_eq!(held.take_overdue(Instant::ZERO + patience, 1, 6), None);
        assert_eq!(held.take_overdue(Instant::ZERO + patience - Duration::from_nanos(1), 1, 5), None);
        assert!(held.take_overdue(Instant::ZERO + patience, 1, 5).is_some());
    }

    #[test]
    fn a_new_term_forgets_the_old() {
        let mut held = HeldAppends::new(HeldLimits::default());
        held.hold(Instant::ZERO, 1, append(6, 1));
        assert_eq!(held.take_ready(2, 9), None);
        assert!(held.is_empty());
    }

    #[test]
    fn appends_and_entries_at_the_limit_and_one_past_it() {
        let mut held = HeldAppends::new(HeldLimits { count_max: 2, entries_max: 5, ..HeldLimits::default() });
        assert!(held.hold(Instant::ZERO, 1, append(1, 2)));
        assert!(held.hold(Instant::ZERO, 1, append(3, 2)));
        assert!(!held.hold(Instant::ZERO, 1, append(5, 1)), "a third");
        assert!(held.hold(Instant::ZERO, 1, append(3, 3)), "the longer replaces the shorter");
        assert!(!held.hold(Instant::ZERO, 1, append(3, 4)), "a sixth entry");
        assert_eq!((held.len(), held.entries), (2, 5));
        assert!(held.hold(Instant::ZERO, 1, append(3, 1)), "says nothing new");
        assert_eq!((held.len(), held.entries), (2, 5));
    }

    fn append(prev: LogIndex, entries: usize) -> Append {
        let entry = AppendEntry { entry: Entry::term_start(), raw: Bytes::new(), body: None };
        let entries = AppendEntries(vec![entry; entries]);
        Append { prev, prev_term: 1, commit: 0, persisted: 0, arm: 0, entries_term: 1, entries }
    }
}
