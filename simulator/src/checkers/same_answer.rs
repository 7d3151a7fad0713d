//! All answers to one write are equal, whoever gives them and however often (protocol.md §6.9). Answers to a read may
//! differ. That the service no longer knows an answer, or never executed the request, is no answer in this sense; nor
//! are answers of several packets looked at, whose parts need not be cut alike.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hovercraft::NodeId;
use hovercraft::entry::Entry;
use r2p2::wire::{Header, MessageType, Packet, ReplyStatus};

use super::{HISTORY_MAX, Result, Violation, bound};

/// The first answer to every write.
#[derive(Debug, Default)]
pub struct SameAnswer {
    answers: BTreeMap<(u64, u64), (NodeId, Vec<u8>)>,
    reads: BTreeSet<(u64, u64)>,
}

impl SameAnswer {
    /// An entry is executed, by whomever.
    pub fn ordered(&mut self, entry: &Entry) {
        if let (true, Some(session)) = (entry.read_only, entry.request.session) {
            self.reads.insert((session.client, session.seq));
            if self.reads.len() > HISTORY_MAX {
                self.reads.pop_first();
            }
        }
    }

    /// A node sends this packet to a client.
    ///
    /// # Errors
    /// It answers a write otherwise than it was answered before.
    pub fn answered(&mut self, node: NodeId, packet: &Bytes) -> Result {
        let Ok(view) = Packet::new_checked(&packet[..]) else { return Ok(()) };
        let Ok(header) = Header::parse(&view) else { return Ok(()) };
        let executed = matches!(header.extensions.status, None | Some(ReplyStatus::ServiceError));
        let whole = header.first && header.last;
        let Some(session) = header.extensions.session else { return Ok(()) };
        let key = (session.client, session.seq);
        if header.kind != MessageType::Response || !executed || !whole || self.reads.contains(&key) {
            return Ok(());
        }
        let found = view.payload();
        let (first, known) = self.answers.entry(key).or_insert_with(|| (node, found.to_vec()));
        if known != found {
            let (client, seq) = key;
            let (first, known, found) = (*first, known.clone(), found.to_vec());
            return Err(Violation::AnswersDiffer { client, seq, first, known, second: node, found });
        }
        bound(&mut self.answers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use r2p2::wire::{Extensions, Policy, Session};

    use super::super::samples::{N1, N2, write};
    use super::*;

    fn answer(seq: u64, status: Option<ReplyStatus>, body: &[u8]) -> Bytes {
        let session = Some(Session { client: 5, seq, first_unacked: 0 });
        let extensions = Extensions { session, status, ..Extensions::default() };
        let kind = MessageType::Response;
        let header = Header { kind, policy: Policy::Fixed, first: true, last: true, rid: 1, order: 1, extensions };
        let mut packet = vec![0; header.header_len()];
        header.emit(&mut packet);
        packet.extend_from_slice(body);
        packet.into()
    }

    #[test]
    fn equal_answers_are_fine() {
        let mut checker = SameAnswer::default();
        for node in [N1, N2] {
            assert_eq!(checker.answered(node, &answer(1, None, b"x")), Ok(()));
            assert_eq!(checker.answered(node, &answer(2, None, b"y")), Ok(()));
            assert_eq!(checker.answered(node, &answer(1, Some(ReplyStatus::ReplyGone), b"")), Ok(()));
            assert_eq!(checker.answered(node, &Bytes::from_static(b"garbage")), Ok(()));
        }
    }

    #[test]
    fn answers_to_a_read_may_differ() {
        let mut checker = SameAnswer::default();
        checker.ordered(&Entry { read_only: true, ..write(1) });
        assert_eq!(checker.answered(N1, &answer(1, None, b"x")), Ok(()));
        assert_eq!(checker.answered(N2, &answer(1, None, b"y")), Ok(()));
    }

    #[test]
    fn another_answer_is_found() {
        let mut checker = SameAnswer::default();
        checker.ordered(&write(1));
        assert_eq!(checker.answered(N1, &answer(1, None, b"x")), Ok(()));
        let differ = checker.answered(N2, &answer(1, None, b"y"));
        assert!(matches!(differ, Err(Violation::AnswersDiffer { client: 5, seq: 1, first: N1, second: N2, .. })));
    }
}
