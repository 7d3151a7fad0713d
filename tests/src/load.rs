//! Clients that keep asking the key-value store, and what they saw: nothing may fail, and there must be one order of all
//! operations that explains every answer. At the end everything that was written is read once more, so that nothing that
//! was acknowledged can be missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::client::{ClientOptions, Completion, Kind, Outcome, PipelinedClient, Ticket};
use hovercraft_apps::kv::{Request, Response};
use r2p2::udp::Clock;
use simulator::History;
use simulator::history;
use simulator::linearizability::BUDGET_DEFAULT;
use simulator::linearizability::kv::{self, Op, Ret};

use crate::until;

/// Operations on a key before a fresh one takes its place, so that the check decides quickly.
const OPERATIONS_PER_KEY: u64 = 400;

/// How long a client waits at once for answers.
const PATIENCE: Duration = Duration::from_millis(20);

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    clock: Clock,
    shared: Arc<Shared>,
    clients: Vec<(JoinHandle<Record>, Sender<u64>)>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Operations answered, by client.
    answered: Vec<AtomicU64>,
    /// The latest generation of keys that anybody has used.
    generation: AtomicU64,
}

/// What a client saw.
#[derive(Debug, Default)]
struct Record {
    history: History<Op, Ret>,
    failed: Vec<Completion>,
    epoch: u64,
}

impl Load {
    /// Starts so many clients, which know of the group what `options` say, with one operation each at a time.
    pub fn start(options: &ClientOptions, clients: u64) -> Self {
        Self::pipelined(options, clients, 1)
    }

    /// Starts so many clients with so many operations in flight each.
    pub fn pipelined(options: &ClientOptions, clients: u64, in_flight: usize) -> Self {
        let clock = Clock::new();
        let answered = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), answered, generation: AtomicU64::new(0) });
        let run = |id: u64| {
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            let (last_words, told) = mpsc::channel();
            let work = move || {
                let client = PipelinedClient::connect(&options).expect("a socket");
                let worker = Worker { id, clock, client, waiting: HashMap::new(), record: Record::default() };
                worker.run(&shared, in_flight, &told)
            };
            (thread::spawn(work), last_words)
        };
        Self { clock, clients: (0..clients).map(run).collect(), shared }
    }

    /// Waits until every client has been answered so often from now on.
    #[track_caller]
    pub fn answered(&self, more: u64) {
        let before = self.counts();
        until("clients are answered", || {
            let now = self.counts();
            now.iter().zip(&before).all(|(now, before)| *now >= before + more)
        });
    }

    /// How many operations were answered so far.
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    fn counts(&self) -> Vec<u64> {
        self.shared.answered.iter().map(|of| of.load(Ordering::Relaxed)).collect()
    }

    /// Ends it, and reads everything once more. Returns how many operations were answered, and the lowest epoch that any
    /// client ended with.
    ///
    /// # Panics
    /// If any operation failed, or an answer cannot be explained.
    #[track_caller]
    pub fn finish(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::new();
        let mut epochs = Vec::new();
        // The first one reads when the others have done what they do.
        for (client, last_words) in self.clients.into_iter().rev() {
            _ = last_words.send(self.shared.generation.load(Ordering::Relaxed));
            let record = client.join().expect("a client panicked");
            assert_eq!(record.failed, [], "operations that failed, until {:?}", self.clock.now());
            history.append(record.history);
            epochs.push(record.epoch);
        }
        let report = kv::check(&history, BUDGET_DEFAULT);
        assert!(report.verdict.is_linearizable(), "{}", report.verdict);
        (history.operations().count() as u64, epochs.into_iter().min().unwrap_or(0))
    }
}

/// One client.
struct Worker {
    id: u64,
    clock: Clock,
    client: PipelinedClient,
    waiting: HashMap<Ticket, history::Ticket>,
    record: Record,
}

impl Worker {
    fn run(mut self, shared: &Shared, in_flight: usize, told: &Receiver<u64>) -> Record {
        let answered = &shared.answered[self.id as usize];
        let mut number = 0;
        while !shared.stop.load(Ordering::Relaxed) {
            while self.waiting.len() < in_flight {
                let generation = number * shared.answered.len() as u64 / OPERATIONS_PER_KEY;
                shared.generation.fetch_max(generation, Ordering::Relaxed);
                let (op, request) = choose(self.id, number, generation);
                self.submit(op, &request);
                number += 1;
            }
            answered.fetch_add(self.wait(), Ordering::Relaxed);
        }
        self.drain(0);
        let generation = told.recv().expect("whoever started it ends it");
        if self.id == 0 {
            for generation in 0..=generation {
                for key in [counter(generation), register(generation)] {
                    self.submit(Op::get(key.clone()), &Request::Get { key });
                    self.drain(in_flight);
                }
            }
            self.drain(0);
        }
        self.record.epoch = self.client.epoch();
        self.record
    }

    fn submit(&mut self, op: Op, request: &Request) {
        let kind = if request.is_read() { Kind::Read } else { Kind::Write };
        let called = self.record.history.call(self.id, self.clock.now(), op);
        let ticket = self.client.submit(kind, request.encode()).expect("a short request, and room for it");
        self.waiting.insert(ticket, called);
    }

    /// Waits until at most so many operations are in flight.
    fn drain(&mut self, left: usize) {
        while self.waiting.len() > left {
            self.wait();
        }
    }

    /// Waits for answers, and says how many there were.
    fn wait(&mut self) -> u64 {
        let mut answers = 0;
        for completion in self.client.wait(PATIENCE).expect("a socket that works") {
            let called = self.waiting.remove(&completion.ticket).expect("one completion for each operation");
            let reply = match &completion.outcome {
                Outcome::Ok(body) => Response::decode(body).ok().and_then(returned),
                _ => None,
            };
            match reply {
                Some(reply) => {
                    self.record.history.ret(called, self.clock.now(), reply);
                    answers += 1;
                }
                None => self.record.failed.push(completion),
            }
        }
        answers
    }
}

fn counter(generation: u64) -> Bytes {
    Bytes::from(format!("counter-{generation}"))
}

fn register(generation: u64) -> Bytes {
    Bytes::from(format!("register-{generation}"))
}

/// Operation number `number` of a client: all clients meet on the same few keys.
fn choose(id: u64, number: u64, generation: u64) -> (Op, Request) {
    let (counter, register) = (counter(generation), register(generation));
    match (number + id) % 4 {
        0 => (Op::incr(counter.clone(), 1), Request::Incr { key: counter, delta: 1 }),
        1 => {
            let value = Bytes::from(format!("{id}.{number}"));
            (Op::set(register.clone(), value.clone()), Request::Set { key: register, value })
        }
        2 => (Op::get(counter.clone()), Request::Get { key: counter }),
        _ => (Op::get(register.clone()), Request::Get { key: register }),
    }
}

fn returned(response: Response) -> Option<Ret> {
    Some(match response {
        Response::Value(value) => Ret::Value(value),
        Response::Stored => Ret::Stored,
        Response::Number(sum) => Ret::Number(sum),
        _ => return None,
    })
}
