//! What happens when: for each round a list of faults, drawn from the seed and the number of the round.
//!
//! Each kind of fault has a stream of its own: one that is left out changes nothing about the others. A round has some kinds
//! and not others (swarm testing), so that rare combinations are not drowned by common ones.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use simulator::streams::stream;

use super::links::Cast;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "`Fault` says what they are")]
pub enum Kind {
    Kill,
    KillAll,
    Restart,
    Wipe,
    Pause,
    Hog,
    Loss,
    Partition,
    Slow,
    Transfer,
    Replace,
    Snapshot,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::KillAll,
        Self::Restart,
        Self::Wipe,
        Self::Pause,
        Self::Hog,
        Self::Loss,
        Self::Partition,
        Self::Slow,
        Self::Transfer,
        Self::Replace,
        Self::Snapshot,
    ];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Restart => "restart",
            Self::Wipe => "wipe",
            Self::Pause => "pause",
            Self::Hog => "hog",
            Self::Loss => "loss",
            Self::Partition => "partition",
            Self::Slow => "slow",
            Self::Transfer => "transfer",
            Self::Replace => "replace",
            Self::Snapshot => "snapshot",
        }
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// Which names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("one of {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// How long it is from one to the next in a round that has this kind, at least and at most, in milliseconds.
    fn every_ms(self) -> (u64, u64) {
        match self {
            Self::KillAll | Self::Replace => (6_000, 12_000),
            Self::Wipe | Self::Restart | Self::Hog => (3_000, 8_000),
            Self::Kill | Self::Pause | Self::Loss | Self::Partition | Self::Slow => (800, 4_000),
            Self::Transfer | Self::Snapshot => (1_000, 5_000),
        }
    }
}

/// Whom it hits, to be decided when it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Whoever leads then; if nobody does, whoever comes first.
    Leader,
    /// One of those that run then: this number modulo how many.
    Any(u16),
}

/// Which way datagrams are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// What others send to it.
    In,
    /// What it sends to others.
    Out,
    /// Both.
    Both,
}

/// Between whom datagrams are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Between {
    /// The victim and all other nodes.
    Nodes,
    /// The victim and the clients.
    Clients,
    /// The victim and everybody.
    Everybody,
}

/// Something that is done to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// kill -9, and started again after a time.
    Kill {
        /// Whom.
        who: Who,
        /// How long it is down.
        down: Duration,
    },
    /// kill -9 of all at once. (Skipped where that would be the end: in memory mode.)
    KillAll {
        /// How long they are down.
        down: Duration,
    },
    /// Stopped as an operator does, and started again.
    Restart {
        /// Whom.
        who: Who,
    },
    /// kill -9, and its data is gone; it joins again.
    Wipe {
        /// Whom.
        who: Who,
        /// How long it is down.
        down: Duration,
    },
    /// SIGSTOP, and SIGCONT after a time.
    Pause {
        /// Whom.
        who: Who,
        /// How long.
        span: Duration,
    },
    /// Processes that do nothing but use the processor.
    Hog {
        /// How many.
        count: u16,
        /// How long.
        span: Duration,
    },
    /// Some datagrams are lost, or all ([`Kind::Partition`]).
    Cut {
        /// Around whom.
        who: Who,
        /// From whom, to whom.
        between: Between,
        /// Which way.
        way: Way,
        /// Which datagrams.
        cast: Cast,
        /// How many of a hundred.
        percent: u8,
        /// How long.
        span: Duration,
    },
    /// What a node sends takes longer.
    Slow {
        /// Whom.
        who: Who,
        /// How much longer, at most.
        delay: Duration,
        /// How long.
        span: Duration,
    },
    /// Leadership is handed over.
    Transfer {
        /// To whom; nobody in particular if none.
        to: Option<Who>,
    },
    /// A spare node joins, and another one leaves.
    Replace {
        /// Who leaves.
        who: Who,
        /// Whether the newcomer is announced (`cluster add`) before it is started.
        announced: bool,
    },
    /// All nodes take a snapshot.
    Snapshot,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A fault and its time, from the beginning of the round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timed {
    /// When.
    pub at: Duration,
    /// Of what kind it is.
    pub kind: Kind,
    /// What.
    pub fault: Fault,
}

/// What happens in a round of this length, in order. Only of the kinds `wanted`; `always` leaves it to nobody's luck whether
/// a round has them.
pub fn round(seed: u64, number: u64, length: Duration, wanted: &[Kind], always: bool) -> Vec<Timed> {
    let mut all = Vec::new();
    for &kind in wanted {
        let mut rng = stream(seed, kind.name(), number);
        if !rng.random_bool(0.5) && !always {
            continue;
        }
        let (least, most) = kind.every_ms();
        let every = rng.random_range(least..=most);
        let mut at = rng.random_range(0..=every);
        while u128::from(at) < length.as_millis() {
            all.push(Timed { at: Duration::from_millis(at), kind, fault: draw(kind, &mut rng) });
            at += rng.random_range(every / 2..=every * 3 / 2);
        }
    }
    all.sort_by_key(|timed| (timed.at, timed.kind));
    all
}

fn draw(kind: Kind, rng: &mut SmallRng) -> Fault {
    match kind {
        Kind::Kill => Fault::Kill { who: who(rng), down: between(rng, 50, 3_000) },
        Kind::KillAll => Fault::KillAll { down: between(rng, 50, 1_500) },
        Kind::Restart => Fault::Restart { who: who(rng) },
        Kind::Wipe => Fault::Wipe { who: who(rng), down: between(rng, 50, 2_000) },
        // Shorter than an election timeout as often as longer.
        Kind::Pause => {
            let short: bool = rng.random();
            let span = if short { between(rng, 5, 120) } else { between(rng, 200, 4_000) };
            Fault::Pause { who: who(rng), span }
        }
        Kind::Hog => Fault::Hog { count: rng.random_range(1..=8), span: between(rng, 500, 5_000) },
        Kind::Loss => cut(rng, |rng| rng.random_range(1..=40)),
        Kind::Partition => cut(rng, |_| 100),
        Kind::Slow => Fault::Slow { who: who(rng), delay: between(rng, 1, 60), span: between(rng, 500, 4_000) },
        Kind::Transfer => {
            let anybody: bool = rng.random();
            Fault::Transfer { to: (!anybody).then(|| Who::Any(rng.random())) }
        }
        Kind::Replace => Fault::Replace { who: who(rng), announced: rng.random() },
        Kind::Snapshot => Fault::Snapshot,
    }
}

fn who(rng: &mut SmallRng) -> Who {
    if rng.random_bool(0.4) { Who::Leader } else { Who::Any(rng.random()) }
}

fn between(rng: &mut SmallRng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(rng.random_range(least_ms..=most_ms))
}

fn cut(rng: &mut SmallRng, percent: impl Fn(&mut SmallRng) -> u8) -> Fault {
    Fault::Cut {
        who: who(rng),
        between: [Between::Nodes, Between::Nodes, Between::Clients, Between::Everybody][rng.random_range(0..4)],
        way: [Way::In, Way::Out, Way::Both][rng.random_range(0..3)],
        cast: [Cast::Multicast, Cast::Unicast, Cast::Any][rng.random_range(0..3)],
        percent: percent(rng),
        span: between(rng, 100, 4_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(20);

    #[test]
    fn the_same_seed_and_round_is_the_same_schedule() {
        let one = round(7, 3, LENGTH, &Kind::ALL, false);
        assert_eq!(one, round(7, 3, LENGTH, &Kind::ALL, false));
        assert_ne!(one, round(7, 4, LENGTH, &Kind::ALL, false));
        assert_ne!(one, round(8, 3, LENGTH, &Kind::ALL, false));
    }

    #[test]
    fn leaving_a_kind_out_changes_nothing_else() {
        for number in 0..20 {
            let all = round(7, number, LENGTH, &Kind::ALL, false);
            for kind in Kind::ALL {
                let others: Vec<_> = Kind::ALL.into_iter().filter(|other| *other != kind).collect();
                let without = round(7, number, LENGTH, &others, false);
                assert!(all.iter().filter(|timed| timed.kind != kind).eq(&without));
            }
        }
    }

    #[test]
    fn in_order_within_the_round_and_of_every_kind() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..20 {
            let all = round(1, number, LENGTH, &Kind::ALL, false);
            assert!(all.is_sorted_by_key(|timed| timed.at));
            assert!(all.iter().all(|timed| timed.at < LENGTH));
            seen.extend(all.iter().map(|timed| timed.kind));
        }
        assert_eq!(seen, Kind::ALL.into());
    }

    #[test]
    fn who_wants_a_kind_always_gets_it_in_every_round() {
        for number in 0..20 {
            let all = round(2, number, LENGTH, &[Kind::Hog], true);
            assert!(!all.is_empty() && all.iter().all(|timed| timed.kind == Kind::Hog));
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Ok(kind));
        }
        assert!(Kind::parse("earthquake").is_err_and(|names| names.contains("kill-all")));
    }
}
