//! The `hovercraft` program.
fn main() {}
