//! Once an entry of a session has said that its client waits for nothing below a seq, nothing below it takes effect any
//! more: a late copy of an operation that the client has given up must not undo what the client did since
//! (protocol.md §3.3).

use std::collections::BTreeMap;

use hovercraft::LogIndex;
use hovercraft::applier::Effect;
use hovercraft::entry::Entry;

use super::{Result, Violation};

/// The first seq of every session that its client may still wait for, at the end of what any node has executed.
#[derive(Debug, Default)]
pub struct Fence {
    executed: LogIndex,
    first_unacked: BTreeMap<u64, u64>,
}

impl Fence {
    /// A node has executed an entry, with this effect. Only the first node to get there counts: that the others come to
    /// the same is [`super::at_most_once`]'s business.
    ///
    /// # Errors
    /// It took effect although its session had fenced it off.
    pub fn applied(&mut self, index: LogIndex, entry: &Entry, effect: Effect) -> Result {
        if index <= self.executed {
            return Ok(());
        }
        self.executed = index;
        let Some(session) = entry.request.session else { return Ok(()) };
        if !matches!(effect, Effect::Wrote | Effect::Queried | Effect::ReadElsewhere) {
            return Ok(());
        }
        let (client, seq) = (session.client, session.seq);
        let first_unacked = self.first_unacked.entry(client).or_default();
        *first_unacked = session.first_unacked.max(*first_unacked);
        let first_unacked = *first_unacked;
        if seq < first_unacked { Err(Violation::Fenced { client, seq, first_unacked, index }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use r2p2::wire::Session;

    use super::super::samples::write;
    use super::*;

    fn saying(first_unacked: u64, seq: u64) -> Entry {
        let mut entry = write(seq);
        entry.request.session = Some(Session { client: 5, seq, first_unacked });
        entry
    }

    #[test]
    fn at_the_fence_and_what_is_fenced_off_in_vain_is_fine() {
        let mut checker = Fence::default();
        assert_eq!(checker.applied(1, &saying(1, 2), Effect::Wrote), Ok(()));
        assert_eq!(checker.applied(2, &saying(0, 1), Effect::Wrote), Ok(()));
        assert_eq!(checker.applied(3, &saying(2, 3), Effect::Wrote), Ok(()));
        assert_eq!(checker.applied(4, &saying(0, 1), Effect::BelowWindow), Ok(()));
        assert_eq!(checker.applied(1, &saying(1, 1), Effect::Wrote), Ok(()), "a slower node");
    }

    #[test]
    fn an_effect_below_the_fence_is_found() {
        let mut checker = Fence::default();
        assert_eq!(checker.applied(1, &saying(2, 3), Effect::Wrote), Ok(()));
        let fenced = Violation::Fenced { client: 5, seq: 1, first_unacked: 2, index: 2 };
        assert_eq!(checker.applied(2, &saying(0, 1), Effect::Wrote), Err(fenced));
    }
}
