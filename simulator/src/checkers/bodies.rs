//! A node acknowledges an entry only if it holds the body with that digest, and has persisted both (protocol.md §6.2). An
//! entry enters the log with its body, and nothing beyond what of the log is persisted is acknowledged; both halves are
//! checked.

use bytes::Bytes;
use hovercraft::entry::{Entry, EntryKind, identity};
use hovercraft::{LogIndex, NodeId};
use r2p2::DigestKey;

use super::{Result, Violation};

/// A node's log holds this entry with this body.
///
/// # Errors
/// It is not the body that the entry names.
pub fn holds(key: &DigestKey, node: NodeId, index: LogIndex, entry: &Entry, body: &Bytes) -> Result {
    if entry.kind != EntryKind::Request {
        return Ok(());
    }
    let (request, expected, found) = (&entry.request, entry.request.body_len as usize, body.len());
    if found != expected {
        return Err(Violation::BodyMissing { node, index, expected, found });
    }
    let named = identity(key, request.client, request.rid, request.session.as_ref(), body);
    if named == request.identity { Ok(()) } else { Err(Violation::BodyWrong { node, index }) }
}

/// A node that has persisted its log up to `persisted` acknowledges everything up to `matched`.
///
/// # Errors
/// It does not have that, or would not have it after a crash.
pub fn acknowledged(node: NodeId, matched: LogIndex, persisted: LogIndex) -> Result {
    if matched <= persisted { Ok(()) } else { Err(Violation::AcknowledgedTooMuch { node, matched, persisted }) }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{N1, write};
    use super::*;

    fn entry_for(body: &Bytes) -> Entry {
        let mut entry = write(1);
        let request = &mut entry.request;
        request.body_len = body.len() as u32;
        request.identity = identity(&DigestKey::default(), request.client, request.rid, request.session.as_ref(), body);
        entry
    }

    #[test]
    fn the_body_that_is_named_is_fine() {
        let body = Bytes::from_static(b"body");
        assert_eq!(holds(&DigestKey::default(), N1, 1, &entry_for(&body), &body), Ok(()));
        assert_eq!(holds(&DigestKey::default(), N1, 1, &Entry::term_start(), &Bytes::new()), Ok(()));
        assert_eq!(acknowledged(N1, 7, 7), Ok(()));
    }

    #[test]
    fn no_body_and_another_body_are_found() {
        let entry = entry_for(&Bytes::from_static(b"body"));
        let missing = Violation::BodyMissing { node: N1, index: 1, expected: 4, found: 0 };
        assert_eq!(holds(&DigestKey::default(), N1, 1, &entry, &Bytes::new()), Err(missing));
        let wrong = Violation::BodyWrong { node: N1, index: 1 };
        assert_eq!(holds(&DigestKey::default(), N1, 1, &entry, &Bytes::from_static(b"ydob")), Err(wrong));
    }

    #[test]
    fn an_acknowledgement_of_what_is_not_there_is_found() {
        let beyond = Violation::AcknowledgedTooMuch { node: N1, matched: 8, persisted: 7 };
        assert_eq!(acknowledged(N1, 8, 7), Err(beyond));
    }
}
