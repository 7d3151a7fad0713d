//! Does a swarm find bugs? Each deliberate mistake ([`Mutation`]) must make one of its runs fail.

use std::time::Duration;

use hovercraft::mutation::{self, Mutation};

use super::{Report, Verdict, run, seed_of};

/// What a swarm has found out about a mutation.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The mistake.
    pub mutation: Mutation,
    /// The run that failed with it and is clean without; none if there was no such run.
    pub found: Option<Report>,
    /// Runs with it, the last one included.
    pub runs: u64,
    /// Virtual time of these runs.
    pub time: Duration,
}

/// Runs the run that `seed` stands for, with a mistake.
pub fn run_mutated(seed: u64, mutation: Mutation) -> Report {
    /// The thread is left as it was, whatever happens.
    struct Active(Option<Mutation>);
    impl Drop for Active {
        fn drop(&mut self) {
            mutation::set(self.0);
        }
    }
    let _active = Active(mutation::active());
    mutation::set(Some(mutation));
    run(seed)
}

/// Runs the runs of a swarm with a mistake until one fails, as long as `go_on(runs so far)` says so.
///
/// A run that fails without the mistake too says nothing about it and does not count.
pub fn hunt(mutation: Mutation, swarm: u64, mut go_on: impl FnMut(u64) -> bool) -> Hunt {
    let mut hunt = Hunt { mutation, found: None, runs: 0, time: Duration::ZERO };
    while hunt.found.is_none() && go_on(hunt.runs) {
        let seed = seed_of(swarm, hunt.runs);
        let report = run_mutated(seed, mutation);
        hunt.runs += 1;
        hunt.time += report.time;
        let failed = !matches!(report.verdict, Verdict::Clean | Verdict::Undecided(_));
        if failed && run(seed).verdict == Verdict::Clean {
            hunt.found = Some(report);
        }
    }
    hunt
}

/// What kind of failure this is, in a word or two: the name of the violation, `Liveness`, or where the panic was.
pub fn kind(verdict: &Verdict) -> String {
    let text = match verdict {
        Verdict::Safety(violation) => format!("{violation:?}"),
        Verdict::Panic(message) => {
            let place = message.rsplit_once(" (").map_or("", |(_, place)| place.trim_end_matches(')'));
            let path: Vec<&str> = place.rsplitn(3, '/').take(2).collect();
            return format!("Panic {}", path.into_iter().rev().collect::<Vec<_>>().join("/"));
        }
        other => format!("{other:?}"),
    };
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_is_found_and_leaves_the_thread_as_it_was() {
        let hunt = hunt(Mutation::QueueUnbounded, 1, |runs| runs < 100);
        let found = hunt.found.unwrap();
        assert_eq!(kind(&found.verdict), "QueueTooLong");
        assert_eq!(mutation::active(), None);
        assert_eq!(run_mutated(found.seed, Mutation::QueueUnbounded), found, "the same again");
        assert_eq!(run(found.seed).verdict, Verdict::Clean);
    }

    #[test]
    fn kinds_are_short() {
        assert_eq!(kind(&Verdict::Liveness("nobody leads".to_owned())), "Liveness");
        assert_eq!(kind(&Verdict::Panic("oh (no) (a/b/c.rs:7)".to_owned())), "Panic b/c.rs:7");
    }
}
