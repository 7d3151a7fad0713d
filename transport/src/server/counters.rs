//! What a server counts.

use crate::reassembly::Reject;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything a [`Server`](super::Server) counts; all of it only grows.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct ServerCounters {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets refused, by [`Reject::index`].
            pub rejected: [u64; Reject::COUNT],
        }

        impl Default for ServerCounters {
            fn default() -> Self {
                Self { $($name: 0,)* rejected: [0; Reject::COUNT] }
            }
        }

        impl ServerCounters {
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
    /// Packets handed in, whatever they were.
    packets_received,
    /// Complete requests made events.
    requests,
    /// FEEDBACKs made events.
    feedbacks,
    /// Requests refused for their length.
    requests_too_long,
    /// First packets that came by group and wait for the driver to acknowledge them, made events.
    handshakes,
    /// First packets that came by group while this server does not acknowledge.
    handshakes_ignored,
    /// First packets that came again right after they were acknowledged.
    handshakes_repeated,
    /// ACKs sent.
    acknowledged,
    /// Packets of a kind no server should receive.
    unexpected_kind,
    /// Forwarded packets from nobody who may forward.
    unknown_forwarder,
    /// Packets from an address to which nothing can be sent: port 0, no address, or many hosts'.
    unusable_source,
    /// Events dropped because of `events_max` or `events_bytes_max`.
    events_full,
    /// Packets dropped because of `transmits_max`.
    transmits_full,
    /// Requests of which some packets never came.
    incomplete_expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let counters = ServerCounters::default();
        let names: std::collections::BTreeSet<_> = counters.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), counters.iter().count());
    }
}
