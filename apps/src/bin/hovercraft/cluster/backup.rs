//! `hovercraft cluster backup`: a copy of everything, while the cluster goes on.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::snapshot::FileArchive;
use hovercraft::storage::Safety;
use serde_json::json;

use super::contact::{Contact, Options, explain, parse_node};
use crate::output::{Failure, say, tell};

/// Copy everything that the cluster keeps into a directory, while it goes on.
///
/// A node takes a snapshot of what it has executed by now: everything acknowledged before this command was begun is in it
/// if the node is up to date (the leader is; it is asked if there is one and no other is named). Every piece is checked when
/// it comes, and the whole at the end. `hovercraft cluster restore` makes a new cluster of it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft cluster backup ./backup-monday\n  \
        hovercraft cluster backup ./backup --from 2      spare the leader")]
pub(super) struct Args {
    /// The directory: a new one, or one with earlier backups of the same cluster.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Which node is to give it [default: the leader].
    #[arg(long, value_name = "NODE", value_parser = parse_node)]
    from: Option<NodeId>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut contact = Contact::new(&args.options)?;
    let report = contact.operator.members(contact.timeout).map_err(explain)?;
    let from = args.from.or(report.leader).or_else(|| report.membership.voters().next().map(|id| id.node()));
    let source = from.and_then(|node| report.membership.of_node(node)).ok_or_else(|| {
        Failure::new("there is no such node in this cluster")
            .todo("`hovercraft cluster members` lists those there are.")
    })?;
    let (id, address) = (source.0.node(), source.1.addresses.requests);
    let mut archive = FileArchive::open(&args.directory, Safety::Synced).map_err(Failure::new)?;
    let shows = std::io::stderr().is_terminal();
    let mut shown = 0;
    let progress = |there: u64, all: u64| {
        let percent = there * 100 / all.max(1);
        if shows && percent != shown {
            shown = percent;
            _ = write!(std::io::stderr(), "\r{percent:3} % of {} KiB", all * 8);
        }
    };
    let made = contact.operator.backup(address, &mut archive, contact.timeout, progress);
    if shows {
        tell("");
    }
    let info = made.map_err(Failure::new)?;
    if args.options.json {
        say(json!({
            "directory": args.directory,
            "from": id.0,
            "index": info.index,
            "term": info.term,
            "bytes": info.len,
            "id": format!("{:016x}", info.id),
        }));
    } else {
        let directory = args.directory.display();
        say(format_args!("everything up to entry {} from {id}, {} bytes, is in {directory}", info.index, info.len));
    }
    Ok(ExitCode::SUCCESS)
}
