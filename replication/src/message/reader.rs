//! Reading of bytes that several share.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;

use super::MessageError;

/// A [`multicast::message::Reader`] that gives out parts without copying them.
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    fields: multicast::message::Reader<'a>,
}

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`.
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, fields: multicast::message::Reader::new(bytes) }
    }

    /// The next `len` bytes, shared.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Bytes, MessageError> {
        let slice = self.fields.slice(len)?;
        Ok(self.bytes.slice_ref(slice))
    }
}

impl<'a> Deref for Reader<'a> {
    type Target = multicast::message::Reader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.fields
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.fields
    }
}
