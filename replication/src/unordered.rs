//! The unordered set: bodies a node has received that no log entry names yet (protocol.md §1), bounded in count, bytes
//! and age.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use r2p2::{Digest, Instant};

use crate::digest_map::{DigestMap, digest_map};
use crate::entry::RequestHead;

/// Bounds of an [`UnorderedSet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnorderedLimits {
    /// Most requests.
    pub count_max: usize,
    /// Most bytes of bodies.
    pub bytes_max: usize,
    /// How long a body is kept. Longer than a leader may queue a request plus two retransmission timeouts (§7.1).
    pub age_max: Duration,
}

impl Default for UnorderedLimits {
    fn default() -> Self {
        Self { count_max: 65_536, bytes_max: 64 << 20, age_max: Duration::from_secs(3) }
    }
}

/// A request that waits to be ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The request.
    pub head: RequestHead,
    /// Its bytes.
    pub body: Bytes,
    /// When it arrived here.
    pub at: Instant,
    /// Tells this stay in the set from an earlier one of the same request.
    pub stay: u64,
}

/// The set. See the module.
#[derive(Debug)]
pub struct UnorderedSet {
    limits: UnorderedLimits,
    waiting: DigestMap<Waiting>,
    /// Oldest first. May name stays that ended; those are skipped and, when they are the majority, swept.
    arrivals: VecDeque<(u64, Digest)>,
    bytes: usize,
    stays: u64,
}

/// The set is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl UnorderedSet {
    /// An empty set.
    pub fn new(limits: UnorderedLimits) -> Self {
        Self { limits, waiting: digest_map(), arrivals: VecDeque::new(), bytes: 0, stays: 0 }
    }

    /// Adds a request. The caller has checked that it is not here yet.
    ///
    /// Returns the number of this stay.
    ///
    /// # Errors
    /// [`Full`] if a bound would be passed; the set is unchanged.
    pub fn insert(&mut self, now: Instant, head: RequestHead, body: Bytes) -> Result<u64, Full> {
        if self.waiting.len() >= self.limits.count_max || self.bytes + body.len() > self.limits.bytes_max {
            return Err(Full);
        }
        self.stays += 1;
        self.bytes += body.len();
        self.arrivals.push_back((self.stays, head.identity));
        let waiting = Waiting { head, body, at: now, stay: self.stays };
        let replaced = self.waiting.insert(head.identity, waiting);
        debug_assert!(replaced.is_none(), "the caller checks for duplicates");
        Ok(self.stays)
    }

    /// Returns a request whose entry another leader has replaced, as old as it was (§7.3). It is older than most that
    /// wait. Taken whatever the bounds: the window bounds how many there can be.
    pub fn put_back(&mut self, at: Instant, head: RequestHead, body: Bytes) {
        if let Some(stay) = self.add(at, head, body) {
            self.arrivals.push_front((stay, head.identity));
        }
    }

    /// Adds a body that an entry waits for, whatever the bounds: the Appends that may be held back bound how many there
    /// can be.
    pub fn insert_needed(&mut self, now: Instant, head: RequestHead, body: Bytes) {
        if let Some(stay) = self.add(now, head, body) {
            self.arrivals.push_back((stay, head.identity));
        }
    }

    fn add(&mut self, at: Instant, head: RequestHead, body: Bytes) -> Option<u64> {
        if self.waiting.contains_key(&head.identity) {
            return None;
        }
        self.stays += 1;
        self.bytes += body.len();
        self.waiting.insert(head.identity, Waiting { head, body, at, stay: self.stays });
        Some(self.stays)
    }

    /// Whether the request waits here.
    pub fn contains(&self, identity: &Digest) -> bool {
        self.waiting.contains_key(identity)
    }

    /// The request, if it waits here.
    pub fn get(&self, identity: &Digest) -> Option<&Waiting> {
        self.waiting.get(identity)
    }

    /// Takes the request out, because an entry names it now.
    pub fn take(&mut self, identity: &Digest) -> Option<Waiting> {
        let waiting = self.waiting.remove(identity)?;
        self.bytes -= waiting.body.len();
        self.sweep();
        Some(waiting)
    }

    /// Forgets requests that are older than the limit; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        self.expire_older(now, self.limits.age_max)
    }

    /// Forgets requests that are older than `age_max`; returns how many.
    pub fn expire_older(&mut self, now: Instant, age_max: Duration) -> usize {
        let mut expired = 0;
        while let Some(oldest) = self.oldest() {
            if now.since(oldest.at) < age_max {
                break;
            }
            let identity = oldest.head.identity;
            self.take(&identity);
            expired += 1;
        }
        expired
    }

    /// The request that has waited longest.
    pub fn oldest(&mut self) -> Option<&Waiting> {
        while let Some((stay, identity)) = self.arrivals.front().copied() {
            if self.waiting.get(&identity).is_some_and(|waiting| waiting.stay == stay) {
                return self.waiting.get(&identity);
            }
            self.arrivals.pop_front();
        }
        None
    }

    /// All requests, oldest first.
    pub fn in_arrival_order(&self) -> impl Iterator<Item = &Waiting> {
        self.arrivals
            .iter()
            .filter_map(|(stay, identity)| self.waiting.get(identity).filter(|waiting| waiting.stay == *stay))
    }

    /// When the oldest becomes too old.
    pub fn next_expiry(&mut self) -> Option<Instant> {
        let age_max = self.limits.age_max;
        self.oldest().map(|oldest| oldest.at + age_max)
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of their bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn sweep(&mut self) {
        // Requests leave about in the order in which they came, so the front is usually what ended.
        while self.arrivals.front().is_some_and(|(stay, identity)| !is_current(&self.waiting, *stay, identity)) {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.arrivals.retain(|(stay, identity)| is_current(waiting, *stay, identity));
        }
    }
}

fn is_current(waiting: &DigestMap<Waiting>, stay: u64, identity: &Digest) -> bool {
    waiting.get(identity).is_some_and(|waiting| waiting.stay == stay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_at_the_limit_and_one_past_it() {
        let mut set = UnorderedSet::new(UnorderedLimits { count_max: 2, ..UnorderedLimits::default() });
        assert_eq!(insert(&mut set, 1, 0), Ok(()));
        assert_eq!(insert(&mut set, 2, 0), Ok(()));
        assert_eq!(insert(&mut set, 3, 0), Err(Full));
        set.take(&Digest(1));
        assert_eq!(insert(&mut set, 3, 0), Ok(()));
    }

    #[test]
    fn bytes_at_the_limit_and_one_past_it() {
        let mut set = UnorderedSet::new(UnorderedLimits { bytes_max: 8, ..UnorderedLimits::default() });
        assert_eq!(insert(&mut set, 1, 0), Ok(()));
        assert_eq!(insert(&mut set, 2, 0), Ok(()));
        assert_eq!(set.bytes(), 8);
        assert_eq!(insert(&mut set, 3, 0), Err(Full));
    }

    #[test]
    fn age_at_the_limit_and_just_before() {
        let mut set = UnorderedSet::new(UnorderedLimits { age_max: Duration::from_nanos(10), ..Default::default() });
        insert(&mut set, 1, 0).unwrap();
        insert(&mut set, 2, 5).unwrap();
        assert_eq!(set.next_expiry(), Some(Instant::from_nanos(10)));
        assert_eq!(set.expire(Instant::from_nanos(9)), 0);
        assert_eq!(set.expire(Instant::from_nanos(10)), 1);
        assert_eq!(set.next_expiry(), Some(Instant::from_nanos(15)));
        assert!(set.contains(&Digest(2)));
    }

    #[test]
    fn arrival_order_survives_leaving_and_coming_back() {
        let mut set = UnorderedSet::new(UnorderedLimits::default());
        for id in 1..=4 {
            insert(&mut set, id, id as u64).unwrap();
        }
        let first = set.take(&Digest(1)).unwrap();
        insert(&mut set, 5, 5).unwrap();
        set.put_back(first.at, first.head, first.body);
        assert_eq!(order(&set), [1, 2, 3, 4, 5]);
        set.take(&Digest(2));
        insert(&mut set, 2, 6).unwrap();
        assert_eq!(order(&set), [1, 3, 4, 5, 2]);
    }

    #[test]
    fn arrivals_stay_bounded_when_an_old_request_lingers() {
        let mut set = UnorderedSet::new(UnorderedLimits::default());
        insert(&mut set, 1, 0).unwrap();
        for id in 2..10_000 {
            insert(&mut set, id, 0).unwrap();
            set.take(&Digest(id));
        }
        assert!(set.arrivals.len() < 200, "{}", set.arrivals.len());
        assert_eq!(order(&set), [1]);
    }

    fn insert(set: &mut UnorderedSet, id: u128, at: u64) -> Result<(), Full> {
        let head = RequestHead { identity: Digest(id), body_len: 4, ..RequestHead::NONE };
        set.insert(Instant::from_nanos(at), head, Bytes::from_static(b"body")).map(|_| ())
    }

    fn order(set: &UnorderedSet) -> Vec<u128> {
        set.in_arrival_order().map(|waiting| waiting.head.identity.0).collect()
    }
}
