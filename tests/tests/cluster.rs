//! Clusters as a user has them: `up`, `kv`, `status`, kill -9.

use system_tests::{Up, alive, counter, fresh_directory, run, run_in, signal, until};

/// Every command of `kv` against a cluster of `nodes` nodes.
fn talk_to(nodes: &str) {
    let up = Up::start(&["--nodes", nodes]);
    assert_eq!(up.ids().len().to_string(), nodes);

    up.kv(&["set", "greeting", "hello"]).good();
    assert_eq!(up.kv(&["get", "greeting"]).good(), "hello");
    assert!(up.kv(&["get", "nothing"]).bad(1).contains("no value"));

    up.kv(&["cas", "greeting", "hello", "good day"]).good();
    let refused = up.kv(&["cas", "greeting", "hello", "moin"]);
    assert!(refused.bad(1).contains("good day"), "{refused:?}");

    assert!(up.kv(&["cas", "--absent", "greeting", "hello"]).bad(1).contains("good day"));
    up.kv(&["cas", "--absent", "farewell", "bye"]).good();
    assert_eq!(up.kv(&["get", "farewell"]).good(), "bye");

    assert_eq!(up.kv(&["incr", "visits"]).good(), "1");
    assert_eq!(up.kv(&["incr", "visits", "41"]).good(), "42");

    up.kv(&["set", "grief", "none"]).good();
    let scan = up.kv(&["scan", "--prefix", "gr"]);
    let lines: Vec<&str> = scan.good().lines().collect();
    assert_eq!(lines, ["greeting\tgood day", "grief\tnone"]);

    up.kv(&["del", "grief"]).good();
    assert!(up.kv(&["del", "grief"]).bad(1).contains("no value"));

    let status = up.status();
    for id in up.ids() {
        let node = status["nodes"].as_array().expect("nodes").iter().find(|node| node["node"] == id).expect("node");
        assert_eq!(node["reachable"], true, "{node}");
    }
    assert!(up.more_lines().is_empty(), "exactly one ready line");
}

#[test]
fn three_nodes() {
    talk_to("3");
}

#[test]
fn five_nodes() {
    talk_to("5");
}

#[test]
fn seven_nodes() {
    talk_to("7");
}

#[test]
fn nine_nodes() {
    talk_to("9");
}

#[test]
fn one_node_without_copies() {
    let up = Up::start(&["--nodes", "1", "--mode", "unreplicated"]);
    up.kv(&["set", "a", "1"]).good();
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
}

#[test]
fn plain_raft_is_there_to_compare() {
    let up = Up::start(&["--mode", "raft"]);
    up.kv(&["set", "a", "1"]).good();
    up.kill(up.leader());
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
    assert_eq!(up.kv(&["incr", "n"]).good(), "1");
}

#[test]
fn unicast_is_enough() {
    let up = Up::start(&["--fan-out", "unicast"]);
    up.kv(&["set", "a", "1"]).good();
    up.kill(up.leader());
    assert_eq!(up.kv(&["get", "a"]).good(), "1");
    assert_eq!(up.kv(&["incr", "n"]).good(), "1");
}

#[test]
fn keys_and_values_are_bytes() {
    let up = Up::start(&[]);
    let value = [b'a', 0, 0xff, b'\n', b'\n'];
    up.kv_with_input(&["set", "binary", "-"], &value).good();
    assert_eq!(up.kv(&["--hex", "get", "62696e617279"]).good(), "6100ff0a0a");
    up.kv(&["--hex", "set", "00ff", ""]).good();
    assert_eq!(up.kv(&["--hex", "get", "00ff"]).good(), "");
    let json = up.kv(&["--json", "--hex", "scan", "--prefix", "00"]).json();
    assert_eq!(json["pairs"], serde_json::json!([["00ff", ""]]));
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    use hovercraft_apps::kv::{KEY_MAX, VALUE_MAX};

    let up = Up::start(&[]);
    up.kv_with_input(&["set", "big", "-"], &vec![b'x'; VALUE_MAX]).good();
    assert_eq!(up.kv(&["get", "big"]).stdout.len(), VALUE_MAX);
    for too_long in [VALUE_MAX + 1, 3 << 20] {
        let why = up.kv_with_input(&["set", "big", "-"], &vec![b'y'; too_long]);
        assert!(why.bad(1).contains(&format!("{too_long} bytes long, the limit is {VALUE_MAX}")), "{why:?}");
    }
    assert!(up.kv(&["get", &"k".repeat(KEY_MAX + 1)]).bad(1).contains("the limit is"));
    assert!(up.kv(&["get", "big"]).good().starts_with('x'));
}

#[test]
fn a_number_that_is_none_is_not_incremented() {
    let up = Up::start(&[]);
    up.kv(&["set", "word", "abc"]).good();
    assert!(up.kv(&["incr", "word"]).bad(1).contains("number"));
    assert_eq!(up.kv(&["get", "word"]).good(), "abc");
}

#[test]
fn the_next_command_succeeds_whoever_was_killed() {
    let up = Up::start(&["--nodes", "5"]);
    up.kv(&["set", "kept", "1"]).good();
    up.kill(up.leader());
    assert_eq!(up.kv(&["incr", "n"]).good(), "1");
    assert_eq!(up.kv(&["get", "kept"]).good(), "1");

    let leader = up.leader();
    let follower = up.ids().into_iter().find(|&id| id != leader && alive(up.pid(id))).expect("a follower");
    up.kill(follower);
    assert_eq!(up.kv(&["incr", "n"]).good(), "2");
    assert_eq!(up.kv(&["get", "kept"]).good(), "1");

    let status = up.status();
    let reachable = status["nodes"].as_array().expect("nodes").iter().filter(|node| node["reachable"] == true).count();
    assert_eq!(reachable, 3, "{status}");
}

#[test]
fn without_a_majority_nothing_is_claimed() {
    let up = Up::start(&[]);
    up.kv(&["set", "a", "1"]).good();
    let leader = up.leader();
    let other = up.ids().into_iter().find(|&id| id != leader).expect("a follower");
    up.kill(leader);
    up.kill(other);
    for command in [&["--timeout", "1", "get", "a"][..], &["--timeout", "1", "set", "a", "2"]] {
        let unknown = up.kv(command);
        assert!(unknown.bad(1).contains("unknown"), "{unknown:?}");
        assert_eq!(unknown.stdout, "", "no wrong answer");
    }
    let config = up.config_path();
    let status = run(["status".as_ref(), "--config".as_ref(), config.as_os_str()]);
    assert_eq!(status.code, Some(1));
    assert_eq!(status.stdout.matches("unreachable").count(), 2, "{status:?}");

    // The cluster itself says what happened, and goes when asked.
    signal(up.own_pid(), libc::SIGINT);
    let (ended, complaints) = up.ended();
    assert_eq!(ended.code(), Some(0));
    assert!(complaints.contains("fewer than a majority"), "{complaints}");
}

#[test]
fn a_node_that_has_forgotten_everything_comes_back_as_another() {
    let up = Up::start(&[]);
    let leader = up.leader();
    let victim = up.ids().into_iter().find(|&id| id != leader).expect("a follower");
    up.kill(victim);
    let config = up.config_path();
    let id = victim.to_string();
    let start = || {
        std::process::Command::new(system_tests::program())
            .args(["node", "--config"])
            .arg(&config)
            .args(["--id", &id])
            .spawn()
            .expect("a process")
    };
    let mut again = start();
    until("it votes again", || {
        // As whoever supervises it does: on a busy machine it may have given up asking.
        if again.try_wait().expect("a process").is_some() {
            again = start();
        }
        let members = up.cluster(&["members", "--json"]).json();
        let back = members["members"].as_array().expect("members").iter().find(|member| member["node"] == victim);
        back.is_some_and(|member| member["incarnation"].as_u64() >= Some(2) && member["role"] == "voter")
    });
    up.kv(&["set", "still", "here"]).good();
    signal(again.id(), libc::SIGKILL);
    again.wait().expect("it ends");

    // Without the marks it starts as it did at first, but the others know better.
    for mark in std::fs::read_dir(up.directory.join("run")).expect("marks") {
        std::fs::remove_file(mark.expect("mark").path()).expect("removed");
    }
    let again = run(["node".as_ref(), "--config".as_ref(), config.as_os_str(), "--id".as_ref(), id.as_ref()]);
    let why = again.bad(1);
    assert!(why.contains("has gone on as another incarnation than n") && why.contains("--join"), "{why}");
    up.kv(&["set", "still", "here"]).good();
}

#[test]
fn replies_come_from_everybody_and_reads_are_executed_once() {
    use std::time::Duration;

    use hovercraft::client::{Kind, Outcome, PipelinedClient};
    use hovercraft_apps::kv::{Request, Response};

    const OPERATIONS: u64 = 3000;
    let up = Up::start(&[]);
    let executed = |name: &str| -> Vec<u64> {
        let status = up.status();
        up.ids().into_iter().map(|id| counter(&status, id, name)).collect()
    };
    for (kind, share_of_reads) in [(Kind::Write, 0), (Kind::Read, OPERATIONS)] {
        let (replies_before, queries_before) = (executed("apply.replies_sent"), executed("apply.queries"));
        let mut client = PipelinedClient::connect(&up.config().client_options()).expect("client");
        let (mut submitted, mut done) = (0, 0);
        while done < OPERATIONS {
            while submitted < OPERATIONS && client.outstanding() < 64 {
                let request = match kind {
                    Kind::Write => Request::Set { key: "k".into(), value: submitted.to_string().into() },
                    Kind::Read => Request::Get { key: "k".into() },
                };
                client.submit(kind, request.encode()).expect("room");
                submitted += 1;
            }
            for completion in client.wait(Duration::from_secs(1)).expect("socket") {
                let Outcome::Ok(reply) = completion.outcome else { panic!("{completion:?}") };
                Response::decode(&reply).expect("a reply");
                done += 1;
            }
        }
        let replies = executed("apply.replies_sent");
        for (node, (after, before)) in replies.iter().zip(&replies_before).enumerate() {
            let share = (after - before) as f64 / OPERATIONS as f64;
            assert!((0.15..0.60).contains(&share), "{kind:?}: node {} sent {share} of the replies", node + 1);
        }
        let queries: u64 = executed("apply.queries").iter().sum::<u64>() - queries_before.iter().sum::<u64>();
        let retransmitted = client.counters().iter().find(|(name, _)| *name == "retransmissions").map_or(0, |(_, n)| n);
        assert!(queries >= share_of_reads && queries <= share_of_reads + retransmitted, "{queries} reads executed");
    }
}

#[test]
fn up_leaves_nothing_behind() {
    for stop in [libc::SIGINT, libc::SIGTERM] {
        let up = Up::start(&[]);
        let (directory, pids) = (up.directory.clone(), up.ids().into_iter().map(|id| up.pid(id)).collect::<Vec<_>>());
        assert!(directory.exists() && pids.iter().all(|&pid| alive(pid)));
        signal(up.own_pid(), stop);
        let (ended, complaints) = up_ended(up);
        assert_eq!((ended, complaints.as_str()), (Some(0), ""));
        assert!(!pids.into_iter().any(alive), "processes are left");
        assert!(!directory.exists(), "files are left");
    }
}

/// Without the tidying up of the tests' own.
fn up_ended(up: Up) -> (Option<i32>, String) {
    let (ended, complaints) = up.ended();
    (ended.code(), complaints)
}

#[test]
fn a_second_terminal_needs_no_options() {
    let temporary = fresh_directory();
    std::fs::create_dir(&temporary).expect("directory");
    let up = Up::start_in(&temporary);
    run_in(&temporary, ["kv", "set", "greeting", "hello"]).good();
    assert_eq!(run_in(&temporary, ["kv", "get", "greeting"]).good(), "hello");
    assert!(run_in(&temporary, ["status"]).good().contains("leader"));

    // What `up` leaves when it is killed does not stand in the way of the next one.
    signal(up.own_pid(), libc::SIGKILL);
    let pids: Vec<u32> = up.ids().into_iter().map(|id| up.pid(id)).collect();
    until("the nodes are gone", || !pids.iter().any(|&pid| alive(pid)));
    let directory = up.directory.clone();
    std::mem::forget(up);
    assert!(directory.exists());
    let up = Up::start_in(&temporary);
    assert!(run_in(&temporary, ["kv", "get", "greeting"]).bad(1).contains("no value"), "a new cluster is empty");
    signal(up.own_pid(), libc::SIGTERM);
    assert_eq!(up_ended(up).0, Some(0));
    assert_eq!(std::fs::read_dir(&temporary).expect("directory").count(), 0, "files are left");
    std::fs::remove_dir(temporary).expect("tidy up");
}

#[test]
fn nodes_die_with_up_even_if_it_is_killed() {
    let up = Up::start(&[]);
    let pids: Vec<u32> = up.ids().into_iter().map(|id| up.pid(id)).collect();
    signal(up.own_pid(), libc::SIGKILL);
    until("the nodes are gone", || !pids.iter().any(|&pid| alive(pid)));
}

#[test]
fn the_death_of_a_node_is_reported() {
    let up = Up::start(&[]);
    let victim = up.ids()[0];
    up.kill(victim);
    // Something later that `up` can only have done after it noticed.
    up.kv(&["set", "a", "1"]).good();
    signal(up.own_pid(), libc::SIGINT);
    let (code, complaints) = up_ended(up);
    assert_eq!(code, Some(0));
    assert!(complaints.contains(&format!("node {victim}")) && complaints.contains("signal 9"), "{complaints}");
    assert!(complaints.contains("2 of 3 nodes are left"), "{complaints}");
}

#[test]
fn losses_heal_by_themselves_when_nothing_else_happens() {
    // Half of everything is thrown away, and nobody but one client with one operation at a time drives anything on.
    let up = Up::start(&["--drop", "0.2"]);
    for n in 1..=20 {
        assert_eq!(up.kv(&["--timeout", "30", "incr", "n"]).good(), n.to_string());
    }
    until("all replicas have applied everything", || {
        let status = up.status();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        let applied: Vec<_> = nodes.iter().map(|node| node["applied"].as_u64()).collect();
        applied.iter().all(|index| index.is_some() && *index == applied[0])
            && nodes.iter().all(|node| node["state_hash"] == nodes[0]["state_hash"])
    });
}
