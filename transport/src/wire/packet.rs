//! [`Packet`]: a view of received bytes.

use std::fmt;

use super::extension::RawExtensions;
use super::{Feedback, HEADER_LEN, Header, MAGIC, MessageType, ParseError, Policy};

/// A view of one packet, the payload of a UDP datagram.
///
/// | offset | field |
/// |---|---|
/// | 0 | magic 0xCC |
/// | 1 | header size in bytes, extensions included |
/// | 2 | high nibble type, low nibble policy |
/// | 3 | flags: 0x80 first packet, 0x40 last packet |
/// | 4..6 | rid |
/// | 6..8 | in the first packet the number of packets, in later ones their index |
/// | 8.. | extensions, then body |
///
/// Getters cannot panic on what [`new_checked`](Self::new_checked) has let through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Packet<T: AsRef<[u8]>> {
    bytes: T,
}

pub(super) mod field {
    use std::ops::Range;

    pub(in crate::wire) const MAGIC: usize = 0;
    pub(in crate::wire) const HEADER_SIZE: usize = 1;
    pub(in crate::wire) const TYPE_POLICY: usize = 2;
    pub(in crate::wire) const FLAGS: usize = 3;
    pub(in crate::wire) const RID: Range<usize> = 4..6;
    pub(in crate::wire) const ORDER: Range<usize> = 6..8;

    pub(in crate::wire) const FIRST: u8 = 0x80;
    pub(in crate::wire) const LAST: u8 = 0x40;
}

const _: () = assert!(field::ORDER.end == HEADER_LEN);

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `bytes`, if every field of the fixed header makes sense. Extensions are checked by
    /// [`Header::parse`].
    pub fn new_checked(bytes: T) -> Result<Self, ParseError> {
        let packet = Self { bytes };
        packet.check()?;
        Ok(packet)
    }

    fn check(&self) -> Result<(), ParseError> {
        let bytes = self.bytes.as_ref();
        let len = bytes.len();
        let Some(&[magic, header_size, type_policy, flags, _, _, order @ ..]) = bytes.first_chunk::<HEADER_LEN>()
        else {
            return Err(ParseError::Truncated { len });
        };
        if magic != MAGIC {
            return Err(ParseError::BadMagic(magic));
        }
        let kind = MessageType::from_wire(type_policy >> 4).ok_or(ParseError::UnknownType(type_policy >> 4))?;
        Policy::from_wire(type_policy & 0x0F).ok_or(ParseError::UnknownPolicy(type_policy & 0x0F))?;
        if self.is_c_feedback() {
            return Ok(());
        }
        if usize::from(header_size) < HEADER_LEN || usize::from(header_size) > len {
            return Err(ParseError::BadHeaderSize { header_size, len });
        }
        if flags & !(field::FIRST | field::LAST) != 0 {
            return Err(ParseError::BadFlags(flags));
        }
        let order = u16::from_be_bytes(order);
        let in_order = match (flags & field::FIRST != 0, flags & field::LAST != 0) {
            (true, true) => order == 1,
            (true, false) => order > 1 && !kind.is_control(),
            (false, _) => order > 0 && !kind.is_control(),
        };
        if in_order { Ok(()) } else { Err(ParseError::BadOrder { flags, order }) }
    }

    /// The C implementation sends FEEDBACK with header size, flags, rid and packet order uninitialised. It is known by
    /// its length, and these four are not read.
    fn is_c_feedback(&self) -> bool {
        let bytes = self.bytes.as_ref();
        bytes.len() == Feedback::PACKET_LEN && bytes[field::TYPE_POLICY] >> 4 == MessageType::Feedback as u8
    }

    /// What kind of message this is a packet of.
    pub fn kind(&self) -> MessageType {
        let kind = MessageType::from_wire(self.byte(field::TYPE_POLICY) >> 4);
        debug_assert!(kind.is_some(), "new_checked refuses unknown types");
        kind.unwrap_or(MessageType::Drop)
    }

    /// Where requests are to be routed.
    pub fn policy(&self) -> Policy {
        let policy = Policy::from_wire(self.byte(field::TYPE_POLICY) & 0x0F);
        debug_assert!(policy.is_some(), "new_checked refuses unknown policies");
        policy.unwrap_or(Policy::Fixed)
    }

    /// Bytes in front of the body.
    pub fn header_len(&self) -> usize {
        if self.is_c_feedback() { HEADER_LEN } else { self.byte(field::HEADER_SIZE).into() }
    }

    /// Whether it is the first packet of its message.
    pub fn is_first(&self) -> bool {
        self.is_c_feedback() || self.byte(field::FLAGS) & field::FIRST != 0
    }

    /// Whether it is the last packet of its message.
    pub fn is_last(&self) -> bool {
        self.is_c_feedback() || self.byte(field::FLAGS) & field::LAST != 0
    }

    /// The request's number at its client.
    pub fn rid(&self) -> u16 {
        if self.is_c_feedback() { 0 } else { self.number(field::RID) }
    }

    /// In the first packet the number of packets, in later ones their index.
    pub fn order(&self) -> u16 {
        if self.is_c_feedback() { 1 } else { self.number(field::ORDER) }
    }

    /// Length of the whole packet in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.as_ref().len()
    }

    pub(super) fn raw_extensions(&self) -> RawExtensions<'_> {
        RawExtensions::new(&self.bytes.as_ref()[HEADER_LEN..self.header_len()])
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.as_ref()[at]
    }

    fn number(&self, at: std::ops::Range<usize>) -> u16 {
        let bytes = &self.bytes.as_ref()[at];
        u16::from_be_bytes([bytes[0], bytes[1]])
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> Packet<&'a T> {
    /// The extensions, as they lie.
    pub fn extensions(&self) -> RawExtensions<'a> {
        RawExtensions::new(&self.bytes.as_ref()[HEADER_LEN..self.header_len()])
    }

    /// All of it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.as_ref()
    }

    /// The packet's part of the body.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes.as_ref()[self.header_len()..]
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    /// One line in the manner of tcpdump: the header, and the body's length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = Packet { bytes: self.bytes.as_ref() };
        match Header::parse(&view) {
            Ok(header) => write!(f, "{header}, length {}", view.payload().len()),
            Err(error) => write!(f, "R2P2 malformed ({error}), {} bytes", self.len()),
        }
    }
}

impl<T: AsRef<[u8]>> fmt::Debug for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
