//! The client endpoint: sessions, retransmission, matching of answers. It never reads a clock, opens a socket or draws
//! a random number that its seed does not determine; a shell (or the simulator) drives it.

mod config;
mod counters;
mod operations;
mod outcome;
mod rids;
mod session;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Instant;
use crate::message::{Message, MessageHead, write_first_packet, write_later_packets, write_packets};
use crate::reassembly::{Reassembler, ReassemblyCounters, Reject};
use crate::wire::{self, Extensions, Header, MessageType, Packet, ReplyStatus, digest};

pub use config::{ClientConfig, Route};
pub use counters::ClientCounters;
pub use outcome::{ClientOutput, Completion, Kind, NotExecuted, Outcome, SubmitError, Target, Ticket};

use crate::rtt::RttEstimator;
use operations::{Operation, Operations, Path, Role};
use rids::Rids;
use session::Session;

/// A client endpoint, sans-IO.
///
/// # Contract
///
/// *Mutate, then drain.* After any call of `submit`, `submit_admin`, `cancel`, `handle_datagram` or `handle_timeout`
/// (or a batch of them) call [`poll_output`](Self::poll_output) until it says `Timeout`, obey each output, and call
/// `handle_timeout` when that time has come. Time must not run backwards. After a pause hand in the datagrams that are
/// waiting before the timeout, so that answers which did arrive are not given up.
///
/// Every ticket gets exactly one [`Completion`], at the latest `give_up` after its submission.
///
/// # Session mode
///
/// The first submission asks the servers for a session; operations are held meanwhile. Each then gets the next seq when
/// it is first sent and keeps seq and rid over all its retransmissions, so the servers execute it at most once
/// (protocol.md §3.3, §6.8). Operations in flight are concurrent, not FIFO: what must happen after another operation is
/// submitted after that one has completed. Giving up on an operation advances first-unacknowledged, and the next packet
/// of this client tells the servers to drop its late copies. An operation never moves to another session once a copy of
/// it has been sent. A DROP means *not accepted now* (protocol.md §9): the operation backs off and is sent again.
///
/// # Plain mode
///
/// Talks to any R2P2 server, without extensions. Nothing protects against double execution, so nothing is retransmitted
/// unless `plain_retransmit` says so. A request of several packets sends the first, and the rest to whoever
/// acknowledges it (protocol.md §3.2). A DROP of the only copy ends the operation as not executed.
///
/// # Example
///
/// ```
/// use r2p2::client::{Client, ClientConfig, ClientOutput, Kind, Target};
/// use r2p2::Instant;
///
/// let mut client = Client::new(ClientConfig { sessions: false, ..ClientConfig::default() }, 42);
/// let now = Instant::ZERO;
/// client.submit(now, Kind::Write, "increment".into()).unwrap();
/// let ClientOutput::Transmit { target: Target::Group, packet } = client.poll_output(now) else { panic!() };
/// assert!(packet.ends_with(b"increment"));
/// let ClientOutput::Timeout(at, "give up operation") = client.poll_output(now) else { panic!() };
/// client.handle_timeout(at);
/// assert!(matches!(client.poll_output(at), ClientOutput::Done(_)));
/// ```
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: SmallRng,
    operations: Operations,
    /// Operations of [`Role::Held`], oldest first.
    held: BTreeSet<Ticket>,
    /// Operations of [`Role::Session`] and [`Role::Plain`].
    in_flight: usize,
    /// Operations of [`Role::Admin`].
    admin_in_flight: usize,
    rids: Rids,
    /// Every operation that is armed, at its `wake`.
    timers: BTreeSet<(Instant, Ticket)>,
    rtt: RttEstimator,
    /// The current session, and earlier ones with operations still outstanding.
    sessions: BTreeMap<u64, Session>,
    current: Current,
    /// The node that answered last (`Route::Sticky`).
    sticky: Option<SocketAddrV4>,
    /// The newest epoch in any answer, and who said so.
    newest: Option<(u64, SocketAddrV4)>,
    /// When an operation was sent although none was in flight, or somebody answered one: whichever was later.
    heard: Instant,
    reassembler: Reassembler,
    transmits: VecDeque<(Target, Bytes)>,
    completions: VecDeque<Completion>,
    counters: ClientCounters,
}

/// The session that new operations use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Current {
    /// None, and none asked for.
    Closed,
    /// Asked for by the operation of this ticket, for the sake of the operations held.
    Opening(Ticket),
    /// The session of this id.
    Open(u64),
}

impl Client {
    /// A client with nothing outstanding. Its first rid, session nonces and jitter derive from `seed`; two clients
    /// that share an address one after the other should have different seeds.
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        let config = config.sanitized();
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            operations: Operations::default(),
            held: BTreeSet::new(),
            in_flight: 0,
            admin_in_flight: 0,
            rids: Rids::new(rng.random()),
            timers: BTreeSet::new(),
            rtt: RttEstimator::new(config.retransmit_initial, config.retransmit_min, config.retransmit_max),
            sessions: BTreeMap::new(),
            current: Current::Closed,
            sticky: None,
            newest: None,
            heard: Instant::ZERO,
            reassembler: Reassembler::new(config.reassembly, config.digest_key),
            transmits: VecDeque::new(),
            completions: VecDeque::new(),
            counters: ClientCounters::default(),
            rng,
            config,
        }
    }

    /// Accepts an operation: sends it now, or holds it until the session is open and limits and window permit.
    ///
    /// # Errors
    ///
    /// [`SubmitError::TooLarge`] beyond `request_max`; [`SubmitError::Full`] if `held_max` operations are held already,
    /// or if `outstanding_max + held_max` completions have not been drained.
    pub fn submit(&mut self, now: Instant, kind: Kind, body: Bytes) -> Result<Ticket, SubmitError> {
        self.check_size(&body)?;
        let undrained_max = self.config.outstanding_max + self.config.held_max;
        if self.held.len() >= self.config.held_max || self.completions.len() >= undrained_max {
            self.counters.refused_full += 1;
            return Err(SubmitError::Full { limit: self.config.held_max });
        }
        let may_send = self.held.is_empty() && self.may_send(now);
        let ticket = self.add(now, Role::Held, kind, body);
        if may_send {
            self.send_first(now, ticket);
        } else {
            self.held.insert(ticket);
            self.arm(ticket, now + self.config.give_up);
        }
        Ok(ticket)
    }

    /// Sends a request that is for the node at `node` itself (its status, say) and never ordered: outside any session,
    /// only to that node, retransmitted. It must be one of our servers, and need not be one of
    /// [`set_nodes`](Self::set_nodes).
    ///
    /// # Errors
    ///
    /// [`SubmitError::TooLarge`] beyond `request_max`; [`SubmitError::Full`] if `admin_max` are in flight. Admin
    /// requests are never held.
    pub fn submit_admin(&mut self, now: Instant, node: SocketAddrV4, body: Bytes) -> Result<Ticket, SubmitError> {
        self.check_size(&body)?;
        if self.admin_in_flight >= self.config.admin_max || self.transmits.len() >= self.config.transmits_max {
            self.counters.refused_full += 1;
            return Err(SubmitError::Full { limit: self.config.admin_max });
        }
        let ticket = self.add(now, Role::Admin { node }, Kind::Read, body);
        self.admin_in_flight += 1;
        self.send_first(now, ticket);
        Ok(ticket)
    }

    /// Gives up on an operation now: it completes as `Unknown`, or as `NotExecuted(NeverSent)` if it was still held.
    /// Says whether it was outstanding.
    pub fn cancel(&mut self, now: Instant, ticket: Ticket) -> bool {
        let known = self.operations.find(ticket).is_some_and(|operation| !matches!(operation.role, Role::Open { .. }));
        if known {
            self.give_up(now, ticket);
        }
        known
    }

    /// From now on the nodes are these, and the group (which is the shell's) reaches them. What is in flight was perhaps
    /// sent to nobody who still listens, so it is sent again at once, under the same rid and seq; what the servers refused
    /// a moment ago keeps its own time. Nothing happens if these are the nodes already.
    pub fn set_nodes(&mut self, now: Instant, nodes: &[SocketAddrV4]) {
        if self.config.nodes == nodes {
            return;
        }
        tracing::debug!(?now, ?nodes, in_flight = self.in_flight, "the nodes changed");
        self.counters.nodes_changed += 1;
        self.config.nodes = nodes.to_vec();
        self.sticky = self.sticky.filter(|sticky| nodes.contains(sticky));
        self.redirect(now);
    }

    /// The newest epoch of the membership that any answer has named, and who said so; see
    /// [`Extensions::epoch`](crate::wire::Extensions::epoch).
    pub const fn newest_epoch(&self) -> Option<(u64, SocketAddrV4)> {
        self.newest
    }

    /// Since when operations are in flight, or a session is asked for, and nobody has answered anything.
    pub fn silent_since(&self) -> Option<Instant> {
        self.awaits_answers().then_some(self.heard)
    }

    /// Takes in a UDP payload that came from `from`. Any bytes are safe.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        self.counters.packets_received += 1;
        let parsed = Packet::new_checked(packet).and_then(|packet| Ok((Header::parse(&packet)?, packet.payload())));
        let (header, payload) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.reject(error.into()),
        };
        match header.kind {
            MessageType::Response => self.handle_response(now, from, &header, payload),
            MessageType::Drop => self.handle_drop(now, &header),
            MessageType::Ack => self.handle_ack(from, &header),
            MessageType::Request
            | MessageType::Feedback
            | MessageType::RaftRequest
            | MessageType::RaftReply
            | MessageType::RaftMessage => self.counters.unexpected_kind += 1,
        }
    }

    /// Does what is due at `now`: retransmits, gives up, forgets partial replies. Harmless if nothing is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reassembler.expire(now);
        // Each operation leaves the set or moves beyond `now`, so this ends.
        while let Some(&(at, ticket)) = self.timers.first()
            && at <= now
        {
            self.handle_timer(now, ticket);
        }
    }

    /// The next thing for the shell to do; see the [contract](Self#contract).
    pub fn poll_output(&mut self, now: Instant) -> ClientOutput {
        if self.transmits.is_empty() && !self.held.is_empty() {
            self.send_held(now);
        }
        if let Some((target, packet)) = self.transmits.pop_front() {
            self.counters.packets_sent += 1;
            return ClientOutput::Transmit { target, packet };
        }
        if let Some(completion) = self.completions.pop_front() {
            return ClientOutput::Done(completion);
        }
        let (at, why) = self.next_timeout();
        ClientOutput::Timeout(at, why)
    }

    /// Operations and admin requests submitted and not ended.
    pub fn outstanding(&self) -> usize {
        self.operations.len() - usize::from(matches!(self.current, Current::Opening(_)))
    }

    /// Of those, how many have not been sent yet.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The id of the session that the next operation would use, while there is one.
    pub const fn session(&self) -> Option<u64> {
        match self.current {
            Current::Open(client) => Some(client),
            Current::Closed | Current::Opening(_) => None,
        }
    }

    /// The retransmission timeout as currently estimated.
    pub fn retransmit_timeout(&self) -> Duration {
        self.rtt.timeout()
    }

    /// The configuration as it is in force.
    pub const fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// What has been counted about replies of several packets.
    pub const fn reassembly_counters(&self) -> &ReassemblyCounters {
        self.reassembler.counters()
    }
}

/// Sending.
impl Client {
    fn check_size(&mut self, body: &Bytes) -> Result<(), SubmitError> {
        let limit = self.config.request_max;
        if body.len() > limit {
            self.counters.refused_too_large += 1;
            return Err(SubmitError::TooLarge { len: body.len(), limit });
        }
        Ok(())
    }

    fn add(&mut self, now: Instant, role: Role, kind: Kind, body: Bytes) -> Ticket {
        self.counters.submitted += 1;
        let give_up = now + self.config.give_up;
        self.operations.insert(Operation::new(role, kind, body, now, give_up))
    }

    /// Whether one more operation may go out now. Asks for a session if that is what is missing.
    fn may_send(&mut self, now: Instant) -> bool {
        if self.in_flight >= self.config.outstanding_max || self.transmits.len() >= self.config.transmits_max {
            return false;
        }
        if !self.config.sessions {
            return true;
        }
        match self.current {
            Current::Opening(_) => false,
            Current::Closed => {
                self.ask_for_session(now);
                false
            }
            Current::Open(client) => {
                let Some(session) = self.sessions.get(&client) else { return false };
                let idle = session.outstanding() == 0 && now.since(session.used()) > self.config.session_idle;
                if idle {
                    self.counters.sessions_idle += 1;
                    self.sessions.remove(&client);
                    self.ask_for_session(now);
                    return false;
                }
                session.has_room(self.config.seq_window)
            }
        }
    }

    fn ask_for_session(&mut self, now: Instant) {
        let role = Role::Open { nonce: self.rng.random() };
        // It is given up when nothing is held any more.
        let operation = Operation::new(role, Kind::Write, Bytes::new(), now, Instant::FAR_FUTURE);
        let ticket = self.operations.insert(operation);
        if !self.awaits_answers() {
            self.heard = now;
        }
        self.current = Current::Opening(ticket);
        self.send_first(now, ticket);
    }

    fn send_held(&mut self, now: Instant) {
        while let Some(&ticket) = self.held.first() {
            if !self.may_send(now) {
                break;
            }
            self.held.remove(&ticket);
            self.send_first(now, ticket);
        }
    }

    /// Gives the operation its rid (and seq) and sends its first copy.
    fn send_first(&mut self, now: Instant, ticket: Ticket) {
        let wait = self.rtt.timeout();
        if !self.awaits_answers() {
            self.heard = now;
        }
        let (Some(operation), Some(rid)) = (self.operations.find_mut(ticket), self.rids.allocate(ticket)) else {
            debug_assert!(false, "outstanding_max leaves half of all rids free");
            return;
        };
        operation.rid = rid;
        operation.first_sent = now;
        operation.wait = wait;
        if operation.role == Role::Held {
            self.in_flight += 1;
            operation.role = match self.current {
                Current::Open(client) if self.config.sessions => {
                    let seq = self.sessions.get_mut(&client).map_or(0, Session::take_seq);
                    Role::Session { client, seq }
                }
                Current::Open(_) | Current::Opening(_) | Current::Closed => Role::Plain { handshake: false },
            };
        }
        self.send_copy(now, ticket);
    }

    /// Sends a copy to wherever it is its turn to go, and sets the timer.
    fn send_copy(&mut self, now: Instant, ticket: Ticket) {
        let Some(operation) = self.operations.find_mut(ticket) else { return };
        let sticky = self.sticky.filter(|_| self.config.fan_out == Route::Sticky && !operation.to_group);
        let (target, path) = match (operation.role, sticky) {
            (Role::Admin { node }, _) => (Target::Address(node), Path::Full),
            (_, Some(address)) => (Target::Address(address), Path::Sticky(address)),
            (_, None) => (Target::Group, Path::Full),
        };
        let nodes = &self.config.nodes;
        let also = if matches!(operation.role, Role::Admin { .. }) || nodes.is_empty() {
            None
        } else {
            // Operations that time out together start at different nodes.
            let turn = operation.timeouts.checked_sub(self.config.unicast_after);
            turn.map(|turn| (ticket.serial() as usize).wrapping_add(turn as usize) % nodes.len())
                .map(|turn| Target::Address(nodes[turn]))
        };

        let session = match operation.role {
            Role::Open { nonce } => Some(wire::Session { client: 0, seq: nonce, first_unacked: 0 }),
            Role::Session { client, seq } => self.sessions.get(&client).map(|session| session.extension(seq)),
            Role::Held | Role::Plain { .. } | Role::Admin { .. } => None,
        };
        let admin = matches!(operation.role, Role::Admin { .. });
        let mut head = MessageHead {
            kind: MessageType::Request,
            policy: if admin { wire::Policy::Fixed } else { self.config.policy.unwrap_or(operation.kind.policy()) },
            rid: operation.rid,
            extensions: Extensions { session, admin, ..Extensions::default() },
        };
        let several_packets = !fits_one_packet(&head, &operation.body, self.config.packet_max);
        let transmits = &mut self.transmits;
        let mut emit = |packet: Bytes| {
            transmits.push_back((target, packet.clone()));
            transmits.extend(also.map(|node| (node, packet)));
        };
        let written = match &mut operation.role {
            Role::Plain { handshake } if several_packets => {
                *handshake = true;
                write_first_packet(&head, &operation.body, self.config.packet_max, &mut emit)
            }
            Role::Plain { .. } => write_packets(&head, &operation.body, self.config.packet_max, &mut emit),
            Role::Held | Role::Open { .. } | Role::Session { .. } | Role::Admin { .. } => {
                if several_packets {
                    let operation_name = session.map(|session| (session.client, session.seq));
                    head.extensions.no_handshake = true;
                    head.extensions.digest = Some(
                        *operation
                            .digest
                            .get_or_insert_with(|| digest(&self.config.digest_key, operation_name, &operation.body)),
                    );
                }
                write_packets(&head, &operation.body, self.config.packet_max, &mut emit)
            }
        };
        debug_assert!(written.is_ok(), "request_max leaves room for every header: {written:?}");

        operation.path = path;
        operation.backing_off = false;
        self.counters.retransmissions += u64::from(operation.attempts > 0);
        operation.attempts = operation.attempts.saturating_add(1);
        let wait = operation.wait;
        self.wake_after(now, ticket, wait);
    }

    /// Sends what is in flight once more, the oldest first.
    fn redirect(&mut self, now: Instant) {
        let wait = self.rtt.timeout();
        let mut tickets: Vec<Ticket> = self.timers.iter().map(|(_, ticket)| *ticket).collect();
        tickets.sort_unstable();
        for ticket in tickets {
            let Some(operation) = self.operations.find_mut(ticket) else { continue };
            let again = match operation.role {
                Role::Open { .. } | Role::Session { .. } => !operation.backing_off,
                Role::Plain { .. } => self.config.plain_retransmit && !operation.backing_off,
                Role::Held | Role::Admin { .. } => false,
            };
            if !again {
                continue;
            }
            // It was waited for an answer from somebody else.
            operation.wait = operation.wait.min(wait);
            if self.transmits.len() >= self.config.transmits_max {
                self.counters.retransmissions_skipped += 1;
                self.wake_after(now, ticket, wait);
                continue;
            }
            self.counters.redirected += 1;
            self.send_copy(now, ticket);
        }
    }

    /// Whether anything is in flight that is not about a single node.
    const fn awaits_answers(&self) -> bool {
        self.in_flight > 0 || matches!(self.current, Current::Opening(_))
    }

    /// Sets the operation's timer to after `wait` and some jitter, or to its end if that comes first.
    fn wake_after(&mut self, now: Instant, ticket: Ticket, wait: Duration) {
        let jitter = wait / 4 * self.rng.random_range(0..1024) / 1024;
        let Some(operation) = self.operations.find(ticket) else { return };
        let retransmits = !matches!(operation.role, Role::Plain { .. }) || self.config.plain_retransmit;
        let end = operation.give_up;
        self.arm(ticket, if retransmits { end.min(now + wait + jitter) } else { end });
    }

    fn arm(&mut self, ticket: Ticket, at: Instant) {
        let Some(operation) = self.operations.find_mut(ticket) else { return };
        if let Some(before) = operation.wake.replace(at) {
            self.timers.remove(&(before, ticket));
        }
        self.timers.insert((at, ticket));
    }
}

/// Timers.
impl Client {
    fn handle_timer(&mut self, now: Instant, ticket: Ticket) {
        let Some(operation) = self.operations.find_mut(ticket) else {
            debug_assert!(false, "a timer belongs to an operation");
            self.timers.pop_first();
            return;
        };
        if now >= operation.give_up {
            return self.give_up(now, ticket);
        }
        if !operation.backing_off {
            self.counters.timeouts += 1;
            if !matches!(operation.role, Role::Admin { .. }) {
                self.rtt.timed_out(operation.wait);
            }
            operation.wait = self.rtt.doubled(operation.wait);
            operation.timeouts = operation.timeouts.saturating_add(1);
            operation.to_group = true;
            if let Path::Sticky(address) = operation.path
                && self.sticky == Some(address)
            {
                self.sticky = None;
            }
        }
        if self.transmits.len() >= self.config.transmits_max {
            self.counters.retransmissions_skipped += 1;
            let wait = operation.wait;
            self.wake_after(now, ticket, wait);
            return;
        }
        self.send_copy(now, ticket);
    }

    fn give_up(&mut self, now: Instant, ticket: Ticket) {
        let Some(operation) = self.operations.find(ticket) else { return };
        tracing::debug!(?now, ?ticket, role = ?operation.role, attempts = operation.attempts, "gave up on an operation");
        let outcome = match operation.role {
            Role::Held => Outcome::NotExecuted(NotExecuted::NeverSent),
            Role::Open { .. } | Role::Session { .. } | Role::Plain { .. } | Role::Admin { .. } => Outcome::Unknown,
        };
        self.end(ticket, outcome, None, None);
    }

    fn next_timeout(&self) -> (Instant, &'static str) {
        let operation = self.timers.first().map(|&(at, ticket)| (at, self.reason(at, ticket)));
        let partial = self.reassembler.next_expiry().map(|at| (at, "forget partial reply"));
        match (operation, partial) {
            (Some(operation), Some(partial)) => operation.min(partial),
            (one, other) => one.or(other).unwrap_or((Instant::FAR_FUTURE, "nothing outstanding")),
        }
    }

    fn reason(&self, at: Instant, ticket: Ticket) -> &'static str {
        match self.operations.find(ticket) {
            None => "no operation",
            Some(operation) if operation.role == Role::Held => "give up held operation",
            Some(operation) if at == operation.give_up => "give up operation",
            Some(operation) if operation.backing_off => "retry after refusal",
            Some(operation) if matches!(operation.role, Role::Open { .. }) => "retransmit session request",
            Some(_) => "retransmit request",
        }
    }
}

/// Receiving.
impl Client {
    fn handle_response(&mut self, now: Instant, from: SocketAddrV4, header: &Header, payload: &[u8]) {
        let session = header.extensions.session;
        let operation = self.rids.find(header.rid).and_then(|ticket| Some((ticket, self.operations.find(ticket)?)));
        let belongs = operation.is_some_and(|(_, operation)| match operation.role {
            Role::Held => false,
            Role::Open { nonce } => session.is_some_and(|session| session.seq == nonce),
            Role::Session { client, seq } => session.is_some_and(|s| (s.client, s.seq) == (client, seq)),
            Role::Plain { .. } | Role::Admin { .. } => session.is_none(),
        });
        let Some((ticket, _)) = operation.filter(|_| belongs) else {
            let ended = session.and_then(|s| Some(self.sessions.get(&s.client)?.has_taken(s.seq)));
            match operation {
                None if self.rids.was_issued(header.rid) => self.counters.responses_late += 1,
                None => self.counters.responses_unknown += 1,
                Some(_) if ended == Some(true) => self.counters.responses_late += 1,
                Some(_) => self.counters.responses_mismatched += 1,
            }
            return;
        };
        match self.reassembler.accept_parsed(now, from, header, payload) {
            Ok(Some(message)) => self.handle_answer(now, from, ticket, message),
            Ok(None) => {}
            Err(reject) => self.reject(reject),
        }
    }

    /// A complete answer to the operation `ticket`.
    fn handle_answer(&mut self, now: Instant, from: SocketAddrV4, ticket: Ticket, answer: Message) {
        if let Some(epoch) = answer.extensions.epoch
            && self.newest.is_none_or(|(newest, _)| epoch > newest)
        {
            self.newest = Some((epoch, from));
        }
        if answer.extensions.status == Some(ReplyStatus::NotLeader) {
            return self.handle_not_leader(now, ticket);
        }
        let Some(operation) = self.operations.find(ticket) else { return };
        let admin = matches!(operation.role, Role::Admin { .. });
        if operation.attempts == 1 && !operation.backing_off && !admin {
            self.rtt.sample(now.since(operation.first_sent));
        }
        if !admin {
            self.sticky = Some(from);
            self.heard = now;
        }
        match operation.role {
            Role::Open { .. } => return self.handle_session_opened(ticket, &answer),
            Role::Session { client, .. } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.answered(operation.first_sent);
                }
                if answer.extensions.status == Some(ReplyStatus::Expired) && self.current == Current::Open(client) {
                    tracing::debug!(?now, client, "the servers no longer know the session");
                    self.counters.sessions_expired += 1;
                    self.current = Current::Closed;
                }
            }
            Role::Held | Role::Plain { .. } | Role::Admin { .. } => {}
        }
        let outcome = match answer.extensions.status {
            None => Outcome::Ok(answer.body),
            Some(ReplyStatus::ServiceError) => Outcome::ServiceError(answer.body),
            Some(ReplyStatus::Expired) => Outcome::Expired,
            Some(ReplyStatus::ReplyGone) => Outcome::ReplyGone,
            Some(ReplyStatus::TooLarge) => {
                Outcome::TooLarge { limit: stated_limit(&answer.body).unwrap_or(self.config.request_max) }
            }
            Some(ReplyStatus::NotLeader) => return,
        };
        self.end(ticket, outcome, answer.extensions.entry_index, Some(from));
    }

    fn handle_session_opened(&mut self, ticket: Ticket, answer: &Message) {
        let client = answer.extensions.session.map_or(0, |session| session.client);
        if answer.extensions.status.is_some() || client == 0 || self.sessions.contains_key(&client) {
            self.counters.responses_mismatched += 1;
            return;
        }
        let Some(operation) = self.operations.find(ticket) else { return };
        tracing::debug!(client, attempts = operation.attempts, "session opened");
        self.counters.sessions_opened += 1;
        self.sessions.insert(client, Session::new(client, operation.first_sent));
        self.current = Current::Open(client);
        self.end(ticket, Outcome::Ok(Bytes::new()), None, None);
    }

    fn handle_not_leader(&mut self, now: Instant, ticket: Ticket) {
        let Some(operation) = self.operations.find_mut(ticket) else { return };
        let Path::Sticky(address) = operation.path else {
            self.counters.not_leader_ignored += 1;
            return;
        };
        if operation.backing_off {
            self.counters.not_leader_ignored += 1;
            return;
        }
        self.counters.not_leader += 1;
        operation.backing_off = true;
        operation.to_group = true;
        if self.sticky == Some(address) {
            self.sticky = None;
        }
        self.wake_after(now, ticket, self.config.retransmit_min);
    }

    fn handle_drop(&mut self, now: Instant, header: &Header) {
        let ticket = self.rids.find(header.rid);
        let Some((ticket, operation)) = ticket.and_then(|ticket| Some((ticket, self.operations.find_mut(ticket)?)))
        else {
            self.counters.drops_ignored += 1;
            return;
        };
        let plain = matches!(operation.role, Role::Plain { .. });
        if operation.backing_off {
            self.counters.drops_ignored += 1;
            return;
        }
        self.counters.drops += 1;
        self.heard = now;
        if plain && operation.attempts == 1 {
            return self.end(ticket, Outcome::NotExecuted(NotExecuted::Dropped), None, None);
        }
        operation.backing_off = true;
        operation.wait = self.rtt.doubled(operation.wait);
        let wait = operation.wait;
        self.wake_after(now, ticket, wait);
    }

    /// The rest of a plain request of several packets goes to whoever acknowledges its first packet.
    fn handle_ack(&mut self, from: SocketAddrV4, header: &Header) {
        let ticket = self.rids.find(header.rid);
        let Some(operation) = ticket.and_then(|ticket| self.operations.find_mut(ticket)) else {
            self.counters.acks_ignored += 1;
            return;
        };
        let Role::Plain { handshake: waiting @ true } = &mut operation.role else {
            self.counters.acks_ignored += 1;
            return;
        };
        *waiting = false;
        self.counters.acks += 1;
        let head = MessageHead {
            kind: MessageType::Request,
            policy: self.config.policy.unwrap_or(operation.kind.policy()),
            rid: operation.rid,
            extensions: Extensions::default(),
        };
        let transmits = &mut self.transmits;
        let mut emit = |packet: Bytes| transmits.push_back((Target::Address(from), packet));
        let written = write_later_packets(&head, &operation.body, self.config.packet_max, &mut emit);
        debug_assert!(written.is_ok(), "the first packet could be written: {written:?}");
    }

    fn reject(&mut self, reject: Reject) {
        if let Some(count) = self.counters.rejected.get_mut(reject.index()) {
            *count += 1;
        }
    }
}

/// Ending.
impl Client {
    /// Removes every trace of an operation and tells the application.
    fn end(&mut self, ticket: Ticket, outcome: Outcome, entry_index: Option<u64>, from: Option<SocketAddrV4>) {
        let Some(operation) = self.operations.remove(ticket) else { return };
        if let Some(wake) = operation.wake {
            self.timers.remove(&(wake, ticket));
        }
        match operation.role {
            Role::Held => {
                self.held.remove(&ticket);
                if self.held.is_empty()
                    && let Current::Opening(opening) = self.current
                {
                    self.end(opening, Outcome::Unknown, None, None);
                }
            }
            Role::Open { .. } => {
                self.rids.release(operation.rid);
                if self.current == Current::Opening(ticket) {
                    self.current = Current::Closed;
                }
                return;
            }
            Role::Session { client, seq } => {
                self.rids.release(operation.rid);
                self.in_flight -= 1;
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.end(seq);
                    if session.outstanding() == 0 && self.current != Current::Open(client) {
                        self.sessions.remove(&client);
                    }
                }
            }
            Role::Plain { .. } => {
                self.rids.release(operation.rid);
                self.in_flight -= 1;
            }
            Role::Admin { .. } => {
                self.rids.release(operation.rid);
                self.admin_in_flight -= 1;
            }
        }
        let counters = &mut self.counters;
        *match &outcome {
            Outcome::Ok(_) => &mut counters.completed_ok,
            Outcome::NotExecuted(_) => &mut counters.completed_not_executed,
            Outcome::Unknown => &mut counters.completed_unknown,
            Outcome::Expired => &mut counters.completed_expired,
            Outcome::TooLarge { .. } => &mut counters.completed_too_large,
            Outcome::ReplyGone => &mut counters.completed_reply_gone,
            Outcome::ServiceError(_) => &mut counters.completed_service_error,
        } += 1;
        self.completions.push_back(Completion {
            ticket,
            outcome,
            entry_index,
            from,
            attempts: operation.attempts,
            submitted: operation.submitted,
        });
    }
}

fn fits_one_packet(head: &MessageHead, body: &[u8], packet_max: usize) -> bool {
    head.extensions.header_len() + body.len() <= packet_max
}

/// A TOO LARGE reply states the limit as eight bytes in network order.
fn stated_limit(body: &[u8]) -> Option<usize> {
    let limit = u64::from_be_bytes(body.try_into().ok()?);
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}
