//! What a forwarder hears from servers.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use crate::wire::{Answered, Feedback};

/// Most streams remembered of one sender: a server has one or two, and leaves one behind whenever it restarts.
pub const STREAMS_PER_SENDER: usize = 4;

/// How many numbers below the highest are told apart; older ones are taken for repeated.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// Gives out every answered request at most once, however often and in whatever order its FEEDBACK comes.
///
/// Bounded by [`STREAMS_PER_SENDER`] times the senders that its owner lets in.
#[derive(Debug, Default)]
pub struct Inbox {
    /// By sender and epoch.
    streams: BTreeMap<(SocketAddrV4, u64), Stream>,
    serial: u64,
    counters: InboxCounters,
}

/// What an [`Inbox`] has counted, in answered requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InboxCounters {
    /// Given out.
    pub fresh: u64,
    /// Known already, or too old to tell.
    pub repeated: u64,
    /// Numbers that were passed over and not heard of when they left the window.
    pub lost: u64,
    /// Packets whose body is no list of answered requests, or more than their count.
    pub malformed: u64,
}

#[derive(Debug)]
struct Stream {
    /// The highest number seen.
    highest: u64,
    /// Which of the [`WINDOW`] numbers up to `highest` were seen: number n is bit n modulo the window.
    seen: [u64; WORDS],
    /// When it was used last, by `Inbox::serial`.
    used: u64,
}

impl Inbox {
    /// One that has heard nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the body of a FEEDBACK with the extension *answered* that came from `from`, and gives `take` what is in
    /// it for the first time, oldest first.
    pub fn accept(&mut self, from: SocketAddrV4, answered: Answered, payload: &[u8], take: &mut dyn FnMut(Feedback)) {
        let items = payload.chunks_exact(Feedback::LEN);
        let len = items.len() as u64;
        if !items.remainder().is_empty() || len > answered.count || answered.count >= u64::MAX - WINDOW {
            self.counters.malformed += 1;
            return;
        }
        if len == 0 {
            return;
        }
        let first = answered.count - len + 1;
        self.serial += 1;
        let serial = self.serial;
        let counters = &mut self.counters;
        let stream = self.streams.entry((from, answered.epoch)).or_insert_with(|| Stream {
            // What was before it began to listen is not missed.
            highest: first - 1,
            seen: [u64::MAX; WORDS],
            used: serial,
        });
        stream.used = serial;
        for (number, item) in (first..).zip(items) {
            let Ok(item) = Feedback::parse(item) else { continue };
            if stream.is_new(number, &mut counters.lost) {
                counters.fresh += 1;
                take(item);
            } else {
                counters.repeated += 1;
            }
        }
        self.forget_streams(from);
    }

    /// Forgets a sender.
    pub fn forget(&mut self, from: SocketAddrV4) {
        while let Some((&key, _)) = self.streams.range((from, 0)..=(from, u64::MAX)).next() {
            self.streams.remove(&key);
        }
    }

    /// How many streams are remembered.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &InboxCounters {
        &self.counters
    }

    /// Of too many streams of one sender the one not used for longest goes.
    fn forget_streams(&mut self, from: SocketAddrV4) {
        let range = || (from, 0)..=(from, u64::MAX);
        while self.streams.range(range()).nth(STREAMS_PER_SENDER).is_some() {
            let oldest = self.streams.range(range()).min_by_key(|(_, stream)| stream.used).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.streams.remove(&oldest);
            }
        }
    }
}

impl Stream {
    /// Notes a number, and says whether it was not known.
    fn is_new(&mut self, number: u64, lost: &mut u64) -> bool {
        if number + WINDOW <= self.highest {
            return false;
        }
        if number > self.highest {
            if number - self.highest >= WINDOW {
                // All that was in the window leaves it, and what is passed over never was in it.
                *lost += self.seen.iter().map(|word| u64::from(word.count_zeros())).sum::<u64>();
                *lost += number - self.highest - WINDOW;
                self.seen = [0; WORDS];
            } else {
                for passed in self.highest + 1..=number {
                    let (word, bit) = place(passed);
                    *lost += u64::from(self.seen[word] & bit == 0);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = number;
        }
        let (word, bit) = place(number);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}
