//! `sim replay --html` and `--pcap`: a run to look at.

use std::fs;
use std::path::{Path, PathBuf};

use simulator::page::{self, About};
use simulator::pcap;
use simulator::recording::{Recording, RecordingConfig};
use simulator::registers::{tell_reply, tell_request};
use simulator::swarm::{Case, Report};

use super::report;
use crate::output::{Failure, tell};

/// What to write of a run, and where.
#[derive(clap::Args, Debug, Default)]
pub(super) struct Look {
    /// Write a page with a space-time diagram of the run, to be opened in a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write all datagrams as a capture for Wireshark: as they were sent, lost ones too, in virtual time.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Most datagrams in the page and in the capture; of more, the last.
    #[arg(long, value_name = "COUNT", default_value_t = DATAGRAMS_MAX, value_parser = parse_count)]
    datagrams: usize,
}

/// As many as a browser draws fluently.
const DATAGRAMS_MAX: usize = 50_000;

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "write a number above 0".to_owned())
}

impl Look {
    /// What has to be recorded for it.
    pub(super) fn recording(&self) -> Option<RecordingConfig> {
        let wanted = self.html.is_some() || self.pcap.is_some();
        wanted.then(|| RecordingConfig {
            datagrams_max: self.datagrams,
            request: tell_request,
            reply: tell_reply,
            ..RecordingConfig::default()
        })
    }

    /// Writes the files.
    pub(super) fn write(&self, case: &Case, report: &Report, recording: &Recording) -> Result<(), Failure> {
        if let Some(path) = &self.html {
            let about = About {
                title: format!("Run of seed {}", report.seed),
                seed: Some(report.seed),
                verdict: report.verdict.name().to_owned(),
                verdict_text: report.verdict.to_string(),
                draw: case.options().to_string().lines().map(str::to_owned).collect(),
                command: report::replay_command(case),
            };
            write(path, page::page(recording, &about).as_bytes())?;
            tell(format!("page written: open {} in a browser", path.display()));
        }
        if let Some(path) = &self.pcap {
            write(path, &pcap::pcap(recording))?;
            tell(format!("capture written: {}", path.display()));
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
