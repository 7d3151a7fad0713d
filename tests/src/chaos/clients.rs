//! The load: clients in threads of their own, in a namespace of their own, which get, set, cas, delete and increment a few
//! keys, and write down what they saw. A round's keys are only its own, so it can be judged when it is over.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::client::{ClientOptions, Completion, Kind, Outcome, PipelinedClient, Ticket};
use hovercraft_apps::kv::{Request, Response};
use r2p2::Instant;
use r2p2::udp::Clock;
use rand::Rng;
use rand::rngs::SmallRng;
use simulator::history;
use simulator::linearizability::kv::{KeyOp, Op, Ret};
use simulator::streams::stream;

use super::judge::KvHistory;
use super::lab::Lab;
use super::setup::{Host, Setup};

/// Keys that are in use at a time.
const REGISTERS: u64 = 8;
/// Half as many counters.
const COUNTERS: u64 = 4;
/// Operations on all of them until fresh ones take their place, so that the check decides quickly.
const OPERATIONS_PER_GENERATION: u64 = 5_000;
/// Operations of a round: beyond that, clients slow down to what is left. Bounds memory and the time for the check.
const OPERATIONS_PER_SECOND_MAX: u64 = 20_000;
/// How long a client waits at once for answers.
const PACE: Duration = Duration::from_millis(5);
/// How patient half of the clients are; the others give up early.
const PATIENT: Duration = Duration::from_secs(20);
/// Once in so many turns a client is replaced by a new one, whatever it has in flight.
const CRASH_ONCE_IN: u32 = 4_000;

/// What a client is to do.
enum Order {
    /// Work with the keys of this round until paused.
    Work(u64),
    /// Read these.
    Read(Vec<Bytes>),
}

/// What a client brings home.
#[derive(Debug, Default)]
pub struct Record {
    /// What it saw.
    pub history: KvHistory,
    /// Operations by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Answers that make no sense, and failures of the client itself.
    pub wrong: Vec<String>,
    /// Copies of requests beyond the first.
    pub repeated: u64,
    /// How often it was replaced by a new client.
    pub crashes: u64,
}

impl Record {
    fn add(&mut self, other: Self) {
        self.history.append(other.history);
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.wrong.extend(other.wrong);
        self.repeated += other.repeated;
        self.crashes += other.crashes;
    }
}

/// The longest time without any completed operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gap {
    /// How long.
    pub nanos: u64,
    /// When it was over.
    pub until: u64,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    pause: AtomicBool,
    /// Operations submitted in this round.
    submitted: AtomicU64,
    /// When the round began, in nanoseconds.
    began: AtomicU64,
    /// When an operation was last completed, in nanoseconds.
    last: AtomicU64,
    longest: Mutex<Gap>,
    /// Operations answered, by client.
    answered: Vec<AtomicU64>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<(Sender<Order>, JoinHandle<()>)>,
    records: Receiver<Record>,
    working: usize,
}

impl Load {
    /// Clients that wait for the first round.
    pub fn new(setup: &Setup, options: &ClientOptions, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            clock,
            pause: AtomicBool::new(false),
            submitted: AtomicU64::new(0),
            began: AtomicU64::new(0),
            last: AtomicU64::new(0),
            longest: Mutex::default(),
            answered: (0..setup.clients).map(|_| AtomicU64::new(0)).collect(),
        });
        let (home, records) = mpsc::channel();
        let client = |id: u64| {
            let (orders, told) = mpsc::channel();
            let mut rng = stream(setup.seed, "client", id);
            let patience =
                if id.is_multiple_of(2) { PATIENT } else { Duration::from_millis(rng.random_range(300..3_000)) };
            let options = ClientOptions { give_up: patience, ..options.clone() };
            let (shared, home, in_flight) = (Arc::clone(&shared), home.clone(), setup.in_flight);
            let work = move || {
                let moved = Lab::move_thread(Host::Clients);
                let mut worker = Worker {
                    id,
                    shared,
                    options,
                    in_flight,
                    rng,
                    client: None,
                    waiting: HashMap::new(),
                    seen: BTreeMap::new(),
                    record: Record::default(),
                };
                if let Err(error) = moved {
                    worker.record.wrong.push(format!("client {id} cannot be moved: {error}"));
                }
                for order in told {
                    if let Err(error) = worker.obey(order) {
                        worker.record.wrong.push(format!("client {id}: {error}"));
                    }
                    worker.lose_all();
                    _ = home.send(std::mem::take(&mut worker.record));
                }
            };
            (orders, thread::spawn(work))
        };
        Self { shared: Arc::clone(&shared), clients: (0..setup.clients).map(client).collect(), records, working: 0 }
    }

    /// Begins a round.
    pub fn begin(&mut self, round: u64) {
        let now = self.shared.clock.now().as_nanos();
        self.shared.pause.store(false, Ordering::SeqCst);
        self.shared.submitted.store(0, Ordering::SeqCst);
        for time in [&self.shared.began, &self.shared.last] {
            time.store(now, Ordering::SeqCst);
        }
        for (orders, _) in &self.clients {
            _ = orders.send(Order::Work(round));
            self.working += 1;
        }
    }

    /// How many operations each client was answered so far.
    pub fn answered(&self) -> Vec<u64> {
        self.shared.answered.iter().map(|of| of.load(Ordering::Relaxed)).collect()
    }

    /// The longest time without any completed operation so far.
    pub fn longest_gap(&self) -> Gap {
        *self.shared.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks clients to come home with what they saw, when everything in flight has ended.
    pub fn pause(&self) {
        self.shared.pause.store(true, Ordering::SeqCst);
    }

    /// Has one client read keys. Nothing else may be going on.
    pub fn read(&mut self, keys: Vec<Bytes>) {
        // That nobody asked for anything meanwhile is no gap.
        self.shared.last.store(self.shared.clock.now().as_nanos(), Ordering::SeqCst);
        if let Some((orders, _)) = self.clients.first() {
            _ = orders.send(Order::Read(keys));
            self.working += 1;
        }
    }

    /// Adds what those bring home who come within this time. Whether all are home.
    pub fn collect(&mut self, patience: Duration, into: &mut Record) -> bool {
        if self.working > 0
            && let Ok(record) = self.records.recv_timeout(patience)
        {
            into.add(record);
            self.working -= 1;
        }
        self.working == 0
    }
}

struct Worker {
    id: u64,
    shared: Arc<Shared>,
    options: ClientOptions,
    in_flight: usize,
    rng: SmallRng,
    client: Option<PipelinedClient>,
    waiting: HashMap<Ticket, (history::Ticket, Op)>,
    /// What each register held when this client last saw it.
    seen: BTreeMap<Bytes, Option<Bytes>>,
    record: Record,
}

impl Worker {
    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Work(round) => {
                self.seen.clear();
                while !self.shared.pause.load(Ordering::Relaxed) {
                    while self.waiting.len() < self.in_flight && !self.ahead() {
                        let op = self.choose(round);
                        self.submit(op)?;
                    }
                    self.wait()?;
                    if self.rng.random_ratio(1, CRASH_ONCE_IN) {
                        self.lose_all();
                        self.client = None;
                        self.record.crashes += 1;
                    }
                }
            }
            Order::Read(keys) => {
                // One more client than there were: whoever gives up early must not be the one who reads.
                let early = self.client.take();
                for key in keys {
                    self.submit(Op::get(key))?;
                    while self.waiting.len() >= 64 {
                        self.wait()?;
                    }
                }
                self.drain()?;
                self.client = early;
                return Ok(());
            }
        }
        self.drain()
    }

    /// Nobody will ever know what became of what is in flight.
    fn lose_all(&mut self) {
        *self.record.outcomes.entry("lost with its client").or_default() += self.waiting.len() as u64;
        self.waiting.clear();
    }

    fn drain(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.wait()?;
        }
        Ok(())
    }

    fn client(&mut self) -> io::Result<&mut PipelinedClient> {
        let client = match self.client.take() {
            Some(client) => client,
            None => PipelinedClient::connect(&self.options).map_err(io::Error::other)?,
        };
        Ok(self.client.insert(client))
    }

    fn ahead(&self) -> bool {
        let began = Instant::from_nanos(self.shared.began.load(Ordering::Relaxed));
        let since = self.shared.clock.now().since(began).as_millis() as u64;
        self.shared.submitted.load(Ordering::Relaxed) > (since + 500) * OPERATIONS_PER_SECOND_MAX / 1000
    }

    /// The next operation: all clients meet on the same few keys.
    fn choose(&mut self, round: u64) -> Op {
        let number = self.shared.submitted.fetch_add(1, Ordering::Relaxed);
        let generation = number / OPERATIONS_PER_GENERATION;
        let rng = &mut self.rng;
        let dice = rng.random_range(0..100);
        let (name, count) = if dice < 30 { ("counter", COUNTERS) } else { ("register", REGISTERS) };
        let key = Bytes::from(format!("{round}-{generation}-{name}-{}", rng.random_range(0..count)));
        // Nobody else writes this value, ever. Some do not fit one packet.
        let mut fresh = || {
            let padding = if rng.random_ratio(1, 50) { rng.random_range(1_000..6_000) } else { 0 };
            Bytes::from(format!("{}.{:016x}{}", self.id, rng.random::<u64>(), ".".repeat(padding)))
        };
        match dice {
            0..22 => Op::incr(key, 1),
            22..30 => Op::get(key),
            30..50 => Op::set(key, fresh()),
            50..65 => Op::cas(key.clone(), self.seen.get(&key).cloned().flatten(), fresh()),
            65..68 => Op::del(key),
            _ => Op::get(key),
        }
    }

    fn submit(&mut self, op: Op) -> io::Result<()> {
        let Op::Key { key, op: key_op } = &op else { return Err(io::Error::other("no scans are asked for")) };
        let key = key.clone();
        let request = match key_op {
            KeyOp::Get | KeyOp::Exists => Request::Get { key },
            KeyOp::Set(value) => Request::Set { key, value: value.clone() },
            KeyOp::Del => Request::Del { key },
            KeyOp::Cas { expect, new } => Request::Cas { key, expect: expect.clone(), new: new.clone() },
            KeyOp::Incr(delta) => Request::Incr { key, delta: *delta },
        };
        let kind = if request.is_read() { Kind::Read } else { Kind::Write };
        let called = self.record.history.call(self.id, self.shared.clock.now(), op.clone());
        let ticket = self.client()?.submit(kind, request.encode()).map_err(io::Error::other)?;
        self.waiting.insert(ticket, (called, op));
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let completions = self.client()?.wait(PACE)?;
        let now = self.shared.clock.now();
        for completion in completions {
            if let Some((called, op)) = self.waiting.remove(&completion.ticket) {
                self.completed(now, called, &op, &completion);
            }
        }
        Ok(())
    }

    fn completed(&mut self, now: Instant, called: history::Ticket, op: &Op, completion: &Completion) {
        self.record.repeated += u64::from(completion.attempts.saturating_sub(1));
        let history = &mut self.record.history;
        let outcome = match &completion.outcome {
            Outcome::Ok(body) => {
                self.shared.answered(self.id, now);
                match returned(body) {
                    Ok(ret) => {
                        remember(&mut self.seen, op, &ret);
                        history.ret(called, now, ret);
                    }
                    Err(why) => {
                        history.executed(called, now);
                        self.record.wrong.push(format!("{op:?} was answered with nonsense: {why}"));
                    }
                }
                "answered"
            }
            Outcome::ReplyGone => {
                history.executed(called, now);
                "reply gone"
            }
            Outcome::NotExecuted(_) | Outcome::TooLarge { .. } => {
                history.not_executed(called);
                "not executed"
            }
            Outcome::Unknown => "unknown",
            Outcome::Expired => "session expired",
            Outcome::ServiceError(why) => {
                self.record.wrong.push(format!("the service failed on {op:?}: {}", why.escape_ascii()));
                "service error"
            }
        };
        *self.record.outcomes.entry(outcome).or_default() += 1;
    }
}

impl Shared {
    fn answered(&self, client: u64, now: Instant) {
        self.answered[client as usize].fetch_add(1, Ordering::Relaxed);
        let until = now.as_nanos();
        let nanos = until.saturating_sub(self.last.fetch_max(until, Ordering::Relaxed));
        // Hardly ever: more than what is worth looking at.
        if nanos > 10_000_000 {
            let mut longest = self.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if nanos > longest.nanos {
                *longest = Gap { nanos, until };
            }
        }
    }
}

fn returned(body: &Bytes) -> Result<Ret, String> {
    Ok(match Response::decode(body).map_err(|error| error.to_string())? {
        Response::Value(value) => Ret::Value(value),
        Response::Stored => Ret::Stored,
        Response::Deleted(existed) => Ret::Deleted(existed),
        Response::Swapped => Ret::Swapped,
        Response::Mismatch(found) => Ret::Mismatch(found),
        Response::Number(sum) => Ret::Number(sum),
        other => return Err(format!("{other:?}")),
    })
}

fn remember(seen: &mut BTreeMap<Bytes, Option<Bytes>>, op: &Op, ret: &Ret) {
    let Op::Key { key, op } = op else { return };
    let value = match (op, ret) {
        (_, Ret::Value(value) | Ret::Mismatch(value)) => value.clone(),
        (KeyOp::Set(new), Ret::Stored) | (KeyOp::Cas { new, .. }, Ret::Swapped) => Some(new.clone()),
        (KeyOp::Del, _) => None,
        _ => return,
    };
    // Keys come and go; what was seen of old ones is of no use.
    if seen.len() > 4 * REGISTERS as usize {
        seen.clear();
    }
    seen.insert(key.clone(), value);
}
