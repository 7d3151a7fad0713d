//! Every scenario that is about a rule which a deliberate mistake breaks fails with that mistake: none of them passes
//! whatever the code does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hovercraft::mutation::{self, Mutation};

use crate::{aggregator, bodies, clients, leaders, messages};

const BROKEN: &[(Mutation, fn())] = &[
    (Mutation::FenceIgnored, clients::a_timed_out_write_is_fenced_by_the_next_one),
    (Mutation::PlainCopyOrdered, clients::a_rid_wraps_and_is_reused_with_another_body_and_with_the_same_body),
    (
        Mutation::NoticeBeyondVerified,
        messages::a_commit_notice_overtakes_its_append_on_a_follower_with_a_divergent_tail,
    ),
    (Mutation::AppendNotRepeated, messages::the_very_last_append_notice_or_acknowledgement_of_an_idle_system_is_lost),
    (Mutation::ReplacedBodyLost, bodies::the_only_one_with_a_body_has_its_entry_replaced),
    (Mutation::WaitingForgotten, leaders::the_leader_dies_before_it_hears_of_a_request),
    (Mutation::WaitingForgotten, leaders::unordered_requests_survive_a_change_of_leader_and_take_effect_once),
    (Mutation::TruncationSkipped, leaders::unordered_requests_survive_a_change_of_leader_and_take_effect_once),
    (Mutation::LeaderReadsLocally, leaders::an_old_leader_wakes_and_serves_nothing_stale),
    (Mutation::AggCommitUnverified, aggregator::an_agg_commit_overtakes_its_append_on_a_follower_with_a_divergent_tail),
    (Mutation::AggCommitOfAnyTerm, aggregator::an_agg_commit_comes_before_its_term),
    (Mutation::AggregatorCountsLeaderUnsynced, aggregator::the_leader_counts_when_its_disk_has_synced),
    (Mutation::AggregatorCountsLearners, aggregator::a_learner_is_not_counted),
    (Mutation::AggregatorBelowFirst, aggregator::nothing_of_an_earlier_term_is_announced),
    (Mutation::AggCommitUnchecked, aggregator::forged_figures_are_counted_and_harmless),
    (Mutation::AggregatorWaitedFor, aggregator::it_dies_and_another_is_started),
    (Mutation::AcknowledgeWithoutBody, bodies::a_body_is_lost_at_all_followers),
];

#[test]
fn a_scenario_fails_where_its_rule_is_broken() {
    for (at, (mutation, scenario)) in BROKEN.iter().enumerate() {
        mutation::set(Some(*mutation));
        let passed = catch_unwind(AssertUnwindSafe(scenario)).is_ok();
        mutation::set(None);
        assert!(!passed, "scenario {at} of the list passes in spite of {mutation}");
    }
}
