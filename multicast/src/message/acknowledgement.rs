//! AppendAck: what a member has.

use super::{MessageError, Reader, Writer};
use crate::id::{LogIndex, Term};

/// A follower's answer to an Append or a Heartbeat; with an arm id, a member's figures for the aggregator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppendAck {
    /// verified(term): the highest index of a non-reject append response in this term (§1). A leader says here what it
    /// has persisted.
    pub matched: LogIndex,
    /// Highest index executed.
    pub applied: LogIndex,
    /// Highest index known committed.
    pub commit: LogIndex,
    /// Repeats the Append's arm id; 0 for none. With one it goes to the aggregator, and neither answers a heartbeat nor
    /// rejects anything.
    pub arm: u64,
    /// With an arm id: the epoch of the latest membership in the sender's log, committed or not. What it has may be counted
    /// by that membership and no other. Otherwise 0.
    pub epoch: u64,
    /// The version of the node's service.
    pub version: u32,
    /// Answers a Heartbeat, so a probe that was lost may be repeated.
    pub heartbeat: bool,
    /// The Append did not fit the log.
    pub reject: Option<Reject>,
}

/// Where an Append did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The `prev` index that was refused.
    pub index: LogIndex,
    /// Where the logs may agree.
    pub hint: LogIndex,
    /// The follower's term at the hint.
    pub hint_term: Term,
}

impl AppendAck {
    /// Writes it.
    pub fn emit(&self, to: &mut Writer) {
        to.u8(u8::from(self.heartbeat));
        to.u8(u8::from(self.reject.is_some()));
        for number in [self.matched, self.applied, self.commit, self.arm] {
            to.u64(number);
        }
        to.u32(self.version);
        if self.arm != 0 {
            to.u64(self.epoch);
        }
        if let Some(reject) = self.reject {
            for number in [reject.index, reject.hint, reject.hint_term] {
                to.u64(number);
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Names what is wrong with the bytes.
    pub fn parse(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let heartbeat = from.bool()?;
        let rejects = from.bool()?;
        let mut ack = Self {
            matched: from.number()?,
            applied: from.number()?,
            commit: from.number()?,
            arm: from.u64()?,
            epoch: 0,
            version: from.u32()?,
            heartbeat,
            reject: None,
        };
        if ack.arm != 0 {
            if heartbeat || rejects {
                return Err(MessageError::BadValue("acknowledgement with an arm id"));
            }
            ack.epoch = from.u64()?;
        }
        if rejects {
            ack.reject = Some(Reject { index: from.number()?, hint: from.number()?, hint_term: from.number()? });
        }
        Ok(ack)
    }
}
