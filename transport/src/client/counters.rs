//! What a client counts.

use crate::reassembly::Reject;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything a [`Client`](super::Client) counts; all of it only grows.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct ClientCounters {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets refused, by [`Reject::index`].
            pub rejected: [u64; Reject::COUNT],
        }

        impl Default for ClientCounters {
            fn default() -> Self {
                Self { $($name: 0,)* rejected: [0; Reject::COUNT] }
            }
        }

        impl ClientCounters {
            /// Every counter with its name, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name),)*]
                    .into_iter()
                    .chain(self.rejected.iter().enumerate().map(|(i, count)| (Reject::name(i), *count)))
            }
        }
    };
}

counters! {
    /// Operations and admin requests accepted.
    submitted,
    /// Submissions refused because `held_max`, `admin_max` or the queue of completions was full.
    refused_full,
    /// Submissions refused because of `request_max`.
    refused_too_large,
    /// Ended in `Ok`.
    completed_ok,
    /// Ended in `NotExecuted`.
    completed_not_executed,
    /// Ended in `Unknown`.
    completed_unknown,
    /// Ended in `Expired`.
    completed_expired,
    /// Ended in `TooLarge`.
    completed_too_large,
    /// Ended in `ReplyGone`.
    completed_reply_gone,
    /// Ended in `ServiceError`.
    completed_service_error,
    /// Sessions opened.
    sessions_opened,
    /// Sessions replaced because they had been idle.
    sessions_idle,
    /// Sessions replaced because the servers no longer knew them.
    sessions_expired,
    /// Waits for an answer that were in vain.
    timeouts,
    /// Copies sent beyond an operation's first.
    retransmissions,
    /// Changes of the set of nodes.
    nodes_changed,
    /// Copies sent at once because the set of nodes had changed; they count as retransmissions too.
    redirected,
    /// Copies not sent because `transmits_max` packets were waiting for the shell.
    retransmissions_skipped,
    /// Packets handed to the shell.
    packets_sent,
    /// Packets handed in, whatever they were.
    packets_received,
    /// DROPs that made an operation back off or end.
    drops,
    /// DROPs for nothing in flight, or repeating one.
    drops_ignored,
    /// NOT LEADER replies that sent an operation back to the group.
    not_leader,
    /// NOT LEADER replies to an operation that the group has, and that waits for the leader's answer.
    not_leader_ignored,
    /// ACKs that let the rest of a request follow.
    acks,
    /// ACKs for nothing that waits for one.
    acks_ignored,
    /// Packets of answers to operations that have ended: a second replica's, a second copy's, or too late.
    responses_late,
    /// Packets of answers to a rid that was never used.
    responses_unknown,
    /// Packets of answers whose rid is in flight, but for another operation, or with a status that makes no sense.
    responses_mismatched,
    /// Packets of a kind no client should receive.
    unexpected_kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let counters = ClientCounters::default();
        let names: std::collections::BTreeSet<_> = counters.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), counters.iter().count());
    }
}
