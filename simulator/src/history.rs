//! What clients saw: a [`History`] of [`Operation`]s, recorded while a system runs and checked afterwards.

use r2p2::Instant;

/// One operation of one client, from its invocation to its answer, if there was one.
///
/// | `ret` | `output` | meaning |
/// |---|---|---|
/// | some | some | answered: took effect between `call` and `ret`, with this output |
/// | some | none | executed by `ret`, the answer is lost (protocol.md §3.3, "executed, reply gone") |
/// | none | none | unknown: takes effect any time after `call`, or never (protocol.md §6.9) |
///
/// An operation that certainly was not executed is no operation: it is counted ([`History::not_executed_count`]) and
/// otherwise forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<I, O> {
    /// Who asked. For reports only: operations of one client may overlap (pipelining).
    pub client: u64,
    /// When it was invoked.
    pub call: Instant,
    /// When it is known to have been executed.
    pub ret: Option<Instant>,
    /// What was asked.
    pub input: I,
    /// What was answered.
    pub output: Option<O>,
}

/// Everything a set of clients did, in the order in which they invoked it.
///
/// ```
/// use r2p2::Instant;
/// use simulator::history::History;
///
/// let mut history = History::new();
/// let ticket = history.call(7, Instant::from_nanos(10), "increment");
/// history.ret(ticket, Instant::from_nanos(25), 1);
/// history.call(7, Instant::from_nanos(30), "increment"); // never answered: its outcome stays unknown
/// assert_eq!(history.operations().count(), 2);
/// assert_eq!(history.unknown_count(), 1);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History<I, O> {
    /// `None` where an operation turned out not to have been executed.
    slots: Vec<Option<Operation<I, O>>>,
}

/// Names one operation of one [`History`] until its outcome is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(usize);

impl<I, O> History<I, O> {
    /// An empty history.
    pub const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Records an invocation. Until told otherwise its outcome is unknown.
    pub fn call(&mut self, client: u64, now: Instant, input: I) -> Ticket {
        self.slots.push(Some(Operation { client, call: now, ret: None, input, output: None }));
        Ticket(self.slots.len() - 1)
    }

    /// Records an answer.
    ///
    /// # Panics
    /// If the operation already has an outcome, or if `now` is before its invocation.
    pub fn ret(&mut self, ticket: Ticket, now: Instant, output: O) {
        self.close(ticket, now).output = Some(output);
    }

    /// Records that the operation has been executed, but that its answer is lost.
    ///
    /// # Panics
    /// If the operation already has an outcome, or if `now` is before its invocation.
    pub fn executed(&mut self, ticket: Ticket, now: Instant) {
        self.close(ticket, now);
    }

    /// Records that the operation certainly was not executed and never will be.
    ///
    /// A timeout is not that, and neither is a DROP (protocol.md §9): leave those unknown.
    ///
    /// # Panics
    /// If the operation already has an outcome.
    pub fn not_executed(&mut self, ticket: Ticket) {
        let slot = &mut self.slots[ticket.0];
        assert!(slot.as_ref().is_some_and(|operation| operation.ret.is_none()), "{ticket:?} already has an outcome");
        *slot = None;
    }

    /// Adds what somebody else recorded with the same clock. Tickets of `other` are void.
    pub fn append(&mut self, other: Self) {
        self.slots.extend(other.slots);
    }

    /// Every operation that may have been executed.
    pub fn operations(&self) -> impl Iterator<Item = &Operation<I, O>> + Clone {
        self.slots.iter().flatten()
    }

    /// Where among [`History::operations`] the operations of these tickets are, in the order given; those that certainly
    /// were not executed are left out.
    pub(crate) fn places(&self, tickets: &[Ticket]) -> Vec<usize> {
        let mut before = 0;
        let mut places = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            places.push(slot.is_some().then_some(before));
            before += usize::from(slot.is_some());
        }
        tickets.iter().filter_map(|ticket| places[ticket.0]).collect()
    }

    /// How many operations have an unknown outcome.
    pub fn unknown_count(&self) -> usize {
        self.operations().filter(|operation| operation.ret.is_none()).count()
    }

    /// How many operations certainly were not executed.
    pub fn not_executed_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_none()).count()
    }

    fn close(&mut self, ticket: Ticket, now: Instant) -> &mut Operation<I, O> {
        let slot = self.slots[ticket.0].as_mut();
        let operation = slot.filter(|operation| operation.ret.is_none());
        let Some(operation) = operation else { panic!("{ticket:?} already has an outcome") };
        assert!(operation.call <= now, "{ticket:?} is answered before it was invoked");
        operation.ret = Some(now);
        operation
    }
}

impl<I, O> Default for History<I, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I, O> FromIterator<Operation<I, O>> for History<I, O> {
    fn from_iter<T: IntoIterator<Item = Operation<I, O>>>(operations: T) -> Self {
        Self { slots: operations.into_iter().map(Some).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn every_outcome() {
        let mut history = History::new();
        let answered = history.call(1, at(1), 'a');
        let lost = history.call(2, at(2), 'b');
        let refused = history.call(3, at(3), 'c');
        history.call(4, at(4), 'd');
        history.ret(answered, at(5), 10);
        history.executed(lost, at(6));
        history.not_executed(refused);

        let seen: Vec<_> = history.operations().map(|o| (o.client, o.ret, o.input, o.output)).collect();
        assert_eq!(seen, [(1, Some(at(5)), 'a', Some(10)), (2, Some(at(6)), 'b', None), (4, None, 'd', None)]);
        assert_eq!(history.unknown_count(), 1);
        assert_eq!(history.not_executed_count(), 1);
    }

    #[test]
    fn histories_of_several_recorders_add_up() {
        let mut one = History::<_, ()>::new();
        one.call(1, at(1), 'a');
        let mut two = History::new();
        let refused = two.call(2, at(1), 'b');
        two.not_executed(refused);
        two.call(2, at(2), 'c');
        one.append(two);
        assert_eq!(one.operations().map(|o| o.input).collect::<String>(), "ac");
        assert_eq!(one.not_executed_count(), 1);
    }

    #[test]
    #[should_panic(expected = "already has an outcome")]
    fn two_answers_are_a_bug_of_the_recorder() {
        let mut history = History::new();
        let ticket = history.call(1, at(1), ());
        history.ret(ticket, at(2), ());
        history.ret(ticket, at(3), ());
    }

    #[test]
    #[should_panic(expected = "before it was invoked")]
    fn time_goes_forward() {
        let mut history = History::new();
        let ticket = history.call(1, at(2), ());
        history.ret(ticket, at(1), ());
    }
}
