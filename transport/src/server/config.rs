//! What a server may be told.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use crate::reassembly::ReassemblyLimits;
use crate::wire::DigestKey;

/// Configuration of a [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Limits for requests of several packets, and the longest request.
    pub reassembly: ReassemblyLimits,
    /// Key of the digest on requests of several packets; the clients' own.
    pub digest_key: DigestKey,
    /// Who may say whom a request is really from; forwarded requests from anybody else are dropped.
    pub forwarders: BTreeSet<SocketAddrV4>,
    /// Most events waiting to be polled; further ones are dropped and counted. They have no age: the driver drains
    /// them after each datagram, or batch of datagrams.
    pub events_max: usize,
    /// Most bytes of request bodies in those events. One event is always let in.
    pub events_bytes_max: usize,
    /// Most packets waiting to be polled; further ones are dropped and counted.
    pub transmits_max: usize,
    /// Most RPC ids remembered as acknowledged, for [`COPY_AGE_MAX`](crate::reassembly::COPY_AGE_MAX) each.
    pub acknowledged_max: usize,
}

impl Default for ServerConfig {
    /// No forwarders; 4096 events with 64 MiB, 4096 packets, 16 384 RPC ids.
    fn default() -> Self {
        Self {
            reassembly: ReassemblyLimits::default(),
            digest_key: DigestKey::default(),
            forwarders: BTreeSet::new(),
            events_max: 4096,
            events_bytes_max: 64 << 20,
            transmits_max: 4096,
            acknowledged_max: 16_384,
        }
    }
}
