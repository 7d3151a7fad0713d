//! What a user is told when something is wrong: what happened, and what to do.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;

use hovercraft::cluster::{ClusterConfig, LocalPorts};
use system_tests::{Finished, Up, fresh_directory, run, run_in, signal};

/// A directory with a configuration in it.
struct Configured {
    directory: PathBuf,
}

impl Configured {
    fn new(change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let directory = fresh_directory();
        fs::create_dir(&directory).expect("directory");
        let mut config = ClusterConfig::local(3, &LocalPorts::free(3).expect("ports"));
        config.runtime_dir = Some(directory.join("run"));
        change(&mut config);
        fs::write(directory.join("cluster.toml"), config.to_toml()).expect("written");
        Self { directory }
    }

    fn with_text(text: &str) -> Self {
        let this = Self::new(|_| {});
        fs::write(this.directory.join("cluster.toml"), text).expect("written");
        this
    }

    fn path(&self) -> String {
        self.directory.join("cluster.toml").to_string_lossy().into_owned()
    }

    fn node(&self, id: &str) -> Finished {
        run(["node", "--config", &self.path(), "--id", id])
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_typo_in_the_configuration() {
    let typo = Configured::with_text("fanout = \"unicast\"\n");
    for finished in
        [typo.node("1"), run(["up", "--config", &typo.path()]), run(["kv", "--config", &typo.path(), "get", "a"])]
    {
        let why = finished.bad(2);
        assert!(why.contains("fanout") && why.contains("did you mean `fan_out`"), "{why}");
    }
    let typo = Configured::with_text("[limits]\nrequest_max = \"big\"\n");
    assert!(typo.node("1").bad(2).contains("request_max"));
}

#[test]
fn values_that_cannot_work() {
    let wrong = Configured::new(|config| config.request_group = "10.0.0.1:7000".parse().expect("address"));
    assert!(wrong.node("1").bad(2).contains("request_group"));

    let open = Configured::new(|config| config.nodes[0].peers = "192.0.2.1:7000".parse().expect("address"));
    assert!(open.node("1").bad(2).contains("insecure = true"));

    let missing = Configured::new(|_| {});
    let why = missing.node("9");
    assert!(why.bad(2).contains('9'), "{why:?}");
    assert_eq!(missing.node("0").code, Some(2));
}

#[test]
fn an_interface_that_does_not_exist() {
    let wrong = Configured::new(|config| {
        config.interface = "nosuch0".into();
        config.insecure = true;
    });
    let finished = wrong.node("1");
    assert!(finished.code == Some(1) || finished.code == Some(2), "{finished:?}");
    assert!(finished.stderr.contains("nosuch0") && finished.stderr.contains("choose"), "{finished:?}");
}

#[test]
fn a_port_in_use() {
    let mut taken = None;
    let config = Configured::new(|config| {
        config.fan_out = hovercraft::cluster::FanOut::Unicast;
        taken = Some(UdpSocket::bind(config.nodes[1].requests).expect("free until now"));
    });
    let finished = config.node("2");
    let why = finished.bad(1);
    assert!(why.contains("taken") && why.contains("`requests`") && why.contains("ss -ulnp"), "{why}");

    // `up` says the same, and stops the others.
    let directory = fresh_directory();
    let directory = directory.to_string_lossy();
    let finished = run(["up", "--config", &config.path(), "--dir", &directory]);
    assert!(finished.bad(1).contains("taken"), "{finished:?}");
    assert_eq!(finished.stdout, "");
    assert!(!fs::exists(&*directory).expect("looked"), "files are left");
}

#[test]
fn no_cluster_is_running() {
    let nowhere = fresh_directory();
    fs::create_dir(&nowhere).expect("directory");
    for args in [&["kv", "get", "a"][..], &["status"]] {
        let finished = run_in(&nowhere, args);
        let why = finished.bad(1);
        assert!(why.contains("no cluster is running") && why.contains("hovercraft up"), "{why}");
    }
    fs::remove_dir_all(nowhere).expect("tidy up");

    let finished = run(["kv", "--config", "/nonexistent/cluster.toml", "get", "a"]);
    assert!(finished.bad(2).contains("/nonexistent/cluster.toml"));
}

#[test]
fn nobody_answers() {
    let config = Configured::new(|_| {});
    let finished = run(["kv", "--config", &config.path(), "--timeout", "0.3", "set", "a", "1"]);
    let why = finished.bad(1);
    assert!(why.contains("300ms") && why.contains("hovercraft status"), "{why}");
    let finished = run(["status", "--config", &config.path(), "--timeout", "0.3"]);
    assert_eq!(finished.code, Some(1));
    assert_eq!(finished.stdout.matches("unreachable").count(), 3, "{finished:?}");
    assert!(finished.stdout.contains("No node answers"), "{finished:?}");
}

#[test]
fn one_directory_one_cluster() {
    let up = Up::start(&[]);
    let directory = up.directory.to_string_lossy().into_owned();
    let finished = run(["up", "--dir", &directory]);
    let why = finished.bad(1);
    assert!(why.contains("already running") && why.contains("--dir"), "{why}");
    // And the first one has not noticed.
    up.kv(&["set", "a", "1"]).good();
    signal(up.own_pid(), libc::SIGINT);
    assert_eq!(up.ended().0.code(), Some(0));
}

#[test]
fn wrong_use_is_told_from_failure() {
    for args in [
        &["bench"][..],
        &["kv"],
        &["kv", "frobnicate"],
        &["kv", "cas", "a", "b"],
        &["kv", "--timeout", "0", "get", "a"],
        &["up", "--nodes", "10"],
        &["up", "--drop", "1.5"],
        &["up", "--app", "nosuch"],
        &["node", "--id", "1"],
    ] {
        assert!(!run(args).bad(2).is_empty(), "{args:?}");
    }
    let wrong_hex = Configured::new(|_| {});
    let finished = run(["kv", "--config", &wrong_hex.path(), "--hex", "get", "0g"]);
    assert!(finished.bad(2).contains("hexadecimal"));
}

#[test]
fn help_is_there_for_everything() {
    for command in [
        &["--help"][..],
        &["demo", "--help"],
        &["up", "--help"],
        &["node", "--help"],
        &["kv", "--help"],
        &["status", "--help"],
    ] {
        let finished = run(command);
        assert!(finished.good().contains("Examples:"), "{command:?}");
    }
}
