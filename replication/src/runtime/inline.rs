//! Executing on the network thread.

use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use r2p2::TransmitBatch;
use r2p2::udp::Clock;

use super::NodeError;
use super::archive::Archivist;
use super::execution::{Backlog, Execution, Report};
use super::sockets::REQUESTS;
use crate::applier::{Applier, RestoreError, Work};
use crate::id::LogIndex;
use crate::service::Service;

/// How long it executes before it lets the thread look at the network again, unless one operation takes longer.
const TURN_MAX: Duration = Duration::from_micros(50);

/// Executes between two looks at the network.
pub(super) struct Inline<S: Service> {
    applier: Place<S>,
    applied: LogIndex,
    archive: Archivist,
    clock: Clock,
    backlog: Backlog,
    asked: bool,
}

/// Where the applier is.
enum Place<S: Service> {
    Here(Box<Applier<S>>),
    /// On the archive's thread, to go on from a snapshot: this one must not wait for that.
    Away(Receiver<Result<Applier<S>, RestoreError>>),
}

impl<S: Service> Inline<S> {
    pub(super) fn new(applier: Applier<S>, archive: Archivist, clock: Clock) -> Self {
        Self {
            applied: applier.applied(),
            applier: Place::Here(Box::new(applier)),
            archive,
            clock,
            backlog: Backlog::default(),
            asked: false,
        }
    }

    /// Takes the applier back, if it is ready to come.
    fn take_back(&mut self) -> Result<(), NodeError> {
        if let Place::Away(coming) = &self.applier {
            match coming.try_recv() {
                Ok(applier) => {
                    let applier = applier?;
                    self.applied = applier.applied();
                    self.applier = Place::Here(Box::new(applier));
                }
                // If it never comes, the archive has failed, and says why.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        Ok(())
    }
}

impl<S: Service> Execution for Inline<S> {
    fn push(&mut self, work: Work) {
        self.backlog.push(work);
    }

    fn advance(&mut self, answers: &mut TransmitBatch) -> Result<(), NodeError> {
        self.take_back()?;
        if self.backlog.is_empty() {
            return Ok(());
        }
        let end = self.clock.now() + TURN_MAX;
        while let Place::Here(applier) = &mut self.applier
            && let Some(work) = self.backlog.pop()
        {
            match work {
                Work::Snapshot(wanted) => self.archive.take(wanted, applier.freeze()),
                Work::Install(info) => {
                    let nobody = Place::Away(crossbeam_channel::never());
                    if let Place::Here(applier) = std::mem::replace(&mut self.applier, nobody) {
                        self.applier = Place::Away(self.archive.install(info, *applier));
                    }
                }
                work => {
                    applier.handle(work, &mut |to, packet| answers.push(REQUESTS, to, packet))?;
                    self.applied = applier.applied();
                }
            }
            if self.clock.now() >= end {
                break;
            }
        }
        if let Place::Here(applier) = &mut self.applier {
            applier.flush_feedback(&mut |to, packet| answers.push(REQUESTS, to, packet));
        }
        Ok(())
    }

    fn applied(&self) -> LogIndex {
        self.applied
    }

    fn unfinished(&self) -> bool {
        matches!(self.applier, Place::Here(_)) && !self.backlog.is_empty()
    }

    fn may_sleep(&self) -> bool {
        true
    }

    fn awake(&self) {}

    fn ask_report(&mut self) {
        self.asked = true;
    }

    fn take_report(&mut self) -> Option<Report> {
        match &self.applier {
            Place::Here(applier) => std::mem::take(&mut self.asked).then(|| Report::of(applier)),
            Place::Away(_) => None,
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.backlog.counters()
    }

    fn finish(self) -> Result<(), NodeError> {
        Ok(())
    }
}
