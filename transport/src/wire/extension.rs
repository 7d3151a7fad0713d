//! Typed extensions between header and body (protocol.md §3.3).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Digest, HEADER_LEN, ParseError};

/// What a header says beyond its fixed part.
///
/// On the wire each is a type byte, a length byte and as many bytes of value, all numbers in network order. A type 0
/// stands alone and is padding; unknown types are skipped.
///
/// | type | length | extension | on |
/// |---|---|---|---|
/// | 0 | - | padding | |
/// | 1 | 24 | session: client id, seq, first-unacknowledged seq | every packet, both directions |
/// | 2 | 8 | entry index | every packet of a response |
/// | 3 | 1 | reply status | first packet of a response |
/// | 4 | 16 | digest | first packet of a request of several packets |
/// | 5 | 0 | no handshake | first packet of a request of several packets |
/// | 6 | 7 | forwarded: client IPv4 address, client port, hop | every packet from a forwarder |
/// | 7 | 0 | admin | first packet of a request |
/// | 8 | any | reserved for authentication | |
/// | 9 | 8 | epoch of the membership | first packet of a response |
/// | 10 | 17 | answered: see [`Answered`](super::Answered) | FEEDBACK |
///
/// The last is not kept here but read by whoever takes FEEDBACK. The C implementation takes everything after the first 8
/// bytes for the body: send it no extension.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extensions {
    /// Which operation of which client this is about.
    pub session: Option<Session>,
    /// Where in the log the answered request was executed.
    pub entry_index: Option<u64>,
    /// What an answer says, if it is not a plain success.
    pub status: Option<ReplyStatus>,
    /// Of the whole message (see [`digest`](super::digest)).
    pub digest: Option<Digest>,
    /// The rest of the message follows without an ACK.
    pub no_handshake: bool,
    /// A forwarder passed it on.
    pub forwarded: Option<Forwarded>,
    /// This request is for the node itself and never ordered.
    pub admin: bool,
    /// Who makes up the group changes from time to time, and this counts up when it does: what whoever answers knows.
    pub epoch: Option<u64>,
}

/// Names an operation over all its retransmissions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session {
    /// The client's session, or 0 to ask for one. `seq` is then a nonce.
    pub client: u64,
    /// The operation's number in the session.
    pub seq: u64,
    /// All lower numbers are answered or given up.
    pub first_unacked: u64,
}

/// Whom a forwarder stands in for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Forwarded {
    /// Where the answer goes.
    pub client: SocketAddrV4,
    /// How many forwarders it has passed, against loops.
    pub hop: u8,
}

/// What an answer says, if it is not a plain success.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ReplyStatus {
    /// No such session; not executed.
    Expired = 1,
    /// Executed, but what it returned is no longer known.
    ReplyGone,
    /// The request is too large, not executed. The body is the limit in bytes (u64, network order) or empty.
    TooLarge,
    /// The service failed; the body says how.
    ServiceError,
    /// Not executed here: another node leads. The body may hint at it.
    NotLeader,
}

const SESSION: u8 = 1;
const ENTRY_INDEX: u8 = 2;
const STATUS: u8 = 3;
const DIGEST: u8 = 4;
const NO_HANDSHAKE: u8 = 5;
const FORWARDED: u8 = 6;
const ADMIN: u8 = 7;
const EPOCH: u8 = 9;
const PADDING: u8 = 0;

/// Type and length byte.
const PREFIX_LEN: usize = 2;
const SESSION_LEN: usize = 24;
const ENTRY_INDEX_LEN: usize = 8;
const STATUS_LEN: usize = 1;
const DIGEST_LEN: usize = 16;
const FORWARDED_LEN: usize = 7;
const EPOCH_LEN: usize = 8;

impl Extensions {
    /// Length in bytes of a header with all extensions there are.
    pub const HEADER_LEN_MAX: usize = HEADER_LEN
        + 8 * PREFIX_LEN
        + SESSION_LEN
        + ENTRY_INDEX_LEN
        + STATUS_LEN
        + DIGEST_LEN
        + FORWARDED_LEN
        + EPOCH_LEN;

    /// Length in bytes of a header with these extensions.
    pub const fn header_len(&self) -> usize {
        const fn len(present: bool, value_len: usize) -> usize {
            if present { PREFIX_LEN + value_len } else { 0 }
        }
        HEADER_LEN
            + len(self.session.is_some(), SESSION_LEN)
            + len(self.entry_index.is_some(), ENTRY_INDEX_LEN)
            + len(self.status.is_some(), STATUS_LEN)
            + len(self.digest.is_some(), DIGEST_LEN)
            + len(self.no_handshake, 0)
            + len(self.forwarded.is_some(), FORWARDED_LEN)
            + len(self.admin, 0)
            + len(self.epoch.is_some(), EPOCH_LEN)
    }

    /// Those of the later packets of a message: what they must be told apart by, and nothing that concerns the message
    /// as a whole.
    pub const fn of_later_packets(&self) -> Self {
        Self {
            session: self.session,
            entry_index: self.entry_index,
            status: None,
            digest: None,
            no_handshake: false,
            forwarded: self.forwarded,
            admin: false,
            epoch: None,
        }
    }

    pub(super) fn parse(raw: RawExtensions<'_>) -> Result<Self, ParseError> {
        let mut extensions = Self::default();
        let mut seen = 0u16;
        for extension in raw {
            let RawExtension { kind, value } = extension?;
            if kind > ADMIN && kind != EPOCH {
                continue;
            }
            if seen & 1 << kind != 0 {
                return Err(ParseError::RepeatedExtension(kind));
            }
            seen |= 1 << kind;
            extensions.set(kind, value)?;
        }
        Ok(extensions)
    }

    fn set(&mut self, kind: u8, value: &[u8]) -> Result<(), ParseError> {
        // The length is a byte on the wire.
        let bad = ParseError::BadExtension { kind, len: value.len() as u8 };
        match kind {
            SESSION => {
                let value: &[u8; SESSION_LEN] = value.try_into().map_err(|_| bad)?;
                let [client, seq, first_unacked] = [0, 8, 16].map(|at| u64_at(value, at));
                self.session = Some(Session { client, seq, first_unacked });
            }
            ENTRY_INDEX => self.entry_index = Some(u64::from_be_bytes(value.try_into().map_err(|_| bad)?)),
            STATUS => {
                let [status] = value else { return Err(bad) };
                self.status = Some(ReplyStatus::from_wire(*status).ok_or(ParseError::UnknownStatus(*status))?);
            }
            DIGEST => self.digest = Some(Digest(u128::from_be_bytes(value.try_into().map_err(|_| bad)?))),
            FORWARDED => {
                let &[a, b, c, d, port_high, port_low, hop] = value else { return Err(bad) };
                let port = u16::from_be_bytes([port_high, port_low]);
                self.forwarded = Some(Forwarded { client: SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port), hop });
            }
            NO_HANDSHAKE | ADMIN if !value.is_empty() => return Err(bad),
            NO_HANDSHAKE => self.no_handshake = true,
            ADMIN => self.admin = true,
            EPOCH => self.epoch = Some(u64::from_be_bytes(value.try_into().map_err(|_| bad)?)),
            _ => {}
        }
        Ok(())
    }

    /// Writes exactly `header_len() - HEADER_LEN` bytes.
    pub(super) fn emit(&self, buffer: &mut [u8]) {
        let mut rest = buffer;
        if let Some(Session { client, seq, first_unacked }) = self.session {
            let value = put(&mut rest, SESSION, SESSION_LEN);
            value[..8].copy_from_slice(&client.to_be_bytes());
            value[8..16].copy_from_slice(&seq.to_be_bytes());
            value[16..].copy_from_slice(&first_unacked.to_be_bytes());
        }
        if let Some(index) = self.entry_index {
            put(&mut rest, ENTRY_INDEX, ENTRY_INDEX_LEN).copy_from_slice(&index.to_be_bytes());
        }
        if let Some(status) = self.status {
            put(&mut rest, STATUS, STATUS_LEN)[0] = status as u8;
        }
        if let Some(digest) = self.digest {
            put(&mut rest, DIGEST, DIGEST_LEN).copy_from_slice(&digest.0.to_be_bytes());
        }
        if self.no_handshake {
            put(&mut rest, NO_HANDSHAKE, 0);
        }
        if let Some(Forwarded { client, hop }) = self.forwarded {
            let value = put(&mut rest, FORWARDED, FORWARDED_LEN);
            value[..4].copy_from_slice(&client.ip().octets());
            value[4..6].copy_from_slice(&client.port().to_be_bytes());
            value[6] = hop;
        }
        if self.admin {
            put(&mut rest, ADMIN, 0);
        }
        if let Some(epoch) = self.epoch {
            put(&mut rest, EPOCH, EPOCH_LEN).copy_from_slice(&epoch.to_be_bytes());
        }
        debug_assert!(rest.is_empty(), "header_len counts what emit writes");
    }
}

/// Writes type and length to the front of `rest`, takes them and the value off it, and gives the value to be filled.
fn put<'a>(rest: &mut &'a mut [u8], kind: u8, len: usize) -> &'a mut [u8] {
    let (extension, after) = std::mem::take(rest).split_at_mut(PREFIX_LEN + len);
    *rest = after;
    let (prefix, value) = extension.split_at_mut(PREFIX_LEN);
    prefix.copy_from_slice(&[kind, len as u8]);
    value
}

fn u64_at(value: &[u8; SESSION_LEN], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&value[at..at + 8]);
    u64::from_be_bytes(bytes)
}

impl ReplyStatus {
    const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Expired,
            2 => Self::ReplyGone,
            3 => Self::TooLarge,
            4 => Self::ServiceError,
            5 => Self::NotLeader,
            _ => return None,
        })
    }
}

/// One extension as it lies in the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawExtension<'a> {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// Walks the extensions of a packet, unknown ones included, padding excluded. Ends after the first that reaches beyond
/// the header.
#[derive(Clone, Debug)]
pub struct RawExtensions<'a> {
    rest: &'a [u8],
}

impl<'a> RawExtensions<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for RawExtensions<'a> {
    type Item = Result<RawExtension<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [PADDING, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (kind, len, rest) = match std::mem::take(&mut self.rest) {
            [] => return None,
            [kind] => return Some(Err(ParseError::BadExtension { kind: *kind, len: 0 })),
            [kind, len, rest @ ..] => (*kind, *len, rest),
        };
        let Some((value, rest)) = rest.split_at_checked(len.into()) else {
            return Some(Err(ParseError::BadExtension { kind, len }));
        };
        self.rest = rest;
        Some(Ok(RawExtension { kind, value }))
    }
}

impl fmt::Display for Extensions {
    /// Each behind a comma.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Session { client, seq, first_unacked }) = self.session {
            write!(f, ", session {client} seq {seq} unacked {first_unacked}")?;
        }
        if let Some(index) = self.entry_index {
            write!(f, ", index {index}")?;
        }
        if let Some(status) = self.status {
            write!(f, ", {status}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, ", digest {digest}")?;
        }
        if self.no_handshake {
            f.write_str(", no handshake")?;
        }
        if let Some(Forwarded { client, hop }) = self.forwarded {
            write!(f, ", forwarded for {client} hop {hop}")?;
        }
        if self.admin {
            f.write_str(", admin")?;
        }
        if let Some(epoch) = self.epoch {
            write!(f, ", epoch {epoch}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ReplyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "EXPIRED",
            Self::ReplyGone => "REPLY GONE",
            Self::TooLarge => "TOO LARGE",
            Self::ServiceError => "SERVICE ERROR",
            Self::NotLeader => "NOT LEADER",
        })
    }
}
