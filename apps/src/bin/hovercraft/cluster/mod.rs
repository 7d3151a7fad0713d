//! `hovercraft cluster`: who makes up a cluster, and what is to change about that. One file per subcommand; what they share
//! is in [`contact`].

mod add;
mod backup;
mod contact;
mod members;
mod recover;
mod remove;
mod restore;
mod snapshot;
mod status;
mod transfer;

use std::process::ExitCode;

use clap::Subcommand;

use crate::output::Failure;

/// Show and change who makes up a cluster.
///
/// Works with any node of the configuration that is up: the others, and the leader, it finds out about from there.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft cluster members\n  \
        hovercraft cluster status --json\n  \
        hovercraft cluster transfer 2        n2 is to lead\n  \
        hovercraft cluster remove 3          n3 is to leave\n  \
        hovercraft cluster add 4 --requests 10.0.0.4:7400 --peers 10.0.0.4:7401\n  \
        hovercraft cluster recover 1 --lose-what-others-acknowledged     a majority is gone for good")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Members(members::Args),
    Status(status::Args),
    Transfer(transfer::Args),
    Add(add::Args),
    Remove(remove::Args),
    Snapshot(snapshot::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Recover(recover::Args),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Members(args) => members::run(args),
        Command::Status(args) => status::run(args),
        Command::Transfer(args) => transfer::run(args),
        Command::Add(args) => add::run(args),
        Command::Remove(args) => remove::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Recover(args) => recover::run(args),
    }
}
