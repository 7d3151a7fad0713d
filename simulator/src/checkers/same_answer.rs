//! All answers to one write are equal, whoever gives them and however often, the entry they name included. Answers to a
//! read may differ, but not those that name the same entry: each is the state there (protocol.md §6.9). That the service
//! no longer knows an answer, or never executed the request, is no answer in this sense; nor are answers of several
//! packets looked at, whose parts need not be cut alike.

use bytes::Bytes;
use hovercraft::entry::Entry;
use hovercraft::{LogIndex, NodeId};
use r2p2::wire::{Header, MessageType, Packet, ReplyStatus};

use super::recent::Recent;
use super::{HISTORY_MAX, Result, Violation};

/// The first answer to every write, and to every read at every index.
#[derive(Debug, Default)]
pub struct SameAnswer {
    /// By (client, seq, the entry it names or none); of a write there is one, whatever it names.
    answers: Recent<(u64, u64, Option<LogIndex>), Answer, HISTORY_MAX>,
    reads: Recent<(u64, u64), (), HISTORY_MAX>,
}

#[derive(Debug)]
struct Answer {
    by: NodeId,
    index: Option<LogIndex>,
    body: Vec<u8>,
}

impl SameAnswer {
    /// An entry is executed, by whomever.
    pub fn ordered(&mut self, entry: &Entry) {
        if let (true, Some(session)) = (entry.read_only, entry.request.session) {
            self.reads.get_or_insert_with((session.client, session.seq), || ());
        }
    }

    /// A node sends this packet to a client.
    ///
    /// # Errors
    /// It answers a write otherwise than it was answered before, or a read otherwise than at the same entry.
    pub fn answered(&mut self, node: NodeId, packet: &Bytes) -> Result {
        let Ok(view) = Packet::new_checked(&packet[..]) else { return Ok(()) };
        let Ok(header) = Header::parse(&view) else { return Ok(()) };
        let executed = matches!(header.extensions.status, None | Some(ReplyStatus::ServiceError));
        let whole = header.first && header.last;
        let Some(session) = header.extensions.session else { return Ok(()) };
        if header.kind != MessageType::Response || !executed || !whole {
            return Ok(());
        }
        let (client, seq, index) = (session.client, session.seq, header.extensions.entry_index);
        let is_read = self.reads.contains(&(client, seq));
        let body = view.payload();
        let key = (client, seq, index.filter(|_| is_read));
        let first = self.answers.get_or_insert_with(key, || Answer { by: node, index, body: body.to_vec() });
        if (first.index, &first.body[..]) == (index, body) {
            return Ok(());
        }
        Err(Violation::AnswersDiffer {
            client,
            seq,
            first: first.by,
            first_index: first.index.unwrap_or(0),
            known: first.body.clone(),
            second: node,
            second_index: index.unwrap_or(0),
            found: body.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use r2p2::wire::{Extensions, Policy, Session};

    use super::super::samples::{N1, N2, write};
    use super::*;

    fn answer(seq: u64, status: Option<ReplyStatus>, body: &[u8]) -> Bytes {
        answer_at(seq + 10, seq, status, body)
    }

    fn answer_at(index: LogIndex, seq: u64, status: Option<ReplyStatus>, body: &[u8]) -> Bytes {
        let session = Some(Session { client: 5, seq, first_unacked: 0 });
        let entry_index = (status != Some(ReplyStatus::ReplyGone)).then_some(index);
        let extensions = Extensions { session, entry_index, status, ..Extensions::default() };
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
    fn answers_to_a_read_at_different_entries_may_differ() {
        let mut checker = SameAnswer::default();
        checker.ordered(&Entry { read_only: true, ..write(1) });
        assert_eq!(checker.answered(N1, &answer_at(11, 1, None, b"x")), Ok(()));
        assert_eq!(checker.answered(N2, &answer_at(12, 1, None, b"y")), Ok(()));
        assert_eq!(checker.answered(N2, &answer_at(11, 1, None, b"x")), Ok(()));
    }

    #[test]
    fn answers_to_a_read_at_one_entry_that_differ_are_found() {
        let mut checker = SameAnswer::default();
        checker.ordered(&Entry { read_only: true, ..write(1) });
        assert_eq!(checker.answered(N1, &answer_at(11, 1, None, b"x")), Ok(()));
        let differ = checker.answered(N2, &answer_at(11, 1, None, b"y"));
        assert!(matches!(differ, Err(Violation::AnswersDiffer { first: N1, second: N2, second_index: 11, .. })));
    }

    #[test]
    fn an_answer_to_a_write_that_names_another_entry_is_found() {
        let mut checker = SameAnswer::default();
        checker.ordered(&write(1));
        assert_eq!(checker.answered(N1, &answer_at(11, 1, None, b"x")), Ok(()));
        let differ = checker.answered(N2, &answer_at(12, 1, None, b"x"));
        assert!(matches!(differ, Err(Violation::AnswersDiffer { first_index: 11, second_index: 12, .. })));
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
