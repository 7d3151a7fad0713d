//! Services made with [`hovercraft`]: a key-value store, the smallest possible counter, and a synthetic load.

pub mod counter;
pub mod kv;
pub mod synthetic;
