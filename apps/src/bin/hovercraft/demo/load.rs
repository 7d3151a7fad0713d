//! The demo's clients: each keeps several operations in flight on one socket, retries through the crash, and records
//! what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::client::{ClientOptions, Outcome, PipelinedClient};
use r2p2::Instant;
use r2p2::client::{Kind, Ticket};
use r2p2::udp::Clock;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::linearizability::kv::{KeyOp, Op, Ret};

use super::check::KvHistory;
use super::wire;
use crate::output::Failure;

/// Fewest keys in use at a time: few, so that clients meet on them.
const REGISTERS_MIN: usize = 8;
/// Operations in flight for each key in use, on average: with many more, the check would have to try too many orders.
const IN_FLIGHT_PER_REGISTER: usize = 4;
/// So many keys for one counter.
const REGISTERS_PER_COUNTER: usize = 2;
/// After so many operations a key is retired and a fresh one takes its place: short enough for the check to decide
/// quickly.
const OPERATIONS_PER_KEY: u64 = 1000;
/// Operations of the whole run: beyond that, clients slow down. Bounds the memory for the history.
const OPERATIONS_MAX: u64 = 1_000_000;
/// How long a client waits for something to happen before it looks at the clock.
const PACE: Duration = Duration::from_millis(2);

/// What the clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    /// Whether clients had to slow down for [`OPERATIONS_MAX`].
    pub(crate) held_back: AtomicBool,
    /// Whether nobody wants to know any more.
    given_up: AtomicBool,
    /// Operations on each key in use, of all its generations.
    registers: Vec<AtomicU64>,
    counters: Vec<AtomicU64>,
    /// Operations submitted so far.
    pub(crate) submitted: AtomicU64,
    /// Operations answered so far.
    pub(crate) answered: AtomicU64,
    /// When the leader was dead for certain, in nanoseconds; `u64::MAX` while it is not.
    dead: AtomicU64,
    /// The first completion of an operation submitted after that.
    back: AtomicU64,
}

impl Shared {
    /// For clients that keep `in_flight` operations in flight, all together.
    pub(crate) fn new(clock: Clock, start: Instant, end: Instant, in_flight: usize) -> Self {
        let registers = (in_flight / IN_FLIGHT_PER_REGISTER).max(REGISTERS_MIN);
        let slots = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            clock,
            start,
            end,
            held_back: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            registers: slots(registers),
            counters: slots(registers / REGISTERS_PER_COUNTER),
            submitted: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            dead: AtomicU64::new(u64::MAX),
            back: AtomicU64::new(u64::MAX),
        }
    }

    /// Ends the load at once, whatever is in flight.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// From now on the leader is dead.
    pub(crate) fn leader_is_dead(&self, now: Instant) {
        self.dead.store(now.as_nanos(), Ordering::SeqCst);
    }

    /// When something submitted after the leader's death was first answered.
    pub(crate) fn back(&self) -> Option<Instant> {
        let back = self.back.load(Ordering::SeqCst);
        (back != u64::MAX).then(|| Instant::from_nanos(back))
    }

    fn answered(&self, call: Instant, now: Instant) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if call.as_nanos() >= self.dead.load(Ordering::SeqCst) {
            self.back.fetch_min(now.as_nanos(), Ordering::SeqCst);
        }
    }

    /// A key to work on: a register or a counter, in its present generation.
    fn key(&self, rng: &mut SmallRng, counter: bool) -> Bytes {
        let slots: &[AtomicU64] = if counter { &self.counters } else { &self.registers };
        let slot = rng.random_range(0..slots.len());
        let generation = slots[slot].fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_KEY;
        let name = if counter { "counter" } else { "key" };
        format!("{name}-{slot}-{generation:04}").into()
    }

    /// Whether the load is ahead of what the history may hold.
    fn ahead(&self, now: Instant) -> bool {
        let share = now.since(self.start).as_secs_f64() / self.end.since(self.start).as_secs_f64().max(1e-9);
        let ahead = self.submitted.load(Ordering::Relaxed) as f64 > OPERATIONS_MAX as f64 * share.max(0.05);
        if ahead {
            self.held_back.store(true, Ordering::Relaxed);
        }
        ahead
    }
}

/// What one client brings home.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) history: KvHistory,
    pub(crate) replies: BTreeMap<SocketAddrV4, u64>,
    /// Copies of requests beyond the first.
    pub(crate) retransmitted: u64,
    /// Answers that make no sense.
    pub(crate) wrong: Option<String>,
}

/// A client, and what it is waiting for.
struct LoadClient<'a> {
    shared: &'a Shared,
    id: u64,
    client: PipelinedClient,
    waiting: BTreeMap<Ticket, (simulator::Ticket, Op, Instant)>,
    recording: Recording,
    /// What each register held when this client last saw it.
    seen: BTreeMap<Bytes, Option<Bytes>>,
}

/// Runs client number `id` until the load is over and everything in flight has ended.
pub(crate) fn run(shared: &Shared, id: u64, options: &ClientOptions, in_flight: usize) -> Result<Recording, Failure> {
    let mut client = LoadClient::connect(shared, id, options)?;
    let mut rng = SmallRng::seed_from_u64(id);
    loop {
        let now = shared.clock.now();
        let over = now >= shared.end;
        if over && client.waiting.is_empty() || shared.given_up.load(Ordering::Relaxed) {
            return Ok(client.recording);
        }
        while !over && client.waiting.len() < in_flight && !shared.ahead(now) {
            let op = client.choose(&mut rng);
            shared.submitted.fetch_add(1, Ordering::Relaxed);
            client.submit(op)?;
        }
        client.collect()?;
    }
}

/// Reads every key of `history` once more and adds that to it.
pub(crate) fn read_all(shared: &Shared, options: &ClientOptions, history: &mut KvHistory) -> Result<(), Failure> {
    let mut keys: Vec<Bytes> = Vec::new();
    for operation in history.operations() {
        if let Op::Key { key, .. } = &operation.input {
            keys.push(key.clone());
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let mut client = LoadClient::connect(shared, u64::MAX, options)?;
    for key in keys {
        while client.waiting.len() >= 64 {
            client.collect()?;
        }
        client.submit(Op::get(key))?;
    }
    while !client.waiting.is_empty() {
        client.collect()?;
    }
    history.append(client.recording.history);
    client.recording.wrong.map_or(Ok(()), |wrong| Err(Failure::new(wrong)))
}

impl<'a> LoadClient<'a> {
    fn connect(shared: &'a Shared, id: u64, options: &ClientOptions) -> Result<Self, Failure> {
        let client = PipelinedClient::connect(options)
            .map_err(|error| Failure::new(format!("a client cannot open its socket: {error}")))?;
        let (waiting, recording, seen) = Default::default();
        Ok(Self { shared, id, client, waiting, recording, seen })
    }

    fn choose(&mut self, rng: &mut SmallRng) -> Op {
        let dice = rng.random_range(0..100);
        let key = self.shared.key(rng, dice < 25);
        // Nobody else writes this value, ever.
        let mut fresh = || Bytes::from(format!("{}.{:016x}", self.id, rng.random::<u64>()));
        match dice {
            0..20 => Op::incr(key, 1),
            20..25 => Op::get(key),
            25..50 => Op::set(key, fresh()),
            50..65 => Op::cas(key.clone(), self.seen.get(&key).cloned().flatten(), fresh()),
            65..67 => Op::del(key),
            _ => Op::get(key),
        }
    }

    fn submit(&mut self, op: Op) -> Result<(), Failure> {
        let body = wire::encode(&op);
        let kind = if matches!(op, Op::Key { op: KeyOp::Get, .. }) { Kind::Read } else { Kind::Write };
        let call = self.shared.clock.now();
        let recorded = self.recording.history.call(self.id, call, op.clone());
        let ticket = self
            .client
            .submit(kind, body)
            .map_err(|error| Failure::new(format!("a client cannot submit an operation: {error}")))?;
        self.waiting.insert(ticket, (recorded, op, call));
        Ok(())
    }

    /// Waits for completions and records them.
    fn collect(&mut self) -> Result<(), Failure> {
        let completions =
            self.client.wait(PACE).map_err(|error| Failure::new(format!("a client's socket failed: {error}")))?;
        let now = self.shared.clock.now();
        for completion in completions {
            let Some((recorded, op, call)) = self.waiting.remove(&completion.ticket) else { continue };
            self.recording.retransmitted += u64::from(completion.attempts.saturating_sub(1));
            if let Some(from) = completion.from {
                *self.recording.replies.entry(from).or_default() += 1;
            }
            let history = &mut self.recording.history;
            match completion.outcome {
                Outcome::Ok(body) => {
                    self.shared.answered(call, now);
                    match wire::decode(&op, &body) {
                        Ok(ret) => {
                            // Only keys of the present generations matter.
                            if self.seen.len() > 4 * self.shared.registers.len() {
                                self.seen.clear();
                            }
                            remember(&mut self.seen, &op, &ret);
                            history.ret(recorded, now, ret);
                        }
                        Err(why) => {
                            history.executed(recorded, now);
                            self.recording.wrong.get_or_insert(format!("{op:?} was answered with nonsense: {why}"));
                        }
                    }
                }
                Outcome::ReplyGone => history.executed(recorded, now),
                Outcome::NotExecuted(_) | Outcome::TooLarge { .. } => history.not_executed(recorded),
                Outcome::Unknown | Outcome::Expired => {}
                Outcome::ServiceError(why) => {
                    let why = String::from_utf8_lossy(&why).into_owned();
                    self.recording.wrong.get_or_insert(format!("the service failed on {op:?}: {why}"));
                }
            }
        }
        Ok(())
    }
}

fn remember(seen: &mut BTreeMap<Bytes, Option<Bytes>>, op: &Op, ret: &Ret) {
    let Op::Key { key, op } = op else { return };
    let value = match (op, ret) {
        (_, Ret::Value(value) | Ret::Mismatch(value)) => value.clone(),
        (KeyOp::Set(new), Ret::Stored) | (KeyOp::Cas { new, .. }, Ret::Swapped) => Some(new.clone()),
        (KeyOp::Del, _) => None,
        _ => return,
    };
    seen.insert(key.clone(), value);
}
