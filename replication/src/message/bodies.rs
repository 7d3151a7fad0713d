//! Fetch, Bodies and Hint: how a body that multicast lost is found again (protocol.md §7.1).

use bytes::Bytes;
use multicast::message::Writer;
use r2p2::Digest;

use super::MessageError;
use super::reader::Reader;
use crate::entry::{HEAD_LEN, RequestHead, emit_head, parse_head};
use crate::id::LogIndex;

/// Most items in one Fetch or Hint: 50 x 24 bytes fit a datagram.
pub const ITEMS_MAX: usize = 50;

/// Bodies wanted. Always answered, if only by "not here".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// What is wanted.
    pub items: Vec<FetchItem>,
}

/// One body wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchItem {
    /// Where in the log its entry is, if there is one; 0 if not. Only a place to look first.
    pub index: LogIndex,
    /// Which request.
    pub identity: Digest,
}

/// Bodies, or that they are not here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bodies {
    /// What was found.
    pub found: Vec<Body>,
    /// What was not.
    pub missing: Vec<Digest>,
}

/// A request and its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// The request.
    pub head: RequestHead,
    /// Its bytes.
    pub body: Bytes,
}

impl Body {
    /// Bytes of it in a [`Bodies`].
    pub fn encoded_len(&self) -> usize {
        1 + HEAD_LEN + self.body.len()
    }
}

/// Requests that have waited unordered at a follower for too long: the leader may never have received them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Which.
    pub identities: Vec<Digest>,
}

impl Fetch {
    pub(super) fn emit(&self, to: &mut Writer) {
        to.u32(self.items.len() as u32);
        for item in &self.items {
            to.u64(item.index);
            to.u128(item.identity.0);
        }
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let count = count(from, 24)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(FetchItem { index: from.number()?, identity: Digest(from.u128()?) });
        }
        Ok(Self { items })
    }
}

impl Bodies {
    pub(super) fn emit(&self, to: &mut Writer) {
        to.u32(self.missing.len() as u32);
        for identity in &self.missing {
            to.u128(identity.0);
        }
        to.u32(self.found.len() as u32);
        for Body { head, body } in &self.found {
            to.u8(u8::from(head.session.is_some()));
            emit_head(head, to.buffer());
            to.bytes(body);
        }
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let missing_count = count(from, 16)?;
        let mut missing = Vec::with_capacity(missing_count);
        for _ in 0..missing_count {
            missing.push(Digest(from.u128()?));
        }
        let found_count = count(from, 1 + HEAD_LEN)?;
        let mut found = Vec::with_capacity(found_count);
        for _ in 0..found_count {
            let has_session = from.bool()?;
            let head = parse_head(&from.array()?, has_session);
            found.push(Body { head, body: from.bytes(head.body_len as usize)? });
        }
        Ok(Self { found, missing })
    }
}

impl Hint {
    pub(super) fn emit(&self, to: &mut Writer) {
        to.u32(self.identities.len() as u32);
        for identity in &self.identities {
            to.u128(identity.0);
        }
    }

    pub(super) fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let count = count(from, 16)?;
        let mut identities = Vec::with_capacity(count);
        for _ in 0..count {
            identities.push(Digest(from.u128()?));
        }
        Ok(Self { identities })
    }
}

fn count(from: &mut Reader<'_>, item_len_min: usize) -> Result<usize, MessageError> {
    let count = from.u32()? as usize;
    if count > ITEMS_MAX {
        return Err(MessageError::BadValue("number of items"));
    }
    if count > from.remaining() / item_len_min {
        return Err(MessageError::Truncated);
    }
    Ok(count)
}
