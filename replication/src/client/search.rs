//! Whom a client asks for the members of its group, and when.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use r2p2::Instant;
use r2p2::client::{Client, Completion, Outcome, Ticket};

use super::directory::Directory;
use crate::admin::{AdminCommand, MembersReport};

/// How long a node may take to say who the members are, before another is asked.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long nobody answers anything before everybody ever known is asked. Longer than a change of leader mostly takes; of
/// a client that has more patience, as many of its shortest retransmission timeouts.
const SILENCE: Duration = Duration::from_millis(250);
const SILENCE_TIMEOUTS: u32 = 4;
/// From asking in vain to asking again, at first; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The same at last.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most nodes asked at a time.
const ASKED_MAX: usize = 8;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a client counts about finding its group.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SearchCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl SearchCounters {
            /// Name and value of each, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Nodes asked because an answer named a newer epoch.
    asked_for_newer,
    /// Nodes asked because nobody answered anything.
    asked_in_silence,
    /// Answers with a newer membership.
    found,
    /// Answers with one no newer than what was known.
    nothing_new,
    /// Questions that nobody answered in time.
    unanswered,
    /// Answers that were no report.
    unreadable,
}

/// Asks for members when there is reason to.
#[derive(Debug)]
pub(super) struct Search {
    enabled: bool,
    /// When to give up each question.
    asked: BTreeMap<Ticket, Instant>,
    /// The newest epoch that whoever named it has been asked about.
    teller_asked: u64,
    /// Nobody is asked before.
    not_before: Instant,
    pause: Duration,
    turn: usize,
    counters: SearchCounters,
}

impl Search {
    /// One that asks whenever there is reason to, or never.
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            asked: BTreeMap::new(),
            teller_asked: 0,
            not_before: Instant::ZERO,
            pause: PAUSE_MIN,
            turn: 0,
            counters: SearchCounters::default(),
        }
    }

    /// Asks whoever is to be asked now. Says when to look again, if nothing happens before.
    pub(super) fn advance(&mut self, now: Instant, core: &mut Client, directory: &Directory) -> Option<Instant> {
        if !self.enabled {
            return None;
        }
        for (ticket, until) in &mut self.asked {
            if *until <= now {
                // It ends in `take`.
                *until = Instant::FAR_FUTURE;
                core.cancel(now, *ticket);
            }
        }
        let newer = core.newest_epoch().filter(|(epoch, _)| *epoch > directory.epoch());
        let silence = SILENCE.max(core.config().retransmit_min * SILENCE_TIMEOUTS);
        let silent_at = core.silent_since().map(|since| since + silence);
        let is_silent = silent_at.is_some_and(|at| at <= now);
        if newer.is_none() && !is_silent {
            self.pause = PAUSE_MIN;
            return self.asked.values().copied().chain(silent_at).min();
        }
        if !self.asked.is_empty() {
            return self.asked.values().copied().min();
        }
        if now >= self.not_before {
            if is_silent {
                for _ in 0..directory.known_len().min(ASKED_MAX) {
                    self.ask_next(now, core, directory);
                }
            } else if let Some((_, teller)) = newer.filter(|(epoch, _)| *epoch > self.teller_asked) {
                self.ask(now, core, teller);
            } else {
                self.ask_next(now, core, directory);
            }
            let asked = self.asked.len() as u64;
            *if is_silent { &mut self.counters.asked_in_silence } else { &mut self.counters.asked_for_newer } += asked;
            self.teller_asked = newer.map_or(self.teller_asked, |(epoch, _)| epoch);
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.asked.values().copied().min().or(Some(self.not_before))
    }

    /// Something has ended. If it was a question of this search, acts upon the answer; else gives it back.
    pub(super) fn take(
        &mut self,
        now: Instant,
        completion: Completion,
        core: &mut Client,
        directory: &mut Directory,
    ) -> Option<Completion> {
        if self.asked.remove(&completion.ticket).is_none() {
            return Some(completion);
        }
        let Outcome::Ok(report) = &completion.outcome else {
            self.counters.unanswered += 1;
            return None;
        };
        let Some(report) = MembersReport::decode(report) else {
            self.counters.unreadable += 1;
            return None;
        };
        if !directory.learn(&report.membership) {
            self.counters.nothing_new += 1;
            return None;
        }
        self.counters.found += 1;
        tracing::info!(epoch = directory.epoch(), nodes = ?directory.nodes(), "the group has changed");
        core.set_nodes(now, &directory.addresses());
        None
    }

    /// Questions asked and not ended.
    pub(super) fn outstanding(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn counters(&self) -> &SearchCounters {
        &self.counters
    }

    fn ask_next(&mut self, now: Instant, core: &mut Client, directory: &Directory) {
        if let Some(node) = directory.known(self.turn) {
            self.turn = self.turn.wrapping_add(1);
            self.ask(now, core, node);
        }
    }

    fn ask(&mut self, now: Instant, core: &mut Client, node: SocketAddrV4) {
        // If the client has too much to ask already, this waits for its next turn.
        if let Ok(ticket) = core.submit_admin(now, node, AdminCommand::Members.encode()) {
            self.asked.insert(ticket, now + PATIENCE);
        }
    }
}
