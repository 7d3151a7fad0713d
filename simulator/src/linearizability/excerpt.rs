//! A failure as something to read: the operation that nothing explains, and what happened around it.

use std::fmt::Write;

use super::Model;
use super::search::Stuck;
use crate::history::Operation;

/// How many operations that returned before are shown.
const BEFORE_MAX: usize = 6;
/// How many operations at the same time are shown, answered and unanswered ones each.
const CONCURRENT_MAX: usize = 16;
/// How many possible states are shown.
pub(super) const STATES_MAX: usize = 4;
/// How many bytes of an input, an output or a state are shown.
const TEXT_MAX: usize = 160;

/// Describes where a history gets stuck.
pub(super) fn around<M: Model>(operations: &[&Operation<M::Op, M::Ret>], stuck: &Stuck<M::State>) -> String {
    let &Stuck { at, ref because, ref states } = stuck;
    let culprit = operations[at];
    let end = culprit.ret.unwrap_or(culprit.call);
    let mut before = Vec::new();
    let mut concurrent = Vec::new();
    let mut unknown = Vec::new();
    for (index, operation) in
        operations.iter().enumerate().filter(|(index, _)| *index != at && !because.contains(index))
    {
        match operation.ret {
            Some(ret) if ret < culprit.call => before.push(index),
            Some(_) if operation.call <= end => concurrent.push(index),
            None if operation.call <= end => unknown.push(index),
            Some(_) | None => {}
        }
    }
    before.sort_by_key(|&index| (operations[index].ret, index));
    // The nearest in time are the likeliest to matter.
    concurrent.sort_by_key(|&index| (operations[index].call, index));
    unknown.sort_by_key(|&index| (operations[index].call, index));

    let mut text = String::new();
    let mut list = |title: &str, indices: &[usize], shown_max: usize| {
        let left_out = indices.len().saturating_sub(shown_max);
        if indices.is_empty() {
            return;
        }
        _ = write!(text, "{title}");
        _ = if left_out > 0 { writeln!(text, " (the last {shown_max} of {})", indices.len()) } else { writeln!(text) };
        for &index in &indices[left_out..] {
            _ = writeln!(text, "  {}", line::<M>(operations[index]));
        }
    };
    list("before:", &before, BEFORE_MAX);
    list("at the same time:", &concurrent, CONCURRENT_MAX);
    list("never answered:", &unknown, CONCURRENT_MAX);
    list("no order explains:", &[at], 1);
    list("together with:", because, CONCURRENT_MAX);
    if let Some(state) = states.first() {
        _ = write!(text, "reachable state just before: {}", shortened(state));
        for state in &states[1..] {
            _ = write!(text, " or {}", shortened(state));
        }
        _ = if states.len() == STATES_MAX { writeln!(text, " or ...") } else { writeln!(text) };
    }
    text
}

fn line<M: Model>(operation: &Operation<M::Op, M::Ret>) -> String {
    let Operation { client, call, ret, input, output } = operation;
    let input = shortened(input);
    match (ret, output) {
        (Some(ret), Some(output)) => format!("{call:?} .. {ret:?} client {client}: {input} -> {}", shortened(output)),
        (Some(ret), None) => format!("{call:?} .. {ret:?} client {client}: {input} -> executed, answer lost"),
        (None, _) => format!("{call:?} .. unknown client {client}: {input}"),
    }
}

fn shortened(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Register, RegisterOperation, read, unknown_write, write};
    use super::*;

    #[test]
    fn reads_like_a_story() {
        let operations = [write(1, 0, 10), unknown_write(2, 5), write(3, 12, 30), read(9, 15, 20), read(3, 40, 50)];
        let text = text(&operations, 3, &[], &[1, 2]);
        assert_eq!(
            text,
            "before:\n\
             \x20 0.000000000s .. 0.000000010s client 1: Some(1) -> 0\n\
             at the same time:\n\
             \x20 0.000000012s .. 0.000000030s client 3: Some(3) -> 0\n\
             never answered:\n\
             \x20 0.000000005s .. unknown client 2: Some(2)\n\
             no order explains:\n\
             \x20 0.000000015s .. 0.000000020s client 0: None -> 9\n\
             reachable state just before: 1 or 2\n"
        );
    }

    #[test]
    fn a_contradiction_names_everybody() {
        let operations = [write(1, 0, 10), write(2, 11, 12), read(1, 13, 20)];
        let text = text(&operations, 2, &[0, 1], &[]);
        assert_eq!(
            text,
            "no order explains:\n\
             \x20 0.000000013s .. 0.000000020s client 0: None -> 1\n\
             together with:\n\
             \x20 0.000000000s .. 0.000000010s client 1: Some(1) -> 0\n\
             \x20 0.000000011s .. 0.000000012s client 2: Some(2) -> 0\n"
        );
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(shortened(&"é".repeat(1000)).len(), TEXT_MAX - 1 + "...".len());
    }

    fn text(operations: &[RegisterOperation], at: usize, because: &[usize], states: &[u32]) -> String {
        let stuck = Stuck { at, because: because.to_vec(), states: states.to_vec() };
        around::<Register>(&operations.iter().collect::<Vec<_>>(), &stuck)
    }
}
