//! The service of simulated clusters: numbered registers that can be read, set, compared and incremented.

use std::collections::BTreeMap;

use bytes::Bytes;
use hovercraft::{Class, Context, Reply, Service};

/// What a client asks of [`Registers`]. All numbers are unsigned; an unset register is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Its value.
    Get(u64),
    /// Sets it; the answer is the value before.
    Set(u64, u64),
    /// Sets it to the second value if it has the first; the answer is the value before.
    Cas(u64, u64, u64),
    /// Adds; the answer is the value after.
    Add(u64, u64),
}

impl Request {
    /// The request's bytes.
    pub fn encode(&self) -> Bytes {
        let words: Vec<u64> = match *self {
            Self::Get(key) => vec![0, key],
            Self::Set(key, value) => vec![1, key, value],
            Self::Cas(key, old, new) => vec![2, key, old, new],
            Self::Add(key, amount) => vec![3, key, amount],
        };
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// Reads a request. Bytes after it are ignored: they make requests of any length.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        Some(match word(0)? {
            0 => Self::Get(word(1)?),
            1 => Self::Set(word(1)?, word(2)?),
            2 => Self::Cas(word(1)?, word(2)?, word(3)?),
            3 => Self::Add(word(1)?, word(2)?),
            _ => return None,
        })
    }
}

/// A request for people: `add 3 to 1`.
pub fn tell_request(bytes: &[u8]) -> String {
    match Request::decode(bytes) {
        Some(Request::Get(key)) => format!("get {key}"),
        Some(Request::Set(key, value)) => format!("set {key} to {value}"),
        Some(Request::Cas(key, old, new)) => format!("set {key} from {old} to {new}"),
        Some(Request::Add(key, amount)) => format!("add {amount} to {key}"),
        None => format!("{} B that mean nothing", bytes.len()),
    }
}

/// An answer for people.
pub fn tell_reply(bytes: &[u8]) -> String {
    decode_reply(bytes).map_or_else(|| format!("{} B that mean nothing", bytes.len()), |value| value.to_string())
}

/// The registers. See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    values: BTreeMap<u64, u64>,
    /// Order-independent hash of all pairs, kept up to date.
    hash: u64,
    /// Times `query` ran here.
    pub queries: std::cell::Cell<u64>,
}

impl Registers {
    /// A register's value.
    pub fn value(&self, key: u64) -> u64 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    fn set(&mut self, key: u64, value: u64) {
        let old = self.values.insert(key, value);
        self.hash =
            self.hash.wrapping_sub(old.map_or(0, |old| pair_hash(key, old))).wrapping_add(pair_hash(key, value));
    }
}

/// The answer's value.
pub fn decode_reply(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}

impl Service for Registers {
    fn classify(request: &[u8]) -> Class {
        match Request::decode(request) {
            Some(Request::Get(_)) | None => Class::Read,
            Some(_) => Class::Write,
        }
    }

    fn apply(&mut self, _context: &Context, request: &Bytes, reply: &mut Reply) {
        let Some(request) = Request::decode(request) else { return };
        let answer = match request {
            Request::Get(key) => self.value(key),
            Request::Set(key, value) => {
                let before = self.value(key);
                self.set(key, value);
                before
            }
            Request::Cas(key, old, new) => {
                let before = self.value(key);
                if before == old {
                    self.set(key, new);
                }
                before
            }
            Request::Add(key, amount) => {
                self.set(key, self.value(key).wrapping_add(amount));
                self.value(key)
            }
        };
        reply.write(&answer.to_be_bytes());
    }

    fn query(&self, _context: &Context, request: &Bytes, reply: &mut Reply) {
        self.queries.set(self.queries.get() + 1);
        if let Some(Request::Get(key)) = Request::decode(request) {
            reply.write(&self.value(key).to_be_bytes());
        }
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.hash)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.values.iter().flat_map(|(key, value)| [key.to_be_bytes(), value.to_be_bytes()].concat()).collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let pairs = snapshot.chunks_exact(16);
        if !pairs.remainder().is_empty() {
            return Err(format!("{} bytes are no whole number of pairs", snapshot.len()));
        }
        *self = Self::default();
        for pair in pairs {
            let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| pair[at + i]));
            self.set(word(0), word(8));
        }
        Ok(())
    }
}

fn pair_hash(key: u64, value: u64) -> u64 {
    let mixed = (key ^ value.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb) ^ key.wrapping_mul(31).wrapping_add(value)
}
