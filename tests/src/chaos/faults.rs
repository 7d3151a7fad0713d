//! What the schedule says, done and undone.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hovercraft::cluster::Durability;
use r2p2::Instant;

use super::guard::View;
use super::lab::Delays;
use super::links::Rule;
use super::report::Fate;
use super::run::Chaos;
use super::schedule::{Between, Fault, Kind, Timed, Way, Who};
use super::setup::Host;

/// What ends a fault.
pub(super) enum Undo {
    Links(u64),
    Continue(u16),
    Hogs(Vec<Child>),
    Swift(Host),
}

impl Chaos {
    pub(super) fn inject(&mut self, timed: &Timed) -> io::Result<()> {
        let fate = match timed.fault {
            Fault::Kill { who, down } => self.kill(who, down)?,
            Fault::KillAll { down } => self.kill_all(down),
            Fault::Restart { who } => self.restart(who).or(Some(Fate::Skipped)),
            Fault::Wipe { who, down } => self.wipe(who, down)?,
            Fault::Pause { who, span } => self.pause(who, span).or(Some(Fate::Skipped)),
            Fault::Hog { count, span } => self.hog(count, span)?,
            Fault::Cut { .. } => self.cut(timed.fault)?,
            Fault::Slow { who, delay, span } => self.slow(who, delay, span)?,
            Fault::Transfer { to } => self.transfer(to)?,
            Fault::Replace { who, announced } => self.replace(who, announced)?,
            Fault::Snapshot => self.command(Kind::Snapshot, &["snapshot"], None)?,
        };
        // Commands are counted when they are done.
        if let Some(fate) = fate {
            self.report.fault(timed.kind, fate);
            if fate == Fate::Skipped {
                self.note(&format!("skipped: {}", timed.fault));
            }
        }
        Ok(())
    }

    /// Whom it hits: somebody who runs and belongs to the group or is about to.
    pub(super) fn find(&self, who: Who) -> Option<u16> {
        let running = self.group.running();
        let leader = || self.watch.known()?.leader.map(|leader| leader.0).filter(|id| running.contains(id));
        match who {
            Who::Leader => leader().or_else(|| running.first().copied()),
            Who::Any(number) => running.get(usize::from(number) % running.len().max(1)).copied(),
        }
    }

    fn is_durable(&self) -> bool {
        self.plan.setup.durability != Durability::Memory
    }

    /// What may be lost now; nothing if nobody knows who votes.
    pub(super) fn view(&self) -> Option<View> {
        let report = self.watch.known()?;
        let membership = &report.membership;
        report.leader?;
        let voters = membership.incoming().count().min(membership.outgoing().count());
        let leaving = self.jobs.iter().filter(|job| job.leaving.is_some()).count();
        let lost = self.group.nodes.iter().filter(|node| node.lost.is_some()).count();
        Some(View { voters, leaving, lost })
    }

    /// Whether this node may forget everything.
    fn may_forget(&mut self, id: u16) -> bool {
        // Whoever has nothing that counts loses nothing.
        self.group.node(id).lost.is_some() || self.view().is_some_and(View::may_lose_one)
    }

    /// From now on this node has lost what it knew.
    pub(super) fn forgets(&mut self, id: u16) {
        let node = self.group.node(id);
        node.lost = Some(node.lost.unwrap_or(node.incarnation));
    }

    fn kill(&mut self, who: Who, down: Duration) -> io::Result<Option<Fate>> {
        let Some(id) = self.find(who) else { return Ok(Some(Fate::Skipped)) };
        if !self.is_durable() {
            if !self.may_forget(id) {
                return Ok(Some(Fate::Skipped));
            }
            self.forgets(id);
        }
        self.note(&format!("kill -9 n{id}, down for {down:?}"));
        self.group.kill(id);
        self.group.node(id).not_before = self.clock.now() + down;
        Ok(Some(Fate::Done))
    }

    fn kill_all(&mut self, down: Duration) -> Option<Fate> {
        if !self.is_durable() {
            return Some(Fate::Skipped);
        }
        self.note(&format!("kill -9 of all, down for {down:?}"));
        for id in self.group.running() {
            self.group.kill(id);
            self.group.node(id).not_before = self.clock.now() + down;
        }
        Some(Fate::Done)
    }

    fn restart(&mut self, who: Who) -> Option<Fate> {
        let id = self.find(who)?;
        if self.group.node(id).paused || self.group.node(id).stopping {
            return Some(Fate::Skipped);
        }
        if !self.is_durable() {
            if !self.may_forget(id) {
                return Some(Fate::Skipped);
            }
            self.forgets(id);
        }
        self.note(&format!("stop n{id}, and start it again"));
        self.group.node(id).stopping = true;
        self.group.signal(id, libc::SIGTERM);
        Some(Fate::Done)
    }

    fn wipe(&mut self, who: Who, down: Duration) -> io::Result<Option<Fate>> {
        // In memory mode that is the same as to kill it.
        let Some(id) = self.find(who).filter(|_| self.is_durable()) else { return Ok(Some(Fate::Skipped)) };
        if !self.may_forget(id) {
            return Ok(Some(Fate::Skipped));
        }
        self.forgets(id);
        self.note(&format!("kill -9 n{id} and remove its data, down for {down:?}"));
        self.group.kill(id);
        self.group.wipe(id)?;
        self.group.node(id).not_before = self.clock.now() + down;
        Ok(Some(Fate::Done))
    }

    fn pause(&mut self, who: Who, span: Duration) -> Option<Fate> {
        let id = self.find(who)?;
        self.note(&format!("SIGSTOP n{id} for {span:?}"));
        self.group.signal(id, libc::SIGSTOP);
        self.undo.push((self.clock.now() + span, Undo::Continue(id)));
        Some(Fate::Done)
    }

    fn hog(&mut self, count: u16, span: Duration) -> io::Result<Option<Fate>> {
        self.note(&format!("{count} hogs for {span:?}"));
        let hog = || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        let hogs = (0..count).map(|_| hog()).collect::<io::Result<_>>()?;
        self.undo.push((self.clock.now() + span, Undo::Hogs(hogs)));
        Ok(Some(Fate::Done))
    }

    fn cut(&mut self, fault: Fault) -> io::Result<Option<Fate>> {
        let Fault::Cut { who, between, way, cast, percent, span } = fault else { return Ok(None) };
        let Some(id) = self.find(who) else { return Ok(Some(Fate::Skipped)) };
        let one = Host::Node(id);
        let mut others: Vec<Host> = match between {
            Between::Clients => Vec::new(),
            Between::Nodes | Between::Everybody => {
                self.plan.setup.ids().map(Host::Node).filter(|host| *host != one).collect()
            }
        };
        if between != Between::Nodes {
            others.push(Host::Clients);
        }
        let mut rules = Vec::new();
        for other in others {
            if way != Way::Out {
                rules.push(Rule { from: other, to: one, cast, percent });
            }
            if way != Way::In {
                rules.push(Rule { from: one, to: other, cast, percent });
            }
        }
        self.note(&format!("n{id} and {between:?} lose {percent} % of {cast:?} ({way:?}) for {span:?}"));
        let (rule, hosts) = self.links.add(rules);
        self.filter(&hosts)?;
        self.undo.push((self.clock.now() + span, Undo::Links(rule)));
        Ok(Some(Fate::Done))
    }

    pub(super) fn filter(&self, hosts: &[Host]) -> io::Result<()> {
        hosts.iter().try_for_each(|host| self.lab.filter(*host, &self.links.script(*host)))
    }

    fn slow(&mut self, who: Who, delay: Duration, span: Duration) -> io::Result<Option<Fate>> {
        let Some(id) = self.find(who).filter(|_| self.lab.delays != Delays::None) else {
            return Ok(Some(Fate::Skipped));
        };
        let host = Host::Node(id);
        let is_slow = self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Swift(other) if *other == host));
        if is_slow {
            return Ok(Some(Fate::Skipped));
        }
        self.note(&format!("n{id} is slow by {delay:?} for {span:?}"));
        self.lab.slow(host, delay)?;
        self.undo.push((self.clock.now() + span, Undo::Swift(host)));
        Ok(Some(Fate::Done))
    }

    pub(super) fn undo_due(&mut self, until: Instant) -> io::Result<()> {
        while let Some(at) = self.undo.iter().position(|(at, _)| *at <= until) {
            match self.undo.swap_remove(at).1 {
                Undo::Links(rule) => {
                    let hosts = self.links.remove(rule);
                    self.filter(&hosts)?;
                }
                Undo::Continue(id) => _ = self.group.signal(id, libc::SIGCONT),
                Undo::Hogs(hogs) => {
                    for mut hog in hogs {
                        _ = hog.kill();
                        _ = hog.wait();
                    }
                }
                Undo::Swift(host) => self.lab.swift(host)?,
            }
        }
        Ok(())
    }
}
