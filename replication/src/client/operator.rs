//! Telling a group what an operator wants of it.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use r2p2::Instant;
use r2p2::client::{Outcome, SubmitError};

use super::{ClientOptions, ConnectError, PipelinedClient};
use crate::admin::{AdminCommand, AdminReply, LeaderHint, MembersReport, Refusal, RefusalReason};
use crate::id::{MemberId, NodeId};
use crate::node::StatusReport;

/// How long a node may take to answer before others are asked as well.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a change may take before the leader is told again: longer than an election.
const AGAIN: Duration = Duration::from_secs(1);
/// From a refusal that will pass to the next attempt.
const PAUSE: Duration = Duration::from_millis(10);

/// Somebody who operates a group: asks its nodes how they are, and tells its leader what is to change. Finds out who the
/// members are from whichever node of [`ClientOptions::nodes`] is up, and who leads from whichever answers.
#[derive(Debug)]
pub struct Operator {
    pub(super) client: PipelinedClient,
    seeds: Vec<SocketAddrV4>,
}

/// What a command has led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Who accepted it.
    pub by: SocketAddrV4,
    /// The epoch of the membership in which it is so, or began to become so.
    pub epoch: u64,
    /// Who the node is to be that was added.
    pub member: Option<MemberId>,
}

impl Operator {
    /// Opens a socket. Sends nothing.
    ///
    /// # Errors
    /// Why there is no socket, and what to do about it.
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        let seeds = options.nodes.iter().map(|(_, address)| *address).collect();
        Ok(Self { client: PipelinedClient::connect(options)?, seeds })
    }

    /// How the node that receives its requests at `address` is.
    ///
    /// # Errors
    /// Why there is no report, and what to do about it.
    pub fn status(&mut self, address: SocketAddrV4, patience: Duration) -> Result<StatusReport, OperatorError> {
        let answer = self.ask_one(address, &AdminCommand::Status, patience)?;
        StatusReport::decode(answer).map_err(|_| OperatorError::Unreadable { address })
    }

    /// Who makes up the group: the newest of what the nodes say that answer within `patience`. It returns at once when a
    /// node has answered that knows who leads, and everybody whom it was told at first has had a moment.
    ///
    /// # Errors
    /// Nobody has answered.
    pub fn members(&mut self, patience: Duration) -> Result<MembersReport, OperatorError> {
        let end = self.client.now() + patience;
        let mut known = self.seeds.clone();
        let mut newest: Option<MembersReport> = None;
        loop {
            let left = end.since(self.client.now());
            let answers = self.ask(&known, &AdminCommand::Members, left.min(PATIENCE))?;
            let reports = answers.iter().filter_map(|(_, answer)| MembersReport::decode(answer.as_ref()?));
            let order = |report: &MembersReport| (report.membership.epoch, report.term, report.leader.is_some());
            newest = reports.chain(newest).max_by_key(order);
            if let Some(report) = newest.as_ref().filter(|report| report.leader.is_some()) {
                return Ok(report.clone());
            }
            if self.client.now() >= end {
                return newest.ok_or(OperatorError::NoAnswer { asked: known });
            }
            for member in newest.iter().flat_map(|report| report.membership.members.values()) {
                if !known.contains(&member.addresses.requests) {
                    known.push(member.addresses.requests);
                }
            }
            self.pause()?;
        }
    }

    /// Who makes up the group, by whoever leads it: nobody else knows what was decided last.
    ///
    /// # Errors
    /// Nobody leads, or nobody answers.
    pub fn members_by_leader(&mut self, patience: Duration) -> Result<MembersReport, OperatorError> {
        let end = self.client.now() + patience;
        loop {
            let report = self.members(end.since(self.client.now()))?;
            if let Some((id, leader)) = report.leader() {
                let answers = self.ask(&[leader.addresses.requests], &AdminCommand::Members, PATIENCE)?;
                let theirs = answers.into_iter().find_map(|(_, answer)| MembersReport::decode(&answer?));
                if let Some(theirs) = theirs.filter(|theirs| theirs.leader == Some(id.node())) {
                    return Ok(theirs);
                }
            }
            if self.client.now() >= end {
                return Err(OperatorError::NobodyLeads { epoch: report.membership.epoch });
            }
            self.pause()?;
        }
    }

    /// Tells the leader what is to be, whoever that is by now, again and again until it is accepted, or is refused for a
    /// reason that will not pass, or `patience` is over. (Commands say what is to be: that one took effect although its
    /// answer was lost does no harm.)
    ///
    /// # Errors
    /// What it was refused for, and what to do about it.
    pub fn command(&mut self, command: &AdminCommand, patience: Duration) -> Result<Accepted, OperatorError> {
        let end = self.client.now() + patience;
        let mut hint: Option<LeaderHint> = None;
        let mut last: Option<OperatorError> = None;
        loop {
            let left = end.since(self.client.now());
            if left.is_zero() {
                return Err(last.unwrap_or(OperatorError::NoAnswer { asked: self.seeds.clone() }));
            }
            let to = match hint.take() {
                Some(hint) => hint.requests,
                None => {
                    let report = self.members(left)?;
                    match report.leader() {
                        Some((_, leader)) => leader.addresses.requests,
                        None => {
                            last = Some(OperatorError::NobodyLeads { epoch: report.membership.epoch });
                            continue;
                        }
                    }
                }
            };
            let answer = self.ask(&[to], command, left.min(PATIENCE))?.pop().and_then(|(_, answer)| answer);
            match answer.as_deref().map(AdminReply::decode) {
                None => last = last.or(Some(OperatorError::NoAnswer { asked: vec![to] })),
                Some(None) => return Err(OperatorError::Unreadable { address: to }),
                // It will be certain in a moment.
                Some(Some(AdminReply::Accepted { member: None, .. }))
                    if matches!(command, AdminCommand::Add { .. }) =>
                {
                    last = Some(OperatorError::NotCertain);
                    hint = self.same(to);
                }
                Some(Some(AdminReply::Accepted { epoch, member })) => return Ok(Accepted { by: to, epoch, member }),
                Some(Some(AdminReply::Refused(refusal))) => {
                    match refusal.reason {
                        RefusalReason::NotLeader | RefusalReason::Busy => {}
                        _ => return Err(OperatorError::Refused { command: command.name(), refusal }),
                    }
                    hint = refusal.leader;
                    last = Some(OperatorError::Refused { command: command.name(), refusal });
                }
            }
            self.pause()?;
        }
    }

    /// Tells one node, at `address`, what is to be, until it answers or `patience` is over.
    ///
    /// # Errors
    /// What it was refused for, and what to do about it.
    pub fn command_to(
        &mut self,
        address: SocketAddrV4,
        command: &AdminCommand,
        patience: Duration,
    ) -> Result<Accepted, OperatorError> {
        let answer = self.ask_one(address, command, patience)?;
        match AdminReply::decode(&answer) {
            None => Err(OperatorError::Unreadable { address }),
            Some(AdminReply::Accepted { epoch, member }) => Ok(Accepted { by: address, epoch, member }),
            Some(AdminReply::Refused(refusal)) => Err(OperatorError::Refused { command: command.name(), refusal }),
        }
    }

    /// Tells the leader what is to be, and waits until the members are as `done` says. A change that has begun is lost if its
    /// leader dies before it is committed, so it is told again and again.
    ///
    /// # Errors
    /// As [`Operator::command`], or it is not done when `patience` is over.
    pub fn carry_out(
        &mut self,
        command: &AdminCommand,
        patience: Duration,
        mut done: impl FnMut(&MembersReport) -> bool,
    ) -> Result<(Accepted, MembersReport), OperatorError> {
        let end = self.client.now() + patience;
        loop {
            let accepted = self.command(command, end.since(self.client.now()))?;
            let again = end.min(self.client.now() + AGAIN);
            loop {
                let report = self.members(end.since(self.client.now()))?;
                if done(&report) {
                    return Ok((accepted, report));
                }
                if self.client.now() >= end {
                    return Err(OperatorError::NotYet { epoch: report.membership.epoch });
                }
                if self.client.now() >= again {
                    break;
                }
                self.pause()?;
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.client.now()
    }

    /// Asks one node.
    pub(super) fn ask_one(
        &mut self,
        address: SocketAddrV4,
        command: &AdminCommand,
        patience: Duration,
    ) -> Result<Bytes, OperatorError> {
        let answer = self.ask(&[address], command, patience)?.pop().and_then(|(_, answer)| answer);
        answer.ok_or(OperatorError::NoAnswer { asked: vec![address] })
    }

    /// Asks several nodes at once. Each has `patience` to answer; what it did not answer in time is `None`.
    fn ask(
        &mut self,
        nodes: &[SocketAddrV4],
        command: &AdminCommand,
        patience: Duration,
    ) -> Result<Vec<(SocketAddrV4, Option<Bytes>)>, OperatorError> {
        let end = self.client.now() + patience;
        let mut answers: Vec<(SocketAddrV4, Option<Bytes>)> = nodes.iter().map(|node| (*node, None)).collect();
        // As many at a time as the client permits.
        let mut waiting = Vec::new();
        let mut next = 0;
        while next < nodes.len() || !waiting.is_empty() {
            while next < nodes.len() {
                match self.client.submit_admin(nodes[next], command.encode()) {
                    Ok(ticket) => waiting.push((ticket, next)),
                    Err(SubmitError::Full { .. }) if !waiting.is_empty() => break,
                    Err(error) => return Err(error.into()),
                }
                next += 1;
            }
            let left = end.since(self.client.now());
            if left.is_zero() {
                for (ticket, _) in waiting.drain(..) {
                    self.client.cancel(ticket);
                }
                self.client.poll().map_err(OperatorError::Socket)?;
                break;
            }
            for completion in self.client.wait(left).map_err(OperatorError::Socket)? {
                let Some(at) = waiting.iter().position(|(ticket, _)| *ticket == completion.ticket) else { continue };
                let (_, node) = waiting.swap_remove(at);
                if let Outcome::Ok(answer) = completion.outcome {
                    answers[node].1 = Some(answer);
                }
            }
        }
        Ok(answers)
    }

    fn same(&self, requests: SocketAddrV4) -> Option<LeaderHint> {
        Some(LeaderHint { node: NodeId::NONE, requests })
    }

    pub(super) fn pause(&mut self) -> Result<(), OperatorError> {
        let end: Instant = self.client.now() + PAUSE;
        while self.client.now() < end {
            self.client.wait(end.since(self.client.now())).map_err(OperatorError::Socket)?;
        }
        Ok(())
    }
}

/// Why it is not as the operator wants it. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody is there.
    #[error(
        "nobody answers at {}: those nodes are not running, or their `requests` addresses are others",
        asked.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoAnswer {
        /// Who was asked.
        asked: Vec<SocketAddrV4>,
    },
    /// Something else answered, or another version.
    #[error(
        "what answers at {address} is no node of this version; check `requests`, or use the program of its version"
    )]
    Unreadable {
        /// Where.
        address: SocketAddrV4,
    },
    /// Nothing can be changed now.
    #[error(
        "nobody leads the group (whose membership is of epoch {epoch}): a majority of its voters must be up, see \
         `hovercraft cluster status`"
    )]
    NobodyLeads {
        /// As far as is known.
        epoch: u64,
    },
    /// The group does not want to.
    #[error("`{command}` is refused: {}", refusal.text)]
    Refused {
        /// What was wanted.
        command: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// The leader has begun, and has not committed it.
    #[error("the leader has begun to add the node, but could not commit that: a majority of the voters must be up")]
    NotCertain,
    /// It takes longer.
    #[error(
        "the change has begun and is not done yet (epoch {epoch}); `hovercraft cluster members` shows how far it is"
    )]
    NotYet {
        /// As far as is known.
        epoch: u64,
    },
    /// No socket.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The socket became useless.
    #[error("the socket can no longer be used: {0}")]
    Socket(#[source] io::Error),
}
