//! One run: load, judged, repeated if it is not good.

use std::cell::RefCell;
use std::time::Duration;

use indicatif::ProgressBar;
use measure::generator::{self, GeneratorError, Options, Report};
use measure::latencies::Summary;
use measure::load::Pace;
use measure::verdict::{self, Demands, Verdict};
use serde::Serialize;

use super::load::LoadArgs;
use super::progress::Watch;
use super::system::{Costs, PlaceArgs, System, Usage};
use crate::output::Failure;
use crate::processes::Events;

/// What all runs on one system have in common.
pub(crate) struct Bench<'a> {
    pub(crate) load: &'a LoadArgs,
    pub(crate) place: &'a PlaceArgs,
    pub(crate) events: &'a Events,
    /// Steps of synthetic work in a microsecond.
    pub(crate) units_per_us: f64,
    pub(crate) demands: Demands,
}

/// What came of a run. Its percentiles are good only if the verdict is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    pub(crate) system: String,
    pub(crate) pace: Pace,
    pub(crate) usable: bool,
    /// Why it is not usable.
    pub(crate) reasons: Vec<String>,
    /// How often it was run until it was usable, or given up.
    pub(crate) attempts: u32,
    /// Replies per second.
    pub(crate) rate: f64,
    /// From when operations were due.
    pub(crate) latency: Summary,
    /// From when they were sent.
    pub(crate) latency_from_sent: Summary,
    pub(crate) verdict: Verdict,
    pub(crate) offered: u64,
    pub(crate) answered: u64,
    pub(crate) timed_out: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) overrun: u64,
    pub(crate) client: generator::Counts,
    /// Processor time of the load per operation, µs.
    pub(crate) load_us: f64,
    /// Share of the answers by node.
    pub(crate) replies: Vec<(String, f64)>,
    pub(crate) costs: Option<Costs>,
}

impl Bench<'_> {
    /// Writes the records that the load is about.
    pub(crate) fn fill(&self, system: &System, bar: &ProgressBar) -> Result<(), Failure> {
        if self.load.fill(0).is_none() {
            return Ok(());
        }
        let options = Options {
            // As long as it takes.
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(3600),
            operations_max: Some(self.load.records),
            ..self.options(system, Pace::Closed { window: 8 })
        };
        let load = self.load;
        let requests = |part| load.fill(part).expect("there are records");
        let mut watch = Watch { bar: bar.clone(), events: self.events, at_the_edges: Box::new(|_, _| {}) };
        let report = generator::run(&options, &|seed| system.endpoint(seed), &requests, &mut watch).map_err(failure)?;
        let total = &report.measured.total;
        if total.answered < total.offered {
            return Err(Failure::new(format!("{} records could not be written", total.offered - total.answered))
                .todo("See `hovercraft status`, or give up later: --give-up 10"));
        }
        Ok(())
    }

    /// One run, repeated up to `attempts` times until it is usable.
    pub(crate) fn run(&self, system: &System, pace: Pace, attempts: u32, bar: &ProgressBar) -> Result<Trial, Failure> {
        let mut attempt = 1;
        loop {
            let trial = Trial { attempts: attempt, ..self.once(system, pace, bar, attempt)? };
            if trial.usable || attempt >= attempts {
                return Ok(trial);
            }
            bar.set_message(format!("again, because of {}", trial.reasons.join("; ")));
            attempt += 1;
        }
    }

    fn once(&self, system: &System, pace: Pace, bar: &ProgressBar, attempt: u32) -> Result<Trial, Failure> {
        let mut options = self.options(system, pace);
        // The same schedule twice would meet the same chance twice.
        options.seed = options.seed.wrapping_add(u64::from(attempt) << 32);
        let usages: RefCell<Vec<Usage>> = RefCell::default();
        let at_the_edges = |_, answered| usages.borrow_mut().push(system.usage(answered));
        let mut watch = Watch { bar: bar.clone(), events: self.events, at_the_edges: Box::new(at_the_edges) };
        let (load, units_per_us) = (self.load, self.units_per_us);
        let requests = |part| load.requests(part, units_per_us);
        let report = generator::run(&options, &|seed| system.endpoint(seed), &requests, &mut watch).map_err(failure)?;
        drop(watch);
        let costs = match &usages.into_inner()[..] {
            [before, after] => after.since(before),
            _ => None,
        };
        Ok(self.trial(system, pace, report, costs))
    }

    fn trial(&self, system: &System, pace: Pace, report: Report, costs: Option<Costs>) -> Trial {
        let Report { measured, counts, processor_time, replies, failure } = report;
        let verdict = verdict::judge(&measured, &self.demands);
        let mut reasons = verdict.reasons();
        if let Some(why) = failure {
            reasons.push(format!("the service failed: {why}"));
        }
        let total = &measured.total;
        let all = replies.values().sum::<u64>().max(1) as f64;
        let name = |address| system.node_at(address).map_or_else(|| address.to_string(), |node| format!("n{}", node.0));
        Trial {
            system: system.name.clone(),
            pace,
            usable: reasons.is_empty(),
            reasons,
            attempts: 1,
            rate: measured.rate(),
            latency: total.from_due.summary(),
            latency_from_sent: total.from_sent.summary(),
            offered: total.offered,
            answered: total.answered,
            timed_out: total.timed_out,
            refused: total.refused,
            failed: total.failed,
            overrun: total.overrun,
            client: counts,
            load_us: processor_time.as_nanos() as f64 / 1e3 / total.completed.max(1) as f64,
            replies: replies.into_iter().map(|(address, count)| (name(address), count as f64 / all)).collect(),
            costs,
            verdict,
        }
    }

    fn options(&self, system: &System, pace: Pace) -> Options {
        self.load.options(pace, self.place.load(), system.ttl(), self.place.spin())
    }
}

fn failure(error: GeneratorError) -> Failure {
    match error {
        GeneratorError::GivenUp => {
            Failure::new("interrupted").means("What was started has been stopped; there is no result.")
        }
        error => Failure::new(format!("no load: {error}")),
    }
}
