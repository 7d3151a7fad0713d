//! Buffers on their way back to the thread that allocates them.

use std::sync::Arc;

use super::sync::Mutex;

/// A bounded ring from one [`Returner`] to one [`Returns`]: the apply thread gives used buffers back through it, so
/// that the network thread need not allocate new ones and frees happen where the allocations do.
///
/// It is an optimisation that must never cost more than it saves: neither side ever waits. If the ring is full, or the
/// other side is busy with the very slot, the buffer is handed back to the caller, who drops it.
///
/// The slots are mutexes that are only ever tried, one per buffer: the two sides meet at a slot only when the ring is
/// full or empty. Each side keeps its own position, so there is no shared index whose ordering could be wrong, and no
/// `unsafe`.
///
/// # Panics
/// If `slots` is 0.
#[must_use]
pub fn return_ring<T: Send>(slots: usize) -> (Returner<T>, Returns<T>) {
    assert!(slots > 0, "a ring needs a slot");
    let slots: Arc<[Mutex<Option<T>>]> = (0..slots).map(|_| Mutex::new(None)).collect::<Vec<_>>().into();
    (Returner { slots: Arc::clone(&slots), next: 0 }, Returns { slots, next: 0 })
}

/// The side that gives buffers back.
#[derive(Debug)]
pub struct Returner<T> {
    slots: Arc<[Mutex<Option<T>>]>,
    next: usize,
}

/// The side that takes them.
#[derive(Debug)]
pub struct Returns<T> {
    slots: Arc<[Mutex<Option<T>>]>,
    next: usize,
}

impl<T: Send> Returner<T> {
    /// Gives `buffer` back.
    ///
    /// # Errors
    /// The buffer itself, if there is no room for it now: drop it.
    pub fn give(&mut self, buffer: T) -> Result<(), T> {
        // A slot that is locked is being emptied this moment, and one that is poisoned will never be used again: both
        // count as full.
        let Ok(mut slot) = self.slots[self.next].try_lock() else { return Err(buffer) };
        if slot.is_some() {
            return Err(buffer);
        }
        *slot = Some(buffer);
        drop(slot);
        self.next = (self.next + 1) % self.slots.len();
        Ok(())
    }
}

impl<T: Send> Returns<T> {
    /// The buffer that was given back first, if there is one.
    pub fn take(&mut self) -> Option<T> {
        // A slot that is locked is being filled this moment: it counts as empty.
        let buffer = self.slots[self.next].try_lock().ok()?.take()?;
        self.next = (self.next + 1) % self.slots.len();
        Some(buffer)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_at_the_limit_and_one_past_it() {
        let (mut returner, mut returns) = return_ring(2);
        assert_eq!(returns.take(), None);
        for round in 0..5 {
            assert_eq!(returner.give(round), Ok(()));
            assert_eq!(returner.give(round + 10), Ok(()));
            assert_eq!(returner.give(round + 20), Err(round + 20), "full");
            assert_eq!(returns.take(), Some(round));
            assert_eq!(returner.give(round + 30), Ok(()));
            assert_eq!(returns.take(), Some(round + 10));
            assert_eq!(returns.take(), Some(round + 30));
            assert_eq!(returns.take(), None);
        }
    }

    #[test]
    fn what_nobody_takes_is_dropped_with_the_ring() {
        let buffer = Arc::new(());
        let (mut returner, returns) = return_ring(4);
        returner.give(Arc::clone(&buffer)).unwrap();
        drop(returns);
        returner.give(Arc::clone(&buffer)).unwrap();
        drop(returner);
        assert_eq!(Arc::strong_count(&buffer), 1);
    }

    #[test]
    #[should_panic(expected = "needs a slot")]
    fn no_slots() {
        let _ = return_ring::<Vec<u8>>(0);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    /// Gives `buffers` numbered buffers while taking; every one comes back exactly once, and in order.
    fn nothing_lost_or_doubled(slots: usize, buffers: u32) {
        let (mut returner, mut returns) = return_ring(slots);
        let giver = thread::spawn(move || {
            let refused: Vec<Box<u32>> = (0..buffers).filter_map(|n| returner.give(Box::new(n)).err()).collect();
            (returner, refused)
        });
        let mut taken: Vec<u32> = Vec::new();
        for _ in 0..buffers {
            taken.extend(returns.take().map(|buffer| *buffer));
        }
        let (_returner, refused) = giver.join().unwrap();
        while let Some(buffer) = returns.take() {
            taken.push(*buffer);
        }
        assert!(taken.is_sorted(), "{taken:?}");
        let mut all: Vec<u32> = taken.into_iter().chain(refused.into_iter().map(|buffer| *buffer)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..buffers).collect::<Vec<_>>());
    }

    #[test]
    fn one_slot() {
        loom::model(|| nothing_lost_or_doubled(1, 2));
    }

    #[test]
    fn around_the_ring() {
        loom::model(|| nothing_lost_or_doubled(2, 3));
    }
}
