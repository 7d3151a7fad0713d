use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;

#[test]
fn an_empty_file_is_three_nodes_on_this_machine() {
    let config = ClusterConfig::parse("").unwrap();
    assert_eq!(config, ClusterConfig::local(3, &LocalPorts::default()));
    assert_eq!(config.warnings(), [] as [&str; 0]);
    assert_eq!(config.packet_max(), ClusterConfig::PACKET_MAX_LOOPBACK);
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = ClusterConfig::local(5, &LocalPorts::from_base(9000));
    config.seed = Some(7);
    config.runtime_dir = Some("/somewhere".into());
    config.limits.packet_max = Some(1000);
    config.limits.request_max = 1234;
    config.timing.tick_ms = 7;
    config.faults.loss = 0.25;
    config.skip_entries = vec![7, 9];
    config.nodes[4].group_requests = None;
    config.nodes[3].incarnation = 4;
    assert_eq!(ClusterConfig::parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn numbers_arrive_where_they_belong() {
    let config = ClusterConfig::parse(
        "group = 9\nmode = \"raft\"\nseed = 3\nreplier_choice = \"random\"\nearly_commit = false\n\
         [limits]\nrequest_max = 100\nsessions_max = 5\nlog_entries_max = 5000\n\
         [timing]\ntick_ms = 8\nsession_expiry_s = 200\n[client]\ngive_up_ms = 77",
    )
    .unwrap();
    let node_config = |at: usize| config.node_config(config.nodes[at].member(), 5, config.first_membership());
    let node = node_config(1);
    assert_eq!((node.group, node.mode, node.life), (GroupId(9), Mode::Raft, 5));
    assert_eq!(node.me, MemberId::new(NodeId(2), Incarnation(1)));
    assert_eq!(node.membership.voters().count(), 3);
    let second = node.membership.get(config.nodes[1].member()).unwrap();
    assert_eq!(second.addresses.peers, config.nodes[1].peers);
    assert_eq!((node.limits.request_max, node.limits.retention.entries_max), (100, 5000));
    assert_eq!((node.timing.tick, node.early_commit), (Duration::from_millis(8), false));
    assert_eq!(node.replier_choice, ReplierChoice::Random);
    assert_ne!(node.seed, node_config(0).seed, "nodes must not time out together");
    let applier = config.applier_config(NodeId(2));
    assert_eq!(applier.me, NodeId(2));
    assert_eq!((applier.sessions.sessions_max, applier.sessions.session_expiry), (5, Duration::from_secs(200)));
    assert_eq!(ApplierConfig { me: NodeId(1), ..applier }, config.applier_config(NodeId(1)), "replicated state");
    let client = config.client_options();
    assert_eq!((client.mode, client.request_max, client.give_up), (Mode::Raft, 100, Duration::from_millis(77)));
    assert_eq!(client.nodes[2], (NodeId(3), config.nodes[2].requests));
}

#[test]
fn fan_out_decides_the_groups() {
    let mut config = ClusterConfig::default();
    assert_eq!(config.request_fan_out().receivers(), [config.request_group]);
    assert_eq!(config.peer_fan_out().receivers(), [config.peer_group]);
    config.fan_out = FanOut::Unicast;
    let own = |of: fn(&NodeEntry) -> SocketAddrV4| config.nodes.iter().map(of).collect::<Vec<_>>();
    assert_eq!(config.request_fan_out().receivers(), own(|entry| entry.group_requests.unwrap()));
    assert_eq!(config.peer_fan_out().receivers(), own(|entry| entry.peers));
}

#[test]
fn a_typo_is_named_with_what_was_meant() {
    for (text, expected) in [
        ("fanout = \"unicast\"", "`fanout`, did you mean `fan_out`?"),
        ("[limits]\nrequest_mx = 1", "`limits.request_mx`, did you mean `request_max`?"),
        ("[timing]\ntick = 5", "`timing.tick`, did you mean `tick_ms`?"),
        ("[fault]\nloss = 0.1", "`fault`, did you mean `faults`?"),
        ("[[nodes]]\nid = 1\nrequest = \"127.0.0.1:1\"", "`nodes[0].request`, did you mean `requests`?"),
        (
            "zzzzzzzzzz = 1",
            "there is no key `zzzzzzzzzz`; the keys there are: aggregator, client, data_dir, durability",
        ),
    ] {
        says(text, expected);
    }
}

#[test]
fn a_wrong_value_is_shown_with_its_line() {
    says("group = 1\nmode = \"rfat\"", "line 2");
    says("group = 1\nmode = \"rfat\"", "`hovercraft`");
    says("[limits]\nrequest_max = \"much\"", "line 2");
    says("request_group = \"localhost:1\"", "line 1");
    says("group = ", "line 1");
    says("durability = \"disk\"", "memory");
    says("durability = \"sync\"", "data_dir");
    says("mode = \"unreplicated\"\ndurability = \"os\"\ndata_dir = \"x\"", "no log");
}

#[test]
fn a_wrong_file_is_named() {
    let path = std::env::temp_dir().join(format!("hovercraft-config-{:016x}.toml", crate::entropy::draw()));
    let error = ClusterConfig::load(&path).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("start without one"), "{error}");
    std::fs::write(&path, "gruop = 1").unwrap();
    let error = ClusterConfig::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("did you mean `group`?"), "{error}");
}

#[test]
fn node_counts() {
    let ports = LocalPorts::free(NODES_MAX + 1).unwrap();
    for (nodes, warned) in [(1, true), (2, true), (3, false), (4, true), (5, false), (8, true), (9, false)] {
        let config = ClusterConfig::local(nodes, &ports);
        config.validate().unwrap();
        assert_eq!(config.warnings().len(), usize::from(warned), "{nodes}: {:?}", config.warnings());
    }
    let four = ClusterConfig::local(4, &ports).warnings().remove(0);
    assert!(four.contains("no more than 3 nodes would") && four.contains("failure of 1"), "{four}");
    for nodes in [0, NODES_MAX + 1] {
        refused(&ClusterConfig::local(nodes, &ports), &format!("lists {nodes} nodes, but a group has 1 to 9"));
    }
    refused(&ClusterConfig { mode: Mode::Unreplicated, ..ClusterConfig::default() }, "lists 3; list one node");
    let single = ClusterConfig { mode: Mode::Unreplicated, ..ClusterConfig::local(1, &ports) };
    single.validate().unwrap();
    assert_eq!(single.warnings(), [] as [&str; 0]);
}

#[test]
fn identities() {
    let mut config = ClusterConfig::default();
    config.nodes[2].id = 1;
    refused(&config, "node id 1 is used by nodes[0] and nodes[2]");
    for id in [0, NodeId::MAX + 1] {
        config.nodes[2].id = id;
        refused(&config, &format!("nodes[2].id is {id}"));
    }
    config.nodes[2].id = NodeId::MAX;
    config.validate().unwrap();
    config.nodes[1].incarnation = 0;
    refused(&config, "nodes[1].incarnation");
    let error = config.no_such_node(NodeId(7)).to_string();
    assert!(error.contains("no node n7") && error.contains("1, 2, 255"), "{error}");
}

#[test]
fn addresses() {
    let changed = |change: fn(&mut ClusterConfig)| {
        let mut config = ClusterConfig::default();
        change(&mut config);
        config
    };
    refused(&changed(|c| c.nodes[1].peers = c.nodes[0].requests), "used for nodes[0].requests and for nodes[1].peers");
    refused(&changed(|c| c.nodes[1].peers.set_port(0)), "nodes[1].peers is 127.0.0.1:0, without a port");
    refused(&changed(|c| c.nodes[0].requests.set_ip(Ipv4Addr::UNSPECIFIED)), "nodes[0].requests is 0.0.0.0");
    refused(&changed(|c| c.nodes[0].requests.set_ip(Ipv4Addr::new(239, 1, 1, 1))), "a multicast address");
    refused(&changed(|c| c.request_group.set_ip(Ipv4Addr::LOCALHOST)), "request_group: 127.0.0.1");
    refused(&changed(|c| c.peer_group.set_ip(Ipv4Addr::new(224, 0, 0, 1))), "peer_group: 224.0.0.1");
    refused(&changed(|c| c.peer_group = c.request_group), "used for request_group and for peer_group");
    refused(
        &changed(|c| {
            c.fan_out = FanOut::Unicast;
            c.nodes[1].group_requests = None;
        }),
        "nodes[1].group_requests",
    );
    // Without multicast its addresses do not matter.
    let unicast = changed(|c| {
        c.fan_out = FanOut::Unicast;
        c.peer_group = c.request_group;
    });
    unicast.validate().unwrap();
}

#[test]
fn nodes_stay_on_this_machine_unless_told() {
    let mut config = ClusterConfig::default();
    config.nodes[1].peers.set_ip(Ipv4Addr::new(192, 0, 2, 1));
    refused(&config, "nodes[1].peers is 192.0.2.1:7412, outside this machine");
    config.insecure = true;
    config.validate().unwrap();
    assert_eq!(config.packet_max(), ClusterConfig::PACKET_MAX_NETWORK);

    let mut config = ClusterConfig { interface: "192.0.2.1".to_owned(), ..ClusterConfig::default() };
    refused(&config, "interface = \"192.0.2.1\" carries the nodes' multicast outside this machine");
    config.fan_out = FanOut::Unicast;
    config.validate().unwrap();
    config.interface = "127.0.0.1".to_owned();
    config.fan_out = FanOut::Multicast;
    config.validate().unwrap();
    // Clients may come from anywhere.
    config.nodes[1].requests.set_ip(Ipv4Addr::new(192, 0, 2, 1));
    config.validate().unwrap();
}

#[test]
fn numbers_at_the_limit_and_one_past_it() {
    let changed = |change: &dyn Fn(&mut ClusterConfig)| {
        let mut config = ClusterConfig::default();
        change(&mut config);
        config
    };
    for (field, limit) in [("limits.request_max", 16 << 20), ("limits.reply_max", 16 << 20)] {
        let with = |value: usize| {
            changed(&|c| {
                *if field.contains("request") { &mut c.limits.request_max } else { &mut c.limits.reply_max } = value
            })
        };
        with(1).validate().unwrap();
        with(limit).validate().unwrap();
        refused(&with(0), &format!("{field} is 0, but must be from 1 to {limit}"));
        refused(&with(limit + 1), field);
    }
    refused(&changed(&|c| c.limits.packet_max = Some(100)), "limits.packet_max is 100");
    refused(&changed(&|c| c.timing.tick_ms = 0), "timing.tick_ms is 0");
    refused(&changed(&|c| c.timing.order_age_max_ms = 2001), "timing.order_age_max_ms is 2001");
    refused(&changed(&|c| c.ttl = 256), "ttl is 256");
    refused(&changed(&|c| c.aggregator.deadline_min_us = 50_001), "aggregator.deadline_min_us is 50001");
    refused(&changed(&|c| c.aggregator.arm_retry_max_ms = 9), "aggregator.arm_retry_max_ms is 9");
    refused(&changed(&|c| c.seed = Some(u64::MAX)), "seed is");
    for loss in [-0.1, 1.1, f64::NAN] {
        refused(&changed(&|c| c.faults.loss = loss), "faults.loss is");
    }
    refused(&changed(&|c| c.faults.duplicate = 2.0), "for one percent write 0.01");
    let faulty = changed(&|c| c.faults.loss = 0.01);
    faulty.validate().unwrap();
    assert!(faulty.warnings()[0].contains("lose 1 %"), "{:?}", faulty.warnings());
}

#[test]
fn an_aggregator_is_where_nodes_reach_it() {
    let config = ClusterConfig::parse("mode = \"hovercraft++\"").unwrap();
    assert_eq!(config.mode, Mode::HovercraftPlusPlus);
    assert_eq!(config.aggregator(), Some("127.0.0.1:7405".parse().unwrap()));
    let node = config.node_config(config.nodes[0].member(), 1, config.first_membership());
    assert_eq!(node.aggregator, config.aggregator());
    assert_eq!(ClusterConfig::default().aggregator(), None, "other modes have none");
    let core = config.aggregator_config(5);
    assert_eq!((core.groups[0].nodes.len(), core.groups[0].multicast), (3, Some(config.peer_group)));

    let at = |address: &str| {
        let mut config = config.clone();
        config.aggregator.address = address.parse().unwrap();
        config
    };
    refused(&at("127.0.0.1:7402"), "127.0.0.1:7402");
    refused(&at("239.1.1.1:7405"), "a multicast address");
    refused(&at("10.0.0.9:7405"), "aggregator.address is 10.0.0.9:7405, outside this machine");
    let mut elsewhere = config.clone();
    elsewhere.insecure = true;
    elsewhere.nodes[1].peers = "10.0.0.2:7412".parse().unwrap();
    refused(&elsewhere, "on this machine, but nodes are elsewhere");
}

#[test]
fn default_directories_are_this_users_and_this_groups() {
    let mut config = ClusterConfig::default();
    let default = config.runtime_dir();
    assert!(default.starts_with(std::env::temp_dir()) && default.ends_with("group-1"), "{}", default.display());
    config.group = 2;
    assert!(config.runtime_dir().ends_with("group-2"));
    config.runtime_dir = Some("/x".into());
    assert_eq!(config.runtime_dir(), Path::new("/x"));
}

#[test]
fn ports_do_not_meet() {
    let free = LocalPorts::free(NODES_MAX).unwrap();
    ClusterConfig::local(NODES_MAX, &free).validate().unwrap();
    let (one, next) = (LocalPorts::from_base(7000), LocalPorts::from_base(7000 + LocalPorts::SPAN));
    let (one, next) = (ClusterConfig::local(NODES_MAX, &one), ClusterConfig::local(NODES_MAX, &next));
    one.validate().unwrap();
    let all = |config: &ClusterConfig| {
        let own = config.nodes.iter().flat_map(|entry| [entry.requests, entry.group_requests.unwrap(), entry.peers]);
        own.chain([config.request_group, config.peer_group, config.aggregator.address]).collect::<Vec<_>>()
    };
    assert!(all(&one).iter().all(|address| !all(&next).contains(address)));
}

fn says(text: &str, expected: &str) {
    let error = ClusterConfig::parse(text).unwrap_err().to_string();
    assert!(error.contains(expected), "{text:?}: {error}");
}

fn refused(config: &ClusterConfig, expected: &str) {
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}
