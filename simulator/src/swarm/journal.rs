//! A service that remembers which operation was executed at which index: the order in which they took effect, for
//! whoever has to prove that what clients saw is linearizable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hovercraft::{Class, Context, LogIndex, Reply, Service};

use crate::registers::{Registers, Request};

/// Where operations were executed, by the tag at the end of their body: the first index for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(Arc<Mutex<BTreeMap<u64, LogIndex>>>);

impl Journal {
    /// Where the operation of this tag was executed, if it was.
    pub(super) fn executed(&self, tag: u64) -> Option<LogIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&tag).copied()
    }

    fn note(&self, index: LogIndex, request: &[u8]) {
        let Some(tag) = request.last_chunk().map(|tag| u64::from_be_bytes(*tag)) else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tag).or_insert(index);
    }
}

/// A request with a tag at its end, which nobody but the journal reads.
pub(super) fn tagged(request: &Request, len_min: usize, tag: u64) -> Vec<u8> {
    let mut body = request.encode().to_vec();
    body.resize(body.len().max(len_min.saturating_sub(8)), 0);
    body.extend(tag.to_be_bytes());
    body
}

/// Registers that keep a journal. All replicas of a cluster share it; it is no part of their state.
#[derive(Debug, Default)]
pub(super) struct Witnessed {
    registers: Registers,
    journal: Journal,
}

impl Witnessed {
    /// Registers that write into this journal.
    pub(super) fn new(journal: Journal) -> Self {
        Self { registers: Registers::default(), journal }
    }
}

impl Service for Witnessed {
    fn classify(request: &[u8]) -> Class {
        Registers::classify(request)
    }

    fn apply(&mut self, context: &Context, request: &Bytes, reply: &mut Reply) {
        self.journal.note(context.index, request);
        self.registers.apply(context, request, reply);
    }

    fn query(&self, context: &Context, request: &Bytes, reply: &mut Reply) {
        self.journal.note(context.index, request);
        self.registers.query(context, request, reply);
    }

    fn state_hash(&self) -> Option<u64> {
        self.registers.state_hash()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.registers.snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.registers.restore(snapshot)
    }
}
