//! After the faults: everything is healed, clients are served and come home, the members settle, and all replicas must be in
//! the same state.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use hovercraft::NodeId;
use hovercraft::membership::MemberRole;
use r2p2::Instant;

use super::clients::Record;
use super::run::Chaos;

/// How many more operations every client must be answered when all is healed.
const ANSWERED_AGAIN: u64 = 20;

impl Chaos {
    pub(super) fn heal(&mut self) -> io::Result<()> {
        self.note("healing");
        self.undo_due(Instant::FAR_FUTURE)?;
        let hosts = self.links.clear();
        self.filter(&hosts)?;
        let now = self.clock.now();
        for node in &mut self.group.nodes {
            node.not_before = node.not_before.min(now);
        }
        Ok(())
    }

    /// Waits until clients are served, brings them home, and waits until all replicas are the same.
    pub(super) fn come_to_rest(&mut self) -> io::Result<Record> {
        let before = self.load.answered();
        let healed = self.clock.now();
        let served = self.until("not all clients are answered again", |chaos| {
            let now = chaos.load.answered();
            Ok(now.iter().zip(&before).all(|(now, before)| *now >= before + ANSWERED_AGAIN))
        })?;
        self.report.longest_recovery = self.report.longest_recovery.max(self.clock.now().since(healed));
        let commands = self.until("a command or a replacement does not end", |chaos| {
            Ok(chaos.jobs.is_empty() && chaos.replacement.is_none())
        })?;
        self.load.pause();
        let mut record = Record::default();
        self.until("clients do not come home", |chaos| Ok(chaos.load.collect(Duration::ZERO, &mut record)))?;
        let mut last = String::new();
        let settled =
            served && commands && self.until("the members have not settled", |chaos| chaos.settled(&mut last))?;
        if !settled {
            self.note(&last);
        }
        let mut last = String::new();
        if settled && self.until("replicas are not in the same state", |chaos| chaos.is_equal(&mut last))? {
            self.report.equal_states += 1;
            self.note(&last);
        } else {
            self.note(&last);
            self.keep_status()?;
        }
        self.read_logs()?;
        Ok(record)
    }

    /// Whether all members vote and run, and nobody else does.
    fn settled(&mut self, last: &mut String) -> io::Result<bool> {
        let report = match self.operator.members_by_leader(Duration::from_secs(1)) {
            Ok(report) => report,
            Err(error) => {
                *last = error.to_string();
                return Ok(false);
            }
        };
        let membership = &report.membership;
        *last = format!("{membership:?}, running {:?}, {:?}", self.group.running(), self.group.nodes);
        // A removal that was not done in time may be done later, or never.
        let members: BTreeSet<u16> = membership.members.keys().map(|id| id.node().0).collect();
        for id in &members {
            self.group.node(*id).wanted = true;
        }
        let wanted = self.group.nodes.iter().filter(|node| node.wanted).map(|node| node.id);
        let settled = !membership.is_joint()
            && membership.members.values().all(|member| member.role == MemberRole::Voter)
            && wanted.eq(members.iter().copied())
            && self.group.nodes.iter().all(|node| !node.wanted || node.lost.is_none())
            && self.group.running().into_iter().eq(members);
        if settled {
            // Whoever is a member now was not removed, and will not be.
            for node in &mut self.group.nodes {
                node.leaving = false;
            }
        }
        Ok(settled)
    }

    fn is_equal(&mut self, last: &mut String) -> io::Result<bool> {
        let mut states = Vec::new();
        for id in self.group.running() {
            let Some((_, address)) = self.options.nodes.iter().find(|(node, _)| *node == NodeId(id)) else { continue };
            match self.operator.status(*address, Duration::from_millis(500)) {
                Ok(status) => states.push((id, status.applied, status.state_hash)),
                Err(error) => {
                    *last = format!("n{id}: {error}");
                    return Ok(false);
                }
            }
        }
        let text: Vec<_> =
            states.iter().map(|(id, applied, hash)| format!("n{id} {applied} {:016x}", hash.unwrap_or(0))).collect();
        *last = format!("states: {}", text.join(", "));
        Ok(states.iter().all(|(_, applied, hash)| hash.is_some() && (*applied, *hash) == (states[0].1, states[0].2)))
    }

    /// Writes down what every node says of itself.
    fn keep_status(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.plan.program);
        command.args(["status", "--counters", "--json", "--config"]).arg(self.group.config()).stdin(Stdio::null());
        let output = command.output()?;
        let at = self.clock.now().since(Instant::ZERO).as_secs();
        fs::write(self.plan.directory.join(format!("status-at-{at}-s.json")), output.stdout)
    }

    fn read_logs(&mut self) -> io::Result<()> {
        for (id, line) in self.group.new_lines()? {
            let field = |name: &str| {
                let rest = &line[line.find(name)? + name.len()..];
                rest.split([' ', ',']).next()?.parse().ok()
            };
            if line.contains("panicked at") {
                self.violation(format!("n{id}: {line}"));
            } else if line.contains("role=Leader") {
                self.report.led.extend(field("term=").map(|term: u64| (term, id)));
            } else if line.contains("goes on from a snapshot") {
                self.report.snapshots_installed += 1;
            }
        }
        // In one term there is one leader; the protocol says so, and the logs show it.
        let terms: Vec<u64> = self.report.led.iter().map(|(term, _)| *term).collect();
        if let Some(pair) = terms.windows(2).find(|pair| pair[0] == pair[1]) {
            self.violation(format!("two nodes led in term {}", pair[0]));
        }
        Ok(())
    }
}
