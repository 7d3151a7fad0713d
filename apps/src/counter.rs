//! The smallest real service: a replicated counter. Every request that is not empty adds one; the answer is the count.

use hovercraft::{Class, Context, Reply, Service};

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(u64);

impl Service for Counter {
    fn classify(request: &[u8]) -> Class {
        if request.is_empty() { Class::Read } else { Class::Write }
    }

    fn apply(&mut self, _: &Context, _: &bytes::Bytes, reply: &mut Reply) {
        self.0 += 1;
        reply.write(self.0.to_string().as_bytes());
    }

    fn query(&self, _: &Context, _: &bytes::Bytes, reply: &mut Reply) {
        reply.write(self.0.to_string().as_bytes());
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_be_bytes(snapshot.try_into().map_err(|_| "a counter is 8 bytes")?);
        Ok(())
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use r2p2::Instant;

    use super::*;

    #[test]
    fn counts_writes_and_only_writes() {
        let context = Context { index: 1, time: Instant::ZERO, version: 1, seed: 0 };
        let mut counter = Counter::default();
        let mut reply = Reply::new(20);
        counter.apply(&context, &Bytes::from_static(b"+"), &mut reply);
        assert_eq!(reply.as_bytes(), b"1");
        reply.clear();
        counter.query(&context, &Bytes::new(), &mut reply);
        assert_eq!(reply.as_bytes(), b"1");
        assert_eq!((Counter::classify(b""), Counter::classify(b"+")), (Class::Read, Class::Write));
    }

    #[test]
    fn a_snapshot_is_the_whole_state() {
        let mut copy = Counter::default();
        copy.restore(&Counter(7).snapshot()).unwrap();
        assert_eq!(copy.0, 7);
        assert!(copy.restore(b"short").is_err());
    }
}
