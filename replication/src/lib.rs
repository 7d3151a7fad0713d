//! HovercRaft for everyone: implement [`Service`], get a replicated, linearizable, fault-tolerant service.

pub mod service;

pub use service::{Class, Context, Reply, Service};
