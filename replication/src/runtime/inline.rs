//! Executing on the network thread.

use std::time::Duration;

use r2p2::TransmitBatch;
use r2p2::udp::Clock;

use super::NodeError;
use super::execution::{Backlog, Execution, Report};
use super::sockets::REQUESTS;
use crate::applier::{Applier, Work};
use crate::id::LogIndex;
use crate::service::Service;

/// How long it executes before it lets the thread look at the network again, unless one operation takes longer.
const TURN_MAX: Duration = Duration::from_micros(50);

/// Executes between two looks at the network.
pub(super) struct Inline<S: Service> {
    applier: Applier<S>,
    clock: Clock,
    backlog: Backlog,
    asked: bool,
}

impl<S: Service> Inline<S> {
    pub(super) fn new(applier: Applier<S>, clock: Clock) -> Self {
        Self { applier, clock, backlog: Backlog::default(), asked: false }
    }
}

impl<S: Service> Execution for Inline<S> {
    fn push(&mut self, work: Work) {
        self.backlog.push(work);
    }

    fn advance(&mut self, answers: &mut TransmitBatch) -> Result<(), NodeError> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let end = self.clock.now() + TURN_MAX;
        while let Some(work) = self.backlog.pop() {
            self.applier.handle(work, &mut |to, packet| answers.push(REQUESTS, to, packet))?;
            if self.clock.now() >= end {
                break;
            }
        }
        Ok(())
    }

    fn applied(&self) -> LogIndex {
        self.applier.applied()
    }

    fn unfinished(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn may_sleep(&self) -> bool {
        true
    }

    fn awake(&self) {}

    fn ask_report(&mut self) {
        self.asked = true;
    }

    fn take_report(&mut self) -> Option<Report> {
        std::mem::take(&mut self.asked).then(|| Report::of(&self.applier))
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.backlog.counters()
    }

    fn finish(self) -> Result<(), NodeError> {
        Ok(())
    }
}
