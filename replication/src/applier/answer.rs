//! What a client is told.

use std::net::SocketAddrV4;

use bytes::Bytes;
use r2p2::server::{write_drop, write_response};
use r2p2::wire::{Extensions, ReplyStatus};

use super::ApplierCounters;
use crate::entry::RequestHead;
use crate::id::LogIndex;

/// The answer to a request.
pub(super) struct Answer<'a> {
    /// The entry that executed the request, or refused it; `None` if that is not known.
    pub(super) index: Option<LogIndex>,
    /// `None` for plain success.
    pub(super) status: Option<ReplyStatus>,
    pub(super) body: &'a [u8],
}

/// The longest reply that fits the packets of one message, whatever its extensions.
pub(super) fn body_max(packet_max: usize) -> usize {
    packet_max.saturating_sub(Extensions::HEADER_LEN_MAX).saturating_mul(usize::from(u16::MAX))
}

impl Answer<'_> {
    /// An answer that says nothing else.
    pub(super) const fn status(status: ReplyStatus, index: Option<LogIndex>) -> Self {
        Self { index, status: Some(status), body: &[] }
    }

    /// Sends it to the client of `request`, with the epoch of the membership.
    ///
    /// A client without a session gets the format of the C implementation, which has no place for a status. It is told
    /// nothing but success: it would take a DROP of its only copy for "certainly not executed" (protocol.md §9).
    pub(super) fn send(
        &self,
        request: &RequestHead,
        epoch: u64,
        packet_max: usize,
        counters: &mut ApplierCounters,
        send: &mut dyn FnMut(SocketAddrV4, Bytes),
    ) {
        let extensions = match (request.session, self.status) {
            (None, Some(_)) => {
                counters.answers_withheld += 1;
                return;
            }
            (None, None) => Extensions::default(),
            (Some(_), status) => Extensions {
                session: request.session,
                entry_index: self.index,
                status,
                epoch: Some(epoch),
                ..Extensions::default()
            },
        };
        write_response(request.rid, extensions, self.body, packet_max, &mut |packet| send(request.client, packet))
            .expect("reply_max has been checked against packet_max");
        counters.replies_sent += 1;
    }
}

/// Tells the client of `request` that it is not accepted now.
pub(super) fn drop_request(
    request: &RequestHead,
    counters: &mut ApplierCounters,
    send: &mut dyn FnMut(SocketAddrV4, Bytes),
) {
    send(request.client, write_drop(request.rid));
    counters.drops_sent += 1;
}
