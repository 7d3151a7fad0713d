//! `hovercraft cluster recover`: one node goes on alone.

use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::admin::AdminCommand;

use super::contact::{Contact, Options, explain, parse_node};
use super::members;
use crate::output::{Failure, say, tell};

/// LAST RESORT: go on with one node when a majority is gone for good.
///
/// What the others have acknowledged and this node does not have is LOST, and what it has and nobody acknowledged becomes
/// so. Choose the node whose log reaches furthest (`hovercraft status`: `last`), and take a backup of its directory before.
/// It must be running. All others are removed: if one of them comes back it is told so and stops, but as long as it is cut
/// off from this node it does not know, and a majority of them would go on by itself: make sure that they stay off, and
/// remove their data. Then start them again with --join.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if the node refuses: while it hears of a leader there is nothing to recover.\n\n\
    Examples:\n  \
        hovercraft cluster recover 1 --lose-what-others-acknowledged")]
pub(super) struct Args {
    /// Who is to go on.
    #[arg(value_name = "NODE", value_parser = parse_node)]
    node: NodeId,
    /// Yes, what the other nodes have acknowledged without this one may be lost.
    #[arg(long, required = true)]
    lose_what_others_acknowledged: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let node = args.node;
    let known = contact.config.entry(node).map(|entry| entry.requests);
    let address = known.ok_or_else(|| Failure::usage(contact.config.no_such_node(node)))?;
    let status = contact.operator.status(address, contact.timeout).map_err(explain)?;
    tell(format_args!(
        "warning: {node} goes on alone from entry {}, of which it knows {} to be committed; what others have acknowledged \
         beyond that is lost, and they must not come back with their data",
        status.last, status.commit
    ));
    contact.operator.command_to(address, &AdminCommand::Recover { node }, contact.timeout).map_err(explain)?;
    let report = contact.operator.members(contact.timeout).map_err(explain)?;
    if args.options.json {
        say(members::to_json(&report));
    } else {
        say(format_args!("{node} goes on alone: {}", members::heading(&report)));
    }
    Ok(ExitCode::SUCCESS)
}
