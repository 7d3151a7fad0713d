//! What is said about one run: to people, to scripts, and as an exit code.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use simulator::swarm::shrink::Shrunk;
use simulator::swarm::{Case, Report, Verdict, faults};
use simulator::world::{Fates, Traffic};

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
pub(super) fn replay_command(case: &Case) -> String {
    let command = format!("hovercraft sim replay {case}");
    #[cfg(feature = "mutations")]
    if let Some(mutation) = hovercraft::mutation::active() {
        return format!("{command} --mutation {mutation}");
    }
    command
}

/// Tells people; with what happened last if they ask for it or the run failed.
pub(super) fn tell(case: &Case, report: &Report, recent: bool) {
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
        say(format!("seed {}; replay with: {}", report.seed, replay_command(case)));
        say(format!("and look at it with: {} --html run.html", replay_command(case)));
    }
}

/// Tells people of the smallest run that fails in the same way.
pub(super) fn tell_shrunk(case: &Case, shrunk: &Shrunk) {
    let (before, after) = (case.options(), shrunk.case.options());
    let Shrunk { report, tried, complete, .. } = shrunk;
    if shrunk.case == *case {
        say(format!("no smaller run fails in the same way ({tried} tried)"));
        return;
    }
    say(format!(
        "a smaller run that fails in the same way, found in {tried} runs{}:",
        if *complete { "" } else { ", not all that could be tried" }
    ));
    say(&after);
    say(format!(
        "{} of {} faults, {} of {} clients, {} of {} nodes, {} of {} operations each, {:?} of {:?} with faults",
        faults::schedule(&after).len(),
        faults::schedule(&before).len(),
        after.clients + after.plain_clients,
        before.clients + before.plain_clients,
        after.nodes,
        before.nodes,
        after.operations,
        before.operations,
        after.fault_time,
        before.fault_time
    ));
    say(&report.verdict);
    say(format!("replay with: {}", replay_command(&shrunk.case)));
}

pub(super) fn to_json(case: &Case, report: &Report, shrunk: Option<&Shrunk>) -> Value {
    let detail = (report.verdict != Verdict::Clean).then(|| report.verdict.to_string());
    json!({
        "seed": report.seed,
        "verdict": report.verdict.name(),
        "detail": detail,
        "draw": case.options().to_string().lines().collect::<Vec<_>>(),
        "replay": replay_command(case),
        "trace": format!("{:016x}", report.trace),
        "delivered": report.delivered,
        "virtual_seconds": report.time.as_secs_f64(),
        "operations": report.operations,
        "answered": report.answered,
        "messages": messages(&report.traffic),
        "counters": report.tally,
        "faults": struck(report).into_iter().collect::<BTreeMap<_, _>>(),
        "recent": report.recent,
        "shrunk": shrunk.map(|shrunk| json!({
            "tried": shrunk.tried,
            "complete": shrunk.complete,
            "run": to_json(&shrunk.case, &shrunk.report, None),
        })),
    })
}

/// How often each kind of fault struck.
pub(super) fn struck(report: &Report) -> [(&'static str, u64); 12] {
    let faults = &report.faults;
    [
        ("datagrams lost", faults.lost),
        ("datagrams cut off", faults.cut),
        ("datagrams duplicated", faults.duplicated),
        ("datagrams corrupted", faults.corrupted),
        ("datagrams without room in a queue", faults.overflowed),
        ("clocks that jumped ahead", faults.clock_jumps),
        ("clocks that stood still", faults.clock_stalls),
        ("nodes killed", faults.kills),
        ("nodes paused", faults.pauses),
        ("nodes started again from disk", faults.restarts),
        ("nodes let into the group", faults.admissions),
        ("disks full or failing", faults.disks),
    ]
}

/// What became of each kind of message.
pub(super) fn messages(traffic: &Traffic) -> Value {
    let fates = |fates: Fates| {
        json!({
            "sent": fates.sent,
            "delivered": fates.delivered,
            "reordered": fates.reordered,
            "lost": fates.lost,
            "duplicated": fates.duplicated,
            "corrupted": fates.corrupted,
        })
    };
    traffic.iter().map(|(kind, of)| (kind.to_owned(), fates(of))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use simulator::swarm;

    use super::*;

    #[test]
    fn a_run_is_told_whole() {
        let report = swarm::run(swarm::seed_of(1, 2));
        let json = to_json(&Case::of(report.seed), &report, None);
        assert_eq!(json["verdict"], "clean");
        assert_eq!(json["trace"], format!("{:016x}", report.trace));
    }
}
