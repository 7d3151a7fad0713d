//! What an aggregator counts: all that it takes, and all that it does not, by reason.

use super::arming::Refused;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of an aggregator, since its start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Name and value of each, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams received.
    packets_received,
    /// Datagrams that are no internal message in one piece.
    packets_malformed,
    /// Internal messages that do not parse.
    messages_malformed,
    /// Internal messages in another version of the format.
    messages_other_version,
    /// Internal messages of groups that this aggregator does not serve.
    messages_other_group,
    /// Internal messages that do not concern an aggregator.
    messages_of_no_concern,
    /// Armings.
    arms_accepted,
    /// Requests to arm from an address that is no member's.
    arms_stranger,
    /// Requests to arm whose sender is no voter of the group that it names.
    arms_not_leader,
    /// Requests to arm of an earlier term, or that came late, or of a second leader of a term.
    arms_stale,
    /// Answers to leaders not given because too many waited; leaders ask again.
    answers_dropped,
    /// Appends under the arming.
    appends_seen,
    /// Appends without an arm id.
    appends_not_armed,
    /// Appends under another arm id.
    appends_other_arm,
    /// Appends that name the arming and are not from its leader.
    appends_not_leader,
    /// Acknowledgements counted.
    acks_counted,
    /// Acknowledgements without an arm id: they were meant for a leader.
    acks_not_armed,
    /// Acknowledgements under another arm id.
    acks_other_arm,
    /// Acknowledgements of another term.
    acks_other_term,
    /// Acknowledgements by members whose log has another membership.
    acks_other_epoch,
    /// Acknowledgements by somebody who is not a member, or not from its address.
    acks_stranger,
    /// Acknowledgements by another process than the leader knows.
    acks_other_life,
    /// Acknowledgements that came before the Append that they are about.
    acks_early,
    /// Acknowledgements beyond the leader's log, forgotten.
    acks_beyond_log,
    /// Commit indices announced.
    commits_announced,
    /// Other changes passed on.
    changes_forwarded,
}

impl Counters {
    pub(super) fn refuse(&mut self, refused: Refused) {
        *match refused {
            Refused::NotArmed => &mut self.acks_not_armed,
            Refused::OtherArm => &mut self.acks_other_arm,
            Refused::OtherTerm => &mut self.acks_other_term,
            Refused::OtherEpoch => &mut self.acks_other_epoch,
            Refused::Stranger => &mut self.acks_stranger,
            Refused::OtherLife => &mut self.acks_other_life,
            Refused::Early => &mut self.acks_early,
        } += 1;
    }
}
