//! Load, latency and the statistics that decide whether a figure may be believed.
//!
//! Driven by `hovercraft bench`. What decides is sans-IO and takes time, seeds and samples as arguments: when what is
//! sent ([`arrivals`], [`load`]), what it asks for ([`workload`], [`keys`]), what was measured ([`latencies`],
//! [`samples`]), whether it may be believed ([`statistics`], [`verdict`]), where to measure next ([`knee`]). Around it
//! are shells: [`generator`] has sockets and threads, [`process`] and [`machine`] read `/proc`, [`chart`] draws.
//!
//! It never decides by itself what a figure is compared with, and prints nothing.

pub mod arrivals;
pub mod chart;
pub mod floor;
pub mod generator;
pub mod keys;
pub mod knee;
pub mod latencies;
pub mod load;
pub mod machine;
pub mod process;
pub mod samples;
pub mod statistics;
pub mod tcp;
pub mod verdict;
pub mod workload;
