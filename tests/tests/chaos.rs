//! Chaos on real processes, a little of it: `cargo run -p system-tests --bin chaos` has as much as anybody wants.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use system_tests::chaos::SKIPPED;
use system_tests::{Scratch, program, signal, until};

#[test]
fn in_memory_by_multicast() {
    short_run(&["--seed", "2", "--durability", "memory", "--fan-out", "multicast", "--mode", "hovercraft"]);
}

#[test]
fn on_disk_by_unicast() {
    short_run(&["--seed", "3", "--durability", "os", "--fan-out", "unicast", "--mode", "raft"]);
}

fn short_run(arguments: &[&str]) {
    let scratch = Scratch::new();
    let directory = scratch.path("run");
    let mut chaos = start(&directory, &["--minutes", "0.2", "--round", "8", "--json"]);
    chaos.args(arguments);
    let Some(output) = finish(chaos.spawn().expect("it starts")) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    for counted in ["rounds", "faults_injected", "acknowledged_writes", "acknowledged_increments", "keys_read_again"] {
        assert!(report[counted].as_u64() > Some(0), "{counted}: {report}");
    }
    assert_eq!(report["equal_states"], report["rounds"]);
    assert_eq!(report["violations"], serde_json::json!([]));
    assert!(!fs::exists(&directory).expect("known"), "what went well leaves nothing");
    assert_eq!(processes(&directory), 0);
}

/// Ctrl-C ends the faults, and what happened until then is judged.
#[test]
fn it_ends_when_asked() {
    let scratch = Scratch::new();
    let directory = scratch.path("run");
    let child = start(&directory, &["--minutes", "60", "--round", "600", "--json"]).spawn().expect("it starts");
    if began(&directory, &child) {
        signal(child.id(), libc::SIGINT);
    }
    let Some(output) = finish(child) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["rounds"], &report["passed"]), (&1.into(), &true.into()));
    assert_eq!(processes(&directory), 0);
}

#[test]
fn nothing_is_left_of_it_when_it_is_killed() {
    let scratch = Scratch::new();
    let directory = scratch.path("run");
    let child = start(&directory, &["--minutes", "60", "--quiet"]).spawn().expect("it starts");
    if began(&directory, &child) {
        signal(child.id(), libc::SIGKILL);
    }
    _ = finish(child);
    until("all processes are gone", || processes(&directory) == 0);
}

/// A node that panics whenever it is started: that is found, and all that is needed to see why is kept.
#[test]
fn a_violation_is_found_and_kept() {
    let scratch = Scratch::new();
    let directory = scratch.path("run");
    let wrapper = wrapper(
        &scratch,
        "case \"$*\" in \"node --id 2 \"*) echo \"thread 'main' panicked at here\" >&2; exit 101;; esac",
    );
    let mut chaos = start(&directory, &["--only", "snapshot", "--json", "--program", &wrapper]);
    let Some(output) = finish(chaos.spawn().expect("it starts")) else { return };
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let violations = report["violations"].as_array().expect("a list");
    assert!(
        violations
            .iter()
            .any(|what| what.as_str().is_some_and(|what| what.contains("n2") && what.contains("panicked")))
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains(&directory), "the directory is named");
    for name in ["events.log", "report.txt", "report.json", "node-1.log", "cluster.toml"] {
        assert!(fs::exists(format!("{directory}/{name}")).expect("known"), "{name} is not there");
    }
    assert_eq!(processes(&directory), 0);
}

/// Nodes that forget everything whenever they are started, although they should not, and are killed all at once.
#[test]
fn lost_writes_are_found() {
    let scratch = Scratch::new();
    let directory = scratch.path("run");
    let wrapper = wrapper(&scratch, "[ \"$1\" != node ] || rm -rf \"$(dirname \"$5\")/data/node-$3\"");
    let mut chaos = start(&directory, &["--only", "kill-all", "--seed", "3", "--nodes", "3", "--durability", "os"]);
    chaos.args(["--mode", "hovercraft", "--minutes", "0.01", "--round", "13", "--json", "--program", &wrapper]);
    let Some(output) = finish(chaos.spawn().expect("it starts")) else { return };
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_ne!(report["lost_increments"], "0", "{report}");
    assert!(fs::exists(format!("{directory}/violation-0-0.txt")).expect("known"));
}

/// A program that does something before it becomes the real one.
fn wrapper(scratch: &Scratch, first: &str) -> String {
    let wrapper = scratch.path("wrapper");
    fs::write(&wrapper, format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", program().display())).expect("a file");
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("ours");
    wrapper
}

fn start(directory: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    // What is said later counts.
    command.arg("--program").arg(program()).args(["--dir", directory]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it said; nothing, after a line that says why, where such runs are not possible.
fn finish(child: Child) -> Option<Output> {
    let output = child.wait_with_output().expect("it ends");
    if output.status.code() == Some(SKIPPED.into()) {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(output)
}

/// Waits until a round has begun. False if it has ended instead.
fn began(directory: &str, child: &Child) -> bool {
    let mut began = false;
    until("a round begins", || {
        let events = fs::read_to_string(format!("{directory}/events.log")).unwrap_or_default();
        began = events.contains("round 0");
        began || !system_tests::alive(child.id())
    });
    began
}

/// How many processes have something to do with that directory.
fn processes(directory: &str) -> usize {
    let is_one = |entry: &fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(directory)
    };
    fs::read_dir("/proc").expect("procfs").flatten().filter(is_one).count()
}
