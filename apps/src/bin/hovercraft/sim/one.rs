//! `sim run` and `sim replay`: one run.

use std::process::ExitCode;

use simulator::swarm::{self, Options};

use super::look::Look;
use super::report;
use crate::output::{Failure, say};

/// One run.
#[derive(clap::Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    which: Which,
}

/// The same run again, and what happened last.
#[derive(clap::Args, Debug)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    look: Look,
}

#[derive(clap::Args, Debug)]
struct Which {
    /// The run.
    #[arg(long)]
    seed: u64,
    /// With this deliberate mistake.
    #[cfg(feature = "mutations")]
    #[arg(long, value_name = "NAME")]
    mutation: Option<hovercraft::mutation::Mutation>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        self.which.run(false, &Look::default())
    }
}

impl Replay {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        self.which.run(true, &self.look)
    }
}

impl Which {
    fn run(&self, recent: bool, look: &Look) -> Result<ExitCode, Failure> {
        #[cfg(feature = "mutations")]
        hovercraft::mutation::set(self.mutation);
        let options = Options::draw(self.seed);
        if !self.json {
            say(&options);
        }
        let (report, recording) = swarm::run_recorded(&options, look.recording());
        if self.json {
            say(report::to_json(&report));
        } else {
            report::tell(&report, recent);
        }
        if let Some(recording) = recording {
            look.write(&options, &report, &recording)?;
        }
        Ok(report::exit_code(&report.verdict))
    }
}
