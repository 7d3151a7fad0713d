//! Which terms the entries of a log have.

use crate::id::{LogIndex, Term};

/// Terms by index. There are few of them, however long the log is.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The last entry that is forgotten.
    base: (LogIndex, Term),
    /// First entries of their terms, of those that are kept.
    runs: Vec<(LogIndex, Term)>,
    last: LogIndex,
}

impl Terms {
    pub(super) fn after(base: (LogIndex, Term)) -> Self {
        Self { base, runs: Vec::new(), last: base.0 }
    }

    pub(super) fn base(&self) -> (LogIndex, Term) {
        self.base
    }

    /// Index of the last entry.
    pub(super) fn last(&self) -> LogIndex {
        self.last
    }

    /// Puts entries of these terms at `first` and behind it, in place of what was there.
    pub(super) fn put(&mut self, first: LogIndex, terms: impl Iterator<Item = Term>) {
        for (index, term) in (first..).zip(terms) {
            if index == first {
                self.runs.truncate(self.runs.partition_point(|(run, _)| *run < first));
            }
            if self.runs.last().is_none_or(|(_, last)| *last != term) {
                self.runs.push((index, term));
            }
            self.last = index;
        }
    }

    /// Whether a log that ends with this entry replaces all of this one.
    pub(super) fn is_replaced_by(&self, (index, term): (LogIndex, Term)) -> bool {
        index > self.base.0 && self.term_at(index) != Some(term)
    }

    /// Forgets the entries up to this one, and all if it is not here.
    pub(super) fn forget(&mut self, (index, term): (LogIndex, Term)) {
        if index <= self.base.0 {
            return;
        }
        if self.is_replaced_by((index, term)) {
            *self = Self::after((index, term));
        } else {
            self.base = (index, term);
            // The run that the first entry behind it belongs to.
            let at = self.runs.partition_point(|(first, _)| *first <= index + 1).saturating_sub(1);
            self.runs.drain(..at);
        }
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        let at = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        (index <= self.last).then(|| self.runs[at].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::{Stored, StoredRecord};

    proptest! {
        #[test]
        fn knows_what_the_log_knows(steps in prop::collection::vec((any::<bool>(), 0..20u64, prop::collection::vec(0..2u64, 1..5)), 0..30)) {
            let (mut terms, mut stored) = (Terms::default(), Stored::default());
            let mut term = 1;
            for (compacts, at, rises) in steps {
                let last = stored.base.0 + stored.records.len() as u64;
                if compacts {
                    let index = stored.base.0 + at;
                    let compacted = (index, stored.term_at(index).filter(|_| at % 5 != 4).unwrap_or(term));
                    let is_replaced = index > stored.base.0 && stored.term_at(index) != Some(compacted.1);
                    prop_assert_eq!(terms.is_replaced_by(compacted), is_replaced);
                    terms.forget(compacted);
                    stored.put_compacted(compacted);
                } else {
                    let first = stored.base.0 + 1 + at.min(last - stored.base.0);
                    let new: Vec<u64> = rises.iter().map(|rise| { term += rise; term }).collect();
                    for (index, term) in (first..).zip(&new) {
                        stored.put_record(index, StoredRecord { term: *term, entry: Default::default(), body: Default::default() });
                    }
                    terms.put(first, new.into_iter());
                }
                let last = stored.base.0 + stored.records.len() as u64;
                prop_assert_eq!((terms.base(), terms.last()), (stored.base, last));
                for index in stored.base.0 + 1..=last {
                    prop_assert_eq!(terms.term_at(index), stored.term_at(index));
                }
            }
        }
    }
}
