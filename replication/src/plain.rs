//! What a node remembers of plain requests that have been ordered, so that a copy in the network is not ordered again,
//! by this leader or the next (protocol.md §1 "identity", §3.3). This memory never influences apply: a client that needs
//! exactly-once uses a session.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use r2p2::{Digest, Instant};

use crate::digest_map::{DigestMap, digest_map};

/// When a plain request is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainLimits {
    /// R: after this many newer requests of the same address and port. Less than the 65 536 after which its RPC id
    /// may name a new request with the same body.
    pub newer_max: u64,
    /// T: after this long. Longer than the unordered set keeps bodies, so that a late copy there is recognised.
    pub age_max: Duration,
    /// Most requests remembered in all.
    pub count_max: usize,
}

impl Default for PlainLimits {
    fn default() -> Self {
        Self { newer_max: 16_384, age_max: Duration::from_secs(6), count_max: 1 << 20 }
    }
}

/// The memory. See the module.
#[derive(Debug)]
pub struct PlainMemory {
    limits: PlainLimits,
    /// The request's number among those of its address.
    known: DigestMap<u64>,
    oldest_first: VecDeque<(Instant, SocketAddrV4, Digest, u64)>,
    clients: BTreeMap<SocketAddrV4, Client>,
}

#[derive(Debug, Default)]
struct Client {
    requests: u64,
    remembered: usize,
}

impl PlainMemory {
    /// An empty memory.
    pub fn new(limits: PlainLimits) -> Self {
        Self { limits, known: digest_map(), oldest_first: VecDeque::new(), clients: BTreeMap::new() }
    }

    /// Remembers that this request has been ordered.
    pub fn remember(&mut self, now: Instant, client: SocketAddrV4, identity: Digest) {
        let entry = self.clients.entry(client).or_default();
        entry.requests += 1;
        entry.remembered += 1;
        let number = entry.requests;
        self.known.insert(identity, number);
        self.oldest_first.push_back((now, client, identity, number));
        self.forget(now);
    }

    /// Whether this request was ordered, as far as is remembered.
    pub fn knows(&mut self, now: Instant, client: SocketAddrV4, identity: &Digest) -> bool {
        self.forget(now);
        if mutated!(PlainCopyOrdered) {
            return false;
        }
        let Some(number) = self.known.get(identity) else { return false };
        let requests = self.clients.get(&client).map_or(0, |client| client.requests);
        requests - number < self.limits.newer_max
    }

    /// Forgets a request: its entry was replaced by another leader's, so it has not been ordered after all.
    pub fn withdraw(&mut self, identity: &Digest) {
        self.known.remove(identity);
    }

    /// The newest that are remembered, at most `count`, oldest first, each with its age.
    pub fn newest(&self, now: Instant, count: usize) -> impl Iterator<Item = (SocketAddrV4, Digest, Duration)> {
        let skipped = self.oldest_first.len().saturating_sub(count);
        let newest = self.oldest_first.iter().skip(skipped);
        let known = newest.filter(|(_, _, identity, number)| self.known.get(identity) == Some(number));
        known.map(move |(at, client, identity, _)| (*client, *identity, now.since(*at)))
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.oldest_first.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.oldest_first.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, client, identity, number)) = self.oldest_first.front().copied() {
            if self.oldest_first.len() <= self.limits.count_max && now.since(at) < self.limits.age_max {
                return;
            }
            self.oldest_first.pop_front();
            if self.known.get(&identity) == Some(&number) {
                self.known.remove(&identity);
            }
            if let Some(entry) = self.clients.get_mut(&client) {
                entry.remembered -= 1;
                if entry.remembered == 0 {
                    self.clients.remove(&client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    #[test]
    fn newer_requests_at_the_limit_and_one_past_it() {
        let mut memory = PlainMemory::new(PlainLimits { newer_max: 3, ..PlainLimits::default() });
        for id in 1..=3 {
            memory.remember(Instant::ZERO, CLIENT, Digest(id));
        }
        assert!(memory.knows(Instant::ZERO, CLIENT, &Digest(1)));
        memory.remember(Instant::ZERO, CLIENT, Digest(4));
        assert!(!memory.knows(Instant::ZERO, CLIENT, &Digest(1)));
        assert!(memory.knows(Instant::ZERO, CLIENT, &Digest(2)));
    }

    #[test]
    fn another_clients_requests_do_not_count() {
        let mut memory = PlainMemory::new(PlainLimits { newer_max: 3, ..PlainLimits::default() });
        memory.remember(Instant::ZERO, CLIENT, Digest(1));
        for id in 2..=9 {
            memory.remember(Instant::ZERO, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2), Digest(id));
        }
        assert!(memory.knows(Instant::ZERO, CLIENT, &Digest(1)));
    }

    #[test]
    fn age_at_the_limit_and_just_before() {
        let mut memory = PlainMemory::new(PlainLimits { age_max: Duration::from_nanos(10), ..PlainLimits::default() });
        memory.remember(Instant::ZERO, CLIENT, Digest(1));
        assert!(memory.knows(Instant::from_nanos(9), CLIENT, &Digest(1)));
        assert!(!memory.knows(Instant::from_nanos(10), CLIENT, &Digest(1)));
        assert!(memory.is_empty());
        assert!(memory.clients.is_empty());
    }

    #[test]
    fn what_is_withdrawn_is_new() {
        let mut memory = PlainMemory::new(PlainLimits::default());
        memory.remember(Instant::ZERO, CLIENT, Digest(1));
        memory.withdraw(&Digest(1));
        assert!(!memory.knows(Instant::ZERO, CLIENT, &Digest(1)));
        memory.remember(Instant::ZERO, CLIENT, Digest(1));
        assert!(memory.knows(Instant::ZERO, CLIENT, &Digest(1)));
    }

    #[test]
    fn the_newest_are_told_with_their_age_and_without_what_was_withdrawn() {
        let mut memory = PlainMemory::new(PlainLimits::default());
        for id in 1..=4 {
            memory.remember(Instant::from_nanos(id), CLIENT, Digest(id.into()));
        }
        memory.withdraw(&Digest(3));
        let told: Vec<_> = memory.newest(Instant::from_nanos(10), 3).collect();
        let age = Duration::from_nanos;
        assert_eq!(told, [(CLIENT, Digest(2), age(8)), (CLIENT, Digest(4), age(6))]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = PlainMemory::new(PlainLimits { count_max: 5, ..PlainLimits::default() });
        for id in 0..100 {
            memory.remember(Instant::ZERO, CLIENT, Digest(id));
        }
        assert_eq!(memory.len(), 5);
    }
}
