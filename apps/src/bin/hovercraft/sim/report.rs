//! What is said about one run: to people, to scripts, and as an exit code.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use simulator::swarm::{Options, Report, Verdict};

use crate::output::{grouped, say};

/// A run broke an invariant.
const EXIT_SAFETY: u8 = 1;
/// A run did not recover.
const EXIT_LIVENESS: u8 = 3;
/// A run panicked.
const EXIT_PANIC: u8 = 4;
/// A run's history was too hard to check.
pub(super) const EXIT_UNDECIDED: u8 = 5;

/// What happened last is shown this far back.
const RECENT: usize = 30;

pub(super) fn exit_code(verdict: &Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Clean => 0,
        Verdict::Safety(_) => EXIT_SAFETY,
        Verdict::Liveness(_) => EXIT_LIVENESS,
        Verdict::Panic(_) => EXIT_PANIC,
        Verdict::Undecided(_) => EXIT_UNDECIDED,
    })
}

/// The command that repeats a run.
pub(super) fn replay_command(seed: u64) -> String {
    let command = format!("hovercraft sim replay --seed {seed}");
    #[cfg(feature = "mutations")]
    if let Some(mutation) = hovercraft::mutation::active() {
        return format!("{command} --mutation {mutation}");
    }
    command
}

/// Tells people; with what happened last if they ask for it or the run failed.
pub(super) fn tell(report: &Report, recent: bool) {
    if recent || report.verdict != Verdict::Clean {
        say(format!("the last of what happened ({:.3} ms of virtual time in all):", report.time.as_secs_f64() * 1e3));
        for line in &report.recent[report.recent.len().saturating_sub(RECENT)..] {
            say(line);
        }
    }
    say(format!(
        "trace {:016x}: {} datagrams delivered, {} operations, {} answers",
        report.trace,
        grouped(report.delivered),
        grouped(report.operations),
        grouped(report.answered)
    ));
    say(&report.verdict);
    if report.verdict != Verdict::Clean {
        say(format!("seed {}; replay with: {}", report.seed, replay_command(report.seed)));
        say(format!("and look at it with: {} --html run.html", replay_command(report.seed)));
    }
}

pub(super) fn to_json(report: &Report) -> Value {
    let detail = (report.verdict != Verdict::Clean).then(|| report.verdict.to_string());
    json!({
        "seed": report.seed,
        "verdict": report.verdict.name(),
        "detail": detail,
        "draw": Options::draw(report.seed).to_string().lines().collect::<Vec<_>>(),
        "replay": replay_command(report.seed),
        "trace": format!("{:016x}", report.trace),
        "delivered": report.delivered,
        "virtual_seconds": report.time.as_secs_f64(),
        "operations": report.operations,
        "answered": report.answered,
        "elections": report.elections,
        "faults": faults(report).into_iter().collect::<BTreeMap<_, _>>(),
        "recent": report.recent,
    })
}

/// How often each kind of fault struck.
pub(super) fn faults(report: &Report) -> [(&'static str, u64); 7] {
    let faults = &report.faults;
    [
        ("datagrams lost", faults.lost),
        ("datagrams cut off", faults.cut),
        ("datagrams duplicated", faults.duplicated),
        ("datagrams corrupted", faults.corrupted),
        ("datagrams without room in a queue", faults.overflowed),
        ("nodes killed", faults.kills),
        ("nodes paused", faults.pauses),
    ]
}

#[cfg(test)]
mod tests {
    use simulator::swarm;

    use super::*;

    #[test]
    fn a_run_is_told_whole() {
        let report = swarm::run(swarm::seed_of(1, 2));
        let json = to_json(&report);
        assert_eq!(json["verdict"], "clean");
        assert_eq!(json["trace"], format!("{:016x}", report.trace));
    }
}
