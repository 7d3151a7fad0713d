//! What a gateway counts.

use r2p2::wire::ParseError;

/// What a [`Gateway`](super::Gateway) has counted, credits aside.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GatewayCounters {
    /// Packets of any kind.
    pub packets_received: u64,
    /// Packets passed on.
    pub packets_forwarded: u64,
    /// Requests that got a credit.
    pub requests_admitted: u64,
    /// Requests that were answered with DROP.
    pub requests_refused: u64,
    /// Further packets of messages that were refused a moment ago.
    pub packets_of_refused: u64,
    /// Further packets, copies and retransmissions of what was admitted.
    pub packets_of_known: u64,
    /// Retransmissions that got another credit, since theirs had come back by the deadline.
    pub charged_again: u64,
    /// Operations that were forgotten before their time, because too many were remembered.
    pub forgotten: u64,
    /// Requests that are not for a replicated service.
    pub wrong_policy: u64,
    /// Requests from where nobody can be answered.
    pub unusable_source: u64,
    /// Requests that have been forwarded already, or whose header is too long.
    pub cannot_forward: u64,
    /// Packets that are neither REQUEST nor FEEDBACK.
    pub unexpected_kind: u64,
    /// FEEDBACK from who is no node.
    pub feedback_stranger: u64,
    /// Packets that are no R2P2, by [`ParseError::index`].
    pub rejected: [u64; ParseError::COUNT],
}

impl GatewayCounters {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            packets_received,
            packets_forwarded,
            requests_admitted,
            requests_refused,
            packets_of_refused,
            packets_of_known,
            charged_again,
            forgotten,
            wrong_policy,
            unusable_source,
            cannot_forward,
            unexpected_kind,
            feedback_stranger,
            rejected,
        } = *self;
        [
            ("packets_received", packets_received),
            ("packets_forwarded", packets_forwarded),
            ("requests_admitted", requests_admitted),
            ("requests_refused", requests_refused),
            ("packets_of_refused", packets_of_refused),
            ("packets_of_known", packets_of_known),
            ("charged_again", charged_again),
            ("forgotten", forgotten),
            ("wrong_policy", wrong_policy),
            ("unusable_source", unusable_source),
            ("cannot_forward", cannot_forward),
            ("unexpected_kind", unexpected_kind),
            ("feedback_stranger", feedback_stranger),
        ]
        .into_iter()
        .chain(ParseError::names().zip(rejected))
    }
}
