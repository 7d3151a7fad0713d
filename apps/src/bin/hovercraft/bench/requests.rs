//! Operations as the services' bytes.

use bytes::Bytes;
use hovercraft::client::Kind;
use hovercraft_apps::kv;
use hovercraft_apps::synthetic;
use measure::generator::{Request, Requests};
use measure::process;
use measure::workload::{Operation, Operations, ServiceTime};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

/// Requests to [`synthetic`].
pub(crate) struct Synthetic {
    pub(crate) rng: SmallRng,
    pub(crate) time: ServiceTime,
    /// What makes a microsecond; see [`units_per_us`].
    pub(crate) units_per_us: f64,
    pub(crate) request_len: usize,
    pub(crate) reply_len: u32,
    pub(crate) read_share: f64,
}

impl Requests for Synthetic {
    fn draw(&mut self) -> Request {
        let write = self.rng.random::<f64>() >= self.read_share;
        let spin = (self.time.draw(&mut self.rng) * self.units_per_us) as u32;
        let request = synthetic::Request { write, spin, reply_len: self.reply_len };
        let kind = if write { Kind::Write } else { Kind::Read };
        Request { kind, body: request.encode(self.request_len), then: None }
    }
}

/// How many steps of [`synthetic::spin`] make a microsecond of this machine: the fastest of several tries, so that nobody
/// who was in between counts.
pub(crate) fn units_per_us() -> f64 {
    const UNITS: u32 = 500_000;
    let time = || {
        let before = process::own_thread_time();
        std::hint::black_box(synthetic::spin(UNITS));
        (process::own_thread_time() - before).as_secs_f64() * 1e6
    };
    let fastest = (0..10).map(|_| time()).fold(f64::MAX, f64::min);
    f64::from(UNITS) / fastest.max(1.0)
}

/// Requests to [`kv`].
pub(crate) struct Kv {
    pub(crate) operations: Operations,
    pub(crate) value_len: usize,
}

impl Requests for Kv {
    fn draw(&mut self) -> Request {
        let get = |record| (Kind::Read, kv::Request::Get { key: key(record) }.encode());
        let (kind, body) = match self.operations.draw() {
            Operation::Read(record) => get(record),
            Operation::Write(record) => self.set(record),
            Operation::Scan(record, limit) => {
                (Kind::Read, kv::Request::Scan { start: key(record), end: None, limit }.encode())
            }
            Operation::ReadModifyWrite(record) => {
                let (kind, body) = get(record);
                return Request { kind, body, then: Some(self.set(record)) };
            }
        };
        Request { kind, body, then: None }
    }
}

impl Kv {
    fn set(&mut self, record: u64) -> (Kind, Bytes) {
        let mut value = vec![0; self.value_len];
        self.operations.rng().fill_bytes(&mut value);
        (Kind::Write, kv::Request::Set { key: key(record), value: value.into() }.encode())
    }
}

/// Writes all records once, in order; thread `part` of `parts` every `parts`-th.
pub(crate) struct Fill {
    pub(crate) next: u64,
    pub(crate) step: u64,
    pub(crate) value_len: usize,
}

impl Requests for Fill {
    fn draw(&mut self) -> Request {
        let set = kv::Request::Set { key: key(self.next), value: vec![0x5a; self.value_len].into() };
        self.next += self.step;
        Request { kind: Kind::Write, body: set.encode(), then: None }
    }
}

/// Records lie in the order of their numbers, so that a scan finds some.
fn key(record: u64) -> Bytes {
    format!("user{record:012}").into()
}
