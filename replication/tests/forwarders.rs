//! Gateway and router in front of nodes: real threads, real sockets on loopback, real clients.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::client::{self, Client, ClientOptions, Kind, Outcome, PipelinedClient};
use hovercraft::cluster::{ClusterConfig, FanOut, GatewaySection, LocalPorts, RouterSection, Threads};
use hovercraft::runtime::{self, RoleStartError, RunningNode};
use hovercraft::{Class, Context, Mode, NodeId, Reply, Service};
use multicast::role::RoleStatus;
use r2p2::message::{MessageHead, write_packets};
use r2p2::udp::Clock;
use r2p2::wire::{Extensions, MessageType, Packet, Policy};

/// Only a guard against hanging: nothing here takes that long.
const GUARD: Duration = Duration::from_secs(120);

#[test]
fn operations_go_through_the_gateway_and_every_credit_comes_back() {
    for (mode, threads) in
        [(Mode::Hovercraft, Threads::One), (Mode::Hovercraft, Threads::Two), (Mode::Raft, Threads::One)]
    {
        let cluster = Cluster::start(3, |config, spare| {
            (config.mode, config.threads) = (mode, threads);
            config.gateway = Some(GatewaySection { address: spare, ..GatewaySection::default() });
        });
        let gateway = runtime::gateway(&cluster.config).unwrap();
        let mut client = PipelinedClient::connect(&cluster.options()).unwrap();
        let long = [&b"add "[..], &[b'x'; 10_000]].concat();
        for round in 0..200 {
            client.submit(Kind::Write, "add 1").unwrap();
            client.submit(Kind::Read, "get").unwrap();
            if round % 20 == 0 {
                client.submit(Kind::Write, long.clone()).unwrap();
            }
        }
        cluster.until(|| {
            let done = client.wait(Duration::from_millis(100)).unwrap();
            assert!(done.iter().all(|completion| matches!(completion.outcome, Outcome::Ok(_))), "{done:?}");
            client.outstanding() == 0
        });
        let mut status = RoleStatus::default();
        cluster.until(|| {
            status = client::role_status(&cluster.options(), gateway.address()).unwrap();
            status.value("gateway.in_flight") == 0
        });
        // All of them, and the session.
        assert!(status.value("gateway.requests_admitted") >= 411, "{status:?}");
        assert_eq!(status.value("gateway.credits_charged"), status.value("gateway.credits_returned"));
        assert_eq!(status.value("gateway.feedback_stranger"), 0);
        assert_eq!((status.role.as_str(), status.group), ("gateway", 1));
        gateway.stop();
        gateway.wait().unwrap();
    }
}

#[test]
fn clients_without_sessions_and_nodes_that_answer_them_directly() {
    let cluster = Cluster::start(3, |config, spare| {
        config.gateway = Some(GatewaySection { address: spare, ..GatewaySection::default() });
    });
    let gateway = runtime::gateway(&cluster.config).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let head = MessageHead {
        kind: MessageType::Request,
        policy: Policy::Replicated,
        rid: 7,
        extensions: Extensions::default(),
    };
    let mut request = Vec::new();
    write_packets(&head, b"add 5", 1472, &mut |packet| request.push(packet)).unwrap();
    let mut buffer = [0; 2048];
    let mut answer = None;
    // The group may not have a leader yet; a copy is a copy.
    cluster.until(|| {
        socket.send_to(&request[0], gateway.address()).unwrap();
        answer = socket.recv_from(&mut buffer).ok();
        answer.is_some()
    });
    let (len, from) = answer.unwrap();
    let packet = Packet::new_checked(&buffer[..len]).unwrap();
    assert_eq!((packet.kind(), packet.rid(), packet.payload()), (MessageType::Response, 7, &b"5"[..]));
    assert!(cluster.config.nodes.iter().any(|node| from == node.requests.into()), "{from}");
}

#[test]
fn a_gateway_may_come_and_go() {
    let cluster = Cluster::start(3, |config, spare| {
        config.gateway = Some(GatewaySection { address: spare, ..GatewaySection::default() });
    });
    let mut client = Client::connect(&cluster.options()).unwrap();
    let mut gateway = runtime::gateway(&cluster.config).unwrap();
    for expected in 1..=30 {
        if expected % 10 == 0 {
            drop(gateway);
            gateway = runtime::gateway(&cluster.config).unwrap();
        }
        assert_eq!(client.write("add 1"), Outcome::Ok(expected.to_string().into()));
    }
    drop(gateway);
    // Nobody is there now: clients go around it.
    assert_eq!(client.write("add 1"), Outcome::Ok("31".into()));
}

#[test]
fn a_router_spreads_requests_over_workers_that_come_and_go() {
    let mut cluster = Cluster::start(3, |config, spare| {
        config.mode = Mode::Unreplicated;
        config.router = Some(RouterSection { address: spare, bound: 1, ..RouterSection::default() });
    });
    let router = runtime::router(&cluster.config).unwrap();
    cluster.until(|| client::role_status(&cluster.options(), router.address()).unwrap().value("router.workers") == 3);
    let options = cluster.options();
    let mut client = PipelinedClient::connect(&options).unwrap();
    let answered = |client: &mut PipelinedClient, count: usize| {
        for _ in 0..count {
            client.submit(Kind::Write, "add 1").unwrap();
        }
        let mut sum = 0;
        while client.outstanding() > 0 {
            for done in client.wait(GUARD).unwrap() {
                assert!(matches!(done.outcome, Outcome::Ok(_)), "{done:?}");
                sum += 1;
            }
        }
        assert_eq!(sum, count);
    };
    answered(&mut client, 300);
    let shares: Vec<u64> =
        cluster.config.nodes.iter().map(|node| client::status(&options, NodeId(node.id)).unwrap().applied).collect();
    assert!(shares.iter().all(|share| *share > 0) && shares.iter().sum::<u64>() == 300, "{shares:?}");
    let stopped = cluster.nodes.pop().unwrap();
    stopped.stop();
    stopped.wait().unwrap();
    cluster.until(|| client::role_status(&options, router.address()).unwrap().value("router.workers") == 2);
    let left = client::role_status(&options, router.address()).unwrap();
    assert_eq!((left.value("router.workers_left"), left.value("router.workers_evicted")), (1, 0));
    answered(&mut client, 100);
}

#[test]
fn roles_that_the_configuration_does_not_have() {
    let config = ClusterConfig::default();
    assert!(matches!(runtime::gateway(&config), Err(RoleStartError::NoSection { section: "gateway" })));
    assert!(matches!(runtime::router(&config), Err(RoleStartError::NoSection { section: "router" })));
    let config = ClusterConfig { router: Some(RouterSection::default()), ..config };
    let error = runtime::router(&config).unwrap_err().to_string();
    assert!(error.contains("needs mode = \"unreplicated\""), "{error}");
}

struct Cluster {
    nodes: Vec<RunningNode>,
    config: ClusterConfig,
    directory: PathBuf,
    clock: Clock,
}

impl Cluster {
    /// `adapt` is given an address that nobody uses.
    fn start(nodes: usize, adapt: impl FnOnce(&mut ClusterConfig, SocketAddrV4)) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("hovercraft-forwarders-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let mut config = ClusterConfig::local(nodes + 1, &LocalPorts::free(nodes + 1).expect("free ports"));
        let spare = config.nodes.pop().expect("one more").requests;
        config.fan_out = FanOut::Unicast;
        config.threads = Threads::One;
        config.client.give_up_ms = GUARD.as_millis() as u64;
        config.runtime_dir = Some(directory.clone());
        adapt(&mut config, spare);
        let start =
            |id| runtime::start(&config, NodeId(id), "sum", Sum::default()).unwrap_or_else(|error| panic!("{error}"));
        let nodes = config.nodes.iter().map(|entry| start(entry.id)).collect();
        Self { nodes, config, directory, clock: Clock::new() }
    }

    fn options(&self) -> ClientOptions {
        self.config.client_options()
    }

    fn until(&self, mut condition: impl FnMut() -> bool) {
        while !condition() {
            assert!(self.clock.now().since(r2p2::Instant::ZERO) < GUARD, "hangs");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A number to be added to.
#[derive(Default)]
struct Sum(u64);

impl Service for Sum {
    fn classify(request: &[u8]) -> Class {
        if request == b"get" { Class::Read } else { Class::Write }
    }

    fn apply(&mut self, _: &Context, request: &Bytes, reply: &mut Reply) {
        self.0 += std::str::from_utf8(&request[4..]).ok().and_then(|amount| amount.parse().ok()).unwrap_or(0);
        reply.write(self.0.to_string().as_bytes());
    }

    fn query(&self, _: &Context, _: &Bytes, reply: &mut Reply) {
        reply.write(self.0.to_string().as_bytes());
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_be_bytes(snapshot.try_into().map_err(|_| "not eight bytes")?);
        Ok(())
    }
}
