//! Requests that wait for a worker.

use std::time::Duration;

use bytes::Bytes;

use crate::Instant;
use crate::credit::{Ageing, RpcId};

/// Requests in the order in which they came, each with the packets of it that did. Bounded in requests, bytes and age.
#[derive(Debug)]
pub(super) struct Waiting {
    requests: Ageing<RpcId, Request>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Request {
    /// Each packet's index, in the order of `packets`.
    orders: Vec<u16>,
    packets: Vec<Bytes>,
}

/// Why a packet is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// Too many requests wait.
    Requests,
    /// They have too many bytes.
    Bytes,
    /// It is here already.
    Copy,
}

impl Waiting {
    pub(super) fn new(limit: usize, bytes_max: usize, age_max: Duration, seed: u64) -> Self {
        Self { requests: Ageing::new(age_max, limit, seed), bytes: 0, bytes_max }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn contains(&self, rpc: &RpcId) -> bool {
        self.requests.get(rpc).is_some()
    }

    /// Keeps a packet; `order` is its index in the request.
    pub(super) fn push(&mut self, now: Instant, rpc: RpcId, order: u16, packet: Bytes) -> Result<(), Full> {
        let bytes = self.bytes + packet.len();
        if bytes > self.bytes_max {
            return Err(Full::Bytes);
        }
        if let Some(request) = self.requests.get_mut(&rpc) {
            if request.orders.contains(&order) {
                return Err(Full::Copy);
            }
            request.orders.push(order);
            request.packets.push(packet);
        } else {
            let request = Request { orders: vec![order], packets: vec![packet] };
            self.requests.insert(now, rpc, request).map_err(|_| Full::Requests)?;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The request that has waited for longest, and its packets.
    pub(super) fn first(&self) -> Option<(RpcId, &[Bytes])> {
        self.requests.oldest().map(|(rpc, request)| (rpc, &request.packets[..]))
    }

    pub(super) fn remove(&mut self, rpc: &RpcId) {
        if let Some(request) = self.requests.remove(rpc) {
            self.bytes -= request.packets.iter().map(Bytes::len).sum::<usize>();
        }
    }

    /// Forgets one that has waited too long.
    pub(super) fn pop_old(&mut self, now: Instant) -> Option<RpcId> {
        let (rpc, _) = self.requests.oldest().filter(|_| self.requests.next_end().is_some_and(|end| end <= now))?;
        self.remove(&rpc);
        Some(rpc)
    }

    pub(super) fn next_old(&self) -> Option<Instant> {
        self.requests.next_end()
    }
}
