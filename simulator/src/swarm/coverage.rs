//! What a run should reach now and then: a swarm that never sees something proves nothing about it.

/// Names of what there is to reach, and the counter of [`Report::tally`](super::Report::tally) that says how often it
/// was.
pub const STATES: &[(&str, &str)] = &[
    ("elections won", "elections_won"),
    ("changes of term or role", "role_changes"),
    ("memberships proposed", "memberships_proposed"),
    ("entries replaced by another leader's", "entries_replaced"),
    ("entries committed early", "commits_early"),
    ("aggregators armed", "armings"),
    ("AggCommits taken", "agg_commits_received"),
    ("AggCommits that did not come in time", "agg_commits_missed"),
    ("AggCommits under another arm id", "agg_commits_other_arm"),
    ("AggCommits of another term", "agg_commits_other_term"),
    ("AggCommits of another epoch", "agg_commits_other_epoch"),
    ("aggregators disarmed for a change of members", "disarmed_members"),
    ("leaders that told what they have persisted", "persisted_told"),
    ("acknowledgements folded", "acks_folded"),
    ("acknowledgements under another arm id", "aggregator_acks_other_arm"),
    ("acknowledgements of another epoch", "aggregator_acks_other_epoch"),
    ("acknowledgements before their Append", "aggregator_acks_early"),
    ("armings asked for too late", "aggregator_arms_stale"),
    ("appends repeated", "appends_repeated"),
    ("appends rejected", "appends_rejected"),
    ("appends held back", "appends_held"),
    ("bodies missing", "bodies_missing"),
    ("bodies fetched", "bodies_fetched"),
    ("bodies asked for that are not there", "bodies_not_here"),
    ("hints received", "hints_received"),
    ("leaderships handed over by a deaf leader", "transfers_deaf"),
    ("leaderships handed over by one that hangs", "transfers_stuck"),
    ("snapshots taken", "snapshots_taken"),
    ("snapshots not taken or received for lack of room", "snapshots_without_room"),
    ("snapshots received", "snapshots_received"),
    ("snapshots put in place of an old log", "snapshots_installed"),
    ("snapshots half received and given up", "transfers_abandoned"),
    ("snapshots asked for elsewhere", "sources_changed"),
    ("ordering waited", "ordering_waited"),
    ("requests refused: the unordered set is full", "requests_refused_full"),
    ("requests refused: too old", "requests_refused_old"),
    ("requests refused: too long", "requests_too_long"),
    ("writes executed", "writes_applied"),
    ("reads executed", "queries"),
    ("duplicates found at apply", "duplicates_at_apply"),
    ("writes answered from the cache", "answered_from_cache"),
    ("reads ordered again", "reads_ordered_again"),
    ("sessions opened", "sessions_opened"),
    ("sessions expired", "sessions_expired"),
    ("sessions evicted", "sessions_evicted"),
    ("operations of an expired session", "client_completed_expired"),
    ("cached replies evicted", "replies_evicted"),
    ("operations whose reply was gone", "client_completed_reply_gone"),
    ("operations of unknown outcome", "client_completed_unknown"),
    ("late copies fenced off", "below_window_at_apply"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm;

    #[test]
    fn every_state_is_counted() {
        let report = swarm::run(swarm::seed_of(1, 1));
        for (name, counter) in STATES {
            assert!(report.tally.contains_key(counter), "{name}: nobody counts {counter}");
        }
    }
}
