//! R2P2: a UDP transport for request/response that exposes requests to the network. The wire format and the endpoints
//! are sans-IO (no clock, no socket, no randomness of their own); `udp` is the one module that touches the kernel.

pub mod datapath;
pub mod fault;
pub mod time;
pub mod udp;

pub use datapath::{
    Capabilities, Datapath, Outgoing, ReceiveBatch, Received, SocketCounters, SocketId, TransmitBatch, Wake,
};
pub use time::Instant;
