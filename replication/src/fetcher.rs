//! Which bodies are missing here, whom to ask next, and when (protocol.md §7.1).

use std::collections::BTreeMap;
use std::time::Duration;

use r2p2::{Digest, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::digest_map::{DigestMap, digest_map};
use crate::id::{LogIndex, MemberId};
use crate::message::{Fetch, FetchItem};

/// Bounds and times of a [`Fetcher`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchLimits {
    /// F: most bodies asked for at a time; more wait.
    pub in_flight_max: usize,
    /// Most bodies wanted at all; what is beyond is asked for when its Append is repeated.
    pub wanted_max: usize,
    /// How long a body may be late before it is called missing: its datagram may be in a queue here.
    pub patience: Duration,
    /// How long an answer may take before another node is asked; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest time between two questions for one body.
    pub retry_max: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            wanted_max: 4096,
            patience: Duration::from_micros(200),
            retry_min: Duration::from_millis(2),
            retry_max: Duration::from_millis(50),
        }
    }
}

/// How often a body is asked for before it is given up: it may have died with the node that had it. Whoever still needs
/// it is told so by the leader, which repeats the Append, and asks anew.
const ROUNDS_MAX: u32 = 8;

/// Most items per Fetch, so that it fits a datagram.
const ITEMS_PER_FETCH: usize = 50;

/// The bodies missing here. See the module.
#[derive(Debug)]
pub struct Fetcher {
    limits: FetchLimits,
    wanted: DigestMap<Wanted>,
    /// When to ask for what for the first time.
    first: BTreeMap<(Instant, u64), Digest>,
    /// What is to be asked for and waits while all questions are in flight: what comes first in the log goes first,
    /// because nothing behind it can be taken, and bodies do not stay for ever.
    waiting: BTreeMap<(LogIndex, u64), Digest>,
    /// When to ask again for what. Never waits, or a lost answer could keep its place in flight for ever.
    again: BTreeMap<(Instant, u64), Digest>,
    ticket: u64,
    rng: SmallRng,
}

#[derive(Debug)]
struct Wanted {
    index: LogIndex,
    /// When it is to be asked for next, and since when it waits for that.
    due: (Instant, u64),
    asked: u32,
    ask_first: Option<MemberId>,
    last_asked: Option<MemberId>,
}

impl Fetcher {
    /// Nothing is missing.
    pub fn new(limits: FetchLimits, seed: u64) -> Self {
        Self {
            limits,
            wanted: digest_map(),
            first: BTreeMap::new(),
            waiting: BTreeMap::new(),
            again: BTreeMap::new(),
            ticket: 0,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Notes that the body of `identity` is missing; `index` is where its entry will be (0: not known), `ask_first` a
    /// node known to have it. Returns false if too many are wanted already.
    pub fn want(&mut self, now: Instant, identity: Digest, index: LogIndex, ask_first: Option<MemberId>) -> bool {
        if let Some(wanted) = self.wanted.get_mut(&identity) {
            let waits = self.waiting.remove(&wanted.place()).is_some();
            wanted.index = wanted.index.max(index);
            if waits {
                self.waiting.insert(wanted.place(), identity);
            }
            return true;
        }
        if self.wanted.len() >= self.limits.wanted_max {
            return false;
        }
        let patience = if ask_first.is_some() { Duration::ZERO } else { self.limits.patience };
        self.ticket += 1;
        let due = (now + patience, self.ticket);
        self.first.insert(due, identity);
        self.wanted.insert(identity, Wanted { index, due, asked: 0, ask_first, last_asked: None });
        true
    }

    /// The body is here (by whatever way), or not wanted any more.
    pub fn done(&mut self, identity: &Digest) -> bool {
        let Some(wanted) = self.wanted.remove(identity) else { return false };
        self.first.remove(&wanted.due);
        self.waiting.remove(&wanted.place());
        self.again.remove(&wanted.due);
        true
    }

    /// A node answered that it does not have the body: ask the next one without waiting for the deadline.
    pub fn not_there(&mut self, now: Instant, identity: &Digest) {
        // Not at once for ever: after a round or two the retry time spreads what nobody seems to have.
        if let Some(wanted) = self.wanted.get_mut(identity)
            && (1..4).contains(&wanted.asked)
        {
            self.again.remove(&wanted.due);
            self.ticket += 1;
            wanted.due = (now, self.ticket);
            self.again.insert(wanted.due, *identity);
        }
    }

    /// Whether this body is wanted.
    pub fn wants(&self, identity: &Digest) -> bool {
        self.wanted.contains_key(identity)
    }

    /// Nothing is wanted any more.
    pub fn clear(&mut self) {
        self.wanted.clear();
        self.first.clear();
        self.waiting.clear();
        self.again.clear();
    }

    /// When to call [`Fetcher::ask`].
    pub fn next_due(&self) -> Option<Instant> {
        let again = self.again.first_key_value().map(|((at, _), _)| *at);
        let first = self.first.first_key_value().map(|((at, _), _)| *at);
        let waiting = self.waiting.first_key_value().and_then(|(_, identity)| self.wanted.get(identity));
        let new = first.into_iter().chain(waiting.map(|wanted| wanted.due.0)).filter(|_| self.has_room());
        again.into_iter().chain(new).min()
    }

    /// What to ask whom now, spread over `peers`.
    pub fn ask(&mut self, now: Instant, peers: &[MemberId]) -> Vec<(MemberId, Fetch)> {
        let mut questions: BTreeMap<MemberId, Vec<FetchItem>> = BTreeMap::new();
        if peers.is_empty() {
            // Whoever needs it still will want it again.
            self.clear();
            return Vec::new();
        }
        // One peer per round for all first questions: one Fetch and one answer instead of many.
        let offset = self.rng.random_range(0..peers.len());
        while let Some(first) = self.first.first_entry().filter(|first| first.key().0 <= now) {
            let identity = first.remove();
            if let Some(wanted) = self.wanted.get(&identity) {
                self.waiting.insert(wanted.place(), identity);
            }
        }
        while let Some(identity) = self.pop_due(now) {
            let Some(wanted) = self.wanted.get_mut(&identity) else { continue };
            if wanted.asked == ROUNDS_MAX {
                self.wanted.remove(&identity);
                continue;
            }
            let peer = match wanted.ask_first.take() {
                Some(peer) if peers.contains(&peer) => peer,
                _ => next_peer(peers, offset, wanted.last_asked),
            };
            wanted.asked += 1;
            wanted.last_asked = Some(peer);
            questions.entry(peer).or_default().push(FetchItem { index: wanted.index, identity });
            let retry = (self.limits.retry_min * 2u32.pow(wanted.asked.min(6) - 1)).min(self.limits.retry_max);
            let jitter = retry.mul_f64(self.rng.random_range(0.0..0.5));
            self.ticket += 1;
            wanted.due = (now + retry + jitter, self.ticket);
            self.again.insert(wanted.due, identity);
        }
        let fetches = questions.into_iter().flat_map(|(peer, items)| {
            let chunks: Vec<Vec<FetchItem>> = items.chunks(ITEMS_PER_FETCH).map(<[FetchItem]>::to_vec).collect();
            chunks.into_iter().map(move |items| (peer, Fetch { items }))
        });
        fetches.collect()
    }

    /// How many bodies are wanted.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// How many of them have been asked for.
    pub fn in_flight(&self) -> usize {
        self.again.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether one more body may be asked for.
    fn has_room(&self) -> bool {
        self.again.len() < self.limits.in_flight_max
    }

    fn pop_due(&mut self, now: Instant) -> Option<Digest> {
        if let Some(again) = self.again.first_entry().filter(|again| again.key().0 <= now) {
            return Some(again.remove());
        }
        if self.has_room() { self.waiting.pop_first().map(|(_, identity)| identity) } else { None }
    }
}

impl Wanted {
    /// Its place among what waits. What has no place in the log that is known stands behind all that has.
    fn place(&self) -> (LogIndex, u64) {
        (self.index.checked_sub(1).unwrap_or(LogIndex::MAX), self.due.1)
    }
}

fn next_peer(peers: &[MemberId], offset: usize, last: Option<MemberId>) -> MemberId {
    let at = match last.and_then(|last| peers.iter().position(|peer| *peer == last)) {
        Some(last) => last + 1,
        None => offset,
    };
    peers[at % peers.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};

    /// The others have left the group.
    #[test]
    fn with_nobody_to_ask_nothing_is_due() {
        let mut fetcher = Fetcher::new(FetchLimits::default(), 1);
        assert!(fetcher.want(Instant::ZERO, Digest(1), 0, None));
        assert!(fetcher.next_due().is_some());
        assert!(fetcher.ask(Instant::FAR_FUTURE, &[]).is_empty());
        assert_eq!((fetcher.next_due(), fetcher.len()), (None, 0));
    }

    #[test]
    fn waits_a_moment_then_asks_then_asks_another() {
        let mut fetcher = Fetcher::new(FetchLimits::default(), 1);
        assert!(fetcher.want(Instant::ZERO, Digest(1), 9, None));
        assert!(fetcher.ask(Instant::ZERO, &peers()).is_empty());
        let due = fetcher.next_due().unwrap();
        assert_eq!(due, Instant::ZERO + FetchLimits::default().patience);
        let first = fetcher.ask(due, &peers());
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].1.items, [FetchItem { index: 9, identity: Digest(1) }]);
        let due = fetcher.next_due().unwrap();
        let second = fetcher.ask(due, &peers());
        assert_ne!(first[0].0, second[0].0);
        assert!(fetcher.done(&Digest(1)));
        assert_eq!(fetcher.next_due(), None);
        assert!(fetcher.is_empty());
    }

    #[test]
    fn a_no_moves_the_question_on_at_once() {
        let mut fetcher = Fetcher::new(FetchLimits::default(), 1);
        fetcher.want(Instant::ZERO, Digest(1), 9, Some(peers()[1]));
        let first = fetcher.ask(Instant::ZERO, &peers());
        assert_eq!(first[0].0, peers()[1]);
        fetcher.not_there(Instant::ZERO, &Digest(1));
        let second = fetcher.ask(Instant::ZERO, &peers());
        assert_eq!(second[0].0, peers()[0]);
    }

    #[test]
    fn questions_in_flight_at_the_limit_and_one_past_it() {
        let limits = FetchLimits { in_flight_max: 2, patience: Duration::ZERO, ..FetchLimits::default() };
        let mut fetcher = Fetcher::new(limits, 1);
        for id in 1..=3 {
            fetcher.want(Instant::ZERO, Digest(id), 0, None);
        }
        let asked: usize = fetcher.ask(Instant::ZERO, &peers()).iter().map(|(_, fetch)| fetch.items.len()).sum();
        assert_eq!(asked, 2);
        let retry = fetcher.next_due().expect("what is in flight is asked for again though another waits");
        assert!(retry > Instant::ZERO);
        assert!(!fetcher.ask(retry, &peers()).is_empty());
        fetcher.done(&Digest(1));
        assert_eq!(fetcher.next_due(), Some(Instant::ZERO));
        assert_eq!(fetcher.ask(Instant::ZERO, &peers()).len(), 1);
    }

    /// What is behind it in the log can wait, and would wait for it.
    #[test]
    fn what_comes_first_in_the_log_is_asked_for_first() {
        let limits = FetchLimits { in_flight_max: 1, patience: Duration::ZERO, ..FetchLimits::default() };
        let mut fetcher = Fetcher::new(limits, 1);
        for (id, index) in [(1, 0), (5, 0), (2, 8), (3, 7), (4, 9)] {
            fetcher.want(Instant::ZERO, Digest(id), index, None);
        }
        let mut next = || {
            let fetches = fetcher.ask(Instant::ZERO, &peers());
            let asked = fetches.first()?.1.items[0].identity;
            // It waits, and now its place is known.
            if asked == Digest(3) {
                fetcher.want(Instant::ZERO, Digest(1), 10, None);
            }
            fetcher.done(&asked);
            Some(asked.0)
        };
        assert_eq!([(); 6].map(|()| next()), [Some(3), Some(2), Some(4), Some(1), Some(5), None]);
    }

    #[test]
    fn what_nobody_has_is_given_up_and_makes_room() {
        let limits = FetchLimits { in_flight_max: 1, patience: Duration::ZERO, ..FetchLimits::default() };
        let mut fetcher = Fetcher::new(limits, 1);
        fetcher.want(Instant::ZERO, Digest(1), 0, None);
        fetcher.want(Instant::ZERO, Digest(2), 0, None);
        let mut asked = Vec::new();
        while let Some(due) = fetcher.next_due() {
            asked.extend(fetcher.ask(due, &peers()).into_iter().flat_map(|(_, fetch)| fetch.items));
        }
        assert!(fetcher.is_empty());
        for id in [1, 2] {
            let rounds = asked.iter().filter(|item| item.identity == Digest(id)).count();
            assert_eq!(rounds, ROUNDS_MAX as usize);
        }
    }

    #[test]
    fn wanted_at_the_limit_and_one_past_it() {
        let mut fetcher = Fetcher::new(FetchLimits { wanted_max: 2, ..FetchLimits::default() }, 1);
        assert!(fetcher.want(Instant::ZERO, Digest(1), 0, None));
        assert!(fetcher.want(Instant::ZERO, Digest(2), 0, None));
        assert!(!fetcher.want(Instant::ZERO, Digest(3), 0, None));
        assert!(fetcher.want(Instant::ZERO, Digest(2), 0, None), "already wanted");
    }

    fn peers() -> [MemberId; 2] {
        [2, 3].map(|node| MemberId::new(NodeId(node), Incarnation(1)))
    }
}
