//! `hovercraft status`: who leads, how far everybody is, what was dropped and why.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hovercraft::client::{self, ClientOptions};
use hovercraft::cluster::ClusterConfig;
use hovercraft::node::{PeerStatus, StatusReport};
use multicast::role::RoleStatus;
use serde_json::{Value, json};

use crate::local;
use crate::output::{Failure, Table, say};
use crate::place::find_config;

/// Show how each node of a cluster is doing.
///
/// Asks every node itself. `replies` is the node's share of all replies; `unordered` counts requests that have arrived
/// but have no place in the log yet. Below the table, each node's drops by reason.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if no leader is found among the nodes that answer.\n\n\
    Examples:\n  \
        hovercraft status\n  \
        hovercraft status --counters         every counter of every node\n  \
        hovercraft status --json | jq '.nodes[] | .role'")]
pub(crate) struct Args {
    /// The cluster's configuration [default: that of the cluster `hovercraft up` runs].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object, with everything.
    #[arg(long)]
    json: bool,
    /// Print all counters.
    #[arg(long)]
    counters: bool,
    /// How long a node may take to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::kv::parse_timeout)]
    timeout: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let path = find_config(args.config.as_deref())?;
    let config = ClusterConfig::load(&path).map_err(Failure::usage)?;
    let ids: Vec<u16> = config.nodes.iter().map(|entry| entry.id).collect();
    let options = ClientOptions { give_up: args.timeout, ..config.client_options() };
    let answers = local::ask_all(&options, &ids);
    let nodes: Vec<(u16, Result<StatusReport, String>)> =
        ids.into_iter().zip(answers).map(|(id, answer)| (id, answer.map_err(|error| error.to_string()))).collect();
    let roles: Vec<(&str, Result<RoleStatus, String>)> = roles(&config)
        .map(|(name, address)| (name, client::role_status(&options, address).map_err(|error| error.to_string())))
        .collect();
    let reports: Vec<StatusReport> = nodes.iter().filter_map(|(_, answer)| answer.clone().ok()).collect();
    let leader = local::leader_of(&reports);
    if args.json {
        let nodes: Vec<Value> = nodes.iter().map(|(id, answer)| to_json(*id, answer)).collect();
        let roles: Vec<Value> = roles.iter().map(|(name, answer)| role_to_json(name, answer)).collect();
        say(json!({ "config": path, "leader": leader, "nodes": nodes, "roles": roles }));
    } else {
        say(table(&nodes));
        if let Some(peers) = peers(&reports) {
            say(peers);
        }
        for report in &reports {
            if args.counters {
                say(format_args!("\nn{} counters", report.node));
                for counter in &report.counters {
                    say(format_args!("  {:<40} {:>14}", counter.name, counter.value));
                }
            } else {
                let drops = drops(report);
                let list: Vec<_> = drops.iter().map(|(name, value)| format!("{name} {value}")).collect();
                let list = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
                say(format_args!("n{} dropped: {list}", report.node));
            }
        }
        for (name, answer) in &roles {
            say(describe_role(name, answer, args.counters));
        }
        if leader.is_none() {
            say(no_leader_note(reports.len(), nodes.len()));
        }
    }
    Ok(if leader.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the configuration has between clients and nodes.
fn roles(config: &ClusterConfig) -> impl Iterator<Item = (&'static str, SocketAddrV4)> {
    let aggregator = config.aggregator().map(|address| ("aggregator", address));
    let gateway = config.gateway.map(|gateway| ("gateway", gateway.address));
    let router = config.router.map(|router| ("router", router.address));
    aggregator.into_iter().chain(gateway).chain(router)
}

/// What a role says about itself: what is so now, and what it has refused, or everything.
fn describe_role(name: &str, answer: &Result<RoleStatus, String>, all: bool) -> String {
    let status = match answer {
        Ok(status) => status,
        Err(error) => return format!("{name}: {error}"),
    };
    let short = |name: &str| name.split_once('.').map_or(name, |(_, short)| short).to_owned();
    let gauges = status.gauges.iter().map(|gauge| format!("{} {}", short(&gauge.name), gauge.value));
    let gauges = gauges.collect::<Vec<_>>().join(", ");
    if all {
        let counters = status.counters.iter().map(|counter| format!("\n  {:<40} {:>14}", counter.name, counter.value));
        return format!("\n{name} at {}: {gauges}{}", status.address, counters.collect::<String>());
    }
    let dropped = status.counters.iter().filter(|counter| counter.value > 0 && counts_drops(&counter.name));
    let dropped: Vec<_> = dropped.map(|counter| format!("{} {}", counter.name, counter.value)).collect();
    let dropped = if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") };
    format!("{name} at {}: {gauges}\n{name} dropped: {dropped}", status.address)
}

fn role_to_json(name: &str, answer: &Result<RoleStatus, String>) -> Value {
    let status = match answer {
        Ok(status) => status,
        Err(error) => return json!({ "role": name, "reachable": false, "error": error }),
    };
    let values = |list: &[multicast::role::CounterValue]| -> serde_json::Map<String, Value> {
        list.iter().map(|counter| (counter.name.clone(), counter.value.into())).collect()
    };
    json!({
        "role": status.role,
        "reachable": true,
        "address": status.address,
        "gauges": values(&status.gauges),
        "counters": values(&status.counters),
    })
}

fn no_leader_note(answering: usize, nodes: usize) -> String {
    if answering == 0 {
        "No node answers: the cluster is not running, or the configuration is another one's.".to_owned()
    } else if answering < nodes / 2 + 1 {
        format!("Nobody leads: {answering} of {nodes} nodes answer, and a majority is {}.", nodes / 2 + 1)
    } else {
        "Nobody leads yet: an election is under way. Ask again.".to_owned()
    }
}

fn table(nodes: &[(u16, Result<StatusReport, String>)]) -> Table {
    let mut table = Table::new(&[
        "node",
        "role",
        "term",
        "first",
        "last",
        "commit",
        "applied",
        "unordered",
        "pending",
        "missing",
        "replies",
        "mode",
        "service",
        "durability",
    ]);
    let replies = |report: &StatusReport| counter(report, REPLIES);
    let total: u64 = nodes.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(replies).sum();
    for (id, answer) in nodes {
        let Ok(report) = answer else {
            table.row([format!("n{id}"), "unreachable".to_owned()]);
            continue;
        };
        let share = replies(report) * 100 / total.max(1);
        table.row([
            format!("n{id}"),
            report.role.clone(),
            report.term.to_string(),
            report.first.to_string(),
            report.last.to_string(),
            report.commit.to_string(),
            report.applied.to_string(),
            report.unordered.to_string(),
            report.pending.to_string(),
            report.missing.to_string(),
            format!("{} ({share}%)", replies(report)),
            report.mode.clone(),
            report.service.clone(),
            report.durability.clone(),
        ]);
    }
    table
}

/// The others as the leader sees them.
fn peers(reports: &[StatusReport]) -> Option<String> {
    let leader = reports.iter().filter(|report| report.role == "leader").max_by_key(|report| report.term)?;
    let describe = |peer: &PeerStatus| {
        let heard = match peer.heard_us_ago {
            Some(us) if us < 1_000_000 => format!("heard {:.1} ms ago", us as f64 / 1000.0),
            Some(us) => format!("heard {:.1} s ago", us as f64 / 1_000_000.0),
            None => "not heard in this term".to_owned(),
        };
        let step = match (peer.needs_snapshot, peer.in_step) {
            (true, _) => "too far behind, needs a snapshot",
            (false, true) => "in step",
            (false, false) => "not in step",
        };
        format!(
            "  n{} matches {}, applied {}, owes {} replies, {step}, {heard}",
            peer.node, peer.matched, peer.applied, peer.owed
        )
    };
    let lines: Vec<String> = leader.peers.iter().map(describe).collect();
    Some(format!("n{} leads and sees:\n{}", leader.node, lines.join("\n")))
}

/// Counts the replies a node sent.
const REPLIES: &str = "apply.replies_sent";

pub(crate) fn counter(report: &StatusReport, name: &str) -> u64 {
    report.counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value)
}

/// What a node refused or lost, by reason.
fn drops(report: &StatusReport) -> Vec<(&str, u64)> {
    let dropped = report.counters.iter().filter(|counter| counter.value > 0 && counts_drops(&counter.name));
    dropped.map(|counter| (counter.name.as_str(), counter.value)).collect()
}

/// Whether a counter of this name counts what did not get through.
fn counts_drops(name: &str) -> bool {
    let Some((part, what)) = name.split_once('.') else { return false };
    let any = |words: &[&str]| words.iter().any(|word| what.contains(word));
    match part {
        "requests" => {
            // All its other counters are reasons.
            let good =
                ["packets_received", "requests", "feedbacks", "handshakes", "handshakes_repeated", "acknowledged"];
            !good.contains(&what)
        }
        "net" => any(&["truncated", "drops", "errors"]),
        "faults" => any(&["lost"]),
        "apply" => any(&["window", "skipped", "panics", "too_long", "gone", "drops", "expired"]),
        _ => any(&[
            "refused",
            "dropped",
            "bad_",
            "malformed",
            "too_long",
            "incomplete",
            "stranger",
            "other_",
            "unexpected",
            "expired",
            "full",
            "ignored",
            "not_leader",
            "wrong_policy",
            "unusable",
            "cannot_forward",
        ]),
    }
}

fn to_json(id: u16, answer: &Result<StatusReport, String>) -> Value {
    let report = match answer {
        Ok(report) => report,
        Err(error) => return json!({ "node": id, "reachable": false, "error": error }),
    };
    let peer = |peer: &PeerStatus| {
        json!({
            "node": peer.node,
            "matched": peer.matched,
            "applied": peer.applied,
            "in_step": peer.in_step,
            "needs_snapshot": peer.needs_snapshot,
            "owed": peer.owed,
            "heard_us_ago": peer.heard_us_ago,
        })
    };
    let counters: serde_json::Map<String, Value> =
        report.counters.iter().map(|counter| (counter.name.clone(), counter.value.into())).collect();
    json!({
        "node": id,
        "reachable": true,
        "incarnation": report.incarnation,
        "group": report.group,
        "mode": report.mode,
        "service": report.service,
        "durability": report.durability,
        "role": report.role,
        "term": report.term,
        "leader": report.leader,
        "first": report.first,
        "last": report.last,
        "commit": report.commit,
        "applied": report.applied,
        "unordered": report.unordered,
        "pending": report.pending,
        "missing": report.missing,
        "replies": counter(report, REPLIES),
        "state_hash": report.state_hash.map(|hash| format!("{hash:016x}")),
        "peers": report.peers.iter().map(peer).collect::<Vec<_>>(),
        "counters": counters,
    })
}

#[cfg(test)]
mod tests {
    use hovercraft::node::CounterValue;

    use super::*;

    fn report(node: u32, role: &str, replies: u64) -> StatusReport {
        let counters = [
            (REPLIES, replies),
            ("node.requests_refused_full", 4),
            ("node.requests_received", 9),
            ("requests.bad_magic", 2),
            ("requests.requests", 8),
        ];
        StatusReport {
            node,
            role: role.into(),
            term: 3,
            counters: counters.map(|(name, value)| CounterValue { name: name.into(), value }).into(),
            ..StatusReport::default()
        }
    }

    #[test]
    fn a_table_with_shares_and_unreachable_nodes() {
        let nodes =
            [(1, Ok(report(1, "leader", 30))), (2, Err("no answer".into())), (3, Ok(report(3, "follower", 10)))];
        let text = table(&nodes).to_string();
        assert!(text.contains("30 (75%)") && text.contains("10 (25%)"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("n2") && line.ends_with("unreachable")), "{text}");
    }

    #[test]
    fn only_what_was_really_dropped_is_listed() {
        assert_eq!(drops(&report(1, "leader", 1)), [("node.requests_refused_full", 4), ("requests.bad_magic", 2)]);
    }
}
