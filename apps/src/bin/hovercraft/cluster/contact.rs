//! How the commands about a cluster reach it: the options they share, finding nodes and leader, telling what was refused.

use std::path::PathBuf;
use std::time::Duration;

use hovercraft::admin::{AdminCommand, MembersReport, RefusalReason};
use hovercraft::client::{Operator, OperatorError};
use hovercraft::cluster::ClusterConfig;
use hovercraft::{Incarnation, MemberId, NodeId};

use crate::output::Failure;
use crate::place::find_config;

/// What every command about a cluster can be told.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// The cluster's configuration [default: that of the cluster `hovercraft up` runs].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// How long it may take, in seconds: finding the leader, and what is to be done.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::kv::parse_timeout)]
    pub(super) timeout: Duration,
}

/// A cluster that can be asked and told.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) config: ClusterConfig,
    pub(super) operator: Operator,
    pub(super) timeout: Duration,
}

impl Contact {
    pub(super) fn new(options: &Options) -> Result<Self, Failure> {
        let path = find_config(options.config.as_deref())?;
        let config = ClusterConfig::load(&path).map_err(Failure::usage)?;
        let operator = Operator::connect(&config.client_options()).map_err(Failure::new)?;
        Ok(Self { config, operator, timeout: options.timeout })
    }

    /// Tells whoever leads, as often as it takes, until the members are as `done` says.
    pub(super) fn carry_out(
        &mut self,
        command: &AdminCommand,
        done: impl FnMut(&MembersReport) -> bool,
    ) -> Result<MembersReport, Failure> {
        let done = self.operator.carry_out(command, self.timeout, done);
        done.map(|(_, report)| report).map_err(explain)
    }
}

/// What to tell a person about it.
pub(super) fn explain(error: OperatorError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        OperatorError::NoAnswer { .. } => failure
            .means("The cluster is not running, or all nodes that the configuration names have been replaced since.")
            .todo("Name in the configuration at least one node that is a member now."),
        OperatorError::Refused { refusal, .. } => match refusal.reason {
            RefusalReason::NoQuorum => failure.todo("Start the nodes that are down, then try again."),
            RefusalReason::Busy | RefusalReason::NotLeader => {
                failure.means("It was tried again and again.").todo("See `hovercraft cluster status`, and try later.")
            }
            _ => failure,
        },
        OperatorError::NotYet { .. } => failure.todo("Wait, or repeat the command: asking twice is asking once."),
        _ => failure,
    }
}

/// A node's number as people write it: `3` or `n3`.
pub(super) fn parse_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix('n').unwrap_or(text);
    let number = number.parse().ok().filter(|number| (1..=NodeId::MAX).contains(number));
    number.map(NodeId).ok_or_else(|| format!("a node's number, from 1 to {}", NodeId::MAX))
}

/// A member as people read it: its number, and which of its lives it is if that is not the first.
pub(super) fn name(id: MemberId) -> String {
    match id.incarnation() {
        Incarnation(1) => id.node().to_string(),
        Incarnation(life) => format!("{}.{life}", id.node()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_nodes() {
        assert_eq!(parse_node("3"), Ok(NodeId(3)));
        assert_eq!(parse_node("n255"), Ok(NodeId(255)));
        for wrong in ["", "n", "0", "256", "-1", "nn1", "one"] {
            assert!(parse_node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_members() {
        assert_eq!(name(MemberId::new(NodeId(2), Incarnation(1))), "n2");
        assert_eq!(name(MemberId::new(NodeId(2), Incarnation(3))), "n2.3");
    }
}
