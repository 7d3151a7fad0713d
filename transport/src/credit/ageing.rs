//! A bounded map whose entries end in the order in which they came.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ahash::RandomState;

use crate::Instant;

/// A bounded map in which everything stays for the same time. Every operation takes constant time, and nothing is
/// allocated once it has been as full as it gets.
///
/// Keys may come from anybody, so they are hashed with a seed that nobody else knows (which changes nothing but speed:
/// the map is never iterated in the order of hashes).
#[derive(Debug)]
pub struct Ageing<K, V> {
    stay: Duration,
    limit: usize,
    places: HashMap<K, u32, RandomState>,
    entries: Vec<Entry<K, V>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    /// `None` if the place is free.
    value: Option<V>,
    end: Instant,
    older: u32,
    newer: u32,
}

/// No place.
const NONE: u32 = u32::MAX;

impl<K: Copy + Eq + Hash, V> Ageing<K, V> {
    /// An empty one, for at most `limit` entries (at least 1, below 2^32), which stay for `stay` each.
    pub fn new(stay: Duration, limit: usize, seed: u64) -> Self {
        Self {
            stay,
            limit: limit.clamp(1, NONE as usize),
            places: HashMap::with_hasher(RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x6167_6569_6e67)),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether there is no room for one more.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries[*self.places.get(key)? as usize].value.as_ref()
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries[*self.places.get(key)? as usize].value.as_mut()
    }

    /// Puts in an entry that stays until `now` + the time that all stay, in place of one of the same key, which is
    /// returned. Says `Err` with the value if there is no room.
    pub fn insert(&mut self, now: Instant, key: K, value: V) -> Result<Option<V>, V> {
        let before = self.remove(&key);
        if self.is_full() {
            return Err(value);
        }
        // Time does not run backwards; if it did, entries would still end in the order in which they came.
        let end =
            self.entries.get(self.newest as usize).map_or(Instant::ZERO, |newest| newest.end).max(now + self.stay);
        let entry = Entry { key, value: Some(value), end, older: self.newest, newer: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        match self.entries.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.places.insert(key, place);
        Ok(before)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        let (older, newer, value) = {
            let entry = &mut self.entries[place as usize];
            (entry.older, entry.newer, entry.value.take())
        };
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.free.push(place);
        value
    }

    /// The oldest.
    pub fn oldest(&self) -> Option<(K, &V)> {
        let entry = self.entries.get(self.oldest as usize)?;
        Some((entry.key, entry.value.as_ref()?))
    }

    /// Takes out the oldest.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let key = self.entries.get(self.oldest as usize)?.key;
        Some((key, self.remove(&key)?))
    }

    /// Takes out the oldest if its time has come.
    pub fn pop_ended(&mut self, now: Instant) -> Option<(K, V)> {
        self.next_end().filter(|end| *end <= now).and_then(|_| self.pop_oldest())
    }

    /// When the oldest ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.entries.get(self.oldest as usize).map(|entry| entry.end)
    }
}
