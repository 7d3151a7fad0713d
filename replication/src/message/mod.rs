//! What nodes say to each other (protocol.md §4): fixed layouts, network byte order, 64-bit terms and indices.
//!
//! Every message is one R2P2 message of type RAFT_MSG. It begins with an [`Envelope`]; what follows depends on the
//! kind. Parsing never panics and never allocates more than the message is long; nothing here knows what a message
//! *means*, that is [`crate::node`]'s business.

mod append;
mod bodies;
mod codec;
mod snapshot;

use bytes::Bytes;

pub use append::{APPEND_LEN, Append, AppendEntries, AppendEntry};
pub use bodies::{Bodies, Body, Fetch, FetchItem, Hint, ITEMS_MAX};
pub use codec::MessageError;
use codec::{Reader, Writer};
pub use snapshot::{Behind, CHUNKS_MAX, Installed, Receiving, SnapshotChunk, SnapshotFetch, SnapshotMissing};

use crate::id::{GroupId, Incarnation, LogIndex, MemberId, NodeId, Term};
use crate::membership::Membership;

/// Version of all layouts in this module. A node refuses others, naming both.
pub const VERSION: u8 = 1;

/// Bytes before the kind-specific part.
pub const ENVELOPE_LEN: usize = 32;

/// Largest term or index taken from the wire: arithmetic on anything below cannot overflow (protocol.md §11).
pub const NUMBER_MAX: u64 = 1 << 62;

/// What every internal message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The replication group.
    pub group: GroupId,
    /// Who sends.
    pub from: MemberId,
    /// Which process that is: drawn at start, so that two processes under one identity are told apart (§7.5).
    pub life: u64,
    /// The sender's term, except in [`Vote`] and [`VoteReply`], where it is the term voted for.
    pub term: Term,
}

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
}

/// A follower's answer to an Append or a Heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppendAck {
    /// verified(term): the highest index of a non-reject append response in this term (§1).
    pub matched: LogIndex,
    /// Highest index executed.
    pub applied: LogIndex,
    /// Highest index known committed.
    pub commit: LogIndex,
    /// Repeats the Append's arm id; 0 for none.
    pub arm: u64,
    /// The version of the node's service.
    pub version: u32,
    /// Answers a Heartbeat, so a probe that was lost may be repeated.
    pub heartbeat: bool,
    /// The Append did not fit the log.
    pub reject: Option<Reject>,
}

/// Where an Append did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The `prev` index that was refused.
    pub index: LogIndex,
    /// Where the logs may agree.
    pub hint: LogIndex,
    /// The follower's term at the hint.
    pub hint_term: Term,
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
        }
    }

    /// The message's bytes.
    pub fn emit(&self, envelope: &Envelope) -> Vec<u8> {
        let mut to = Writer::new(self.kind(), envelope);
        match self {
            Self::Append(append) => append.emit(&mut to),
            Self::AppendAck(ack) => emit_ack(ack, &mut to),
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
        }
        to.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Names what is wrong with the bytes; whoever sent them is wrong, nothing was changed.
    pub fn parse(bytes: &Bytes) -> Result<(Envelope, Self), MessageError> {
        let mut from = Reader::new(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(MessageError::Version { theirs: version, ours: VERSION });
        }
        let kind = from.u8()?;
        let node = NodeId(from.u16()?);
        if node == NodeId::NONE || node.0 > NodeId::MAX {
            return Err(MessageError::BadValue("node id"));
        }
        let group = GroupId(from.u32()?);
        let incarnation = Incarnation(from.u32()?);
        if from.u32()? != 0 {
            return Err(MessageError::BadValue("reserved field"));
        }
        let life = from.u64()?;
        // 0 means "local" to the raft crate and would skip every term check.
        let term = from.number()?;
        if term == 0
            && !matches!(kind, KIND_FETCH | KIND_BODIES | KIND_HINT | KIND_REFUSED | KIND_MEMBERS_QUERY | KIND_MEMBERS)
        {
            return Err(MessageError::BadValue("term"));
        }
        let message = match kind {
            KIND_APPEND => Self::Append(Append::parse(&mut from)?),
            KIND_APPEND_ACK => Self::AppendAck(parse_ack(&mut from)?),
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
            other => return Err(MessageError::UnknownKind(other)),
        };
        from.end()?;
        Ok((Envelope { group, from: MemberId::new(node, incarnation), life, term }, message))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Append(_) => KIND_APPEND,
            Self::AppendAck(_) => KIND_APPEND_ACK,
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
        }
    }
}

const KIND_APPEND: u8 = 1;
const KIND_APPEND_ACK: u8 = 2;
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

fn emit_ack(ack: &AppendAck, to: &mut Writer) {
    to.u8(u8::from(ack.heartbeat));
    to.u8(u8::from(ack.reject.is_some()));
    for number in [ack.matched, ack.applied, ack.commit, ack.arm] {
        to.u64(number);
    }
    to.u32(ack.version);
    if let Some(reject) = ack.reject {
        for number in [reject.index, reject.hint, reject.hint_term] {
            to.u64(number);
        }
    }
}

fn parse_ack(from: &mut Reader<'_>) -> Result<AppendAck, MessageError> {
    let heartbeat = from.bool()?;
    let rejects = from.bool()?;
    let mut ack = AppendAck {
        matched: from.number()?,
        applied: from.number()?,
        commit: from.number()?,
        arm: from.u64()?,
        version: from.u32()?,
        heartbeat,
        reject: None,
    };
    if rejects {
        ack.reject = Some(Reject { index: from.number()?, hint: from.number()?, hint_term: from.number()? });
    }
    Ok(ack)
}

#[cfg(test)]
mod tests;
