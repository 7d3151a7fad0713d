//! One line about a datagram.

use std::fmt::Write;

use bytes::Bytes;
use hovercraft::message::{AppendAck, Envelope, Message, Refusal};
use r2p2::Digest;
use r2p2::wire::{Feedback, Header, MessageType, Packet, ReplyStatus};

use crate::flight;

/// What a datagram is about. Never fails: what does not parse is said not to.
pub fn summary(datagram: &Bytes, request: fn(&[u8]) -> String, reply: fn(&[u8]) -> String) -> String {
    let packet = match Packet::new_checked(&datagram[..]) {
        Ok(packet) => packet,
        Err(error) => return format!("malformed: {error}"),
    };
    let header = match Header::parse(&packet) {
        Ok(header) => header,
        Err(error) => return format!("malformed: {error}"),
    };
    let body = packet.payload();
    match header.kind {
        MessageType::RaftMessage if header.first && header.last => match flight::message(datagram) {
            Some((envelope, message)) => internal(&envelope, &message),
            None => "malformed internal message".to_owned(),
        },
        MessageType::RaftRequest | MessageType::RaftReply | MessageType::RaftMessage => header.to_string(),
        MessageType::Request => {
            let session = header.extensions.session;
            let asks = match session {
                _ if header.extensions.admin => "admin".to_owned(),
                Some(session) if session.client == 0 => "opens a session".to_owned(),
                _ if header.first => request(body),
                _ => format!("packet {}", header.order),
            };
            format!("{asks}{}", about(&header))
        }
        MessageType::Response => {
            let says = match header.extensions.status {
                _ if !header.first => format!("packet {}", header.order),
                None if header.extensions.session.is_some_and(|session| session.client == 0) => {
                    "opened a session".to_owned()
                }
                None => reply(body),
                Some(ReplyStatus::ServiceError) => format!("service error: {}", String::from_utf8_lossy(body)),
                Some(status) => status.to_string().to_lowercase(),
            };
            format!("{says}{}", about(&header))
        }
        MessageType::Feedback => match Feedback::parse(body) {
            Ok(feedback) => feedback.to_string(),
            Err(error) => format!("malformed: {error}"),
        },
        MessageType::Ack => format!("send the rest of rid {}", header.rid),
        MessageType::Drop => format!("rid {} is not accepted", header.rid),
    }
}

/// What headers of requests and responses say about whose they are.
fn about(header: &Header) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if let Some(session) = header.extensions.session {
        _ = write!(text, " · session {} seq {}", session.client, session.seq);
    }
    _ = write!(text, " · rid {}", header.rid);
    if let Some(index) = header.extensions.entry_index {
        _ = write!(text, " · index {index}");
    }
    if !(header.first && header.last) {
        let count = if header.first { format!("first of {}", header.order) } else { "later packet".to_owned() };
        _ = write!(text, " · {count}");
    }
    text
}

fn internal(envelope: &Envelope, message: &Message) -> String {
    let term = envelope.term;
    match message {
        Message::Append(append) => {
            let (prev, last) = (append.prev, append.last());
            let what = match append.entries.0.len() {
                0 => "nothing new".to_owned(),
                1 => format!("entry {last}"),
                _ => format!("entries {}–{last}", prev + 1),
            };
            let under = if append.arm == 0 { String::new() } else { format!(", under {:08x}", append.arm >> 32) };
            let (prev_term, commit) = (append.prev_term, append.commit);
            format!("term {term}: {what} after {prev} of term {prev_term}, commit {commit}{under}")
        }
        Message::AppendAck(ack) => acknowledgement(term, ack),
        Message::Heartbeat(heartbeat) => format!("term {term}: last {}, commit {}", heartbeat.last, heartbeat.commit),
        Message::CommitNotice(notice) => format!("term {term}: commit {}", notice.commit),
        Message::Vote(vote) => {
            let asks = if vote.pre { "would you vote for me in" } else { "vote for me in" };
            let transfer = if vote.transfer { ", asked to by the leader" } else { "" };
            format!(
                "{asks} term {term}? last {} of term {}, commit {}{transfer}",
                vote.last, vote.last_term, vote.commit
            )
        }
        Message::VoteReply(reply) => {
            let says = match (reply.pre, reply.reject) {
                (true, false) => "would vote",
                (true, true) => "would not vote",
                (false, false) => "votes",
                (false, true) => "does not vote",
            };
            format!("{says} in term {term}, commit {}", reply.commit)
        }
        Message::TimeoutNow => format!("term {term}: stand for election now"),
        Message::Fetch(fetch) => {
            let wanted = fetch.items.iter().map(|item| match item.index {
                0 => identity(item.identity),
                index => format!("{} at {index}", identity(item.identity)),
            });
            format!("wants {}", list(wanted))
        }
        Message::Bodies(bodies) => {
            let found = bodies.found.iter().map(|body| identity(body.head.identity));
            let missing = bodies.missing.iter().map(|missing| identity(*missing));
            match (bodies.found.len(), bodies.missing.len()) {
                (_, 0) => format!("brings {}", list(found)),
                (0, _) => format!("has not {}", list(missing)),
                _ => format!("brings {}; has not {}", list(found), list(missing)),
            }
        }
        Message::Hint(hint) => {
            format!("waits for {} to be ordered", list(hint.identities.iter().copied().map(identity)))
        }
        Message::Refused(refused) => match refused.reason {
            Refusal::AnotherLife => "another process lived under this identity".to_owned(),
            Refusal::OtherIncarnation => "the group knows another incarnation".to_owned(),
            Refusal::Removed => "it has been removed from the group".to_owned(),
        },
        Message::Behind(behind) => format!("term {term}: you need a snapshot of at least {}", behind.min),
        Message::SnapshotFetch(fetch) => {
            let which =
                if fetch.id == 0 { format!("any from {}", fetch.min) } else { format!("{:08x}", fetch.id >> 32) };
            format!("wants {} chunks from {} on of snapshot {which}", fetch.count, fetch.first)
        }
        Message::SnapshotChunk(said) => {
            let (number, chunks) = (said.chunk.number + 1, said.info.chunks());
            format!("chunk {number} of {chunks} of the snapshot of {}, term {}", said.info.index, said.info.term)
        }
        Message::SnapshotMissing(missing) if missing.soon => "takes a snapshot, ask again".to_owned(),
        Message::SnapshotMissing(_) => "has no such snapshot".to_owned(),
        Message::Receiving(receiving) => format!("term {term}: receives the snapshot of {}", receiving.index),
        Message::Installed(installed) => {
            format!("term {term}: has everything up to {} of term {}", installed.index, installed.term)
        }
        Message::Arm(arm) => {
            let voters = arm.members.iter().filter(|member| member.voter).count();
            format!("term {term}: fold what {voters} voters of epoch {} say, from {} on", arm.epoch, arm.first)
        }
        Message::Armed(armed) => format!("term {term}: folds under {:08x}", armed.arm >> 32),
        Message::AggCommit(said) => {
            let members = said.members.iter();
            let each = members.map(|of| format!("{} match {} applied {}", of.id.node(), of.matched, of.applied));
            format!("term {term}: commit {} ({})", said.commit, each.collect::<Vec<_>>().join(", "))
        }
        Message::MembersQuery => "who belongs to the group?".to_owned(),
        Message::Members(membership) => {
            format!("epoch {}: {}", membership.epoch, list(membership.members.keys().map(|id| format!("{id:?}"))))
        }
    }
}

fn acknowledgement(term: u64, ack: &AppendAck) -> String {
    let AppendAck { matched, applied, commit, heartbeat, reject, arm, .. } = ack;
    let says = match reject {
        Some(reject) => format!("no to {}, try {} of term {}", reject.index, reject.hint, reject.hint_term),
        None => format!("match {matched}"),
    };
    let answers = if *heartbeat { " (heartbeat)" } else { "" };
    let under = if *arm == 0 { String::new() } else { format!(", under {:08x}", arm >> 32) };
    format!("term {term}: {says}, commit {commit}, applied {applied}{answers}{under}")
}

/// The beginning of a request's identity is enough to tell it from its neighbours.
fn identity(identity: Digest) -> String {
    format!("{:08x}", identity.0 >> 96)
}

fn list(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 4;
    let items: Vec<String> = items.collect();
    match items.len().checked_sub(SHOWN) {
        None | Some(0) => items.join(", "),
        Some(more) => format!("{} and {more} more", items[..SHOWN].join(", ")),
    }
}
