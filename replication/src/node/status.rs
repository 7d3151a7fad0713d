//! What a node says about itself (`hovercraft status`).

use r2p2::Instant;

use super::Node;
use crate::config::Mode;
use crate::consensus::Role;
use crate::id::LogIndex;

/// A node's report on itself. Sent as protobuf: rare, structured, and read by programs of other versions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusReport {
    /// Node id.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Its incarnation.
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    /// The mode's name.
    #[prost(string, tag = "3")]
    pub mode: String,
    /// `leader`, `follower`, `candidate` or `unreplicated`.
    #[prost(string, tag = "4")]
    pub role: String,
    /// Current term.
    #[prost(uint64, tag = "5")]
    pub term: u64,
    /// Node id of the leader, 0 if none is known.
    #[prost(uint32, tag = "6")]
    pub leader: u32,
    /// First index kept in the log.
    #[prost(uint64, tag = "7")]
    pub first: u64,
    /// Last index of the log.
    #[prost(uint64, tag = "8")]
    pub last: u64,
    /// Commit index.
    #[prost(uint64, tag = "9")]
    pub commit: u64,
    /// Applied index.
    #[prost(uint64, tag = "10")]
    pub applied: u64,
    /// Requests in the unordered set.
    #[prost(uint64, tag = "11")]
    pub unordered: u64,
    /// Requests waiting to be ordered, on the leader.
    #[prost(uint64, tag = "12")]
    pub pending: u64,
    /// Bodies missing.
    #[prost(uint64, tag = "13")]
    pub missing: u64,
    /// The other nodes, as the leader sees them.
    #[prost(message, repeated, tag = "14")]
    pub peers: Vec<PeerStatus>,
    /// Counters by name.
    #[prost(message, repeated, tag = "15")]
    pub counters: Vec<CounterValue>,
    /// What an acknowledged entry has survived: the durability policy.
    #[prost(string, tag = "16")]
    pub durability: String,
    /// The service's name.
    #[prost(string, tag = "17")]
    pub service: String,
    /// The group id.
    #[prost(uint32, tag = "18")]
    pub group: u32,
    /// Hash of the replicated state at `applied`, if the service has one.
    #[prost(uint64, optional, tag = "19")]
    pub state_hash: Option<u64>,
    /// Epoch of the latest membership that the node knows to be committed.
    #[prost(uint64, tag = "30")]
    pub epoch: u64,
}

/// A follower as its leader sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PeerStatus {
    /// Node id.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Highest index known to match.
    #[prost(uint64, tag = "2")]
    pub matched: u64,
    /// Highest index it has reported applied.
    #[prost(uint64, tag = "3")]
    pub applied: u64,
    /// Whether it is served by the shared Append.
    #[prost(bool, tag = "4")]
    pub in_step: bool,
    /// Whether it is further behind than the log is kept.
    #[prost(bool, tag = "5")]
    pub needs_snapshot: bool,
    /// Entries it owes an answer to.
    #[prost(uint64, tag = "6")]
    pub owed: u64,
    /// Microseconds since it last acknowledged; absent if never in this term.
    #[prost(uint64, optional, tag = "7")]
    pub heard_us_ago: Option<u64>,
}

/// One counter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CounterValue {
    /// Its name; a dot separates the part of the system from what it counts.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value since the node started.
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

/// A follower as [`super::leading`] knows it.
pub(super) struct PeerView {
    pub(super) matched: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) in_step: bool,
    pub(super) needs_snapshot: bool,
    pub(super) heard: Option<Instant>,
}

impl Node {
    /// This node's report on itself. The driver adds what only it knows: durability, service, socket counters.
    pub fn status(&self, now: Instant) -> StatusReport {
        let log = self.consensus.log();
        let role = match self.consensus.role() {
            _ if self.config.mode == Mode::Unreplicated => "unreplicated",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        };
        let peers = self.leading.iter().flat_map(|leading| {
            self.peers.iter().filter_map(|peer| {
                let view = leading.peer_status(*peer)?;
                Some(PeerStatus {
                    node: u32::from(peer.node().0),
                    matched: view.matched,
                    applied: view.applied,
                    in_step: view.in_step,
                    needs_snapshot: view.needs_snapshot,
                    owed: leading.repliers.owed(peer.node()) as u64,
                    heard_us_ago: view.heard.map(|at| now.since(at).as_micros() as u64),
                })
            })
        });
        let node_counters = self.counters.iter().map(|(name, value)| (format!("node.{name}"), value));
        let server_counters = self.server.counters().iter().map(|(name, value)| (format!("requests.{name}"), value));
        StatusReport {
            node: u32::from(self.config.me.node().0),
            incarnation: self.config.me.incarnation().0,
            mode: self.config.mode.name().to_owned(),
            role: role.to_owned(),
            term: self.consensus.term(),
            leader: self.consensus.leader().map_or(0, |leader| u32::from(leader.node().0)),
            first: log.first(),
            last: log.last(),
            commit: self.consensus.commit(),
            applied: self.applied,
            unordered: self.unordered.len() as u64,
            pending: self.leading.as_ref().map_or(0, |leading| leading.pending.len() as u64),
            missing: self.fetcher.len() as u64,
            peers: peers.collect(),
            counters: node_counters.chain(server_counters).map(|(name, value)| CounterValue { name, value }).collect(),
            durability: String::new(),
            service: String::new(),
            group: self.config.group.0,
            state_hash: None,
            epoch: self.epoch(),
        }
    }
}
