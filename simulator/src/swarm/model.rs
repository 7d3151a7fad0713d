//! One register as it should behave: the sequential specification that histories of a run are checked against.

use crate::linearizability::{Leaves, Model};

/// What a client asks of one register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegisterOp {
    /// Its value.
    Get,
    /// Sets it; the answer is the value before.
    Set(u64),
    /// Sets it to the second value if it has the first; the answer is the value before.
    Cas(u64, u64),
    /// Adds; the answer is the value after.
    Add(u64),
}

/// The model of a register that starts at 0.
#[derive(Clone, Copy, Debug)]
pub enum RegisterModel {}

impl Model for RegisterModel {
    type Op = RegisterOp;
    type Ret = u64;
    type State = u64;

    fn init() -> u64 {
        0
    }

    fn step(state: &u64, op: &RegisterOp, ret: Option<&u64>) -> Option<u64> {
        let (after, answer) = match *op {
            RegisterOp::Get => (*state, *state),
            RegisterOp::Set(value) => (value, *state),
            RegisterOp::Cas(old, new) => (if *state == old { new } else { *state }, *state),
            RegisterOp::Add(amount) => (state.wrapping_add(amount), state.wrapping_add(amount)),
        };
        ret.is_none_or(|ret| *ret == answer).then_some(after)
    }

    fn observes_only(op: &RegisterOp, ret: Option<&u64>) -> bool {
        match (op, ret) {
            (RegisterOp::Get, _) => true,
            (RegisterOp::Cas(old, _), Some(before)) => before != old,
            _ => false,
        }
    }

    fn overwrites(op: &RegisterOp, ret: Option<&u64>) -> bool {
        matches!((op, ret), (RegisterOp::Set(_), None))
    }

    fn needs(op: &RegisterOp, ret: &u64) -> Option<u64> {
        match op {
            RegisterOp::Get | RegisterOp::Set(_) | RegisterOp::Cas(..) => Some(*ret),
            RegisterOp::Add(amount) => Some(ret.wrapping_sub(*amount)),
        }
    }

    fn leaves(op: &RegisterOp, ret: Option<&u64>) -> Leaves<u64> {
        match (op, ret) {
            _ if Self::observes_only(op, ret) => Leaves::Unchanged,
            (RegisterOp::Set(value) | RegisterOp::Cas(_, value), _) => Leaves::Only(*value),
            (RegisterOp::Add(_), Some(sum)) => Leaves::Only(*sum),
            (RegisterOp::Add(_) | RegisterOp::Get, _) => Leaves::Among(|_| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use r2p2::Instant;

    use super::*;
    use crate::history::History;
    use crate::linearizability::check;

    fn is_linearizable(operations: &[(u64, u64, RegisterOp, u64)]) -> bool {
        let mut history = History::new();
        for (call, ret, op, answer) in operations {
            let ticket = history.call(1, Instant::from_nanos(*call), *op);
            history.ret(ticket, Instant::from_nanos(*ret), *answer);
        }
        check::<RegisterModel>(&history, 10_000).verdict.is_linearizable()
    }

    #[test]
    fn good_and_bad_histories() {
        use RegisterOp::{Add, Cas, Get, Set};
        assert!(is_linearizable(&[(1, 2, Set(5), 0), (3, 4, Add(2), 7), (5, 6, Cas(7, 9), 7), (7, 8, Get, 9)]));
        assert!(is_linearizable(&[(1, 9, Set(5), 0), (2, 3, Get, 5), (4, 8, Get, 5)]), "concurrent");
        assert!(!is_linearizable(&[(1, 2, Set(5), 0), (3, 4, Get, 0)]), "stale");
        assert!(!is_linearizable(&[(1, 2, Add(1), 1), (3, 4, Add(1), 1)]), "lost");
        assert!(!is_linearizable(&[(1, 2, Add(1), 1), (3, 4, Add(1), 3)]), "doubled");
        assert!(!is_linearizable(&[(1, 2, Set(5), 0), (3, 4, Cas(4, 9), 5), (5, 6, Get, 9)]), "a failed cas");
    }
}
