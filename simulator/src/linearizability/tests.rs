//! The search against a register: hand-made histories, and every history that is small enough to try all orders.

use proptest::prelude::*;
use r2p2::Instant;

use super::*;

/// A register of a number, at first 0. `Some` writes, `None` reads.
pub(super) struct Register;

impl Model for Register {
    type Op = Option<u32>;
    type Ret = u32;
    type State = u32;

    fn init() -> u32 {
        0
    }

    fn step(&state: &u32, op: &Option<u32>, ret: Option<&u32>) -> Option<u32> {
        match op {
            Some(value) => Some(*value),
            None => ret.is_none_or(|&ret| ret == state).then_some(state),
        }
    }

    fn observes_only(op: &Option<u32>, _: Option<&u32>) -> bool {
        op.is_none()
    }

    fn overwrites(op: &Option<u32>, _: Option<&u32>) -> bool {
        op.is_some()
    }

    fn needs(op: &Option<u32>, &ret: &u32) -> Option<u32> {
        op.is_none().then_some(ret)
    }

    fn leaves(op: &Option<u32>, _: Option<&u32>) -> Leaves<u32> {
        op.map_or(Leaves::Unchanged, Leaves::Only)
    }
}

pub(super) type RegisterOperation = Operation<Option<u32>, u32>;

pub(super) fn write(value: u32, call: u64, ret: u64) -> RegisterOperation {
    Operation { ret: Some(at(ret)), output: Some(0), ..unknown_write(value, call) }
}

pub(super) fn unknown_write(value: u32, call: u64) -> RegisterOperation {
    Operation { client: u64::from(value), call: at(call), ret: None, input: Some(value), output: None }
}

pub(super) fn read(value: u32, call: u64, ret: u64) -> RegisterOperation {
    Operation { client: 0, call: at(call), ret: Some(at(ret)), input: None, output: Some(value) }
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn verdict(operations: impl IntoIterator<Item = RegisterOperation>) -> Verdict {
    check::<Register>(&operations.into_iter().collect(), BUDGET_DEFAULT).verdict
}

fn passes(operations: impl IntoIterator<Item = RegisterOperation>) {
    assert_eq!(verdict(operations), Verdict::Linearizable);
}

fn fails(operations: impl IntoIterator<Item = RegisterOperation>) {
    let verdict = verdict(operations);
    assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{verdict}");
}

#[test]
fn nothing_happened() {
    passes([]);
}

#[test]
fn one_after_the_other() {
    passes([read(0, 0, 1), write(1, 2, 3), read(1, 4, 5), write(2, 6, 7), read(2, 8, 9)]);
}

#[test]
fn a_stale_read() {
    fails([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]);
}

#[test]
fn a_value_never_written() {
    fails([write(1, 0, 10), read(7, 5, 20)]);
}

#[test]
fn a_value_from_the_future() {
    fails([read(1, 0, 1), write(1, 2, 3)]);
}

#[test]
fn what_happens_at_the_same_instant_is_concurrent() {
    passes([write(1, 0, 5), read(0, 5, 6)]);
    fails([write(1, 0, 4), read(0, 5, 6)]);
}

#[test]
fn concurrent_reads_agree_on_the_order_of_writes() {
    let writes = [write(1, 0, 100), write(2, 0, 100)];
    passes(writes.into_iter().chain([read(1, 10, 11), read(2, 12, 13), read(2, 14, 15)]));
    let writes = [write(1, 0, 100), write(2, 0, 100)];
    fails(writes.into_iter().chain([read(1, 10, 11), read(2, 12, 13), read(1, 14, 15)]));
    let writes = [write(1, 0, 100), write(2, 0, 100)];
    fails(writes.into_iter().chain([read(1, 10, 11), read(0, 12, 13)]));
}

#[test]
fn unseen_writes_are_put_into_the_past() {
    // 2 and 3 return before 1 is read and must both come before 1, which returned first.
    passes([write(2, 0, 20), write(3, 0, 21), write(1, 0, 10), read(1, 30, 31)]);
    // 2 was invoked after 1 returned, so it cannot.
    fails([write(1, 0, 10), write(2, 11, 20), read(1, 30, 31)]);
    // Only one of them can be the last.
    fails([write(1, 0, 10), write(2, 0, 10), read(1, 30, 31), read(2, 32, 33)]);
}

#[test]
fn an_unknown_write_shows_up_later_or_never() {
    passes([write(1, 0, 1), unknown_write(2, 2), read(1, 10, 11), read(2, 12, 13), read(2, 14, 15)]);
    passes([write(1, 0, 1), unknown_write(2, 2), read(1, 10, 11), write(3, 12, 13), read(3, 14, 15)]);
    // It takes effect at most once, and not before it was invoked.
    fails([write(1, 0, 1), unknown_write(2, 2), read(2, 10, 11), write(1, 12, 13), read(2, 14, 15)]);
    fails([read(2, 0, 1), unknown_write(2, 2)]);
}

#[test]
fn a_lost_answer_is_no_lost_effect() {
    let executed = |value, call, ret| Operation { ret: Some(at(ret)), ..unknown_write(value, call) };
    passes([executed(1, 0, 10), read(0, 5, 6), read(1, 11, 12)]);
    fails([executed(1, 0, 10), read(0, 11, 12)]);
}

#[test]
fn a_budget_too_small_is_no_pass() {
    let operations = || [write(2, 0, 20), write(3, 0, 21), write(1, 0, 10), read(1, 30, 31)].into_iter().collect();
    let enough = check::<Register>(&operations(), BUDGET_DEFAULT);
    assert_eq!(enough.verdict, Verdict::Linearizable);
    let exact = check::<Register>(&operations(), enough.explored);
    assert_eq!(exact.verdict, Verdict::Linearizable);
    let short = check::<Register>(&operations(), enough.explored - 1);
    let Verdict::Undecided(undecided) = &short.verdict else { panic!("{}", short.verdict) };
    assert_eq!(undecided.operations, 4);
    assert!(undecided.explored >= enough.explored);
    assert!(!short.verdict.is_linearizable());
}

#[test]
fn a_report_counts() {
    let mut history: History<_, _> = [write(1, 0, 1), unknown_write(2, 2)].into_iter().collect();
    let refused = history.call(9, at(3), Some(9));
    history.not_executed(refused);
    let report = check::<Register>(&history, BUDGET_DEFAULT);
    assert_eq!((report.operations, report.unknown, report.not_executed, report.partitions), (2, 1, 1, 1));
}

#[test]
fn a_failure_names_the_operation() {
    // Written twice, so that it takes a search to see that it did not come back.
    let operations = [write(7, 0, 1), write(7, 0, 1), write(1, 2, 3), read(7, 4, 5)];
    let Verdict::NotLinearizable(violation) = verdict(operations) else { panic!("7 was gone") };
    assert_eq!(
        violation.excerpt,
        "before:\n\
         \x20 0.000000000s .. 0.000000001s client 7: Some(7) -> 0\n\
         \x20 0.000000000s .. 0.000000001s client 7: Some(7) -> 0\n\
         no order explains:\n\
         \x20 0.000000004s .. 0.000000005s client 0: None -> 7\n\
         together with:\n\
         \x20 0.000000002s .. 0.000000003s client 1: Some(1) -> 0\n\
         reachable state just before: 7\n"
    );
    // Two that need the same state, which only one of them can have.
    let swap =
        |client, new| Operation { client, call: at(0), ret: Some(at(9)), input: BusyOp::Swap(0, new), output: Some(1) };
    let verdict = check::<Busy>(&[swap(1, 1), swap(2, 2)].into_iter().collect(), BUDGET_DEFAULT).verdict;
    let Verdict::NotLinearizable(violation) = verdict else { panic!("lost update") };
    assert_eq!(
        violation.excerpt,
        "no order explains:\n\
         \x20 0.000000000s .. 0.000000009s client 2: Swap(0, 2) -> 1\n\
         together with:\n\
         \x20 0.000000000s .. 0.000000009s client 1: Swap(0, 1) -> 1\n\
         reachable state just before: 0\n"
    );
}

/// A register with everything that a model can have: blind writes, reads, failed and successful comparisons, sums.
struct Busy;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum BusyOp {
    Read,
    Write(i8),
    Swap(i8, i8),
    Add(i8),
}

impl BusyOp {
    fn execute(&self, state: i8) -> (i8, i8) {
        match *self {
            Self::Read => (state, state),
            Self::Write(value) => (value, 0),
            Self::Swap(expect, new) if expect == state => (new, 1),
            Self::Swap(..) => (state, 0),
            Self::Add(delta) => (state + delta, state + delta),
        }
    }
}

impl Model for Busy {
    type Op = BusyOp;
    type Ret = i8;
    type State = i8;

    fn init() -> i8 {
        0
    }

    fn step(&state: &i8, op: &BusyOp, ret: Option<&i8>) -> Option<i8> {
        let (after, answer) = op.execute(state);
        ret.is_none_or(|&ret| ret == answer).then_some(after)
    }

    fn observes_only(op: &BusyOp, ret: Option<&i8>) -> bool {
        matches!((op, ret), (BusyOp::Read, _) | (BusyOp::Swap(..), Some(0)))
    }

    fn overwrites(op: &BusyOp, ret: Option<&i8>) -> bool {
        matches!((op, ret), (BusyOp::Write(_), None | Some(0)))
    }

    fn needs(op: &BusyOp, &ret: &i8) -> Option<i8> {
        match *op {
            BusyOp::Read => Some(ret),
            BusyOp::Add(delta) => Some(ret - delta),
            BusyOp::Swap(expect, _) if ret == 1 => Some(expect),
            BusyOp::Swap(..) | BusyOp::Write(_) => None,
        }
    }

    fn leaves(op: &BusyOp, ret: Option<&i8>) -> Leaves<i8> {
        match (op, ret) {
            (BusyOp::Read, _) | (BusyOp::Swap(..), Some(0)) => Leaves::Unchanged,
            (BusyOp::Swap(_, value) | BusyOp::Write(value), _) => Leaves::Only(*value),
            (BusyOp::Add(_), Some(sum)) => Leaves::Only(*sum),
            (BusyOp::Add(1), None) => Leaves::Among(|&state| state > -100),
            (BusyOp::Add(_), None) => Leaves::Among(|_| true),
        }
    }
}

/// Tries every order of every choice of the unknown.
fn some_order_explains(operations: &[Operation<BusyOp, i8>], placed: u32, state: i8) -> bool {
    let is_open = |index: &usize| placed & (1 << index) == 0;
    if (0..operations.len()).filter(is_open).all(|index| operations[index].ret.is_none()) {
        return true;
    }
    (0..operations.len()).filter(is_open).any(|index| {
        let operation = &operations[index];
        let is_first = (0..operations.len()).filter(is_open).all(|other| {
            // Nothing that is still to come returned before this one was invoked.
            operations[other].ret.is_none_or(|ret| ret >= operation.call)
        });
        let after = Busy::step(&state, &operation.input, operation.output.as_ref()).filter(|_| is_first);
        after.is_some_and(|after| some_order_explains(operations, placed | 1 << index, after))
    })
}

fn busy_op() -> impl Strategy<Value = BusyOp> {
    prop_oneof![
        3 => Just(BusyOp::Read),
        4 => (1..4_i8).prop_map(BusyOp::Write),
        2 => (0..4_i8, 1..4_i8).prop_map(|(expect, new)| BusyOp::Swap(expect, new)),
        2 => prop_oneof![Just(1_i8), Just(-1)].prop_map(BusyOp::Add),
    ]
}

/// Operations executed one by one at moments between their invocations and their returns, so that they are
/// linearizable, and then some answers changed, so that they may not be.
fn busy_operations() -> impl Strategy<Value = Vec<Operation<BusyOp, i8>>> {
    // Moment of execution, time before and after it, operation, what became of it, a change of the answer.
    let operation = (0..12_u64, 0..8_u64, 0..8_u64, busy_op(), 0..10_u8, prop_oneof![9 => Just(0_i8), 1 => -2..3_i8]);
    proptest::collection::vec(operation, 0..9).prop_map(|mut operations| {
        operations.sort_by_key(|operation| operation.0);
        let mut state = 0;
        let execute = |(moment, before, after, op, fate, change): (u64, u64, u64, BusyOp, u8, i8)| {
            let moment = moment + 10;
            let mut operation = Operation {
                client: 0,
                call: at(moment - before),
                ret: Some(at(moment + after)),
                input: op,
                output: None,
            };
            if fate != 0 {
                let output;
                (state, output) = operation.input.execute(state);
                operation.output = Some(output + change);
            }
            match fate {
                0 | 1 => (operation.ret, operation.output) = (None, None),
                2 => operation.output = None,
                _ => {}
            }
            operation
        };
        operations.into_iter().map(execute).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn agrees_with_trying_every_order(operations in busy_operations()) {
        let expected = some_order_explains(&operations, 0, Busy::init());
        let report = check::<Busy>(&operations.iter().cloned().collect(), BUDGET_DEFAULT);
        match report.verdict {
            Verdict::Linearizable => prop_assert!(expected),
            Verdict::NotLinearizable(violation) => prop_assert!(!expected, "{}", violation.excerpt),
            Verdict::Undecided(_) => prop_assert!(false, "undecided after {} states", report.explored),
        }
    }
}
