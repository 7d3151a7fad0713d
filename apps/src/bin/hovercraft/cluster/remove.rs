//! `hovercraft cluster remove`: a node is to leave.

use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::admin::AdminCommand;

use super::contact::{Contact, Options, parse_node};
use super::members;
use crate::output::{Failure, say};

/// Remove a node from the cluster; it need not be up.
///
/// If it leads, it hands over first. Once it is gone its process ends by itself when it hears of that, and what it was is
/// never a member again: it comes back as another one, empty.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code 1 if the cluster refuses: the last voter stays, and so does anybody without whom no \
    majority of those left would be up.\n\n\
    Examples:\n  \
        hovercraft cluster remove 3\n  \
        hovercraft cluster remove n3 --json"
)]
pub(super) struct Args {
    /// Who is to leave.
    #[arg(value_name = "NODE", value_parser = parse_node)]
    node: NodeId,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let report = contact.carry_out(&AdminCommand::Remove { node: args.node }, |report| {
        !report.membership.is_joint() && report.membership.of_node(args.node).is_none()
    })?;
    if args.options.json {
        say(members::to_json(&report));
    } else {
        say(format_args!("{} is no member any more: {}", args.node, members::heading(&report)));
    }
    Ok(ExitCode::SUCCESS)
}
