//! Each (client, seq) takes effect at most once, and an entry comes to the same on every replica (protocol.md §6.8).

use std::collections::BTreeMap;

use hovercraft::applier::Effect;
use hovercraft::entry::Entry;
use hovercraft::{LogIndex, NodeId};

use super::recent::Recent;
use super::{HISTORY_MAX, Result, Violation, bound};

/// What took effect where.
#[derive(Debug, Default)]
pub struct AtMostOnce {
    effects: BTreeMap<LogIndex, Effect>,
    written: Recent<(u64, u64), LogIndex, HISTORY_MAX>,
}

impl AtMostOnce {
    /// A node has executed an entry, with this effect.
    ///
    /// # Errors
    /// Its write took effect at another index before, or another node's effect was another.
    pub fn applied(&mut self, node: NodeId, index: LogIndex, entry: &Entry, effect: Effect) -> Result {
        if effect == Effect::Wrote
            && let Some(session) = entry.request.session
        {
            let (client, seq) = (session.client, session.seq);
            let first = *self.written.get_or_insert_with((client, seq), || index);
            if first != index {
                return Err(Violation::TwiceExecuted { node, client, seq, first, second: index });
            }
        }
        // Which node answers a read is the only thing that may differ.
        let found = if effect == Effect::Queried { Effect::ReadElsewhere } else { effect };
        let known = *self.effects.entry(index).or_insert(found);
        bound(&mut self.effects);
        if known == found { Ok(()) } else { Err(Violation::EffectsDiffer { node, index, found, known }) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, N2, write};
    use super::*;

    #[test]
    fn once_on_every_node_is_fine() {
        let mut checker = AtMostOnce::default();
        for node in [N1, N2] {
            assert_eq!(checker.applied(node, 1, &write(1), Effect::Wrote), Ok(()));
            assert_eq!(checker.applied(node, 2, &write(1), Effect::Duplicate), Ok(()));
            assert_eq!(checker.applied(node, 3, &write(2), Effect::Wrote), Ok(()));
        }
        assert_eq!(checker.applied(N1, 4, &write(3), Effect::Queried), Ok(()));
        assert_eq!(checker.applied(N2, 4, &write(3), Effect::ReadElsewhere), Ok(()));
    }

    #[test]
    fn twice_is_found_on_one_node_and_across_nodes() {
        for node in [N1, N2] {
            let mut checker = AtMostOnce::default();
            assert_eq!(checker.applied(N1, 1, &write(1), Effect::Wrote), Ok(()));
            let twice = Violation::TwiceExecuted { node, client: 5, seq: 1, first: 1, second: 2 };
            assert_eq!(checker.applied(node, 2, &write(1), Effect::Wrote), Err(twice));
        }
    }

    #[test]
    fn another_effect_elsewhere_is_found() {
        let mut checker = AtMostOnce::default();
        assert_eq!(checker.applied(N1, 1, &write(1), Effect::Wrote), Ok(()));
        let (found, known) = (Effect::Expired, Effect::Wrote);
        let differ = Violation::EffectsDiffer { node: N2, index: 1, found, known };
        assert_eq!(checker.applied(N2, 1, &write(1), Effect::Expired), Err(differ));
    }
}
