//! What a forwarder lets through and has not been told the end of: one credit per RPC, with a deadline (protocol.md §9).
//!
//! A credit is held under its RPC id, so how many are out is how many RPCs are remembered, and nothing that comes from
//! outside can make it anything else: FEEDBACK about what holds no credit, or from somebody who may not give it back, is
//! counted and changes nothing; a FEEDBACK that never comes is made up for by the deadline.

mod ageing;
mod ledger;

#[cfg(test)]
mod tests;

pub use ageing::Ageing;
pub use ledger::{Credits, CreditsCounters, Held, RpcId};
