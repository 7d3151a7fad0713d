//! Departures from what a seed draws: they restrict a swarm, and make a failing run smaller.
//!
//! Two tables say all there is: [`FEATURES`] what can be left out, [`QUANTITIES`] what can be set. One line makes a new
//! option known to the command line, to replay commands and to the shrinker.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use hovercraft::Mode;

use super::faults::FaultId;
use super::options::Options;
use crate::NetworkConfig;

/// Something that a run can do without.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    leave_out: fn(&mut Options),
}

const fn feature(name: &'static str, leave_out: fn(&mut Options)) -> Feature {
    Feature { name, leave_out }
}

/// Everything that a run can do without.
pub const FEATURES: &[Feature] = &[
    feature("splits", |o| o.splits = false),
    feature("one-way", |o| o.one_way = false),
    feature("partial", |o| o.partial = false),
    feature("pauses", |o| o.pauses = false),
    feature("kills", |o| o.kills = 0),
    feature("joins", |o| o.joins = false),
    feature("leaves", |o| o.leaves = false),
    feature("replaces", |o| o.replaces = false),
    feature("transfers", |o| o.transfers = false),
    feature("aggregator", |o| {
        if o.mode == Mode::HovercraftPlusPlus {
            o.mode = Mode::Hovercraft;
        }
    }),
    feature("aggregator-crashes", |o| o.aggregator_crashes = false),
    feature("aggregator-pauses", |o| o.aggregator_pauses = false),
    feature("aggregator-cuts", |o| o.aggregator_cuts = false),
    feature("aggregator-twins", |o| o.aggregator_twins = false),
    feature("gateway", |o| o.gateway = None),
    feature("gateway-crashes", |o| o.gateway_crashes = false),
    feature("gateway-pauses", |o| o.gateway_pauses = false),
    feature("gateway-cuts", |o| o.gateway_cuts = false),
    feature("drift", |o| o.drift_ppm_max = 0),
    feature("jumps", |o| o.jump_max = Duration::ZERO),
    feature("stalls", |o| o.stall_max = Duration::ZERO),
    feature("disks", |o| o.disk = None),
    feature("crashes", |o| o.crashes = false),
    feature("blackouts", |o| o.blackouts = false),
    feature("disk-faults", |o| o.disk_faults = false),
    feature("slow-disks", |o| o.slow_disks = false),
    feature("loss", |o| o.network.loss = 0.0),
    feature("duplicates", |o| o.network.duplicate = 0.0),
    feature("corruption", |o| o.network.corrupt = 0.0),
    feature("jitter", |o| o.network.latency = NetworkConfig::default().latency),
    feature("spikes", |o| o.network.spikes = 0.0),
    feature("reordering", |o| o.network.reorder = 0.0),
    feature("bandwidth", |o| o.network.bandwidth = None),
    feature("processing", |o| (o.network.processing, o.slow) = (Duration::ZERO, None)),
    feature("small-sockets", |o| o.network.socket_max = NetworkConfig::default().socket_max),
    feature("receiver-loss", |o| o.receiver_loss.fill(0.0)),
    feature("deaf", |o| o.deaf = None),
    feature("plain-clients", |o| o.plain_clients = 0),
    feature("cancels", |o| o.cancels = 0.0),
    feature("large", |o| o.large = 0.0),
    feature("oversized", |o| o.oversized = 0.0),
    feature("rests", |o| o.rests = 0.0),
    feature("reads", |o| o.mix[0] = 0),
    feature("sets", |o| o.mix[1] = 0),
    feature("cas", |o| o.mix[2] = 0),
    feature("early-commit", |o| o.early_commit = false),
    feature("session-limits", |o| {
        let limits = hovercraft::session::SessionLimits::default();
        (o.session_expiry, o.sessions_max) = (limits.session_expiry, limits.sessions_max);
        o.reply_cache_bytes_max = limits.cache_bytes_max;
    }),
    feature("short-log", |o| o.retained_entries_max = hovercraft::Limits::default().retention.entries_max),
    feature("snapshots", |o| o.snapshot_after = hovercraft::Limits::default().snapshots.after_entries),
    feature("small-limits", |o| {
        let limits = hovercraft::Limits::default();
        o.replier_queue_max = limits.replier_queue_max;
        o.window_entries_max = limits.window_entries_max;
        o.batch_entries_max = limits.batch_entries_max;
        o.chunks_max = limits.snapshots.chunks_in_flight_max;
        o.held_entries_max = limits.snapshots.hold_entries_max;
        o.unordered_max = limits.unordered.count_max;
        o.order_age_max = hovercraft::Timing::default().order_age_max;
        o.fetches_max = limits.fetch.in_flight_max;
    }),
];

/// Something that a run has more or less of.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Its name.
    pub name: &'static str,
    /// Its unit as it is written behind the number; nothing for a count.
    pub unit: &'static str,
    /// The least there can be.
    pub least: u64,
    /// The most.
    pub most: u64,
    get: fn(&Options) -> u64,
    set: fn(&mut Options, u64),
}

impl Quantity {
    /// How much of it there is.
    pub fn of(&self, options: &Options) -> u64 {
        (self.get)(options)
    }
}

/// Everything that a run has more or less of.
pub const QUANTITIES: &[Quantity] = &[
    Quantity {
        name: "fault-time",
        unit: "us",
        least: 1_000,
        most: 60_000_000,
        get: |o| o.fault_time.as_micros() as u64,
        set: |o, micros| o.fault_time = Duration::from_micros(micros),
    },
    count("operations", 1, 100_000, |o| o.operations as u64, |o, n| o.operations = n as usize),
    count("clients", 1, 100, |o| o.clients as u64, |o, n| o.clients = n as usize),
    count("nodes", 1, 9, |o| o.nodes.into(), |o, n| o.set_nodes(n as u16)),
    count("spares", 0, 5, |o| o.spares.into(), |o, n| o.spares = n as u16),
    count("pipeline", 1, 1_000, |o| o.pipeline as u64, |o, n| o.pipeline = n as usize),
    count("registers", 1, 1_000, |o| o.registers, |o, n| o.registers = n),
];

const fn count(
    name: &'static str,
    least: u64,
    most: u64,
    get: fn(&Options) -> u64,
    set: fn(&mut Options, u64),
) -> Quantity {
    Quantity { name, unit: "", least, most, get, set }
}

/// Departures from what a seed draws.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    mode: Option<Mode>,
    /// Indices into [`FEATURES`].
    without: BTreeSet<usize>,
    /// Indices into [`QUANTITIES`], and how much.
    with: BTreeMap<usize, u64>,
    faults: Option<BTreeSet<FaultId>>,
}

impl Overrides {
    /// Fixes the mode.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = Some(mode);
    }

    /// Leaves something out, by name.
    ///
    /// # Errors
    /// Nothing is called so.
    pub fn leave_out(&mut self, name: &str) -> Result<(), String> {
        let at = FEATURES.iter().position(|feature| feature.name == name);
        let names = || FEATURES.iter().map(|feature| feature.name).collect::<Vec<_>>().join(", ");
        self.without.insert(at.ok_or_else(|| format!("'{name}' is none of {}", names()))?);
        Ok(())
    }

    /// Sets a quantity, from `name=value`.
    ///
    /// # Errors
    /// Nothing is called so, or there cannot be as much or as little of it.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("write name=value in place of '{text}'"))?;
        let at = QUANTITIES.iter().position(|quantity| quantity.name == name);
        let names = || QUANTITIES.iter().map(|quantity| quantity.name).collect::<Vec<_>>().join(", ");
        let at = at.ok_or_else(|| format!("'{name}' is none of {}", names()))?;
        let Quantity { unit, least, most, .. } = QUANTITIES[at];
        let parsed = if unit.is_empty() { value.parse().ok() } else { parse_micros(value) };
        let value = parsed.filter(|value| (least..=most).contains(value));
        self.with.insert(at, value.ok_or_else(|| format!("{name} goes from {least}{unit} to {most}{unit}"))?);
        Ok(())
    }

    /// Keeps only this fault of those that come and go, and those kept before.
    pub fn keep(&mut self, fault: FaultId) {
        self.faults.get_or_insert_default().insert(fault);
    }

    /// Keeps none of the faults that come and go, but for those kept later.
    pub fn keep_none(&mut self) {
        self.faults = Some(BTreeSet::new());
    }

    /// What a seed draws, with these departures.
    pub fn draw(&self, seed: u64) -> Options {
        let mut options = Options::draw(seed);
        for (&at, &value) in &self.with {
            (QUANTITIES[at].set)(&mut options, value);
        }
        if let Some(mode) = self.mode {
            options.set_mode(mode);
        }
        for &at in &self.without {
            (FEATURES[at].leave_out)(&mut options);
        }
        options.only = self.faults.clone();
        options
    }

    /// The same and one feature less; nothing if that changes nothing for this seed.
    pub(super) fn without(&self, seed: u64, feature: usize) -> Option<Self> {
        let mut smaller = self.clone();
        smaller.without.insert(feature);
        (smaller.draw(seed) != self.draw(seed)).then_some(smaller)
    }

    /// The same with so much of a quantity.
    pub(super) fn with(&self, quantity: usize, value: u64) -> Self {
        let mut smaller = self.clone();
        smaller.with.insert(quantity, value);
        smaller
    }

    /// The same with these faults only.
    pub(super) fn only(&self, faults: BTreeSet<FaultId>) -> Self {
        Self { faults: Some(faults), ..self.clone() }
    }
}

impl fmt::Display for Overrides {
    /// As arguments on the command line, with a space in front of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mode) = self.mode {
            write!(f, " --mode {}", mode.name())?;
        }
        let list = |f: &mut fmt::Formatter<'_>, name, items: Vec<String>| {
            if items.is_empty() { Ok(()) } else { write!(f, " --{name} {}", items.join(",")) }
        };
        list(f, "without", self.without.iter().map(|at| FEATURES[*at].name.to_owned()).collect())?;
        let quantity =
            |(at, value): (&usize, &u64)| format!("{}={value}{}", QUANTITIES[*at].name, QUANTITIES[*at].unit);
        list(f, "with", self.with.iter().map(quantity).collect())?;
        match &self.faults {
            None => Ok(()),
            Some(faults) if faults.is_empty() => write!(f, " --faults none"),
            Some(faults) => list(f, "faults", faults.iter().map(ToString::to_string).collect()),
        }
    }
}

/// A time such as `120ms`, in microseconds.
fn parse_micros(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the command line does with what is printed.
    fn parse(text: &str) -> Result<Overrides, String> {
        let mut overrides = Overrides::default();
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.chunks(2) {
            for item in pair[1].split(',') {
                match pair[0] {
                    "--without" => overrides.leave_out(item)?,
                    "--with" => overrides.set(item)?,
                    "--faults" if item == "none" => overrides.keep_none(),
                    "--faults" => overrides.keep(item.parse()?),
                    "--mode" => overrides.set_mode(Mode::Raft),
                    other => return Err(other.to_owned()),
                }
            }
        }
        Ok(overrides)
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for text in [
            "",
            " --mode raft --without splits,loss --with fault-time=120000us,nodes=3 --faults pause1,kill2",
            " --faults none",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("--with fault-time=120ms"), parse("--with fault-time=120000us"));
        let wrong = ["--without snow", "--with nodes=10", "--with nodes=0", "--with nodes", "--with fault-time=3"];
        for wrong in wrong.into_iter().chain(["--with snow=1", "--faults snow1", "--with fault-time=99999999999999s"]) {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_feature_and_quantity_changes_some_run_and_nothing_else() {
        let none = Overrides::default();
        for (at, feature) in FEATURES.iter().enumerate() {
            let (seed, smaller) =
                (0..).find_map(|seed| Some((seed, none.without(seed, at)?))).expect("drawn now and then");
            assert!(smaller.without(seed, at).is_none(), "{}: once is enough", feature.name);
        }
        for (at, quantity) in QUANTITIES.iter().enumerate() {
            for seed in 0..50 {
                let smaller = none.with(at, quantity.least).draw(seed);
                assert_eq!(quantity.of(&smaller), quantity.least, "{}", quantity.name);
            }
        }
    }

    #[test]
    fn a_cluster_of_fewer_nodes_keeps_to_itself() {
        let mut overrides = Overrides::default();
        overrides.set("nodes=2").unwrap();
        for seed in 0..200 {
            let options = overrides.draw(seed);
            assert!(options.kills == 0 && options.deaf.is_none_or(|id| id <= options.nodes));
            assert_eq!(options.receiver_loss.len(), usize::from(options.nodes));
        }
        overrides.set_mode(Mode::Unreplicated);
        assert_eq!(overrides.draw(1).nodes, 1);
    }
}
