//! `hovercraft cluster transfer`: another node is to lead.

use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::admin::AdminCommand;
use serde_json::json;

use super::contact::{Contact, Options, explain, parse_node};
use crate::output::{Failure, say};

/// Hand leadership to a node, or to whichever is furthest; clients wait for a few round trips.
///
/// A node that is asked to stop (Ctrl-C) does that by itself.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 1 if another node does not lead in time.\n\n\
    Examples:\n  \
        hovercraft cluster transfer 2        n2 is to lead\n  \
        hovercraft cluster transfer          anybody but the present leader")]
pub(super) struct Args {
    /// Who is to lead [default: whoever has most of the log].
    #[arg(value_name = "NODE", value_parser = parse_node)]
    to: Option<NodeId>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let before = contact.operator.members(contact.timeout).map_err(explain)?.leader;
    let is_done = |leader: Option<NodeId>| match args.to {
        Some(to) => leader == Some(to),
        None => leader.is_some() && leader != before,
    };
    let after = contact.carry_out(&AdminCommand::Transfer { to: args.to }, |report| is_done(report.leader))?;
    let leader = after.leader.map(|leader| leader.0);
    if args.options.json {
        say(json!({ "before": before.map(|leader| leader.0), "leader": leader }));
    } else {
        say(format_args!("n{} leads", leader.unwrap_or(0)));
    }
    Ok(ExitCode::SUCCESS)
}
