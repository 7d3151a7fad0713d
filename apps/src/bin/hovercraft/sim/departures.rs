//! Options of all `sim` commands that say which run, or how runs depart from what their seed draws.

use simulator::swarm::{Case, Overrides};

use crate::output::Failure;
use crate::up::ModeArg;

/// One run.
#[derive(clap::Args, Debug)]
pub(super) struct Which {
    /// The run.
    #[arg(long, value_parser = parse_seed)]
    seed: u64,
    #[command(flatten)]
    departures: Departures,
    /// With this deliberate mistake.
    #[cfg(feature = "mutations")]
    #[arg(long, value_name = "NAME")]
    mutation: Option<hovercraft::mutation::Mutation>,
}

impl Which {
    /// Which run. If it is one with a deliberate mistake, that is made in this thread from now on.
    pub(super) fn case(&self) -> Result<Case, Failure> {
        #[cfg(feature = "mutations")]
        hovercraft::mutation::set(self.mutation);
        Ok(Case { seed: self.seed, overrides: self.departures.overrides()? })
    }
}

/// How runs depart from what their seed draws.
#[derive(clap::Args, Debug)]
pub(super) struct Departures {
    /// Clusters of this mode only.
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Leave things out, such as: loss,pauses,kills ('none such' lists all).
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    without: Vec<String>,
    /// Set things, such as: nodes=3,clients=2,operations=10,fault-time=120ms.
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    with: Vec<String>,
    /// Of the faults that come and go only these, such as: split1,kill2; or none.
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    faults: Vec<String>,
}

impl Departures {
    pub(super) fn overrides(&self) -> Result<Overrides, Failure> {
        let mut overrides = Overrides::default();
        if let Some(mode) = self.mode {
            overrides.set_mode(mode.into());
        }
        let wrong = |option: &'static str| move |why: String| Failure::usage(format!("{option}: {why}"));
        for name in &self.without {
            overrides.leave_out(name).map_err(wrong("--without"))?;
        }
        for setting in &self.with {
            overrides.set(setting).map_err(wrong("--with"))?;
        }
        for fault in &self.faults {
            match fault.as_str() {
                "none" => overrides.keep_none(),
                fault => overrides.keep(fault.parse().map_err(wrong("--faults"))?),
            }
        }
        Ok(overrides)
    }
}

/// A number, decimal or `0x` and hexadecimal.
pub(super) fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "write a number below 2^64, such as 7 or 0x1f".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        which: Which,
    }

    fn parse(line: &str) -> Result<Case, String> {
        let line = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        line.which.case().map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        for arguments in [
            "--seed 7",
            "--seed 7 --mode raft --without splits,loss --with fault-time=120000us,nodes=3 --faults pause1,kill2",
            "--seed 7 --faults none",
        ] {
            assert_eq!(parse(&format!("x {arguments}")).expect("right").to_string(), arguments);
        }
        for wrong in ["--without snow", "--with snow=1", "--with nodes=0", "--faults snow1", "--mode snow"] {
            assert!(parse(&format!("x --seed 7 {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds() {
        assert_eq!((parse_seed("31"), parse_seed("0x1f")), (Ok(31), Ok(31)));
        for wrong in ["", "0x", "-1", "1f", "18446744073709551616"] {
            assert!(parse_seed(wrong).is_err(), "{wrong}");
        }
    }
}
