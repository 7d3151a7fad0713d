//! `hovercraft cluster snapshot`: nodes take snapshots now.

use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::admin::AdminCommand;

use super::contact::{Contact, Options, explain, parse_node};
use crate::output::{Failure, say, tell};

/// Have nodes take a snapshot now, and forget the log before it.
///
/// They do that by themselves whenever their log has grown by `limits.snapshot_bytes` or `limits.snapshot_entries`. To do it
/// by hand makes the next restart faster. The command returns when they have begun.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft cluster snapshot          all members\n  \
        hovercraft cluster snapshot 2")]
pub(super) struct Args {
    /// Which node [default: all members].
    #[arg(value_name = "NODE", value_parser = parse_node)]
    node: Option<NodeId>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let membership = contact.operator.members(contact.timeout).map_err(explain)?.membership;
    let members: Vec<_> =
        membership.members.iter().filter(|(id, _)| args.node.is_none_or(|node| id.node() == node)).collect();
    if members.is_empty() {
        return Err(Failure::new("there is no such node in this cluster"));
    }
    let mut begun = Vec::new();
    for (id, member) in &members {
        match contact.operator.command_to(member.addresses.requests, &AdminCommand::Snapshot, contact.timeout) {
            Ok(_) => begun.push(id.node().0),
            Err(error) => tell(format_args!("{}: {error}", id.node())),
        }
    }
    if args.options.json {
        say(serde_json::json!({ "nodes": begun }));
    } else if !begun.is_empty() {
        let names: Vec<String> = begun.iter().map(|node| format!("n{node}")).collect();
        say(format_args!("{} take a snapshot", names.join(", ")));
    }
    Ok(if begun.len() == members.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
