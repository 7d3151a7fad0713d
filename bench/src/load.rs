//! One thread's load, sans-IO: when to submit what for which logical client, and what became of it.
//!
//! The shell asks [`Load::due`] until it says no, submits, and reports [`Load::submitted`] or [`Load::refused`]; at the end of
//! every operation it reports [`Load::ended`]. At [`Load::wake`] at the latest it asks again. When [`Load::finished`],
//! [`Load::into_part`] is what was measured.
//!
//! In an open loop operations are due when a schedule says so, whatever the system does, and latency counts from there: an
//! operation that could not be sent in time because the generator or the system was slow has waited, as its client would
//! have. In a closed loop every logical client keeps a window of operations in flight, so latency says little more than
//! throughput does. An operation counts by when it was due: in the measured time, not in the warm-up before it. One that got
//! no answer counts with the time until it was given up.

use std::time::Duration;

use r2p2::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::arrivals::{Arrivals, Process};
use crate::latencies::Latencies;
use crate::samples::{Sample, Samples};

/// What makes the next operation due.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Time.
    Open {
        /// How operations follow each other.
        process: Process,
        /// Operations per second, of all threads.
        rate: f64,
    },
    /// The end of another.
    Closed {
        /// Operations in flight of each client.
        window: usize,
    },
}

/// What one thread is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What makes operations due.
    pub pace: Pace,
    /// Logical clients of this thread.
    pub clients: usize,
    /// Which thread this is, from 0.
    pub part: usize,
    /// How many threads there are.
    pub parts: usize,
    /// Load before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub duration: Duration,
    /// Ends after so many operations of this thread, if not by time.
    pub operations_max: Option<u64>,
    /// Decides arrivals and which client sends.
    pub seed: u64,
}

/// An operation that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Which client's.
    pub client: usize,
    /// Since when.
    pub at: Instant,
}

/// An operation under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlight {
    due: Due,
    sent: Instant,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With a reply.
    Answered,
    /// Without an answer, until it was given up.
    TimedOut,
    /// With the answer that it was not executed.
    Refused,
    /// With any other answer: a failure of the service, a lost session or reply.
    Failed,
}

/// Most gaps between two sendings of one client that a thread keeps for the test of the arrivals.
pub const GAPS_MAX: usize = 1 << 16;

/// Two datagrams of one batch leave about so far apart. They have the same time here, and the test of the arrivals would
/// take a gap of nothing for all but impossible.
const GAP_MIN: Duration = Duration::from_micros(1);

/// What one thread has measured.
#[derive(Debug, Default)]
pub struct Part {
    /// Operations that were due in the measured time.
    pub offered: u64,
    /// Of these, those that were not accepted by their own client because too many were waiting there.
    pub overrun: u64,
    /// Of these, those that ended with a reply.
    pub answered: u64,
    /// Of these, those that nobody answered.
    pub timed_out: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// Of these, those that failed otherwise.
    pub failed: u64,
    /// Operations, whenever due, of which the reply came in the measured time.
    pub completed: u64,
    /// Latency from when an operation was due.
    pub from_due: Latencies,
    /// Latency from when it was given to its client, which sends it at once unless its window is full.
    pub from_sent: Latencies,
    /// How late it was given to its client.
    pub lag: Latencies,
    /// Latencies from when they were due, in order.
    pub samples: Samples,
    /// Times between two sendings of one client, as multiples of what they should be on average. Open loop only.
    pub gaps: Vec<f64>,
}

/// One thread's load. See the module.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    arrivals: Option<Arrivals>,
    rng: SmallRng,
    clients: Vec<Client>,
    /// Clients whose window has room, in a closed loop.
    idle: Vec<usize>,
    in_flight: usize,
    issued: u64,
    measured_from: Instant,
    measured_until: Instant,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    last_sent: Option<Instant>,
}

impl Load {
    /// Begins at `start`.
    ///
    /// # Panics
    /// If there is no client, no window or no rate.
    pub fn new(plan: Plan, start: Instant) -> Self {
        assert!(plan.clients > 0, "somebody has to send");
        let (arrivals, idle) = match plan.pace {
            Pace::Open { process, rate } => {
                (Some(Arrivals::new(process, rate, start, plan.seed, plan.part, plan.parts)), Vec::new())
            }
            Pace::Closed { window } => {
                assert!(window > 0, "a window holds something");
                (None, (0..plan.clients * window).map(|slot| slot % plan.clients).rev().collect())
            }
        };
        let measured_from = start + plan.warm_up;
        Self {
            arrivals,
            rng: SmallRng::seed_from_u64(plan.seed.rotate_left(32) ^ plan.part as u64),
            clients: vec![Client::default(); plan.clients],
            idle,
            in_flight: 0,
            issued: 0,
            measured_from,
            measured_until: measured_from + plan.duration,
            part: Part::default(),
            plan,
        }
    }

    /// An operation to be submitted now, if one is due.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.all_issued() {
            return None;
        }
        let due = match &mut self.arrivals {
            Some(arrivals) => {
                let at = arrivals.due();
                if at > now || at >= self.measured_until {
                    return None;
                }
                arrivals.advance();
                let client = match self.plan.pace {
                    // Every client's own arrivals are a Poisson process as well.
                    Pace::Open { process: Process::Poisson, .. } => self.rng.random_range(0..self.plan.clients),
                    _ => (self.issued % self.plan.clients as u64) as usize,
                };
                Due { client, at }
            }
            None if now >= self.measured_until => return None,
            None => Due { client: self.idle.pop()?, at: now },
        };
        self.issued += 1;
        self.part.offered += u64::from(self.counts(due.at));
        Some(due)
    }

    /// It was given to its client.
    pub fn submitted(&mut self, due: Due, now: Instant) -> InFlight {
        self.in_flight += 1;
        if self.counts(due.at) {
            self.part.lag.record(now.since(due.at));
        }
        if let Some(arrivals) = &self.arrivals {
            let gap = arrivals.mean_gap().as_nanos() as f64 * self.plan.clients as f64;
            let last = self.clients[due.client].last_sent.replace(now);
            if let (Some(last), true) = (last, self.counts(due.at) && self.part.gaps.len() < GAPS_MAX) {
                self.part.gaps.push(now.since(last).max(GAP_MIN).as_nanos() as f64 / gap);
            }
        }
        InFlight { due, sent: now }
    }

    /// Its client did not take it: too many wait there already.
    pub fn refused(&mut self, due: Due) {
        self.part.overrun += u64::from(self.counts(due.at));
        self.free(due.client);
    }

    /// It has ended.
    pub fn ended(&mut self, operation: InFlight, now: Instant, end: End) {
        self.in_flight -= 1;
        self.free(operation.due.client);
        let due = operation.due.at;
        self.part.completed += u64::from(end == End::Answered && self.counts(now));
        if !self.counts(due) {
            return;
        }
        match end {
            End::Answered => self.part.answered += 1,
            End::TimedOut => self.part.timed_out += 1,
            End::Refused => self.part.refused += 1,
            End::Failed => self.part.failed += 1,
        }
        let latency = now.since(due);
        self.part.from_due.record(latency);
        self.part.from_sent.record(now.since(operation.sent));
        self.part.samples.push(Sample { due, nanos: u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX) });
    }

    /// When to ask again, unless an operation ends before.
    pub fn wake(&self) -> Instant {
        match &self.arrivals {
            Some(arrivals) if !self.all_issued() => arrivals.due().min(self.measured_until),
            _ => self.measured_until,
        }
    }

    /// Whether nothing will be due any more and nothing is under way.
    pub fn finished(&self, now: Instant) -> bool {
        (now >= self.measured_until || self.all_issued()) && self.in_flight == 0
    }

    /// What was measured.
    pub fn into_part(self) -> Part {
        self.part
    }

    fn all_issued(&self) -> bool {
        self.plan.operations_max.is_some_and(|max| self.issued >= max)
    }

    fn counts(&self, at: Instant) -> bool {
        self.measured_from <= at && at < self.measured_until
    }

    fn free(&mut self, client: usize) {
        if self.arrivals.is_none() {
            self.idle.push(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn plan(pace: Pace) -> Plan {
        Plan {
            pace,
            clients: 2,
            part: 0,
            parts: 1,
            warm_up: 10 * MS,
            duration: 100 * MS,
            operations_max: None,
            seed: 1,
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn an_open_loop_goes_on_while_nobody_answers_and_counts_from_when_it_was_due() {
        let mut load = Load::new(plan(Pace::Open { process: Process::Fixed, rate: 1000.0 }), Instant::ZERO);
        let mut under_way = Vec::new();
        // Looked at once, far too late: all that was due by then is.
        while let Some(due) = load.due(at(50)) {
            under_way.push(load.submitted(due, at(50)));
        }
        assert_eq!(under_way.len(), 50);
        assert_eq!(load.wake(), at(51));
        for operation in under_way {
            load.ended(operation, at(60), End::Answered);
        }
        let part = load.into_part();
        // Due at 10, 11, ... 50 ms.
        assert_eq!((part.offered, part.answered, part.completed), (41, 41, 50));
        let us = |millis: u64| Duration::from_millis(millis).as_nanos() as f64;
        assert!((part.from_due.quantile(1.0).as_nanos() as f64 / us(50) - 1.0).abs() < 1e-3);
        assert!((part.from_sent.quantile(1.0).as_nanos() as f64 / us(10) - 1.0).abs() < 1e-3);
        assert!((part.lag.quantile(1.0).as_nanos() as f64 / us(40) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn a_closed_loop_keeps_its_window() {
        let mut load = Load::new(plan(Pace::Closed { window: 3 }), Instant::ZERO);
        let all: Vec<Due> = std::iter::from_fn(|| load.due(at(20))).collect();
        let of_client = |client| all.iter().filter(|due| due.client == client).count();
        assert_eq!((of_client(0), of_client(1)), (3, 3));
        let under_way: Vec<InFlight> = all.iter().map(|&due| load.submitted(due, at(20))).collect();
        load.ended(under_way[0], at(21), End::Answered);
        assert_eq!(load.due(at(21)), Some(Due { client: all[0].client, at: at(21) }));
        assert_eq!(load.due(at(21)), None);
    }

    #[test]
    fn what_is_due_in_the_warm_up_or_after_the_end_does_not_count() {
        let mut load = Load::new(plan(Pace::Closed { window: 1 }), Instant::ZERO);
        let early = load.due(at(9)).expect("due");
        let early = load.submitted(early, at(9));
        let late = load.due(at(109)).expect("due");
        let late = load.submitted(late, at(109));
        load.ended(early, at(20), End::Answered);
        assert_eq!(load.due(at(110)), None);
        assert!(!load.finished(at(110)), "one is under way");
        load.ended(late, at(500), End::TimedOut);
        assert!(load.finished(at(500)));
        let part = load.into_part();
        assert_eq!((part.offered, part.answered, part.timed_out, part.completed), (1, 0, 1, 1));
        assert_eq!(part.from_due.count(), 1, "what timed out has waited too");
    }

    #[test]
    fn it_may_end_by_count() {
        let mut load = Load::new(Plan { operations_max: Some(3), ..plan(Pace::Closed { window: 2 }) }, Instant::ZERO);
        let all: Vec<Due> = std::iter::from_fn(|| load.due(at(20))).collect();
        assert_eq!(all.len(), 3);
        for due in all {
            load.refused(due);
        }
        assert!(load.finished(at(21)));
        assert_eq!(load.into_part().overrun, 3);
    }

    #[test]
    fn the_gaps_of_each_client_are_measured() {
        let mut load = Load::new(plan(Pace::Open { process: Process::Poisson, rate: 100_000.0 }), Instant::ZERO);
        let mut now = Instant::ZERO;
        while now < at(110) {
            now = load.wake();
            while let Some(due) = load.due(now) {
                let operation = load.submitted(due, now);
                load.ended(operation, now, End::Answered);
            }
        }
        let part = load.into_part();
        let mean = part.gaps.iter().sum::<f64>() / part.gaps.len() as f64;
        assert!(part.gaps.len() > 9000 && (mean - 1.0).abs() < 0.05, "{mean} of {}", part.gaps.len());
    }
}
