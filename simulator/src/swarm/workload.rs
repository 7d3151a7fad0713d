//! What clients do in a run, and what they saw.

use std::collections::BTreeMap;

use hovercraft::{LogIndex, Service};
use r2p2::Instant;
use r2p2::client::{Completion, Kind, Outcome, Ticket};
use rand::Rng;
use rand::rngs::SmallRng;

use super::faults::wait;
use super::journal::{Journal, tagged};
use super::model::RegisterOp;
use super::options::Options;
use crate::World;
use crate::history::{self, History};
use crate::registers::{Request, decode_reply};
use crate::streams::stream;

/// Registers from here on are nobody's business: requests without a session may take effect more than once.
const UNCHECKED: u64 = 1 << 32;

/// All clients of a run.
#[derive(Debug)]
pub(super) struct Workload {
    clients: Vec<ClientWork>,
    /// By register.
    pub(super) histories: BTreeMap<u64, History<RegisterOp, u64>>,
    /// By register: every operation with its tag, and the index that the answer to a read named.
    indices: BTreeMap<u64, Vec<(history::Ticket, u64, Option<LogIndex>)>>,
    /// Operations that ended with an answer.
    pub(super) answered: u64,
    /// The first answer that is no answer.
    pub(super) nonsense: Option<String>,
}

#[derive(Debug)]
struct ClientWork {
    rng: SmallRng,
    plain: bool,
    left: usize,
    next: Instant,
    outstanding: BTreeMap<Ticket, Open>,
    last_seen: u64,
    /// Operations begun, which numbers them.
    begun: u64,
}

/// An operation under way. Its register is none if nobody checks it.
#[derive(Debug)]
struct Open {
    checked: Option<(u64, usize)>,
    is_read: bool,
    cancel_at: Instant,
}

impl Workload {
    pub(super) fn new(options: &Options) -> Self {
        let clients = (0..options.clients + options.plain_clients)
            .map(|number| ClientWork {
                rng: match number.checked_sub(options.plain_clients) {
                    None => stream(options.seed, "plain client", number as u64),
                    Some(number) => stream(options.seed, "client's work", number as u64),
                },
                plain: number < options.plain_clients,
                left: options.operations,
                next: Instant::ZERO,
                outstanding: BTreeMap::new(),
                last_seen: 0,
                begun: 0,
            })
            .collect();
        let histories = (0..options.registers).map(|register| (register, History::new())).collect();
        Self { clients, histories, indices: BTreeMap::new(), answered: 0, nonsense: None }
    }

    /// When something is to be done next.
    pub(super) fn next(&self, options: &Options) -> Instant {
        let submits = self
            .clients
            .iter()
            .filter(|client| client.left > 0 && client.outstanding.len() < options.pipeline)
            .map(|client| client.next);
        let cancels = self.clients.iter().flat_map(|client| client.outstanding.values().map(|open| open.cancel_at));
        submits.chain(cancels).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Operations that have not ended, of those that a session protects.
    pub(super) fn outstanding(&self) -> usize {
        self.clients.iter().filter(|client| !client.plain).map(|client| client.outstanding.len()).sum()
    }

    /// Nothing new, but for `more` operations of each client with a session; plain clients stop for good: what they
    /// have lost nobody repeats.
    pub(super) fn finish<S: Service>(&mut self, world: &mut World<S>, more: usize) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.left = if client.plain { 0 } else { more };
            client.next = world.now();
            for (&ticket, open) in &mut client.outstanding {
                open.cancel_at = Instant::FAR_FUTURE;
                if client.plain {
                    world.cancel(number, ticket);
                }
            }
        }
    }

    /// Takes what has ended, cancels and submits what is due.
    pub(super) fn act<S: Service>(&mut self, options: &Options, world: &mut World<S>) {
        let now = world.now();
        for number in 0..self.clients.len() {
            for (at, completion) in world.completions(number) {
                self.ended(options, number, at, completion);
            }
            let due: Vec<Ticket> = {
                let outstanding = &self.clients[number].outstanding;
                outstanding.iter().filter(|(_, open)| open.cancel_at <= now).map(|(ticket, _)| *ticket).collect()
            };
            for ticket in due {
                if let Some(open) = self.clients[number].outstanding.get_mut(&ticket) {
                    open.cancel_at = Instant::FAR_FUTURE;
                }
                world.cancel(number, ticket);
            }
            while self.clients[number].left > 0
                && self.clients[number].next <= now
                && self.clients[number].outstanding.len() < options.pipeline
            {
                self.submit(options, world, number);
            }
        }
    }

    fn submit<S: Service>(&mut self, options: &Options, world: &mut World<S>, number: usize) {
        let now = world.now();
        let client = &mut self.clients[number];
        let rng = &mut client.rng;
        client.left -= 1;
        client.next = now + wait(rng, options.think);
        let register = rng.random_range(0..options.registers);
        client.begun += 1;
        // Nobody else writes it.
        let value = (number as u64 + 1) << 24 | client.begun;
        let [get, set, cas, _] = options.mix;
        let draw = rng.random_range(0..options.mix.iter().sum());
        let op = match draw {
            draw if draw < get => RegisterOp::Get,
            draw if draw < get + set => RegisterOp::Set(value << 20),
            draw if draw < get + set + cas => RegisterOp::Cas(client.last_seen, value << 20),
            _ => RegisterOp::Add(rng.random_range(1..4)),
        };
        let is_read = op == RegisterOp::Get;
        let is_checked = is_read || !client.plain;
        let key = if is_checked { register } else { UNCHECKED + register };
        let request = match op {
            RegisterOp::Get => Request::Get(key),
            RegisterOp::Set(value) => Request::Set(key, value),
            RegisterOp::Cas(old, new) => Request::Cas(key, old, new),
            RegisterOp::Add(amount) => Request::Add(key, amount),
        };
        let (large, oversized) = (rng.random_bool(options.large), rng.random_bool(options.oversized));
        let len = rng.random_range(1_500..3_000);
        let len_min = match (oversized, large) {
            (true, _) if !client.plain => options.request_max + 1,
            (_, true) => len,
            (_, false) => 0,
        };
        let body = tagged(&request, len_min, value);
        let cancel = rng.random_bool(options.cancels);
        let patience = wait(rng, std::time::Duration::from_millis(5));
        let cancel_at = if cancel { now + patience } else { Instant::FAR_FUTURE };
        let kind = if is_read { Kind::Read } else { Kind::Write };
        let Ok(ticket) = world.try_submit(number, kind, body) else { return };
        let history = self.histories.entry(register).or_default();
        let checked = is_checked.then(|| {
            let indices = self.indices.entry(register).or_default();
            indices.push((history.call(number as u64, now, op), value, None));
            (register, indices.len() - 1)
        });
        client.outstanding.insert(ticket, Open { checked, is_read, cancel_at });
    }

    fn ended(&mut self, options: &Options, number: usize, at: Instant, completion: Completion) {
        let client = &mut self.clients[number];
        let Some(open) = client.outstanding.remove(&completion.ticket) else { return };
        let rest = client.rng.random_bool(options.rests);
        let think = wait(&mut client.rng, if rest { options.session_expiry * 2 } else { options.think });
        client.next = client.next.max(at + think);
        let answer = match &completion.outcome {
            Outcome::Ok(reply) => {
                self.answered += 1;
                let answer = decode_reply(reply).filter(|_| reply.len() == 8);
                if answer.is_none() {
                    self.nonsense.get_or_insert_with(|| format!("client {number} was answered {reply:02x?}"));
                }
                answer
            }
            Outcome::ServiceError(text) => {
                self.nonsense.get_or_insert_with(|| format!("client {number}: service error {text:?}"));
                None
            }
            _ => None,
        };
        client.last_seen = answer.unwrap_or(client.last_seen);
        let Some((register, place)) = open.checked else { return };
        let (Some(history), Some(indices)) = (self.histories.get_mut(&register), self.indices.get_mut(&register))
        else {
            return;
        };
        let (ticket, _, index) = &mut indices[place];
        let ticket = *ticket;
        // A write may be answered by an entry that repeats it; a read is what its entry says.
        *index = completion.entry_index.filter(|_| open.is_read);
        match (&completion.outcome, answer) {
            (_, Some(answer)) => history.ret(ticket, at, answer),
            (Outcome::ReplyGone, _) => history.executed(ticket, at),
            (Outcome::NotExecuted(_) | Outcome::TooLarge { .. }, _) => history.not_executed(ticket),
            // Unknown; and of an expired session, an earlier copy may have been executed while it lasted.
            _ => {}
        }
    }

    /// The order in which the operations on a register took effect, as far as anybody knows: that of the log.
    pub(super) fn order(&self, register: u64, journal: &Journal) -> Vec<history::Ticket> {
        let indices = self.indices.get(&register).into_iter().flatten();
        let mut order: Vec<(LogIndex, history::Ticket)> = indices
            .filter_map(|(ticket, tag, answered)| Some((answered.or_else(|| journal.executed(*tag))?, *ticket)))
            .collect();
        order.sort_unstable_by_key(|(index, _)| *index);
        order.into_iter().map(|(_, ticket)| ticket).collect()
    }
}
