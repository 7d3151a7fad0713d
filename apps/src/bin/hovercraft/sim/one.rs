//! `sim run` and `sim replay`: one run.

use std::process::ExitCode;

use simulator::swarm;

use super::departures::Which;
use super::look::Look;
use super::report;
use super::smaller::Smaller;
use crate::output::{Failure, say};

/// One run.
#[derive(clap::Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    smaller: Smaller,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The same run again, and what happened last.
#[derive(clap::Args, Debug)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    look: Look,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let case = self.which.case()?;
        let options = case.options();
        if !self.json {
            say(&options);
        }
        let report = swarm::run_options(&options);
        if !self.json {
            report::tell(&case, &report, false);
        }
        let shrunk = self.smaller.of(&case, &report, self.json);
        match shrunk {
            shrunk if self.json => say(report::to_json(&case, &report, shrunk.as_ref())),
            Some(shrunk) => report::tell_shrunk(&case, &shrunk),
            None => {}
        }
        Ok(report::exit_code(&report.verdict))
    }
}

impl Replay {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let case = self.which.case()?;
        let options = case.options();
        if !self.json {
            say(&options);
        }
        let (report, recording) = swarm::run_recorded(&options, self.look.recording());
        if self.json {
            say(report::to_json(&case, &report, None));
        } else {
            report::tell(&case, &report, true);
        }
        if let Some(recording) = recording {
            self.look.write(&case, &report, &recording)?;
        }
        Ok(report::exit_code(&report.verdict))
    }
}
