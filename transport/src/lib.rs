//! R2P2: a UDP transport for request/response that exposes requests to the network. The wire format and the endpoints
//! are sans-IO (no clock, no socket, no randomness of their own); `udp` is the one module that touches the kernel.

pub mod client;
pub mod credit;
pub mod datapath;
mod digest;
pub mod fault;
pub mod feedback;
mod forward;
pub mod message;
pub mod reassembly;
pub mod router;
mod rtt;
pub mod server;
pub mod time;
pub mod udp;
pub mod wire;

pub use datapath::{
    Capabilities, Datapath, Outgoing, ReceiveBatch, Received, SocketCounters, SocketId, TransmitBatch, Wake,
};
pub use digest::{Digest, DigestKey, digest};
pub use forward::{FORWARDED_LEN, Forwarder};
pub use message::{Message, MessageHead};
pub use rtt::RttEstimator;
pub use time::Instant;
