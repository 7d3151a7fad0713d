//! A history as the search walks through it: a sequence of invocations and returns, and what each operation can do.

use std::collections::HashMap;

use super::{Leaves, Model};
use crate::history::Operation;

/// No operation, no event, no state.
pub(super) const NONE: u32 = u32::MAX;

/// A history as a sequence of events.
pub(super) struct Timeline<'a, M: Model> {
    pub(super) items: Vec<Item<'a, M>>,
    pub(super) events: Vec<Event>,
    /// Operations with unknown outcome, in the order of their invocation.
    pub(super) unknown: Vec<u32>,
    /// For each of them the number (in `unknown`) of the latest earlier one with the same input, or `NONE`.
    pub(super) equal_before: Vec<u32>,
    /// How many operations with an end are in flight at once, at most.
    pub(super) slots: usize,
    /// States that some operation needs, numbered.
    pub(super) needed: HashMap<M::State, u32>,
    /// By that number.
    pub(super) needs: Vec<Need>,
    /// Operations that can lead to more than one state, by the order of their invocation.
    pub(super) wild: Vec<(u32, IsPossible<M>)>,
}

/// Whether an operation can lead to a state.
type IsPossible<M> = fn(&<M as Model>::State) -> bool;

/// When a state is needed, and when it can come about.
pub(super) struct Need {
    /// The last invocation of an operation that needs it, as an event.
    pub(super) last_needed: u32,
    /// How many operations lead to it and to no other.
    pub(super) left_count: usize,
    /// The first and the last invocation of them, as events.
    pub(super) first_left: u32,
    pub(super) last_left: u32,
    /// Unanswered operations that lead to it.
    pub(super) unknown: Vec<u32>,
}

/// An operation, as the search needs it.
pub(super) struct Item<'a, M: Model> {
    pub(super) op: &'a M::Op,
    pub(super) ret: Option<&'a M::Ret>,
    /// The event of its invocation.
    pub(super) call: u32,
    /// The event of its return, or `NONE` if its outcome is unknown.
    pub(super) end: u32,
    /// Its bit: among the operations in flight if it has an end, else its number in [`Timeline::unknown`].
    pub(super) bit: u32,
    pub(super) unknown: bool,
    pub(super) observes: bool,
    pub(super) overwrites: bool,
    /// The number of the state that it needs, or `NONE`.
    pub(super) needs: u32,
    /// The number of the one state that it can lead to, if anybody needs that, or `NONE`.
    pub(super) leaves: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Event {
    /// An operation that has an end is invoked.
    Call(u32),
    /// It must have been placed by now.
    Return(u32),
    /// An operation that need not ever be placed is invoked.
    Offer,
}

impl<'a, M: Model> Timeline<'a, M> {
    pub(super) fn new(operations: &[&'a Operation<M::Op, M::Ret>]) -> Self {
        assert!(operations.len() < NONE as usize / 2, "more operations than the search can number");
        let mut items = Vec::with_capacity(operations.len());
        // At one instant invocations come before returns: what happens at the same time is concurrent.
        let mut points = Vec::with_capacity(2 * operations.len());
        for (index, operation) in (0_u32..).zip(operations) {
            let (op, ret) = (&operation.input, operation.output.as_ref());
            let observes = M::observes_only(op, ret);
            let overwrites = !observes && M::overwrites(op, ret);
            let unknown = operation.ret.is_none();
            let (needs, leaves) = (NONE, NONE);
            items.push(Item { op, ret, call: 0, end: NONE, bit: 0, unknown, observes, overwrites, needs, leaves });
            match operation.ret {
                Some(end) => points.extend([(operation.call, false, index), (end, true, index)]),
                // Nobody knows what it saw, and it changes nothing.
                None if observes => {}
                None => points.push((operation.call, false, index)),
            }
        }
        points.sort_unstable();

        let mut events = Vec::with_capacity(points.len());
        let (mut unknown, mut equal_before, mut latest_equal) = (Vec::new(), Vec::new(), HashMap::new());
        let (mut slots, mut free) = (0, Vec::new());
        for (event, (_, returns, index)) in (0_u32..).zip(points) {
            let item: &mut Item<'_, M> = &mut items[index as usize];
            if returns {
                item.end = event;
                free.push(item.bit);
                events.push(Event::Return(index));
                continue;
            }
            item.call = event;
            if !item.unknown {
                item.bit = free.pop().unwrap_or(slots);
                slots = slots.max(item.bit + 1);
                events.push(Event::Call(index));
            } else {
                item.bit = unknown.len() as u32;
                unknown.push(index);
                equal_before.push(latest_equal.insert(item.op, item.bit).unwrap_or(NONE));
                events.push(Event::Offer);
            }
        }
        let (needed, needs, wild) = (HashMap::new(), Vec::new(), Vec::new());
        let mut timeline = Self { items, events, unknown, equal_before, slots: slots as usize, needed, needs, wild };
        timeline.find_needs();
        timeline
    }

    fn find_needs(&mut self) {
        for item in &mut self.items {
            if let Some(state) = item.ret.and_then(|ret| M::needs(item.op, ret)) {
                let number = self.needs.len() as u32;
                item.needs = *self.needed.entry(state).or_insert(number);
                if item.needs == number {
                    self.needs.push(Need {
                        last_needed: 0,
                        left_count: 0,
                        first_left: NONE,
                        last_left: 0,
                        unknown: Vec::new(),
                    });
                }
                let need = &mut self.needs[item.needs as usize];
                need.last_needed = need.last_needed.max(item.call);
            }
        }
        for (index, item) in (0_u32..).zip(&mut self.items) {
            match M::leaves(item.op, item.ret) {
                Leaves::Unchanged => {}
                Leaves::Only(state) => {
                    if let Some(&number) = self.needed.get(&state) {
                        item.leaves = number;
                        let need = &mut self.needs[number as usize];
                        need.left_count += 1;
                        need.first_left = need.first_left.min(item.call);
                        need.last_left = need.last_left.max(item.call);
                        need.unknown.extend(item.unknown.then_some(index));
                    }
                }
                Leaves::Among(is_possible) => self.wild.push((index, is_possible)),
            }
        }
        self.wild.sort_unstable_by_key(|&(index, _)| self.items[index as usize].call);
    }

    /// The states that some operation needs, with their numbers, in no particular order.
    #[expect(clippy::disallowed_methods, reason = "what is done with each does not depend on the others")]
    pub(super) fn needed_states(&self) -> impl Iterator<Item = (&M::State, &u32)> {
        self.needed.iter()
    }

    pub(super) fn item(&self, index: u32) -> &Item<'a, M> {
        &self.items[index as usize]
    }
}
