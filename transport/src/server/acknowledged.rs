//! Which RPC ids were acknowledged a moment ago: a second ACK aborts a client of the C implementation.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

use crate::Instant;
use crate::reassembly::COPY_AGE_MAX;

type RpcId = (SocketAddrV4, u16);

/// RPC ids acknowledged at most [`COPY_AGE_MAX`] ago, and at most `limit` of them.
#[derive(Debug)]
pub(super) struct Acknowledged {
    limit: usize,
    at: BTreeMap<RpcId, Instant>,
    /// May name an id more than once; the one with the time in `at` counts.
    oldest_first: VecDeque<(Instant, RpcId)>,
}

impl Acknowledged {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, at: BTreeMap::new(), oldest_first: VecDeque::new() }
    }

    pub(super) fn is_recent(&self, now: Instant, id: RpcId) -> bool {
        self.at.get(&id).is_some_and(|at| now.since(*at) <= COPY_AGE_MAX)
    }

    pub(super) fn insert(&mut self, now: Instant, id: RpcId) {
        self.at.insert(id, now);
        self.oldest_first.push_back((now, id));
        self.forget(now);
    }

    /// Forgets those that are no longer recent, or too many.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.oldest_first.front().copied() {
            if self.oldest_first.len() <= self.limit && now.since(at) <= COPY_AGE_MAX {
                return;
            }
            self.oldest_first.pop_front();
            if self.at.get(&id) == Some(&at) {
                self.at.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    #[test]
    fn age_at_the_limit_and_one_past_it() {
        let mut acknowledged = Acknowledged::new(8);
        acknowledged.insert(Instant::ZERO, (CLIENT, 1));
        let last = Instant::ZERO + COPY_AGE_MAX;
        acknowledged.forget(last);
        assert!(acknowledged.is_recent(last, (CLIENT, 1)));
        assert!(!acknowledged.is_recent(last, (CLIENT, 2)));
        let past = last + Duration::from_nanos(1);
        assert!(!acknowledged.is_recent(past, (CLIENT, 1)));
        acknowledged.forget(past);
        assert!(acknowledged.at.is_empty() && acknowledged.oldest_first.is_empty());
    }

    #[test]
    fn count_at_the_limit_and_one_past_it() {
        let mut acknowledged = Acknowledged::new(2);
        for rid in 0..2 {
            acknowledged.insert(Instant::ZERO, (CLIENT, rid));
        }
        assert!(acknowledged.is_recent(Instant::ZERO, (CLIENT, 0)));
        acknowledged.insert(Instant::ZERO, (CLIENT, 2));
        assert!(!acknowledged.is_recent(Instant::ZERO, (CLIENT, 0)));
        assert!(acknowledged.is_recent(Instant::ZERO, (CLIENT, 1)));
        assert_eq!((acknowledged.at.len(), acknowledged.oldest_first.len()), (2, 2));
    }

    #[test]
    fn a_newer_time_of_an_id_outlives_its_older_one() {
        let mut acknowledged = Acknowledged::new(8);
        acknowledged.insert(Instant::ZERO, (CLIENT, 1));
        let later = Instant::ZERO + COPY_AGE_MAX + Duration::from_nanos(1);
        acknowledged.insert(later, (CLIENT, 1));
        assert!(acknowledged.is_recent(later, (CLIENT, 1)));
        assert_eq!(acknowledged.oldest_first.len(), 1);
    }
}
