//! Whole clusters in this process: real threads, real sockets on loopback, real clients.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::admin::AdminCommand;
use hovercraft::client::{self, Client, ClientOptions, Kind, Operator, Outcome, PipelinedClient, StatusError};
use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts, Threads};
use hovercraft::node::{StatusReport, StopReason};
use hovercraft::runtime::{self, NodeError, RunningNode, StartError};
use hovercraft::{Class, Context, Mode, NodeId, Reply, Service};
use r2p2::udp::Clock;

/// Only a guard against hanging: nothing here takes that long.
const GUARD: Duration = Duration::from_secs(120);

#[test]
fn one_thread_unicast_survives_its_leader() {
    let mut cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    cluster.writes_and_reads_survive_the_leader();
}

#[test]
fn one_thread_multicast_survives_its_leader() {
    let Some(mut cluster) = Cluster::start_multicast(3, |_| {}) else { return };
    cluster.writes_and_reads_survive_the_leader();
}

#[test]
fn two_threads_unicast_survive_their_leader() {
    let mut cluster = Cluster::start(3, |config| {
        config.fan_out = FanOut::Unicast;
        config.threads = Threads::Two;
    });
    cluster.writes_and_reads_survive_the_leader();
}

#[test]
fn two_threads_multicast_survive_their_leader() {
    let Some(mut cluster) = Cluster::start_multicast(3, |config| config.threads = Threads::Two) else { return };
    cluster.writes_and_reads_survive_the_leader();
}

#[test]
fn mode_raft_survives_its_leader() {
    let mut cluster = Cluster::start(3, |config| {
        config.mode = Mode::Raft;
        config.fan_out = FanOut::Unicast;
    });
    cluster.writes_and_reads_survive_the_leader();
}

#[test]
fn durable_nodes_go_on_from_disk() {
    for (durability, threads) in [(Durability::Sync, Threads::One), (Durability::Os, Threads::Two)] {
        let mut cluster = Cluster::start(3, |config| {
            config.fan_out = FanOut::Unicast;
            config.threads = threads;
            config.durability = durability;
            config.data_dir.clone_from(&config.runtime_dir);
            config.limits.snapshot_entries = 20;
        });
        let mut client = cluster.client();
        let mut expected = 0;
        for _ in 0..3 {
            for node in 0..3 {
                for _ in 0..10 {
                    expected += 1;
                    assert_eq!(number(client.write("add a 1")), expected);
                }
                cluster.stop(node);
                cluster.restart(node);
            }
            for node in 0..3 {
                cluster.stop(node);
            }
            for node in 0..3 {
                cluster.restart(node);
            }
        }
        assert_eq!(number(client.read("get a")), expected);
        cluster.converge();
        let status = cluster.status(0);
        assert_eq!(status.durability, durability.name());
        assert!(counter(&status, "archive.snapshots_installed") >= 1, "it has gone on from a snapshot");
    }
}

/// §7.5: whoever comes back without its data has forgotten its vote, and its peers remember who it was.
#[test]
fn a_node_whose_data_is_gone_is_refused_even_after_its_peers_restarted() {
    let mut cluster = Cluster::start(3, |config| {
        config.fan_out = FanOut::Unicast;
        config.durability = Durability::Os;
        config.data_dir.clone_from(&config.runtime_dir);
    });
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 1")), 1);
    cluster.converge();
    for node in 0..3 {
        cluster.stop(node);
    }
    fs::remove_dir_all(cluster.config.node_dir(NodeId(1)).unwrap()).unwrap();
    for node in 0..3 {
        cluster.restart(node);
    }
    let refused = cluster.nodes[0].take().unwrap().wait().unwrap_err();
    assert!(matches!(refused, NodeError::Stopped(StopReason::AnotherLife { .. })), "{refused}");
    assert_eq!(number(client.write("add a 1")), 2);

    // What there is now has been refused, so it goes too; and then the group is asked to let it in.
    fs::remove_dir_all(cluster.config.node_dir(NodeId(1)).unwrap()).unwrap();
    cluster.config.nodes[0].join = true;
    cluster.restart(0);
    cluster.until(|| cluster.voters() == [(1, 2), (2, 1), (3, 1)]);
    cluster.stop(1);
    assert_eq!(number(client.write("add a 1")), 3, "it is needed, and counts");
    cluster.restart(1);
    cluster.stop(0);
    cluster.restart(0);
    assert_eq!(number(client.write("add a 1")), 4, "it goes on as whom it was let in as");
    cluster.converge();
    assert_eq!(cluster.voters(), [(1, 2), (2, 1), (3, 1)]);
}

#[test]
fn another_nodes_data_is_refused() {
    let mut cluster = Cluster::start(1, |config| {
        config.durability = Durability::Sync;
        config.data_dir.clone_from(&config.runtime_dir);
    });
    let again = runtime::start(&cluster.config, NodeId(1), "ledger", Ledger::default()).unwrap_err();
    assert!(matches!(again, StartError::PortInUse { .. }), "{again}");
    cluster.stop(0);
    cluster.config.group = 2;
    let error = runtime::start(&cluster.config, NodeId(1), "ledger", Ledger::default()).unwrap_err();
    assert!(matches!(error, StartError::Storage(_)) && error.to_string().contains("data_dir"), "{error}");
}

#[test]
fn mode_unreplicated_answers() {
    let cluster = Cluster::start(1, |config| {
        config.mode = Mode::Unreplicated;
        config.fan_out = FanOut::Unicast;
    });
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 2")), 2);
    assert_eq!(number(client.read("get a")), 2);
    let status = cluster.status(0);
    assert_eq!((&status.mode[..], &status.service[..]), ("unreplicated", "ledger"));
}

#[test]
fn five_nodes_of_which_two_fail() {
    let mut cluster = Cluster::start(5, |config| config.fan_out = FanOut::Unicast);
    let mut client = cluster.client();
    for expected in 1..=5 {
        assert_eq!(number(client.write("add a 1")), expected);
    }
    cluster.stop(cluster.leader());
    assert_eq!(number(client.write("add a 1")), 6);
    cluster.stop(cluster.leader());
    assert_eq!(number(client.write("add a 1")), 7);
    assert_eq!(number(client.read("get a")), 7);
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::start(3, |config| {
        config.fan_out = FanOut::Unicast;
        config.client.give_up_ms = 300;
    });
    let mut patient = Client::connect(&ClientOptions { give_up: GUARD, ..cluster.options() }).unwrap();
    assert_eq!(number(patient.write("add a 1")), 1);
    cluster.stop(0);
    cluster.stop(1);
    let mut client = cluster.client();
    for request in ["add a 1", "get a"] {
        let outcome = client.write(request);
        assert!(!matches!(outcome, Outcome::Ok(_) | Outcome::ServiceError(_)), "{outcome:?}");
    }
}

#[test]
fn many_in_flight_are_each_executed_once() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let mut client = PipelinedClient::connect(&cluster.options()).unwrap();
    let total = 3000;
    let mut replies = Vec::new();
    let mut submitted = 0;
    while replies.len() < total {
        while submitted < total && client.submit(Kind::Write, "add a 1").is_ok() {
            submitted += 1;
        }
        for completion in client.wait(GUARD).unwrap() {
            assert!(completion.entry_index.is_some());
            replies.push(number(completion.outcome));
        }
    }
    replies.sort_unstable();
    assert!(replies.into_iter().eq(1..=total as u64), "a write was lost or executed twice");
    assert_eq!(client.outstanding(), 0);
    cluster.converge();
    // Everybody executed every write, and everybody answered some of them.
    let statuses = cluster.statuses();
    for status in &statuses {
        assert_eq!(counter(status, "apply.writes_applied"), total as u64);
        assert!(counter(status, "apply.replies_sent") > 0, "node {} never answered", status.node);
        assert_eq!(counter(status, "net.requests.truncated"), 0);
    }
}

#[test]
fn reads_are_executed_once_each() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 1")), 1);
    for _ in 0..100 {
        assert_eq!(number(client.read("get a")), 1);
    }
    // A read that was sent again after it had been answered may still be on its way.
    cluster.until(|| {
        let statuses = cluster.statuses();
        let sum = |name: &str| statuses.iter().map(|status| counter(status, name)).sum::<u64>();
        let (queries, again) = (sum("apply.queries"), sum("node.reads_ordered_again"));
        assert!(queries <= 100 + again, "{queries} reads executed, {again} ordered again");
        queries == 100 + again
    });
}

#[test]
fn long_requests_and_replies_take_several_datagrams() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let mut client = cluster.client();
    let long = "x".repeat(50_000);
    let Outcome::Ok(reply) = client.write(format!("echo {long}")) else { panic!("no answer") };
    assert!(reply == long.as_bytes());
    // One byte beyond what clients may send is refused before it is sent, ...
    let limit = cluster.config.limits.request_max;
    assert_eq!(client.write(vec![b'x'; limit + 1]), Outcome::TooLarge { limit });
    // ... and by the nodes if a client does not know the limit.
    let mut careless = Client::connect(&ClientOptions { request_max: 2 * limit, ..cluster.options() }).unwrap();
    assert_eq!(careless.write(vec![b'x'; limit + 1]), Outcome::TooLarge { limit });
    assert_eq!(number(careless.write("add a 1")), 1);
}

#[test]
fn losses_and_duplicates_are_made_good() {
    for threads in [Threads::One, Threads::Two] {
        let cluster = Cluster::start(3, |config| {
            config.fan_out = FanOut::Unicast;
            config.threads = threads;
            config.faults.loss = 0.05;
            config.faults.duplicate = 0.05;
            config.faults.seed = 7;
        });
        let mut client = PipelinedClient::connect(&cluster.options()).unwrap();
        let mut replies = Vec::new();
        for _ in 0..500 {
            client.submit(Kind::Write, "add a 1").unwrap();
        }
        while client.outstanding() > 0 {
            replies.extend(client.wait(GUARD).unwrap().into_iter().map(|completion| number(completion.outcome)));
        }
        replies.sort_unstable();
        assert!(replies.into_iter().eq(1..=500), "a write was lost or executed twice");
        cluster.converge();
        let statuses = cluster.statuses();
        let sum = |name: &str| statuses.iter().map(|status| counter(status, name)).sum::<u64>();
        assert!(sum("faults.group_requests.receive_lost") > 0);
        assert!(sum("faults.peers.receive_duplicated") > 0);
        assert!(sum("node.bodies_fetched") > 0, "nothing lost needed fetching");
    }
}

#[test]
fn any_bytes_at_any_port_are_counted_and_survived() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let garbage: [&[u8]; 6] = [b"", b"x", &[0xcc; 8], &[0xcc; 64], &[0; 1400], &[0xff; 3000]];
    for entry in &cluster.config.nodes {
        for address in [entry.requests, entry.group_requests.unwrap(), entry.peers] {
            for bytes in garbage {
                socket.send_to(bytes, address).unwrap();
            }
        }
    }
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 1")), 1);
    cluster.until(|| {
        cluster.statuses().iter().all(|status| {
            counter(status, "net.requests.truncated") == 1
                && counter(status, "net.group_requests.truncated") == 1
                && counter(status, "node.peer_messages_stranger") >= 5
        })
    });
}

#[test]
fn a_plain_request_is_answered_as_the_published_implementation_does() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 5")), 5);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(GUARD)).unwrap();
    for (rid, policy, body) in [(0x0102_u16, 2, "add a 1"), (0x0103, 3, "get a")] {
        // Magic, header size, type and policy, first and last, rid, packets: a request of one packet.
        let [high, low] = rid.to_be_bytes();
        let request = [&[0xcc, 8, policy, 0xc0, high, low, 0, 1], body.as_bytes()].concat();
        for entry in &cluster.config.nodes {
            socket.send_to(&request, entry.group_requests.unwrap()).unwrap();
        }
        let mut buffer = [0; 2048];
        let (len, _) = socket.recv_from(&mut buffer).unwrap();
        let answer = &buffer[..len];
        assert_eq!((answer[0], answer[1], answer[2] >> 4, answer[3]), (0xcc, 8, 1, 0xc0), "{answer:x?}");
        assert_eq!((&answer[4..6], &answer[8..]), (&[high, low][..], &b"6"[..]));
    }
}

/// §7.5: a node in memory mode has forgotten everything when it comes back, so it comes back as somebody else.
#[test]
fn a_node_that_has_forgotten_everything_comes_back_as_another() {
    let mut cluster = Cluster::start(3, |config| {
        config.fan_out = FanOut::Unicast;
        config.timing.join_patience_ms = 2000;
    });
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 1")), 1);
    for (node, voters) in [(2, [(1, 1), (2, 1), (3, 2)]), (0, [(1, 2), (2, 1), (3, 2)]), (2, [(1, 2), (2, 1), (3, 3)])]
    {
        cluster.stop(node);
        cluster.restart(node);
        cluster.until(|| cluster.voters() == voters);
    }
    assert_eq!(number(client.write("add a 1")), 2);
    cluster.converge();
    // It counts: with it, one of the others may go.
    cluster.stop(1);
    assert_eq!(number(client.write("add a 1")), 3);

    // Two of three have forgotten: there is nobody left who could let them in.
    cluster.stop(2);
    let error = runtime::start(&cluster.config, NodeId(3), "ledger", Ledger::default()).unwrap_err();
    assert!(matches!(error, StartError::NotLetIn(_)), "{error}");
    for part in ["has lived before as incarnation 3", "§7.5", "majority"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// A durable cluster may move as long as its members have not changed: its configuration says where it is now.
#[test]
fn a_cluster_comes_back_at_other_addresses() {
    let mut cluster = Cluster::start(3, |config| {
        config.fan_out = FanOut::Unicast;
        config.durability = Durability::Os;
        config.data_dir.clone_from(&config.runtime_dir);
    });
    assert_eq!(number(cluster.client().write("add a 1")), 1);
    for snapshot in [false, true] {
        if snapshot {
            let options = cluster.options();
            let mut operator = Operator::connect(&options).unwrap();
            for (_, address) in &options.nodes {
                operator.command_to(*address, &AdminCommand::Snapshot, Duration::from_secs(10)).unwrap();
            }
            let taken = |status: &StatusReport| {
                status.counters.iter().any(|counter| counter.name == "node.snapshots_taken" && counter.value > 0)
            };
            cluster.until(|| cluster.statuses().iter().all(taken));
        }
        (0..3).for_each(|node| cluster.stop(node));
        let ports = LocalPorts::free(3).unwrap();
        cluster.config.nodes = ClusterConfig::local(3, &ports).nodes;
        (0..3).for_each(|node| cluster.restart(node));
        assert_eq!(number(cluster.client().write("add a 1")), 2 + u64::from(snapshot));
        cluster.converge();
    }
}

/// A node that was not there at first, and one that stays a learner.
#[test]
fn nodes_join() {
    let mut cluster = Cluster::start(4, |config| {
        config.fan_out = FanOut::Unicast;
        config.nodes[3].join = true;
    });
    let mut client = cluster.client();
    assert_eq!(number(client.write("add a 1")), 1);
    cluster.until(|| cluster.voters() == [(1, 1), (2, 1), (3, 1), (4, 1)]);
    cluster.converge();
    cluster.stop(3);
    cluster.config.nodes[3].learner = true;
    cluster.restart(3);
    cluster.until(|| cluster.voters() == [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(number(client.write("add a 1")), 2);
    cluster.converge();
}

#[test]
fn an_amnesiac_whose_mark_was_lost_is_told_by_its_peers() {
    let mut cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    assert_eq!(number(cluster.client().write("add a 1")), 1);
    cluster.converge();
    cluster.stop(2);
    let config = ClusterConfig { runtime_dir: Some(cluster.directory.0.join("elsewhere")), ..cluster.config.clone() };
    let node = runtime::start(&config, NodeId(3), "ledger", Ledger::default()).unwrap();
    let error = node.wait().unwrap_err();
    assert!(matches!(error, NodeError::Stopped(_)), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(number(cluster.client().write("add a 1")), 2);
}

#[test]
fn a_port_in_use_is_named() {
    let config = config(3);
    let taken = UdpSocket::bind(config.nodes[0].peers).unwrap();
    let config = ClusterConfig { fan_out: FanOut::Unicast, ..config };
    let directory = TempDir::new();
    let config = ClusterConfig { runtime_dir: Some(directory.0.clone()), ..config };
    let error = runtime::start(&config, NodeId(1), "ledger", Ledger::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`peers`") && message.contains(&config.nodes[0].peers.port().to_string()), "{message}");
    // It has not lived: with the port free it starts.
    drop(taken);
    let node = runtime::start(&config, NodeId(1), "ledger", Ledger::default()).unwrap();
    node.stop();
    node.stop();
    node.wait().unwrap();
    // Its sockets are closed.
    for address in [config.nodes[0].requests, config.nodes[0].group_requests.unwrap(), config.nodes[0].peers] {
        UdpSocket::bind(address).unwrap();
    }
}

#[test]
fn a_group_that_cannot_be_joined_is_named() {
    let directory = TempDir::new();
    let runtime_dir = Some(directory.0.clone());
    let config = ClusterConfig { interface: "nosuch0".to_owned(), runtime_dir, ..config(3) };
    let error = runtime::start(&config, NodeId(1), "ledger", Ledger::default()).unwrap_err().to_string();
    assert!(error.contains("`request_group`") && error.contains("nosuch0") && error.contains("it has "), "{error}");
    assert!(fs::read_dir(&directory.0).unwrap().next().is_none(), "it has not lived");
}

#[test]
fn a_panic_in_apply_stops_those_that_apply_and_names_the_entry() {
    for threads in [Threads::One, Threads::Two] {
        let mut cluster = Cluster::start(3, |config| {
            config.fan_out = FanOut::Unicast;
            config.threads = threads;
        });
        let mut client = PipelinedClient::connect(&cluster.options()).unwrap();
        client.submit(Kind::Write, "panic now").unwrap();
        // A majority; the third may never learn that the entry was committed.
        while cluster.nodes.iter().flatten().filter(|node| node.is_finished()).count() < 2 {
            assert_eq!(client.wait(Duration::from_millis(10)).unwrap(), []);
            cluster.guard();
        }
        for node in cluster.nodes.iter_mut().filter_map(Option::take) {
            if node.is_finished() {
                let error = node.wait().unwrap_err();
                assert!(matches!(error, NodeError::Apply(_)), "{error}");
                assert!(error.to_string().contains("panic now"), "{error}");
            }
        }
    }
}

#[test]
fn a_panic_in_query_is_an_answer() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    let mut client = cluster.client();
    let outcome = client.read("get panic");
    assert!(matches!(outcome, Outcome::ServiceError(_)), "{outcome:?}");
    assert_eq!(number(client.write("add a 1")), 1);
}

#[test]
fn heartbeats_do_not_wait_for_apply() {
    let gate = Arc::new(Gate::default());
    let mut cluster = Cluster::with_service(
        3,
        |config| {
            config.fan_out = FanOut::Unicast;
            config.threads = Threads::Two;
        },
        || Ledger { gate: Some(Arc::clone(&gate)), ..Ledger::default() },
    );
    let mut client = PipelinedClient::connect(&cluster.options()).unwrap();
    client.submit(Kind::Write, "add a 1").unwrap();
    assert_eq!(client.wait(GUARD).unwrap().len(), 1);
    let term = cluster.status(cluster.leader()).term;
    client.submit(Kind::Write, "wait").unwrap();
    client.flush().unwrap();
    // All nodes are inside `apply` now, and stay there over many election timeouts' worth of heartbeats.
    gate.until_waiting(3);
    let leader = cluster.leader();
    let sent = |cluster: &Cluster| counter(&cluster.status(leader), "node.heartbeats_sent");
    let before = sent(&cluster);
    cluster.until(|| sent(&cluster) >= before + 100);
    for status in cluster.statuses() {
        assert_eq!(status.term, term, "node {} saw an election", status.node);
        assert_eq!(status.state_hash, None, "the apply thread cannot report");
        assert!(counter(&status, "runtime.admin_without_report") > 0);
    }
    gate.open();
    let completions = client.wait(GUARD).unwrap();
    assert_eq!(number(completions[0].outcome.clone()), 1);
    // Also stopping does not wait for the rest of the work, but for the operation at hand.
    cluster.stop(0);
}

#[test]
fn a_node_that_is_not_there() {
    let cluster = Cluster::start(1, |config| {
        config.mode = Mode::Unreplicated;
        config.fan_out = FanOut::Unicast;
    });
    let options = ClientOptions { give_up: Duration::from_millis(50), ..cluster.options() };
    assert!(matches!(client::status(&options, NodeId(9)), Err(StatusError::NoSuchNode { .. })));
    let mut cluster = cluster;
    cluster.stop(0);
    let error = client::status(&options, NodeId(1)).unwrap_err();
    assert!(matches!(error, StatusError::NoAnswer { .. }), "{error}");
    let error = runtime::start(&cluster.config, NodeId(2), "ledger", Ledger::default()).unwrap_err();
    assert!(error.to_string().contains("no node n2"), "{error}");
}

#[test]
fn an_idle_node_sleeps() {
    let cluster = Cluster::start(3, |config| config.fan_out = FanOut::Unicast);
    assert_eq!(number(cluster.client().write("add a 1")), 1);
    cluster.converge();
    let turns = |status: &StatusReport| (counter(status, "runtime.turns"), counter(status, "runtime.sleeps"));
    let before = cluster.status(0);
    cluster.until(|| {
        counter(&cluster.status(0), "node.peer_packets_received") > counter(&before, "node.peer_packets_received") + 20
    });
    let (turns_before, sleeps_before) = turns(&before);
    let (turns_after, sleeps_after) = turns(&cluster.status(0));
    // It may not sleep in a turn only if there is work left.
    assert!(turns_after - turns_before <= 2 * (sleeps_after - sleeps_before) + 10, "{turns_before} {turns_after}");
}

/// A cluster in this process.
struct Cluster {
    config: ClusterConfig,
    nodes: Vec<Option<RunningNode>>,
    directory: TempDir,
    clock: Clock,
}

impl Cluster {
    fn start(nodes: usize, adapt: impl FnOnce(&mut ClusterConfig)) -> Self {
        Self::with_service(nodes, adapt, Ledger::default)
    }

    fn start_multicast(nodes: usize, adapt: impl FnOnce(&mut ClusterConfig)) -> Option<Self> {
        if let Err(error) = config(nodes).fan_out_works() {
            println!("skipped: {error}");
            return None;
        }
        Some(Self::start(nodes, adapt))
    }

    fn with_service(nodes: usize, adapt: impl FnOnce(&mut ClusterConfig), service: impl Fn() -> Ledger) -> Self {
        let directory = TempDir::new();
        let mut config = config(nodes);
        config.threads = Threads::One;
        config.client.give_up_ms = GUARD.as_millis() as u64;
        config.runtime_dir = Some(directory.0.clone());
        adapt(&mut config);
        let nodes = config.nodes.iter().map(|entry| {
            Some(
                runtime::start(&config, NodeId(entry.id), "ledger", service())
                    .unwrap_or_else(|error| panic!("{error}")),
            )
        });
        Self { nodes: nodes.collect(), config, directory, clock: Clock::new() }
    }

    fn writes_and_reads_survive_the_leader(&mut self) {
        let mut client = self.client();
        let mut expected = 0;
        for _ in 0..50 {
            expected += 1;
            assert_eq!(number(client.write("add a 1")), expected);
            assert_eq!(number(client.read("get a")), expected);
        }
        self.converge();
        self.stop(self.leader());
        for _ in 0..50 {
            expected += 1;
            assert_eq!(number(client.write("add a 1")), expected);
            assert_eq!(number(client.read("get a")), expected);
        }
        self.converge();
    }

    fn restart(&mut self, node: usize) {
        let id = NodeId(self.config.nodes[node].id);
        self.nodes[node] = Some(runtime::start(&self.config, id, "ledger", Ledger::default()).unwrap());
    }

    fn options(&self) -> ClientOptions {
        self.config.client_options()
    }

    fn client(&self) -> Client {
        Client::connect(&self.options()).unwrap()
    }

    fn status(&self, node: usize) -> StatusReport {
        client::status(&self.options(), NodeId(self.config.nodes[node].id)).unwrap()
    }

    /// Of the nodes that run.
    fn statuses(&self) -> Vec<StatusReport> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_some()).map(|node| self.status(node)).collect()
    }

    /// Number and incarnation of those who vote.
    fn voters(&self) -> Vec<(u16, u32)> {
        let mut operator = Operator::connect(&self.options()).unwrap();
        let membership = operator.members(Duration::from_secs(10)).unwrap().membership;
        let voters = membership.incoming().map(|id| (id.node().0, id.incarnation().0)).collect();
        if membership.is_joint() { Vec::new() } else { voters }
    }

    /// The leader of the highest term that runs.
    fn leader(&self) -> usize {
        let mut found = None;
        self.until(|| {
            let leaders = self.statuses().into_iter().filter(|status| status.role == "leader");
            found = leaders.max_by_key(|status| status.term).map(|status| status.node);
            found.is_some()
        });
        found.unwrap() as usize - 1
    }

    /// Waits until all that run have applied the same, and checks that their states are equal.
    fn converge(&self) {
        self.until(|| {
            let statuses = self.statuses();
            let first = &statuses[0];
            let even = statuses.iter().all(|status| status.applied == first.applied && status.last == first.applied);
            if even {
                assert!(statuses.iter().all(|status| status.state_hash == first.state_hash), "states differ");
                assert!(first.state_hash.is_some());
            }
            even
        });
    }

    fn stop(&mut self, node: usize) {
        let node = self.nodes[node].take().expect("it runs");
        node.stop();
        node.wait().unwrap();
    }

    fn until(&self, mut condition: impl FnMut() -> bool) {
        while !condition() {
            self.guard();
        }
    }

    fn guard(&self) {
        assert!(self.clock.now().since(r2p2::Instant::ZERO) < GUARD, "hangs");
    }
}

fn config(nodes: usize) -> ClusterConfig {
    ClusterConfig::local(nodes, &LocalPorts::free(nodes).expect("free ports"))
}

fn counter(status: &StatusReport, name: &str) -> u64 {
    let found = status.counters.iter().find(|counter| counter.name == name);
    found.unwrap_or_else(|| panic!("no counter {name}")).value
}

fn number(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Ok(reply) => std::str::from_utf8(&reply).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Named numbers, to be added to.
#[derive(Default)]
struct Ledger {
    numbers: BTreeMap<Bytes, u64>,
    gate: Option<Arc<Gate>>,
}

impl Service for Ledger {
    fn classify(request: &[u8]) -> Class {
        if request.starts_with(b"get ") { Class::Read } else { Class::Write }
    }

    fn apply(&mut self, _: &Context, request: &Bytes, reply: &mut Reply) {
        let words: Vec<&[u8]> = request.splitn(3, |byte| *byte == b' ').collect();
        match words[..] {
            [b"add", name, amount] => {
                let number = self.numbers.entry(Bytes::copy_from_slice(name)).or_default();
                *number += std::str::from_utf8(amount).unwrap().parse::<u64>().unwrap();
                reply.write(number.to_string().as_bytes());
            }
            [b"echo", words] => reply.write(words),
            [b"wait"] => {
                self.gate.as_ref().unwrap().wait();
                reply.write(b"1");
            }
            [b"panic", ..] => panic!("as asked"),
            _ => reply.write(b"?"),
        }
    }

    fn query(&self, _: &Context, request: &Bytes, reply: &mut Reply) {
        let name = &request[4..];
        assert_ne!(name, b"panic", "as asked");
        reply.write(self.numbers.get(name).unwrap_or(&0).to_string().as_bytes());
    }

    fn state_hash(&self) -> Option<u64> {
        let bytes = self.numbers.iter().flat_map(|(name, number)| [&name[..], &number.to_be_bytes()].concat());
        Some(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn snapshot(&self) -> Vec<u8> {
        let lines = self.numbers.iter().map(|(name, number)| [&name[..], format!(" {number}\n").as_bytes()].concat());
        lines.flatten().collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let lines = std::str::from_utf8(snapshot).map_err(|error| error.to_string())?.lines();
        let pairs =
            lines.map(|line| line.rsplit_once(' ').and_then(|(name, number)| Some((name, number.parse().ok()?))));
        let pairs = pairs.map(|pair| pair.map(|(name, number)| (Bytes::copy_from_slice(name.as_bytes()), number)));
        self.numbers = pairs.collect::<Option<_>>().ok_or("a line that is none")?;
        Ok(())
    }
}

/// Where operations wait until a test lets them go.
#[derive(Default)]
struct Gate {
    waiting_and_open: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut state = self.waiting_and_open.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        let (state, timeout) = self.changed.wait_timeout_while(state, GUARD, |(_, open)| !*open).unwrap();
        assert!(!timeout.timed_out(), "hangs");
        drop(state);
    }

    fn until_waiting(&self, count: usize) {
        let state = self.waiting_and_open.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, GUARD, |(waiting, _)| *waiting < count).unwrap();
        assert!(!timeout.timed_out(), "hangs");
        drop(state);
    }

    fn open(&self) {
        self.waiting_and_open.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A directory that is gone at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("hovercraft-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
