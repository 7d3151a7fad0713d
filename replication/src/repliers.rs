//! Who answers: bounded queues and the choice among them (protocol.md §1 "bounded queue", §5.3).

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::id::{LogIndex, NodeId};

/// How the leader picks the replier among the eligible.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplierChoice {
    /// Join the bounded shortest queue.
    #[default]
    Jbsq,
    /// Any of them, for comparison.
    Random,
}

/// The bounded queues of a group in one leader's term.
#[derive(Debug)]
pub struct Repliers {
    choice: ReplierChoice,
    /// B: most entries whose replier has not reported them applied.
    queue_max: usize,
    queues: Vec<Queue>,
    chosen: u64,
    rng: SmallRng,
}

#[derive(Debug)]
struct Queue {
    node: NodeId,
    /// Entries this node owes an answer to, ascending.
    owed: VecDeque<LogIndex>,
    applied: LogIndex,
    /// When it was last chosen, in choices.
    last_chosen: u64,
}

impl Repliers {
    /// Empty queues for `nodes`.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, choice: ReplierChoice, queue_max: usize, seed: u64) -> Self {
        let queues =
            nodes.into_iter().map(|node| Queue { node, owed: VecDeque::new(), applied: 0, last_chosen: 0 }).collect();
        Self { choice, queue_max, queues, chosen: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    /// These nodes answer from now on. What others owe is theirs no longer: their clients ask again.
    pub fn set_nodes(&mut self, nodes: &[NodeId]) {
        self.queues.retain(|queue| nodes.contains(&queue.node));
        for node in nodes {
            if self.queue(*node).is_none() {
                self.queues.push(Queue { node: *node, owed: VecDeque::new(), applied: 0, last_chosen: 0 });
            }
        }
    }

    /// Picks the replier of the next entry among the nodes that `eligible` accepts and whose queue has room, if any:
    /// the shortest queue; ties go to `leader` if nobody owes anything, else to the least recently chosen.
    pub fn choose(&mut self, leader: NodeId, eligible: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let queue_max = if mutated!(QueueUnbounded) { usize::MAX } else { self.queue_max };
        let room = |queue: &&mut Queue| queue.owed.len() < queue_max && eligible(queue.node);
        let idle = self.queues.iter().all(|queue| queue.owed.is_empty());
        let picked = match self.choice {
            ReplierChoice::Jbsq => self.queues.iter_mut().filter(room).min_by_key(|queue| {
                let leader_first = idle && queue.node != leader;
                (queue.owed.len(), leader_first, queue.last_chosen)
            }),
            ReplierChoice::Random => {
                let mut able: Vec<&mut Queue> = self.queues.iter_mut().filter(room).collect();
                if able.is_empty() {
                    None
                } else {
                    let at = self.rng.random_range(0..able.len());
                    Some(able.swap_remove(at))
                }
            }
        }?;
        self.chosen += 1;
        picked.last_chosen = self.chosen;
        Some(picked.node)
    }

    /// Adds an announced entry to its replier's queue. Entries a leader inherits are added too, so that they count.
    pub fn announce(&mut self, replier: NodeId, index: LogIndex) {
        if let Some(queue) = self.queue(replier)
            && index > queue.applied
        {
            queue.owed.push_back(index);
        }
    }

    /// Takes entries from `index` on out again: their proposal was dropped.
    pub fn retract(&mut self, index: LogIndex) {
        for queue in &mut self.queues {
            while queue.owed.back().is_some_and(|owed| *owed >= index) {
                queue.owed.pop_back();
            }
        }
    }

    /// `node` reports what it has applied.
    pub fn applied(&mut self, node: NodeId, index: LogIndex) {
        if let Some(queue) = self.queue(node) {
            queue.applied = queue.applied.max(index);
            while queue.owed.front().is_some_and(|owed| *owed <= queue.applied) {
                queue.owed.pop_front();
            }
        }
    }

    /// How many entries `node` owes an answer to.
    pub fn owed(&self, node: NodeId) -> usize {
        self.queues.iter().find(|queue| queue.node == node).map_or(0, |queue| queue.owed.len())
    }

    fn queue(&mut self, node: NodeId) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_group_answers_from_its_leader() {
        let mut repliers = jbsq(4);
        for index in 1..=3 {
            assert_eq!(repliers.choose(NodeId(2), |_| true), Some(NodeId(2)));
            repliers.announce(NodeId(2), index);
            repliers.applied(NodeId(2), index);
        }
    }

    #[test]
    fn load_spreads_evenly() {
        let mut repliers = jbsq(4);
        let mut counts = [0; 4];
        for index in 1..=12 {
            let node = repliers.choose(NodeId(1), |_| true).unwrap();
            repliers.announce(node, index);
            counts[usize::from(node.0)] += 1;
        }
        assert_eq!(counts, [0, 4, 4, 4]);
    }

    #[test]
    fn a_queue_at_the_limit_and_one_below() {
        let mut repliers = jbsq(2);
        let only_two = |node| node == NodeId(2);
        for index in [5, 6] {
            assert_eq!(repliers.choose(NodeId(1), only_two), Some(NodeId(2)));
            repliers.announce(NodeId(2), index);
        }
        assert_eq!(repliers.choose(NodeId(1), only_two), None);
        repliers.applied(NodeId(2), 4);
        assert_eq!(repliers.choose(NodeId(1), only_two), None);
        repliers.applied(NodeId(2), 5);
        assert_eq!(repliers.choose(NodeId(1), only_two), Some(NodeId(2)));
        assert_eq!(repliers.owed(NodeId(2)), 1);
    }

    #[test]
    fn retracting_undoes_exactly_the_dropped_entries() {
        let mut repliers = jbsq(4);
        repliers.announce(NodeId(1), 7);
        repliers.announce(NodeId(1), 8);
        repliers.announce(NodeId(2), 9);
        repliers.retract(8);
        assert_eq!((repliers.owed(NodeId(1)), repliers.owed(NodeId(2))), (1, 0));
    }

    #[test]
    fn random_uses_every_eligible_node_and_no_other() {
        let nodes = [1, 2, 3].map(NodeId);
        let mut repliers = Repliers::new(nodes, ReplierChoice::Random, 1000, 7);
        let mut counts = [0; 4];
        for _ in 0..300 {
            counts[usize::from(repliers.choose(NodeId(1), |node| node != NodeId(3)).unwrap().0)] += 1;
        }
        assert!(counts[1] > 100 && counts[2] > 100, "{counts:?}");
        assert_eq!(counts[3], 0);
    }

    fn jbsq(queue_max: usize) -> Repliers {
        Repliers::new([1, 2, 3].map(NodeId), ReplierChoice::Jbsq, queue_max, 1)
    }
}
