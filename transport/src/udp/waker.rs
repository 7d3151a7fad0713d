//! Waking the network thread from another one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicU8, Ordering};

use super::sys;

/// Ends the [`wait`](crate::datapath::Datapath::wait) of a [`UdpDatapath`](super::UdpDatapath) from any thread.
///
/// First put what the network thread shall find into a queue, then wake it. A wake-up is never lost: if the thread is
/// not waiting now, its next wait returns at once. Many wake-ups may become one. Costs a system call only if the
/// thread is blocked.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: WakeState,
    event: File,
}

impl Waker {
    /// Wakes the thread.
    pub fn wake(&self) {
        if self.shared.state.notify() {
            // Fails only if the event's counter is full, and then it is readable, which is what matters.
            let _ = (&self.shared.event).write(&1_u64.to_ne_bytes());
        }
    }
}

/// The waiting end of a [`Waker`].
#[derive(Debug)]
pub(super) struct Sleeper {
    shared: Arc<Shared>,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { state: WakeState::new(), event: sys::event_file()? }) })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// What to poll for reading while asleep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Takes a wake-up if there is one.
    pub(super) fn take(&self) -> bool {
        self.shared.state.take()
    }

    /// To be called before blocking: if there is a wake-up, takes it and returns false.
    pub(super) fn fall_asleep(&self) -> bool {
        self.shared.state.fall_asleep()
    }

    /// To be called after blocking: whether somebody woke us. `readable` says whether the event was.
    pub(super) fn awake(&self, readable: bool) -> bool {
        let notified = self.shared.state.take();
        if readable {
            // The write for a wake-up may come only after we have taken it; then a later wait finds it here, and
            // returns once for no reason.
            let _ = (&self.shared.event).read(&mut [0; 8]);
        }
        notified || readable
    }
}

/// Who owes whom: nobody (`AWAKE`), the notifier owes a write to the event (`ASLEEP`), the waiter owes a look at its
/// queues (`NOTIFIED`).
#[derive(Debug)]
struct WakeState(AtomicU8);

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

// All operations modify the one atomic, so they are totally ordered; a notifier's release and the waiter's acquire make
// what was queued before the notification visible after it.
impl WakeState {
    fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// Whether the event must be written.
    fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }

    fn take(&self) -> bool {
        // The load keeps a spinning waiter from claiming the cache line over and over.
        self.0.load(Ordering::Relaxed) != AWAKE && self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    fn fall_asleep(&self) -> bool {
        if self.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        // Not a store: what a notifier queued between these two lines must be visible too.
        self.0.swap(AWAKE, Ordering::AcqRel);
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_costs_a_write() {
        let state = WakeState::new();
        assert!(!state.take());
        assert!(!state.notify());
        assert!(!state.notify());
        assert!(state.take());
        assert!(!state.take());

        assert!(state.fall_asleep());
        assert!(state.notify());
        assert!(!state.notify());
        assert!(state.take());

        assert!(state.fall_asleep());
        assert!(!state.take(), "it woke up by itself");
        assert!(!state.notify());
        assert!(!state.fall_asleep(), "a wake-up was waiting");
        assert!(state.fall_asleep(), "and was taken");
    }

    #[test]
    fn a_late_write_is_one_empty_wake_up_and_no_more() {
        let sleeper = Sleeper::new().expect("eventfd");
        let waker = sleeper.waker();
        assert!(sleeper.fall_asleep());
        assert!(sleeper.shared.state.notify());
        assert!(sleeper.awake(false), "notified, not yet written");
        let _ = (&waker.shared.event).write(&1_u64.to_ne_bytes());
        assert!(sleeper.fall_asleep());
        assert!(sleeper.awake(true));
        assert!(sleeper.fall_asleep());
        assert!(!sleeper.awake(false));
        assert!((&sleeper.shared.event).read(&mut [0; 8]).is_err(), "drained");
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p r2p2 --lib loom`
#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::WakeState;

    /// Two threads queue something (a relaxed write: only the wake-up may make it visible) and wake; in every
    /// interleaving the waiter finds both; if it slept through one, loom would report a deadlock.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let state = Arc::new(WakeState::new());
            // The kernel's event: set by a write, waited for and reset by the sleeper.
            let event = Arc::new((Mutex::new(false), Condvar::new()));
            let queues: Arc<[AtomicUsize; 2]> = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let notifiers: Vec<_> = (0..2)
                .map(|i| {
                    let (state, event, queues) = (Arc::clone(&state), Arc::clone(&event), Arc::clone(&queues));
                    thread::spawn(move || {
                        queues[i].store(1, Ordering::Relaxed);
                        if state.notify() {
                            *event.0.lock().expect("no panic") = true;
                            event.1.notify_one();
                        }
                    })
                })
                .collect();

            let complete = || queues.iter().all(|queue| queue.load(Ordering::Relaxed) == 1);
            while !complete() {
                if state.take() || !state.fall_asleep() {
                    continue;
                }
                let mut written = event.0.lock().expect("no panic");
                while !*written {
                    written = event.1.wait(written).expect("no panic");
                }
                *written = false;
                drop(written);
                state.take();
            }
            for notifier in notifiers {
                notifier.join().expect("no panic");
            }
        });
    }
}
