//! Makes a run that failed smaller, within limits.

use std::io::{self, IsTerminal};
use std::time::Duration;

use r2p2::Instant;
use r2p2::udp::Clock;
use simulator::swarm::shrink::{Shrunk, shrink};
use simulator::swarm::{self, Case, Report, Verdict};

use crate::output::tell;

/// Most runs that are tried.
const RUNS_MAX: u64 = 2_000;

/// Whether and for how long a run that failed is made smaller.
#[derive(clap::Args, Debug)]
pub(super) struct Smaller {
    /// Leave a run that failed as it is; otherwise smaller ones that fail in the same way are looked for.
    #[arg(long)]
    no_shrink: bool,
    /// For how long to look, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "no_shrink")]
    shrink_time: u64,
}

impl Smaller {
    /// The smallest run that fails like this one; nothing if it did not fail, or if nobody wants to know.
    pub(super) fn of(&self, case: &Case, report: &Report, silent: bool) -> Option<Shrunk> {
        if self.no_shrink || matches!(report.verdict, Verdict::Clean | Verdict::Undecided(_)) {
            return None;
        }
        let clock = Clock::new();
        let shows = !silent && io::stderr().is_terminal();
        let shrunk = shrink(
            case,
            report,
            |case| swarm::run_options(&case.options()),
            |progress| {
                if shows {
                    eprint!("\rlooking for a smaller run: {} tried, {} kept ", progress.tried, progress.kept);
                }
                let spent = clock.now().since(Instant::ZERO);
                progress.tried < RUNS_MAX && spent < Duration::from_secs(self.shrink_time)
            },
        );
        if shows {
            tell("");
        }
        Some(shrunk)
    }
}
