//! Why bytes are no packet.

/// Why bytes are not an R2P2 packet. Each reason has a stable [`index`](Self::index) and [`name`](Self::name), for
/// counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than a header has.
    #[error("{len} bytes are too short for a header")]
    Truncated {
        /// Bytes there are.
        len: usize,
    },
    /// Not R2P2.
    #[error("first byte is {0:#04x}, not 0xcc")]
    BadMagic(u8),
    /// A header shorter than its fixed part or longer than the packet.
    #[error("header size {header_size} in a packet of {len} bytes")]
    BadHeaderSize {
        /// What the header claims.
        header_size: u8,
        /// Bytes in the packet.
        len: usize,
    },
    /// A type beyond those of protocol.md §3.1.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// A policy beyond those of protocol.md §3.1.
    #[error("unknown policy {0}")]
    UnknownPolicy(u8),
    /// Flags that mean nothing yet.
    #[error("unknown flags {0:#04x}")]
    BadFlags(u8),
    /// A packet count of 0, a count other than 1 in an only packet or of 1 in a first that is not the last, an index of
    /// 0, or a control message of several packets.
    #[error("packet order {order} with flags {flags:#04x}")]
    BadOrder {
        /// 0x80 first, 0x40 last.
        flags: u8,
        /// Packet count or index.
        order: u16,
    },
    /// An extension that reaches beyond the header, or a known one of the wrong length.
    #[error("extension {kind} of {len} bytes")]
    BadExtension {
        /// Its type.
        kind: u8,
        /// The length it claims, 0 if that is missing.
        len: u8,
    },
    /// A known extension for the second time.
    #[error("extension {0} more than once")]
    RepeatedExtension(u8),
    /// A reply status beyond those of [`ReplyStatus`](super::ReplyStatus).
    #[error("unknown reply status {0}")]
    UnknownStatus(u8),
    /// A FEEDBACK whose body is not one.
    #[error("feedback of {len} bytes")]
    BadFeedback {
        /// Bytes in its body.
        len: usize,
    },
}

impl ParseError {
    /// How many reasons there are.
    pub const COUNT: usize = Self::NAMES.len();

    pub(crate) const NAMES: [&'static str; 11] = [
        "truncated",
        "bad_magic",
        "bad_header_size",
        "unknown_type",
        "unknown_policy",
        "bad_flags",
        "bad_order",
        "bad_extension",
        "repeated_extension",
        "unknown_status",
        "bad_feedback",
    ];

    /// All names, in the order of their numbers.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter()
    }

    /// The reason's number, below [`COUNT`](Self::COUNT).
    pub const fn index(&self) -> usize {
        match self {
            Self::Truncated { .. } => 0,
            Self::BadMagic(_) => 1,
            Self::BadHeaderSize { .. } => 2,
            Self::UnknownType(_) => 3,
            Self::UnknownPolicy(_) => 4,
            Self::BadFlags(_) => 5,
            Self::BadOrder { .. } => 6,
            Self::BadExtension { .. } => 7,
            Self::RepeatedExtension(_) => 8,
            Self::UnknownStatus(_) => 9,
            Self::BadFeedback { .. } => 10,
        }
    }

    /// The reason's name, for counters.
    pub const fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }
}
