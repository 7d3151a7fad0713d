//! A bar for those who wait at a terminal.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measure::generator::Observer;

use crate::output::grouped;
use crate::processes::{Event, Events};

/// Steps of a bar.
const STEPS: u64 = 1000;

/// A bar on stderr; nothing if that is no terminal.
pub(crate) fn bar(name: impl Into<Cow<'static, str>>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3} % {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(name);
    bar
}

/// Shows how far a run is, and calls back when the measured time begins and ends.
pub(crate) struct Watch<'a> {
    pub(crate) bar: ProgressBar,
    pub(crate) events: &'a Events,
    /// Called with `false` at the beginning and `true` at the end, and operations answered so far.
    pub(crate) at_the_edges: Box<dyn FnMut(bool, u64) + 'a>,
}

impl Observer for Watch<'_> {
    fn progress(&mut self, share: f64, answered: u64) {
        self.bar.set_position((share * STEPS as f64) as u64);
        self.bar.set_message(format!("{} operations", grouped(answered)));
    }

    fn begins(&mut self, answered: u64) {
        (self.at_the_edges)(false, answered);
    }

    fn ends(&mut self, answered: u64) {
        (self.at_the_edges)(true, answered);
    }

    fn give_up(&mut self) -> bool {
        while let Some(event) = self.events.wait(Duration::ZERO) {
            if event == Event::Stop {
                return true;
            }
        }
        false
    }
}
