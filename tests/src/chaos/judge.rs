//! What clients saw, judged key by key: is there one order that explains all of it, and has every increment been executed
//! exactly once?

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use simulator::History;
use simulator::linearizability::increments::Totals;
use simulator::linearizability::kv::{self, KeyOp, Op, Ret};
use simulator::linearizability::{BUDGET_DEFAULT, Verdict};

/// What clients saw.
pub type KvHistory = History<Op, Ret>;

/// The verdict on a history at whose end every key was read once more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    /// Operations that may have been executed.
    pub operations: u64,
    /// Writes of all kinds that were acknowledged.
    pub acknowledged_writes: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// Keys.
    pub keys: u64,
    /// Acknowledged increments.
    pub increments: u64,
    /// Acknowledged increments that are lost.
    pub lost: i128,
    /// Increments that nobody asked for.
    pub doubled: i128,
    /// What does not hold, one for each key.
    pub violations: Vec<Finding>,
    /// What could not be decided.
    pub undecided: Vec<Finding>,
    /// What each key had in the end, if nothing of unknown outcome can change that later.
    pub settled: BTreeMap<Bytes, Option<Bytes>>,
}

/// Something about a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What.
    pub what: String,
    /// Every operation on the key, one to a line.
    pub history: String,
}

/// Judges a history.
pub fn judge(history: &KvHistory) -> Judgement {
    let mut parts: BTreeMap<&Bytes, Vec<_>> = BTreeMap::new();
    for operation in history.operations() {
        if let Op::Key { key, .. } = &operation.input {
            parts.entry(key).or_default().push(operation.clone());
        }
    }
    let mut judgement = Judgement { keys: parts.len() as u64, ..Judgement::default() };
    for (key, operations) in parts {
        judgement.judge_key(key, &operations.into_iter().collect());
    }
    judgement
}

impl Judgement {
    /// Adds another one, about other keys.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.acknowledged_writes += other.acknowledged_writes;
        self.unknown += other.unknown;
        self.keys += other.keys;
        self.increments += other.increments;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.violations.extend(other.violations);
        self.undecided.extend(other.undecided);
        self.settled.extend(other.settled);
    }

    fn judge_key(&mut self, key: &Bytes, part: &KvHistory) {
        let mut found = Vec::new();
        self.operations += part.operations().count() as u64;
        self.unknown += part.unknown_count() as u64;
        let writes = part.operations().filter(|operation| operation.ret.is_some() && !is_read(&operation.input));
        self.acknowledged_writes += writes.count() as u64;
        let last = part.operations().max_by_key(|operation| operation.call).and_then(|last| last.output.clone());
        match last {
            Some(Ret::Value(value)) => {
                if part.operations().any(|operation| matches!(operation.input, Op::Key { op: KeyOp::Incr(_), .. })) {
                    found.extend(self.count(key, part, value.as_ref()));
                }
                if part.operations().all(|operation| operation.ret.is_some() || is_read(&operation.input)) {
                    self.settled.insert(key.clone(), value);
                }
            }
            _ => found.push("it could not be read in the end".to_owned()),
        }
        let verdict = kv::check(part, BUDGET_DEFAULT).verdict;
        match verdict {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable(_) => found.push(verdict.to_string()),
            Verdict::Undecided(_) => self.undecided.push(finding(key, &verdict.to_string(), part)),
        }
        if !found.is_empty() {
            self.violations.push(finding(key, &found.join("; "), part));
        }
    }

    /// Balances the books of a counter. Returns what is wrong with them.
    fn count(&mut self, key: &Bytes, part: &KvHistory, last: Option<&Bytes>) -> Option<String> {
        let last = match last {
            None => 0,
            Some(value) => match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                Some(number) => number,
                None => return Some(format!("it is no number: {}", value.escape_ascii())),
            },
        };
        let increments = match kv::increments(part, key) {
            Ok(increments) => increments,
            Err(error) => return Some(error.to_string()),
        };
        let totals = Totals::new(0, last, increments);
        self.increments += u64::try_from(totals.acknowledged).unwrap_or(0);
        self.lost += totals.lost_acknowledged;
        self.doubled += totals.duplicated;
        totals.check().err().map(|violation| violation.to_string())
    }
}

fn is_read(op: &Op) -> bool {
    matches!(op, Op::Key { op: KeyOp::Get | KeyOp::Exists, .. } | Op::Scan { .. })
}

fn finding(key: &Bytes, what: &str, part: &KvHistory) -> Finding {
    let mut history = String::new();
    for operation in part.operations() {
        let ret = operation.ret.map_or_else(|| "?".to_owned(), |ret| ret.as_nanos().to_string());
        _ = writeln!(
            history,
            "{:>15} {:>15} client {} {:?} -> {:?}",
            operation.call.as_nanos(),
            ret,
            operation.client,
            operation.input,
            operation.output
        );
    }
    Finding { what: format!("key {}: {what}", key.escape_ascii()), history }
}

#[cfg(test)]
mod tests {
    use r2p2::Instant;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn done(history: &mut KvHistory, from: u64, to: u64, op: Op, ret: Ret) {
        let ticket = history.call(1, at(from), op);
        history.ret(ticket, at(to), ret);
    }

    /// Two acknowledged increments and one of unknown outcome; a register. Both read in the end.
    fn history(counter: &str, register: &str) -> KvHistory {
        let mut history = KvHistory::new();
        done(&mut history, 0, 10, Op::incr("n", 1), Ret::Number(1));
        done(&mut history, 6, 16, Op::incr("n", 1), Ret::Number(2));
        history.call(2, at(17), Op::incr("n", 1));
        done(&mut history, 5, 15, Op::set("a", "one"), Ret::Stored);
        done(&mut history, 40, 50, Op::get("n"), Ret::Value(Some(Bytes::copy_from_slice(counter.as_bytes()))));
        done(&mut history, 40, 50, Op::get("a"), Ret::Value(Some(Bytes::copy_from_slice(register.as_bytes()))));
        history
    }

    #[test]
    fn good_histories() {
        for counter in ["2", "3"] {
            let judgement = judge(&history(counter, "one"));
            assert_eq!((&judgement.violations[..], &judgement.undecided[..]), (&[][..], &[][..]));
            assert_eq!((judgement.operations, judgement.acknowledged_writes, judgement.unknown), (6, 3, 1));
            assert_eq!((judgement.keys, judgement.increments, judgement.lost, judgement.doubled), (2, 2, 0, 0));
            // Nobody knows what the counter will be.
            assert_eq!(judgement.settled, BTreeMap::from([("a".into(), Some("one".into()))]));
        }
    }

    #[test]
    fn a_lost_and_a_doubled_increment() {
        let lost = judge(&history("1", "one"));
        assert_eq!((lost.lost, lost.doubled, lost.violations.len()), (1, 0, 1));
        let doubled = judge(&history("4", "one"));
        assert_eq!((doubled.lost, doubled.doubled, doubled.violations.len()), (0, 1, 1));
        assert!(doubled.violations[0].history.contains("Incr"), "{doubled:?}");
    }

    #[test]
    fn a_stale_read() {
        let judgement = judge(&history("2", "two"));
        assert_eq!(judgement.violations.len(), 1);
        assert!(judgement.violations[0].what.contains("no order explains"), "{judgement:?}");
    }

    #[test]
    fn a_key_that_nobody_could_read() {
        let mut history = history("2", "one");
        history.call(1, at(60), Op::get("a"));
        let judgement = judge(&history);
        assert_eq!(judgement.violations.len(), 1);
        assert!(judgement.violations[0].what.contains("could not be read"), "{judgement:?}");
    }

    #[test]
    fn several_add_up() {
        let mut sum = judge(&history("2", "one"));
        sum.add(judge(&history("1", "two")));
        assert_eq!((sum.operations, sum.keys, sum.lost, sum.violations.len()), (12, 4, 1, 2));
    }
}
