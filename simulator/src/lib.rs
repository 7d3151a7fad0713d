//! Deterministic simulation of whole clusters, and checkers of what they did.
//!
//! [`World`] runs the real cores in virtual time under one seed; [`history`] and [`linearizability`] say whether what
//! clients saw could have come from a correct system. Nothing here reads a clock or draws randomness of its own.

pub mod checkers;
pub mod flight;
pub mod history;
pub mod linearizability;
pub mod network;
pub mod page;
pub mod pcap;
pub mod recording;
pub mod registers;
pub mod scenario;
pub mod schedule;
pub mod streams;
pub mod swarm;
pub mod world;

pub use flight::{Flight, Party};
pub use history::{History, Operation, Ticket};
pub use network::{Latency, NetworkConfig};
pub use registers::Registers;
pub use scenario::Scenario;
pub use world::{World, WorldConfig};
