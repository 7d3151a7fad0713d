//! [`OrderedSlab`]: values in an order, each removable and movable to the end in constant time.

/// A list whose values keep their [`Key`] while others come and go.
///
/// Keys are positions in memory and depend on history, so they must never influence anything replicated; the order of
/// the values may.
#[derive(Clone, Debug)]
pub(super) struct OrderedSlab<T> {
    slots: Vec<Slot<T>>,
    /// The first of the free slots, which are linked by `after`.
    free: u32,
    front: u32,
    back: u32,
    len: usize,
}

/// Names one value of one slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(u32);

#[derive(Clone, Debug)]
struct Slot<T> {
    /// `None` while the slot is free.
    value: Option<T>,
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

impl<T> OrderedSlab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, front: NONE, back: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a value at the end.
    pub(super) fn push_back(&mut self, value: T) -> Key {
        let at = if self.free == NONE {
            let at = u32::try_from(self.slots.len()).ok().filter(|&at| at != NONE).expect("limits are below 2^32");
            self.slots.push(Slot { value: Some(value), before: NONE, after: NONE });
            at
        } else {
            let at = self.free;
            let slot = &mut self.slots[at as usize];
            self.free = slot.after;
            slot.value = Some(value);
            at
        };
        self.link_back(at);
        self.len += 1;
        Key(at)
    }

    /// Takes a value out; its key may name another one later.
    pub(super) fn remove(&mut self, key: Key) -> T {
        self.unlink(key.0);
        let slot = &mut self.slots[key.0 as usize];
        let value = slot.value.take().expect(DANGLING);
        slot.after = self.free;
        self.free = key.0;
        self.len -= 1;
        value
    }

    pub(super) fn move_to_back(&mut self, key: Key) {
        debug_assert!(self.slots[key.0 as usize].value.is_some(), "{DANGLING}");
        if self.back != key.0 {
            self.unlink(key.0);
            self.link_back(key.0);
        }
    }

    pub(super) fn front(&self) -> Option<Key> {
        (self.front != NONE).then_some(Key(self.front))
    }

    pub(super) fn get(&self, key: Key) -> &T {
        self.slots[key.0 as usize].value.as_ref().expect(DANGLING)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> &mut T {
        self.slots[key.0 as usize].value.as_mut().expect(DANGLING)
    }

    /// From front to back.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut at = self.front;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            at = slot.after;
            slot.value.as_ref()
        })
    }

    fn link_back(&mut self, at: u32) {
        let before = self.back;
        let slot = &mut self.slots[at as usize];
        slot.before = before;
        slot.after = NONE;
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = at,
            None => self.front = at,
        }
        self.back = at;
    }

    fn unlink(&mut self, at: u32) {
        let Slot { before, after, .. } = self.slots[at as usize];
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => self.front = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => self.back = before,
        }
    }
}

const DANGLING: &str = "a key is kept only as long as its value";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_reused() {
        let mut slab = OrderedSlab::new();
        for round in 0..10 {
            let a = slab.push_back(round);
            let b = slab.push_back(round + 100);
            assert_eq!(slab.remove(a), round);
            assert_eq!(slab.remove(b), round + 100);
        }
        assert_eq!((slab.slots.len(), slab.len()), (2, 0));
        assert_eq!(slab.front(), None);
    }

    proptest! {
        #[test]
        fn behaves_like_a_vec(steps in prop::collection::vec((0..3, any::<prop::sample::Index>()), 0..200)) {
            let mut slab = OrderedSlab::new();
            let mut model: Vec<(Key, usize)> = Vec::new();
            for (value, (kind, which)) in steps.into_iter().enumerate() {
                match kind {
                    1 if !model.is_empty() => {
                        let (key, value) = model.remove(which.index(model.len()));
                        prop_assert_eq!(slab.remove(key), value);
                    }
                    2 if !model.is_empty() => {
                        let moved = model.remove(which.index(model.len()));
                        slab.move_to_back(moved.0);
                        model.push(moved);
                    }
                    _ => model.push((slab.push_back(value), value)),
                }
                prop_assert_eq!(slab.len(), model.len());
                prop_assert_eq!(slab.front(), model.first().map(|first| first.0));
                prop_assert!(slab.iter().copied().eq(model.iter().map(|&(_, value)| value)));
                for &(key, value) in &model {
                    prop_assert_eq!(*slab.get(key), value);
                }
            }
        }
    }
}
