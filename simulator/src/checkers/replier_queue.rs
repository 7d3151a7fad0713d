//! No node is the replier of more than B entries that it has not reported applied, in one leader's term
//! (protocol.md §6.5). Counted from the leader's log and from the acknowledgements that reached it, not from what the
//! leader believes. Entries that it inherited from earlier terms do not count: their replier was another's choice.

use std::collections::{BTreeMap, VecDeque};

use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation};

/// Who owes how many answers, as each leader should know.
#[derive(Debug, Default)]
pub struct ReplierQueue {
    leaders: BTreeMap<NodeId, Leading>,
    /// By (leader, replier).
    reported: BTreeMap<(NodeId, NodeId), LogIndex>,
}

#[derive(Debug, Default)]
struct Leading {
    term: Term,
    looked_at: LogIndex,
    /// The first entry it announced.
    first: LogIndex,
    owed: BTreeMap<NodeId, VecDeque<LogIndex>>,
}

impl ReplierQueue {
    /// A node has forgotten everything.
    pub fn started(&mut self, node: NodeId) {
        self.leaders.remove(&node);
        self.reported.retain(|(leader, _), _| *leader != node);
    }

    /// A node leads a term: a new one begins with empty queues.
    pub fn leads(&mut self, leader: NodeId, term: Term) {
        let leading = self.leaders.entry(leader).or_default();
        if leading.term != term {
            *leading = Leading { term, ..Leading::default() };
        }
    }

    /// How far the leader's log has been looked at in its term; 0 if not at all.
    pub fn looked_at(&self, leader: NodeId) -> LogIndex {
        self.leaders.get(&leader).map_or(0, |leading| leading.looked_at)
    }

    /// The first entry that the leader announced in its term; 0 if none.
    pub fn first(&self, leader: NodeId) -> LogIndex {
        self.leaders.get(&leader).map_or(0, |leading| leading.first)
    }

    /// The leader's log has this entry of its term; `replier` is none for the entry that begins the term.
    pub fn announced(&mut self, leader: NodeId, index: LogIndex, replier: Option<NodeId>) {
        let leading = self.leaders.entry(leader).or_default();
        leading.looked_at = index;
        if let Some(replier) = replier {
            if leading.first == 0 {
                leading.first = index;
            }
            leading.owed.entry(replier).or_default().push_back(index);
        }
    }

    /// The leader hears that a node has applied everything up to `applied`.
    pub fn reported(&mut self, leader: NodeId, node: NodeId, applied: LogIndex) {
        let known = self.reported.entry((leader, node)).or_default();
        *known = applied.max(*known);
    }

    /// These nodes answer from now on; what others owe the leader waits for no longer (protocol.md §7.6).
    pub fn answer(&mut self, leader: NodeId, is_one: impl Fn(NodeId) -> bool) {
        if let Some(leading) = self.leaders.get_mut(&leader) {
            leading.owed.retain(|node, _| is_one(*node));
        }
    }

    /// Looks at all queues of a leader; `limit` is B.
    ///
    /// # Errors
    /// One is too long.
    pub fn check(&mut self, leader: NodeId, limit: usize) -> Result {
        let Some(leading) = self.leaders.get_mut(&leader) else { return Ok(()) };
        for (&replier, owed) in &mut leading.owed {
            let reported = self.reported.get(&(leader, replier)).copied().unwrap_or(0);
            while owed.front().is_some_and(|index| *index <= reported) {
                owed.pop_front();
            }
            if owed.len() > limit {
                return Err(Violation::QueueTooLong { leader, term: leading.term, replier, owed: owed.len(), limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2};
    use super::*;

    fn two_owed() -> ReplierQueue {
        let mut checker = ReplierQueue::default();
        checker.leads(N1, 3);
        checker.announced(N1, 4, None);
        checker.announced(N1, 5, Some(N2));
        checker.announced(N1, 6, Some(N2));
        checker
    }

    #[test]
    fn at_the_limit_and_what_is_reported_is_fine() {
        let mut checker = two_owed();
        assert_eq!((checker.looked_at(N1), checker.first(N1)), (6, 5));
        assert_eq!(checker.check(N1, 2), Ok(()));
        checker.announced(N1, 7, Some(N2));
        checker.reported(N1, N2, 5);
        checker.reported(N1, N2, 3);
        assert_eq!(checker.check(N1, 2), Ok(()), "an old report takes nothing back");
    }

    #[test]
    fn a_new_term_begins_empty() {
        let mut checker = two_owed();
        checker.leads(N1, 4);
        assert_eq!((checker.looked_at(N1), checker.first(N1)), (0, 0));
        assert_eq!(checker.check(N1, 0), Ok(()));
    }

    #[test]
    fn who_has_left_owes_nothing_when_it_is_back() {
        let mut checker = two_owed();
        checker.answer(N1, |node| node == N1);
        checker.answer(N1, |_| true);
        checker.announced(N1, 7, Some(N2));
        assert_eq!(checker.check(N1, 1), Ok(()));
        checker.answer(N1, |_| true);
        assert!(checker.check(N1, 0).is_err(), "who stays does");
    }

    #[test]
    fn one_past_the_limit_is_found() {
        let mut checker = two_owed();
        checker.announced(N1, 7, Some(N2));
        let long = Violation::QueueTooLong { leader: N1, term: 3, replier: N2, owed: 3, limit: 2 };
        assert_eq!(checker.check(N1, 2), Err(long));
    }
}
