//! `hovercraft demo`: what the README promises.

use serde_json::Value;
use system_tests::{Finished, fresh_directory, run};

fn demo(args: &[&str]) -> (Finished, Value) {
    let directory = fresh_directory();
    let report = directory.to_string_lossy().into_owned();
    let mut all = vec!["demo", "--json", "--report", &report];
    if !args.contains(&"--seconds") {
        all.extend(["--seconds", "4"]);
    }
    all.extend(args);
    let finished = run(&all);
    let last = finished.stdout.lines().last().unwrap_or_default();
    let value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    for file in ["report.html", "report.json"] {
        assert!(directory.join(file).is_file(), "{file}");
    }
    std::fs::remove_dir_all(directory).expect("tidy up");
    (finished, value)
}

fn assert_passed(finished: &Finished, value: &Value) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(value["linearizable"], true);
    assert_eq!(value["lost_acknowledged"], 0);
    assert_eq!(value["duplicated"], 0);
    assert!(value["operations"].as_u64() > Some(100), "{value}");
    assert!(value["failover_ms"].as_f64() > Some(0.0), "{value}");
    assert!(value["p50_us"].as_u64() <= value["p99_us"].as_u64(), "{value}");
    assert_ne!(value["killed"], value["leader_after"]);
}

#[test]
fn passes() {
    let (finished, value) = demo(&[]);
    assert_passed(&finished, &value);
    assert_eq!((&value["nodes"], &value["mode"]), (&3.into(), &"hovercraft++".into()));
    for part in
        ["kill -9: the aggregator", "another aggregator is started", "the leader has found it", "kill -9: leader"]
    {
        assert!(finished.stderr.contains(part), "{part}: {finished:?}");
    }
}

#[test]
fn passes_without_an_aggregator() {
    let (finished, value) = demo(&["--mode", "hovercraft", "--seconds", "3"]);
    assert_passed(&finished, &value);
    assert!(!finished.stderr.contains("aggregator"), "{finished:?}");
}

#[test]
fn passes_with_losses_and_fetches_what_was_lost() {
    let (finished, value) = demo(&["--drop", "1%"]);
    assert_passed(&finished, &value);
    assert!(value["bodies_fetched"].as_u64() > Some(0), "{value}");
}

#[test]
fn passes_in_plain_raft() {
    let (finished, value) = demo(&["--mode", "raft", "--seconds", "3"]);
    assert_passed(&finished, &value);
}

#[test]
fn passes_by_unicast_with_five_nodes() {
    let (finished, value) = demo(&["--nodes", "5", "--fan-out", "unicast", "--seconds", "3"]);
    assert_passed(&finished, &value);
    assert_eq!(value["fan_out"], "unicast");
}

#[test]
fn interrupted_it_leaves_nothing() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    let temporary = fresh_directory();
    std::fs::create_dir(&temporary).expect("directory");
    let mut command = Command::new(system_tests::program());
    command.args(["demo", "--seconds", "100"]).env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let under_load = lines.by_ref().map_while(Result::ok).any(|line| line.contains("load:"));
    assert!(under_load);
    let cluster = std::fs::read_dir(&temporary).expect("directory").count();
    assert_eq!(cluster, 1);
    system_tests::signal(child.id(), libc::SIGINT);
    _ = lines.count();
    let mut complaints = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut complaints).expect("text");
    assert_eq!(child.wait().expect("ends").code(), Some(1));
    assert!(complaints.contains("interrupted"), "{complaints}");
    assert_eq!(std::fs::read_dir(&temporary).expect("directory").count(), 0, "files are left");
    std::fs::remove_dir(temporary).expect("tidy up");
}

#[test]
fn wrong_use() {
    for args in [["demo", "--nodes", "2"], ["demo", "--mode", "unreplicated"], ["demo", "--drop", "100%"]] {
        assert!(!run(args).bad(2).is_empty());
    }
}
