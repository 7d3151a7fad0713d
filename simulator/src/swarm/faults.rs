//! The faults of a run that come and go, drawn before it begins: each kind from a stream of its own and each fault with a
//! seed of its own, so that a run without one of them is otherwise the same run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use super::options::Options;
use crate::streams::stream;

/// Most faults of one kind in a run.
pub const FAULTS_MAX: u32 = 1_000;

/// What can befall a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FaultKind {
    /// Two sides, nothing passes.
    Split,
    /// Two sides, one of which still hears the other.
    OneWay,
    /// Some pairs of nodes, whatever sides there are.
    Partial,
    /// A node stands still for a while.
    Pause,
    /// A node is killed.
    Kill,
    /// A clock jumps ahead.
    Jump,
    /// A clock is set back, and stands still.
    Stall,
    /// A durable node dies between any two things it does, and is started again.
    Crash,
    /// All durable nodes lose power at once.
    Blackout,
    /// A disk is full for a while; its node stops and is started again when there is room.
    DiskFull,
    /// A disk fails for a while.
    DiskFailure,
    /// All disks are slow for a while, or one hangs.
    SlowDisks,
    /// A node is added.
    Join,
    /// A member is removed.
    Leave,
    /// A member loses all it knows and comes back as another one.
    Replace,
    /// Leadership is handed over.
    Transfer,
    /// The aggregators die; one is started again.
    AggCrash,
    /// An aggregator stands still; another one is started, or not.
    AggPause,
    /// An aggregator is cut off from some nodes, in one direction or both.
    AggCut,
    /// A second aggregator is there for a while.
    AggTwin,
    /// The gateway dies, and is started again.
    GatewayCrash,
    /// The gateway stands still for a while.
    GatewayPause,
    /// The gateway is cut off from some nodes, in one direction or both.
    GatewayCut,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::Split,
        Self::OneWay,
        Self::Partial,
        Self::Pause,
        Self::Kill,
        Self::Jump,
        Self::Stall,
        Self::Crash,
        Self::Blackout,
        Self::DiskFull,
        Self::DiskFailure,
        Self::SlowDisks,
        Self::Join,
        Self::Leave,
        Self::Replace,
        Self::Transfer,
        Self::AggCrash,
        Self::AggPause,
        Self::AggCut,
        Self::AggTwin,
        Self::GatewayCrash,
        Self::GatewayPause,
        Self::GatewayCut,
    ];

    /// Its name, as overrides write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::OneWay => "oneway",
            Self::Partial => "partial",
            Self::Pause => "pause",
            Self::Kill => "kill",
            Self::Jump => "jump",
            Self::Stall => "stall",
            Self::Crash => "crash",
            Self::Blackout => "blackout",
            Self::DiskFull => "diskfull",
            Self::DiskFailure => "diskfailure",
            Self::SlowDisks => "slowdisks",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Replace => "replace",
            Self::Transfer => "transfer",
            Self::AggCrash => "aggcrash",
            Self::AggPause => "aggpause",
            Self::AggCut => "aggcut",
            Self::AggTwin => "aggtwin",
            Self::GatewayCrash => "gatewaycrash",
            Self::GatewayPause => "gatewaypause",
            Self::GatewayCut => "gatewaycut",
        }
    }

    /// How many of it there are at most in such a run.
    fn most(self, options: &Options) -> u32 {
        let durable = options.disk.is_some();
        let any = |wanted: bool| if wanted { FAULTS_MAX } else { 0 };
        match self {
            Self::Split => any(options.splits),
            Self::OneWay => any(options.one_way),
            Self::Partial => any(options.partial),
            Self::Pause => any(options.pauses),
            Self::Kill => options.kills.into(),
            Self::Jump => any(!options.jump_max.is_zero()),
            Self::Stall => any(!options.stall_max.is_zero()),
            Self::Crash => any(options.crashes && durable),
            Self::Blackout => any(options.blackouts && durable),
            Self::DiskFull | Self::DiskFailure => any(options.disk_faults && durable),
            Self::SlowDisks => any(options.slow_disks && durable),
            Self::Join => any(options.joins),
            Self::Leave => any(options.leaves),
            Self::Replace => any(options.replaces),
            Self::Transfer => any(options.transfers),
            Self::AggCrash => any(options.aggregator_crashes && options.aggregators() > 0),
            Self::AggPause => any(options.aggregator_pauses && options.aggregators() > 0),
            Self::AggCut => any(options.aggregator_cuts && options.aggregators() > 0),
            Self::AggTwin => any(options.aggregator_twins && options.aggregators() > 0),
            Self::GatewayCrash => any(options.gateway_crashes && options.gateway.is_some()),
            Self::GatewayPause => any(options.gateway_pauses && options.gateway.is_some()),
            Self::GatewayCut => any(options.gateway_cuts && options.gateway.is_some()),
        }
    }

    /// Mean time between two of it, and mean time that one lasts, both in units of [`Options::fault_every`].
    fn pace(self) -> (u32, u32) {
        match self {
            Self::Split | Self::OneWay | Self::Partial => (4, 5),
            Self::Pause => (6, 6),
            Self::Kill | Self::Jump | Self::Stall => (6, 0),
            Self::Crash => (3, 2),
            Self::Blackout => (12, 2),
            Self::DiskFull | Self::DiskFailure => (10, 4),
            Self::SlowDisks => (8, 4),
            Self::Join | Self::Leave | Self::Replace => (3, 0),
            Self::Transfer => (4, 0),
            Self::AggCrash => (4, 2),
            Self::AggPause | Self::AggTwin => (4, 4),
            Self::AggCut => (4, 5),
            Self::GatewayCrash => (6, 3),
            Self::GatewayPause => (8, 3),
            Self::GatewayCut => (6, 5),
        }
    }
}

/// Names a fault of a run: `pause3` is the third pause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultId {
    /// What.
    pub kind: FaultKind,
    /// The how manieth of its kind, from 1.
    pub number: u32,
}

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.name(), self.number)
    }
}

impl FromStr for FaultId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let (name, number) = text.split_at(digits);
        let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name);
        let number = number.parse().ok().filter(|number| *number > 0);
        match (kind, number) {
            (Some(kind), Some(number)) => Ok(Self { kind, number }),
            _ => {
                let names: Vec<&str> = FaultKind::ALL.into_iter().map(FaultKind::name).collect();
                Err(format!("'{text}' names no fault: write a kind ({}) and a number from 1", names.join(", ")))
            }
        }
    }
}

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its name.
    pub id: FaultId,
    /// When it strikes, from the start of the run.
    pub at: Duration,
    /// How long it lasts, if it passes.
    pub lasts: Duration,
    /// Decides what else there is to decide: which node, which sides.
    pub seed: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.1} ms", self.id, self.at.as_secs_f64() * 1e3)?;
        if self.lasts > Duration::ZERO { write!(f, " for {:.1} ms", self.lasts.as_secs_f64() * 1e3) } else { Ok(()) }
    }
}

/// The faults of a run, in the order in which they strike.
pub fn schedule(options: &Options) -> Vec<Fault> {
    let mut faults = Vec::new();
    for kind in FaultKind::ALL {
        let (every, lasts) = kind.pace();
        let mut rng = stream(options.seed, kind.name(), 0);
        let mut at = Duration::ZERO;
        for number in 1..=kind.most(options) {
            at += wait(&mut rng, options.fault_every * every);
            let lasts = if lasts == 0 { Duration::ZERO } else { wait(&mut rng, options.fault_every * lasts) };
            let fault = Fault { id: FaultId { kind, number }, at, lasts, seed: rng.random() };
            if at >= options.fault_time {
                break;
            }
            if options.only.as_ref().is_none_or(|only| only.contains(&fault.id)) {
                faults.push(fault);
            }
        }
    }
    faults.sort_by_key(|fault| (fault.at, fault.id));
    faults
}

/// A time with this mean, never none.
pub(super) fn wait(rng: &mut SmallRng, mean: Duration) -> Duration {
    Duration::from_nanos(1 + rng.random_range(0..=2 * mean.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let every = |options: &Options| options.splits && options.partial && options.pauses && options.kills > 0;
        (0..).map(Options::draw).find(|options| every(options) && schedule(options).len() > 8).expect("some seed")
    }

    #[test]
    fn taking_one_away_leaves_the_others() {
        let options = options();
        let all = schedule(&options);
        assert!(all.is_sorted_by_key(|fault| fault.at));
        let some: Vec<Fault> = all.iter().copied().step_by(2).collect();
        let only = Some(some.iter().map(|fault| fault.id).collect());
        assert_eq!(schedule(&Options { only, ..options.clone() }), some);
        let without = schedule(&Options { pauses: false, fault_time: options.fault_time / 2, ..options.clone() });
        let half = |fault: &&Fault| fault.id.kind != FaultKind::Pause && fault.at < options.fault_time / 2;
        assert_eq!(without, all.iter().filter(half).copied().collect::<Vec<_>>());
    }

    #[test]
    fn names() {
        for fault in schedule(&options()) {
            assert_eq!(fault.id.to_string().parse(), Ok(fault.id));
        }
        for wrong in ["", "pause", "pause0", "3", "snow3", "pause-1", "pause99999999999"] {
            assert!(wrong.parse::<FaultId>().is_err(), "{wrong}");
        }
    }
}
