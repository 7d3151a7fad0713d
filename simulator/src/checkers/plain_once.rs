//! A plain request, which no session protects, is ordered once, however many copies of it are about: nodes remember it
//! for a while, and the next leader does too (protocol.md §3.3).

use std::collections::BTreeMap;
use std::time::Duration;

use hovercraft::LogIndex;
use hovercraft::entry::{Entry, EntryKind};
use r2p2::{Digest, Instant};

use super::{Result, Violation, bound};

/// Where every plain request was executed last.
#[derive(Debug)]
pub struct PlainOnce {
    remembered_for: Duration,
    executed: LogIndex,
    last: BTreeMap<Digest, (LogIndex, Instant)>,
}

impl PlainOnce {
    /// Of nodes that remember plain requests for at least this long.
    pub fn new(remembered_for: Duration) -> Self {
        Self { remembered_for, executed: 0, last: BTreeMap::new() }
    }

    /// A node has executed an entry; only the first node to get there counts.
    ///
    /// # Errors
    /// It is a plain request that was executed a moment ago.
    pub fn applied(&mut self, index: LogIndex, entry: &Entry) -> Result {
        if index <= self.executed {
            return Ok(());
        }
        self.executed = index;
        if entry.kind != EntryKind::Request || entry.request.session.is_some() {
            return Ok(());
        }
        let identity = entry.request.identity;
        let before = self.last.insert(identity, (index, entry.time));
        bound(&mut self.last);
        match before {
            Some((first, at)) if entry.time.since(at) < self.remembered_for => {
                Err(Violation::PlainTwice { identity, first, second: index })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::write;
    use super::*;

    const AGE: Duration = Duration::from_nanos(10);

    fn plain(identity: u128, time: u64) -> Entry {
        let mut entry = write(1);
        entry.request.session = None;
        entry.request.identity = Digest(identity);
        Entry { time: Instant::from_nanos(time), ..entry }
    }

    #[test]
    fn different_requests_and_forgotten_ones_are_fine() {
        let mut checker = PlainOnce::new(AGE);
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()));
        assert_eq!(checker.applied(2, &plain(2, 0)), Ok(()));
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()), "another node");
        assert_eq!(checker.applied(3, &plain(1, 10)), Ok(()), "forgotten");
        assert_eq!(checker.applied(4, &write(1)), Ok(()));
        assert_eq!(checker.applied(5, &write(1)), Ok(()), "sessions are another checker's");
    }

    #[test]
    fn a_copy_is_found() {
        let mut checker = PlainOnce::new(AGE);
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()));
        let twice = Violation::PlainTwice { identity: Digest(1), first: 1, second: 3 };
        assert_eq!(checker.applied(3, &plain(1, 9)), Err(twice));
    }
}
