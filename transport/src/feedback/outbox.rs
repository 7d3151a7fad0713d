//! What a server tells its forwarders.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::{Answered, Feedback, HEADER_LEN, PAYLOAD_MAX, write_answered};

/// How many of those already sent are sent once more.
pub const REPEATED: usize = 16;
/// Most in one packet.
pub const ITEMS_MAX: usize = (HEADER_LEN + PAYLOAD_MAX - Answered::HEADER_LEN) / Feedback::LEN;
/// Most that wait for [`Outbox::flush`]; beyond that the oldest are never told, and their forwarders wait for the deadline.
pub const FRESH_MAX: usize = 4096;

const _: () = assert!(REPEATED < ITEMS_MAX);

/// What a server has answered and not told yet, or only once.
#[derive(Debug)]
pub struct Outbox {
    epoch: u64,
    /// How many were answered.
    count: u64,
    /// The last of them, oldest first.
    recent: VecDeque<Feedback>,
    /// How many at the end of `recent` were never sent.
    fresh: usize,
    untold: u64,
}

impl Outbox {
    /// For who has answered nothing. `epoch` must be another one whenever counting begins anew, and for each of several
    /// outboxes that use one address.
    pub const fn new(epoch: u64) -> Self {
        Self { epoch, count: 0, recent: VecDeque::new(), fresh: 0, untold: 0 }
    }

    /// A request was answered, or refused: it does not burden this server any more.
    pub fn answered(&mut self, feedback: Feedback) {
        self.count += 1;
        self.recent.push_back(feedback);
        if self.fresh < FRESH_MAX {
            self.fresh += 1;
        } else {
            self.untold += 1;
        }
        while self.recent.len() > self.fresh + REPEATED {
            self.recent.pop_front();
        }
    }

    /// Whether [`flush`](Self::flush) has something new to say.
    pub const fn is_fresh(&self) -> bool {
        self.fresh > 0
    }

    /// Gives `emit` the packets that say what was answered since the last time; none if nothing was.
    pub fn flush(&mut self, emit: &mut dyn FnMut(Bytes)) {
        while self.fresh > 0 {
            let repeated = (self.recent.len() - self.fresh).min(REPEATED);
            let fresh = self.fresh.min(ITEMS_MAX - repeated);
            let start = self.recent.len() - self.fresh - repeated;
            self.fresh -= fresh;
            let count = self.count - self.fresh as u64;
            emit(self.packet(count, start..start + repeated + fresh, false, false));
        }
        let excess = self.recent.len().saturating_sub(REPEATED);
        self.recent.drain(..excess);
    }

    /// The packet by which a worker says that it takes requests, or that it takes none any more: to be sent at first,
    /// from time to time, and at last.
    pub fn registration(&self, leaves: bool) -> Bytes {
        let sent = self.recent.len() - self.fresh;
        let repeated = sent.min(REPEATED);
        self.packet(self.count - self.fresh as u64, sent - repeated..sent, !leaves, leaves)
    }

    /// How many were never told.
    pub const fn untold(&self) -> u64 {
        self.untold
    }

    fn packet(&self, count: u64, items: std::ops::Range<usize>, registers: bool, leaves: bool) -> Bytes {
        let answered = Answered { epoch: self.epoch, count, registers, leaves };
        write_answered(&answered, self.recent.range(items))
    }
}
