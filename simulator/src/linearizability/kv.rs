//! The key-value store: its model, and a check that takes its histories apart by key.
//!
//! Linearizability is local (Herlihy & Wing 1990): a history is linearizable if and only if its part for each object is.
//! So operations on one key are checked key by key, which is what makes long histories feasible. A scan touches many
//! keys; a history that contains scans is checked in three steps:
//!
//! 1. For each key alone, a scan is a read of that key (or of its absence). This finds nearly all that can be wrong, and
//!    names the key.
//! 2. If every key passes, the orders found for the keys are merged into one for the whole map, in which each scan has
//!    one place. If that works out, replaying it proves the history right.
//! 3. Otherwise scans may contradict each other across keys, or another choice of orders may be needed: a search over
//!    whole maps decides, or runs out of budget on large histories.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::increments::Increment;
use super::search::Stuck;
use super::{Leaves, Model, Report, Undecided, Verdict, Violation, certificate, check_part, excerpt};
use crate::history::{History, Operation};

/// How many single reads the scans of one history may stand for: keys in range, summed over all scans. Beyond that
/// the verdict is [`Verdict::Undecided`], because memory would be the limit.
pub const SCANNED_KEYS_MAX: usize = 4_000_000;

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Something about one key.
    Key {
        /// The key.
        key: Bytes,
        /// What about it.
        op: KeyOp,
    },
    /// The pairs in `start..end`, in order of their keys, at most `limit` of them.
    Scan {
        /// The first key in range.
        start: Bytes,
        /// The first key after the range; none: to the end of the map.
        end: Option<Bytes>,
        /// How many pairs at most.
        limit: u64,
    },
}

/// What a client asks about one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyOp {
    /// Its value.
    Get,
    /// Whether it has a value.
    Exists,
    /// Give it this value.
    Set(Bytes),
    /// Take its value away.
    Del,
    /// Give it the value `new` if its value is `expect`, or if it has none and `expect` is `None`.
    Cas {
        /// The only value that is replaced.
        expect: Option<Bytes>,
        /// What replaces it.
        new: Bytes,
    },
    /// Add this to its value, a decimal number as an increment writes it; no value counts as 0.
    Incr(i64),
}

/// What the store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ret {
    /// To a get: the value, if there is one.
    Value(Option<Bytes>),
    /// To [`KeyOp::Exists`].
    Exists(bool),
    /// To a set.
    Stored,
    /// To a del: whether there was a value.
    Deleted(bool),
    /// To a cas: done.
    Swapped,
    /// To a cas: not done, because this is the value.
    Mismatch(Option<Bytes>),
    /// To an incr: the sum.
    Number(i64),
    /// To an incr: not done, the value is no number.
    NotANumber,
    /// To an incr: not done, the sum is no i64.
    Overflow,
    /// To a scan.
    Page(Page),
    /// To anything: not done, for reasons that are not the model's business (a limit).
    Refused,
}

/// A part of the map, as a scan saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Keys with their values, in order.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// The next key in range, if the scan stopped before the end of the range.
    pub next: Option<Bytes>,
}

impl Op {
    /// A get.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Key { key: key.into(), op: KeyOp::Get }
    }

    /// A set.
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Key { key: key.into(), op: KeyOp::Set(value.into()) }
    }

    /// A del.
    pub fn del(key: impl Into<Bytes>) -> Self {
        Self::Key { key: key.into(), op: KeyOp::Del }
    }

    /// A compare-and-set.
    pub fn cas(key: impl Into<Bytes>, expect: Option<Bytes>, new: impl Into<Bytes>) -> Self {
        Self::Key { key: key.into(), op: KeyOp::Cas { expect, new: new.into() } }
    }

    /// An increment.
    pub fn incr(key: impl Into<Bytes>, delta: i64) -> Self {
        Self::Key { key: key.into(), op: KeyOp::Incr(delta) }
    }

    /// A scan.
    pub fn scan(start: impl Into<Bytes>, end: Option<Bytes>, limit: u64) -> Self {
        Self::Scan { start: start.into(), end, limit }
    }
}

/// Checks the history of a key-value store that was empty at first. `budget` is how many states the search may explore
/// for each key, and again for the whole map.
pub fn check(history: &History<Op, Ret>, budget: u64) -> Report {
    let operations: Vec<_> = history.operations().collect();
    let scans = operations.iter().filter(|operation| matches!(operation.input, Op::Scan { .. })).count();
    let mut report = Report {
        verdict: Verdict::Linearizable,
        operations: operations.len(),
        unknown: history.unknown_count(),
        not_executed: history.not_executed_count(),
        scans,
        partitions: 0,
        explored: 0,
    };
    if let Some(at) = operations.iter().position(|operation| !has_possible_page(operation)) {
        let excerpt = excerpt::around::<MapModel>(&operations, &Stuck { at, because: Vec::new(), states: Vec::new() });
        report.verdict = Verdict::NotLinearizable(Violation { key: None, operations: operations.len(), excerpt });
        return report;
    }
    let Some(partitions) = Partition::all(&operations) else {
        let excerpt =
            format!("the scans cover more than {SCANNED_KEYS_MAX} keys in total, which is too many to check\n");
        let undecided = Undecided { key: None, operations: operations.len(), explored: 0, excerpt };
        report.verdict = Verdict::Undecided(undecided);
        return report;
    };

    let mut orders = Vec::new();
    for (key, partition) in partitions {
        let part = check_part::<KeyModel>(Some(&key), &partition.operations.iter().collect::<Vec<_>>(), budget);
        report.partitions += 1;
        report.explored += part.explored;
        if is_worse(&part.verdict, &report.verdict) {
            report.verdict = part.verdict;
        }
        if scans > 0 {
            let is_read = |operation: &Operation<KeyOp, Ret>| {
                KeyModel::observes_only(&operation.input, operation.output.as_ref())
            };
            let step = |at: usize| (partition.sources[at], is_read(&partition.operations[at]));
            orders.push(part.order.into_iter().map(step).collect::<Vec<_>>());
        }
    }
    if scans > 0 && report.verdict.is_linearizable() {
        report.partitions += 1;
        let merged = merge(&operations, &orders);
        let is_proven = merged.is_some_and(|order| certificate::replay::<MapModel>(&operations, &order).is_ok());
        if !is_proven {
            // States are whole maps, so fewer of them fit.
            let part = check_part::<MapModel>(None, &operations, budget / (orders.len() as u64).max(1));
            report.explored += part.explored;
            report.verdict = part.verdict;
        }
    }
    report
}

/// Collects what became of the increments of one key, for [`Totals::new`](super::increments::Totals::new).
///
/// # Errors
/// If anything else may have changed the key, or if an increment is negative: then the sum says nothing.
pub fn increments(history: &History<Op, Ret>, key: &[u8]) -> Result<Vec<Increment>, NotACounter> {
    let mut increments = Vec::new();
    for operation in history.operations() {
        let Op::Key { key: its_key, op } = &operation.input else { continue };
        if its_key != key || KeyModel::observes_only(op, operation.output.as_ref()) {
            continue;
        }
        let delta = if let KeyOp::Incr(delta) = op { u64::try_from(*delta).ok() } else { None };
        let Some(delta) = delta else { return Err(NotACounter(op.clone())) };
        increments.push(match (&operation.output, operation.ret) {
            (Some(Ret::Number(value)), _) => Increment::Answered { delta, value: i128::from(*value) },
            (_, Some(_)) => Increment::Executed { delta },
            (_, None) => Increment::Unknown { delta },
        });
    }
    Ok(increments)
}

/// A key is not only counted up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a key that sees {0:?} is no counter")]
pub struct NotACounter(pub KeyOp);

/// One key of the store.
pub enum KeyModel {}

impl Model for KeyModel {
    type Op = KeyOp;
    type Ret = Ret;
    type State = Option<Bytes>;

    fn init() -> Option<Bytes> {
        None
    }

    fn step(state: &Option<Bytes>, op: &KeyOp, ret: Option<&Ret>) -> Option<Option<Bytes>> {
        if ret == Some(&Ret::Refused) {
            return Some(state.clone());
        }
        let (after, answer) = execute(state, op);
        ret.is_none_or(|ret| *ret == answer).then_some(after)
    }

    fn observes_only(op: &KeyOp, ret: Option<&Ret>) -> bool {
        match ret {
            Some(Ret::Refused | Ret::Mismatch(_) | Ret::NotANumber | Ret::Overflow | Ret::Deleted(false)) => true,
            Some(_) | None => matches!(op, KeyOp::Get | KeyOp::Exists),
        }
    }

    fn overwrites(op: &KeyOp, ret: Option<&Ret>) -> bool {
        matches!((op, ret), (KeyOp::Set(_), Some(Ret::Stored) | None) | (KeyOp::Del, None))
    }

    fn needs(op: &KeyOp, ret: &Ret) -> Option<Option<Bytes>> {
        match (op, ret) {
            (KeyOp::Get, Ret::Value(value)) | (KeyOp::Cas { .. }, Ret::Mismatch(value)) => Some(value.clone()),
            (KeyOp::Exists, Ret::Exists(false)) | (KeyOp::Del, Ret::Deleted(false)) => Some(None),
            (KeyOp::Cas { expect, .. }, Ret::Swapped) => Some(expect.clone()),
            (KeyOp::Incr(delta), Ret::Number(sum)) => {
                // A 0 may also be no value at all.
                let before = sum.checked_sub(*delta).filter(|&before| before != 0)?;
                Some(Some(before.to_string().into()))
            }
            _ => None,
        }
    }

    fn leaves(op: &KeyOp, ret: Option<&Ret>) -> Leaves<Option<Bytes>> {
        match (op, ret) {
            _ if Self::observes_only(op, ret) => Leaves::Unchanged,
            (KeyOp::Set(value) | KeyOp::Cas { new: value, .. }, _) => Leaves::Only(Some(value.clone())),
            (KeyOp::Del, _) => Leaves::Only(None),
            (KeyOp::Incr(_), Some(Ret::Number(sum))) => Leaves::Only(Some(sum.to_string().into())),
            (KeyOp::Incr(_) | KeyOp::Get | KeyOp::Exists, _) => Leaves::Among(|state| number(state).is_some()),
        }
    }
}

/// The store as a whole.
pub enum MapModel {}

impl Model for MapModel {
    type Op = Op;
    type Ret = Ret;
    type State = Arc<BTreeMap<Bytes, Bytes>>;

    fn init() -> Self::State {
        Arc::default()
    }

    fn step(state: &Self::State, op: &Op, ret: Option<&Ret>) -> Option<Self::State> {
        let mut after = Arc::clone(state);
        Self::step_in_place(&mut after, op, ret).then_some(after)
    }

    fn step_in_place(state: &mut Self::State, op: &Op, ret: Option<&Ret>) -> bool {
        match (op, ret) {
            (_, Some(Ret::Refused)) | (Op::Scan { .. }, None) => true,
            (Op::Key { key, op }, _) => {
                let before = state.get(key).cloned();
                let Some(after) = KeyModel::step(&before, op, ret) else { return false };
                if after != before {
                    let pairs = Arc::make_mut(state);
                    match after {
                        Some(value) => pairs.insert(key.clone(), value),
                        None => pairs.remove(key),
                    };
                }
                true
            }
            (Op::Scan { start, end, .. }, Some(Ret::Page(page))) => {
                // How many pairs fit is the store's affair; that they are the first ones is not.
                let mut expected = range(state, start, end.as_ref());
                has_possible_shape(op, page)
                    && page.pairs.iter().all(|(key, value)| expected.next() == Some((key, value)))
                    && expected.next().map(|(key, _)| key) == page.next.as_ref()
            }
            (Op::Scan { .. }, Some(_)) => false,
        }
    }

    fn observes_only(op: &Op, ret: Option<&Ret>) -> bool {
        match op {
            Op::Key { op, .. } => KeyModel::observes_only(op, ret),
            Op::Scan { .. } => true,
        }
    }
}

fn execute(state: &Option<Bytes>, op: &KeyOp) -> (Option<Bytes>, Ret) {
    match op {
        KeyOp::Get => (state.clone(), Ret::Value(state.clone())),
        KeyOp::Exists => (state.clone(), Ret::Exists(state.is_some())),
        KeyOp::Set(value) => (Some(value.clone()), Ret::Stored),
        KeyOp::Del => (None, Ret::Deleted(state.is_some())),
        KeyOp::Cas { expect, new } if expect == state => (Some(new.clone()), Ret::Swapped),
        KeyOp::Cas { .. } => (state.clone(), Ret::Mismatch(state.clone())),
        KeyOp::Incr(delta) => match number(state).map(|number| number.checked_add(*delta)) {
            None => (state.clone(), Ret::NotANumber),
            Some(None) => (state.clone(), Ret::Overflow),
            Some(Some(sum)) => (Some(sum.to_string().into()), Ret::Number(sum)),
        },
    }
}

/// The number that an increment adds to. A value is a number only if it is written the way an increment writes it: no
/// plus sign, no leading zeros.
fn number(state: &Option<Bytes>) -> Option<i64> {
    let Some(value) = state else { return Some(0) };
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

fn range<'a, V>(
    map: &'a BTreeMap<Bytes, V>,
    start: &Bytes,
    end: Option<&Bytes>,
) -> impl Iterator<Item = (&'a Bytes, &'a V)> + use<'a, V> {
    // A range that ends before it starts would panic; it is empty.
    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(start)));
    map.range::<Bytes, _>((Bound::Included(start), end))
}

/// Whether some map could have been seen like this.
fn has_possible_page(operation: &Operation<Op, Ret>) -> bool {
    match (&operation.input, &operation.output) {
        (Op::Scan { .. }, Some(Ret::Page(page))) => has_possible_shape(&operation.input, page),
        (Op::Scan { .. }, Some(ret)) => *ret == Ret::Refused,
        (Op::Scan { .. }, None) | (Op::Key { .. }, _) => true,
    }
}

/// Whether a page is sorted, within the scan's range and limit, and no waste of time.
fn has_possible_shape(scan: &Op, page: &Page) -> bool {
    let Op::Scan { start, end, limit } = scan else { return false };
    let is_in_range = |key: &Bytes| key >= start && end.as_ref().is_none_or(|end| key < end);
    let keys = || page.pairs.iter().map(|(key, _)| key).chain(&page.next);
    keys().all(is_in_range)
        && keys().is_sorted_by(|a, b| a < b)
        && page.pairs.len() as u64 <= *limit
        && (page.next.is_none() || !page.pairs.is_empty())
}

/// The operations that touch one key.
#[derive(Default)]
struct Partition {
    operations: Vec<Operation<KeyOp, Ret>>,
    /// For each of them, which operation of the history it is or belongs to.
    sources: Vec<usize>,
}

impl Partition {
    /// Takes a history apart, scans included, or nothing if that gives more than [`SCANNED_KEYS_MAX`] parts of scans.
    fn all(operations: &[&Operation<Op, Ret>]) -> Option<BTreeMap<Bytes, Self>> {
        let mut all = BTreeMap::<Bytes, Self>::new();
        for (source, operation) in operations.iter().enumerate() {
            match (&operation.input, &operation.output) {
                (Op::Key { key, op }, output) => {
                    all.entry(key.clone()).or_default().push(source, operation, op.clone(), output.clone());
                }
                (Op::Scan { .. }, Some(Ret::Page(page))) => {
                    // They may be in nobody's operations, and must not be overlooked for that.
                    let keys = page.pairs.iter().map(|(key, _)| key).chain(&page.next);
                    keys.for_each(|key| _ = all.entry(key.clone()).or_default());
                }
                (Op::Scan { .. }, _) => {}
            }
        }
        let mut scanned = 0;
        for (source, operation) in operations.iter().enumerate() {
            let (Op::Scan { start, end, .. }, Some(Ret::Page(page))) = (&operation.input, &operation.output) else {
                continue;
            };
            let mut pairs = page.pairs.iter().peekable();
            for (key, partition) in all.range_mut::<Bytes, _>((Bound::Included(start), Bound::Unbounded)) {
                if end.as_ref().is_some_and(|end| key >= end) {
                    break;
                }
                scanned += 1;
                if scanned > SCANNED_KEYS_MAX {
                    return None;
                }
                if Some(key) == page.next.as_ref() {
                    partition.push(source, operation, KeyOp::Exists, Some(Ret::Exists(true)));
                    break;
                }
                let value = pairs.next_if(|(seen, _)| seen == key).map(|(_, value)| value.clone());
                partition.push(source, operation, KeyOp::Get, Some(Ret::Value(value)));
            }
        }
        Some(all)
    }

    fn push(&mut self, source: usize, operation: &Operation<Op, Ret>, input: KeyOp, output: Option<Ret>) {
        let &Operation { client, call, ret, .. } = operation;
        self.operations.push(Operation { client, call, ret, input, output });
        self.sources.push(source);
    }
}

/// Whether `a` is the verdict to report, of the two: a violation before all, and the smallest of each kind.
fn is_worse(a: &Verdict, b: &Verdict) -> bool {
    match (a, b) {
        (Verdict::Linearizable, _) => false,
        (_, Verdict::Linearizable) | (Verdict::NotLinearizable(_), Verdict::Undecided(_)) => true,
        (Verdict::Undecided(_), Verdict::NotLinearizable(_)) => false,
        (Verdict::NotLinearizable(a), Verdict::NotLinearizable(b)) => a.operations < b.operations,
        (Verdict::Undecided(a), Verdict::Undecided(b)) => a.operations < b.operations,
    }
}

/// Merges orders, given for each key as operations and whether they only observe it, into one of the whole history.
/// Nothing if they contradict each other or the clock.
fn merge(operations: &[&Operation<Op, Ret>], orders: &[Vec<(usize, bool)>]) -> Option<Vec<usize>> {
    // What has to come before each operation: reads after the write that they saw, writes after all before them.
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); operations.len()];
    for order in orders {
        let (mut last_write, mut reads) = (None, Vec::new());
        for &(index, observes) in order {
            after[index].extend(last_write);
            if observes {
                reads.push(index);
            } else {
                after[index].extend(reads.drain(..));
                last_write = Some(index);
            }
        }
    }

    let mut events = Vec::with_capacity(2 * operations.len());
    for (index, operation) in operations.iter().enumerate() {
        events.push((operation.call, false, index));
        events.extend(operation.ret.map(|ret| (ret, true, index)));
    }
    events.sort_unstable();

    // Each operation is placed when it returns, after everything that has to come before it.
    let mut places = vec![Place::NotInvoked; operations.len()];
    let mut merged = Vec::with_capacity(operations.len());
    for (_, returns, index) in events {
        if !returns {
            places[index] = Place::InFlight;
            continue;
        }
        let mut path = vec![index];
        while let Some(&index) = path.last() {
            match places[index] {
                Place::NotInvoked => return None,
                Place::Placed => _ = path.pop(),
                Place::InFlight => {
                    places[index] = Place::Awaited;
                    for &before in &after[index] {
                        match places[before] {
                            Place::Placed => {}
                            Place::InFlight => path.push(before),
                            Place::NotInvoked | Place::Awaited => return None,
                        }
                    }
                }
                Place::Awaited => {
                    places[index] = Place::Placed;
                    merged.push(index);
                    path.pop();
                }
            }
        }
    }
    Some(merged)
}

#[derive(Clone, Copy)]
enum Place {
    NotInvoked,
    InFlight,
    /// Others have to be placed before it.
    Awaited,
    Placed,
}

#[cfg(test)]
mod tests;
