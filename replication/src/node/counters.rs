//! What a node counts: everything it refuses or repeats, and what it did.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a node core, since its start.
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
    /// Requests taken into the unordered set.
    requests_received,
    /// Copies of requests that are here or in the log already.
    requests_duplicate,
    /// Retransmissions of executed writes, answered from the session's cache.
    requests_answered_again,
    /// Retransmissions of executed reads, ordered again.
    reads_ordered_again,
    /// Requests longer than the limit.
    requests_too_long,
    /// Requests with a session or seq that nobody was given.
    requests_bad_session,
    /// Requests refused because the unordered set was full.
    requests_refused_full,
    /// Requests dropped by the leader because they had waited too long to be ordered.
    requests_refused_old,
    /// Requests a follower ignored because in this mode only the leader takes them.
    requests_not_leader,
    /// Plain multi-packet requests by group that this node would not acknowledge.
    handshakes_ignored,
    /// Commands about the node or the group that this version does not understand.
    admin_not_understood,
    /// Bodies that nobody ordered in time.
    unordered_expired,
    /// Requests ordered, as leader.
    requests_ordered,
    /// Requests ordered, as leader, because a follower hinted at them.
    requests_ordered_by_hint,
    /// Times ordering waited because no node was eligible as replier, or the window was full.
    ordering_waited,
    /// Proposals the crate dropped.
    proposals_dropped,
    /// Batches proposed.
    batches_proposed,
    /// Entries this node is the replier of.
    replies_assigned,
    /// Appends sent to everybody at once.
    appends_shared,
    /// Appends sent to one node: probes, catching up, repetitions.
    appends_unicast,
    /// Appends repeated because an acknowledgement did not come in time.
    appends_repeated,
    /// Appends received.
    appends_received,
    /// Appends this node could not fit to its log.
    appends_rejected,
    /// Appends held back for an earlier one or for a body.
    appends_held,
    /// Appends dropped because too many were held back.
    appends_held_full,
    /// Appends not taken because the log is full of entries that are not executed yet.
    appends_refused_full,
    /// Acknowledgements sent.
    acks_sent,
    /// Acknowledgements received.
    acks_received,
    /// Acknowledgements sent to the aggregator.
    acks_folded,
    /// Acknowledgements beyond the leader's own log, ignored.
    acks_inflated,
    /// Commit notices sent.
    notices_sent,
    /// Requests to the aggregator to fold acknowledgements.
    arms_sent,
    /// Such requests that were not answered in time.
    arms_unanswered,
    /// Armings: answers to these.
    armings,
    /// Such answers that come too late, or to nobody.
    armed_unexpected,
    /// Times a leader went on without the aggregator because the membership changes, or a member was heard for the first time.
    disarmed_members,
    /// Times it did because the aggregator did not say in time what a majority has.
    agg_commits_missed,
    /// AggCommits taken.
    agg_commits_received,
    /// AggCommits of another term.
    agg_commits_other_term,
    /// AggCommits under another arm id than the leader's.
    agg_commits_other_arm,
    /// AggCommits by another membership than that of this node's log.
    agg_commits_other_epoch,
    /// Figures in AggCommits that go beyond the leader's own log, ignored.
    agg_figures_inflated,
    /// Times a leader told the aggregator what it has persisted without an Append.
    persisted_told,
    /// Heartbeats sent.
    heartbeats_sent,
    /// Bodies found missing when their entry came.
    bodies_missing,
    /// Fetch messages sent.
    fetches_sent,
    /// Bodies received by Fetch.
    bodies_fetched,
    /// Bodies given to others.
    bodies_given,
    /// Bodies others asked for that are not here.
    bodies_not_here,
    /// Bodies received that are not what was asked for.
    bodies_unwanted,
    /// Missing bodies not asked for because too many are.
    fetches_refused_full,
    /// Hints sent.
    hints_sent,
    /// Hints received as leader.
    hints_received,
    /// Batches handed out to be persisted.
    batches_persisted,
    /// Votes and requests for votes not sent because too many wait for the disk.
    promises_dropped,
    /// Entries committed without a notice, because this node and the leader hold them (§5.6).
    commits_early,
    /// Entries replaced by another leader's.
    entries_replaced,
    /// Snapshots taken.
    snapshots_taken,
    /// Snapshots that were not taken, or not received, for lack of room.
    snapshots_without_room,
    /// Snapshots received, whole and checked.
    snapshots_received,
    /// Snapshots received that told nothing new.
    snapshots_not_needed,
    /// Snapshots that took the place of what this node had.
    snapshots_installed,
    /// Followers told that they need a snapshot.
    behinds_sent,
    /// Followers that say they have everything up to an entry which is another one here.
    installs_disbelieved,
    /// Chunks of snapshots given to others.
    chunks_given,
    /// Times others asked for more chunks than are read at once.
    chunks_refused_full,
    /// Chunks asked for, each time.
    chunks_asked,
    /// Chunks received.
    chunks_received,
    /// Chunks that did not come in time.
    chunks_lost,
    /// Chunks received that are damaged, or do not fit.
    chunks_damaged,
    /// Chunks received that nobody asked for, or of another snapshot.
    chunks_unwanted,
    /// Times a snapshot was asked for from somebody else.
    sources_changed,
    /// Snapshots half received and given up.
    transfers_abandoned,
    /// Times this node changed term or role.
    role_changes,
    /// Elections won.
    elections_won,
    /// Times leadership was handed over because client multicast does not reach this node.
    transfers_deaf,
    /// Times leadership was handed over because this node's disk or service hangs.
    transfers_stuck,
    /// Internal datagrams received.
    peer_packets_received,
    /// Internal datagrams that are not R2P2, or of the wrong type.
    peer_packets_malformed,
    /// Internal messages of several datagrams that never became whole.
    peer_messages_incomplete,
    /// Internal messages that do not parse.
    peer_messages_malformed,
    /// Internal messages in another version of the format: programs that cannot work together.
    peer_messages_other_version,
    /// Internal messages for another group.
    peer_messages_other_group,
    /// Internal messages from somebody who is not a member, or not from its address.
    peer_messages_stranger,
    /// Internal messages for somebody whose address is not known.
    peer_messages_nowhere,
    /// Memberships proposed by this leader.
    memberships_proposed,
    /// How often this node went on alone because it was told to.
    recoveries,
    /// Versions of the service proposed by this leader.
    versions_proposed,
    /// Internal messages from a second process under a known identity.
    peer_messages_other_life,
    /// Internal messages that make no sense in this state.
    peer_messages_unexpected,
}
