//! What may be done without taking more than the cluster promises to survive.
//!
//! A node that has lost what it knew (killed in memory mode, or its data removed) is *lost* until it votes again as somebody
//! new. Of those who vote, fewer than half may be lost at any time; otherwise acknowledged writes may be gone, and rightly so.
//! Nodes that are down but keep their data, paused or cut off never endanger anything: only how long operations take.

/// How the cluster is just now, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Those who vote; while a change is under way, in the smaller of its two halves.
    pub voters: usize,
    /// Removals that were asked for and may take effect any moment.
    pub leaving: usize,
    /// Those of them that are lost.
    pub lost: usize,
}

impl View {
    /// Whether one more may lose what it knows.
    pub fn may_lose_one(self) -> bool {
        let voters = self.voters.saturating_sub(self.leaving);
        2 * (self.lost + 1) < voters
    }

    /// Whether a member may be asked to leave, such that a majority of the others has what it needs.
    pub fn may_remove_one(self) -> bool {
        let voters = self.voters.saturating_sub(self.leaving + 1);
        voters >= 3 && 2 * self.lost < voters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(voters: usize, leaving: usize, lost: usize) -> View {
        View { voters, leaving, lost }
    }

    #[test]
    fn a_minority_may_be_lost() {
        for (voters, most) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (7, 3)] {
            for lost in 0..voters {
                assert_eq!(view(voters, 0, lost).may_lose_one(), lost < most, "{lost} of {voters}");
            }
        }
    }

    #[test]
    fn who_may_leave_any_moment_does_not_count() {
        assert!(view(5, 0, 1).may_lose_one());
        assert!(!view(5, 1, 1).may_lose_one());
        assert!(!view(3, 1, 0).may_lose_one());
    }

    #[test]
    fn three_stay() {
        assert!(view(4, 0, 1).may_remove_one());
        assert!(!view(3, 0, 0).may_remove_one());
        assert!(!view(4, 1, 0).may_remove_one());
        assert!(!view(4, 0, 2).may_remove_one());
    }
}
