//! Clients that keep asking the key-value store, and what they saw: nothing may fail, and there must be one order of all
//! operations that explains every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use hovercraft::client::{Client, ClientOptions, Completion, Kind, Outcome};
use hovercraft_apps::kv::{Request, Response};
use r2p2::udp::Clock;
use simulator::History;
use simulator::linearizability::BUDGET_DEFAULT;
use simulator::linearizability::kv::{self, Op, Ret};

use crate::until;

/// Operations on a key before a fresh one takes its place, so that the check decides quickly.
const OPERATIONS_PER_KEY: u64 = 400;

/// Clients at work, one operation each at a time.
#[derive(Debug)]
pub struct Load {
    clock: Clock,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Record>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Operations answered, by client.
    answered: Vec<AtomicU64>,
}

/// What a client saw.
#[derive(Debug)]
struct Record {
    history: History<Op, Ret>,
    failed: Vec<Completion>,
    epoch: u64,
}

impl Load {
    /// Starts so many clients, which know of the group what `options` say.
    pub fn start(options: &ClientOptions, clients: u64) -> Self {
        let clock = Clock::new();
        let answered = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), answered });
        let run = |id: u64| {
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            thread::spawn(move || run(id, clock, &options, &shared))
        };
        Self { clock, clients: (0..clients).map(run).collect(), shared }
    }

    /// Waits until every client has been answered so often from now on.
    #[track_caller]
    pub fn answered(&self, more: u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let before: Vec<u64> = self.shared.answered.iter().map(count).collect();
        until("clients are answered", || {
            let mut now = self.shared.answered.iter().map(count).zip(&before);
            now.all(|(now, before)| now >= before + more)
        });
    }

    /// Ends it. Returns how many operations were answered, and the lowest epoch that any client ended with.
    ///
    /// # Panics
    /// If any operation failed, or an answer cannot be explained.
    #[track_caller]
    pub fn finish(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::new();
        let mut epochs = Vec::new();
        for client in self.clients {
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

fn run(id: u64, clock: Clock, options: &ClientOptions, shared: &Shared) -> Record {
    let mut client = Client::connect(options).expect("a socket");
    let mut record = Record { history: History::new(), failed: Vec::new(), epoch: 0 };
    let answered = &shared.answered[id as usize];
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let (op, request) = choose(id, number, shared.answered.len() as u64);
        let kind = if request.is_read() { Kind::Read } else { Kind::Write };
        let ticket = record.history.call(id, clock.now(), op);
        let completion = client.run(kind, request.encode()).expect("a short request");
        let reply = match &completion.outcome {
            Outcome::Ok(body) => Response::decode(body).ok().and_then(returned),
            _ => None,
        };
        match reply {
            Some(reply) => {
                record.history.ret(ticket, clock.now(), reply);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            None => record.failed.push(completion),
        }
    }
    record.epoch = client.epoch();
    record
}

/// Operation number `number` of a client: all clients meet on the same few keys.
fn choose(id: u64, number: u64, clients: u64) -> (Op, Request) {
    let generation = number * clients / OPERATIONS_PER_KEY;
    let counter = Bytes::from(format!("counter-{generation}"));
    let register = Bytes::from(format!("register-{generation}"));
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
