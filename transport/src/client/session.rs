//! One session: which seqs have been used, and which of them have ended.

use std::collections::VecDeque;

use crate::Instant;
use crate::wire;

/// A session that the servers have opened.
#[derive(Debug)]
pub(super) struct Session {
    client: u64,
    first_unacked: u64,
    /// For each seq from `first_unacked` on: whether it has ended. Never longer than the window, and the first, if
    /// any, is `false`.
    ended: VecDeque<bool>,
    outstanding: usize,
    /// The latest time at which the session is known to have been in use on the servers: they ordered something of it
    /// no earlier than this.
    used: Instant,
}

impl Session {
    /// The session `client`, asked for at `asked`.
    pub(super) const fn new(client: u64, asked: Instant) -> Self {
        Self { client, first_unacked: 1, ended: VecDeque::new(), outstanding: 0, used: asked }
    }

    /// Operations that have a seq and have not ended.
    pub(super) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether the next seq lies below first-unacknowledged + `window`.
    pub(super) fn has_room(&self, window: u64) -> bool {
        (self.ended.len() as u64) < window
    }

    /// Takes the next seq. The caller has checked [`has_room`](Self::has_room).
    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.first_unacked + self.ended.len() as u64;
        self.ended.push_back(false);
        self.outstanding += 1;
        seq
    }

    /// The operation `seq` has ended, answered or given up.
    pub(super) fn end(&mut self, seq: u64) {
        let flag = seq
            .checked_sub(self.first_unacked)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| self.ended.get_mut(offset));
        let Some(flag) = flag else {
            debug_assert!(false, "seq {seq} ended but is not outstanding");
            return;
        };
        debug_assert!(!*flag, "seq {seq} ended twice");
        *flag = true;
        self.outstanding -= 1;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.first_unacked += 1;
        }
    }

    /// The servers answered a request of this session that was first sent at `sent`.
    pub(super) fn answered(&mut self, sent: Instant) {
        self.used = self.used.max(sent);
    }

    /// The latest time at which the servers are known to have used the session.
    pub(super) const fn used(&self) -> Instant {
        self.used
    }

    /// Whether this seq has ever been taken.
    pub(super) fn has_taken(&self, seq: u64) -> bool {
        seq >= 1 && seq < self.first_unacked + self.ended.len() as u64
    }

    /// What every packet of operation `seq` carries.
    pub(super) const fn extension(&self, seq: u64) -> wire::Session {
        wire::Session { client: self.client, seq, first_unacked: self.first_unacked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqs_start_at_one_and_count_up() {
        let mut session = Session::new(9, Instant::ZERO);
        assert_eq!((session.take_seq(), session.take_seq(), session.take_seq()), (1, 2, 3));
        assert_eq!(session.outstanding(), 3);
        assert_eq!(session.extension(2), wire::Session { client: 9, seq: 2, first_unacked: 1 });
    }

    #[test]
    fn first_unacked_is_the_lowest_seq_that_has_not_ended() {
        let mut session = Session::new(9, Instant::ZERO);
        for _ in 0..3 {
            session.take_seq();
        }
        session.end(2);
        assert_eq!(session.extension(3).first_unacked, 1);
        session.end(1);
        assert_eq!(session.extension(3).first_unacked, 3);
        session.end(3);
        assert_eq!(session.outstanding(), 0);
        assert_eq!(session.take_seq(), 4);
        assert_eq!(session.extension(4).first_unacked, 4);
    }

    #[test]
    fn the_window_counts_from_the_first_unacked() {
        let mut session = Session::new(9, Instant::ZERO);
        for _ in 0..4 {
            assert!(session.has_room(4));
            session.take_seq();
        }
        assert!(!session.has_room(4));
        session.end(3);
        assert!(!session.has_room(4), "1 still holds the window");
        session.end(1);
        assert!(session.has_room(4));
        assert_eq!(session.take_seq(), 5);
        assert!(!session.has_room(4));
        assert!(session.has_taken(5) && session.has_taken(1) && !session.has_taken(6) && !session.has_taken(0));
    }

    #[test]
    fn use_is_the_latest_answered_sending() {
        let mut session = Session::new(9, Instant::from_nanos(5));
        session.answered(Instant::from_nanos(9));
        session.answered(Instant::from_nanos(7));
        assert_eq!(session.used(), Instant::from_nanos(9));
    }
}
