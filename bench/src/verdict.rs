//! Whether a run may be believed.
//!
//! [`judge`] looks at what was measured and says which checks it passed. A run that fails one is not usable: whoever runs it
//! repeats it, or shows it as unusable with the reasons, and never prints its percentiles as if they were good.
//!
//! | check | loop | passed if |
//! |---|---|---|
//! | rate | open | replies per second are what was offered, within 2 % and three standard deviations |
//! | arrivals | open | the gaps between the sendings of a client are of the process asked for: Anderson-Darling at 1 %, or 90 % within a quarter of their mean |
//! | lag | open | the generator sent in time: the 99th percentile of its delay is at most half of that of the latency |
//! | stationarity | both | the medians of 200 stretches return to their mean (augmented Dickey-Fuller at 5 %), and those of the quarters lie within a factor of 1.5 |
//! | independence | both | after thinning, no rank correlation at any of 10 lags (Spearman at 1 %), with enough samples left for the interval |
//! | interval | both | the 95 % confidence interval of the percentile is at most so wide |

use serde::Serialize;

use crate::arrivals::Process;
use crate::load::{Pace, Part};
use crate::samples::{Sample, Samples};
use crate::statistics::{anderson_darling, dickey_fuller, interval, median, spearman};

/// How many gaps the test of the arrivals looks at: with very many every clock's granularity is found.
const GAPS_TESTED: usize = 500;
/// Stretches of which the medians are tested for stationarity.
const STRETCHES: usize = 200;
/// By how much the medians of quarters may differ.
const DRIFT_MAX: f64 = 1.5;
/// Part of the rate by which what came back may differ from what was offered, beyond chance.
const RATE_TOLERANCE: f64 = 0.02;
/// The quantiles for which intervals are given.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// What a run must achieve.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Demands {
    /// The percentile that matters.
    pub quantile: f64,
    /// Its confidence interval may have this width, as a part of the value.
    pub width_max: f64,
}

impl Default for Demands {
    fn default() -> Self {
        Self { quantile: 0.99, width_max: 0.2 }
    }
}

/// One check.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it was passed.
    pub passed: bool,
    /// What was found, and what was demanded.
    pub says: String,
}

/// Where a percentile lies.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Interval {
    /// Which one, from 0 to 1.
    pub quantile: f64,
    /// Not below, µs.
    pub low_us: f64,
    /// Not above, µs.
    pub high_us: f64,
}

/// What [`judge`] says.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// All checks that apply.
    pub checks: Vec<Check>,
    /// Of so many samples one is independent of the next.
    pub thinned_by: u64,
    /// So many of these there are.
    pub independent: usize,
    /// Where percentiles lie, with 95 % confidence; only those for which there are enough independent samples.
    pub intervals: Vec<Interval>,
}

impl Verdict {
    /// Whether everything was passed.
    pub fn usable(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// What was not passed.
    pub fn reasons(&self) -> Vec<String> {
        self.checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.says))
            .collect()
    }

    /// Whether a check was not passed.
    pub fn fails(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name && !check.passed)
    }

    /// Where a percentile lies, if that can be said.
    pub fn interval(&self, quantile: f64) -> Option<&Interval> {
        self.intervals.iter().find(|interval| interval.quantile == quantile)
    }
}

/// What all threads of a run have measured.
#[derive(Debug)]
pub struct Measured {
    /// What made operations due.
    pub pace: Pace,
    /// The measured time in seconds.
    pub seconds: f64,
    /// All counts and histograms. Its samples are in `samples`.
    pub total: Part,
    /// All samples, in the order in which operations were due.
    pub samples: Vec<Sample>,
    /// How many operations there are to a sample.
    pub stride: u64,
}

impl Measured {
    /// Puts the threads' parts together.
    pub fn merge(pace: Pace, seconds: f64, parts: Vec<Part>) -> Self {
        let mut total = Part::default();
        let mut samples = Vec::new();
        for part in parts {
            total.offered += part.offered;
            total.overrun += part.overrun;
            total.answered += part.answered;
            total.timed_out += part.timed_out;
            total.refused += part.refused;
            total.failed += part.failed;
            total.completed += part.completed;
            total.from_due.merge(&part.from_due);
            total.from_sent.merge(&part.from_sent);
            total.lag.merge(&part.lag);
            total.gaps.extend(part.gaps);
            samples.push(part.samples);
        }
        let stride = samples.iter().map(Samples::stride).max().unwrap_or(1);
        Self { pace, seconds, total, samples: Samples::merge(samples), stride }
    }

    /// Replies per second.
    pub fn rate(&self) -> f64 {
        self.total.completed as f64 / self.seconds
    }
}

/// Judges a run.
pub fn judge(run: &Measured, demands: &Demands) -> Verdict {
    let mut checks = Vec::new();
    if let Pace::Open { process, rate } = run.pace {
        checks.push(rate_check(run, process, rate));
        checks.push(arrivals_check(&run.total.gaps, process));
        checks.push(lag_check(&run.total));
    }
    checks.push(stationarity_check(&run.samples));
    let latencies: Vec<f64> = run.samples.iter().map(|sample| sample.nanos as f64).collect();
    let thinning = thin(&latencies, demands.quantile);
    let mut sorted = thinning.kept;
    sorted.sort_by(f64::total_cmp);
    let at = |quantile| {
        let (low, high) = interval::ranks(sorted.len(), quantile)?;
        Some(Interval { quantile, low_us: sorted[low - 1] / 1e3, high_us: sorted[high - 1] / 1e3 })
    };
    let demanded = at(demands.quantile);
    let mut intervals: Vec<Interval> = QUANTILES.into_iter().filter_map(at).collect();
    if let (Some(demanded), false) = (demanded, QUANTILES.contains(&demands.quantile)) {
        intervals.push(demanded);
    }
    checks.push(Check {
        name: "independence",
        passed: thinning.correlation.abs() <= thinning.critical && demanded.is_some(),
        says: format!(
            "every {}. operation, {} of them, correlation {:.3}, at most {:.3}; the percentile needs {}",
            thinning.step * run.stride,
            sorted.len(),
            thinning.correlation,
            thinning.critical,
            samples_min(demands.quantile)
        ),
    });
    let width = demanded.map_or(f64::INFINITY, |interval| {
        (interval.high_us - interval.low_us) / f64::midpoint(interval.low_us, interval.high_us).max(1e-9)
    });
    checks.push(Check {
        name: "interval",
        passed: width <= demands.width_max,
        says: format!(
            "the interval of p{} is {:.0} % wide, at most {:.0} %",
            demands.quantile * 100.0,
            width * 100.0,
            demands.width_max * 100.0
        ),
    });
    Verdict { checks, thinned_by: thinning.step * run.stride, independent: sorted.len(), intervals }
}

fn rate_check(run: &Measured, process: Process, rate: f64) -> Check {
    let chance = match process {
        Process::Poisson => 3.0 / (rate * run.seconds).sqrt(),
        Process::Fixed => 1.0 / (rate * run.seconds),
    };
    let difference = run.rate() / rate - 1.0;
    let tolerance = RATE_TOLERANCE + chance;
    Check {
        name: "rate",
        passed: difference.abs() <= tolerance,
        says: format!(
            "{:.0} replies a second to {rate:.0} offered, {:+.1} %, at most {:.1} %",
            run.rate(),
            difference * 100.0,
            tolerance * 100.0
        ),
    }
}

fn arrivals_check(gaps: &[f64], process: Process) -> Check {
    let step = (gaps.len() / GAPS_TESTED).max(1);
    let tested: Vec<f64> = gaps.iter().copied().step_by(step).take(GAPS_TESTED).collect();
    let (passed, says) = match process {
        Process::Poisson => match anderson_darling::exponential(&tested) {
            Some(statistic) => (
                statistic <= anderson_darling::CRITICAL,
                format!("Anderson-Darling {statistic:.2}, at most {}", anderson_darling::CRITICAL),
            ),
            None => (false, format!("{} gaps are too few to say", tested.len())),
        },
        Process::Fixed if tested.len() < anderson_darling::GAPS_MIN => {
            (false, format!("{} gaps are too few to say", tested.len()))
        }
        Process::Fixed => {
            let near = tested.iter().filter(|gap| (**gap - 1.0).abs() <= 0.25).count() as f64 / tested.len() as f64;
            (
                near >= 0.9,
                format!("{:.1} % of the gaps are within a quarter of their mean, at least 90 %", near * 100.0),
            )
        }
    };
    Check { name: "arrivals", passed, says }
}

fn lag_check(total: &Part) -> Check {
    let (lag, latency) = (total.lag.quantile(0.99), total.from_due.quantile(0.99));
    Check {
        name: "lag",
        passed: total.overrun == 0 && lag * 2 <= latency,
        says: format!(
            "sent up to {:.0} µs late (p99) of {:.0} µs latency, at most half; {} not sent at all",
            lag.as_nanos() as f64 / 1e3,
            latency.as_nanos() as f64 / 1e3,
            total.overrun
        ),
    }
}

fn stationarity_check(samples: &[Sample]) -> Check {
    let medians = |parts: usize| -> Vec<f64> {
        let len = samples.len() / parts;
        let stretch = |part: usize| &samples[part * len..(part + 1) * len];
        let latencies = |part| stretch(part).iter().map(|sample| sample.nanos as f64).collect::<Vec<_>>();
        (0..parts).map(|part| median(&latencies(part))).collect()
    };
    if samples.len() < STRETCHES {
        let says = format!("{} samples are too few to say", samples.len());
        return Check { name: "stationarity", passed: false, says };
    }
    let statistic = dickey_fuller::statistic(&medians(STRETCHES)).unwrap_or(f64::INFINITY);
    let quarters = medians(4);
    let (least, most) =
        quarters.iter().fold((f64::MAX, 0.0_f64), |(least, most), &next| (least.min(next), most.max(next)));
    let drift = most / least.max(1.0);
    Check {
        name: "stationarity",
        passed: statistic <= dickey_fuller::CRITICAL && drift <= DRIFT_MAX,
        says: format!(
            "Dickey-Fuller {statistic:.1}, at most {}; medians of quarters differ by {drift:.2}, at most {DRIFT_MAX}",
            dickey_fuller::CRITICAL
        ),
    }
}

/// Independent samples needed for an interval of this percentile.
fn samples_min(quantile: f64) -> usize {
    let tail = (1.0 - interval::CONFIDENCE) / 2.0;
    let edge = quantile.max(1.0 - quantile);
    (tail.ln() / edge.ln()).ceil() as usize
}

struct Thinning {
    kept: Vec<f64>,
    step: u64,
    correlation: f64,
    critical: f64,
}

/// Takes every second, fourth, ... value until they do not depend on each other, or are as few as the percentile permits.
fn thin(latencies: &[f64], quantile: f64) -> Thinning {
    let mut step = 1;
    loop {
        let kept: Vec<f64> = latencies.iter().copied().step_by(step).collect();
        let (correlation, critical) = (spearman::autocorrelation(&kept), spearman::critical(kept.len()));
        if correlation.abs() <= critical || kept.len() / 2 < samples_min(quantile) {
            return Thinning { kept, step: step as u64, correlation, critical };
        }
        step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use r2p2::Instant;

    use super::*;
    use crate::statistics::known;

    const RATE: f64 = 10_000.0;
    const SECONDS: f64 = 2.0;

    /// A good run: Poisson, independent exponential latencies of 100 µs on average.
    fn good() -> Measured {
        with(&known::exponential((RATE * SECONDS) as usize, 2).iter().map(|x| x * 1e5).collect::<Vec<_>>())
    }

    fn with(latencies: &[f64]) -> Measured {
        let mut part = Part { gaps: known::exponential(5000, 1), ..Part::default() };
        for (number, &nanos) in latencies.iter().enumerate() {
            let due = Instant::from_nanos(number as u64 * 100_000);
            part.from_due.record(Duration::from_nanos(nanos as u64));
            part.lag.record(Duration::from_nanos(1000));
            part.samples.push(Sample { due, nanos: nanos as u64 });
        }
        (part.offered, part.answered, part.completed) =
            ((RATE * SECONDS) as u64, latencies.len() as u64, latencies.len() as u64);
        Measured::merge(Pace::Open { process: Process::Poisson, rate: RATE }, SECONDS, vec![part])
    }

    fn failed(run: &Measured) -> Vec<&'static str> {
        judge(run, &Demands::default()).checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn a_good_run_is_usable_and_its_interval_holds_the_truth() {
        let verdict = judge(&good(), &Demands::default());
        assert_eq!(verdict.reasons(), Vec::<String>::new());
        assert_eq!(verdict.thinned_by, 1);
        let interval = verdict.interval(0.99).expect("enough samples");
        let truth = -(0.01_f64.ln()) * 100.0;
        assert!(interval.low_us <= truth && truth <= interval.high_us, "{interval:?}, {truth}");
    }

    #[test]
    fn too_few_replies_are_found() {
        let mut run = good();
        run.total.completed = run.total.completed * 9 / 10;
        assert_eq!(failed(&run), ["rate"]);
    }

    #[test]
    fn bursts_are_found() {
        let mut run = good();
        run.total.gaps.iter_mut().step_by(20).for_each(|gap| *gap = 0.0);
        // Every tenth is tested, and of those now every second is a burst.
        assert_eq!(failed(&run), ["arrivals"]);
    }

    #[test]
    fn a_slow_generator_is_found() {
        let mut run = good();
        for _ in 0..1000 {
            run.total.lag.record(Duration::from_millis(1));
        }
        assert_eq!(failed(&run), ["lag"]);
        run = good();
        run.total.overrun = 1;
        assert_eq!(failed(&run), ["lag"]);
    }

    #[test]
    fn a_growing_queue_is_found() {
        let latencies: Vec<f64> =
            known::exponential(20_000, 3).iter().enumerate().map(|(at, x)| x * 1e5 + at as f64 * 100.0).collect();
        assert!(failed(&with(&latencies)).contains(&"stationarity"));
    }

    #[test]
    fn dependent_samples_are_thinned_until_they_are_independent() {
        // Each latency comes ten times in a row.
        let latencies: Vec<f64> = known::exponential(20_000, 4).iter().flat_map(|x| [x * 1e5; 10]).collect();
        let mut run = with(&latencies);
        run.total.completed = (RATE * SECONDS) as u64;
        let verdict = judge(&run, &Demands::default());
        assert!(verdict.thinned_by >= 8, "{}", verdict.thinned_by);
        assert_eq!(verdict.reasons(), Vec::<String>::new());
    }

    #[test]
    fn too_few_independent_samples_are_no_result() {
        let latencies: Vec<f64> = known::exponential(400, 4).iter().flat_map(|x| [x * 1e5; 50]).collect();
        assert!(failed(&with(&latencies)).contains(&"interval"));
    }

    #[test]
    fn a_closed_loop_has_no_arrivals() {
        let mut run = good();
        run.pace = Pace::Closed { window: 1 };
        run.total.gaps.clear();
        let names: Vec<_> = judge(&run, &Demands::default()).checks.iter().map(|check| check.name).collect();
        assert_eq!(names, ["stationarity", "independence", "interval"]);
    }

    #[test]
    fn nothing_measured_is_not_usable() {
        let run = Measured::merge(Pace::Closed { window: 1 }, 1.0, Vec::new());
        assert!(!judge(&run, &Demands::default()).usable());
    }
}
