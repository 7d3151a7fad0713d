//! What checkers remember of things that no index puts in order: the newest of them.

use std::collections::{BTreeMap, VecDeque};

/// A map that forgets what was put in first when there is more than `MAX`.
#[derive(Debug)]
pub struct Recent<K, V, const MAX: usize> {
    known: BTreeMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K, V, const MAX: usize> Default for Recent<K, V, MAX> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), oldest_first: VecDeque::new() }
    }
}

impl<K: Ord + Copy, V, const MAX: usize> Recent<K, V, MAX> {
    /// Whether the key is known.
    pub fn contains(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// What is known under this key; if nothing is, `value` from now on.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.known.contains_key(&key) {
            self.oldest_first.push_back(key);
            if self.oldest_first.len() > MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.known.entry(key).or_insert_with(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_all_are_known_and_one_past_it_the_oldest_is_forgotten() {
        let mut recent: Recent<u64, char, 3> = Recent::default();
        for (key, value) in [(9, 'a'), (1, 'b'), (5, 'c'), (9, 'x')] {
            recent.get_or_insert_with(key, || value);
        }
        assert_eq!(*recent.get_or_insert_with(9, || 'y'), 'a', "the first value stays");
        recent.get_or_insert_with(2, || 'd');
        assert!(!recent.contains(&9), "the first, not the smallest");
        assert!([1, 5, 2].iter().all(|key| recent.contains(key)));
        assert_eq!(recent.known.len(), 3);
    }
}
