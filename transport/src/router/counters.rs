//! What a router counts.

/// What a [`Router`](super::Router) has counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RouterCounters {
    /// Packets of any kind.
    pub packets_received: u64,
    /// Requests, by their first packet to come.
    pub requests: u64,
    /// Requests for which no worker was free at first.
    pub requests_waited: u64,
    /// Requests refused because too many waited.
    pub requests_refused_full: u64,
    /// Requests refused because they had waited too long.
    pub requests_refused_old: u64,
    /// Further packets, or copies, of requests that were there already.
    pub packets_of_known: u64,
    /// How often a request had to wait although a worker was free: too many were unanswered.
    pub credits_exhausted: u64,
    /// Packets that are no R2P2.
    pub malformed: u64,
    /// Packets that are neither REQUEST nor FEEDBACK.
    pub unexpected_kind: u64,
    /// Requests that are not to be load-balanced.
    pub wrong_policy: u64,
    /// Requests from where nobody can be answered.
    pub unusable_source: u64,
    /// Requests that have been forwarded already, or whose header is too long.
    pub cannot_forward: u64,
    /// FEEDBACK from who is no worker.
    pub feedback_stranger: u64,
    /// Workers that registered, or began anew.
    pub workers_registered: u64,
    /// Workers that left.
    pub workers_left: u64,
    /// Workers of which nothing was heard any more.
    pub workers_evicted: u64,
    /// Registrations from where no worker may be.
    pub workers_not_permitted: u64,
    /// Registrations for which there was no room.
    pub workers_refused_full: u64,
}

impl RouterCounters {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            packets_received,
            requests,
            requests_waited,
            requests_refused_full,
            requests_refused_old,
            packets_of_known,
            credits_exhausted,
            malformed,
            unexpected_kind,
            wrong_policy,
            unusable_source,
            cannot_forward,
            feedback_stranger,
            workers_registered,
            workers_left,
            workers_evicted,
            workers_not_permitted,
            workers_refused_full,
        } = *self;
        [
            ("packets_received", packets_received),
            ("requests", requests),
            ("requests_waited", requests_waited),
            ("requests_refused_full", requests_refused_full),
            ("requests_refused_old", requests_refused_old),
            ("packets_of_known", packets_of_known),
            ("credits_exhausted", credits_exhausted),
            ("malformed", malformed),
            ("unexpected_kind", unexpected_kind),
            ("wrong_policy", wrong_policy),
            ("unusable_source", unusable_source),
            ("cannot_forward", cannot_forward),
            ("feedback_stranger", feedback_stranger),
            ("workers_registered", workers_registered),
            ("workers_left", workers_left),
            ("workers_evicted", workers_evicted),
            ("workers_not_permitted", workers_not_permitted),
            ("workers_refused_full", workers_refused_full),
        ]
        .into_iter()
    }
}
