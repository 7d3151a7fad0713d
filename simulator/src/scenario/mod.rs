//! Schedules written out: who says what, what of it is lost or comes late, what everybody must then have seen.
//!
//! A [`Scenario`] is a [`World`] with shorter words for what schedules are made of, and everything of the world is there
//! too. Whatever is said in it is checked at every step, like any run; a step that does not come about within
//! [`PATIENCE`] of virtual time panics and tells what happened last.
//!
//! ```
//! use r2p2::client::Outcome;
//! use simulator::registers::Request::{Add, Get, Set};
//! use simulator::{Party, Scenario};
//!
//! // A request reaches the leader alone, whose Append overtakes it at everybody else.
//! let mut s = Scenario::cluster(3).seed(7).registers();
//! let [leader, _, _] = s.cast();
//! let requests = s.lose("request").not_to(leader);
//! assert_eq!(s.client(0).value(Add(1, 5)), 5);
//! assert!(requests.hits() >= 2);
//! s.stop(&requests);
//!
//! // The answer comes late: the client asks again and is told the same, once.
//! let answers = s.hold("response").to(Party::Client(0));
//! s.client(0).begin(Set(1, 7));
//! s.until("an answer is under way", |_| answers.hits() > 0);
//! s.release(&answers);
//! assert!(matches!(s.client(0).end(1)[0].outcome, Outcome::Ok(_)));
//! assert_eq!(s.client(0).value(Get(1)), 7);
//! s.converge();
//! ```
//!
//! A service of one's own is put on the stage with [`Setup::of`], and its requests are `(Kind, bytes)`:
//!
//! ```
//! use r2p2::client::{Kind, Outcome};
//! use simulator::{Registers, Scenario, registers::Request};
//!
//! let mut s = Scenario::cluster(5).clients(2).with(|config| config.network.loss = 0.01).of(Registers::default);
//! let leader = s.elect();
//! s.kill(leader);
//! let outcome = s.client(1).call((Kind::Write, Request::Set(3, 1).encode()));
//! assert!(matches!(outcome, Outcome::Ok(_)));
//! ```

mod actor;
mod rule;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use hovercraft::node::{CommandError, Counters};
use hovercraft::{LogIndex, Service, Term};

pub use actor::{Actor, Operation};
pub use rule::Rule;

use crate::{Registers, World, WorldConfig};

/// How long a step of a schedule may take to come about.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a scenario begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    config: WorldConfig,
}

/// How long an operator waits before trying again.
const ATTEMPT_EVERY: Duration = Duration::from_millis(1);

/// A schedule on its way. See the module.
#[derive(Debug)]
pub struct Scenario<S: Service> {
    world: World<S>,
}

impl Setup {
    /// Decides everything that the schedule leaves open; 1 if nothing is said.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// How many clients there are; one if nothing is said.
    pub fn clients(mut self, clients: usize) -> Self {
        self.config.clients = clients;
        self
    }

    /// Clients that send every request once and then wait for as long as it takes: what is executed or answered is so
    /// without their help.
    pub fn patient_clients(self) -> Self {
        self.with(|config| {
            let hour = Duration::from_secs(3600);
            config.client.retransmit_initial = hour;
            config.client.retransmit_min = hour;
            config.client.retransmit_max = hour;
            config.client.give_up = 4 * hour;
            config.client.session_idle = 4 * hour;
        })
    }

    /// Changes anything else.
    pub fn with(mut self, change: impl FnOnce(&mut WorldConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// All nodes start, with registers as their service.
    pub fn registers(self) -> Scenario<Registers> {
        self.of(Registers::default)
    }

    /// All nodes start, each with a service that `make` makes.
    pub fn of<S: Service>(self, make: impl Fn() -> S + 'static) -> Scenario<S> {
        Scenario { world: World::new(self.config, make) }
    }
}

impl Scenario<Registers> {
    /// A scenario with so many nodes, whose Raft clocks tick once a millisecond, so that elections take no longer than
    /// what the schedule is about.
    pub fn cluster(nodes: u16) -> Setup {
        let mut config = WorldConfig::new(1, nodes);
        config.node.timing.tick = Duration::from_millis(1);
        Setup { config }
    }
}

impl<S: Service> Scenario<S> {
    /// Waits for a leader and gives everybody a part: the leader first, then the others in order of their ids. A part
    /// stays with its node, whoever leads later.
    ///
    /// # Panics
    /// If there are not `N` nodes.
    pub fn cast<const N: usize>(&mut self) -> [u16; N] {
        let leader = self.world.elect();
        let others = self.world.running().into_iter().filter(|id| *id != leader);
        let parts: Vec<u16> = std::iter::once(leader).chain(others).collect();
        <[u16; N]>::try_from(parts).unwrap_or_else(|parts| panic!("{} nodes for {N} parts", parts.len()))
    }

    /// A client, to act as.
    pub fn client(&mut self, number: usize) -> Actor<'_, S> {
        Actor::new(&mut self.world, number)
    }

    /// Loses every datagram of these kinds, as [`crate::Flight::what`] names them, with `|` between several and `*` for
    /// any; the rule that comes back narrows it down.
    pub fn lose(&mut self, what: &'static str) -> Rule {
        Rule::add(&mut self.world, what, false)
    }

    /// The same, but the datagrams are not lost for ever: [`Scenario::release`] lets them arrive.
    pub fn hold(&mut self, what: &'static str) -> Rule {
        Rule::add(&mut self.world, what, true)
    }

    /// Counts such datagrams and lets them pass.
    pub fn watch(&mut self, what: &'static str) -> Rule {
        Rule::add(&mut self.world, what, false).passing()
    }

    /// Ends a rule. What it holds back stays held back.
    pub fn stop(&mut self, rule: &Rule) {
        self.world.remove_rule(rule.number());
    }

    /// Ends a rule and lets arrive what it held back, in the order in which it was sent.
    pub fn release(&mut self, rule: &Rule) {
        self.stop(rule);
        rule.release(&mut self.world);
    }

    /// Runs until it is so.
    ///
    /// # Panics
    /// If it never is, within [`PATIENCE`].
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&World<S>) -> bool) {
        if !self.world.run_until(PATIENCE, |world| is_so(world)) {
            give_up(&self.world, what);
        }
    }

    /// Tells somebody something again and again, as an operator would, until it is done.
    ///
    /// # Panics
    /// If it never is, within [`PATIENCE`].
    #[track_caller]
    pub fn repeat<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut World<S>) -> Result<Option<T>, CommandError>,
    ) -> T {
        let end = self.world.now() + PATIENCE;
        loop {
            match attempt(&mut self.world) {
                Ok(Some(done)) => return done,
                refused if self.world.now() >= end => {
                    give_up(&self.world, &format!("{what} (last: {:?})", refused.map(|_| "not yet")));
                }
                _ => self.world.run_for(ATTEMPT_EVERY),
            }
        }
    }

    /// Waits until a node other than `old` leads and has committed an entry of its term.
    #[track_caller]
    pub fn until_another_leads(&mut self, old: u16) -> u16 {
        self.until("another node leads", |world| {
            let node = world.leader().filter(|leader| *leader != old).and_then(|leader| world.node(leader));
            node.is_some_and(|node| node.consensus().commit_is_current())
        });
        self.world.leader().expect("just seen")
    }

    /// Waits until every running node has the same log, all of it executed, and the same state.
    #[track_caller]
    pub fn converge(&mut self) {
        self.until("all logs and states are equal", |world| {
            let ids = world.running();
            let view = |id: &u16| {
                let (node, applier) = (world.node(*id)?, world.applier(*id)?);
                Some((node.consensus().log().last(), node.applied(), applier.state_hash()))
            };
            let Some(first) = ids.first().and_then(view) else { return true };
            first.0 == first.1 && ids.iter().all(|id| view(id) == Some(first))
        });
    }

    /// The last index of a running node's log.
    #[track_caller]
    pub fn last(&self, id: u16) -> LogIndex {
        self.running_node(id).consensus().log().last()
    }

    /// What a running node has committed.
    #[track_caller]
    pub fn commit(&self, id: u16) -> LogIndex {
        self.running_node(id).consensus().commit()
    }

    /// The term a running node is in.
    #[track_caller]
    pub fn term(&self, id: u16) -> Term {
        self.running_node(id).consensus().term()
    }

    /// What a running node has counted.
    #[track_caller]
    pub fn counters(&self, id: u16) -> Counters {
        *self.running_node(id).counters()
    }

    /// A running node's service.
    #[track_caller]
    pub fn service(&self, id: u16) -> &S {
        self.world.applier(id).unwrap_or_else(|| panic!("n{id} does not run")).service()
    }

    #[track_caller]
    fn running_node(&self, id: u16) -> &hovercraft::Node {
        self.world.node(id).unwrap_or_else(|| panic!("n{id} does not run"))
    }
}

impl<S: Service> Deref for Scenario<S> {
    type Target = World<S>;

    fn deref(&self) -> &World<S> {
        &self.world
    }
}

impl<S: Service> DerefMut for Scenario<S> {
    fn deref_mut(&mut self) -> &mut World<S> {
        &mut self.world
    }
}

#[track_caller]
fn give_up<S: Service>(world: &World<S>, what: &str) -> ! {
    let recent: Vec<String> = world.recent().map(ToString::to_string).collect();
    panic!("never came about: {what}\n{world:?}\nwhat happened last:\n{}", recent.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Party;
    use crate::registers::Request::{Add, Get};

    #[test]
    fn the_cast_is_the_leader_and_everybody_else_once() {
        let mut s = Scenario::cluster(5).registers();
        let mut cast = s.cast::<5>();
        assert_eq!(Some(cast[0]), s.leader());
        cast.sort_unstable();
        assert_eq!(cast, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_rule_loses_what_it_names_from_whom_it_names_and_so_many() {
        let mut s = Scenario::cluster(3).registers();
        let [leader, n2, n3] = s.cast();
        let lost = s.lose("append|heartbeat").from(leader).to(n2).first(3);
        let other = s.lose("append").not_from(leader);
        let seen = s.watch("append_ack").from(n3).not_to(n2);
        s.run_for(Duration::from_millis(50));
        assert_eq!((lost.hits(), s.faults().cut), (3, 3));
        assert_eq!(other.hits(), 0);
        assert!(seen.hits() > 3);
        s.converge();
    }

    #[test]
    fn every_other_one_and_those_that_look_so() {
        let mut s = Scenario::cluster(3).registers();
        s.cast::<3>();
        let all = s.watch("heartbeat");
        let half = s.watch("heartbeat").every(2);
        let long = s.watch("*").which(|flight| flight.packet.len() > 10_000);
        s.run_for(Duration::from_millis(100));
        assert_eq!(half.hits(), all.hits() / 2);
        assert_eq!(long.hits(), 0);
    }

    #[test]
    fn what_is_held_back_arrives_when_it_is_released() {
        let mut s = Scenario::cluster(3).patient_clients().registers();
        s.cast::<3>();
        assert_eq!(s.client(0).value(Add(1, 1)), 1);
        let held = s.hold("request").from(Party::Client(0));
        s.client(0).begin(Add(1, 1));
        s.run_for(Duration::from_secs(1));
        assert_eq!((held.hits(), s.world.client(0).outstanding()), (3, 1));
        s.stop(&held);
        s.run_for(Duration::from_secs(1));
        assert_eq!(s.world.client(0).outstanding(), 1);
        s.release(&held);
        assert_eq!(s.client(0).end(1).len(), 1);
        assert_eq!(s.client(0).value(Get(1)), 2);
        s.release(&held);
        s.run_for(Duration::from_millis(1));
        assert_eq!(s.client(0).value(Get(1)), 2, "nothing is released twice");
    }

    #[test]
    #[should_panic(expected = "never came about: two nodes lead")]
    fn what_never_comes_about_is_told() {
        Scenario::cluster(3).registers().until("two nodes lead", |_| false);
    }
}
