//! A plain request, which no session protects, is ordered once, however many copies of it are about: nodes remember it
//! for a while, and the next leader does too (protocol.md §3.3).

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use hovercraft::LogIndex;
use hovercraft::entry::{Entry, EntryKind};
use hovercraft::plain::PlainLimits;
use r2p2::{Digest, Instant};

use super::{Result, Violation, bound};

/// Where every plain request was executed last.
#[derive(Debug)]
pub struct PlainOnce {
    remembered_for: Duration,
    newer_max: u64,
    executed: LogIndex,
    last: BTreeMap<Digest, Executed>,
    /// How many requests of every address and port were executed.
    requests: BTreeMap<SocketAddrV4, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Executed {
    index: LogIndex,
    time: Instant,
    /// The how manieth of its address and port it was.
    number: u64,
}

impl PlainOnce {
    /// Of nodes that remember plain requests with these limits. Their clocks differ, and they count requests that never
    /// were executed: within half of each limit they must know a copy.
    pub fn new(limits: PlainLimits) -> Self {
        Self {
            remembered_for: limits.age_max / 2,
            newer_max: limits.newer_max / 2,
            executed: 0,
            last: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
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
        let (identity, time) = (entry.request.identity, entry.time);
        let requests = self.requests.entry(entry.request.client).or_default();
        *requests += 1;
        let number = *requests;
        let before = self.last.insert(identity, Executed { index, time, number });
        bound(&mut self.last);
        bound(&mut self.requests);
        let is_remembered = |before: &Executed| {
            time.since(before.time) < self.remembered_for && number.saturating_sub(before.number) < self.newer_max
        };
        match before.filter(is_remembered) {
            Some(before) => Err(Violation::PlainTwice { identity, first: before.index, second: index }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::write;
    use super::*;

    const LIMITS: PlainLimits = PlainLimits { age_max: Duration::from_nanos(20), newer_max: 6, count_max: 100 };

    fn plain(identity: u128, time: u64) -> Entry {
        let mut entry = write(1);
        entry.request.session = None;
        entry.request.identity = Digest(identity);
        Entry { time: Instant::from_nanos(time), ..entry }
    }

    #[test]
    fn different_requests_and_forgotten_ones_are_fine() {
        let mut checker = PlainOnce::new(LIMITS);
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()));
        assert_eq!(checker.applied(2, &plain(2, 0)), Ok(()));
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()), "another node");
        assert_eq!(checker.applied(3, &plain(1, 10)), Ok(()), "forgotten");
        assert_eq!(checker.applied(4, &write(1)), Ok(()));
        assert_eq!(checker.applied(5, &write(1)), Ok(()), "sessions are another checker's");
    }

    #[test]
    fn after_so_many_newer_ones_it_is_a_new_request() {
        for newer in [1, 2] {
            let mut checker = PlainOnce::new(LIMITS);
            for number in 0..=newer {
                assert_eq!(checker.applied(number + 1, &plain(number.into(), 0)), Ok(()));
            }
            let again = checker.applied(newer + 2, &plain(0, 0));
            assert_eq!(again.is_ok(), newer == 2, "{again:?}");
        }
    }

    #[test]
    fn a_copy_is_found() {
        let mut checker = PlainOnce::new(LIMITS);
        assert_eq!(checker.applied(1, &plain(1, 0)), Ok(()));
        let twice = Violation::PlainTwice { identity: Digest(1), first: 1, second: 3 };
        assert_eq!(checker.applied(3, &plain(1, 9)), Err(twice));
    }
}
