//! Reading and writing of the fixed layouts.

use bytes::Bytes;

use super::{Envelope, NUMBER_MAX, VERSION};

/// Why bytes are not an internal message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("the message ends inside a field")]
    Truncated,
    /// It goes on after its end.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
    /// Another version of the layouts.
    #[error("the sender speaks version {theirs} of the internal messages, this node version {ours}; upgrade the older")]
    Version {
        /// The sender's.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// No such kind of message.
    #[error("unknown kind of message {0}")]
    UnknownKind(u8),
    /// A field has a value that it must not have.
    #[error("impossible value of the {0}")]
    BadValue(&'static str),
}

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8, envelope: &Envelope) -> Self {
        let mut to = Self(Vec::with_capacity(128));
        to.u8(VERSION);
        to.u8(kind);
        to.0.extend_from_slice(&envelope.from.node().0.to_be_bytes());
        to.u32(envelope.group.0);
        to.u32(envelope.from.incarnation().0);
        to.u32(0);
        to.u64(envelope.life);
        to.u64(envelope.term);
        to
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let slice = self.bytes[self.at..].get(..len).ok_or(MessageError::Truncated)?;
        self.at += len;
        Ok(slice)
    }

    /// The same bytes without copying them.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Bytes, MessageError> {
        let slice = self.slice(len)?;
        Ok(self.bytes.slice_ref(slice))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let slice = self.slice(N)?;
        slice.try_into().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn bool(&mut self) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError::BadValue("flag")),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, MessageError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// A term or an index.
    pub(super) fn number(&mut self) -> Result<u64, MessageError> {
        let number = self.u64()?;
        if number < NUMBER_MAX { Ok(number) } else { Err(MessageError::BadValue("term or index")) }
    }

    pub(super) fn end(&self) -> Result<(), MessageError> {
        match self.remaining() {
            0 => Ok(()),
            more => Err(MessageError::TrailingBytes(more)),
        }
    }
}
