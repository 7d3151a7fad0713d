//! Sleep without missing the wake-up.

use super::sync::{AtomicU8, Ordering};

/// Lets one thread sleep in the kernel and others wake it with a system call only when it really sleeps.
///
/// The sleeper's loop, where "look" means: take everything there is from every queue that wakers fill.
///
/// ```
/// # use hovercraft::handoff::WakeFlag;
/// # fn look() {} fn wait_for_sockets_or_bell() {}
/// # let flag = WakeFlag::new();
/// # for _ in 0..2 {
/// look();
/// if flag.prepare_sleep() {
///     wait_for_sockets_or_bell(); // ppoll on the sockets and an eventfd, with a deadline
///     flag.awake();
/// }
/// # }
/// ```
///
/// A waker first puts its item where the sleeper looks, then calls [`wake`](Self::wake), and rings the bell (writes
/// the eventfd) if that returned `true`. The bell must remember a ring that comes before the wait, as an eventfd does.
///
/// Nothing is lost: all calls are read-modify-writes of one byte, so they have one order. If `wake` comes before
/// `prepare_sleep`, the latter says "look again" and sees the item; if it comes after, it is told to ring. A ring for a
/// sleeper that has just got up for another reason makes its next sleep a short one, nothing worse.
#[derive(Debug)]
pub struct WakeFlag(AtomicU8);

/// The sleeper is looking, nobody has called since it began.
const AWAKE: u8 = 0;
/// Somebody has called since the sleeper last looked.
const CALLED: u8 = 1;
/// The sleeper sleeps or is about to, and nobody has called.
const ASLEEP: u8 = 2;

impl WakeFlag {
    /// For a sleeper that is awake.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a flag belongs to a particular thread; nothing should default one")]
    pub fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// Sleeper only: `true` if it may sleep now; `false` if somebody called since it last looked, so that it must look
    /// again instead.
    #[must_use = "sleeping after `false` misses a wake-up"]
    pub fn prepare_sleep(&self) -> bool {
        // Relaxed: on success nobody called, so there is nothing to see; on failure `awake` sees it.
        match self.0.compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(found) => {
                debug_assert_eq!(found, CALLED, "awake() was not called after the last sleep");
                self.awake();
                false
            }
        }
    }

    /// Sleeper only: it got up, for whatever reason, and looks after this call.
    pub fn awake(&self) {
        // Acquire: a call that this erases was for an item that the next look must see.
        self.0.swap(AWAKE, Ordering::Acquire);
    }

    /// Waker: `true` if the sleeper sleeps and nobody else has been told to ring for this sleep: ring the bell.
    #[must_use = "without the ring the sleeper sleeps on"]
    pub fn wake(&self) -> bool {
        // Release: the item put before this call goes with it.
        self.0.swap(CALLED, Ordering::Release) == ASLEEP
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_call_before_sleep_prevents_it_once() {
        let flag = WakeFlag::new();
        assert!(!flag.wake(), "nobody sleeps");
        assert!(!flag.prepare_sleep(), "look again");
        assert!(flag.prepare_sleep(), "nothing new");
    }

    #[test]
    fn one_ring_for_one_sleep() {
        let flag = WakeFlag::new();
        assert!(flag.prepare_sleep());
        assert!(flag.wake());
        assert!(!flag.wake(), "somebody rings already");
        flag.awake();
        assert!(flag.prepare_sleep(), "the calls were for the look that followed awake()");
        assert!(flag.wake());
    }

    #[test]
    fn getting_up_by_itself_needs_no_ring() {
        let flag = WakeFlag::new();
        assert!(flag.prepare_sleep());
        flag.awake();
        assert!(!flag.wake());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::sync::Notify;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    use super::*;

    struct Shared {
        flag: WakeFlag,
        /// Like an eventfd it remembers a ring; and it may stop waiting without one, like a wait with a deadline.
        bell: Notify,
        // One queue per waker, in the weakest form there is: without the flag's own ordering the sleeper need not see
        // an item that it was woken for.
        queues: [AtomicU64; 2],
    }

    /// The sleeper takes `expected` items and never waits for a wake-up that does not come: loom reports a deadlock if
    /// it does.
    fn all_items_arrive(items_per_waker: [u64; 2]) {
        let shared = Arc::new(Shared {
            flag: WakeFlag::new(),
            bell: Notify::new(),
            queues: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let mut wakers = Vec::new();
        for (waker, items) in items_per_waker.into_iter().enumerate() {
            if items == 0 {
                continue;
            }
            let shared = Arc::clone(&shared);
            wakers.push(thread::spawn(move || {
                for _ in 0..items {
                    // One writer per queue, so load and store need not be one step.
                    let before = shared.queues[waker].load(Ordering::Relaxed);
                    shared.queues[waker].store(before + 1, Ordering::Relaxed);
                    if shared.flag.wake() {
                        shared.bell.notify();
                    }
                }
            }));
        }
        let expected: u64 = items_per_waker.iter().sum();
        loop {
            let seen: u64 = shared.queues.iter().map(|queue| queue.load(Ordering::Relaxed)).sum();
            if seen == expected {
                break;
            }
            if shared.flag.prepare_sleep() {
                shared.bell.wait();
                shared.flag.awake();
            }
        }
        for waker in wakers {
            waker.join().unwrap();
        }
    }

    #[test]
    fn one_waker_is_never_missed() {
        loom::model(|| all_items_arrive([2, 0]));
    }

    #[test]
    fn two_wakers_are_never_missed() {
        loom::model(|| all_items_arrive([1, 1]));
    }
}
