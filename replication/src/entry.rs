//! One ordered record: [`Entry`], 64 bytes, without the request's body (protocol.md §1 "entry").

use std::net::{Ipv4Addr, SocketAddrV4};

use r2p2::wire::Session;
use r2p2::{Digest, DigestKey, Instant};

use crate::id::NodeId;
use crate::membership::Membership;

/// Bytes of an entry, in the log and in an Append. Bodies that travel inline follow it.
pub const ENTRY_LEN: usize = 64;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty first entry of a term; commits what earlier terms left behind.
    TermStart = 0,
    /// A client's request; its body travels separately.
    Request = 1,
    /// Opens a session whose id is this entry's index. Has no body.
    SessionOpen = 2,
    /// Says who belongs to the group from here on; its body, a [`crate::Membership`], travels and is kept with it.
    Membership = 3,
    /// Says which version of the service's behaviour is in force from here on; its body, a u32, travels and is kept with it.
    Version = 4,
}

/// One ordered record: who asked, who answers, when, and the digest of what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is for.
    pub kind: EntryKind,
    /// Decided by [`crate::Service::classify`] on the leader (protocol.md §6.3).
    pub read_only: bool,
    /// The one node that answers; never changes (protocol.md §6.4).
    pub replier: NodeId,
    /// The request as the client named it, for the answer's header.
    pub request: RequestHead,
    /// Log time: the leader's monotonic time, never going backwards along the log (protocol.md §3.3).
    pub time: Instant,
}

/// What names a request and says where its answer goes; everything about it but the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHead {
    /// Where the answer goes.
    pub client: SocketAddrV4,
    /// The client's request id, echoed in the answer.
    pub rid: u16,
    /// The operation, if the client has a session. `client == 0` asks to open one.
    pub session: Option<Session>,
    /// The request's identity: a keyed hash over body and whatever else makes it *this* request (see [`identity`]).
    pub identity: Digest,
    /// Length of the body in bytes.
    pub body_len: u32,
}

impl RequestHead {
    /// The head of nothing, for entries without a request.
    pub const NONE: Self = Self {
        client: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        rid: 0,
        session: None,
        identity: Digest(0),
        body_len: 0,
    };

    /// Whether this request asks to open a session.
    pub fn opens_session(&self) -> bool {
        self.session.is_some_and(|session| session.client == 0)
    }
}

/// The identity of a request: one 128-bit keyed hash that names it in the unordered set, in the log and in Fetch.
///
/// With a session it covers (client id, seq, body), so that it names an *operation* over all its retransmissions.
/// Without one, or while opening one, it covers the RPC id too: two clients that send the same bytes are two requests.
pub fn identity(key: &DigestKey, client: SocketAddrV4, rid: u16, session: Option<&Session>, body: &[u8]) -> Digest {
    // The first word of a session's hash is its id, a log index, so far below 2^62; the marks keep the others apart.
    const PLAIN: u64 = 1 << 63;
    const OPEN: u64 = 1 << 62;
    let address = u64::from(u32::from(*client.ip())) << 16 | u64::from(client.port());
    let scope = match session {
        None => (PLAIN | address, u64::from(rid)),
        Some(session) if session.client == 0 => (OPEN | address, session.seq),
        Some(session) => (session.client, session.seq),
    };
    r2p2::digest(key, Some(scope), body)
}

impl Entry {
    /// The empty first entry of a term.
    pub const fn term_start() -> Self {
        Self {
            kind: EntryKind::TermStart,
            read_only: false,
            replier: NodeId::NONE,
            request: RequestHead::NONE,
            time: Instant::ZERO,
        }
    }

    /// The entry that says who belongs to the group, in so many bytes.
    pub fn membership(body_len: usize, time: Instant) -> Self {
        let request = RequestHead { body_len: body_len as u32, ..RequestHead::NONE };
        Self { kind: EntryKind::Membership, request, time, ..Self::term_start() }
    }

    /// The entry that says which version of the service is in force.
    pub fn version(time: Instant) -> Self {
        Self { kind: EntryKind::Version, ..Self::membership(4, time) }
    }

    /// Whether its body travels and is kept with it, in every mode: no client has sent it.
    pub fn brings_body(&self) -> bool {
        matches!(self.kind, EntryKind::Membership | EntryKind::Version)
    }

    /// Whether such a body can be that of this entry.
    pub fn fits_body(&self, body: &[u8]) -> bool {
        match self.kind {
            EntryKind::Membership => Membership::parse(body).is_some(),
            EntryKind::Version => crate::node::parse_version(body).is_some(),
            EntryKind::TermStart | EntryKind::Request | EntryKind::SessionOpen => true,
        }
    }

    /// Whether somebody asked for it.
    pub fn is_request(&self) -> bool {
        matches!(self.kind, EntryKind::Request | EntryKind::SessionOpen)
    }

    /// Whether a node must hold the request's body before it may acknowledge this entry (protocol.md §6.2).
    pub fn needs_body(&self) -> bool {
        self.kind == EntryKind::Request && self.request.body_len > 0
    }

    /// Writes the entry's [`ENTRY_LEN`] bytes.
    pub fn emit(&self, to: &mut Vec<u8>) {
        let start = to.len();
        let mut flags = 0;
        if self.read_only {
            flags |= FLAG_READ_ONLY;
        }
        if self.request.session.is_some() {
            flags |= FLAG_SESSION;
        }
        to.push(self.kind as u8);
        to.push(flags);
        to.extend_from_slice(&self.replier.0.to_be_bytes());
        emit_head(&self.request, to);
        to.extend_from_slice(&self.time.as_nanos().to_be_bytes());
        debug_assert_eq!(to.len() - start, ENTRY_LEN);
    }

    /// Reads an entry from exactly [`ENTRY_LEN`] bytes; `None` if they are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_LEN] = bytes.try_into().ok()?;
        let kind = match bytes[0] {
            0 => EntryKind::TermStart,
            1 => EntryKind::Request,
            2 => EntryKind::SessionOpen,
            3 => EntryKind::Membership,
            4 => EntryKind::Version,
            _ => return None,
        };
        let flags = bytes[1];
        if flags & !(FLAG_READ_ONLY | FLAG_SESSION) != 0 {
            return None;
        }
        let request = parse_head(bytes[4..56].try_into().ok()?, flags & FLAG_SESSION != 0);
        Some(Self {
            kind,
            read_only: flags & FLAG_READ_ONLY != 0,
            replier: NodeId(u16::from_be_bytes([bytes[2], bytes[3]])),
            request,
            time: Instant::from_nanos(u64::from_be_bytes(bytes[56..64].try_into().ok()?)),
        })
    }
}

const FLAG_READ_ONLY: u8 = 0x01;
const FLAG_SESSION: u8 = 0x02;

/// Bytes of a [`RequestHead`] on the wire. Whether it has a session is said by a flag outside of it.
pub(crate) const HEAD_LEN: usize = 52;

const _: () = assert!(1 + 1 + 2 + HEAD_LEN + 8 == ENTRY_LEN);

pub(crate) fn emit_head(head: &RequestHead, to: &mut Vec<u8>) {
    let session = head.session.unwrap_or(Session { client: 0, seq: 0, first_unacked: 0 });
    to.extend_from_slice(&head.rid.to_be_bytes());
    to.extend_from_slice(&head.client.port().to_be_bytes());
    to.extend_from_slice(&head.client.ip().octets());
    to.extend_from_slice(&head.body_len.to_be_bytes());
    to.extend_from_slice(&session.client.to_be_bytes());
    to.extend_from_slice(&session.seq.to_be_bytes());
    to.extend_from_slice(&session.first_unacked.to_be_bytes());
    to.extend_from_slice(&head.identity.0.to_be_bytes());
}

pub(crate) fn parse_head(bytes: &[u8; HEAD_LEN], has_session: bool) -> RequestHead {
    let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let session = has_session.then(|| Session { client: u64_at(12), seq: u64_at(20), first_unacked: u64_at(28) });
    RequestHead {
        rid: u16_at(0),
        client: SocketAddrV4::new(Ipv4Addr::from(u32_at(4)), u16_at(2)),
        body_len: u32_at(8),
        session,
        identity: Digest(u128::from(u64_at(36)) << 64 | u128::from(u64_at(44))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry {
            kind: EntryKind::Request,
            read_only: true,
            replier: NodeId(3),
            request: RequestHead {
                client: SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 0x1234),
                rid: 0xabcd,
                session: Some(Session { client: 7, seq: 9, first_unacked: 8 }),
                identity: Digest(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
                body_len: 24,
            },
            time: Instant::from_nanos(0x0102_0304_0506_0708),
        }
    }

    #[test]
    fn entry_bytes_are_fixed() {
        let mut bytes = Vec::new();
        sample().emit(&mut bytes);
        let expected: [u8; ENTRY_LEN] = [
            0x01, 0x03, 0x00, 0x03, 0xab, 0xcd, 0x12, 0x34, 0x7f, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x08, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Entry::parse(&bytes), Some(sample()));
    }

    #[test]
    fn every_wrong_length_is_refused() {
        let bytes = [0; ENTRY_LEN + 1];
        for len in (0..ENTRY_LEN).chain([ENTRY_LEN + 1]) {
            assert_eq!(Entry::parse(&bytes[..len]), None);
        }
        assert_eq!(Entry::parse(&bytes[..ENTRY_LEN]), Some(Entry::term_start()));
    }

    #[test]
    fn unknown_kinds_and_flags_are_refused() {
        let mut bytes = Vec::new();
        sample().emit(&mut bytes);
        bytes[0] = 9;
        assert_eq!(Entry::parse(&bytes), None);
        bytes[0] = 1;
        bytes[1] = 0x80;
        assert_eq!(Entry::parse(&bytes), None);
    }

    #[test]
    fn identity_separates_what_must_be_separate() {
        let key = DigestKey::default();
        let client = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let session = |client, seq, first_unacked| Session { client, seq, first_unacked };
        let id =
            |address, rid, session: Option<Session>, body: &[u8]| identity(&key, address, rid, session.as_ref(), body);
        // An operation keeps its identity over retransmissions, from wherever they come.
        assert_eq!(id(client(1), 1, Some(session(5, 6, 1)), b"x"), id(client(2), 2, Some(session(5, 6, 6)), b"x"));
        assert_ne!(id(client(1), 1, Some(session(5, 6, 1)), b"x"), id(client(1), 1, Some(session(5, 7, 1)), b"x"));
        assert_ne!(id(client(1), 1, Some(session(5, 6, 1)), b"x"), id(client(1), 1, Some(session(5, 6, 1)), b"y"));
        // Without a session the RPC id is part of it.
        assert_ne!(id(client(1), 1, None, b"x"), id(client(2), 1, None, b"x"));
        assert_ne!(id(client(1), 1, None, b"x"), id(client(1), 2, None, b"x"));
        assert_eq!(id(client(1), 1, None, b"x"), id(client(1), 1, None, b"x"));
        // Two clients with the same nonce open two sessions.
        assert_ne!(id(client(1), 1, Some(session(0, 4, 0)), b""), id(client(2), 1, Some(session(0, 4, 0)), b""));
    }
}
