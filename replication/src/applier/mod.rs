//! Executes the log: [`Applier`] feeds committed entries to the session table and the service, and answers clients
//! (protocol.md §5.7, §7.8, §7.9).
//!
//! What an entry does to service and session table depends on the entry and on them alone. Whether this node answers
//! comes last and changes nothing but which packets leave it.

mod answer;
mod config;
mod effect;
mod failure;
mod frozen;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::Instant;
use r2p2::feedback::Outbox;
use r2p2::wire::{Feedback, ReplyStatus, Session};

use crate::entry::{Entry, EntryKind, RequestHead};
use crate::id::{LogIndex, NodeId};
use crate::membership::Membership;
use crate::service::{Context, Reply, Service};
use crate::session::{Admission, CachedReply, Lookup, Remembered, SessionTable, mix};
use answer::Answer;
pub use config::ApplierConfig;
pub use effect::{ApplierCounters, Effect};
use failure::catch;
pub use failure::{ApplyPanic, RestoreError};
pub use frozen::Frozen;
pub use work::{Committed, Work};

/// A service with its session table, at a point of the log.
///
/// Give it the node core's [`Work`] in order. It never waits, reads no clock and opens no socket: what is to be sent
/// goes to the `send` it is called with.
#[derive(Debug)]
pub struct Applier<S> {
    service: S,
    sessions: SessionTable,
    applied: LogIndex,
    /// Of the service's behaviour, 0 before the log has said which. Replicated state.
    version: u32,
    me: NodeId,
    group_seed: u64,
    reply_max: usize,
    packet_max: usize,
    /// Of the membership: answers name it.
    epoch: u64,
    skip: BTreeSet<LogIndex>,
    /// What forwarders are to be told, and who they are.
    feedback: Outbox,
    forwarders: Vec<SocketAddrV4>,
    /// Used for every reply, so that its memory is allocated once.
    reply: Reply,
    /// The service's state is unspecified.
    broken: bool,
    counters: ApplierCounters,
}

impl<S: Service> Applier<S> {
    /// Before the first entry.
    ///
    /// # Panics
    /// If the configuration is one that [`ApplierConfig`] excludes.
    pub fn new(service: S, config: ApplierConfig) -> Self {
        let reply_limit = answer::body_max(config.packet_max);
        assert!(config.reply_max <= reply_limit, "reply_max exceeds the {reply_limit} bytes of a message");
        Self {
            service,
            sessions: SessionTable::new(config.sessions),
            applied: 0,
            version: 0,
            me: config.me,
            group_seed: config.group_seed,
            reply_max: config.reply_max,
            packet_max: config.packet_max,
            epoch: config.epoch,
            skip: config.skip.into_iter().collect(),
            feedback: Outbox::new(config.feedback_epoch),
            forwarders: config.forwarders,
            reply: Reply::new(config.reply_max),
            broken: false,
            counters: ApplierCounters::default(),
        }
    }

    /// Executes one piece of work. `send(to, packet)` is called for every packet to a client, in order.
    ///
    /// # Errors
    /// The service panicked while it applied an entry. The entry does not count as applied, nothing was sent for it,
    /// and the service's state is unspecified: the node must stop (protocol.md §7.9).
    ///
    /// # Panics
    /// If entries do not come in the order of the log or without their body, or after an error. If the work needs an
    /// archive: that is for the caller, with [`Applier::freeze`] and [`Applier::restore`].
    pub fn handle(&mut self, work: Work, send: &mut dyn FnMut(SocketAddrV4, Bytes)) -> Result<Effect, ApplyPanic> {
        assert!(!self.broken, "an applier cannot go on after an error");
        match work {
            Work::Apply(committed) => self.apply(&committed, send),
            Work::Answer { request } => Ok(self.answer_again(&request, send)),
            Work::Epoch(epoch) => {
                self.set_membership_epoch(epoch);
                Ok(Effect::Membership)
            }
            work @ (Work::Snapshot(_) | Work::Install(_)) => panic!("an applier has no archive for {work:?}"),
            #[cfg(feature = "mutations")]
            Work::Query { request, body } => {
                let context = Context {
                    index: self.applied,
                    time: self.sessions.time(),
                    version: self.version_in_force(),
                    seed: 0,
                };
                self.reply.clear();
                self.service.query(&context, &body, &mut self.reply);
                let answer = Answer { index: Some(self.applied), status: None, body: self.reply.as_bytes() };
                answer.send(&request, self.epoch, self.packet_max, &mut self.counters, send);
                Ok(Effect::AnsweredAgain)
            }
        }
    }

    /// Tells gateways and routers what was answered since the last time, if there are any: to be called after a batch of
    /// work, with the `send` of [`Applier::handle`].
    pub fn flush_feedback(&mut self, send: &mut dyn FnMut(SocketAddrV4, Bytes)) {
        if self.feedback.is_fresh() {
            let forwarders = &self.forwarders;
            self.feedback.flush(&mut |packet| forwarders.iter().for_each(|to| send(*to, packet.clone())));
        }
    }

    /// A request does not burden the group any more, so its credit can go to another (protocol.md §9): it was answered,
    /// or there is nothing to answer.
    fn finished(&mut self, request: &RequestHead) {
        if !self.forwarders.is_empty() {
            self.feedback.answered(Feedback { rid: request.rid, client: request.client });
        }
    }

    /// The membership of this epoch is in force, by what is applied or installed so far: from here on answers name it, so
    /// that clients ask who the members are. An older one changes nothing. Not replicated state.
    pub fn set_membership_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// The epoch that answers name.
    pub fn membership_epoch(&self) -> u64 {
        self.epoch
    }

    /// The highest index that is applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// A hash of service, session table and applied index, equal on replicas at equal indices; `None` if the service
    /// does not know its own.
    pub fn state_hash(&self) -> Option<u64> {
        Some(mix(&[self.service.state_hash()?, self.sessions.hash(), self.applied, self.version.into()]))
    }

    /// What happened so far. Not replicated: counts what this node did since it was started.
    pub fn counters(&self) -> &ApplierCounters {
        &self.counters
    }

    /// Without a log there is nothing to agree on.
    fn version_in_force(&self) -> u32 {
        if self.version == 0 { S::VERSION } else { self.version }
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// The session table.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    fn apply(
        &mut self,
        committed: &Committed,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) -> Result<Effect, ApplyPanic> {
        let Committed { index, entry, ref body, replayed } = *committed;
        let entry = &Entry { replier: if replayed { NodeId::NONE } else { entry.replier }, ..entry };
        assert_eq!(index, self.applied + 1, "entries are applied in the order of the log");
        if entry.kind == EntryKind::Request {
            assert_eq!(body.len(), entry.request.body_len as usize, "entry {index} comes without its body");
        }
        let skew = if mutated!(ExpiryByLocalClock) {
            std::time::Duration::from_nanos(self.me.0.into())
        } else {
            Default::default()
        };
        let time = self.sessions.advance(entry.time + skew);
        // A term's first entry need not know the time.
        let excused = mutated!(ExpiryByLocalClock | LogTimeRestarts | AppliedBeforeCommit);
        debug_assert!(
            time == entry.time || entry.kind == EntryKind::TermStart || excused,
            "log time goes back at {index}"
        );
        let effect = match (entry.kind, entry.request.session) {
            (EntryKind::TermStart, _) => Effect::TermStart,
            (EntryKind::Membership, _) => {
                self.set_membership_epoch(Membership::parse(body).map_or(0, |membership| membership.epoch));
                Effect::Membership
            }
            (EntryKind::Version, _) => {
                self.version = crate::node::parse_version(body).unwrap_or(self.version);
                assert!(self.version <= S::VERSION, "the node core stops before");
                Effect::Version
            }
            (EntryKind::SessionOpen, nonce) => self.open(index, entry, nonce, send),
            (EntryKind::Request, None) => self.execute(index, time, entry, body, send)?,
            (EntryKind::Request, Some(_)) if mutated!(ReadsNotKept) && entry.read_only && entry.replier != self.me => {
                Effect::ReadElsewhere
            }
            (EntryKind::Request, Some(session)) => {
                match self.sessions.admit(session, index, entry.time, entry.read_only) {
                    Admission::Execute => self.execute(index, time, entry, body, send)?,
                    refused => self.refuse(index, entry, refused, send),
                }
            }
        };
        if entry.replier == self.me {
            self.finished(&entry.request);
        }
        self.applied = index;
        self.counters.count(effect);
        Ok(effect)
    }

    fn open(
        &mut self,
        index: LogIndex,
        entry: &Entry,
        nonce: Option<Session>,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) -> Effect {
        let client = self.sessions.open(index, entry.time);
        if entry.replier == self.me
            && let Some(nonce) = nonce
        {
            let request = RequestHead { session: Some(Session { client, ..nonce }), ..entry.request };
            self.answer(&request, Answer { index: Some(index), status: None, body: &[] }, send);
        }
        Effect::SessionOpened
    }

    fn execute(
        &mut self,
        index: LogIndex,
        time: Instant,
        entry: &Entry,
        body: &Bytes,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) -> Result<Effect, ApplyPanic> {
        let answers = entry.replier == self.me;
        if entry.read_only && !answers {
            return Ok(Effect::ReadElsewhere);
        }
        let by_program = mutated!(VersionOfProgram) && self.me.0.is_multiple_of(2);
        let version = if by_program { S::VERSION } else { self.version_in_force() };
        let context = Context { index, time, version, seed: mix(&[self.group_seed, index]) };
        let (service, reply) = (&mut self.service, &mut self.reply);
        reply.clear();
        let mut effect = if entry.read_only { Effect::Queried } else { Effect::Wrote };
        let mut status = None;
        if self.skip.contains(&index) {
            tracing::warn!(index, identity = ?entry.request.identity, "skipped, as the configuration says");
            complain(reply, "the request was skipped by decision of the operator");
            (effect, status) = (Effect::Skipped, Some(ReplyStatus::ServiceError));
        } else if entry.read_only {
            if let Err(message) = catch(|| service.query(&context, body, reply)) {
                tracing::warn!(index, identity = ?entry.request.identity, message, "the service panicked in a query");
                self.counters.query_panics += 1;
                complain(reply, &format!("the service panicked: {message}"));
                status = Some(ReplyStatus::ServiceError);
            }
        } else if let Err(message) = catch(|| service.apply(&context, body, reply)) {
            self.broken = true;
            return Err(ApplyPanic::new(index, &entry.request, body, message));
        }
        if reply.overflowed() {
            // Not TOO LARGE: that says of a request that it was not executed, and this one was.
            self.counters.replies_too_long += 1;
            let reply_max = self.reply_max;
            complain(reply, &format!("executed, but the reply is longer than the limit of {reply_max} bytes"));
            status = Some(ReplyStatus::ServiceError);
        }
        let read_only = entry.read_only && !mutated!(ReadChangesState);
        if let (false, Some(session)) = (read_only, entry.request.session) {
            self.sessions.record(session.client, session.seq, index, status, self.reply.as_bytes());
        }
        if answers {
            let answer = Answer { index: Some(index), status, body: self.reply.as_bytes() };
            answer.send(&entry.request, self.epoch, self.packet_max, &mut self.counters, send);
        }
        Ok(effect)
    }

    /// The session table has refused the request of an entry.
    fn refuse(
        &mut self,
        index: LogIndex,
        entry: &Entry,
        admission: Admission,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) -> Effect {
        let answers = entry.replier == self.me;
        match admission {
            Admission::Execute => unreachable!("executed"),
            Admission::Duplicate(remembered) => {
                if answers {
                    self.answer_remembered(&entry.request, &remembered, send);
                }
                Effect::Duplicate
            }
            Admission::Expired => {
                if answers {
                    self.answer(&entry.request, Answer::status(ReplyStatus::Expired, Some(index)), send);
                }
                Effect::Expired
            }
            Admission::AboveWindow => {
                if answers {
                    answer::drop_request(&entry.request, &mut self.counters, send);
                }
                Effect::AboveWindow
            }
            Admission::BelowWindow => Effect::BelowWindow,
        }
    }

    /// Answers a retransmission, from the session table as it is at this point of the log. Nothing here is ordered, so
    /// nothing may change the table.
    fn answer_again(&mut self, request: &RequestHead, send: &mut dyn FnMut(SocketAddrV4, Bytes)) -> Effect {
        let effect = match request.session.map(|session| (session, self.sessions.lookup(session.client, session.seq))) {
            Some((_, Lookup::Executed(remembered))) => {
                self.answer_remembered(request, &remembered, send);
                Effect::AnsweredAgain
            }
            // The id of a session to come is not known either. It is an index beyond what is applied here.
            Some((session, Lookup::NoSession)) if session.client != 0 && session.client <= self.applied => {
                self.answer(request, Answer::status(ReplyStatus::Expired, None), send);
                Effect::AnsweredAgain
            }
            Some((_, Lookup::NotExecuted | Lookup::BelowWindow | Lookup::NoSession)) | None => Effect::NothingToAnswer,
        };
        if effect == Effect::AnsweredAgain {
            self.finished(request);
        }
        self.counters.count(effect);
        effect
    }

    fn answer_remembered(
        &mut self,
        request: &RequestHead,
        remembered: &Remembered,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) {
        let answer = match remembered {
            Remembered::Reply(CachedReply { index, status, body }) => {
                Answer { index: Some(*index), status: *status, body }
            }
            Remembered::Gone => {
                self.counters.replies_gone += 1;
                Answer::status(ReplyStatus::ReplyGone, None)
            }
        };
        self.answer(request, answer, send);
    }

    fn answer(&mut self, request: &RequestHead, answer: Answer<'_>, send: &mut dyn FnMut(SocketAddrV4, Bytes)) {
        answer.send(request, self.epoch, self.packet_max, &mut self.counters, send);
    }
}

/// Replaces what the service wrote by a sentence, cut to what fits.
fn complain(reply: &mut Reply, sentence: &str) {
    reply.clear();
    let len = reply.remaining().min(sentence.len());
    reply.write(&sentence.as_bytes()[..len]);
}
