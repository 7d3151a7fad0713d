//! How far the apply thread is.

use super::sync::{AtomicU64, Ordering};
use crate::id::LogIndex;

/// The highest applied index: written by the apply thread, read by the network thread for its acknowledgements.
///
/// Whoever reads an index also sees everything the apply thread did before publishing it; in particular the answers it
/// handed over for those entries. A node must never report an entry applied whose answer is not on its way yet
/// (protocol.md §6.5).
#[derive(Debug)]
pub struct AppliedIndex(AtomicU64);

impl AppliedIndex {
    /// Starts at `index`: 0, or where a snapshot ends.
    #[must_use]
    pub fn new(index: LogIndex) -> Self {
        Self(AtomicU64::new(index))
    }

    /// Apply thread only: everything up to `index` is applied. Never goes backwards.
    pub fn publish(&self, index: LogIndex) {
        // Only this thread writes, so its own last value needs no ordering.
        debug_assert!(self.0.load(Ordering::Relaxed) <= index, "the applied index went backwards");
        // Release: pairs with the Acquire in `read`, which is what makes the answers visible with the index.
        self.0.store(index, Ordering::Release);
    }

    /// Any thread: the newest index known here. Successive calls on one thread never go backwards.
    #[must_use]
    pub fn read(&self) -> LogIndex {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_published() {
        let applied = AppliedIndex::new(7);
        assert_eq!(applied.read(), 7);
        applied.publish(7);
        applied.publish(9);
        assert_eq!(applied.read(), 9);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "went backwards")]
    fn never_goes_backwards() {
        AppliedIndex::new(7).publish(6);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Answers;
    use loom::thread;

    use super::*;

    #[test]
    fn an_index_comes_with_the_answers_before_it() {
        loom::model(|| {
            let shared = Arc::new((AppliedIndex::new(0), Answers::new(0)));
            let apply = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for index in 1..=2 {
                        shared.1.store(index, Ordering::Relaxed);
                        shared.0.publish(index);
                    }
                })
            };
            let first = shared.0.read();
            assert!(shared.1.load(Ordering::Relaxed) >= first, "an entry is reported whose answer is not there");
            let second = shared.0.read();
            assert!(second >= first);
            assert!(shared.1.load(Ordering::Relaxed) >= second, "an entry is reported whose answer is not there");
            apply.join().unwrap();
            assert_eq!(shared.0.read(), 2);
        });
    }
}
