//! Copying a snapshot from a node that runs.

use std::net::SocketAddrV4;
use std::time::Duration;

use r2p2::client::Outcome;

use super::operator::{Operator, OperatorError};
use crate::admin::{AdminCommand, AdminReply, ChunkReport, SnapshotsReport};
use crate::snapshot::{Archive, Sealed, SnapshotInfo};
use crate::storage::StorageError;

/// Most pieces asked for at a time: less than a node reads at a time, so that others get theirs.
const PIECES_MAX: u64 = 16;

/// Why there is no copy. What has been copied is thrown away.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The node does not do its part.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The copy cannot be kept.
    #[error("the copy: {0}")]
    Storage(#[from] StorageError),
    /// It has not taken a snapshot in time.
    #[error(
        "the node at {0} has not taken a snapshot in time: it is busy, or its disk is full (see its log); try again"
    )]
    NotTaken(SocketAddrV4),
    /// What came is not what was announced.
    #[error("what came from {0} is not the snapshot that it announced; try again")]
    Damaged(SocketAddrV4),
}

impl Operator {
    /// Has the node at `address` take a snapshot of everything that it has executed by now, and copies that into `archive`.
    /// `progress` is told how many pieces of how many are there. Every piece is checked, and the whole at the end.
    ///
    /// The node goes on meanwhile. `patience` is for the snapshot, and for every piece.
    ///
    /// # Errors
    /// Why there is no copy.
    pub fn backup(
        &mut self,
        address: SocketAddrV4,
        archive: &mut dyn Archive,
        patience: Duration,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<SnapshotInfo, BackupError> {
        let executed = self.status(address, patience)?.applied;
        self.command_to(address, &AdminCommand::Snapshot, patience)?;
        let end = self.now() + patience;
        let info = loop {
            let answer = self.ask_one(address, &AdminCommand::Snapshots, patience)?;
            let report = SnapshotsReport::decode(&answer).ok_or(OperatorError::Unreadable { address })?;
            if let Some(newest) = report.snapshots.last().filter(|newest| newest.index >= executed) {
                break *newest;
            }
            if self.now() >= end {
                return Err(BackupError::NotTaken(address));
            }
            self.pause()?;
        };
        archive.begin(info)?;
        let copied = self.copy(address, info, archive, patience, &mut progress);
        if copied.is_err() {
            archive.abandon()?;
        }
        copied?;
        match archive.seal()? {
            Sealed::Whole(info) => Ok(info),
            Sealed::Missing(_) | Sealed::Another | Sealed::NothingBegun => Err(BackupError::Damaged(address)),
        }
    }

    fn copy(
        &mut self,
        address: SocketAddrV4,
        info: SnapshotInfo,
        archive: &mut dyn Archive,
        patience: Duration,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), BackupError> {
        let (mut waiting, mut next, mut there) = (Vec::new(), 0, 0);
        while there < info.chunks() {
            while next < info.chunks() && (waiting.len() as u64) < PIECES_MAX {
                let command = AdminCommand::Chunk { id: info.id, number: next };
                let ticket = self.client.submit_admin(address, command.encode()).map_err(OperatorError::from)?;
                waiting.push((ticket, self.now() + patience));
                next += 1;
            }
            for completion in self.client.wait(patience).map_err(OperatorError::Socket)? {
                let Some(at) = waiting.iter().position(|(ticket, _)| *ticket == completion.ticket) else { continue };
                waiting.swap_remove(at);
                let Outcome::Ok(answer) = completion.outcome else {
                    return Err(OperatorError::NoAnswer { asked: vec![address] }.into());
                };
                if let Some(AdminReply::Refused(refusal)) = AdminReply::decode(&answer) {
                    return Err(OperatorError::Refused { command: "backup", refusal }.into());
                }
                let report = ChunkReport::decode(answer).ok_or(OperatorError::Unreadable { address })?;
                archive.receive(&report.chunk)?;
                there += 1;
                progress(there, info.chunks());
            }
            let now = self.now();
            if waiting.iter().any(|(_, end)| now >= *end) {
                return Err(OperatorError::NoAnswer { asked: vec![address] }.into());
            }
        }
        Ok(())
    }
}
