//! What can be wrong, with the data that shows it.

use hovercraft::applier::Effect;
use hovercraft::entry::Entry;
use hovercraft::{Class, LogIndex, MemberId, Membership, NodeId, Term};
use r2p2::{Digest, Instant};
use thiserror::Error;

use super::admission::Operation;

/// An invariant of protocol.md §6 that did not hold.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum Violation {
    /// Something was logged as an error, which nothing that is prepared for faults has reason to.
    #[error("an error was logged: {what}")]
    ErrorEvent { what: String },
    /// See [`super::aggregated`].
    #[error("§6.7 {node} arms the aggregator for epoch {epoch} while the membership changes")]
    ArmsDuringChange { node: NodeId, epoch: u64 },
    /// See [`super::aggregated`].
    #[error("§6.7 aggregator {number} says something under {arm:x}, under which nobody has armed it")]
    AggregatorNotArmed { number: u16, arm: u64 },
    /// See [`super::aggregated`].
    #[error("§6.7 aggregator {number} says that {member:?} has {said}, which has said {told} under that arm id")]
    AggregatorInvents { number: u16, member: MemberId, said: LogIndex, told: LogIndex },
    /// See [`super::aggregated`].
    #[error(
        "§6.7 aggregator {number} announces {commit} in a term that begins with {first}; a majority of its voters has \
         {majority}"
    )]
    AggregatorAnnounces { number: u16, commit: LogIndex, majority: LogIndex, first: LogIndex },
    /// See [`super::admission`].
    #[error("§9 the gateway admits {operation:?} with at least {in_flight} in flight, of {limit}")]
    AdmittedTooMany { operation: Operation, in_flight: usize, limit: usize },
    /// See [`super::admission`].
    #[error("§9 the gateway refuses {operation:?}, which it has let pass")]
    KnownRefused { operation: Operation },
    /// See [`super::admission`].
    #[error("§9 the gateway lets a part of {operation:?} pass of which it has refused another")]
    MessageTorn { operation: Operation },
    /// See [`super::one_leader`].
    #[error("§6.1 one leader per term: {first:?} and {second:?} both lead term {term}")]
    TwoLeaders { term: Term, first: MemberId, second: MemberId },
    /// See [`super::votes`].
    #[error("§6.1 one vote per term: {node:?} votes for {first} and for {second} in term {term}")]
    VotesTwice { node: MemberId, term: Term, first: NodeId, second: NodeId },
    /// See [`super::votes`].
    #[error("§6.1 {node:?} is in term {found}, and was in term {known} or voted in it")]
    TermGoesBack { node: MemberId, found: Term, known: Term },
    /// See [`super::commit_index`].
    #[error("§6.1 {node} has committed {found} entries, and had committed {known}")]
    CommitGoesBack { node: NodeId, found: LogIndex, known: LogIndex },
    /// See [`super::commit_index`].
    #[error("§6.1 {node} has committed {commit} entries, its log ends at {last}")]
    CommittedBeyondLog { node: NodeId, commit: LogIndex, last: LogIndex },
    /// See [`super::commit_index`].
    #[error("§6.1 {node} has executed {applied} entries, of which {commit} are committed")]
    AppliedBeyondCommit { node: NodeId, applied: LogIndex, commit: LogIndex },
    /// See [`super::log_matching`].
    #[error(
        "§6.1 log matching: index {index} of term {term} is {found:?} after term {found_before} on {node}, but was \
         {known:?} after term {known_before} elsewhere"
    )]
    LogsDiffer {
        node: NodeId,
        index: LogIndex,
        term: Term,
        found_before: Term,
        found: Box<Entry>,
        known_before: Term,
        known: Box<Entry>,
    },
    /// See [`super::leader_completeness`].
    #[error(
        "§6.1 leader completeness: {node} leads term {term} with {found:?} as the term of index {index}, which was committed in term {committed}"
    )]
    LeaderIncomplete { node: NodeId, term: Term, index: LogIndex, committed: Term, found: Option<Term> },
    /// See [`super::leader_completeness`].
    #[error("§6.1 state-machine safety: {node} executes index {index} of term {found}, others that of term {known}")]
    CommittedTwice { node: NodeId, index: LogIndex, found: Term, known: Term },
    /// See [`super::same_log`].
    #[error("§6.1 state-machine safety: {node} executes {found:?} at {index}, others {known:?}")]
    EntriesDiffer { node: NodeId, index: LogIndex, found: Box<Entry>, known: Box<Entry> },
    /// See [`super::same_log`].
    #[error("§6.4 the replier of {index} is {found} on {node}, elsewhere {known}")]
    RepliersDiffer { node: NodeId, index: LogIndex, found: NodeId, known: NodeId },
    /// See [`super::same_log`].
    #[error("§6.1 {node} executes {index} after {previous}")]
    OutOfOrder { node: NodeId, index: LogIndex, previous: LogIndex },
    /// See [`super::bodies`].
    #[error(
        "§6.2 {node} has index {index} in its log without the body of {expected} bytes that it names ({found} bytes)"
    )]
    BodyMissing { node: NodeId, index: LogIndex, expected: usize, found: usize },
    /// See [`super::bodies`].
    #[error("§6.2 {node} has another body at index {index} than its entry names")]
    BodyWrong { node: NodeId, index: LogIndex },
    /// See [`super::bodies`].
    #[error("§6.2 {node} acknowledges {matched} entries, of which it has persisted {persisted}")]
    AcknowledgedTooMuch { node: NodeId, matched: LogIndex, persisted: LogIndex },
    /// See [`super::read_only`].
    #[error("§6.3 index {index} on {node} is not marked as the {class:?} that the service says it is")]
    ReadMismarked { node: NodeId, index: LogIndex, class: Class },
    /// See [`super::read_only`].
    #[error("§6.3 the read at {index} runs on {node}, its replier is {replier}")]
    ReadMisplaced { node: NodeId, index: LogIndex, replier: NodeId },
    /// See [`super::read_only`].
    #[error(
        "§6.3 index {index} is {effect:?} on {node} and changes its service's state from {before:016x} to {after:016x}"
    )]
    ReadChangesState { node: NodeId, index: LogIndex, effect: Effect, before: u64, after: u64 },
    /// See [`super::replier_queue`].
    #[error(
        "§6.5 {leader} has made {replier} the replier of {owed} entries in term {term} not reported applied, B is {limit}"
    )]
    QueueTooLong { leader: NodeId, term: Term, replier: NodeId, owed: usize, limit: usize },
    /// See [`super::window`].
    #[error("§6.5 {leader} has {announced} entries announced in term {term} and not applied, P is {limit}")]
    WindowTooLong { leader: NodeId, term: Term, announced: u64, limit: usize },
    /// See [`super::verified`].
    #[error(
        "§6.6 {node} in term {current} commits index {index} with an entry of term {found}, committed there is one of term \
         {known}"
    )]
    CommitsAnother { node: NodeId, current: Term, index: LogIndex, found: Term, known: Term },
    /// See [`super::verified`].
    #[error(
        "§6.2 {node} in term {current} commits index {index} of term {term}, which {held:?} have persisted, where {voters:?} \
         vote"
    )]
    CommitsTooEarly {
        node: NodeId,
        current: Term,
        index: LogIndex,
        term: Term,
        held: Vec<MemberId>,
        voters: Vec<MemberId>,
    },
    /// See [`super::elected`].
    #[error("§6.1 {node:?} leads term {term} by the votes of {votes:?}, where {voters:?} vote")]
    NotElected { node: MemberId, term: Term, votes: Vec<MemberId>, voters: Vec<MemberId> },
    /// See [`super::changes`].
    #[error(
        "§7.6 {leader} proposes the membership of epoch {epoch} at {index} in term {term}, after the one at {before_at}; \
         it has committed {commit} of term {commit_term:?}"
    )]
    ChangedTooEarly {
        leader: NodeId,
        term: Term,
        index: LogIndex,
        epoch: u64,
        before_at: LogIndex,
        commit: LogIndex,
        commit_term: Option<Term>,
    },
    /// See [`super::changes`].
    #[error("§7.6 {node} counts by a membership of {since}, where its log says nothing of the kind; it ends at {last}")]
    SaidByNobody { node: NodeId, since: LogIndex, last: LogIndex },
    /// See [`super::changes`].
    #[error("§7.6 {leader} proposes at {index} what is no step: {after:?} after {before:?}")]
    NoStep { leader: NodeId, index: LogIndex, before: Box<Membership>, after: Box<Membership> },
    /// See [`super::epochs`].
    #[error("§7.6 {node} has committed {found:?}, another of that epoch is {known:?}")]
    EpochTwice { node: NodeId, found: Box<Membership>, known: Box<Membership> },
    /// See [`super::epochs`].
    #[error("§7.6 {node} tells others of {told:?}, which is not committed")]
    ToldTooEarly { node: NodeId, told: Box<Membership> },
    /// See [`super::identities`].
    #[error("§7.5 {member:?} is let into the group, and has lived before")]
    LivesAgain { member: MemberId },
    /// See [`super::at_most_once`].
    #[error("§6.8 seq {seq} of session {client} takes effect at {first} and again at {second} (on {node})")]
    TwiceExecuted { node: NodeId, client: u64, seq: u64, first: LogIndex, second: LogIndex },
    /// See [`super::pre_vote`].
    #[error("§7.7 {node:?} asks for votes in term {term} after only {granted:?} said they would give them")]
    NotAskedBefore { node: MemberId, term: Term, granted: Vec<MemberId> },
    /// See [`super::fence`].
    #[error(
        "§3.3 seq {seq} of session {client} takes effect at {index}, its client waits for nothing below {first_unacked}"
    )]
    Fenced { client: u64, seq: u64, first_unacked: u64, index: LogIndex },
    /// See [`super::plain_once`].
    #[error("§3.3 the plain request {identity:?} is executed at {first} and again at {second}")]
    PlainTwice { identity: Digest, first: LogIndex, second: LogIndex },
    /// See [`super::log_time`].
    #[error("§3.3 log time goes back from {known:?} to {found:?} at {index}")]
    TimeGoesBack { index: LogIndex, found: Instant, known: Instant },
    /// See [`super::at_most_once`].
    #[error("§6.8 index {index} is {found:?} on {node}, elsewhere {known:?}")]
    EffectsDiffer { node: NodeId, index: LogIndex, found: Effect, known: Effect },
    /// See [`super::same_answer`].
    #[error(
        "§6.9 seq {seq} of session {client} was answered {known:02x?} (entry {first_index}) by {first} and {found:02x?} \
         (entry {second_index}) by {second}"
    )]
    AnswersDiffer {
        client: u64,
        seq: u64,
        first: NodeId,
        first_index: LogIndex,
        known: Vec<u8>,
        second: NodeId,
        second_index: LogIndex,
        found: Vec<u8>,
    },
    /// See [`super::same_state`].
    #[error("§6.10 state hash {found:016x} of {node} at {index}, elsewhere {known:016x}")]
    StatesDiffer { node: NodeId, index: LogIndex, found: u64, known: u64 },
    /// See [`super::persisted`].
    #[error(
        "§6.1 {node} lets others rely on its vote for {vote:?} in term {term}, but a crash would leave it with \
         {safe_vote:?} in term {safe_term}"
    )]
    VoteNotPersisted { node: NodeId, term: Term, vote: Option<NodeId>, safe_term: Term, safe_vote: Option<MemberId> },
    /// See [`super::persisted`].
    #[error("§6.1 {node} acknowledges in term {term}, but a crash would leave it in term {safe}")]
    TermNotPersisted { node: NodeId, term: Term, safe: Term },
    /// See [`super::persisted`].
    #[error("§6.2 {node} counts index {index} of term {term:?}, but a crash would leave it with {safe:?} there")]
    EntryNotPersisted { node: NodeId, index: LogIndex, term: Option<Term>, safe: Option<Term> },
    /// See [`super::memory`].
    #[error("§6.11 {node} keeps {found} {what}, the limit is {limit}")]
    Unbounded { node: NodeId, what: &'static str, found: usize, limit: usize },
    /// See [`crate::linearizability`].
    #[error("§6.9 register {register}: {verdict}")]
    NotLinearizable { register: u64, verdict: String },
    /// A client was answered what no service answers.
    #[error("§6.9 {what}")]
    Nonsense { what: String },
}
