//! A service whose cost is a request's own choice: how long it computes, how much it answers, whether it reads.

use std::hint::black_box;

use bytes::Bytes;
use hovercraft::{Class, Context, Reply, Service};

/// What a request asks for. Padding after it makes requests of any size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Changes state (by counting), so that every replica executes it.
    pub write: bool,
    /// How long it computes, in units of [`spin`]; the load generator calibrates how many make a microsecond.
    pub spin: u32,
    /// Bytes it answers.
    pub reply_len: u32,
}

/// Bytes of a request without padding.
pub const REQUEST_LEN: usize = 9;

impl Request {
    /// The request's bytes, padded to `len` if that is longer.
    pub fn encode(&self, len: usize) -> Bytes {
        let mut bytes = vec![u8::from(self.write)];
        bytes.extend_from_slice(&self.spin.to_be_bytes());
        bytes.extend_from_slice(&self.reply_len.to_be_bytes());
        bytes.resize(len.max(REQUEST_LEN), 0);
        bytes.into()
    }

    /// Reads a request; `None` if it is too short.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[write, a, b, c, d, e, f, g, h] = bytes.first_chunk::<REQUEST_LEN>()?;
        let spin = u32::from_be_bytes([a, b, c, d]).min(SPIN_MAX);
        Some(Self { write: write != 0, spin, reply_len: u32::from_be_bytes([e, f, g, h]) })
    }
}

/// Most units of [`spin`] per request, about a tenth of a second: nobody stops a group for longer with one datagram.
pub const SPIN_MAX: u32 = 100_000_000;

/// Computes for a while: `units` steps of about a nanosecond, none of which can be left out.
pub fn spin(units: u32) -> u64 {
    (0..units).fold(0x9e37_79b9, |state: u64, _| black_box(state.rotate_left(5) ^ 0x2545_f491))
}

/// The service.
#[derive(Debug, Default)]
pub struct Synthetic {
    writes: u64,
}

impl Synthetic {
    fn execute(request: &[u8], reply: &mut Reply) {
        let Some(request) = Request::decode(request) else {
            reply.write(b"a synthetic request has 9 bytes");
            return;
        };
        black_box(spin(request.spin));
        // The limit is the node's business; up to there the size is the request's.
        let len = (request.reply_len as usize).min(reply.remaining());
        reply.write(&vec![0xa5; len]);
    }
}

impl Service for Synthetic {
    fn classify(request: &[u8]) -> Class {
        match Request::decode(request) {
            Some(request) if request.write => Class::Write,
            _ => Class::Read,
        }
    }

    fn apply(&mut self, _: &Context, request: &Bytes, reply: &mut Reply) {
        self.writes += 1;
        Self::execute(request, reply);
    }

    fn query(&self, _: &Context, request: &Bytes, reply: &mut Reply) {
        Self::execute(request, reply);
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.writes)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.writes.to_be_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.writes = u64::from_be_bytes(snapshot.try_into().map_err(|_| "a synthetic state is 8 bytes")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_decides_everything() {
        let request = Request { write: true, spin: 10, reply_len: 100 };
        let bytes = request.encode(24);
        assert_eq!(bytes.len(), 24);
        assert_eq!(Request::decode(&bytes), Some(request));
        assert_eq!(Synthetic::classify(&bytes), Class::Write);
        let mut reply = Reply::new(1000);
        Synthetic::execute(&bytes, &mut reply);
        assert_eq!(reply.as_bytes().len(), 100);
    }

    #[test]
    fn too_short_is_a_read_that_explains() {
        assert_eq!(Synthetic::classify(&[1; REQUEST_LEN - 1]), Class::Read);
        let mut reply = Reply::new(1000);
        Synthetic::execute(&[], &mut reply);
        assert!(reply.as_bytes().starts_with(b"a synthetic"));
    }

    #[test]
    fn a_reply_is_cut_at_the_limit() {
        let mut reply = Reply::new(10);
        Synthetic::execute(&Request { write: false, spin: 0, reply_len: u32::MAX }.encode(0), &mut reply);
        assert_eq!(reply.as_bytes().len(), 10);
        assert!(!reply.overflowed());
    }

    #[test]
    fn the_spin_is_bounded() {
        let bytes = Request { write: false, spin: u32::MAX, reply_len: 0 }.encode(0);
        assert_eq!(Request::decode(&bytes).unwrap().spin, SPIN_MAX);
    }
}
