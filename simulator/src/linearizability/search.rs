//! The search for an order that explains a history.
//!
//! The family is Wing & Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's memory of configurations
//! and just-in-time placement ("Testing for linearizability", 2017): walk through time; an operation gets its place in
//! the order only when it returns, possibly after others that it needs; where that fails, go back. The walk is a loop
//! with a stack of its own, so the length of a history is not limited by the thread's stack.
//!
//! A *configuration* is the model's state and what has been placed of the operations that are in flight; the past is
//! settled and need not be remembered. Equal configurations at equal times have equal futures, so each is tried once.
//! Five observations, all exact, keep their number small:
//!
//! 1. *Reads first.* An operation that only observes is placed at the first moment at which it is in flight and its
//!    answer is right: that costs nothing. [`Model::observes_only`]
//! 2. *Unknown outcomes last.* They are placed only where needed, and never have to be. A configuration that used
//!    fewer of them is at least as good. Of several equal ones, the first invoked is used first.
//! 3. *Unseen writes for free.* A blind write that nobody saw can be put right before another blind write that was
//!    placed while it was in flight. So when it returns unplaced, that is always one way out, and a blind write is
//!    never placed directly before another one. [`Model::overwrites`]
//! 4. *Never leave what will be needed.* If somebody still has to see a state that nobody can bring back, it must not
//!    be left yet. [`Model::needs`], [`Model::leaves`]
//! 5. *Nearest first.* Among the ways to let an operation return, those with fewer others before it are tried first.

use std::collections::{HashMap, VecDeque};
use std::mem;

use super::Model;
use super::bits::Bits;
use super::excerpt::STATES_MAX;
use super::timeline::{Event, Item, NONE, Timeline};
use super::zones;
use crate::history::Operation;

pub(super) struct Found<S> {
    pub(super) outcome: Outcome<S>,
    /// Configurations looked at.
    pub(super) explored: u64,
}

pub(super) enum Outcome<S> {
    /// Indices of operations, in an order that explains everything. Unanswered ones that are not needed are missing.
    Order(Vec<usize>),
    /// There is no order.
    Stuck(Stuck<S>),
    /// Nothing is known but how far the search got.
    OutOfBudget(Stuck<S>),
}

/// Where there is no way on.
pub(super) struct Stuck<S> {
    /// The operation that has no place in the order.
    pub(super) at: usize,
    /// Others that leave it none, if that can be said.
    pub(super) because: Vec<usize>,
    /// Some of the states that are reachable up to there, if a state is to blame.
    pub(super) states: Vec<S>,
}

pub(super) fn search<M: Model>(operations: &[&Operation<M::Op, M::Ret>], budget: u64) -> Found<M::State> {
    let timeline = Timeline::<M>::new(operations);
    if let Some(zones::Contradiction { at, because }) = zones::contradiction(&timeline) {
        let because = because.into_iter().map(|index| index as usize).collect();
        let stuck = Stuck { at: at as usize, because, states: Vec::new() };
        return Found { outcome: Outcome::Stuck(stuck), explored: 0 };
    }
    let mut search = Search::new(&timeline);
    let outcome = search.run(budget);
    Found { outcome, explored: search.explored }
}

/// What is in flight just before one event.
struct Cursor {
    event: u32,
    /// By bit: the operation, or `NONE`.
    in_flight: Vec<u32>,
    /// How many of [`Timeline::unknown`] have been invoked.
    offered: u32,
}

impl Cursor {
    fn move_to<M: Model>(&mut self, event: u32, timeline: &Timeline<'_, M>) {
        while self.event < event {
            match timeline.events[self.event as usize] {
                Event::Call(index) => self.in_flight[timeline.item(index).bit as usize] = index,
                Event::Return(index) => self.in_flight[timeline.item(index).bit as usize] = NONE,
                Event::Offer => self.offered += 1,
            }
            self.event += 1;
        }
        while self.event > event {
            self.event -= 1;
            match timeline.events[self.event as usize] {
                Event::Call(index) => self.in_flight[timeline.item(index).bit as usize] = NONE,
                Event::Return(index) => self.in_flight[timeline.item(index).bit as usize] = index,
                Event::Offer => self.offered -= 1,
            }
        }
    }
}

/// A configuration: everything that the future depends on, and how it came about.
#[derive(Clone)]
struct Node<S> {
    state: S,
    /// Of the operations in flight that have an end and may change the state: those that have been placed.
    placed: Bits,
    merit: Merit,
    /// The last step to here, in [`Search::steps`].
    trace: u32,
}

/// The part of a configuration in which more is better. Configurations that agree in the rest are compared by it.
#[derive(Clone)]
struct Merit {
    /// Unknown outcomes that have been placed. Fewer are better.
    used: Bits,
    /// Of the operations in flight that only observe: those that have been placed. More are better.
    seen: Bits,
    /// Unplaced blind writes invoked before this event can be put before a later blind write. Later is better.
    hidden_before: u32,
    freedom: Freedom,
}

/// What may be placed next, before the awaited operation returns. The later ones allow everything that the earlier do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Freedom {
    /// The last thing placed was a blind write that nobody has seen yet: no other may follow directly.
    Unseen,
    /// Something has been placed, so the awaited operation itself cannot be hidden in the past any more: that would be
    /// the same as hiding it first.
    Started,
    /// Anything.
    All,
}

impl Merit {
    fn covers(&self, other: &Self) -> bool {
        self.hidden_before >= other.hidden_before
            && self.freedom >= other.freedom
            && self.used.is_subset_of(&other.used)
            && other.seen.is_subset_of(&self.seen)
    }
}

/// One event that has to be passed: the return of an operation that has not been placed yet.
struct Frame<S> {
    event: u32,
    awaited: u32,
    /// Configurations to try, nearest first.
    nodes: VecDeque<Node<S>>,
    /// What to try with the first of them.
    next: Attempt,
}

#[derive(Clone, Copy)]
enum Attempt {
    /// Place the awaited operation.
    Place,
    /// Put it into the past, where nobody has seen it.
    Hide,
    /// Place something else first.
    Expand,
}

/// One step of an order.
#[derive(Clone, Copy)]
struct Step {
    previous: u32,
    index: u32,
    /// Whether it goes right before the last blind write so far, instead of to the end.
    hidden: bool,
}

struct Search<'t, 'a, M: Model> {
    timeline: &'t Timeline<'a, M>,
    cursor: Cursor,
    /// Configurations that have been found, by event, state and `placed`. None of them needs to be found again.
    found: HashMap<(u32, Bits, M::State), Merits>,
    /// Steps of all orders; each names its predecessor.
    steps: Vec<Step>,
    explored: u64,
    /// The latest event that could not be passed yet, and some states in front of it.
    deepest: u32,
    deepest_states: Vec<M::State>,
    /// An operation that will need what the operation returning there would have had to destroy.
    deepest_starved: Option<u32>,
}

/// At least one, usually exactly one.
struct Merits {
    first: Merit,
    more: Vec<Merit>,
}

impl<'t, 'a, M: Model> Search<'t, 'a, M> {
    fn new(timeline: &'t Timeline<'a, M>) -> Self {
        let cursor = Cursor { event: 0, in_flight: vec![NONE; timeline.slots], offered: 0 };
        Self {
            timeline,
            cursor,
            found: HashMap::new(),
            steps: Vec::new(),
            explored: 0,
            deepest: 0,
            deepest_states: Vec::new(),
            deepest_starved: None,
        }
    }

    fn run(&mut self, budget: u64) -> Outcome<M::State> {
        let merit = Merit { used: Bits::default(), seen: Bits::default(), hidden_before: 0, freedom: Freedom::All };
        let mut arrived = Some((0, Node { state: M::init(), placed: Bits::default(), merit, trace: NONE }));
        let mut frames: Vec<Frame<M::State>> = Vec::new();
        loop {
            if let Some((event, node)) = arrived.take() {
                match self.advance(event, node) {
                    Ok(frame) => frames.extend(frame),
                    Err(end) => return Outcome::Order(self.order(end.trace)),
                }
            }
            let Some(frame) = frames.last_mut() else {
                return Outcome::Stuck(self.stuck());
            };
            if self.explored > budget {
                return Outcome::OutOfBudget(self.stuck());
            }
            self.cursor.move_to(frame.event, self.timeline);
            let Some(node) = frame.nodes.front() else {
                frames.pop();
                continue;
            };
            let (event, awaited) = (frame.event, frame.awaited);
            let item = self.timeline.item(awaited);
            if node.placed.contains(item.bit) || node.merit.seen.contains(item.bit) {
                arrived = frame.nodes.pop_front().map(|node| (event, node));
                continue;
            }
            match frame.next {
                Attempt::Place => {
                    frame.next = Attempt::Hide;
                    arrived = self.place(awaited, node).map(|node| (event, node));
                }
                Attempt::Hide => {
                    frame.next = Attempt::Expand;
                    arrived = self.hide(awaited, node).map(|node| (event, node));
                }
                Attempt::Expand => {
                    frame.next = Attempt::Place;
                    if let Some(node) = frame.nodes.pop_front() {
                        self.expand(awaited, &node, &mut frame.nodes);
                    }
                }
            }
        }
    }

    /// Moves a configuration through time, from just before `event` to the next return that it cannot pass as it is.
    /// Nothing if that is no news, the configuration itself if there is no such return.
    fn advance(&mut self, event: u32, mut node: Node<M::State>) -> Result<Option<Frame<M::State>>, Node<M::State>> {
        node.merit.freedom = Freedom::All;
        for event in event.. {
            match self.timeline.events.get(event as usize) {
                None => break,
                Some(Event::Offer) => {}
                Some(&Event::Call(index)) => {
                    let item = self.timeline.item(index);
                    if item.observes && self.is_legal(item, &node.state) {
                        node.merit.seen.insert(item.bit);
                        self.step(&mut node, index, false);
                    }
                }
                Some(&Event::Return(index)) => {
                    let bit = self.timeline.item(index).bit;
                    if !node.placed.remove(bit) && !node.merit.seen.remove(bit) {
                        self.cursor.move_to(event, self.timeline);
                        if !self.is_new(&mut node) {
                            return Ok(None);
                        }
                        self.remember_deepest(event, &node.state);
                        let (nodes, next) = (VecDeque::from([node]), Attempt::Place);
                        return Ok(Some(Frame { event, awaited: index, nodes, next }));
                    }
                }
            }
        }
        Err(node)
    }

    /// Every configuration with one more operation placed before the awaited one.
    fn expand(&mut self, awaited: u32, node: &Node<M::State>, nodes: &mut VecDeque<Node<M::State>>) {
        let timeline = self.timeline;
        let may_follow = |item: &Item<'_, M>| !item.overwrites || node.merit.freedom != Freedom::Unseen;
        let candidates = self.cursor.in_flight.iter().filter(|&&index| index != NONE && index != awaited);
        let mut candidates: Vec<u32> = candidates.copied().collect();
        // What returns first was more likely executed first.
        candidates.sort_unstable_by_key(|&index| timeline.item(index).end);
        for index in candidates {
            let item = timeline.item(index);
            // What only observes is placed as soon as it is legal; if it has not been, it is not.
            if item.observes || node.placed.contains(item.bit) || !may_follow(item) {
                continue;
            }
            if let Some(mut child) = self.place(index, node)
                && self.is_new(&mut child)
            {
                nodes.push_back(child);
            }
        }
        for number in 0..self.cursor.offered {
            let equal = timeline.equal_before[number as usize];
            if node.merit.used.contains(number) || (equal != NONE && !node.merit.used.contains(equal)) {
                continue;
            }
            let index = timeline.unknown[number as usize];
            let item = timeline.item(index);
            if !may_follow(item) {
                continue;
            }
            // Without effect it would be wasted, except that a blind write hides others.
            if let Some(mut child) = self.place(index, node)
                && (item.overwrites || child.state != node.state)
                && self.is_new(&mut child)
            {
                nodes.push_back(child);
            }
        }
    }

    /// The configuration after placing an operation at the end of the order, and then all that only observes and is
    /// legal there.
    fn place(&mut self, index: u32, node: &Node<M::State>) -> Option<Node<M::State>> {
        let item = self.timeline.item(index);
        if item.observes || (item.overwrites && node.merit.freedom == Freedom::Unseen) {
            return None;
        }
        let state = M::step(&node.state, item.op, item.ret)?;
        let mut child = Node { state, placed: node.placed.clone(), merit: node.merit.clone(), trace: node.trace };
        if item.unknown {
            child.merit.used.insert(item.bit);
        } else {
            child.placed.insert(item.bit);
        }
        self.step(&mut child, index, false);
        child.merit.freedom = Freedom::Started;
        if item.overwrites {
            child.merit.hidden_before = self.cursor.event;
            child.merit.freedom = Freedom::Unseen;
        }
        for bit in 0..self.cursor.in_flight.len() {
            let index = self.cursor.in_flight[bit];
            if index == NONE || child.merit.seen.contains(bit as u32) {
                continue;
            }
            let item = self.timeline.item(index);
            if item.observes && self.is_legal(item, &child.state) {
                child.merit.seen.insert(bit as u32);
                child.merit.freedom = Freedom::Started;
                self.step(&mut child, index, false);
            }
        }
        let left = self.timeline.needed.get(&node.state).filter(|_| child.state != node.state);
        if left.is_some_and(|&left| self.is_starved(left, &node.state, &child)) {
            return None;
        }
        Some(child)
    }

    /// The configuration after placing a blind write in the past, right before a later one.
    fn hide(&mut self, index: u32, node: &Node<M::State>) -> Option<Node<M::State>> {
        let item = self.timeline.item(index);
        let is_possible = node.merit.freedom == Freedom::All && item.overwrites && item.call < node.merit.hidden_before;
        if !is_possible {
            return None;
        }
        let mut child = node.clone();
        child.placed.insert(item.bit);
        self.step(&mut child, index, true);
        if item.leaves != NONE && self.timeline.needed.get(&child.state) != Some(&item.leaves) {
            let state = M::step(&node.state, item.op, item.ret)?;
            if self.is_starved(item.leaves, &state, &child) {
                return None;
            }
        }
        Some(child)
    }

    /// Whether somebody needs a state, which is not the current one, and nobody can bring it about any more.
    fn is_starved(&mut self, number: u32, state: &M::State, node: &Node<M::State>) -> bool {
        let starved = self.starved(number, state, node);
        if self.cursor.event == self.deepest && self.deepest_starved.is_none() {
            self.deepest_starved = starved;
        }
        starved.is_some()
    }

    fn starved(&self, number: u32, state: &M::State, node: &Node<M::State>) -> Option<u32> {
        let (timeline, event) = (self.timeline, self.cursor.event);
        let need = &timeline.needs[number as usize];
        if need.last_left >= event {
            return None;
        }
        let is_open = |item: &Item<'_, M>| {
            if item.unknown {
                item.call >= event || !node.merit.used.contains(item.bit)
            } else if item.call >= event {
                true
            } else {
                let is_in_flight = self.cursor.in_flight[item.bit as usize];
                let is_in_flight = is_in_flight != NONE && std::ptr::eq(timeline.item(is_in_flight), item);
                is_in_flight && !node.placed.contains(item.bit) && !node.merit.seen.contains(item.bit)
            }
        };
        let in_flight = || {
            let in_flight = self.cursor.in_flight.iter().copied().filter(|&index| index != NONE);
            in_flight.map(|index| (index, timeline.item(index))).filter(|(_, item)| is_open(item))
        };
        let later = match timeline.events[need.last_needed as usize] {
            Event::Call(index) if need.last_needed >= event => Some(index),
            _ => None,
        };
        let needed = later.or_else(|| in_flight().find(|(_, item)| item.needs == number).map(|(index, _)| index))?;
        let can_come = in_flight().any(|(_, item)| item.leaves == number)
            || need.unknown.iter().any(|&index| is_open(timeline.item(index)))
            || timeline.wild.iter().any(|&(index, is_possible)| is_possible(state) && is_open(timeline.item(index)));
        (!can_come).then_some(needed)
    }

    fn is_legal(&self, item: &Item<'_, M>, state: &M::State) -> bool {
        let after = M::step(state, item.op, item.ret);
        debug_assert!(after.as_ref().is_none_or(|after| after == state), "{:?} does not only observe", item.op);
        after.is_some()
    }

    fn step(&mut self, node: &mut Node<M::State>, index: u32, hidden: bool) {
        let number = self.steps.len() as u32;
        assert!(number < NONE, "more steps than can be numbered");
        self.steps.push(Step { previous: node.trace, index, hidden });
        node.trace = number;
    }

    /// Whether a configuration, at the cursor's event, offers anything that those found before do not.
    fn is_new(&mut self, node: &mut Node<M::State>) -> bool {
        // Only the blind writes in flight matter; saying so makes more configurations equal.
        let in_flight = self.cursor.in_flight.iter().filter(|&&index| index != NONE);
        let hideable = in_flight
            .map(|&index| self.timeline.item(index))
            .filter(|item| item.overwrites && item.call < node.merit.hidden_before && !node.placed.contains(item.bit));
        node.merit.hidden_before = hideable.map(|item| item.call + 1).max().unwrap_or(0);

        self.explored += 1;
        let key = (self.cursor.event, node.placed.clone(), node.state.clone());
        let merit = &node.merit;
        let Some(known) = self.found.get_mut(&key) else {
            self.found.insert(key, Merits { first: merit.clone(), more: Vec::new() });
            return true;
        };
        if known.first.covers(merit) || known.more.iter().any(|known| known.covers(merit)) {
            return false;
        }
        known.more.retain(|known| !merit.covers(known));
        if merit.covers(&known.first) {
            known.first = merit.clone();
        } else {
            known.more.push(merit.clone());
        }
        true
    }

    fn remember_deepest(&mut self, event: u32, state: &M::State) {
        if event > self.deepest {
            self.deepest = event;
            self.deepest_states.clear();
            self.deepest_starved = None;
        }
        let room = event == self.deepest && self.deepest_states.len() < STATES_MAX;
        if room && !self.deepest_states.contains(state) {
            self.deepest_states.push(state.clone());
        }
    }

    fn stuck(&mut self) -> Stuck<M::State> {
        let awaited = match self.timeline.events.get(self.deepest as usize) {
            Some(&(Event::Call(index) | Event::Return(index))) => index as usize,
            Some(Event::Offer) | None => 0,
        };
        let states = mem::take(&mut self.deepest_states);
        match self.deepest_starved {
            Some(starved) => Stuck { at: starved as usize, because: vec![awaited], states },
            None => Stuck { at: awaited, because: Vec::new(), states },
        }
    }

    /// The order that ends with `trace`.
    fn order(&self, mut trace: u32) -> Vec<usize> {
        let mut steps = Vec::new();
        while trace != NONE {
            let step = self.steps[trace as usize];
            steps.push(step);
            trace = step.previous;
        }
        // Each step with what is hidden right before it.
        let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut last_overwrite = None;
        for step in steps.into_iter().rev() {
            match last_overwrite.filter(|_| step.hidden) {
                Some(group) => {
                    let (_, hidden): &mut (usize, Vec<usize>) = &mut groups[group];
                    hidden.push(step.index as usize);
                }
                None => {
                    if self.timeline.item(step.index).overwrites {
                        last_overwrite = Some(groups.len());
                    }
                    groups.push((step.index as usize, Vec::new()));
                }
            }
        }
        groups.into_iter().flat_map(|(index, hidden)| hidden.into_iter().chain([index])).collect()
    }
}
