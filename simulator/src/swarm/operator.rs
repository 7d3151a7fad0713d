//! Who adds, removes and replaces nodes while everything else happens to them, one after the other and each for as long
//! as it takes (protocol.md §7.5, §7.6). It knows who is alive, and does nothing that would leave no majority: that would
//! be its mistake, not the system's.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use hovercraft::membership::{Member, MemberRole};
use hovercraft::{MemberId, Membership, NodeId, Service};
use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::faults::{Fault, FaultKind};
use crate::World;

/// How long it waits before it tells somebody the same again.
const ATTEMPT_EVERY: Duration = Duration::from_millis(2);

/// How long it waits for a process to be told that it is not who it says it is.
const REFUSED_WITHIN: Duration = Duration::from_millis(300);

/// How long it wants a certain node to lead.
const LEADS_WITHIN: Duration = Duration::from_millis(100);

/// Does what it was told to, in that order.
#[derive(Debug, Default)]
pub(super) struct Operator {
    waiting: VecDeque<Fault>,
    task: Option<Task>,
    attempt_at: Instant,
    /// Nodes that never come back.
    dead: BTreeSet<u16>,
    healed: bool,
}

/// What it is about to do.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// Starts what a host has lost again under the same identity, as the careless do, until it is turned away.
    Mistakes {
        id: u16,
        until: Instant,
    },
    Admits {
        id: u16,
        promote: bool,
    },
    Removes {
        id: u16,
        kills: bool,
    },
    HandsOver {
        to: u16,
        until: Instant,
    },
}

impl Operator {
    /// It is to do this when it has done everything else.
    pub(super) fn shall(&mut self, fault: Fault) {
        self.waiting.push_back(fault);
    }

    /// A node will never come back.
    pub(super) fn lost(&mut self, id: u16) {
        self.dead.insert(id);
    }

    /// Whether a node will never come back.
    pub(super) fn is_lost(&self, id: u16) -> bool {
        self.dead.contains(&id)
    }

    /// Everything works again. What it has begun it ends; it begins nothing more.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.waiting.clear();
    }

    /// What is still to happen to the group's membership: what it is about to do, and what the group is to do itself.
    pub(super) fn unfinished<S: Service>(&self, world: &World<S>) -> Option<String> {
        if let Some(task) = self.task {
            return Some(format!("the operator has not ended {task:?}"));
        }
        let Some(members) = settled(world) else { return Some("a change of members is not over".to_owned()) };
        // Who is dead never catches up.
        let waits = |(id, member): &(&MemberId, &Member)| {
            member.role == MemberRole::Learner { promote: true } && self.is_alive(world, **id)
        };
        members.members.iter().find(waits).map(|(id, _)| format!("{id:?} is to vote and does not"))
    }

    /// Whether the group can do without this node for ever, if anybody can say so now.
    pub(super) fn can_spare<S: Service>(&self, world: &World<S>, id: u16) -> bool {
        let Some(members) = settled(world) else { return false };
        self.can_lose(world, members, Some(id))
    }

    /// Does what is due.
    pub(super) fn act<S: Service>(&mut self, world: &mut World<S>) {
        if world.now() < self.attempt_at {
            return;
        }
        self.attempt_at = world.now() + ATTEMPT_EVERY;
        let Some(task) = self.task else {
            if let Some(fault) = self.waiting.pop_front() {
                self.task = self.begin(world, fault);
            }
            return;
        };
        self.task = match task {
            Task::Mistakes { id, until } => {
                let over = world.node(id).is_none() || world.now() >= until;
                if over { self.admits(world, id, true) } else { Some(task) }
            }
            Task::Admits { id, promote } => match world.admit(id, promote) {
                Ok(Some(_)) => None,
                Ok(None) | Err(_) => Some(task),
            },
            Task::Removes { id, kills } => self.remove(world, id, kills).then_some(task),
            Task::HandsOver { to, until } => {
                let done = world.leader() == Some(to) || world.now() >= until;
                if !done {
                    _ = world.hand_leadership(Some(to));
                }
                (!done).then_some(task)
            }
        };
    }

    /// Decides what exactly to do, if there is anything.
    fn begin<S: Service>(&self, world: &mut World<S>, fault: Fault) -> Option<Task> {
        let rng = &mut SmallRng::seed_from_u64(fault.seed);
        let members = settled(world)?.clone();
        let now = world.now();
        let ids: Vec<u16> = members.members.keys().map(|id| id.node().0).collect();
        let anybody = ids[rng.random_range(0..ids.len())];
        match fault.id.kind {
            FaultKind::Join => {
                let promote = rng.random_bool(0.8);
                let free = |id: &u16| !ids.contains(id) && !self.dead.contains(id);
                let free: Vec<u16> = (1..=world.hosts()).filter(free).collect();
                let id = *free.get(rng.random_range(0..free.len().max(1)))?;
                self.admits(world, id, promote)
            }
            FaultKind::Leave => {
                let kills = rng.random_bool(0.5);
                self.can_remove(world, &members, anybody).then_some(Task::Removes { id: anybody, kills })
            }
            FaultKind::Replace => {
                if self.dead.contains(&anybody) || !self.can_lose(world, &members, Some(anybody)) {
                    return None;
                }
                let member = world.member(anybody)?;
                world.kill(anybody);
                world.replace_disk(anybody);
                // One whom nobody remembers would be taken for what it says it is; and one that decides alone asks nobody.
                let knows = |id: u16| match world.node(id) {
                    Some(node) => node.has_heard(member),
                    None => world.is_gone(id) || world.member(id).is_none(),
                };
                let refused = !world.began_alone(anybody) && (1..=world.hosts()).all(knows);
                if refused && rng.random_bool(0.5) {
                    world.start(anybody);
                    return Some(Task::Mistakes { id: anybody, until: now + REFUSED_WITHIN });
                }
                Some(Task::Admits { id: anybody, promote: true })
            }
            _ => Some(Task::HandsOver { to: anybody, until: now + LEADS_WITHIN }),
        }
    }

    /// An empty host, to be started when it is let in.
    fn admits<S: Service>(&self, world: &mut World<S>, id: u16, promote: bool) -> Option<Task> {
        world.kill(id);
        world.replace_disk(id);
        Some(Task::Admits { id, promote })
    }

    /// Another attempt to remove a node; whether it is worth another.
    fn remove<S: Service>(&self, world: &mut World<S>, id: u16, kills: bool) -> bool {
        let Some(members) = settled(world).cloned() else { return true };
        if members.of_node(NodeId(id)).is_none() {
            if kills {
                world.kill(id);
            }
            return false;
        }
        if !self.can_remove(world, &members, id) {
            return false;
        }
        _ = world.remove(id);
        true
    }

    /// Whether a majority of those who would be left is alive, and of those who are there now.
    fn can_remove<S: Service>(&self, world: &World<S>, members: &Membership, id: u16) -> bool {
        let without = members.without(NodeId(id)).ok();
        without.is_some_and(|next| self.can_lose(world, &next, None)) && self.can_lose(world, members, None)
    }

    /// Whether this one is there, or will be again.
    fn is_alive<S: Service>(&self, world: &World<S>, member: MemberId) -> bool {
        let id = member.node().0;
        world.member(id) == Some(member) && !world.is_gone(id) && !self.dead.contains(&id)
    }

    /// Whether those who decide, now and when all who are to vote do, are alive without this node.
    fn can_lose<S: Service>(&self, world: &World<S>, members: &Membership, id: Option<u16>) -> bool {
        let alive = |member: &MemberId| self.is_alive(world, *member) && Some(member.node().0) != id;
        let alive: BTreeSet<MemberId> = members.members.keys().copied().filter(alive).collect();
        let will_vote = |role| role != MemberRole::Learner { promote: false };
        let all = members.members.iter().filter(|(_, member)| will_vote(member.role));
        let living = all.clone().filter(|(id, _)| alive.contains(id)).count();
        // A learner that is about to vote may be made a voter just before it dies: its vote is missed then.
        let learners = all.clone().filter(|(_, member)| matches!(member.role, MemberRole::Learner { .. }));
        let missed = usize::from(learners.clone().any(|(id, _)| !alive.contains(id)));
        let voters = members.incoming().count();
        let voting = members.incoming().filter(|voter| alive.contains(voter)).count();
        members.is_quorum(&alive) && living * 2 > all.count() && voting * 2 > voters + missed
    }
}

/// The members, if somebody leads by a membership that is committed, and nobody has heard of a later one.
fn settled<S: Service>(world: &World<S>) -> Option<&Membership> {
    let members = world.members()?;
    let later = |id: &u16| world.node(*id).is_some_and(|node| node.membership().epoch > members.epoch);
    (!members.is_joint() && !world.running().iter().any(later)).then_some(members)
}
