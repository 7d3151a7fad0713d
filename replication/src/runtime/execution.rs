//! Where work is executed: on the network thread or on one of its own.

use std::collections::VecDeque;

use r2p2::TransmitBatch;

use super::NodeError;
use crate::applier::{Applier, ApplierCounters, Work};
use crate::id::LogIndex;
use crate::service::Service;

/// What the network thread wants from whoever executes.
pub(super) trait Execution {
    /// Takes work; to be executed in this order.
    fn push(&mut self, work: Work);

    /// Executes some of it, or passes it on. Answers that are to be sent here go to `answers`.
    fn advance(&mut self, answers: &mut TransmitBatch) -> Result<(), NodeError>;

    /// Up to where everything has been executed and answered.
    fn applied(&self) -> LogIndex;

    /// Whether another [`Execution::advance`] now would do something.
    fn unfinished(&self) -> bool;

    /// Whether the network thread may block. If so, it says when it no longer does by [`Execution::awake`].
    fn may_sleep(&self) -> bool;

    /// The network thread no longer blocks.
    fn awake(&self);

    /// Asks for a report.
    fn ask_report(&mut self);

    /// The report, once it is there.
    fn take_report(&mut self) -> Option<Report>;

    /// What is counted about the passing on, not about the executing.
    fn counters(&self) -> Vec<(String, u64)>;

    /// Ends it. What was not executed never will be.
    fn finish(self) -> Result<(), NodeError>;
}

/// The executing half of a status report.
#[derive(Clone, Default, Debug)]
pub(super) struct Report {
    pub(super) applied: LogIndex,
    /// Of the replicated state at `applied`.
    pub(super) state_hash: Option<u64>,
    pub(super) counters: Vec<(String, u64)>,
}

impl Report {
    pub(super) fn of<S: Service>(applier: &Applier<S>) -> Self {
        let counters = counters(applier.counters()).map(|(name, value)| (format!("apply.{name}"), value));
        Self { applied: applier.applied(), state_hash: applier.state_hash(), counters: counters.into() }
    }
}

fn counters(counters: &ApplierCounters) -> [(&'static str, u64); 17] {
    let ApplierCounters {
        writes_applied,
        queries,
        reads_elsewhere,
        sessions_opened,
        duplicates,
        expired,
        below_window,
        above_window,
        skipped,
        answered_again,
        nothing_to_answer,
        query_panics,
        replies_too_long,
        replies_gone,
        replies_sent,
        drops_sent,
        answers_withheld,
    } = *counters;
    [
        ("writes_applied", writes_applied),
        ("queries", queries),
        ("reads_elsewhere", reads_elsewhere),
        ("sessions_opened", sessions_opened),
        ("duplicates", duplicates),
        ("expired", expired),
        ("below_window", below_window),
        ("above_window", above_window),
        ("skipped", skipped),
        ("answered_again", answered_again),
        ("nothing_to_answer", nothing_to_answer),
        ("query_panics", query_panics),
        ("replies_too_long", replies_too_long),
        ("replies_gone", replies_gone),
        ("replies_sent", replies_sent),
        ("drops_sent", drops_sent),
        ("answers_withheld", answers_withheld),
    ]
}

/// Most work waiting for which another retransmission is still answered; beyond it the client has to ask again.
const WAITING_FOR_ANSWERS_MAX: usize = 16_384;

/// Work on its way to an applier.
///
/// Entries are bounded by the node core: it hands out what is committed, and the log keeps that until it is applied.
/// Retransmissions are bounded here.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    work: VecDeque<Work>,
    len_max: usize,
    answers_dropped: u64,
}

impl Backlog {
    pub(super) fn push(&mut self, work: Work) {
        if matches!(work, Work::Answer { .. }) && self.work.len() >= WAITING_FOR_ANSWERS_MAX {
            self.answers_dropped += 1;
            return;
        }
        self.work.push_back(work);
        self.len_max = self.len_max.max(self.work.len());
    }

    pub(super) fn pop(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Puts back what was taken last, in its order.
    pub(super) fn put_back(&mut self, work: &mut Vec<Work>) {
        for work in work.drain(..).rev() {
            self.work.push_front(work);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        vec![
            ("runtime.work_waiting".to_owned(), self.work.len() as u64),
            ("runtime.work_waiting_max".to_owned(), self.len_max as u64),
            ("runtime.answers_dropped".to_owned(), self.answers_dropped),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use r2p2::Digest;

    use super::*;
    use crate::entry::RequestHead;

    #[test]
    fn retransmissions_are_bounded_and_entries_are_not() {
        let request = RequestHead {
            client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            rid: 1,
            session: None,
            identity: Digest(1),
            body_len: 0,
        };
        let mut backlog = Backlog::default();
        for _ in 0..=WAITING_FOR_ANSWERS_MAX {
            backlog.push(Work::Answer { request });
        }
        assert_eq!((backlog.work.len(), backlog.answers_dropped), (WAITING_FOR_ANSWERS_MAX, 1));
        let committed = crate::applier::Committed {
            index: 1,
            entry: crate::entry::Entry::term_start(),
            body: bytes::Bytes::new(),
            replayed: false,
        };
        backlog.push(Work::Apply(committed));
        assert_eq!((backlog.work.len(), backlog.answers_dropped), (WAITING_FOR_ANSWERS_MAX + 1, 1));
    }
}
