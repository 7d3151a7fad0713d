//! What all cores of a world have counted, those that are gone too.

use std::collections::BTreeMap;

use hovercraft::Service;
use multicast::aggregator::Counters;

use super::World;
use super::host::Running;

/// Counts by name.
pub type Tally = BTreeMap<&'static str, u64>;

impl<S: Service> World<S> {
    /// The counters of all nodes, appliers, session tables and clients, added up, and the most telling of aggregators; nodes that were killed or stopped count
    /// with what they had counted until then. Names of client counters begin with `client_`.
    pub fn tally(&self) -> Tally {
        let mut tally = self.gone.clone();
        add_aggregator(&mut tally, &Counters::default());
        for running in self.hosts.iter().filter_map(|host| host.running.as_ref()) {
            add(&mut tally, running);
        }
        for client in &self.clients {
            let counters = client.core.counters();
            for (name, count) in [
                ("client_timeouts", counters.timeouts),
                ("client_sessions_opened", counters.sessions_opened),
                ("client_sessions_expired", counters.sessions_expired),
                ("client_completed_unknown", counters.completed_unknown),
                ("client_completed_expired", counters.completed_expired),
                ("client_completed_too_large", counters.completed_too_large),
                ("client_completed_reply_gone", counters.completed_reply_gone),
                ("client_completed_not_executed", counters.completed_not_executed),
            ] {
                *tally.entry(name).or_default() += count;
            }
        }
        for core in self.aggregators.iter().filter_map(|host| host.core.as_ref()) {
            add_aggregator(&mut tally, core.totals());
        }
        tally
    }
}

/// Adds what an aggregator has counted that says how it was used; it has more counters, for those who look at one.
pub(super) fn add_aggregator(tally: &mut Tally, counters: &Counters) {
    for (name, count) in [
        ("aggregator_acks_counted", counters.acks_counted),
        ("aggregator_acks_other_arm", counters.acks_other_arm),
        ("aggregator_acks_other_epoch", counters.acks_other_epoch),
        ("aggregator_acks_early", counters.acks_early),
        ("aggregator_acks_beyond_log", counters.acks_beyond_log),
        ("aggregator_arms_stale", counters.arms_stale),
        ("aggregator_commits", counters.commits_announced),
        ("aggregator_changes", counters.changes_forwarded),
    ] {
        *tally.entry(name).or_default() += count;
    }
}

/// Adds what a node has counted.
pub(super) fn add<S: Service>(tally: &mut Tally, running: &Running<S>) {
    let applier = running.applier.counters();
    let sessions = running.applier.sessions().counters();
    let more = [
        ("writes_applied", applier.writes_applied),
        ("queries", applier.queries),
        ("duplicates_at_apply", applier.duplicates),
        ("expired_at_apply", applier.expired),
        ("below_window_at_apply", applier.below_window),
        ("above_window_at_apply", applier.above_window),
        ("sessions_opened", applier.sessions_opened),
        ("sessions_expired", sessions.expired),
        ("sessions_evicted", sessions.evicted),
        ("replies_evicted", sessions.replies_evicted),
        ("answered_from_cache", applier.answered_again),
        ("replies_gone", applier.replies_gone),
        ("replies_sent", applier.replies_sent),
        ("drops_sent", applier.drops_sent),
    ];
    for (name, count) in running.node.counters().iter().chain(more) {
        *tally.entry(name).or_default() += count;
    }
}
