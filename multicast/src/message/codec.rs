//! Reading and writing of the fixed layouts.

use super::NUMBER_MAX;

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

/// Writes fields one after the other.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Nothing written, room for `len` bytes.
    pub fn with_capacity(len: usize) -> Self {
        Self(Vec::with_capacity(len))
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// These bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// What has been written, to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// All that has been written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields one after the other; never beyond the end.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that have not been read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`MessageError::Truncated`] if there are fewer; so for all that follow.
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let slice = self.bytes[self.at..].get(..len).ok_or(MessageError::Truncated)?;
        self.at += len;
        Ok(slice)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let slice = self.slice(N)?;
        slice.try_into().map_err(|_| MessageError::Truncated)
    }

    /// One byte.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn u8(&mut self) -> Result<u8, MessageError> {
        Ok(self.array::<1>()?[0])
    }

    /// A flag: one byte, 0 or 1.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn bool(&mut self) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError::BadValue("flag")),
        }
    }

    /// Two bytes.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn u32(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn u64(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn u128(&mut self) -> Result<u128, MessageError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// A term or an index: below [`NUMBER_MAX`].
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn number(&mut self) -> Result<u64, MessageError> {
        let number = self.u64()?;
        if number < NUMBER_MAX { Ok(number) } else { Err(MessageError::BadValue("term or index")) }
    }

    /// Nothing follows.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn end(&self) -> Result<(), MessageError> {
        match self.remaining() {
            0 => Ok(()),
            more => Err(MessageError::TrailingBytes(more)),
        }
    }
}
