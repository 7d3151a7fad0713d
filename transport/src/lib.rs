//! R2P2: a UDP transport for request/response that exposes requests to the network. The wire format and the endpoints
//! are sans-IO (no clock, no socket, no randomness of their own); `udp` is the one module that touches the kernel.

pub mod time;

pub use time::Instant;
