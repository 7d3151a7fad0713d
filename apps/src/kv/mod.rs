//! A key-value store with ordered keys: get, set, del, cas, incr, scan.

mod codec;
mod map;

use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use ahash::RandomState;
use bytes::Bytes;
use hovercraft::{Class, Context, Reply, Service, SnapshotView};

pub use codec::{CodecError, KEY_MAX, PAGE_MAX, Page, Request, Response, VALUE_MAX};
use map::{Frozen, Map};

/// The store.
#[derive(Debug, Default)]
pub struct Kv {
    pairs: Map,
    /// Sum of the hashes of all pairs: independent of order, kept up to date with every change.
    hash: u64,
}

/// First bytes of a snapshot: what it is, and the version of its layout.
const SNAPSHOT_MAGIC: &[u8; 8] = b"hcraftkv";
const SNAPSHOT_VERSION: u32 = 1;

impl Kv {
    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&mut self, request: Request) -> Response {
        match request {
            Request::Set { key, value } => {
                self.set(key, value);
                Response::Stored
            }
            Request::Del { key } => Response::Deleted(self.del(&key)),
            Request::Cas { key, expect, new } => {
                let found = self.pairs.get(&key);
                if found == expect.as_ref() {
                    self.set(key, new);
                    Response::Swapped
                } else {
                    Response::Mismatch(found.cloned())
                }
            }
            Request::Incr { key, delta } => self.incr(key, delta),
            Request::Get { .. } | Request::Scan { .. } => Response::Error("a read was ordered as a write".to_owned()),
        }
    }

    fn incr(&mut self, key: Bytes, delta: i64) -> Response {
        let Some(number) = self.pairs.get(&key).map_or(Some(0), |value| number(value)) else {
            return Response::Error("the value is not a decimal number of 64 bits".to_owned());
        };
        let Some(sum) = number.checked_add(delta) else {
            return Response::Error(format!("{number} + {delta} does not fit 64 bits"));
        };
        self.set(key, sum.to_string().into());
        Response::Number(sum)
    }

    fn scan(&self, start: &Bytes, end: Option<&Bytes>, limit: u64, room: usize) -> Response {
        if limit == 0 {
            return Response::Error("a scan asks for at least one pair".to_owned());
        }
        let mut page = Page::default();
        let mut len = Page::EMPTY_LEN;
        let mut pairs = self.pairs.range(start).take_while(|(key, _)| end.is_none_or(|end| *key < end)).peekable();
        while let Some((key, value)) = pairs.next() {
            let pair_len = Page::pair_len(key, value);
            // Should the pair after this one not fit, its key still has to.
            let next_len = pairs.peek().map_or(0, |(next, _)| Page::next_len(next));
            if len + pair_len + next_len > room && page.pairs.is_empty() {
                // An empty page would send the client here again, for ever.
                return Response::Error(format!(
                    "a pair of {pair_len} bytes does not fit a reply of {room}: get it by its key, or raise \
                     `limits.reply_max`"
                ));
            }
            if page.pairs.len() as u64 >= limit.min(PAGE_MAX) || len + pair_len + next_len > room {
                page.next = Some(key.clone());
                break;
            }
            len += pair_len;
            page.pairs.push((key.clone(), value.clone()));
        }
        Response::Page(page)
    }

    fn set(&mut self, key: Bytes, value: Bytes) {
        // What arrived in one datagram may share its memory with much else; the store keeps only what it needs.
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        self.hash = self.hash.wrapping_add(pair_hash(&key, &value));
        if let Some(old) = self.pairs.insert(key.clone(), value) {
            self.hash = self.hash.wrapping_sub(pair_hash(&key, &old));
        }
    }

    fn del(&mut self, key: &Bytes) -> bool {
        match self.pairs.remove(key) {
            Some(old) => {
                self.hash = self.hash.wrapping_sub(pair_hash(key, &old));
                true
            }
            None => false,
        }
    }
}

impl Service for Kv {
    fn classify(request: &[u8]) -> Class {
        if Request::claims_to_read(request) { Class::Read } else { Class::Write }
    }

    fn apply(&mut self, _: &Context, request: &Bytes, reply: &mut Reply) {
        let response = match Request::decode(request) {
            Ok(request) => self.change(request),
            Err(error) => Response::Error(error.to_string()),
        };
        reply.write(&response.encode());
    }

    fn query(&self, _: &Context, request: &Bytes, reply: &mut Reply) {
        let response = match Request::decode(request) {
            Ok(Request::Get { key }) => Response::Value(self.pairs.get(&key).cloned()),
            Ok(Request::Scan { start, end, limit }) => self.scan(&start, end.as_ref(), limit, reply.remaining()),
            Ok(_) => Response::Error("a write was ordered as a read".to_owned()),
            Err(error) => Response::Error(error.to_string()),
        };
        reply.write(&response.encode());
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.hash)
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut to = Vec::new();
        self.view().write(&mut to).expect("a vector takes everything");
        to
    }

    fn restore(&mut self, mut snapshot: &[u8]) -> Result<(), String> {
        self.restore_from(&mut snapshot)
    }

    fn view(&self) -> Box<dyn SnapshotView> {
        Box::new(View(self.pairs.freeze()))
    }

    fn restore_from(&mut self, from: &mut dyn Read) -> Result<(), String> {
        let mut from = BufReader::with_capacity(READ_BUFFER, from);
        if array(&mut from)? != *SNAPSHOT_MAGIC {
            return Err("these bytes are not a snapshot of the key-value store".to_owned());
        }
        let version = u32::from_be_bytes(array(&mut from)?);
        if version != SNAPSHOT_VERSION {
            return Err(format!("the snapshot has version {version}, this program reads {SNAPSHOT_VERSION}"));
        }
        let count = u64::from_be_bytes(array(&mut from)?);
        let mut restored = Self::default();
        for _ in 0..count {
            let (key, value) = (part(&mut from)?, part(&mut from)?);
            restored.hash = restored.hash.wrapping_add(pair_hash(&key, &value));
            if restored.pairs.insert(key, value).is_some() {
                return Err("a key occurs twice in the snapshot".to_owned());
            }
        }
        if !from.fill_buf().map_err(|error| error.to_string())?.is_empty() {
            return Err("something follows the end of the snapshot".to_owned());
        }
        *self = restored;
        Ok(())
    }
}

/// The pairs as they were.
struct View(Frozen);

impl SnapshotView for View {
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        let mut to = BufWriter::new(to);
        to.write_all(SNAPSHOT_MAGIC)?;
        to.write_all(&SNAPSHOT_VERSION.to_be_bytes())?;
        to.write_all(&(self.0.len() as u64).to_be_bytes())?;
        for (key, value) in self.0.iter() {
            for part in [key, value] {
                to.write_all(&(part.len() as u32).to_be_bytes())?;
                to.write_all(part)?;
            }
        }
        to.flush()
    }
}

/// What is read of a snapshot at once.
const READ_BUFFER: usize = 64 << 10;
/// Longest key or value of which memory is taken before it has been read.
const PART_EXPECTED: u64 = 64 << 10;

fn array<const LEN: usize>(from: &mut impl Read) -> Result<[u8; LEN], String> {
    let mut bytes = [0; LEN];
    from.read_exact(&mut bytes).map_err(|error| short(&error))?;
    Ok(bytes)
}

/// A key or a value with its length.
fn part(from: &mut impl Read) -> Result<Bytes, String> {
    let len = u64::from(u32::from_be_bytes(array(from)?));
    let mut bytes = Vec::with_capacity(len.min(PART_EXPECTED) as usize);
    from.take(len).read_to_end(&mut bytes).map_err(|error| short(&error))?;
    if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err("the snapshot ends too early".to_owned()) }
}

fn short(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the snapshot ends too early".to_owned(),
        _ => error.to_string(),
    }
}

/// A value as a number, if it is written the way an increment writes it: no plus sign, no leading zeros.
fn number(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

fn pair_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    for part in [key, value] {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
