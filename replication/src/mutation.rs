//! Deliberate mistakes, to see that the simulator finds them. Test-only: exists with the cargo feature `mutations`
//! alone, which no build enables by itself; without it not a byte of this is compiled.
//!
//! A mutation is one small mistake at one place of the real code, where `mutated!(Name)` asks whether it is to be made.
//! Which one is active is a property of the thread, so that worlds in several threads do not disturb each other.
//! `hovercraft sim mutants` lets the swarm look for each of them.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident $name:literal $section:literal $description:literal;)*) => {
        /// A deliberate mistake.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mutation {
            $(#[doc = concat!($section, ": ", $description, ".")] $variant,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Whether runs of the swarm notice it soon. All its nodes have one version of the service; and some mistakes
            /// about the aggregator need a schedule that chance hardly ever comes by, or only cost time: tests write those out.
            pub const fn shows_in_swarm(self) -> bool {
                !matches!(
                    self,
                    Self::SnapshotWithoutVersion
                        | Self::VersionBeforeAllCan
                        | Self::VersionOfProgram
                        | Self::AggregatorCountsLearners
                        | Self::AggregatorBelowFirst
                        | Self::AggCommitOfAnyTerm
                        | Self::AggregatorWaitedFor
                )
            }

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The section of protocol.md that it breaks.
            pub const fn section(self) -> &'static str {
                match self { $(Self::$variant => $section),* }
            }

            /// The mistake, in one line.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description),* }
            }
        }
    };
}

mutations! {
    // Elections.
    ElectionOneVoteShort "election-one-vote-short" "§6.1" "a candidate leads with one vote fewer than a majority";
    VoteForgotten "vote-forgotten" "§6.1" "a node votes again in a term in which it has voted";
    VoteForShorterLog "vote-for-shorter-log" "§6.1" "a node votes for candidates whose log is behind its own";
    PreVoteIgnored "pre-vote-ignored" "§7.7" "a node stands for election without asking whether it could win";
    // Membership.
    TwoChangesAtOnce "two-changes-at-once" "§7.6" "a membership is proposed before the one before it is committed";
    ChangeBeforeOwnEntry "change-before-own-entry" "§7.6" "a leader proposes a membership before an entry of its term is committed";
    LearnerCounted "learner-counted" "§7.6" "learners count like voters";
    JointHalfIgnored "joint-half-ignored" "§7.6" "those after a change decide it alone";
    MembershipWhenCommitted "membership-when-committed" "§7.6" "a membership counts only when it is committed";
    ReplacedMembershipStays "replaced-membership-stays" "§7.6" "a membership counts although its entry was replaced";
    EarlyCommitByLearner "early-commit-by-learner" "§5.6" "a learner and the leader commit what they hold";
    LeaderRemovesItself "leader-removes-itself" "§7.6" "a leader that is leaving ends the change itself";
    ToldBeforeCommitted "told-before-committed" "§7.6" "others are told of a membership that is not committed";
    RemovedNotTold "removed-not-told" "§7.6" "nobody answers a node that was removed";
    StrangersNotAsked "strangers-not-asked" "§7.6" "a node does not ask those it does not know who belongs to the group";
    ForgetfulListened "forgetful-listened" "§7.5" "a process that has forgotten who it was is listened to";
    IncarnationReused "incarnation-reused" "§7.5" "a node that has forgotten everything is let in as whom it was";
    // What waits for the disk.
    VoteNotPersisted "vote-not-persisted" "§6.1" "a restarted node has forgotten whom it voted for";
    PromiseBeforeDisk "promise-before-disk" "§6.1" "votes leave before term and vote are safe";
    AcknowledgeBeforeDisk "acknowledge-before-disk" "§6.2" "a follower acknowledges what its disk has not synced";
    LeaderCountsBeforeDisk "leader-counts-before-disk" "§6.2" "the leader counts itself before its disk has synced";
    // Replication.
    QuorumOffByOne "quorum-off-by-one" "§5.6" "one node fewer than a majority commits an entry";
    AcknowledgeWithoutBody "acknowledge-without-body" "§6.2" "a follower takes and acknowledges entries whose bodies it lacks";
    AcknowledgeHeld "acknowledge-held" "§6.2" "a follower acknowledges entries that it only holds back";
    TruncationSkipped "truncation-skipped" "§6.1" "entries that another leader replaces stay in the log";
    HeldOutliveTerm "held-outlive-term" "§7.2" "Appends held back are taken in a later term";
    NoticeBeyondVerified "notice-beyond-verified" "§6.6" "a notice commits what was not verified against this leader's log";
    HeartbeatCommitUnclamped "heartbeat-commit-unclamped" "§6.6" "a heartbeat's commit index goes to Raft as it is";
    EarlyCommitAnySize "early-commit-any-size" "§5.6" "followers of groups of any size commit with the leader alone";
    AppendNotRepeated "append-not-repeated" "§5.4" "the leader does not repeat what is not acknowledged";
    // The aggregator.
    AggregatorCountsAnyArm "aggregator-counts-any-arm" "§6.7" "the aggregator counts acknowledgements under any arm id, of any term and epoch";
    AggregatorCountsLeaderUnsynced "aggregator-counts-leader-unsynced" "§6.7" "the aggregator counts the leader before its disk has synced";
    AggregatorCountsLearners "aggregator-counts-learners" "§6.7" "the aggregator counts learners";
    AggregatorBelowFirst "aggregator-below-first" "§6.7" "the aggregator announces indices of earlier terms";
    AggregatorKeepsCounts "aggregator-keeps-counts" "§6.7" "the aggregator goes on with what was said under an earlier arm id";
    ArmedDuringChange "armed-during-change" "§6.7" "a leader arms the aggregator while the membership changes";
    AggCommitUnverified "agg-commit-unverified" "§6.6" "a follower commits what the aggregator says, whatever its own log has there";
    AggCommitOfAnyTerm "agg-commit-of-any-term" "§6.6" "a follower takes an AggCommit of another term or epoch";
    AggCommitUnchecked "agg-commit-unchecked" "§8" "a leader takes any AggCommit, whatever its arm id, term and figures";
    AggregatorWaitedFor "aggregator-waited-for" "§8" "a leader never goes on without the aggregator";
    // The gateway.
    GatewayMintsCredit "gateway-mints-credit" "§9" "feedback about what holds no credit gives back that of another request";
    GatewayKeepsCredit "gateway-keeps-credit" "§9" "credits do not come back by their deadline";
    GatewayForgetsAdmitted "gateway-forgets-admitted" "§9" "the gateway does not know again what it has let pass";
    GatewayTearsMessages "gateway-tears-messages" "§9" "the gateway judges every packet of a message by itself";
    // Snapshots.
    SnapshotWithoutSessions "snapshot-without-sessions" "§6.8" "a snapshot has the service's state and forgets the sessions";
    CompactedBeforeSafe "compacted-before-safe" "§7.4" "the journal is compacted before the snapshot is safe";
    SnapshotWithoutVersion "snapshot-without-version" "§7.11" "a snapshot forgets which version of the service is in force";
    BehindIgnored "behind-ignored" "§7.4" "a node that needs a snapshot does not ask for one";
    // Ordering and repliers.
    ReplierRechosen "replier-rechosen" "§6.4" "the leader answers itself in place of a replier out of step";
    QueueUnbounded "queue-unbounded" "§6.5" "a replier owes more than B answers";
    WindowUnbounded "window-unbounded" "§6.5" "more than P entries are announced and not applied";
    OrderedStaysUnordered "ordered-stays-unordered" "§7.3" "bodies stay in the unordered set when entries name them";
    PlainCopyOrdered "plain-copy-ordered" "§3.3" "a copy of a plain request is ordered again";
    WaitingForgotten "waiting-forgotten" "§7.3" "a new leader does not order what waits in its unordered set";
    ReplacedBodyLost "replaced-body-lost" "§7.3" "bodies of replaced entries do not return to the unordered set";
    FetchedBodyUnchecked "fetched-body-unchecked" "§7.1" "a fetched body is not compared with the identity asked for";
    LogTimeRestarts "log-time-restarts" "§3.3" "log time is the leader's own time since its election";
    // Execution.
    AppliedBeforeCommit "applied-before-commit" "§5.7" "entries are executed and answered before they are committed";
    ReadBeforeItsPlace "read-before-its-place" "§5.7" "a read is executed before the write in front of it";
    LeaderReadsLocally "leader-reads-locally" "§7.7" "a leader answers reads without the log";
    ReadsNotKept "reads-not-kept" "§3.3" "only the replier of a read does its bookkeeping";
    ReadChangesState "read-changes-state" "§3.3" "the replier of a read keeps its reply in the session table";
    DuplicatesExecuted "duplicates-executed" "§6.8" "a write that has been executed is executed again";
    ReplyOfAnotherSeq "reply-of-another-seq" "§6.9" "a retransmission is answered with the reply to another seq";
    FenceIgnored "fence-ignored" "§3.3" "first-unacknowledged does not fence late copies";
    ExpiredExecuted "expired-executed" "§3.3" "a request of a session that is over is executed";
    ExpiryByLocalClock "expiry-by-local-clock" "§6.8" "sessions expire by each node's own time";
    // The service's version.
    VersionBeforeAllCan "version-before-all-can" "§7.11" "a leader changes over to its version while members have an older one";
    VersionOfProgram "version-of-program" "§7.11" "replicas change over when their program does, not where the log says so";
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Makes a mutation, or none, from now on in this thread.
pub fn set(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
    multicast::mutation::set(mutation.and_then(in_the_network));
}

/// The same mistake where it is made by what sits in the network.
fn in_the_network(mutation: Mutation) -> Option<multicast::mutation::Mutation> {
    use multicast::mutation::Mutation as There;
    Some(match mutation {
        Mutation::AggregatorCountsAnyArm => There::AggregatorCountsAnyArm,
        Mutation::AggregatorCountsLeaderUnsynced => There::AggregatorCountsLeaderUnsynced,
        Mutation::AggregatorCountsLearners => There::AggregatorCountsLearners,
        Mutation::AggregatorBelowFirst => There::AggregatorBelowFirst,
        Mutation::AggregatorKeepsCounts => There::AggregatorKeepsCounts,
        Mutation::GatewayMintsCredit => There::GatewayMintsCredit,
        Mutation::GatewayKeepsCredit => There::GatewayKeepsCredit,
        Mutation::GatewayForgetsAdmitted => There::GatewayForgetsAdmitted,
        Mutation::GatewayTearsMessages => There::GatewayTearsMessages,
        _ => return None,
    })
}

/// The mutation that is made in this thread.
pub fn active() -> Option<Mutation> {
    ACTIVE.get()
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|mutation| mutation.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|mutation| mutation.name()).collect();
            format!("no such mutation; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_are_different() {
        for (at, mutation) in Mutation::ALL.iter().enumerate() {
            assert_eq!(mutation.name().parse(), Ok(*mutation));
            assert_eq!(Mutation::ALL.iter().position(|other| other.name() == mutation.name()), Some(at));
        }
        assert!("none".parse::<Mutation>().is_err());
    }

    #[test]
    fn is_made_in_one_thread_only() {
        set(Some(Mutation::QuorumOffByOne));
        assert!(mutated!(QuorumOffByOne) && !mutated!(FenceIgnored));
        assert_eq!(std::thread::spawn(active).join().ok(), Some(None));
        set(None);
        assert!(!mutated!(QuorumOffByOne));
    }
}
