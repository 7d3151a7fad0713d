//! HovercRaft for everyone: implement [`Service`], get a replicated, linearizable, fault-tolerant service.
//!
//! The cores ([`node`], [`applier`]) are deterministic and sans-IO: they take datagrams, events and the time as
//! arguments and say what to do. [`runtime`] drives them with sockets, threads and a clock; the simulator drives the
//! same cores in a virtual world.

/// Whether a deliberate mistake is to be made here: see `mutation`, which only test builds have. Everywhere else the
/// answer is no, and the mistake is not compiled.
#[cfg(feature = "mutations")]
macro_rules! mutated {
    ($($mutation:ident)|+) => {
        matches!(crate::mutation::active(), Some($(crate::mutation::Mutation::$mutation)|+))
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! mutated {
    ($($mutation:ident)|+) => {
        false
    };
}

pub mod admin;
pub mod applier;
pub mod client;
pub mod cluster;
pub mod config;
pub mod consensus;
mod digest_map;
mod entropy;
pub mod entry;
pub mod fetcher;
pub mod handoff;
pub mod held;
pub mod id;
mod in_force;
pub mod log;
pub mod membership;
pub mod message;
pub mod metrics;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod node;
pub mod plain;
pub mod repliers;
pub mod runtime;
pub mod service;
pub mod session;
pub mod snapshot;
pub mod storage;
pub mod unordered;

pub use config::{Limits, Mode, NodeConfig, Timing};
pub use id::{GroupId, Incarnation, LogIndex, MemberId, NodeId, Term};
pub use membership::{Addresses, Membership};
pub use node::{Destination, Node, Output};
pub use service::{Class, Context, Reply, Service, SnapshotView};
