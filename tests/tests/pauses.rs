//! Nodes that stand still for a while and do not know it (protocol.md §7.7).

use std::time::Duration;

use hovercraft::client::{Client, Kind, Outcome, PipelinedClient};
use hovercraft::cluster::{ClusterConfig, FanOut, LocalPorts};
use hovercraft::{Mode, NodeId};
use hovercraft_apps::kv::{Request, Response};
use system_tests::nodes::Nodes;
use system_tests::until;

const KEY: &str = "key";

#[test]
fn a_leader_that_was_stopped_and_woken_serves_nothing_stale_in_mode_raft() {
    stop_and_wake(Mode::Raft);
}

#[test]
fn a_leader_that_was_stopped_and_woken_serves_nothing_stale_in_mode_hovercraft() {
    stop_and_wake(Mode::Hovercraft);
}

/// Reads wait in the sockets of a leader that is stopped, while another one takes writes. When it is woken it leads for all
/// it knows, and those reads are the first thing it sees.
fn stop_and_wake(mode: Mode) {
    let mut config = ClusterConfig::local(3, &LocalPorts::free(3).expect("ports"));
    (config.mode, config.fan_out) = (mode, FanOut::Unicast);
    let mut cluster = Nodes::new(config);
    for id in 1..=3 {
        cluster.start(id);
    }
    let options = cluster.config.client_options();
    let mut writer = Client::connect(&options).expect("a socket");
    let mut set = |value: String| {
        let request = Request::Set { key: KEY.into(), value: value.into() }.encode();
        assert_eq!(writer.write(request), Outcome::Ok(Response::Stored.encode()));
    };
    for number in 0..4 {
        set(format!("old {number}"));
        let leader = leader(&cluster);
        // They have their sessions, and know who leads.
        let mut readers: Vec<_> = (0..8).map(|_| PipelinedClient::connect(&options).expect("a socket")).collect();
        for reader in &mut readers {
            ask(reader);
            assert_eq!(answers(reader), [format!("old {number}")]);
        }

        cluster.signal(leader, libc::SIGSTOP);
        let now = format!("new {number}");
        set(now.clone());
        for reader in &mut readers {
            ask(reader);
            reader.flush().expect("a socket that works");
        }
        cluster.signal(leader, libc::SIGCONT);
        for reader in &mut readers {
            assert_eq!(answers(reader), [now.as_str()], "n{leader} has led");
        }
    }
}

fn leader(cluster: &Nodes) -> u16 {
    let mut leader = None;
    until("all agree on a leader", || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        leader = status["leader"].as_u64();
        leader.is_some() && nodes.iter().all(|node| node["leader"].as_u64() == leader)
    });
    let leader = NodeId(leader.and_then(|id| u16::try_from(id).ok()).expect("just seen"));
    leader.0
}

fn ask(reader: &mut PipelinedClient) {
    reader.submit(Kind::Read, Request::Get { key: KEY.into() }.encode()).expect("room for it");
}

/// What it is answered to everything it has asked.
fn answers(reader: &mut PipelinedClient) -> Vec<String> {
    let mut all = Vec::new();
    while reader.outstanding() > 0 {
        for completion in reader.wait(Duration::from_millis(20)).expect("a socket that works") {
            let Outcome::Ok(body) = completion.outcome else { panic!("{completion:?}") };
            let Ok(Response::Value(Some(value))) = Response::decode(&body) else { panic!("{body:?}") };
            all.push(String::from_utf8_lossy(&value).into_owned());
        }
    }
    all
}
