//! `hovercraft cluster restore`: a new cluster from a backup.

use std::path::PathBuf;
use std::process::ExitCode;

use hovercraft::NodeId;
use hovercraft::cluster::{ClusterConfig, Durability};
use hovercraft::runtime;
use hovercraft::snapshot::FileArchive;
use hovercraft::storage::Safety;
use serde_json::json;

use super::contact::parse_node;
use crate::output::{Failure, say};

/// Make the data of a new cluster from a backup; then start its nodes.
///
/// The configuration is the new cluster's, with durability = "os" or "sync". It can have other nodes than the old one had, at
/// other addresses, and should have another `group`. Where nodes are on several machines, do this on each of them, for its
/// node, with the same backup. Nothing is overwritten: a node that has data is refused.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft cluster restore ./backup --config new.toml             all nodes, on this machine\n  \
        hovercraft cluster restore ./backup --config new.toml --id 2      one of them")]
pub(super) struct Args {
    /// The directory that `hovercraft cluster backup` has made.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The new cluster's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only this node's data.
    #[arg(long, value_name = "NODE", value_parser = parse_node)]
    id: Option<NodeId>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = ClusterConfig::load(&args.config).map_err(Failure::usage)?;
    if config.durability == Durability::Memory {
        return Err(Failure::usage("a cluster that keeps everything in memory cannot be made from a backup")
            .todo("Set durability = \"os\" or \"sync\", and data_dir."));
    }
    if !args.directory.is_dir() {
        return Err(Failure::usage(format!("there is no directory {}", args.directory.display())));
    }
    let mut backup = FileArchive::open(&args.directory, Safety::Written).map_err(Failure::new)?;
    let nodes: Vec<NodeId> = match args.id {
        Some(id) => vec![id],
        None => config.nodes.iter().filter(|entry| !entry.join).map(|entry| entry.node()).collect(),
    };
    let mut index = 0;
    for node in &nodes {
        let made = runtime::restore(&config, *node, &mut backup);
        index = made.map_err(|error| Failure::new(format!("node {node}: {error}")))?.index;
    }
    if args.json {
        let nodes: Vec<u16> = nodes.iter().map(|node| node.0).collect();
        say(json!({ "nodes": nodes, "index": index }));
    } else {
        let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
        say(format_args!("{} can be started; they begin after entry {index}", nodes.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}
