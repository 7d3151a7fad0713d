//! A run, as it is named on a command line.

use std::fmt;

use super::options::Options;
use super::overrides::Overrides;

/// A run: its seed, and how it departs from what that draws.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The departures.
    pub overrides: Overrides,
}

impl Case {
    /// The run that a seed stands for.
    pub fn of(seed: u64) -> Self {
        Self { seed, overrides: Overrides::default() }
    }

    /// What it is made of.
    pub fn options(&self) -> Options {
        self.overrides.draw(self.seed)
    }
}

impl fmt::Display for Case {
    /// As arguments on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}{}", self.seed, self.overrides)
    }
}
