//! `hovercraft sim`: a run is the same run in every process, and its command names it.

use serde_json::Value;
use simulator::swarm::{self, Case, Overrides};
use system_tests::run;

/// The program's JSON for one command line.
fn json(args: &str) -> Value {
    let finished = run(args.split_whitespace().chain(["--json"]));
    assert_eq!(finished.code, Some(0), "{args}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).expect("one JSON object")
}

#[test]
fn a_fresh_process_runs_the_same_run() {
    for number in 0..4 {
        let report = swarm::run(swarm::seed_of(5, number));
        let told = json(&format!("sim replay --seed {}", report.seed));
        assert_eq!(told["trace"], format!("{:016x}", report.trace));
        assert_eq!(told["recent"].as_array().expect("lines").len(), report.recent.len());
        assert_eq!(told, json(&format!("sim replay --seed {:#x}", report.seed)), "and again, from another");
    }
}

#[test]
fn departures_are_part_of_the_command() {
    let mut overrides = Overrides::default();
    overrides.leave_out("loss").expect("a feature");
    overrides.set("operations=5").expect("a quantity");
    overrides.keep_none();
    let case = Case { seed: 7, overrides };
    let told = json(&format!("sim run {case}"));
    assert_eq!(told["replay"], format!("hovercraft sim replay {case}"));
    assert_eq!(told["trace"], format!("{:016x}", swarm::run_options(&case.options()).trace));
    assert_ne!(told["trace"], json("sim run --seed 7")["trace"]);
    let wrong = run(["sim", "run", "--seed", "7", "--without", "snow"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("'snow' is none of"), "{}", wrong.stderr);
}

#[test]
fn a_swarm_of_one_mode_says_what_it_has_seen() {
    let told = json("sim swarm --runs 20 --seed 3 --mode raft");
    assert_eq!((&told["runs"], &told["modes"]["raft"]), (&20.into(), &20.into()));
    assert_eq!(told["failed"], Value::Null);
    assert!(told["messages"]["append"]["delivered"]["count"].as_u64() > Some(0));
    assert!(told["counters"]["elections_won"]["runs"].as_u64() > Some(0));
}
