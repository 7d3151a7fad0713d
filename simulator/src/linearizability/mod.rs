//! Decides whether a [`History`] is linearizable: whether every operation can be given one point in time, between its
//! invocation and its answer, such that executing them one by one in that order gives exactly the recorded answers
//! (protocol.md §6.8, §6.9).
//!
//! What "executing" means is a [`Model`], written independently of the system under test. [`check`] decides any
//! model's history as a whole; [`kv::check`] splits the history of a key-value store by key first.
//!
//! How to trust it:
//! - A pass is never a matter of belief: the search hands back an order, and a separate few lines replay it against the
//!   model and the clock before the verdict is given.
//! - So an order that somebody else claims to know ([`check_in_order`]) need not be believed either.
//! - A failure means that the search tried everything, or that a few operations contradict each other. Property tests compare it with a search that really tries every
//!   permutation.
//! - Running out of budget is a verdict of its own ([`Verdict::Undecided`]), never a pass.

mod bits;
mod certificate;
mod excerpt;
pub mod increments;
pub mod kv;
mod search;
mod timeline;
mod zones;

use std::fmt;
use std::hash::Hash;

use bytes::Bytes;

use crate::history::{self, History, Operation};

/// A budget that decides histories of a few thousand operations per partition, and bounds memory to a few hundred
/// megabytes where states are small.
pub const BUDGET_DEFAULT: u64 = 2_000_000;

/// What a correct, unreplicated system does: the sequential specification.
pub trait Model {
    /// What is asked.
    type Op: Eq + Hash + fmt::Debug;
    /// What is answered.
    type Ret: fmt::Debug;
    /// What the system remembers.
    type State: Clone + Eq + Hash + fmt::Debug;

    /// The state before the first operation.
    fn init() -> Self::State;

    /// Executes `op`. Returns the state afterwards, or `None` if a correct system in this state cannot answer `ret`.
    /// Without `ret` any answer is fine, and the result is always a state.
    fn step(state: &Self::State, op: &Self::Op, ret: Option<&Self::Ret>) -> Option<Self::State>;

    /// The same as [`Model::step`], in place. Returns false, and leaves any state behind, where that returns nothing.
    /// Worth writing by hand where states are large.
    fn step_in_place(state: &mut Self::State, op: &Self::Op, ret: Option<&Self::Ret>) -> bool {
        let next = Self::step(state, op, ret);
        let is_legal = next.is_some();
        *state = next.unwrap_or_else(Self::init);
        is_legal
    }

    /// Whether an operation with this answer changes nothing *in any state* in which it can be given: a read, a failed
    /// comparison. "False" is always right; "true" makes the search much shorter.
    fn observes_only(op: &Self::Op, ret: Option<&Self::Ret>) -> bool {
        let _ = (op, ret);
        false
    }

    /// Whether an operation with this answer is possible in *every* state and leaves a state that does not depend on
    /// the one before: a blind write of everything. "False" is always right; "true" makes the search much shorter.
    fn overwrites(op: &Self::Op, ret: Option<&Self::Ret>) -> bool {
        let _ = (op, ret);
        false
    }

    /// The only state in which `op` can be answered `ret`, if there is but one. "None" is always right; an answer lets
    /// the search see early that a state must not be left yet, because somebody will need it.
    fn needs(op: &Self::Op, ret: &Self::Ret) -> Option<Self::State> {
        let _ = (op, ret);
        None
    }

    /// Which states an operation with this answer can lead to from others. The default is always right; see
    /// [`Model::needs`].
    fn leaves(op: &Self::Op, ret: Option<&Self::Ret>) -> Leaves<Self::State> {
        if Self::observes_only(op, ret) { Leaves::Unchanged } else { Leaves::Among(|_| true) }
    }
}

/// Which states an operation can lead to from others.
#[derive(Clone, Copy, Debug)]
pub enum Leaves<S> {
    /// None: it changes nothing.
    Unchanged,
    /// This one, if it changes anything.
    Only(S),
    /// At most those for which the function says true.
    Among(fn(&S) -> bool),
}

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Operations that may have been executed, those with unknown outcome included.
    pub operations: usize,
    /// Operations with unknown outcome.
    pub unknown: usize,
    /// Operations left out because they certainly were not executed.
    pub not_executed: usize,
    /// Operations that touch several keys, checked against the whole map ([`kv::check`] only).
    pub scans: usize,
    /// Parts that were checked one by one.
    pub partitions: usize,
    /// States that the search looked at, over all partitions.
    pub explored: u64,
}

/// Whether a history is linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes, and an order that proves it has been replayed.
    Linearizable,
    /// No: no order explains the answers.
    NotLinearizable(Violation),
    /// The search ran out of budget. No statement; certainly not a pass.
    Undecided(Undecided),
}

impl Verdict {
    /// Whether the history is proven to be linearizable.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }
}

/// Where a history fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The key of the smallest partition that fails, or `None` if it takes the whole history to see it.
    pub key: Option<Bytes>,
    /// How many operations that partition has.
    pub operations: usize,
    /// The operations around the one that no order explains, as text.
    pub excerpt: String,
}

/// Where a search gave up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undecided {
    /// The key of the partition, or `None` for the whole history.
    pub key: Option<Bytes>,
    /// How many operations that partition has.
    pub operations: usize,
    /// How many states were explored in it.
    pub explored: u64,
    /// The operations around which the search was stuck, as text: worth a look, but no proof of anything.
    pub excerpt: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => write!(f, "linearizable"),
            Self::NotLinearizable(Violation { key, operations, excerpt }) => {
                write!(f, "not linearizable ({}, {operations} operations)\n{excerpt}", Part(key.as_ref()))
            }
            Self::Undecided(Undecided { key, operations, explored, excerpt }) => {
                let part = Part(key.as_ref());
                write!(f, "undecided after {explored} states ({part}, {operations} operations)\n{excerpt}")
            }
        }
    }
}

/// Names a partition in a sentence.
struct Part<'a>(Option<&'a Bytes>);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, "key {key:?}"),
            None => write!(f, "the whole history"),
        }
    }
}

/// Checks a whole history as one piece. `budget` is how many states the search may explore; memory grows with it.
pub fn check<M: Model>(history: &History<M::Op, M::Ret>, budget: u64) -> Report {
    let operations: Vec<_> = history.operations().collect();
    let part = check_part::<M>(None, &operations, budget);
    Report {
        verdict: part.verdict,
        operations: operations.len(),
        unknown: history.unknown_count(),
        not_executed: history.not_executed_count(),
        scans: 0,
        partitions: 1,
        explored: part.explored,
    }
}

/// The same where somebody knows in which order the operations took effect: if that order proves the history to be
/// linearizable, there is nothing to search for, however many outcomes are unknown. If it does not, it is forgotten, and
/// the search decides alone.
pub fn check_in_order<M: Model>(history: &History<M::Op, M::Ret>, order: &[history::Ticket], budget: u64) -> Report {
    let operations: Vec<_> = history.operations().collect();
    if certificate::replay::<M>(&operations, &history.places(order)).is_err() {
        return check::<M>(history, budget);
    }
    Report {
        verdict: Verdict::Linearizable,
        operations: operations.len(),
        unknown: history.unknown_count(),
        not_executed: history.not_executed_count(),
        scans: 0,
        partitions: 1,
        explored: 0,
    }
}

/// One partition's share of a report.
struct PartReport {
    verdict: Verdict,
    explored: u64,
    /// The proof, if it is linearizable: indices of operations. Those without effect may be missing.
    order: Vec<usize>,
}

fn check_part<M: Model>(key: Option<&Bytes>, operations: &[&Operation<M::Op, M::Ret>], budget: u64) -> PartReport {
    let search::Found { outcome, explored } = search::search::<M>(operations, budget);
    let mut order = Vec::new();
    let verdict = match outcome {
        search::Outcome::Order(found) => {
            if let Err(why) = certificate::replay::<M>(operations, &found) {
                panic!("the search found an order that proves nothing, a bug of the search or of the model: {why}");
            }
            order = found;
            Verdict::Linearizable
        }
        search::Outcome::Stuck(stuck) => Verdict::NotLinearizable(Violation {
            key: key.cloned(),
            operations: operations.len(),
            excerpt: excerpt::around::<M>(operations, &stuck),
        }),
        search::Outcome::OutOfBudget(stuck) => Verdict::Undecided(Undecided {
            key: key.cloned(),
            operations: operations.len(),
            explored,
            excerpt: excerpt::around::<M>(operations, &stuck),
        }),
    };
    PartReport { verdict, explored, order }
}

#[cfg(test)]
mod tests;
