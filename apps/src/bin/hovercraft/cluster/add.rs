//! `hovercraft cluster add`: a node is to be let in.

use std::net::SocketAddrV4;
use std::process::ExitCode;

use hovercraft::admin::AdminCommand;
use hovercraft::membership::MemberRole;
use hovercraft::{Addresses, Incarnation, NodeId};

use super::contact::{Contact, Options, name, parse_node};
use super::members;
use crate::output::{Failure, say};

/// Let a node into the cluster before it is started: as a learner, which becomes a voter when it has caught up.
///
/// Where it is, is read from the configuration if it is in there, with `join = true`; otherwise give its addresses. Then
/// start it: `hovercraft node --config FILE --id NODE --join`. (A node that is started with --join asks to be let in by
/// itself; this is for those who want to decide first.)
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code 1 if the cluster refuses: its number or one of its addresses is taken, or the group is full.\n\n\
    Examples:\n  \
        hovercraft cluster add 4\n  \
        hovercraft cluster add 4 --requests 10.0.0.4:7400 --peers 10.0.0.4:7401\n  \
        hovercraft cluster add 5 --learner         a copy without a vote"
)]
pub(super) struct Args {
    /// Its number.
    #[arg(value_name = "NODE", value_parser = parse_node)]
    node: NodeId,
    /// Where it receives requests meant for it alone.
    #[arg(long, value_name = "ADDRESS", requires = "peers")]
    requests: Option<SocketAddrV4>,
    /// Where it receives from other nodes.
    #[arg(long, value_name = "ADDRESS", requires = "requests")]
    peers: Option<SocketAddrV4>,
    /// Where it receives requests meant for all nodes, with `fan_out = "unicast"`.
    #[arg(long, value_name = "ADDRESS", requires = "requests")]
    group_requests: Option<SocketAddrV4>,
    /// It is to stay a learner.
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let node = args.node;
    let addresses = match (args.requests, args.peers) {
        (Some(requests), Some(peers)) => Addresses { peers, requests, group_requests: args.group_requests },
        _ => contact.config.entry(node).map(|entry| entry.addresses()).ok_or_else(|| {
            Failure::usage(format!("the configuration has no node {node}"))
                .todo("Add it there with `join = true`, or say where it is with --requests and --peers.")
        })?,
    };
    let command = AdminCommand::Add { node, addresses, after: Incarnation(0), learner: args.learner };
    let report = contact.carry_out(&command, |report| report.membership.of_node(node).is_some())?;
    if args.options.json {
        say(members::to_json(&report));
    } else if let Some((id, member)) = report.membership.of_node(node) {
        let what = match member.role {
            MemberRole::Learner { promote: true } => "is a learner, and will vote when it has caught up",
            MemberRole::Learner { promote: false } => "is a learner",
            MemberRole::Voter | MemberRole::Joining | MemberRole::Leaving => "votes",
        };
        say(format_args!("{} {what}: {}", name(id), members::heading(&report)));
    }
    Ok(ExitCode::SUCCESS)
}
