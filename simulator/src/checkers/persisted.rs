//! What a node lets others rely on is on its disk (protocol.md §6.1, §6.2): term and vote before a vote or a request
//! for votes leaves, entries before they are acknowledged or counted.

use hovercraft::message::Message;
use hovercraft::storage::HardState;
use hovercraft::{LogIndex, MemberId, NodeId, Term};

use super::{Result, Violation};

/// A node whose disk has `safe` says something in `term` to `to`, all of the group if that is none.
///
/// # Errors
/// It promises a vote that a crash would make it forget.
pub fn voted(me: MemberId, safe: HardState, term: Term, to: Option<NodeId>, message: &Message) -> Result {
    let vote = match message {
        Message::Vote(vote) if !vote.pre => Some(me.node()),
        Message::VoteReply(reply) if !reply.pre && !reply.reject => to,
        _ => return Ok(()),
    };
    if safe.term > term || safe.term == term && safe.vote.map(MemberId::node) == vote {
        Ok(())
    } else {
        Err(Violation::VoteNotPersisted { node: me.node(), term, vote, safe_term: safe.term, safe_vote: safe.vote })
    }
}

/// A node whose disk has the term `safe` acknowledges everything up to `matched` to the leader of `term`.
///
/// # Errors
/// A crash would make it follow leaders of terms before that one again.
pub fn acknowledged(node: NodeId, term: Term, matched: LogIndex, safe: Term) -> Result {
    if matched == 0 || safe >= term { Ok(()) } else { Err(Violation::TermNotPersisted { node, term, safe }) }
}

/// A node counts or acknowledges everything up to `index`, whose entry is of `term`; on its disk that is of term `safe`,
/// or not there.
///
/// # Errors
/// A crash would make it forget what it lets others count on.
pub fn counted(node: NodeId, index: LogIndex, term: Option<Term>, safe: Option<Term>) -> Result {
    // Entries that are no longer in memory were compared when they were counted.
    if index == 0 || term.is_none() || term == safe {
        Ok(())
    } else {
        Err(Violation::EntryNotPersisted { node, index, term, safe })
    }
}

#[cfg(test)]
mod tests {
    use hovercraft::Incarnation;
    use hovercraft::message::{Vote, VoteReply};

    use super::*;

    const N1: MemberId = MemberId::new(NodeId(1), Incarnation(1));
    const N2: MemberId = MemberId::new(NodeId(2), Incarnation(1));
    const GRANTED: Message = Message::VoteReply(VoteReply { pre: false, reject: false, commit: 0, commit_term: 0 });

    fn request(pre: bool) -> Message {
        Message::Vote(Vote { pre, transfer: false, last: 0, last_term: 0, commit: 0, commit_term: 0 })
    }

    #[test]
    fn a_safe_vote_may_be_told() {
        let safe = HardState { term: 3, vote: Some(N2) };
        assert_eq!(voted(N1, safe, 3, Some(N2.node()), &GRANTED), Ok(()));
        assert_eq!(voted(N1, safe, 2, Some(N1.node()), &GRANTED), Ok(()), "of a term that is over");
        assert_eq!(voted(N1, safe, 9, None, &request(true)), Ok(()), "nothing is promised by asking whether");
        assert_eq!(voted(N2, safe, 3, Some(N1.node()), &request(false)), Ok(()));
    }

    #[test]
    fn a_vote_that_may_be_forgotten_is_found() {
        for safe in [HardState { term: 2, vote: Some(N2) }, HardState { term: 3, vote: None }] {
            assert!(matches!(voted(N1, safe, 3, Some(N2.node()), &GRANTED), Err(Violation::VoteNotPersisted { .. })));
            assert!(matches!(
                voted(N2, safe, 3, Some(N1.node()), &request(false)),
                Err(Violation::VoteNotPersisted { .. })
            ));
        }
        let other = HardState { term: 3, vote: Some(N1) };
        assert!(matches!(voted(N1, other, 3, Some(N2.node()), &GRANTED), Err(Violation::VoteNotPersisted { .. })));
    }

    #[test]
    fn an_acknowledgement_in_a_term_that_may_be_forgotten_is_found() {
        assert_eq!(acknowledged(NodeId(1), 3, 7, 3), Ok(()));
        assert_eq!(acknowledged(NodeId(1), 3, 7, 4), Ok(()), "of a term that is over");
        assert_eq!(acknowledged(NodeId(1), 3, 0, 2), Ok(()), "nothing is promised");
        let forgotten = Violation::TermNotPersisted { node: NodeId(1), term: 3, safe: 2 };
        assert_eq!(acknowledged(NodeId(1), 3, 7, 2), Err(forgotten));
    }

    #[test]
    fn an_entry_that_may_be_forgotten_is_found() {
        assert_eq!(counted(NodeId(1), 7, Some(2), Some(2)), Ok(()));
        assert_eq!(counted(NodeId(1), 0, Some(0), None), Ok(()));
        for safe in [None, Some(1)] {
            let lost = Violation::EntryNotPersisted { node: NodeId(1), index: 7, term: Some(2), safe };
            assert_eq!(counted(NodeId(1), 7, Some(2), safe), Err(lost));
        }
    }
}
