//! `cargo bench -p measure --bench pieces`: nanoseconds and allocations of the hot pieces. An argument chooses by name.

#![allow(missing_docs, reason = "a program")]

mod shared;

use std::fmt;

use divan::{AllocProfiler, Bencher};
use shared::{PIECES, Piece};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = PIECES)]
fn piece(bencher: Bencher<'_, '_>, piece: &Piece) {
    let mut operation = (piece.make)();
    bencher.bench_local(&mut operation);
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
