//! [`Map`]: an ordered map that can be looked at as it was, by another thread, while it changes.
//!
//! Freezing shares everything. From then on, and for as long as somebody looks, changes go into a second map on top;
//! afterwards they move down, a few with every further change. So whoever never freezes pays nothing, and whoever does
//! pays with memory for what changes meanwhile.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// How many changes move down with each further one. More than one, so that it ends.
const MOVES: usize = 4;

/// Keys with values, in order.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Nobody changes it while it is shared.
    base: Arc<BTreeMap<Bytes, Bytes>>,
    /// What has changed since; `None` where a key has gone. Not empty only while `base` is shared, and for a while
    /// after that.
    changes: BTreeMap<Bytes, Option<Bytes>>,
    len: usize,
}

impl Map {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &Bytes) -> Option<&Bytes> {
        if !self.changes.is_empty()
            && let Some(change) = self.changes.get(key)
        {
            return change.as_ref();
        }
        self.base.get(key)
    }

    /// Gives a key a value, and returns the one it had.
    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) -> Option<Bytes> {
        let old = self.change(key, Some(value));
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a key's value away, and returns it.
    pub(super) fn remove(&mut self, key: &Bytes) -> Option<Bytes> {
        let old = self.change(key.clone(), None);
        self.len -= usize::from(old.is_some());
        old
    }

    /// From `start` on.
    pub(super) fn range(&self, start: &Bytes) -> Pairs<'_> {
        let bounds = (Bound::Included(start), Bound::Unbounded);
        Pairs {
            base: self.base.range::<Bytes, _>(bounds).peekable(),
            changes: self.changes.range::<Bytes, _>(bounds).peekable(),
        }
    }

    /// All of it as it is now. Takes constant time, unless changes are left from the last time.
    pub(super) fn freeze(&self) -> Frozen {
        Frozen { base: Arc::clone(&self.base), changes: self.changes.clone(), len: self.len }
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        if !self.changes.is_empty() {
            self.move_down();
        }
        let Some(base) = Arc::get_mut(&mut self.base) else {
            let old = self.base.get(&key);
            let there = old.is_some();
            return match self.changes.entry(key) {
                btree_map::Entry::Occupied(mut entry) if value.is_some() || there => entry.insert(value),
                btree_map::Entry::Occupied(entry) => entry.remove(),
                btree_map::Entry::Vacant(entry) => {
                    let old = old.cloned();
                    if value.is_some() || there {
                        entry.insert(value);
                    }
                    old
                }
            };
        };
        let changed = if self.changes.is_empty() { None } else { self.changes.remove(&key) };
        let below = match value {
            Some(value) => base.insert(key, value),
            None => base.remove(&key),
        };
        changed.unwrap_or(below)
    }

    /// Moves a few changes to where they belong, unless somebody looks.
    fn move_down(&mut self) {
        let Some(base) = Arc::get_mut(&mut self.base) else { return };
        for _ in 0..MOVES {
            let Some((key, value)) = self.changes.pop_first() else { break };
            match value {
                Some(value) => base.insert(key, value),
                None => base.remove(&key),
            };
        }
    }
}

/// A map as it was.
#[derive(Debug)]
pub(super) struct Frozen {
    base: Arc<BTreeMap<Bytes, Bytes>>,
    changes: BTreeMap<Bytes, Option<Bytes>>,
    len: usize,
}

impl Frozen {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> Pairs<'_> {
        Pairs {
            base: self.base.range::<Bytes, _>(..).peekable(),
            changes: self.changes.range::<Bytes, _>(..).peekable(),
        }
    }
}

/// Pairs in the order of their keys.
pub(super) struct Pairs<'a> {
    base: Peekable<btree_map::Range<'a, Bytes, Bytes>>,
    changes: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a Bytes, &'a Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((changed, _)) = self.changes.peek() else { return self.base.next() };
            if self.base.peek().is_some_and(|(key, _)| key < changed) {
                return self.base.next();
            }
            self.base.next_if(|(key, _)| key == changed);
            if let (key, Some(value)) = self.changes.next()? {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u8),
        Remove(u8),
        Freeze,
        /// Somebody looks at the oldest of what is frozen, and goes.
        Look,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..40u8, any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
            3 => (0..40u8).prop_map(Step::Remove),
            1 => Just(Step::Freeze),
            1 => Just(Step::Look),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn bytes(byte: u8) -> Bytes {
        Bytes::copy_from_slice(&[byte])
    }

    proptest! {
        #[test]
        fn behaves_like_a_btree_map_and_what_is_frozen_stays(steps in steps()) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let mut frozen = std::collections::VecDeque::new();
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        prop_assert_eq!(map.insert(bytes(key), bytes(value)), model.insert(bytes(key), bytes(value)));
                    }
                    Step::Remove(key) => prop_assert_eq!(map.remove(&bytes(key)), model.remove(&bytes(key))),
                    Step::Freeze => frozen.push_back((map.freeze(), model.clone())),
                    Step::Look => {
                        if let Some((frozen, model)) = frozen.pop_front() {
                            prop_assert!(frozen.iter().eq(&model));
                            prop_assert_eq!(frozen.len(), model.len());
                        }
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.range(&bytes(7)).eq(model.range(bytes(7)..)));
                for key in 0..40 {
                    prop_assert_eq!(map.get(&bytes(key)), model.get(&bytes(key)));
                }
            }
            drop(frozen);
            // Everything moves down in the end.
            for _ in 0..40 {
                map.insert(bytes(41), bytes(0));
            }
            prop_assert!(map.changes.is_empty());
        }
    }

    #[test]
    fn nothing_is_copied_when_nobody_looks() {
        let mut map = Map::default();
        map.insert(bytes(1), bytes(1));
        let at = map.base.get(&bytes(1)).map(|value| value.as_ptr());
        drop(map.freeze());
        map.insert(bytes(2), bytes(2));
        assert!(map.changes.is_empty());
        assert_eq!(map.freeze().base.get(&bytes(1)).map(|value| value.as_ptr()), at);
    }
}
