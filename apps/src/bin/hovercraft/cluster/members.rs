//! `hovercraft cluster members`: who makes up the cluster.

use std::process::ExitCode;

use hovercraft::admin::MembersReport;
use serde_json::{Value, json};

use super::contact::{Contact, Options, explain, name};
use crate::output::{Failure, Table, say};

/// Show who makes up the cluster, and since how many changes.
///
/// `voter` counts in every decision; `learner` gets everything and counts in none; `joining` and `leaving` are voters of
/// only one of the two majorities that decide while a change is under way.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if nobody answers.\n\n\
    Examples:\n  \
        hovercraft cluster members\n  \
        hovercraft cluster members --json | jq -r '.members[].requests'")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let report = contact.operator.members(contact.timeout).map_err(explain)?;
    if args.options.json {
        say(to_json(&report));
    } else {
        say(heading(&report));
        say(table(&report));
    }
    Ok(ExitCode::SUCCESS)
}

/// Epoch and leader in a sentence.
pub(super) fn heading(report: &MembersReport) -> String {
    let epoch = report.membership.epoch;
    let leader = report.leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("{leader} leads"));
    let change = if report.membership.is_joint() { ", a change is under way" } else { "" };
    format!("epoch {epoch}, {leader}{change}")
}

fn table(report: &MembersReport) -> Table {
    let mut table = Table::new(&["node", "role", "requests", "peers", "group requests"]);
    for (id, member) in &report.membership.members {
        let addresses = member.addresses;
        let group_requests = addresses.group_requests.map_or_else(|| "-".to_owned(), |address| address.to_string());
        table.row([
            name(*id),
            member.role.name().to_owned(),
            addresses.requests.to_string(),
            addresses.peers.to_string(),
            group_requests,
        ]);
    }
    table
}

/// For programs.
pub(super) fn to_json(report: &MembersReport) -> Value {
    let members = report.membership.members.iter().map(|(id, member)| {
        json!({
            "node": id.node().0,
            "incarnation": id.incarnation().0,
            "role": member.role.name(),
            "requests": member.addresses.requests,
            "group_requests": member.addresses.group_requests,
            "peers": member.addresses.peers,
        })
    });
    let removed = report.membership.removed.iter();
    let removed = removed.map(|(node, last)| json!({ "node": node.0, "incarnation": last.0 }));
    json!({
        "epoch": report.membership.epoch,
        "leader": report.leader.map(|leader| leader.0),
        "changing": report.membership.is_joint(),
        "members": members.collect::<Vec<_>>(),
        "removed": removed.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use hovercraft::{Addresses, Incarnation, MemberId, Membership, NodeId};

    use super::*;

    fn report() -> MembersReport {
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let addresses = |base| Addresses { peers: at(base + 2), requests: at(base), group_requests: None };
        let voters = [1, 2].map(|node| (MemberId::new(NodeId(node), Incarnation(1)), addresses(7390 + 10 * node)));
        let (_, membership) = Membership::of_voters(voters)
            .with_learner(NodeId(3), addresses(7420), true, Incarnation(1))
            .expect("a free number");
        MembersReport { membership, leader: Some(NodeId(2)), term: 1, lived: std::collections::BTreeSet::new() }
    }

    #[test]
    fn as_people_read_it() {
        assert_eq!(heading(&report()), "epoch 2, n2 leads");
        let nobody = MembersReport { leader: None, ..report() };
        assert_eq!(heading(&nobody), "epoch 2, nobody leads");
        let text = table(&report()).to_string();
        assert!(text.lines().any(|line| line.starts_with("n3.2") && line.contains("learner")), "{text}");
    }

    #[test]
    fn as_programs_read_it() {
        let json = to_json(&report());
        assert_eq!((json["epoch"].as_u64(), json["leader"].as_u64()), (Some(2), Some(2)));
        assert_eq!(json["members"][0]["requests"], "127.0.0.1:7400");
        assert_eq!((&json["members"][2]["incarnation"], &json["members"][2]["role"]), (&json!(2), &json!("learner")));
        assert_eq!(json["members"][0]["group_requests"], Value::Null);
    }
}
