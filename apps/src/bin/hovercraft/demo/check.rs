//! What the demo's clients saw, judged: is it linearizable, and has every increment been executed exactly once?

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use r2p2::Instant;
use simulator::History;
use simulator::linearizability::increments::Totals;
use simulator::linearizability::kv::{self, KeyOp, Op, Ret};
use simulator::linearizability::{BUDGET_DEFAULT, Verdict};

use super::report::STEP_MS;

/// What the demo's clients recorded.
pub(crate) type KvHistory = History<Op, Ret>;

/// The verdict on a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Judgement {
    pub(crate) linearizable: bool,
    /// Nothing is proven to be wrong, but the check gave up on a key.
    pub(crate) undecided: bool,
    pub(crate) lost_acknowledged: i128,
    pub(crate) duplicated: i128,
    pub(crate) keys: usize,
    /// The first thing that does not hold, or that could not be decided.
    pub(crate) reason: Option<String>,
}

impl Judgement {
    pub(crate) fn passed(&self) -> bool {
        self.linearizable && self.lost_acknowledged == 0 && self.duplicated == 0 && self.reason.is_none()
    }
}

/// Judges a history at whose end every key was read once more.
pub(crate) fn judge(history: &KvHistory) -> Judgement {
    let mut parts: BTreeMap<&Bytes, Vec<_>> = BTreeMap::new();
    let mut reason = None;
    for operation in history.operations() {
        match &operation.input {
            Op::Key { key, .. } => parts.entry(key).or_default().push(operation.clone()),
            Op::Scan { .. } => reason = Some("the demo asks for no scans, and its check cannot judge them".to_owned()),
        }
    }
    let mut judgement = Judgement {
        linearizable: true,
        undecided: false,
        lost_acknowledged: 0,
        duplicated: 0,
        keys: parts.len(),
        reason,
    };
    let (mut violation, mut undecided) = (None, None);
    for (key, operations) in parts {
        let part: KvHistory = operations.into_iter().collect();
        judgement.count(key, &part);
        let verdict = kv::check(&part, BUDGET_DEFAULT).verdict;
        match verdict {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable(_) => _ = violation.get_or_insert_with(|| verdict.to_string()),
            Verdict::Undecided(_) => _ = undecided.get_or_insert_with(|| verdict.to_string()),
        }
    }
    judgement.linearizable = violation.is_none() && undecided.is_none();
    judgement.undecided = violation.is_none() && undecided.is_some();
    // What is proven to be wrong comes before what is not known.
    judgement.reason = violation.or(judgement.reason).or(undecided);
    judgement
}

impl Judgement {
    /// Balances the books of a key, if it is a counter.
    fn count(&mut self, key: &Bytes, part: &KvHistory) {
        let is_counter = |op: &Op| matches!(op, Op::Key { op: KeyOp::Incr(_), .. });
        if !part.operations().any(|operation| is_counter(&operation.input)) {
            return;
        }
        let last_read =
            part.operations().filter(|operation| operation.ret.is_some()).max_by_key(|operation| operation.call);
        let last = match last_read.map(|operation| &operation.output) {
            Some(Some(Ret::Value(Some(value)))) => std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            Some(Some(Ret::Value(None))) => Some(0),
            _ => None,
        };
        match (last, kv::increments(part, key)) {
            (Some(last), Ok(increments)) => {
                let totals = Totals::new(0, last, increments);
                self.lost_acknowledged += totals.lost_acknowledged;
                self.duplicated += totals.duplicated;
                if let Err(violation) = totals.check() {
                    self.reason.get_or_insert_with(|| format!("counter {}: {violation}", key.escape_ascii()));
                }
            }
            (None, _) => {
                let why = format!(
                    "counter {} could not be read at the end, so nobody knows what it counted",
                    key.escape_ascii()
                );
                self.reason.get_or_insert(why);
            }
            (_, Err(error)) => {
                self.reason.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Longer latencies count as this one; clients give up earlier.
const LATENCY_MAX_US: u64 = 600_000_000;

/// How it went, in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Measures {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) throughput_ops_s: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// From the last completion before the kill to the first of an operation submitted after it; none if there was
    /// no such completion.
    pub(crate) failover: Option<Duration>,
    /// Completions in each step.
    pub(crate) timeline: Vec<u32>,
}

/// Measures what was submitted from `start` to `end`, with a kill at `killed` that was over at `dead`.
pub(crate) fn measure(history: &KvHistory, start: Instant, end: Instant, killed: Instant, dead: Instant) -> Measures {
    let mut measures = Measures {
        answered: 0,
        unknown: 0,
        throughput_ops_s: 0,
        latency_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("possible bounds"),
        failover: None,
        timeline: Vec::new(),
    };
    let (mut last_before, mut first_after, mut last) = (start, None::<Instant>, end);
    for operation in history.operations().filter(|operation| (start..end).contains(&operation.call)) {
        let Some(ret) = operation.ret else {
            measures.unknown += 1;
            continue;
        };
        measures.answered += 1;
        measures.latency_us.saturating_record(ret.since(operation.call).as_micros() as u64);
        let step = (ret.since(start).as_millis() as u64 / STEP_MS) as usize;
        if measures.timeline.len() <= step {
            measures.timeline.resize(step + 1, 0);
        }
        measures.timeline[step] += 1;
        last = last.max(ret);
        if ret <= killed {
            last_before = last_before.max(ret);
        }
        if operation.call >= dead {
            first_after = Some(first_after.map_or(ret, |first| first.min(ret)));
        }
    }
    measures.failover = first_after.map(|first| first.since(last_before));
    measures.throughput_ops_s = (measures.answered as f64 / last.since(start).as_secs_f64().max(1e-9)) as u64;
    measures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn done(history: &mut KvHistory, from: u64, to: u64, op: Op, ret: Ret) {
        let ticket = history.call(1, at(from), op);
        history.ret(ticket, at(to), ret);
    }

    /// What a correct cluster might answer, with the last read of the counter at the end.
    fn good(counter: i64) -> KvHistory {
        let mut history = KvHistory::new();
        done(&mut history, 0, 10, Op::set("a", "one"), Ret::Stored);
        done(&mut history, 5, 15, Op::incr("n", 1), Ret::Number(1));
        done(&mut history, 6, 16, Op::incr("n", 1), Ret::Number(2));
        let lost = history.call(2, at(17), Op::incr("n", 1));
        _ = lost; // Never answered: may have been executed or not.
        done(&mut history, 20, 30, Op::get("a"), Ret::Value(Some("one".into())));
        done(&mut history, 40, 50, Op::get("a"), Ret::Value(Some("one".into())));
        done(&mut history, 40, 50, Op::get("n"), Ret::Value(Some(counter.to_string().into())));
        history
    }

    #[test]
    fn a_good_history_passes_with_and_without_the_unknown_increment() {
        for counter in [2, 3] {
            let judgement = judge(&good(counter));
            assert!(judgement.passed(), "{judgement:?}");
            assert_eq!(judgement.keys, 2);
        }
    }

    #[test]
    fn a_lost_increment_is_found() {
        let judgement = judge(&good(1));
        assert_eq!((judgement.lost_acknowledged, judgement.duplicated), (1, 0));
        assert!(!judgement.linearizable && !judgement.passed());
    }

    #[test]
    fn an_increment_executed_twice_is_found() {
        let judgement = judge(&good(4));
        assert_eq!((judgement.lost_acknowledged, judgement.duplicated), (0, 1));
        assert!(!judgement.linearizable && !judgement.passed());
    }

    #[test]
    fn a_doctored_history_is_rejected() {
        // An acknowledged write is not there any more.
        let mut history = good(2);
        done(&mut history, 60, 70, Op::set("a", "two"), Ret::Stored);
        done(&mut history, 80, 90, Op::get("a"), Ret::Value(Some("one".into())));
        let judgement = judge(&history);
        assert!(!judgement.linearizable && !judgement.passed());
        assert!(judgement.reason.expect("says why").contains("no order explains"));

        // A value that nobody wrote.
        let mut history = good(2);
        done(&mut history, 60, 70, Op::get("a"), Ret::Value(Some("three".into())));
        assert!(!judge(&history).passed());

        // Two answers claim the same increment.
        let mut history = good(3);
        done(&mut history, 18, 19, Op::incr("n", 1), Ret::Number(2));
        let judgement = judge(&history);
        assert_eq!(judgement.lost_acknowledged, 1);
        assert!(!judgement.passed());
    }

    #[test]
    fn a_counter_that_nobody_could_read_is_no_pass() {
        let mut history = KvHistory::new();
        done(&mut history, 0, 10, Op::incr("n", 1), Ret::Number(1));
        assert!(!judge(&history).passed());
    }

    #[test]
    fn the_gap_is_between_the_last_before_and_the_first_submitted_after() {
        let mut history = KvHistory::new();
        done(&mut history, 0, 9, Op::set("a", "1"), Ret::Stored);
        done(&mut history, 5, 18, Op::set("a", "2"), Ret::Stored); // The last before the kill.
        done(&mut history, 15, 24, Op::set("a", "3"), Ret::Stored); // Under way when it happened.
        done(&mut history, 22, 118, Op::set("a", "4"), Ret::Stored);
        done(&mut history, 23, 120, Op::set("a", "5"), Ret::Stored);
        history.call(1, at(30), Op::set("a", "6"));
        done(&mut history, 300, 310, Op::get("a"), Ret::Value(None)); // After the load: not measured.
        let measures = measure(&history, at(0), at(200), at(20), at(21));
        assert_eq!(measures.failover, Some(Duration::from_millis(100)));
        assert_eq!((measures.answered, measures.unknown), (5, 1));
        assert_eq!(measures.throughput_ops_s, 25);
        assert_eq!(measures.timeline, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(measures.latency_us.max() / 1000, 97);
        assert_eq!(measures.latency_us.value_at_quantile(0.5) / 1000, 13);
    }
}
