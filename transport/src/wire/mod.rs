//! The wire format (protocol.md §3): views and values of headers, extensions and control packets.
//!
//! [`Packet`] is a view of received bytes, [`Header`] the value of everything in front of the body. Parsing accepts any
//! bytes and names what it refuses ([`ParseError`]). What is emitted without extensions is what the published C
//! implementation emits, byte for byte.

mod answered;
mod control;
mod error;
mod extension;
mod header;
mod packet;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::digest::{Digest, DigestKey, digest};
pub use answered::{Answered, write_answered};
pub use control::{Feedback, write_ack, write_drop, write_feedback};
pub use error::ParseError;
pub use extension::{Extensions, Forwarded, RawExtension, RawExtensions, ReplyStatus, Session};
pub use header::{Header, MessageType, Policy};
pub use packet::Packet;

/// First byte of every packet.
pub const MAGIC: u8 = 0xCC;

/// Bytes of a header without extensions.
pub const HEADER_LEN: usize = 8;

/// Most body bytes in one packet of the C implementation: what Ethernet's MTU of 1500 leaves after IP, UDP and R2P2
/// headers. It reads no longer packet.
pub const PAYLOAD_MAX: usize = 1500 - 20 - 8 - HEADER_LEN;

/// Body bytes in the first packet of a several-packet request that waits for an ACK: what makes the smallest Ethernet
/// frame, so that a group pays little for what only one server will receive.
pub const FIRST_BODY_LEN: usize = 64 - 14 - 20 - 8 - HEADER_LEN;

/// Longest header: its size is one byte.
pub const HEADER_LEN_MAX: usize = u8::MAX as usize;

const _: () = assert!(PAYLOAD_MAX == 1464);
const _: () = assert!(FIRST_BODY_LEN == 14);
