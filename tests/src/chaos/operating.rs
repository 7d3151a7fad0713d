//! What an operator and a supervisor do: commands to the cluster, and nodes that have ended are started again.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hovercraft::membership::MemberRole;
use r2p2::Instant;

use super::group::{Ended, NodeProcess};
use super::guard::View;
use super::report::Fate;
use super::run::Chaos;
use super::schedule::{Kind, Who};
use crate::HANG;

/// How long a command to the cluster may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of a node that should not have ended to its next start.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// A command to the cluster that is under way.
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) child: Child,
    pub(super) what: String,
    /// Who is to leave by it.
    pub(super) leaving: Option<u16>,
}

/// A node that is to take another one's place.
pub(super) struct Replacement {
    pub(super) newcomer: u16,
    pub(super) leaver: u16,
    pub(super) give_up: Instant,
}

impl Chaos {
    pub(super) fn transfer(&mut self, to: Option<Who>) -> io::Result<Option<Fate>> {
        let Some(who) = to else { return self.command(Kind::Transfer, &["transfer"], None) };
        let Some(id) = self.find(who) else { return Ok(Some(Fate::Skipped)) };
        self.command(Kind::Transfer, &["transfer", &id.to_string()], None)
    }

    pub(super) fn replace(&mut self, who: Who, announced: bool) -> io::Result<Option<Fate>> {
        let idle = |node: &&NodeProcess| !node.wanted && !node.leaving;
        let newcomer = self.group.nodes.iter().find(idle).map(|node| node.id);
        let leaver = self.find(who).filter(|id| !self.group.nodes[usize::from(*id) - 1].leaving);
        let (Some(newcomer), Some(leaver), None) = (newcomer, leaver, &self.replacement) else {
            return Ok(Some(Fate::Skipped));
        };
        self.note(&format!("n{newcomer} is to replace n{leaver}"));
        if announced {
            self.command(Kind::Replace, &["add", &newcomer.to_string()], None)?;
        }
        self.group.wipe(newcomer)?;
        self.forgets(newcomer);
        let node = self.group.node(newcomer);
        node.wanted = true;
        self.replacement = Some(Replacement { newcomer, leaver, give_up: self.clock.now() + HANG });
        Ok(None)
    }

    pub(super) fn look_after_replacement(&mut self) -> io::Result<()> {
        let Some(replacement) = &self.replacement else { return Ok(()) };
        let (newcomer, leaver) = (replacement.newcomer, replacement.leaver);
        if self.clock.now() > replacement.give_up {
            self.replacement = None;
            self.violation(format!("n{newcomer} was not let in for {HANG:?}"));
        } else if self.group.node(newcomer).lost.is_none() && self.group.node(newcomer).wanted {
            let may_leave = self.view().is_some_and(View::may_remove_one) && self.group.node(leaver).lost.is_none();
            self.replacement = None;
            if may_leave {
                self.group.node(leaver).leaving = true;
                self.command(Kind::Replace, &["remove", &leaver.to_string()], Some(leaver))?;
            } else {
                self.report.fault(Kind::Replace, Fate::Skipped);
            }
        }
        Ok(())
    }

    /// Begins a command of `hovercraft cluster`.
    pub(super) fn command(&mut self, kind: Kind, words: &[&str], leaving: Option<u16>) -> io::Result<Option<Fate>> {
        let what = words.join(" ");
        self.note(&format!("cluster {what}"));
        let mut command = Command::new(&self.plan.program);
        command.arg("cluster").args(words).args(["--timeout", &COMMAND_TIMEOUT.as_secs().to_string(), "--config"]);
        command.arg(self.group.config()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.jobs.push(Job { kind, child: command.spawn()?, what, leaving });
        Ok(None)
    }

    pub(super) fn look_after_jobs(&mut self) -> io::Result<()> {
        for at in (0..self.jobs.len()).rev() {
            if self.jobs[at].child.try_wait()?.is_none() {
                continue;
            }
            let job = self.jobs.swap_remove(at);
            let output = job.child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
            match output.status.code() {
                Some(0) => self.report.fault(job.kind, Fate::Done),
                Some(1) if !said.contains("panicked") => {
                    self.report.fault(job.kind, Fate::Refused);
                    self.note(&format!("cluster {}: {said}", job.what));
                }
                _ => self.violation(format!("`hovercraft cluster {}` {}: {said}", job.what, output.status)),
            }
        }
        Ok(())
    }

    /// Looks who has ended, starts who is to run, and who votes again.
    pub(super) fn supervise(&mut self) -> io::Result<()> {
        for ended in self.group.ended()? {
            self.has_ended(ended);
        }
        let now = self.clock.now();
        for id in self.group.start_wanted(now)? {
            self.note(&format!("n{id} is started"));
        }
        let Some(report) = self.watch.known() else { return Ok(()) };
        for (member, state) in &report.membership.members {
            let Some(node) = self.group.nodes.iter_mut().find(|node| node.id == member.node().0) else { continue };
            let incarnation = member.incarnation().0;
            if state.role == MemberRole::Voter && node.lost.is_none_or(|lost| incarnation > lost) {
                if node.lost.is_some() {
                    node.lost = None;
                    let line = format!("n{} votes as incarnation {incarnation}", node.id);
                    node.incarnation = incarnation;
                    self.note(&line);
                    continue;
                }
                node.incarnation = node.incarnation.max(incarnation);
            }
        }
        Ok(())
    }

    fn has_ended(&mut self, ended: Ended) {
        let Ended { id, status, last_words } = ended;
        let now = self.clock.now();
        let node = self.group.node(id);
        node.not_before = now + RESTART_AFTER;
        let was_asked = std::mem::take(&mut node.stopping);
        if was_asked && status.success() {
            return;
        }
        if node.leaving && last_words.contains("removed") {
            (node.wanted, node.leaving) = (false, false);
            // Whoever comes back under this number knows nothing.
            let incarnation = node.incarnation;
            node.lost = Some(node.lost.unwrap_or(incarnation));
            self.note(&format!("n{id} has left"));
        } else if last_words.contains("did not let it in") && !last_words.contains("panicked") {
            self.report.gave_up_joining += 1;
            self.note(&format!("n{id} was not let in in time, and is started again"));
        } else {
            self.violation(format!("n{id} has ended by itself ({status}):\n{last_words}"));
        }
    }
}
