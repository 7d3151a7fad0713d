//! A copy of a cluster that runs, and a new cluster made of it.

use std::path::Path;

use hovercraft::cluster::{ClusterConfig, Durability, LocalPorts};
use system_tests::{Scratch, Up, run};

/// A configuration for as many nodes, durable, elsewhere.
fn write_config(nodes: usize, data: &str, to: &str) {
    let mut config = ClusterConfig::local(nodes, &LocalPorts::free(nodes).expect("free ports"));
    config.fan_out = hovercraft::cluster::FanOut::Unicast;
    (config.group, config.durability, config.data_dir) = (77, Durability::Os, Some(data.into()));
    std::fs::write(to, config.to_toml()).expect("a file");
}

#[test]
fn a_backup_of_any_node_becomes_a_new_cluster() {
    let scratch = Scratch::new();
    let (backup, data, toml) = (scratch.path("backup"), scratch.path("data"), scratch.path("new.toml"));
    for durable in [false, true] {
        let old_data = scratch.path("old");
        let durable = if durable { vec!["--data", &old_data] } else { Vec::new() };
        let old = Up::start(&[&["--fan-out", "unicast"][..], &durable].concat());
        for n in 1..=20 {
            old.kv(&["set", &format!("key-{n}"), &"x".repeat(n * 100)]).good();
        }
        let follower = old.ids().into_iter().find(|id| *id != old.leader()).expect("a follower").to_string();
        for from in [None, Some(follower)] {
            let arguments = [vec!["backup", &backup, "--json"], from.iter().flat_map(|id| ["--from", id]).collect()];
            assert!(old.cluster(&arguments.concat()).json()["bytes"].as_u64() > Some(20_000));
            old.kv(&["incr", "visits"]).good();
        }
        old.cluster(&["backup", &backup]).good();
        drop(old);

        // Five nodes where there were three, somewhere else.
        write_config(5, &data, &toml);
        let made = run(["cluster", "restore", &backup, "--config", &toml]);
        assert!(made.good().contains("n1, n2, n3, n4, n5 can be started"), "{made:?}");
        let again = run(["cluster", "restore", &backup, "--config", &toml, "--id", "2"]);
        assert!(again.bad(1).contains("has data already"), "{again:?}");
        let new = Up::start(&["--config", &toml]);
        assert_eq!(new.kv(&["get", "key-20"]).good().len(), 2000);
        assert_eq!(new.kv(&["incr", "visits"]).good(), "3");
        let members = new.cluster(&["members", "--json"]).json();
        assert_eq!(members["members"].as_array().map(Vec::len), Some(5));
        drop(new);
        for path in [&backup, &data] {
            _ = std::fs::remove_dir_all(path);
        }
    }
}

#[test]
fn a_damaged_backup_is_refused() {
    let scratch = Scratch::new();
    let (backup, data, toml) = (scratch.path("backup"), scratch.path("data"), scratch.path("new.toml"));
    let old = Up::start(&["--fan-out", "unicast"]);
    old.kv(&["set", "key", &"x".repeat(20_000)]).good();
    old.cluster(&["backup", &backup]).good();
    let nowhere = old.cluster(&["backup", &scratch.path("other"), "--from", "9"]);
    assert!(nowhere.bad(1).contains("no such node"), "{nowhere:?}");
    drop(old);
    write_config(3, &data, &toml);
    let empty = run(["cluster", "restore", &scratch.path("nothing"), "--config", &toml]);
    assert!(empty.bad(2).contains("there is no directory"), "{empty:?}");
    let file =
        std::fs::read_dir(Path::new(&backup)).expect("a directory").next().expect("a file").expect("read").path();
    let whole = std::fs::read(&file).expect("a file");
    for at in [0, 50, 5000, 15_000, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).expect("written");
        let refused = run(["cluster", "restore", &backup, "--config", &toml]);
        let why = refused.bad(1);
        assert!(why.contains("damaged") || why.contains("disk fails"), "byte {at}: {why}");
        _ = std::fs::remove_dir_all(&data);
    }
    std::fs::write(&file, whole).expect("written");
    run(["cluster", "restore", &backup, "--config", &toml]).good();
}
