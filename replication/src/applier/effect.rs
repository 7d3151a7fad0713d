//! What became of a piece of work.

/// What became of a piece of work. For an entry it is the same on every replica, but for
/// [`Queried`](Self::Queried) and [`ReadElsewhere`](Self::ReadElsewhere) (and [`Skipped`](Self::Skipped) of a read).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The first entry of a term, which does nothing.
    TermStart,
    /// Says who belongs to the group; of no concern to the service.
    Membership,
    /// Says which version of the service's behaviour is in force.
    Version,
    /// A session was opened.
    SessionOpened,
    /// A write was executed.
    Wrote,
    /// A read was executed.
    Queried,
    /// A read is executed by another node.
    ReadElsewhere,
    /// A write had been executed before.
    Duplicate,
    /// The request's session is over, or never was; not executed.
    Expired,
    /// The client has been answered or has given up; not executed.
    BelowWindow,
    /// The request is too far ahead of what its client waits for; not executed.
    AboveWindow,
    /// The configuration says not to execute the entry.
    Skipped,
    /// A retransmission was answered.
    AnsweredAgain,
    /// There is no answer to a retransmission: the write has not been executed, or nobody waits for it.
    NothingToAnswer,
}

/// What an applier has done since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ApplierCounters {
    /// Writes executed.
    pub writes_applied: u64,
    /// Reads executed here.
    pub queries: u64,
    /// Reads left to another node.
    pub reads_elsewhere: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Entries whose write had been executed before.
    pub duplicates: u64,
    /// Entries of a session that is over.
    pub expired: u64,
    /// Entries that their client no longer waits for.
    pub below_window: u64,
    /// Entries too far ahead of what their client waits for.
    pub above_window: u64,
    /// Entries not executed by decision of the operator.
    pub skipped: u64,
    /// Retransmissions answered from the session table.
    pub answered_again: u64,
    /// Retransmissions that there was no answer to.
    pub nothing_to_answer: u64,
    /// Queries that panicked.
    pub query_panics: u64,
    /// Replies longer than `reply_max`.
    pub replies_too_long: u64,
    /// Answers that said EXECUTED, REPLY GONE.
    pub replies_gone: u64,
    /// Answers sent, of any number of packets.
    pub replies_sent: u64,
    /// DROPs sent in place of an answer.
    pub drops_sent: u64,
    /// Answers that only a client with a session could have read.
    pub answers_withheld: u64,
}

impl ApplierCounters {
    pub(super) fn count(&mut self, effect: Effect) {
        let counter = match effect {
            Effect::TermStart | Effect::Membership | Effect::Version => return,
            Effect::SessionOpened => &mut self.sessions_opened,
            Effect::Wrote => &mut self.writes_applied,
            Effect::Queried => &mut self.queries,
            Effect::ReadElsewhere => &mut self.reads_elsewhere,
            Effect::Duplicate => &mut self.duplicates,
            Effect::Expired => &mut self.expired,
            Effect::BelowWindow => &mut self.below_window,
            Effect::AboveWindow => &mut self.above_window,
            Effect::Skipped => &mut self.skipped,
            Effect::AnsweredAgain => &mut self.answered_again,
            Effect::NothingToAnswer => &mut self.nothing_to_answer,
        };
        *counter += 1;
    }
}
