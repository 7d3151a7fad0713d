//! Nodes as processes: started, killed, paused.

use std::time::Duration;

use hovercraft::applier::{Applier, ApplierConfig};
use hovercraft::consensus::Role;
use hovercraft::node::StopReason;
use hovercraft::storage::{Storage, Stored};
use hovercraft::{MemberId, Membership, Node, NodeConfig, NodeId, Service, Term};
use rand::Rng;

use super::alarm::Alarm;
use super::archive::Archive;
use super::clock::Clock;
use super::disk::{Disk, DiskConfig, DiskFault};
use super::happening::progress;
use super::network::Datagram;
use super::{Event, What, World, tally};
use crate::flight::Party;
use crate::network::Sockets;
use crate::streams::stream;

pub(super) struct Host<S: Service> {
    pub(super) id: NodeId,
    /// Who has run here last, and the membership that it was first started with.
    pub(super) member: Option<(MemberId, Membership)>,
    /// Whether what that one knew is lost.
    pub(super) is_gone: bool,
    pub(super) running: Option<Running<S>>,
    pub(super) is_paused: bool,
    /// What has arrived and has not been read.
    pub(super) sockets: Sockets<Datagram>,
    /// Whether it deals with a datagram.
    pub(super) reads: bool,
    /// Counts processes, so that what one began to read is not another's.
    pub(super) reads_generation: u64,
    /// How long it takes for a datagram, if not as long as all.
    pub(super) processing: Option<Duration>,
    /// When the process wants to be woken.
    pub(super) alarm: Alarm,
    /// That of the process that runs here.
    pub(super) clock: Clock,
    pub(super) stopped: Option<StopReason>,
    /// What it finds again after a crash, if it is durable.
    pub(super) disk: Option<Disk>,
    /// Its snapshots.
    pub(super) archive: Archive,
    /// A sync was done and its process has not noticed yet.
    pub(super) synced_while_paused: bool,
    /// The same of its archive.
    pub(super) archived_while_paused: bool,
    /// How often a process was started here.
    pub(super) process: u64,
    /// It crashes after this many more outputs of its node.
    pub(super) crash_after: Option<u32>,
    /// The version of the service that the program here has, from its next start on.
    pub(super) service_version: u32,
    /// Datagrams that processes here have sent and read.
    pub(super) packets: Packets,
    /// As it was when somebody looked last.
    pub(super) role: Option<(Role, Term)>,
}

/// Datagrams of a node. One to a group counts once where it is sent, and once at each that reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packets {
    /// Sent, to clients and to nodes.
    pub sent: u64,
    /// Read.
    pub received: u64,
}

pub(super) struct Running<S: Service> {
    pub(super) node: Node,
    pub(super) applier: Applier<S>,
}

impl<S: Service> Host<S> {
    /// A host on which nothing runs.
    pub(super) fn new(id: u16, disk: Option<Disk>, archive: Archive, service_version: u32) -> Self {
        Self {
            id: NodeId(id),
            member: None,
            is_gone: false,
            running: None,
            is_paused: false,
            sockets: Sockets::default(),
            reads: false,
            reads_generation: 0,
            processing: None,
            alarm: Alarm::default(),
            clock: Clock::default(),
            stopped: None,
            disk,
            archive,
            archived_while_paused: false,
            synced_while_paused: false,
            process: 0,
            crash_after: None,
            service_version,
            packets: Packets::default(),
            role: None,
        }
    }
}

impl<S: Service> World<S> {
    /// Kills a node: its memory is gone, and so is any part of what its disk has not synced.
    pub fn kill(&mut self, id: u16) {
        if self.host(id).running.is_some() && self.host(id).stopped.is_none() {
            self.faults.kills += 1;
            let progress = self.progress(id);
            self.happened_because(What::Killed(id), || progress);
        }
        self.forget(id);
    }

    pub(super) fn forget(&mut self, id: u16) {
        let host = &mut self.hosts[usize::from(id - 1)];
        if let Some(running) = host.running.take() {
            tally::add(&mut self.gone, &running);
            host.is_gone |= host.disk.is_none();
        }
        host.is_paused = false;
        host.sockets.clear();
        host.reads = false;
        host.reads_generation += 1;
        host.alarm.clear();
        host.crash_after = None;
        host.synced_while_paused = false;
        host.archived_while_paused = false;
        host.archive.crash(host.disk.is_some());
        if let Some(disk) = &mut host.disk {
            disk.crash();
        }
    }

    /// Puts another program on a host, with this version of the service; it is used from the next start on.
    ///
    /// All programs in a world are one and the same, so `version` is at most [`Service::VERSION`]; one that is told that
    /// it has an older version keeps to what the core does with such a program.
    pub fn set_service_version(&mut self, id: u16, version: u32) {
        self.host_mut(id).service_version = version;
    }

    /// Tells a node that it is to stop; see [`hovercraft::Node::resign`].
    pub fn resign(&mut self, id: u16) -> bool {
        let now = self.local_now(Party::Node(id));
        let resigns = self.host_mut(id).running.as_mut().is_some_and(|running| running.node.resign(now));
        self.drive_node(id);
        resigns
    }

    /// Has a node take a snapshot; see [`hovercraft::Node::take_snapshot`].
    pub fn take_snapshot(&mut self, id: u16) -> bool {
        let takes = self.host_mut(id).running.as_mut().is_some_and(|running| running.node.take_snapshot());
        self.drive_node(id);
        takes
    }

    /// Kills a node in the middle of what it does: after `outputs` more of the things that its core says are to be
    /// done. Between any two of them a process can die.
    pub fn crash_after(&mut self, id: u16, outputs: u32) {
        if self.host(id).running.is_some() {
            self.host_mut(id).crash_after = Some(outputs);
        }
    }

    /// Takes back [`World::crash_after`], if it has not happened yet.
    pub fn spare(&mut self, id: u16) {
        self.host_mut(id).crash_after = None;
    }

    /// Fills or breaks a node's disk, or repairs it with what it has.
    pub fn set_disk_fault(&mut self, id: u16, fault: Option<DiskFault>) {
        let Some(disk) = &mut self.host_mut(id).disk else { return };
        if disk.set_fault(fault) == fault {
            return;
        }
        self.faults.disks += u64::from(fault.is_some());
        self.happened(What::Disk(id, fault));
    }

    /// Whether a node's archive has no room for anything new.
    pub fn set_archive_full(&mut self, id: u16, is_full: bool) {
        self.host_mut(id).archive.set_full(is_full);
    }

    /// Makes all disks, and those to come, faster or slower.
    pub fn set_disks(&mut self, config: DiskConfig) {
        self.config.disk = config;
        self.hosts.iter_mut().for_each(|host| host.archive.set_config(config));
        for disk in self.hosts.iter_mut().filter_map(|host| host.disk.as_mut()) {
            disk.set_config(config);
        }
    }

    /// Makes one node's disk faster or slower, if it has one.
    pub fn set_disk(&mut self, id: u16, config: DiskConfig) {
        let host = self.host_mut(id);
        host.archive.set_config(config);
        if let Some(disk) = &mut host.disk {
            disk.set_config(config);
        }
    }

    /// Puts an empty disk in place of that of a node which does not run.
    pub fn replace_disk(&mut self, id: u16) {
        assert!(self.host(id).running.is_none(), "{id} runs");
        let disk = self.new_disk(id);
        let archive = Archive::new(self.config.disk, id.into());
        let host = self.host_mut(id);
        (host.disk, host.archive) = (disk, archive);
        host.is_gone = true;
        if let Some((me, _)) = &host.member {
            let me = *me;
            self.checkers.started(me, false);
        }
    }

    /// An empty disk for a node, if nodes have disks.
    pub(super) fn new_disk(&self, id: u16) -> Option<Disk> {
        let process = self.hosts.get(usize::from(id - 1)).map_or(0, |host| host.process);
        let life = stream(self.config.seed, "disk", u64::from(id) << 32 | process).random();
        self.config.node.durable.then(|| Disk::new(self.config.disk, life))
    }

    /// A sync is done, unless the process that asked for it is gone.
    pub(super) fn synced(&mut self, id: u16, process: u64) {
        let now = self.now;
        let host = self.host_mut(id);
        let (Some(running), Some(disk)) = (&mut host.running, &mut host.disk) else { return };
        if host.process != process {
            return;
        }
        if host.is_paused {
            host.synced_while_paused = true;
            return;
        }
        match disk.end_sync() {
            Ok((number, next)) => {
                running.node.handle_persisted(host.clock.local(now), number);
                if let Some(wait) = next {
                    self.schedule(now + wait, Event::Synced { id, process });
                }
            }
            Err(error) => running.node.handle_storage_error(error),
        }
        self.drive_node(id);
    }

    /// The archive has done something, unless the process that wanted it is gone.
    pub(super) fn archived(&mut self, id: u16, process: u64) {
        let now = self.now;
        let host = self.host_mut(id);
        let Some(running) = &mut host.running else { return };
        if host.process != process {
            return;
        }
        if host.is_paused {
            host.archived_while_paused = true;
            return;
        }
        let fault = host.disk.as_ref().and_then(Disk::fault);
        match host.archive.end(fault) {
            Ok((event, next)) => {
                if let Some(event) = event {
                    running.node.handle_archive(host.clock.local(now), event);
                }
                if let Some(wait) = next {
                    self.schedule(now + wait, Event::Archived { id, process });
                }
            }
            Err(error) => running.node.handle_storage_error(error),
        }
        self.drive_node(id);
    }

    /// Starts a node that does not run, as the same identity and another process. With a disk it goes on from there;
    /// without, that is what a careless operator does.
    ///
    /// # Panics
    /// If none has ever run on this host.
    pub fn start(&mut self, id: u16) {
        let (me, first) = self.host(id).member.clone().unwrap_or_else(|| panic!("n{id} has never been started"));
        self.start_as(me, first);
    }

    /// Starts a process on a host where none runs. `first` is who belonged to the group when this identity was started
    /// for the first time.
    pub(super) fn start_as(&mut self, me: MemberId, first: Membership) {
        let id = me.node().0;
        let mut rng = stream(self.config.seed, "node", u64::from(id) << 32 | self.host(id).process);
        let (seed, drawn) = (rng.random(), rng.random());
        let disk = self.host_mut(id).disk.as_mut();
        let (life, mut stored) = disk.map_or((drawn, Stored::default()), |disk| {
            (disk.life, disk.load().expect("what a simulated disk has synced can be read"))
        });
        if self.host(id).disk.is_some() {
            let archive = &mut self.host_mut(id).archive;
            stored.snapshot = archive.newest().expect("what a simulated archive has can be read");
        }
        self.faults.restarts += u64::from(stored != Stored::default());
        let service_version = self.host(id).service_version;
        let config = NodeConfig {
            me,
            life,
            membership: first.clone(),
            seed,
            service_version,
            feedback_epoch: drawn,
            ..self.config.node.clone()
        };
        let mut clock_rng = stream(self.config.seed, "clock", u64::from(id) << 32 | self.host(id).process);
        let clock = Clock::start(self.now, self.config.clocks, &mut clock_rng);
        let node = Node::restart(clock.local(self.now), config, S::classify, stored).expect("what was synced is whole");
        let applier_config = ApplierConfig {
            sessions: self.config.sessions,
            forwarders: self.config.node.forwarders.clone(),
            feedback_epoch: !drawn,
            ..ApplierConfig::new(NodeId(id))
        };
        let applier = Applier::new((self.make_service)(), applier_config);
        let remembers = self.host(id).disk.is_some();
        self.checkers.started(me, remembers);
        let host = self.host_mut(id);
        host.is_gone &= host.member.as_ref().is_some_and(|(last, _)| *last == me);
        host.member = Some((me, first));
        host.running = Some(Running { node, applier });
        host.clock = clock;
        host.stopped = None;
        host.process += 1;
        host.role = None;
        self.happened(What::Started(id));
        self.drive_node(id);
    }

    /// Stops a node and its sockets' readers; datagrams wait.
    pub fn pause(&mut self, id: u16) {
        let host = self.host_mut(id);
        if host.running.is_some() && !host.is_paused {
            host.is_paused = true;
            self.faults.pauses += 1;
            let progress = self.progress(id);
            self.happened_because(What::Paused(id), || progress);
        }
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, id: u16) {
        if !std::mem::take(&mut self.host_mut(id).is_paused) {
            return;
        }
        self.happened(What::Resumed(id));
        if std::mem::take(&mut self.host_mut(id).synced_while_paused) {
            self.synced(id, self.host(id).process);
        }
        if std::mem::take(&mut self.host_mut(id).archived_while_paused) {
            self.archived(id, self.host(id).process);
        }
        self.read_on(id);
        self.wake_node(id);
    }

    /// How far a node is, if anybody wants to know.
    fn progress(&self, id: u16) -> String {
        let wanted = self.recording.is_some();
        self.node(id).filter(|_| wanted).map(progress).unwrap_or_default()
    }

    /// Datagrams that the node on this host has sent and read so far.
    pub fn packets(&self, id: u16) -> Packets {
        self.host(id).packets
    }

    pub(super) fn host(&self, id: u16) -> &Host<S> {
        &self.hosts[usize::from(id - 1)]
    }

    pub(super) fn host_mut(&mut self, id: u16) -> &mut Host<S> {
        &mut self.hosts[usize::from(id - 1)]
    }
}
