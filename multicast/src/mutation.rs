//! Deliberate mistakes in what sits in the network, to see that the simulator finds them. Test-only: exists with the cargo
//! feature `mutations` alone, which no build enables by itself; without it not a byte of this is compiled.
//!
//! They are listed, named and described with all others in crate `hovercraft`, which makes and unmakes them.

use std::cell::Cell;

/// A deliberate mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The aggregator counts acknowledgements under any arm id, of any term and epoch.
    AggregatorCountsAnyArm,
    /// The aggregator counts the leader by what it has sent.
    AggregatorCountsLeaderUnsynced,
    /// The aggregator counts learners.
    AggregatorCountsLearners,
    /// The aggregator announces indices of earlier terms.
    AggregatorBelowFirst,
    /// The aggregator goes on with what was said under an earlier arm id.
    AggregatorKeepsCounts,
    /// FEEDBACK about what holds no credit gives back that of another request.
    GatewayMintsCredit,
    /// Credits do not come back by their deadline.
    GatewayKeepsCredit,
    /// The gateway does not know again what it has let pass.
    GatewayForgetsAdmitted,
    /// The gateway judges every packet of a message by itself.
    GatewayTearsMessages,
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Makes a mutation, or none, from now on in this thread.
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

/// The mutation that is made in this thread.
pub fn active() -> Option<Mutation> {
    ACTIVE.get()
}
