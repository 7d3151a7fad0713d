//! What an operator tells a node, and what it answers: members, status, changes of the membership, leader transfer,
//! snapshots. Plain data with its wire format; what a command does is decided in [`crate::node`] and by the driver.
//!
//! A command is the body of a request with the extension *admin* (protocol.md §3.3), sent to a node's `requests` address.
//! It is never ordered as such; what it changes goes through the log.
//!
//! | command | body | answer |
//! |---|---|---|
//! | status | empty, or the word `status` | [`StatusReport`](crate::node::StatusReport) |
//! | members | the word `members` | [`MembersReport`] |
//! | snapshots | the word `snapshots` | [`SnapshotsReport`] |
//! | chunk | as all others | [`ChunkReport`], or an [`AdminReply`] that refuses |
//! | all others | a protobuf message with a version, the command's name and its arguments | [`AdminReply`] |
//!
//! Any node answers the first four. The others are for the leader, and another node's refusal names it.
//!
//! Datagrams are lost and repeated, and so are commands. So a command says what is to be, not what is to be done: what is
//! so already is accepted, and asking twice is asking once. *Accepted* means that a change has begun, in a membership of
//! the epoch that the answer names or a later one; that it is done shows in [`MembersReport`].

mod command;
mod members;
mod reply;
mod snapshots;

pub use command::{AdminCommand, COMMAND_LEN_MAX, NotUnderstood, VERSION};
pub use members::MembersReport;
pub use reply::{AdminReply, LeaderHint, Refusal, RefusalReason};
pub use snapshots::{ChunkReport, SnapshotsReport};
