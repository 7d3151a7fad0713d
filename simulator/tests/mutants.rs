//! Every deliberate mistake is found by the first runs of a fixed swarm, which are clean without it.

use hovercraft::mutation::Mutation;
use simulator::swarm::mutants::{hunt, kind};
use simulator::swarm::shrink::shrink;
use simulator::swarm::{self, Case, Verdict};

/// The swarm's seed.
const SWARM: u64 = 1;

/// So many runs must do for each.
const RUNS_MAX: u64 = 5_000;

#[test]
fn every_mutation_is_found() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    // The others have tests of their own.
    let all: Vec<_> = Mutation::ALL.iter().filter(|mutation| mutation.shows_in_swarm()).collect();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(&&mutation) = all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let hunt = hunt(mutation, SWARM, |runs| runs < RUNS_MAX);
                    match hunt.found {
                        Some(report) => println!(
                            "{mutation}: {} in run {} of at most {RUNS_MAX}, seed {}: {}",
                            kind(&report.verdict),
                            hunt.runs,
                            report.seed,
                            report.verdict
                        ),
                        None => missed.lock().expect("nobody panics with it").push(mutation),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("nobody panicked with it");
    assert!(missed.is_empty(), "not found in {RUNS_MAX} runs of swarm {SWARM}: {missed:?}");
}

#[test]
fn a_failing_run_is_made_smaller_and_fails_in_the_same_way() {
    let mutation = Mutation::QueueUnbounded;
    let found = hunt(mutation, SWARM, |runs| runs < RUNS_MAX).found.expect("as above");
    hovercraft::mutation::set(Some(mutation));
    let (case, run) = (Case::of(found.seed), |case: &Case| swarm::run_options(&case.options()));
    let shrunk = shrink(&case, &found, run, |progress| progress.tried < 500);
    assert_eq!(shrunk.report, run(&shrunk.case), "its command fails again, in the very same way");
    hovercraft::mutation::set(None);
    assert_eq!(shrunk.report.verdict.sort(), found.verdict.sort());
    let size = |case: &Case| {
        let options = case.options();
        (options.clients + options.plain_clients) * options.operations
    };
    let sizes = (size(&shrunk.case), size(&case), shrunk.report.delivered, found.delivered);
    assert!(sizes.0 * 2 < sizes.1 && sizes.2 <= sizes.3, "{sizes:?}: {}", shrunk.case);
    assert_eq!(run(&shrunk.case).verdict, Verdict::Clean, "without the mistake");
}
