//! Requests and responses of the key-value store as bytes: one byte that says what, then length-prefixed parts, network
//! byte order. Parsing never panics and never allocates more than it was given.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest key, bytes.
pub const KEY_MAX: usize = 1024;
/// Longest value, bytes: with the key and the rest it must fit a request, 64 KiB unless configured otherwise.
pub const VALUE_MAX: usize = 60 << 10;
/// Most pairs in one page of a scan.
pub const PAGE_MAX: u64 = 10_000;

/// What a client asks. Keys and values are any bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The value of a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Gives a key a value.
    Set {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Takes a key's value away.
    Del {
        /// The key.
        key: Bytes,
    },
    /// Gives a key a value if it has the expected one.
    Cas {
        /// The key.
        key: Bytes,
        /// What it must be now; `None`: it must have no value.
        expect: Option<Bytes>,
        /// What it becomes.
        new: Bytes,
    },
    /// Adds to a key's value, a decimal number as an increment writes it ("+7" and "007" are none); no value counts as
    /// 0.
    Incr {
        /// The key.
        key: Bytes,
        /// What to add.
        delta: i64,
    },
    /// The pairs in `start..end`, in order of their keys.
    Scan {
        /// First key.
        start: Bytes,
        /// First key after the range; `None`: to the end.
        end: Option<Bytes>,
        /// Most pairs, at least one.
        limit: u64,
    },
}

/// What the store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// To a get.
    Value(Option<Bytes>),
    /// To a set.
    Stored,
    /// To a del: whether there was a value.
    Deleted(bool),
    /// To a cas: done.
    Swapped,
    /// To a cas: not done, this is the value.
    Mismatch(Option<Bytes>),
    /// To an incr: the sum.
    Number(i64),
    /// To a scan.
    Page(Page),
    /// To anything: nothing was changed, and why.
    Error(String),
}

/// A part of the map.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Keys with their values, in order.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// Where to go on, if the page ends before the range does.
    pub next: Option<Bytes>,
}

/// Why bytes are not a request or a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// They end too early.
    #[error("the bytes end inside a field")]
    Truncated,
    /// They go on after the end.
    #[error("{0} bytes follow the end")]
    TrailingBytes(usize),
    /// No such request or response.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// A flag or text that means nothing.
    #[error("impossible value of the {0}")]
    BadValue(&'static str),
    /// The key is longer than [`KEY_MAX`].
    #[error("the key is {0} bytes long, the limit is {KEY_MAX}")]
    KeyTooLong(usize),
    /// The value is longer than [`VALUE_MAX`].
    #[error("the value is {0} bytes long, the limit is {VALUE_MAX}")]
    ValueTooLong(usize),
}

const GET: u8 = 1;
const SET: u8 = 2;
const DEL: u8 = 3;
const CAS: u8 = 4;
const INCR: u8 = 5;
const SCAN: u8 = 6;

const VALUE: u8 = 1;
const STORED: u8 = 2;
const DELETED: u8 = 3;
const SWAPPED: u8 = 4;
const MISMATCH: u8 = 5;
const NUMBER: u8 = 6;
const PAGE: u8 = 7;
const ERROR: u8 = 8;

impl Request {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Scan { .. })
    }

    /// Whether bytes *claim* to be a request that changes nothing, or are no request at all: what can be said without
    /// reading more than one byte, and is enough to classify. Bytes that then do not parse change nothing either.
    pub(super) fn claims_to_read(bytes: &[u8]) -> bool {
        !matches!(bytes.first(), Some(&(SET | DEL | CAS | INCR)))
    }

    /// The request's bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        match self {
            Self::Get { key } => {
                to.put_u8(GET);
                put(&mut to, key);
            }
            Self::Set { key, value } => {
                to.put_u8(SET);
                put(&mut to, key);
                put(&mut to, value);
            }
            Self::Del { key } => {
                to.put_u8(DEL);
                put(&mut to, key);
            }
            Self::Cas { key, expect, new } => {
                to.put_u8(CAS);
                put(&mut to, key);
                put_option(&mut to, expect.as_ref());
                put(&mut to, new);
            }
            Self::Incr { key, delta } => {
                to.put_u8(INCR);
                put(&mut to, key);
                to.put_i64(*delta);
            }
            Self::Scan { start, end, limit } => {
                to.put_u8(SCAN);
                put(&mut to, start);
                put_option(&mut to, end.as_ref());
                to.put_u64(*limit);
            }
        }
        to.freeze()
    }

    /// Reads a request; its parts share the bytes.
    ///
    /// # Errors
    /// What is wrong with them, limits included.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let mut from = bytes.clone();
        let request = match take_u8(&mut from)? {
            GET => Self::Get { key: take_key(&mut from)? },
            SET => Self::Set { key: take_key(&mut from)?, value: take_value(&mut from)? },
            DEL => Self::Del { key: take_key(&mut from)? },
            CAS => {
                Self::Cas { key: take_key(&mut from)?, expect: take_option(&mut from)?, new: take_value(&mut from)? }
            }
            INCR => Self::Incr { key: take_key(&mut from)?, delta: take_u64(&mut from)? as i64 },
            SCAN => {
                let start = take_key(&mut from)?;
                let end = take_option(&mut from)?;
                Self::Scan { start, end, limit: take_u64(&mut from)? }
            }
            other => return Err(CodecError::UnknownKind(other)),
        };
        end(&from)?;
        Ok(request)
    }
}

impl Response {
    /// The response's bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        match self {
            Self::Value(value) => {
                to.put_u8(VALUE);
                put_option(&mut to, value.as_ref());
            }
            Self::Stored => to.put_u8(STORED),
            Self::Deleted(existed) => {
                to.put_u8(DELETED);
                to.put_u8(u8::from(*existed));
            }
            Self::Swapped => to.put_u8(SWAPPED),
            Self::Mismatch(found) => {
                to.put_u8(MISMATCH);
                put_option(&mut to, found.as_ref());
            }
            Self::Number(sum) => {
                to.put_u8(NUMBER);
                to.put_i64(*sum);
            }
            Self::Page(page) => {
                to.put_u8(PAGE);
                put_option(&mut to, page.next.as_ref());
                to.put_u32(page.pairs.len() as u32);
                for (key, value) in &page.pairs {
                    put(&mut to, key);
                    put(&mut to, value);
                }
            }
            Self::Error(why) => {
                to.put_u8(ERROR);
                put(&mut to, why.as_bytes());
            }
        }
        to.freeze()
    }

    /// Reads a response; its parts share the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let mut from = bytes.clone();
        let response = match take_u8(&mut from)? {
            VALUE => Self::Value(take_option(&mut from)?),
            STORED => Self::Stored,
            DELETED => Self::Deleted(take_flag(&mut from)?),
            SWAPPED => Self::Swapped,
            MISMATCH => Self::Mismatch(take_option(&mut from)?),
            NUMBER => Self::Number(take_u64(&mut from)? as i64),
            PAGE => {
                let next = take_option(&mut from)?;
                let count = take_u32(&mut from)? as usize;
                if count > from.remaining() / 8 {
                    return Err(CodecError::Truncated);
                }
                let mut pairs = Vec::with_capacity(count);
                for _ in 0..count {
                    pairs.push((take(&mut from)?, take(&mut from)?));
                }
                Self::Page(Page { pairs, next })
            }
            ERROR => {
                let why = take(&mut from)?;
                Self::Error(std::str::from_utf8(&why).map_err(|_| CodecError::BadValue("text"))?.to_owned())
            }
            other => return Err(CodecError::UnknownKind(other)),
        };
        end(&from)?;
        Ok(response)
    }
}

impl Page {
    /// Bytes of an empty page that is the last.
    pub(super) const EMPTY_LEN: usize = 1 + 1 + 4;

    /// Bytes that a pair adds.
    pub(super) fn pair_len(key: &[u8], value: &[u8]) -> usize {
        8 + key.len() + value.len()
    }

    /// Bytes that it takes to say where to go on.
    pub(super) fn next_len(key: &[u8]) -> usize {
        4 + key.len()
    }
}

fn put(to: &mut BytesMut, part: &[u8]) {
    to.put_u32(part.len() as u32);
    to.put_slice(part);
}

fn put_option(to: &mut BytesMut, part: Option<&Bytes>) {
    to.put_u8(u8::from(part.is_some()));
    if let Some(part) = part {
        put(to, part);
    }
}

fn take_u8(from: &mut Bytes) -> Result<u8, CodecError> {
    from.try_get_u8().map_err(|_| CodecError::Truncated)
}

fn take_u32(from: &mut Bytes) -> Result<u32, CodecError> {
    from.try_get_u32().map_err(|_| CodecError::Truncated)
}

fn take_u64(from: &mut Bytes) -> Result<u64, CodecError> {
    from.try_get_u64().map_err(|_| CodecError::Truncated)
}

fn take_flag(from: &mut Bytes) -> Result<bool, CodecError> {
    match take_u8(from)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::BadValue("flag")),
    }
}

fn take(from: &mut Bytes) -> Result<Bytes, CodecError> {
    let len = take_u32(from)? as usize;
    if len > from.remaining() {
        return Err(CodecError::Truncated);
    }
    Ok(from.split_to(len))
}

fn take_option(from: &mut Bytes) -> Result<Option<Bytes>, CodecError> {
    if take_flag(from)? { take(from).map(Some) } else { Ok(None) }
}

fn take_key(from: &mut Bytes) -> Result<Bytes, CodecError> {
    let key = take(from)?;
    if key.len() > KEY_MAX { Err(CodecError::KeyTooLong(key.len())) } else { Ok(key) }
}

fn take_value(from: &mut Bytes) -> Result<Bytes, CodecError> {
    let value = take(from)?;
    if value.len() > VALUE_MAX { Err(CodecError::ValueTooLong(value.len())) } else { Ok(value) }
}

fn end(from: &Bytes) -> Result<(), CodecError> {
    if from.has_remaining() { Err(CodecError::TrailingBytes(from.remaining())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_byte_by_byte() {
        let request = Request::Set { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"\0v") };
        assert_eq!(&request.encode()[..], [2, 0, 0, 0, 1, b'k', 0, 0, 0, 2, 0, b'v']);
    }

    #[test]
    fn keys_and_values_at_the_limit_and_one_past_it() {
        let set = |key: usize, value: usize| {
            let bytes = Request::Set { key: vec![1; key].into(), value: vec![2; value].into() }.encode();
            Request::decode(&bytes).map(|_| ())
        };
        assert_eq!(set(KEY_MAX, VALUE_MAX), Ok(()));
        assert_eq!(set(KEY_MAX + 1, 0), Err(CodecError::KeyTooLong(KEY_MAX + 1)));
        assert_eq!(set(0, VALUE_MAX + 1), Err(CodecError::ValueTooLong(VALUE_MAX + 1)));
    }

    proptest! {
        #[test]
        fn requests_survive(request in any_request()) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn responses_survive(response in any_response()) {
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
        }

        #[test]
        fn what_is_cut_short_is_refused(request in any_request(), at in any::<prop::sample::Index>()) {
            let bytes = request.encode();
            prop_assert!(Request::decode(&bytes.slice(..at.index(bytes.len()))).is_err());
        }

        #[test]
        fn the_first_byte_tells_reads_from_writes(request in any_request()) {
            prop_assert_eq!(Request::claims_to_read(&request.encode()), request.is_read());
        }
    }

    fn part() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let option = || prop::option::of(part());
        prop_oneof![
            part().prop_map(|key| Request::Get { key }),
            (part(), part()).prop_map(|(key, value)| Request::Set { key, value }),
            part().prop_map(|key| Request::Del { key }),
            (part(), option(), part()).prop_map(|(key, expect, new)| Request::Cas { key, expect, new }),
            (part(), any::<i64>()).prop_map(|(key, delta)| Request::Incr { key, delta }),
            (part(), option(), any::<u64>()).prop_map(|(start, end, limit)| Request::Scan { start, end, limit }),
        ]
    }

    fn any_response() -> impl Strategy<Value = Response> {
        let option = || prop::option::of(part());
        let page = (prop::collection::vec((part(), part()), 0..4), option())
            .prop_map(|(pairs, next)| Response::Page(Page { pairs, next }));
        prop_oneof![
            option().prop_map(Response::Value),
            Just(Response::Stored),
            any::<bool>().prop_map(Response::Deleted),
            Just(Response::Swapped),
            option().prop_map(Response::Mismatch),
            any::<i64>().prop_map(Response::Number),
            page,
            ".{0,10}".prop_map(Response::Error),
        ]
    }
}
