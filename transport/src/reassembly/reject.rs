//! Why a packet was refused.

use crate::wire::ParseError;

/// Why a packet was refused. Each reason has a stable [`index`](Self::index) and [`name`](Self::name), for counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reject {
    /// It is no packet.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Its message is longer than `message_max`, as far as one can tell by now. Said once per message, but again if it
    /// is sent again after having been forgotten.
    #[error("a message of at least {len} bytes, {limit} are allowed")]
    MessageTooLong {
        /// Bytes its body has at least.
        len: usize,
        /// `message_max`.
        limit: usize,
    },
    /// Another packet of a message that was refused for its length.
    #[error("another packet of a message that is too long")]
    RestOfTooLong,
    /// Its message alone would exceed `bytes_max`. Said once per message, like `MessageTooLong`.
    #[error("a message that needs {needed} bytes of memory, {limit} are allowed")]
    BytesFull {
        /// Bytes the message's packets so far would occupy, bookkeeping included.
        needed: usize,
        /// `bytes_max`.
        limit: usize,
    },
    /// It disagrees with earlier packets about their number.
    #[error("a message of {stated} packets that had {known}")]
    TotalMismatch {
        /// What it says.
        stated: u32,
        /// What the others said, or showed to be the least.
        known: u32,
    },
    /// Its index is not below the number of packets.
    #[error("packet {index} of {total}")]
    IndexBeyondTotal {
        /// Its index.
        index: u16,
        /// Packets in the message.
        total: u32,
    },
    /// Later packets of a message have one length, the last at most that.
    #[error("a packet with {len} bytes of body among others of {others}")]
    LengthMismatch {
        /// Its length.
        len: usize,
        /// The others' length.
        others: usize,
    },
    /// The complete message is not what its sender hashed.
    #[error("digest mismatch")]
    DigestMismatch,
}

impl Reject {
    /// How many reasons there are.
    pub const COUNT: usize = ParseError::COUNT + NAMES.len();

    /// The reason's number, below [`COUNT`](Self::COUNT).
    pub const fn index(&self) -> usize {
        let index = match self {
            Self::Parse(error) => return error.index(),
            Self::MessageTooLong { .. } => 0,
            Self::RestOfTooLong => 1,
            Self::BytesFull { .. } => 2,
            Self::TotalMismatch { .. } => 3,
            Self::IndexBeyondTotal { .. } => 4,
            Self::LengthMismatch { .. } => 5,
            Self::DigestMismatch => 6,
        };
        ParseError::COUNT + index
    }

    /// The name of the reason with this number, for counters.
    ///
    /// # Panics
    ///
    /// If there is none: `index` is at least [`COUNT`](Self::COUNT).
    pub const fn name(index: usize) -> &'static str {
        if index < ParseError::COUNT { ParseError::NAMES[index] } else { NAMES[index - ParseError::COUNT] }
    }
}

const NAMES: [&str; 7] = [
    "message_too_long",
    "rest_of_too_long",
    "bytes_full",
    "total_mismatch",
    "index_beyond_total",
    "length_mismatch",
    "digest_mismatch",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_name_of_its_own() {
        let names: BTreeSet<_> = (0..Reject::COUNT).map(Reject::name).collect();
        assert_eq!(names.len(), Reject::COUNT);
        let all = [
            Reject::Parse(ParseError::Truncated { len: 0 }),
            Reject::Parse(ParseError::BadMagic(0)),
            Reject::Parse(ParseError::BadHeaderSize { header_size: 0, len: 0 }),
            Reject::Parse(ParseError::UnknownType(0)),
            Reject::Parse(ParseError::UnknownPolicy(0)),
            Reject::Parse(ParseError::BadFlags(0)),
            Reject::Parse(ParseError::BadOrder { flags: 0, order: 0 }),
            Reject::Parse(ParseError::BadExtension { kind: 0, len: 0 }),
            Reject::Parse(ParseError::RepeatedExtension(0)),
            Reject::Parse(ParseError::UnknownStatus(0)),
            Reject::Parse(ParseError::BadFeedback { len: 0 }),
            Reject::MessageTooLong { len: 0, limit: 0 },
            Reject::RestOfTooLong,
            Reject::BytesFull { needed: 0, limit: 0 },
            Reject::TotalMismatch { stated: 0, known: 0 },
            Reject::IndexBeyondTotal { index: 0, total: 0 },
            Reject::LengthMismatch { len: 0, others: 0 },
            Reject::DigestMismatch,
        ];
        assert_eq!(all.map(|reject| reject.index()), std::array::from_fn(|index| index));
        assert_eq!(all.len(), Reject::COUNT);
        for reject in all {
            if let Reject::Parse(error) = reject {
                assert_eq!(error.name(), Reject::name(reject.index()));
            }
        }
    }
}
