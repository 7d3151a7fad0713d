//! Control packets: ACK, DROP and FEEDBACK.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;

use super::{Extensions, HEADER_LEN, Header, MessageType, ParseError, Policy};

/// Tells a router that a server has answered a request, so that it may send another.
///
/// | offset in the body | field |
/// |---|---|
/// | 0..2 | rid |
/// | 2..4 | client port |
/// | 4..8 | client IPv4 address |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Feedback {
    /// The answered request's number at its client.
    pub rid: u16,
    /// Who asked.
    pub client: SocketAddrV4,
}

impl Feedback {
    /// Bytes of a FEEDBACK's body.
    pub const LEN: usize = 8;
    /// Bytes of a FEEDBACK of the C implementation.
    pub const PACKET_LEN: usize = HEADER_LEN + Self::LEN;

    /// Reads a FEEDBACK's body.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let &[rid_high, rid_low, port_high, port_low, a, b, c, d] = payload else {
            return Err(ParseError::BadFeedback { len: payload.len() });
        };
        let rid = u16::from_be_bytes([rid_high, rid_low]);
        let port = u16::from_be_bytes([port_high, port_low]);
        Ok(Self { rid, client: SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port) })
    }

    /// Writes a FEEDBACK's body.
    pub fn emit(&self, payload: &mut [u8; Self::LEN]) {
        payload[0..2].copy_from_slice(&self.rid.to_be_bytes());
        payload[2..4].copy_from_slice(&self.client.port().to_be_bytes());
        payload[4..8].copy_from_slice(&self.client.ip().octets());
    }
}

impl fmt::Display for Feedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "feedback for rid {} of {}", self.rid, self.client)
    }
}

/// The packet that asks for the rest of a request.
pub fn write_ack(rid: u16) -> Bytes {
    write_control(MessageType::Ack, Policy::Fixed, rid, b"ACK")
}

/// The packet that says that a request was not accepted.
pub fn write_drop(rid: u16) -> Bytes {
    write_control(MessageType::Drop, Policy::Fixed, rid, b"DROP")
}

/// A FEEDBACK packet.
pub fn write_feedback(feedback: &Feedback) -> Bytes {
    let mut payload = [0; Feedback::LEN];
    feedback.emit(&mut payload);
    write_control(MessageType::Feedback, Policy::LoadBalanced, feedback.rid, &payload)
}

fn write_control(kind: MessageType, policy: Policy, rid: u16, payload: &[u8]) -> Bytes {
    let header = Header { kind, policy, first: true, last: true, rid, order: 1, extensions: Extensions::default() };
    let mut packet = vec![0; HEADER_LEN + payload.len()];
    header.emit(&mut packet);
    packet[HEADER_LEN..].copy_from_slice(payload);
    packet.into()
}
