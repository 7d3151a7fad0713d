//! Which behaviour of the service is in force (rolling upgrades).
//!
//! Every [`crate::Service`] has a version. A group executes by the version of the latest entry of kind
//! [`Version`](crate::entry::EntryKind::Version) in its log, so all replicas change over at the same place. The first
//! leader of a group begins with its own. Later ones raise it once every member has said, in its acknowledgements, that it
//! can: a member that cannot be heard must come back or be removed first. It is never lowered. A node whose service is older
//! than what is in force stops before it executes anything of it.

use bytes::Bytes;

use r2p2::Instant;

use super::{Node, StopReason};
use crate::consensus::proposal;
use crate::entry::{ENTRY_LEN, Entry};

impl Node {
    /// The version of the service's behaviour that is in force, by the latest entry of the log; 0 before the first.
    pub fn service_version(&self) -> u32 {
        self.consensus.log().version()
    }

    /// A leader begins with its own version, and raises it as far as all members can.
    pub(super) fn advance_version(&mut self, now: Instant) {
        let log = self.consensus.log();
        let (in_force, ours) = (log.version(), self.config.service_version);
        let Some(leading) = &self.leading else { return };
        if in_force >= ours && in_force > 0
            || log.version_since() > self.consensus.commit()
            || self.consensus.is_transferring()
            || !self.persistence.is_term_safe()
            || !self.heard_quorum(now, self.config.timing.election_min())
        {
            return;
        }
        let next = if in_force == 0 || mutated!(VersionBeforeAllCan) {
            ours
        } else {
            leading.version_of_all().unwrap_or(in_force).min(ours)
        };
        if next <= in_force {
            return;
        }
        let entry = Entry::version(leading.time(now));
        let mut data = Vec::with_capacity(ENTRY_LEN + 4);
        entry.emit(&mut data);
        data.extend_from_slice(&next.to_be_bytes());
        if self.consensus.propose(vec![proposal(Bytes::from(data))]) {
            tracing::info!(node = %self.config.me.node(), from = in_force, to = next, "service version");
            self.counters.versions_proposed += 1;
            self.advance(now);
        }
    }

    /// Whether the service can do what is in force from this entry on; if not, the node stops.
    pub(super) fn can_execute(&mut self, needed: u32) -> bool {
        let has = self.config.service_version;
        if needed > has {
            self.stop(StopReason::ServiceTooOld { has, needed });
        }
        needed <= has
    }
}

/// What an entry of kind `Version` says.
pub(crate) fn parse(body: &[u8]) -> Option<u32> {
    body.try_into().ok().map(u32::from_be_bytes).filter(|version| *version > 0)
}
