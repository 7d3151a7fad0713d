//! Chaos on real processes: a cluster of the built program, each node in a network namespace of its own, clients in another
//! one, a bridge between them; and everything that can be done to processes and networks, drawn from a seed.
//!
//! | file | is |
//! |---|---|
//! | [`setup`] | what a run is about: the cluster and its load, drawn from the seed |
//! | [`schedule`] | what happens when: a pure function of seed and round |
//! | [`links`] | which datagrams are lost, as rules of nftables |
//! | [`guard`] | what may be done without taking more than the cluster promises to survive |
//! | [`judge`] | what clients saw, judged |
//! | [`lab`] | namespaces, bridge, rules, delays |
//! | [`group`] | the processes |
//! | [`clients`] | the load |
//! | [`run`] | rounds: carries out the schedule, heals, waits until all is well, has it judged |
//! | `faults`, `operating`, `rest`, `watch` | parts of it: what the schedule says; commands and supervision; after the faults; who leads |
//! | [`report`] | what is said at the end |
//!
//! The first five decide and are pure; the others do. A run is rounds. In each, faults happen for some seconds; then
//! everything is healed, and within [`HANG`](crate::HANG) every client must be answered again, the members must settle, and all replicas must
//! be in the same state. Then what the clients saw in this round is judged, with every key read once more; at the end of the
//! run all keys of all rounds are read again.
//!
//! What the schedule says is the same for the same seed; who leads at that moment and how fast the machine is, is not. So a
//! seed finds the same kind of trouble again, not the same run.
//!
//! Everything lives in a PID namespace: when its first process ends, however it ends, the kernel ends the others and
//! takes the networks away.

pub mod clients;
mod faults;
pub mod group;
pub mod guard;
pub mod judge;
pub mod lab;
pub mod links;
mod operating;
pub mod report;
mod rest;
pub mod run;
pub mod schedule;
pub mod setup;
mod watch;

/// The exit code of `chaos` where the system permits no namespaces, or tools are missing: the customary one for "skipped".
pub const SKIPPED: u8 = 77;
