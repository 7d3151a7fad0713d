//! A key-value store with ordered keys: get, set, del, cas, incr, scan.

mod codec;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

use ahash::RandomState;
use bytes::{Buf, BufMut, Bytes};
use hovercraft::{Class, Context, Reply, Service};

pub use codec::{CodecError, KEY_MAX, PAGE_MAX, Page, Request, Response, VALUE_MAX};

/// The store.
#[derive(Debug, Default)]
pub struct Kv {
    pairs: BTreeMap<Bytes, Bytes>,
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
        self.pairs.is_empty()
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

    fn scan(&self, start: Bytes, end: Option<&Bytes>, limit: u64, room: usize) -> Response {
        if limit == 0 {
            return Response::Error("a scan asks for at least one pair".to_owned());
        }
        let mut page = Page::default();
        let mut len = Page::EMPTY_LEN;
        let pairs = self.pairs.range((Bound::Included(start), Bound::Unbounded));
        let mut pairs = pairs.take_while(|(key, _)| end.is_none_or(|end| *key < end)).peekable();
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
            Ok(Request::Scan { start, end, limit }) => self.scan(start, end.as_ref(), limit, reply.remaining()),
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
        to.put_slice(SNAPSHOT_MAGIC);
        to.put_u32(SNAPSHOT_VERSION);
        to.put_u64(self.pairs.len() as u64);
        for (key, value) in &self.pairs {
            for part in [key, value] {
                to.put_u32(part.len() as u32);
                to.put_slice(part);
            }
        }
        to
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let mut from = snapshot;
        let short = |_| "the snapshot ends too early".to_owned();
        let Some((magic, rest)) = from.split_first_chunk::<8>() else { return Err(short(())) };
        if magic != SNAPSHOT_MAGIC {
            return Err("these bytes are not a snapshot of the key-value store".to_owned());
        }
        from = rest;
        let version = from.try_get_u32().map_err(|_| short(()))?;
        if version != SNAPSHOT_VERSION {
            return Err(format!("the snapshot has version {version}, this program reads {SNAPSHOT_VERSION}"));
        }
        let count = from.try_get_u64().map_err(|_| short(()))?;
        let mut restored = Self::default();
        for _ in 0..count {
            let mut part = || -> Result<Bytes, String> {
                let len = from.try_get_u32().map_err(|_| short(()))? as usize;
                let (part, rest) = from.split_at_checked(len).ok_or_else(|| short(()))?;
                from = rest;
                Ok(Bytes::copy_from_slice(part))
            };
            let (key, value) = (part()?, part()?);
            restored.set(key, value);
        }
        if !from.is_empty() {
            return Err(format!("{} bytes follow the end of the snapshot", from.len()));
        }
        *self = restored;
        Ok(())
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
