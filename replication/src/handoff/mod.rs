//! What the network thread and the apply thread share beside their channels: how far apply is ([`AppliedIndex`]),
//! whether the other side sleeps ([`WakeFlag`]), and buffers on their way back ([`return_ring`]).
//!
//! Nothing here blocks, and there is no `unsafe`. Each file is model-checked: under `--cfg loom` its atomics are loom's
//! and its `loom_tests` run through every interleaving and every value that the memory model permits.

mod applied_index;
mod return_ring;
mod wake_flag;

pub use applied_index::AppliedIndex;
pub use return_ring::{Returner, Returns, return_ring};
pub use wake_flag::WakeFlag;

/// The one switch between the real primitives and loom's.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::sync::{
        Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    };
    #[cfg(not(loom))]
    pub(super) use std::sync::{
        Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    };
}
