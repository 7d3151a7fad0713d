//! `hovercraft cluster status`: how the members are, by what each says itself.

use std::process::ExitCode;
use std::time::Duration;

use hovercraft::MemberId;
use hovercraft::membership::Member;
use hovercraft::node::StatusReport;
use serde_json::{Value, json};

use super::contact::{Contact, Options, explain, name};
use super::members;
use crate::output::{Failure, Table, say};

/// Show how every member of the cluster is doing, those too that the configuration does not name.
///
/// (`hovercraft status` asks the nodes of the configuration, and shows more about each.)
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if nobody answers, or nobody leads.\n\n\
    Examples:\n  \
        hovercraft cluster status\n  \
        hovercraft cluster status --json | jq '.members[] | select(.reachable | not) | .node'")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

/// How long a single member may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let report = contact.operator.members(contact.timeout).map_err(explain)?;
    let mut all = Vec::new();
    for (id, member) in &report.membership.members {
        let status = contact.operator.status(member.addresses.requests, PATIENCE.min(contact.timeout));
        // One that has another number sits at that address, and says nothing about this one.
        let status = status.ok().filter(|status| status.node == u32::from(id.node().0));
        all.push((*id, *member, status));
    }
    if args.options.json {
        let mut json = members::to_json(&report);
        json["members"] = all.iter().map(|(id, member, status)| to_json(*id, member, status.as_ref())).collect();
        say(json);
    } else {
        say(members::heading(&report));
        say(table(&all));
    }
    Ok(if report.leader.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(all: &[(MemberId, Member, Option<StatusReport>)]) -> Table {
    let mut table =
        Table::new(&["node", "role", "state", "epoch", "term", "last", "commit", "applied", "durability", "requests"]);
    for (id, member, status) in all {
        let role = member.role.name().to_owned();
        let requests = member.addresses.requests.to_string();
        let Some(status) = status else {
            let mut row = vec![name(*id), role, "unreachable".to_owned()];
            row.extend((0..6).map(|_| "-".to_owned()));
            table.row(row.into_iter().chain([requests]));
            continue;
        };
        table.row([
            name(*id),
            role,
            status.role.clone(),
            status.epoch.to_string(),
            status.term.to_string(),
            status.last.to_string(),
            status.commit.to_string(),
            status.applied.to_string(),
            status.durability.clone(),
            requests,
        ]);
    }
    table
}

fn to_json(id: MemberId, member: &Member, status: Option<&StatusReport>) -> Value {
    let mut json = json!({
        "node": id.node().0,
        "incarnation": id.incarnation().0,
        "role": member.role.name(),
        "requests": member.addresses.requests,
        "reachable": status.is_some(),
    });
    if let Some(status) = status {
        json["state"] = status.role.clone().into();
        json["epoch"] = status.epoch.into();
        json["term"] = status.term.into();
        json["last"] = status.last.into();
        json["commit"] = status.commit.into();
        json["applied"] = status.applied.into();
        json["durability"] = status.durability.clone().into();
    }
    json
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use hovercraft::membership::MemberRole;
    use hovercraft::{Addresses, Incarnation, NodeId};

    use super::*;

    #[test]
    fn who_does_not_answer_is_shown_all_the_same() {
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7400);
        let addresses = Addresses { peers: at, requests: at, group_requests: None };
        let member = Member { role: MemberRole::Voter, addresses };
        let id = |node| MemberId::new(NodeId(node), Incarnation(1));
        let status = StatusReport { role: "leader".into(), term: 7, epoch: 3, ..StatusReport::default() };
        let all = [(id(1), member, Some(status)), (id(2), member, None)];
        let text = table(&all).to_string();
        assert!(text.lines().any(|line| line.starts_with("n1") && line.contains("leader")), "{text}");
        assert!(text.lines().any(|line| line.contains("unreachable") && line.ends_with("127.0.0.1:7400")), "{text}");
        assert_eq!(to_json(id(2), &member, None)["reachable"], false);
    }
}
