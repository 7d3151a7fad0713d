//! Log time never goes backwards, whoever leads: it goes on from the last entry, by the leader's own time since its
//! election (protocol.md §3.3).

use hovercraft::LogIndex;
use hovercraft::entry::{Entry, EntryKind};
use r2p2::Instant;

use super::{Result, Violation};

/// The time of the last entry that any node has executed.
#[derive(Debug, Default)]
pub struct LogTime {
    executed: LogIndex,
    time: Option<Instant>,
}

impl LogTime {
    /// A node has executed an entry; only the first node to get there counts.
    ///
    /// # Errors
    /// Its time is before that of an earlier entry.
    pub fn applied(&mut self, index: LogIndex, entry: &Entry) -> Result {
        // The entry that begins a term has no time.
        if index <= self.executed || entry.kind == EntryKind::TermStart {
            return Ok(());
        }
        self.executed = index;
        let known = *self.time.get_or_insert(entry.time);
        self.time = Some(entry.time.max(known));
        if entry.time < known { Err(Violation::TimeGoesBack { index, found: entry.time, known }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::write;
    use super::*;

    fn at(time: u64) -> Entry {
        Entry { time: Instant::from_nanos(time), ..write(1) }
    }

    #[test]
    fn the_same_time_and_a_new_term_are_fine() {
        let mut checker = LogTime::default();
        assert_eq!(checker.applied(1, &at(5)), Ok(()));
        assert_eq!(checker.applied(2, &Entry::term_start()), Ok(()));
        assert_eq!(checker.applied(3, &at(5)), Ok(()));
        assert_eq!(checker.applied(1, &at(4)), Ok(()), "a slower node");
    }

    #[test]
    fn an_earlier_time_is_found() {
        let mut checker = LogTime::default();
        assert_eq!(checker.applied(1, &at(5)), Ok(()));
        let back = Violation::TimeGoesBack { index: 2, found: Instant::from_nanos(4), known: Instant::from_nanos(5) };
        assert_eq!(checker.applied(2, &at(4)), Err(back));
    }
}
