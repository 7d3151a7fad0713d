//! Whole messages, and how they are cut into packets (protocol.md §3.2).

use bytes::Bytes;

use crate::wire::{Extensions, FIRST_BODY_LEN, Header, MessageType, Policy};

/// A complete message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// Who should handle it.
    pub policy: Policy,
    /// Its request id.
    pub rid: u16,
    /// The extensions of its first packet.
    pub extensions: Extensions,
    /// Its bytes.
    pub body: Bytes,
}

/// A message without its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageHead {
    /// What it is.
    pub kind: MessageType,
    /// Who should handle it.
    pub policy: Policy,
    /// Its request id.
    pub rid: u16,
    /// Its extensions.
    pub extensions: Extensions,
}

/// A body that does not fit the 65 535 packets a header can count, or packets too small to carry anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a body of {len} bytes does not fit 65535 packets of {packet_max} bytes with their headers")]
pub struct TooLong {
    /// The body's length.
    pub len: usize,
    /// Largest UDP payload.
    pub packet_max: usize,
}

/// Cuts a message into packets of at most `packet_max` bytes of UDP payload and gives them to `emit` in order.
///
/// Session, entry index, status and the like go on every packet, the digest on the first only.
///
/// # Errors
/// [`TooLong`]; nothing was emitted.
pub fn write_packets(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    let header_len = head.extensions.header_len();
    if header_len + body.len() <= packet_max {
        emit(packet(head, true, true, 1, body));
        return Ok(());
    }
    write_cut(head, body, packet_max.saturating_sub(header_len), packet_max, true, emit)
}

/// The first packet of a plain multi-packet request: as many bytes of body as make a 64-byte frame. The rest follows
/// when somebody has acknowledged it.
///
/// # Errors
/// [`TooLong`]; nothing was emitted.
pub fn write_first_packet(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    let mut count = 0;
    write_cut(head, body, FIRST_BODY_LEN, packet_max, true, &mut |packet| {
        if count == 0 {
            emit(packet);
        }
        count += 1;
    })
}

/// What follows the packet of [`write_first_packet`].
///
/// # Errors
/// [`TooLong`]; nothing was emitted.
pub fn write_later_packets(
    head: &MessageHead,
    body: &[u8],
    packet_max: usize,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    write_cut(head, body, FIRST_BODY_LEN, packet_max, false, emit)
}

/// Packets of a message of several, the first of which carries `first_len` bytes of body.
fn write_cut(
    head: &MessageHead,
    body: &[u8],
    first_len: usize,
    packet_max: usize,
    with_first: bool,
    emit: &mut dyn FnMut(Bytes),
) -> Result<(), TooLong> {
    let too_long = TooLong { len: body.len(), packet_max };
    let mut later = *head;
    later.extensions.digest = None;
    let later_len = packet_max.saturating_sub(later.extensions.header_len());
    if first_len == 0 || later_len == 0 || body.len() <= first_len {
        return Err(too_long);
    }
    let (first, rest) = body.split_at(first_len);
    let total = u16::try_from(1 + rest.len().div_ceil(later_len)).map_err(|_| too_long)?;
    if with_first {
        emit(packet(head, true, false, total, first));
    }
    for (chunk, index) in rest.chunks(later_len).zip(1..) {
        emit(packet(&later, false, index + 1 == total, index, chunk));
    }
    Ok(())
}

fn packet(head: &MessageHead, first: bool, last: bool, order: u16, payload: &[u8]) -> Bytes {
    let header = Header {
        kind: head.kind,
        policy: head.policy,
        first,
        last,
        rid: head.rid,
        order,
        extensions: head.extensions,
    };
    let header_len = header.header_len();
    let mut packet = vec![0; header_len + payload.len()];
    header.emit(&mut packet);
    packet[header_len..].copy_from_slice(payload);
    Bytes::from(packet)
}
