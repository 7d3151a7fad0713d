//! Schedules written out: each was found by looking for a way to lose, double or stall something.
//!
//! The first column is a schedule in brackets of protocol.md, or what else could go wrong; the last says which file of
//! this folder, or of the one around it, has the test. With the feature `mutations` the tests in `broken.rs` see each of
//! them fail where the rule that it is about is broken.
//!
//! | § | schedule | test |
//! |---|---|---|
//! | 1, 3.3 | a rid that wraps and is reused, with another body and with the same | `clients::a_rid_wraps_and_is_reused_with_another_body_and_with_the_same_body` |
//! | 3.2 | a read answered again by another replica at a later index must not fill the gaps of the first answer | `clients::a_read_answered_again_while_fragments_of_the_first_answer_arrive` |
//! | 3.2 | a second ACK aborts the C client | `normal_path.rs: a_plain_request_of_several_packets_is_acknowledged_once_by_the_leader` |
//! | 3.3 | 7 overtakes 6 | `clients::seven_overtakes_six` |
//! | 3.3 | a timed-out SET 1 executed after SET 2 | `clients::a_timed_out_write_is_fenced_by_the_next_one` |
//! | 3.3 | an expired client retransmits an increment | `clients::an_expired_client_retransmits_an_increment` |
//! | 3.3 | a new leader one hour ahead expires everybody | `clients::a_new_leader_one_hour_ahead_expires_nobody` |
//! | 5.4 | the very last Append, notice or acknowledgement of an idle system is lost | `messages::the_very_last_append_notice_or_acknowledgement_of_an_idle_system_is_lost` |
//! | 5.5 | a report per reply doubles the datagrams of a busy group | `messages::a_busy_group_reports_with_its_acknowledgements` |
//! | 5.7, 7.8 | the replier crashes between commit and reply | `clients::a_replier_crashes_between_commit_and_reply` |
//! | 6.6 | a commit notice overtakes its Append on a follower with a divergent tail | `messages::a_commit_notice_overtakes_its_append_on_a_follower_with_a_divergent_tail` |
//! | 6.12 | garbage, damaged and spoofed messages | `strangers` |
//! | 7.1 | bodies lost at all followers | `bodies::a_body_is_lost_at_all_followers` |
//! | 7.1 | bodies that died with their leader hold all places in flight | `findings.rs: bodies_that_died_with_their_leader_do_not_block_later_ones` |
//! | 7.1 | overload: bodies expire on followers while still queued at the leader | `bodies::overload_lasts_longer_than_followers_keep_bodies` |
//! | 7.1 | a leader deaf to client multicast | `leaders::a_leader_is_deaf_to_client_multicast` |
//! | 7.3 | what waits when the leader dies | `leaders::the_leader_dies_before_it_hears_of_a_request` |
//! | 7.3 | requests that survive a change of leader are doubled | `leaders::unordered_requests_survive_a_change_of_leader_and_take_effect_once` |
//! | 7.3 | the body of a truncated entry is gone everywhere | `bodies::the_only_one_with_a_body_has_its_entry_replaced` |
//! | 7.5 | it votes twice in one term | `leaders::a_node_forgets_its_vote_and_comes_back`, with a disk `durability.rs: a_vote_survives_a_crash` |
//! | 7.5 | the file was on a disk that is gone | `normal_path.rs: a_restarted_memory_node_is_refused_with_an_explanation`, `durability.rs: a_replaced_disk_is_refused` |
//! | 7.5 | two nodes with the same id | `strangers::two_nodes_with_the_same_id` |
//! | 7.4, 7.6 | a learner catches up by the log and becomes a voter | `members::a_learner_catches_up_by_the_log_and_becomes_a_voter` |
//! | 7.4, 7.6 | the log of a newcomer names only nodes that are gone | `members::a_newcomer_asks_those_who_are_there` |
//! | 7.5 | a node that has forgotten everything comes back as somebody else | `members::a_forgetful_node_comes_back_as_somebody_else`, `members::a_forgetful_leader_and_a_replaced_disk_come_back` |
//! | 7.5 | a majority has forgotten everything | `members::a_majority_that_has_forgotten_decides_nothing` |
//! | 7.6 | a learner counts | `members::a_learner_does_not_count` |
//! | 7.6 | a removed node, which knows or does not know it, disturbs | `members::a_follower_is_removed_and_told_so`, `members::a_node_removed_in_its_absence_does_not_disturb` |
//! | 7.6 | a leader is removed | `members::a_leader_is_removed_and_hands_over_first` |
//! | 7.6 | a dead node is replaced | `members::a_dead_node_is_removed_and_another_takes_its_place` |
//! | 7.6 | all nodes are replaced under load | `members::all_nodes_are_replaced_under_load` |
//! | 7.6 | from one node to five and back | `members::a_group_grows_and_shrinks` |
//! | 7.6 | the last voter, no quorum, nobody, an address in use, a change under way | `members::refusals`, `members::a_removal_that_would_leave_no_majority_is_refused` |
//! | 7.6 | the leader dies at any step of a change | `members::the_leader_dies_at_any_step_of_a_change`, `members::another_leader_ends_a_change_or_it_never_was` |
//! | 7.6 | a voter that is leaving is elected | `members::a_leaving_node_leads_and_hands_over` |
//! | 7.6 | the entry of a change is replaced by another leader's | `members::a_change_is_taken_back` |
//! | 7.6 | a node restarts with a change in its log that is not committed | `members::a_restarted_node_counts_by_what_its_log_says_last` |
//! | 7.6 | a node was removed while it slept, and the only one who can tell it is a stranger | `members::a_removed_node_is_told_by_a_stranger` |
//! | 7.6 | while a node slept all others were replaced, or one by its next incarnation | `members::a_node_that_slept_finds_its_group_among_strangers`, `members::a_node_that_slept_listens_to_the_next_incarnation_of_a_peer` |
//! | 7.6 | clients that know of the first nodes only, while all are replaced under load | `following::clients_go_where_the_group_goes` |
//! | 7.6 | a client was away while nodes were replaced, and the one it still knows does not lead | `following::a_client_that_was_away_finds_the_group_by_one_node` |
//! | 7.6 | who names a newer epoch is gone before it can be asked for the members | `following::who_names_the_epoch_dies_before_it_is_asked` |
//! | 7.4, 7.6 | a node begins from a snapshot and has not executed who the members are | `following::who_begins_from_a_snapshot_names_its_epoch` |
//! | 7.7 | a leader that hangs would hand over to a learner | `members::a_leader_that_hangs_hands_over_to_a_voter` |
//! | 7.7 | an old leader wakes from a pause | `leaders::an_old_leader_wakes_and_serves_nothing_stale` |
//! | 7.7 | heartbeats that bring back no acknowledgement keep a leader from being elected that has a quorum | `leaders::a_leader_that_hears_nobody_is_replaced` |
//! | 6.6 | an AggCommit overtakes its Append on a follower with a divergent tail, or comes before its term | `aggregator::an_agg_commit_overtakes_its_append_on_a_follower_with_a_divergent_tail`, `aggregator::an_agg_commit_comes_before_its_term` |
//! | 6.7 | the aggregator counts the leader and one follower, and the leader loses power before its sync | `aggregator::the_leader_counts_when_its_disk_has_synced` |
//! | 6.7 | it counts a learner, or announces what is of an earlier term | `aggregator::a_learner_is_not_counted`, `aggregator::nothing_of_an_earlier_term_is_announced` |
//! | 8 | the aggregator dies, is restarted, is there twice, comes back from long ago, is cut off | `aggregator` |

mod aggregator;
mod bodies;
#[cfg(feature = "mutations")]
mod broken;
mod clients;
mod following;
mod leaders;
mod members;
mod messages;
mod strangers;
