use proptest::prelude::*;
use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::super::BUDGET_DEFAULT;
use super::super::increments::Totals;
use super::*;

/// `(call, ret, op, answer)`.
type Answered = (u64, u64, Op, Ret);

fn answered(operations: impl IntoIterator<Item = Answered>) -> History<Op, Ret> {
    let operation = |(client, (call, ret, input, output))| Operation {
        client,
        call: Instant::from_nanos(call),
        ret: Some(Instant::from_nanos(ret)),
        input,
        output: Some(output),
    };
    (1..).zip(operations).map(operation).collect()
}

/// A history with one more operation, of unknown outcome.
fn and_unknown(mut history: History<Op, Ret>, call: u64, input: Op) -> History<Op, Ret> {
    history.call(99, Instant::from_nanos(call), input);
    history
}

fn value(value: &'static str) -> Ret {
    Ret::Value(Some(value.into()))
}

const NOTHING: Ret = Ret::Value(None);

fn page(pairs: &[(&'static str, &'static str)], next: Option<&'static str>) -> Ret {
    let pairs = pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    Ret::Page(Page { pairs, next: next.map(Bytes::from) })
}

fn passes(history: &History<Op, Ret>) {
    let verdict = check(history, BUDGET_DEFAULT).verdict;
    assert_eq!(verdict, Verdict::Linearizable, "{verdict}");
}

fn fails(history: &History<Op, Ret>) -> Violation {
    match check(history, BUDGET_DEFAULT).verdict {
        Verdict::NotLinearizable(violation) => violation,
        verdict => panic!("{verdict}"),
    }
}

#[test]
fn every_operation() {
    passes(&answered([
        (0, 1, Op::get("a"), NOTHING),
        (2, 3, Op::set("a", "x"), Ret::Stored),
        (4, 5, Op::get("a"), value("x")),
        (6, 7, Op::cas("a", None, "y"), Ret::Mismatch(Some("x".into()))),
        (8, 9, Op::cas("a", Some("x".into()), "y"), Ret::Swapped),
        (10, 11, Op::incr("a", 1), Ret::NotANumber),
        (12, 13, Op::del("a"), Ret::Deleted(true)),
        (14, 15, Op::del("a"), Ret::Deleted(false)),
        (16, 17, Op::cas("a", None, "41"), Ret::Swapped),
        (18, 19, Op::incr("a", 1), Ret::Number(42)),
        (20, 21, Op::incr("a", i64::MAX), Ret::Overflow),
        (22, 23, Op::incr("b", -7), Ret::Number(-7)),
        (24, 25, Op::set("c", "too long"), Ret::Refused),
        (26, 27, Op::get("c"), NOTHING),
        (28, 29, Op::scan("", None, 9), page(&[("a", "42"), ("b", "-7")], None)),
    ]));
}

#[test]
fn what_a_number_is() {
    for (text, is_number) in [("7", true), ("-7", true), ("+7", false), ("07", false), ("-0", false), ("", false)] {
        assert_eq!(number(&Some(text.into())).is_some(), is_number, "{text}");
    }
    assert_eq!(number(&Some("-9223372036854775808".into())), Some(i64::MIN));
    assert_eq!(number(&Some("9223372036854775808".into())), None);
    assert_eq!(number(&None), Some(0));
}

#[test]
fn an_answer_to_another_question() {
    fails(&answered([(0, 1, Op::get("a"), Ret::Number(0))]));
    fails(&answered([(0, 1, Op::get("a"), page(&[], None))]));
    fails(&answered([(0, 1, Op::scan("", None, 9), Ret::Stored)]));
}

#[test]
fn a_stale_read() {
    let violation = fails(&answered([
        (0, 1, Op::set("a", "1"), Ret::Stored),
        (2, 3, Op::set("a", "2"), Ret::Stored),
        (4, 5, Op::get("a"), value("1")),
    ]));
    assert_eq!(violation.key, Some("a".into()));
}

#[test]
fn a_lost_update() {
    fails(&answered([
        (0, 1, Op::set("a", "1"), Ret::Stored),
        (2, 10, Op::cas("a", Some("1".into()), "2"), Ret::Swapped),
        (3, 11, Op::cas("a", Some("1".into()), "3"), Ret::Swapped),
    ]));
    fails(&answered([(0, 10, Op::incr("a", 1), Ret::Number(1)), (0, 10, Op::incr("a", 1), Ret::Number(1))]));
}

#[test]
fn a_double_increment() {
    fails(&answered([(0, 1, Op::incr("a", 1), Ret::Number(1)), (2, 3, Op::get("a"), value("2"))]));
    fails(&answered([(0, 1, Op::incr("a", 1), Ret::Number(2))]));
    // One unknown increment explains one step.
    let one_step = answered([(0, 1, Op::incr("a", 1), Ret::Number(1)), (2, 3, Op::get("a"), value("2"))]);
    passes(&and_unknown(one_step, 0, Op::incr("a", 1)));
    let two_steps = answered([(0, 1, Op::incr("a", 1), Ret::Number(1)), (2, 3, Op::get("a"), value("3"))]);
    fails(&and_unknown(two_steps, 0, Op::incr("a", 1)));
}

#[test]
fn a_value_never_written() {
    fails(&answered([(0, 9, Op::set("a", "1"), Ret::Stored), (1, 8, Op::get("a"), value("7"))]));
}

#[test]
fn an_unknown_write_later_or_never() {
    let later = answered([
        (0, 1, Op::set("a", "1"), Ret::Stored),
        (5, 6, Op::get("a"), value("1")),
        (7, 8, Op::get("a"), value("2")),
        (9, 10, Op::get("a"), value("2")),
    ]);
    passes(&and_unknown(later, 2, Op::set("a", "2")));
    let never = answered([(0, 1, Op::set("a", "1"), Ret::Stored), (5, 6, Op::get("a"), value("1"))]);
    passes(&and_unknown(never, 2, Op::set("a", "2")));
    let twice = answered([
        (0, 1, Op::set("a", "1"), Ret::Stored),
        (5, 6, Op::get("a"), value("2")),
        (7, 8, Op::set("a", "3"), Ret::Stored),
        (9, 10, Op::get("a"), value("2")),
    ]);
    fails(&and_unknown(twice, 2, Op::set("a", "2")));
    let before_it_was_sent = answered([(0, 1, Op::get("a"), value("2"))]);
    fails(&and_unknown(before_it_was_sent, 2, Op::set("a", "2")));
}

#[test]
fn unknown_writes_of_every_kind() {
    let read = |seen| answered([(0, 1, Op::set("a", "1"), Ret::Stored), (5, 6, Op::get("a"), seen)]);
    passes(&and_unknown(read(NOTHING), 2, Op::del("a")));
    passes(&and_unknown(read(value("2")), 2, Op::cas("a", Some("1".into()), "2")));
    fails(&and_unknown(read(value("2")), 2, Op::cas("a", Some("0".into()), "2")));
    passes(&and_unknown(read(value("11")), 2, Op::incr("a", 10)));
    fails(&and_unknown(read(value("11")), 2, Op::incr("b", 10)));
}

#[test]
fn the_clock_is_obeyed() {
    // Each value is right at some time, but a finished read must not be followed by an older one.
    let writes = || [(0, 100, Op::set("a", "1"), Ret::Stored)].into_iter();
    passes(&answered(writes().chain([(10, 11, Op::get("a"), NOTHING), (12, 13, Op::get("a"), value("1"))])));
    fails(&answered(writes().chain([(10, 11, Op::get("a"), value("1")), (12, 13, Op::get("a"), NOTHING)])));
    passes(&answered(writes().chain([(10, 12, Op::get("a"), value("1")), (11, 13, Op::get("a"), NOTHING)])));
}

#[test]
fn what_was_not_executed_is_left_out() {
    let mut history = answered([(0, 1, Op::get("a"), NOTHING)]);
    let ticket = history.call(1, Instant::from_nanos(2), Op::set("a", "1"));
    history.not_executed(ticket);
    let report = check(&history, BUDGET_DEFAULT);
    assert!(report.verdict.is_linearizable());
    assert_eq!((report.operations, report.not_executed, report.unknown, report.partitions), (1, 1, 0, 1));
}

#[test]
fn the_smallest_failure_is_reported() {
    let mut operations = vec![(0, 1, Op::get("small"), value("7"))];
    for at in 1..5 {
        operations.push((10 * at, 10 * at + 1, Op::set("good", "1"), Ret::Stored));
        operations.push((10 * at, 10 * at + 1, Op::get("large"), value("7")));
    }
    let report = check(&answered(operations), BUDGET_DEFAULT);
    let Verdict::NotLinearizable(violation) = &report.verdict else { panic!("{}", report.verdict) };
    assert_eq!((violation.key.clone(), violation.operations), (Some("small".into()), 1));
    assert_eq!(report.partitions, 3);
    assert!(
        report.verdict.to_string().starts_with("not linearizable (key b\"small\", 1 operations)\nno order explains:")
    );
}

#[test]
fn no_budget_is_no_pass_and_a_failure_beats_it() {
    let history = answered([(0, 9, Op::set("a", "1"), Ret::Stored), (2, 8, Op::get("a"), value("1"))]);
    assert!(matches!(check(&history, 0).verdict, Verdict::Undecided(Undecided { key: Some(_), .. })));
    let undecided =
        |operations| Verdict::Undecided(Undecided { key: None, operations, explored: 0, excerpt: String::new() });
    let violation = |operations| Verdict::NotLinearizable(Violation { key: None, operations, excerpt: String::new() });
    let from_bad_to_worse = [Verdict::Linearizable, undecided(2), undecided(1), violation(2), violation(1)];
    for (at, worse) in from_bad_to_worse.iter().enumerate() {
        assert!(from_bad_to_worse[..at].iter().all(|better| is_worse(worse, better) && !is_worse(better, worse)));
        assert!(!is_worse(worse, worse));
    }
}

#[test]
fn scans_see_one_moment() {
    let writes = || {
        [(0, 1, Op::set("a", "1"), Ret::Stored), (0, 1, Op::set("b", "1"), Ret::Stored)]
            .into_iter()
            .chain([(10, 90, Op::set("a", "2"), Ret::Stored), (10, 90, Op::set("b", "2"), Ret::Stored)])
    };
    let scan = |call, a, b| (call, call + 1, Op::scan("", None, 9), page(&[("a", a), ("b", b)], None));
    for (a, b) in [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")] {
        passes(&answered(writes().chain([scan(20, a, b)])));
    }
    passes(&answered(writes().chain([scan(20, "1", "2"), scan(30, "2", "2")])));
    // Each key alone is fine here: one scan saw only the one write, a concurrent one only the other.
    let long_scan = |a, b| (20, 60, Op::scan("", None, 9), page(&[("a", a), ("b", b)], None));
    let violation = fails(&answered(writes().chain([long_scan("1", "2"), long_scan("2", "1")])));
    assert_eq!(violation.key, None);
    // And here one key alone shows it.
    let violation = fails(&answered(writes().chain([scan(20, "2", "1"), scan(30, "1", "2")])));
    assert_eq!(violation.key, Some("a".into()));
}

#[test]
fn scans_of_an_order_that_single_keys_leave_open() {
    // Nobody reads `a` or `b` between the writes, so for each key alone both orders of its two writes are fine, and
    // whichever is tried first, one of the two histories needs the other.
    for (a, b) in [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")] {
        passes(&answered([
            (0, 9, Op::set("a", "1"), Ret::Stored),
            (0, 9, Op::set("a", "2"), Ret::Stored),
            (0, 9, Op::set("b", "1"), Ret::Stored),
            (0, 9, Op::set("b", "2"), Ret::Stored),
            (10, 11, Op::scan("", None, 9), page(&[("a", a), ("b", b)], None)),
        ]));
    }
    // Values come back: the single-key orders cannot tell the first "1" from the last one, the map can.
    passes(&answered([
        (0, 10, Op::set("a", "1"), Ret::Stored),
        (11, 12, Op::set("a", "2"), Ret::Stored),
        (13, 20, Op::set("a", "1"), Ret::Stored),
        (14, 15, Op::set("b", "1"), Ret::Stored),
        (5, 30, Op::scan("", None, 9), page(&[("a", "1"), ("b", "1")], None)),
    ]));
}

#[test]
fn scans_in_pages() {
    let stored = || {
        [(0, 1, Op::set("a", "1"), Ret::Stored), (0, 1, Op::set("b", "2"), Ret::Stored)].into_iter().chain([(
            0,
            1,
            Op::set("c", "3"),
            Ret::Stored,
        )])
    };
    let scan = |start, end: Option<&'static str>, limit, seen| {
        answered(stored().chain([(5, 6, Op::scan(start, end.map(Bytes::from), limit), seen)]))
    };
    passes(&scan("", None, 2, page(&[("a", "1"), ("b", "2")], Some("c"))));
    passes(&scan("b", None, 2, page(&[("b", "2"), ("c", "3")], None)));
    passes(&scan("aa", Some("c"), 2, page(&[("b", "2")], None)));
    // Stopped early for lack of space, which is allowed, but only with a place to continue.
    passes(&scan("", None, 9, page(&[("a", "1")], Some("b"))));
    fails(&scan("", None, 9, page(&[("a", "1")], None)));
    // A page that skips a key, here or at its end.
    fails(&scan("", None, 2, page(&[("a", "1"), ("c", "3")], None)));
    fails(&scan("", None, 2, page(&[("a", "1")], Some("c"))));
    fails(&scan("", None, 2, page(&[("a", "1")], Some("aa"))));
    // Pages that no map can give.
    fails(&scan("", None, 9, page(&[("b", "2"), ("a", "1")], Some("c"))));
    fails(&scan("b", None, 9, page(&[("a", "1")], None)));
    fails(&scan("", Some("b"), 9, page(&[("a", "1"), ("b", "2")], None)));
    fails(&scan("", None, 1, page(&[("a", "1"), ("b", "2")], Some("c"))));
    fails(&scan("", None, 9, page(&[], Some("a"))));
    // Backwards is empty.
    passes(&scan("c", Some("a"), 9, page(&[], None)));
    fails(&scan("c", Some("a"), 9, page(&[("b", "2")], None)));
}

#[test]
fn a_scan_shows_a_key_that_nobody_wrote() {
    let violation = fails(&answered([(0, 1, Op::scan("", None, 9), page(&[("ghost", "1")], None))]));
    assert_eq!(violation.key, Some("ghost".into()));
}

#[test]
fn unanswered_scans_say_nothing() {
    let history = answered([(0, 1, Op::set("a", "1"), Ret::Stored), (2, 3, Op::get("a"), value("1"))]);
    let report = check(&and_unknown(history, 0, Op::scan("", None, 9)), BUDGET_DEFAULT);
    assert!(report.verdict.is_linearizable());
    assert_eq!((report.scans, report.unknown), (1, 1));
}

#[test]
fn increments_are_collected() {
    let history = answered([
        (0, 1, Op::incr("a", 2), Ret::Number(2)),
        (0, 1, Op::incr("a", i64::MAX), Ret::Overflow),
        (0, 1, Op::incr("a", 9), Ret::Refused),
        (0, 1, Op::get("a"), value("2")),
        (0, 1, Op::set("b", "2"), Ret::Stored),
    ]);
    let history = and_unknown(history, 5, Op::incr("a", 3));
    let found = increments(&history, b"a").unwrap();
    assert_eq!(found, [Increment::Answered { delta: 2, value: 2 }, Increment::Unknown { delta: 3 }]);
    assert!(Totals::new(0, 5, found.iter().copied()).check().is_ok());
    assert!(Totals::new(0, 6, found).check().is_err());
    assert_eq!(increments(&history, b"b"), Err(NotACounter(KeyOp::Set("2".into()))));
    let down = and_unknown(history, 6, Op::incr("a", -1));
    assert_eq!(increments(&down, b"a"), Err(NotACounter(KeyOp::Incr(-1))));
}

/// How a random history comes about.
#[derive(Clone, Debug)]
struct Workload {
    seed: u64,
    operations: usize,
    clients: u64,
    keys: u32,
    /// Of 100 operations.
    unknown: u32,
    scans: u32,
    /// Written values are drawn from so many; 0 for all different.
    values: u32,
}

impl Workload {
    const SMALL: Self = Self { seed: 1, operations: 60, clients: 4, keys: 2, unknown: 10, scans: 0, values: 0 };

    /// Clients that each wait for an answer before they ask again; each operation is executed at some moment between
    /// its invocation and its answer, in one map.
    fn run(&self) -> History<Op, Ret> {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let mut free_at: Vec<u64> = (0..self.clients).map(|_| rng.random_range(0..100)).collect();
        let mut drafts = Vec::new();
        for number in 0..self.operations {
            let client = rng.random_range(0..free_at.len());
            let call = free_at[client];
            let executed = call + rng.random_range(0..100);
            let ret = executed + rng.random_range(0..100);
            free_at[client] = ret + rng.random_range(1..20);
            drafts.push((executed, client as u64, call, ret, self.op(&mut rng, number)));
        }
        drafts.sort_by_key(|draft| draft.0);
        let mut map = MapModel::init();
        let draft = |(_, client, call, ret, input): (u64, u64, u64, u64, Op)| {
            let operation = Operation { client, call: Instant::from_nanos(call), ret: None, input, output: None };
            let is_unknown = rng.random_ratio(self.unknown, 100);
            if is_unknown && rng.random() {
                return operation; // never executed
            }
            let output = answer(&mut map, &operation.input, rng.random_range(1..5));
            if is_unknown {
                return operation;
            }
            Operation { ret: Some(Instant::from_nanos(ret)), output: Some(output), ..operation }
        };
        drafts.into_iter().map(draft).collect()
    }

    fn op(&self, rng: &mut SmallRng, number: usize) -> Op {
        let number = if self.values == 0 { number as u32 } else { rng.random_range(0..self.values) };
        let key = format!("key{:04}", rng.random_range(0..self.keys));
        if rng.random_ratio(self.scans, 100) {
            let end = format!("key{:04}", rng.random_range(0..self.keys) + 1);
            return Op::scan(key, Some(end).filter(|_| rng.random()).map(Bytes::from), rng.random_range(1..9));
        }
        match rng.random_range(0..100) {
            0..50 => Op::get(key),
            50..80 => Op::set(key, text(number)),
            80..85 => Op::del(key),
            85..90 => {
                let expect = Some(text(rng.random_range(0..=number))).filter(|_| rng.random());
                Op::cas(key, expect.map(Bytes::from), text(number))
            }
            _ => Op::incr(key, rng.random_range(1..3)),
        }
    }
}

/// A value to write; every fourth is a number.
fn text(number: u32) -> String {
    if number.is_multiple_of(4) { number.to_string() } else { format!("v{number}") }
}

/// Executes an operation. A scan stops after so many pairs, as if for lack of space.
fn answer(map: &mut Arc<BTreeMap<Bytes, Bytes>>, op: &Op, pairs_max: usize) -> Ret {
    match op {
        Op::Key { key, op } => {
            let (after, output) = execute(&map.get(key).cloned(), op);
            match after {
                Some(after) => Arc::make_mut(map).insert(key.clone(), after),
                None => Arc::make_mut(map).remove(key),
            };
            output
        }
        Op::Scan { start, end, limit } => {
            let mut all = range(map, start, end.as_ref()).map(|(key, value)| (key.clone(), value.clone()));
            let pairs = all.by_ref().take(pairs_max.min(*limit as usize)).collect();
            Ret::Page(Page { pairs, next: all.next().map(|(key, _)| key) })
        }
    }
}

/// Changes the answer of one operation into one that is impossible.
fn doctored(history: &History<Op, Ret>, seed: u64) -> Option<History<Op, Ret>> {
    let mut operations: Vec<_> = history.operations().cloned().collect();
    let mut order: Vec<_> = (0..operations.len()).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(seed));
    let lie = |ret: &Ret| match ret {
        Ret::Value(_) => Some(value("never written")),
        Ret::Mismatch(_) => Some(Ret::Mismatch(Some("never written".into()))),
        Ret::Number(_) => Some(Ret::Number(-1)),
        Ret::Page(Page { pairs, next }) if !pairs.is_empty() => {
            let mut pairs = pairs.clone();
            pairs[0].1 = "never written".into();
            Some(Ret::Page(Page { pairs, next: next.clone() }))
        }
        _ => None,
    };
    let (victim, lie) = order.into_iter().find_map(|at| Some((at, lie(operations[at].output.as_ref()?)?)))?;
    operations[victim].output = Some(lie);
    Some(operations.into_iter().collect())
}

/// Lets one get answer what an earlier get of the same key answered, long before; all values are different.
fn made_stale(history: &History<Op, Ret>, seed: u64) -> History<Op, Ret> {
    let mut operations: Vec<_> = history.operations().cloned().collect();
    let is_get = |at: &usize| match (&operations[*at].input, &operations[*at].output) {
        (Op::Key { op: KeyOp::Get, .. }, Some(Ret::Value(Some(value)))) => value.len() > 1,
        _ => false,
    };
    let gets: Vec<usize> = (0..operations.len()).filter(is_get).collect();
    let mut rng = SmallRng::seed_from_u64(seed);
    loop {
        let (&early, &late) = (gets.choose(&mut rng).unwrap(), gets.choose(&mut rng).unwrap());
        let (earlier, later) = (&operations[early], &operations[late]);
        if earlier.input == later.input
            && earlier.output != later.output
            && later.call.since(earlier.call).as_nanos() > 5000
        {
            operations[late].output = operations[early].output.clone();
            return operations.into_iter().collect();
        }
    }
}

fn workloads() -> impl Strategy<Value = Workload> {
    let values = prop_oneof![Just(0_u32), 1..5_u32];
    let scans = prop_oneof![Just(0_u32), 1..40_u32];
    (any::<u64>(), 0..80_usize, 1..12_u64, 1..6_u32, 0..30_u32, scans, values).prop_map(
        |(seed, operations, clients, keys, unknown, scans, values)| Workload {
            seed,
            operations,
            clients,
            keys,
            unknown,
            scans,
            values,
        },
    )
}

proptest! {
    #[test]
    fn what_happened_passes(workload in workloads()) {
        let verdict = check(&workload.run(), BUDGET_DEFAULT).verdict;
        prop_assert!(verdict.is_linearizable(), "{}", verdict);
    }

    #[test]
    fn a_lie_fails(workload in workloads(), seed: u64) {
        if let Some(history) = doctored(&workload.run(), seed) {
            let verdict = check(&history, BUDGET_DEFAULT).verdict;
            prop_assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{}", verdict);
        }
    }
}

#[test]
fn long_histories() {
    let workload = Workload { operations: 100_000, clients: 32, keys: 40, unknown: 1, ..Workload::SMALL };
    let history = workload.run();
    passes(&history);
    fails(&doctored(&history, 1).unwrap());
    for seed in 0..3 {
        fails(&made_stale(&history, seed));
    }
}

#[test]
fn many_clients_on_one_key() {
    for (clients, unknown) in [(32, 0), (16, 1)] {
        let workload = Workload { operations: 5_000, clients, keys: 1, unknown, ..Workload::SMALL };
        let history = workload.run();
        passes(&history);
        fails(&doctored(&history, 1).unwrap());
        for seed in 0..3 {
            fails(&made_stale(&history, seed));
        }
    }
}

#[test]
fn long_histories_with_scans() {
    let workload = Workload { operations: 20_000, clients: 32, keys: 200, unknown: 1, scans: 5, ..Workload::SMALL };
    let history = workload.run();
    passes(&history);
    fails(&doctored(&history, 1).unwrap());
}
