//! What nodes say to each other (protocol.md §4): fixed layouts, network byte order, 64-bit terms and indices.
//!
//! Every message is one R2P2 message of type RAFT_MSG. It begins with an [`Envelope`]; what follows depends on the
//! kind. What something in the network reads too is in [`multicast::message`]. Parsing never panics and never allocates more than the message is long; nothing here knows what a message
//! *means*, that is [`crate::node`]'s business.

mod append;
mod bodies;
mod reader;
mod snapshot;

use bytes::Bytes;

pub use append::{Append, AppendEntries, AppendEntry};
pub use bodies::{Bodies, Body, Fetch, FetchItem, Hint, ITEMS_MAX};
use multicast::message::kind;
pub use multicast::message::{
    APPEND_LEN, AggCommit, AppendAck, Arm, ArmMember, Armed, ENVELOPE_LEN, Envelope, Figures, MessageError, NUMBER_MAX,
    Reject, VERSION,
};
use reader::Reader;
pub use snapshot::{Behind, CHUNKS_MAX, Installed, Receiving, SnapshotChunk, SnapshotFetch, SnapshotMissing};

use crate::id::{LogIndex, Term};
use crate::membership::Membership;

/// An internal message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Entries to append.
    Append(Append),
    /// Answer to an Append or a Heartbeat.
    AppendAck(AppendAck),
    /// The leader lives.
    Heartbeat(Heartbeat),
    /// The leader's commit index, when no Append is due to carry it.
    CommitNotice(CommitNotice),
    /// A request for a vote or a pre-vote.
    Vote(Vote),
    /// Its answer.
    VoteReply(VoteReply),
    /// The leader asks the receiver to stand for election at once.
    TimeoutNow,
    /// Bodies wanted.
    Fetch(Fetch),
    /// Bodies, or that they are not here.
    Bodies(Bodies),
    /// Requests that have waited too long at a follower.
    Hint(Hint),
    /// Who belongs to the group?
    MembersQuery,
    /// These, by the latest committed entry that says so.
    Members(Membership),
    /// The receiver is not who it says it is, or has forgotten what it promised (§7.5).
    Refused(Refused),
    /// The receiver needs a snapshot.
    Behind(Behind),
    /// Chunks of a snapshot wanted.
    SnapshotFetch(SnapshotFetch),
    /// A chunk of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// No such snapshot here, or not yet.
    SnapshotMissing(SnapshotMissing),
    /// The sender receives a snapshot.
    Receiving(Receiving),
    /// The sender has everything up to a committed entry.
    Installed(Installed),
    /// A leader asks the aggregator to fold acknowledgements.
    Arm(Arm),
    /// It does.
    Armed(Armed),
    /// What a majority has, says the aggregator.
    AggCommit(AggCommit),
}

/// The leader lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The leader's last index: who is behind answers with its match.
    pub last: LogIndex,
    /// The leader's commit index.
    pub commit: LogIndex,
}

/// The leader's commit index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitNotice {
    /// The index.
    pub commit: LogIndex,
}

/// A request for a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// Only asks whether a vote would be given.
    pub pre: bool,
    /// The leader asked for this election, so leases do not hold.
    pub transfer: bool,
    /// The candidate's last index.
    pub last: LogIndex,
    /// The term of that.
    pub last_term: Term,
    /// The candidate's commit index.
    pub commit: LogIndex,
    /// The term of that.
    pub commit_term: Term,
}

/// A vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteReply {
    /// Answers a pre-vote.
    pub pre: bool,
    /// Not given.
    pub reject: bool,
    /// The voter's commit index.
    pub commit: LogIndex,
    /// The term of that.
    pub commit_term: Term,
}

/// A process is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// The life that is not listened to; whoever lives another one is not meant.
    pub life: u64,
}

/// Why a node is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// Another process already lived under this identity, in this group's memory.
    AnotherLife = 1,
    /// The group knows a different incarnation of this node.
    OtherIncarnation = 2,
    /// The node has left the group.
    Removed = 3,
}

impl Message {
    /// The kind's name, as counters and traces show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::AppendAck(_) => "append_ack",
            Self::Heartbeat(_) => "heartbeat",
            Self::CommitNotice(_) => "commit_notice",
            Self::Vote(vote) if vote.pre => "pre_vote",
            Self::Vote(_) => "vote",
            Self::VoteReply(_) => "vote_reply",
            Self::TimeoutNow => "timeout_now",
            Self::Fetch(_) => "fetch",
            Self::Bodies(_) => "bodies",
            Self::Hint(_) => "hint",
            Self::Refused(_) => "refused",
            Self::MembersQuery => "members_query",
            Self::Members(_) => "members",
            Self::Behind(_) => "behind",
            Self::SnapshotFetch(_) => "snapshot_fetch",
            Self::SnapshotChunk(_) => "snapshot_chunk",
            Self::SnapshotMissing(_) => "snapshot_missing",
            Self::Receiving(_) => "receiving",
            Self::Installed(_) => "installed",
            Self::Arm(_) => "arm",
            Self::Armed(_) => "armed",
            Self::AggCommit(_) => "agg_commit",
        }
    }

    /// The message's bytes.
    pub fn emit(&self, envelope: &Envelope) -> Vec<u8> {
        let mut to = envelope.emit(self.kind());
        match self {
            Self::Append(append) => append.emit(&mut to),
            Self::AppendAck(ack) => ack.emit(&mut to),
            Self::Heartbeat(heartbeat) => {
                to.u64(heartbeat.last);
                to.u64(heartbeat.commit);
            }
            Self::CommitNotice(notice) => to.u64(notice.commit),
            Self::Vote(vote) => {
                to.u8(u8::from(vote.pre));
                to.u8(u8::from(vote.transfer));
                for number in [vote.last, vote.last_term, vote.commit, vote.commit_term] {
                    to.u64(number);
                }
            }
            Self::VoteReply(reply) => {
                to.u8(u8::from(reply.pre));
                to.u8(u8::from(reply.reject));
                to.u64(reply.commit);
                to.u64(reply.commit_term);
            }
            Self::TimeoutNow | Self::MembersQuery => {}
            Self::Members(membership) => {
                let bytes = membership.emit();
                to.u32(bytes.len() as u32);
                to.bytes(&bytes);
            }
            Self::Fetch(fetch) => fetch.emit(&mut to),
            Self::Bodies(bodies) => bodies.emit(&mut to),
            Self::Hint(hint) => hint.emit(&mut to),
            Self::Refused(refused) => {
                to.u8(refused.reason as u8);
                to.u64(refused.life);
            }
            Self::Behind(Behind { min: index }) | Self::Receiving(Receiving { index }) => to.u64(*index),
            Self::SnapshotFetch(fetch) => fetch.emit(&mut to),
            Self::SnapshotChunk(chunk) => chunk.emit(&mut to),
            Self::SnapshotMissing(missing) => missing.emit(&mut to),
            Self::Installed(installed) => {
                to.u64(installed.index);
                to.u64(installed.term);
            }
            Self::Arm(arm) => arm.emit(&mut to),
            Self::Armed(armed) => armed.emit(&mut to),
            Self::AggCommit(commit) => commit.emit(&mut to),
        }
        to.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Names what is wrong with the bytes; whoever sent them is wrong, nothing was changed.
    pub fn parse(bytes: &Bytes) -> Result<(Envelope, Self), MessageError> {
        let mut from = Reader::new(bytes);
        let (envelope, kind) = Envelope::parse(&mut from)?;
        // 0 means "local" to the raft crate and would skip every term check.
        if envelope.term == 0
            && !matches!(kind, KIND_FETCH | KIND_BODIES | KIND_HINT | KIND_REFUSED | KIND_MEMBERS_QUERY | KIND_MEMBERS)
        {
            return Err(MessageError::BadValue("term"));
        }
        let message = match kind {
            kind::APPEND => Self::Append(Append::parse(&mut from)?),
            kind::APPEND_ACK => Self::AppendAck(AppendAck::parse(&mut from)?),
            KIND_HEARTBEAT => Self::Heartbeat(Heartbeat { last: from.number()?, commit: from.number()? }),
            KIND_COMMIT_NOTICE => Self::CommitNotice(CommitNotice { commit: from.number()? }),
            KIND_VOTE => Self::Vote(Vote {
                pre: from.bool()?,
                transfer: from.bool()?,
                last: from.number()?,
                last_term: from.number()?,
                commit: from.number()?,
                commit_term: from.number()?,
            }),
            KIND_VOTE_REPLY => Self::VoteReply(VoteReply {
                pre: from.bool()?,
                reject: from.bool()?,
                commit: from.number()?,
                commit_term: from.number()?,
            }),
            KIND_TIMEOUT_NOW => Self::TimeoutNow,
            KIND_FETCH => Self::Fetch(Fetch::parse(&mut from)?),
            KIND_BODIES => Self::Bodies(Bodies::parse(&mut from)?),
            KIND_HINT => Self::Hint(Hint::parse(&mut from)?),
            KIND_REFUSED => {
                let reason = match from.u8()? {
                    1 => Refusal::AnotherLife,
                    2 => Refusal::OtherIncarnation,
                    3 => Refusal::Removed,
                    _ => return Err(MessageError::BadValue("refusal")),
                };
                Self::Refused(Refused { reason, life: from.u64()? })
            }
            KIND_MEMBERS_QUERY => Self::MembersQuery,
            KIND_MEMBERS => {
                let len = from.u32()? as usize;
                let bytes = from.bytes(len)?;
                Self::Members(Membership::parse(&bytes).ok_or(MessageError::BadValue("membership"))?)
            }
            KIND_BEHIND => Self::Behind(Behind { min: from.number()? }),
            KIND_SNAPSHOT_FETCH => Self::SnapshotFetch(SnapshotFetch::parse(&mut from)?),
            KIND_SNAPSHOT_CHUNK => Self::SnapshotChunk(SnapshotChunk::parse(&mut from)?),
            KIND_SNAPSHOT_MISSING => Self::SnapshotMissing(SnapshotMissing::parse(&mut from)?),
            KIND_RECEIVING => Self::Receiving(Receiving { index: from.number()? }),
            KIND_INSTALLED => Self::Installed(Installed { index: from.number()?, term: from.number()? }),
            kind::ARM => Self::Arm(Arm::parse(&mut from)?),
            kind::ARMED => Self::Armed(Armed::parse(&mut from)?),
            kind::AGG_COMMIT => Self::AggCommit(AggCommit::parse(&mut from)?),
            other => return Err(MessageError::UnknownKind(other)),
        };
        from.end()?;
        Ok((envelope, message))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Append(_) => kind::APPEND,
            Self::AppendAck(_) => kind::APPEND_ACK,
            Self::Heartbeat(_) => KIND_HEARTBEAT,
            Self::CommitNotice(_) => KIND_COMMIT_NOTICE,
            Self::Vote(_) => KIND_VOTE,
            Self::VoteReply(_) => KIND_VOTE_REPLY,
            Self::TimeoutNow => KIND_TIMEOUT_NOW,
            Self::Fetch(_) => KIND_FETCH,
            Self::Bodies(_) => KIND_BODIES,
            Self::Hint(_) => KIND_HINT,
            Self::Refused(_) => KIND_REFUSED,
            Self::MembersQuery => KIND_MEMBERS_QUERY,
            Self::Members(_) => KIND_MEMBERS,
            Self::Behind(_) => KIND_BEHIND,
            Self::SnapshotFetch(_) => KIND_SNAPSHOT_FETCH,
            Self::SnapshotChunk(_) => KIND_SNAPSHOT_CHUNK,
            Self::SnapshotMissing(_) => KIND_SNAPSHOT_MISSING,
            Self::Receiving(_) => KIND_RECEIVING,
            Self::Installed(_) => KIND_INSTALLED,
            Self::Arm(_) => kind::ARM,
            Self::Armed(_) => kind::ARMED,
            Self::AggCommit(_) => kind::AGG_COMMIT,
        }
    }
}

const KIND_HEARTBEAT: u8 = 3;
const KIND_COMMIT_NOTICE: u8 = 4;
const KIND_VOTE: u8 = 5;
const KIND_VOTE_REPLY: u8 = 6;
const KIND_TIMEOUT_NOW: u8 = 7;
const KIND_FETCH: u8 = 8;
const KIND_BODIES: u8 = 9;
const KIND_HINT: u8 = 10;
const KIND_REFUSED: u8 = 11;
const KIND_MEMBERS_QUERY: u8 = 12;
const KIND_MEMBERS: u8 = 13;
const KIND_BEHIND: u8 = 14;
const KIND_SNAPSHOT_FETCH: u8 = 15;
const KIND_SNAPSHOT_CHUNK: u8 = 16;
const KIND_SNAPSHOT_MISSING: u8 = 17;
const KIND_RECEIVING: u8 = 18;
const KIND_INSTALLED: u8 = 19;

#[cfg(test)]
mod tests;
