//! Replays an order that is claimed to prove a history linearizable. Knows nothing of how the order was found.

use r2p2::Instant;

use super::Model;
use crate::history::Operation;

/// Checks that `order` names every executed operation once and every unknown one at most once, respects real time, and
/// gives every recorded answer.
pub(super) fn replay<M: Model>(operations: &[&Operation<M::Op, M::Ret>], order: &[usize]) -> Result<(), String> {
    let mut placed = vec![false; operations.len()];
    let mut state = M::init();
    let mut latest_call = Instant::ZERO;
    for &index in order {
        let operation = operations[index];
        if std::mem::replace(&mut placed[index], true) {
            return Err(format!("it executes {operation:?} twice", operation = operation.input));
        }
        // Everything before it in the order must have been invoked by the time it returned.
        latest_call = latest_call.max(operation.call);
        if operation.ret.is_some_and(|ret| ret < latest_call) {
            return Err(format!("it executes {:?} after it returned", operation.input));
        }
        if !M::step_in_place(&mut state, &operation.input, operation.output.as_ref()) {
            return Err(format!("{:?} cannot answer {:?} there", operation.input, operation.output));
        }
    }
    match operations.iter().zip(placed).find(|(operation, placed)| operation.ret.is_some() && !placed) {
        Some((operation, _)) => Err(format!("it leaves out {:?}", operation.input)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Register, read, unknown_write, write};
    use super::*;

    fn replay_all(operations: &[Operation<Option<u32>, u32>], order: &[usize]) -> Result<(), String> {
        replay::<Register>(&operations.iter().collect::<Vec<_>>(), order)
    }

    #[test]
    fn accepts_a_proof() {
        let operations = [write(1, 0, 10), read(1, 5, 20), unknown_write(2, 6), unknown_write(3, 7), read(3, 21, 30)];
        assert_eq!(replay_all(&operations, &[0, 1, 3, 4]), Ok(()));
    }

    #[test]
    fn names_what_is_wrong_with_an_order() {
        let operations = [write(1, 0, 10), read(1, 11, 20)];
        let wrong = |order: &[usize]| replay_all(&operations, order).unwrap_err();
        assert!(wrong(&[0]).contains("leaves out"));
        assert!(wrong(&[0, 1, 1]).contains("twice"));
        assert!(wrong(&[1, 0]).contains("cannot answer"));
        let operations = [write(1, 0, 10), write(2, 11, 20)];
        assert!(replay_all(&operations, &[1, 0]).unwrap_err().contains("after it returned"));
    }
}
