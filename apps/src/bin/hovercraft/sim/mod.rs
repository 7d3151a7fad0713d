//! `hovercraft sim`: whole clusters in a virtual world under one seed, with every fault and every invariant.
//!
//! | file | is |
//! |---|---|
//! | `one` | `sim run` and `sim replay` |
//! | `look` | their `--html` and `--pcap` |
//! | `many` | `sim swarm` |
//! | `mutants` | `sim mutants`, in test builds with the feature `mutations` |
//! | `departures` | which run, and how it departs from its seed |
//! | `smaller` | shrinking |
//! | `report` | what is said about one run |
//! | `summary` | what is said about many |

mod departures;
mod look;
mod many;
#[cfg(feature = "mutations")]
mod mutants;
mod one;
mod report;
mod smaller;
mod summary;

use std::process::ExitCode;

use crate::output::Failure;

/// Run whole clusters in a virtual world: real node and client cores, every fault, one seed.
///
/// A seed draws cluster size, mode, limits, workload and faults. First there are faults and every invariant is checked
/// at every step; then the faults stop, and a majority must come together and answer everybody. What clients saw must
/// be linearizable. A run that fails is made smaller: fewer faults, fewer clients, shorter.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 clean, 1 an invariant was violated or an error was logged, 2 wrong use, 3 no recovery \
    after the faults, 4 a panic, 5 a history too hard to check.\n\n\
    Examples:\n  \
        hovercraft sim run --seed 7\n  \
        hovercraft sim replay --seed 7             the same run again, with the last things that happened\n  \
        hovercraft sim replay --seed 7 --html run.html  and a page that shows it\n  \
        hovercraft sim run --seed 7 --without loss,kills --with clients=1\n  \
        hovercraft sim swarm --minutes 5           as many runs as fit\n  \
        hovercraft sim swarm --runs 1000 --seed 1  the same thousand runs every time\n  \
        hovercraft sim swarm --mode raft           clusters of one mode"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Run(one::Run),
    Replay(one::Replay),
    Swarm(many::Swarm),
    #[cfg(feature = "mutations")]
    Mutants(mutants::Mutants),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        Command::Swarm(swarm) => swarm.run(),
        #[cfg(feature = "mutations")]
        Command::Mutants(mutants) => Ok(mutants.run()),
    }
}
