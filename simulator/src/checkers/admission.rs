//! §9 What a gateway does, judged by the packets that reach it and leave it: never has it more requests in flight than it
//! may; what it has let pass it lets pass again; and of a message of several packets it lets all pass or none.
//!
//! This keeps books of its own. They know less than the gateway's: what is named in any FEEDBACK of a node counts as
//! answered here, whatever number it has. So what they say is in flight is at most what the gateway knows to be.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use multicast::gateway::GatewayConfig;
use r2p2::Instant;
use r2p2::credit::RpcId;
use r2p2::reassembly::COPY_AGE_MAX;
use r2p2::wire::{Feedback, Header, MessageType, Packet, Policy};

use super::{Result, Violation};

/// A gateway forgets when it is next woken, which may be this much later.
const MARGIN: Duration = Duration::from_millis(5);
/// After how many entries the books are looked through for what is over.
const TIDY_EVERY: usize = 4096;

/// The books about one gateway process.
#[derive(Debug, Default)]
pub struct Admission {
    deadline: Duration,
    remember: Duration,
    passed: BTreeMap<Operation, Passed>,
    by_rpc: BTreeMap<RpcId, Operation>,
    /// When the first packet of a message of several was refused.
    refused: BTreeMap<Operation, Instant>,
}

/// An operation, by client and seq, or by its RPC id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Of a session.
    Session(u64, u64),
    /// A session to be opened.
    Opening(SocketAddrV4, u64),
    /// Without one.
    Plain(RpcId),
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Instant,
    answered: bool,
}

impl Admission {
    /// A process starts that has let nothing pass.
    pub fn started(&mut self, config: &GatewayConfig) {
        *self = Self { deadline: config.credit_deadline, remember: config.remember, ..Self::default() };
    }

    /// A packet from `from` has come to a gateway which may have `limit` in flight, and this is what it has sent at that.
    ///
    /// # Errors
    /// It did what it may not.
    pub fn judges(
        &mut self,
        now: Instant,
        limit: usize,
        from: SocketAddrV4,
        is_node: bool,
        packet: &[u8],
        said: &[Bytes],
    ) -> Result {
        let Ok(packet) = Packet::new_checked(packet) else { return Ok(()) };
        if packet.kind() == MessageType::Feedback && is_node {
            self.answered(packet.payload());
            return Ok(());
        }
        let Ok(header) = Header::parse(&packet) else { return Ok(()) };
        let replicated = matches!(header.policy, Policy::Replicated | Policy::ReplicatedNoSideEffects);
        if header.kind != MessageType::Request || !replicated {
            return Ok(());
        }
        let rpc = RpcId { client: from, rid: header.rid };
        let operation = match header.extensions.session {
            Some(session) if session.client != 0 => Operation::Session(session.client, session.seq),
            Some(opening) => Operation::Opening(from, opening.seq),
            None => Operation::Plain(rpc),
        };
        let kind_of = |packet: &Bytes| Packet::new_checked(&packet[..]).map(|packet| packet.kind()).ok();
        let says = |kind| said.iter().any(|packet| kind_of(packet) == Some(kind));
        if says(MessageType::Request) {
            self.passes(now, limit, rpc, operation)
        } else if says(MessageType::Drop) {
            self.refuses(now, operation, header.first && header.last)
        } else {
            Ok(())
        }
    }

    /// How many are in flight for certain.
    pub fn in_flight(&self, now: Instant) -> usize {
        self.passed.values().filter(|passed| !passed.answered && now < passed.at + self.deadline).count()
    }

    fn passes(&mut self, now: Instant, limit: usize, rpc: RpcId, operation: Operation) -> Result {
        if self.refused.get(&operation).is_some_and(|at| now < *at + COPY_AGE_MAX) {
            return Err(Violation::MessageTorn { operation });
        }
        if !self.is_certainly_new(now, operation) {
            return Ok(());
        }
        // The number was another operation's, which nobody waits for any more.
        if let Some(before) = self.by_rpc.insert(rpc, operation)
            && let Some(passed) = self.passed.get_mut(&before)
        {
            passed.answered = true;
        }
        let in_flight = self.in_flight(now);
        if in_flight >= limit {
            return Err(Violation::AdmittedTooMany { operation, in_flight, limit });
        }
        self.passed.insert(operation, Passed { at: now, answered: false });
        if self.passed.len().is_multiple_of(TIDY_EVERY) {
            let remember = self.remember + MARGIN;
            self.passed.retain(|_, passed| now < passed.at + remember);
            let passed = &self.passed;
            self.by_rpc.retain(|_, operation| passed.contains_key(operation));
            self.refused.retain(|_, at| now < *at + COPY_AGE_MAX);
        }
        Ok(())
    }

    fn refuses(&mut self, now: Instant, operation: Operation, is_whole: bool) -> Result {
        if let Some(passed) = self.passed.get(&operation) {
            let known = match operation {
                Operation::Plain(_) => !passed.answered && now < passed.at + self.deadline,
                Operation::Session(..) | Operation::Opening(..) => now < passed.at + self.remember,
            };
            if known {
                return Err(Violation::KnownRefused { operation });
            }
        }
        if !is_whole {
            self.refused.insert(operation, now);
        }
        Ok(())
    }

    fn is_certainly_new(&self, now: Instant, operation: Operation) -> bool {
        let Some(passed) = self.passed.get(&operation) else { return true };
        let known_for = match operation {
            Operation::Plain(_) if passed.answered => return false,
            Operation::Plain(_) => self.deadline,
            Operation::Session(..) | Operation::Opening(..) => self.remember,
        };
        now > passed.at + known_for + MARGIN
    }

    fn answered(&mut self, payload: &[u8]) {
        for item in payload.chunks_exact(Feedback::LEN) {
            let Ok(Feedback { rid, client }) = Feedback::parse(item) else { continue };
            let operation = self.by_rpc.get(&RpcId { client, rid });
            if let Some(passed) = operation.and_then(|operation| self.passed.get_mut(operation)) {
                passed.answered = true;
                if let Some(plain @ Operation::Plain(_)) = operation {
                    let plain = *plain;
                    self.passed.remove(&plain);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use r2p2::message::{MessageHead, write_packets};
    use r2p2::wire::{Extensions, Session, write_drop, write_feedback};

    use super::*;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 5000);
    const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9000);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn books() -> Admission {
        let mut books = Admission::default();
        let config = GatewayConfig {
            credit_deadline: Duration::from_millis(100),
            remember: Duration::from_secs(1),
            ..GatewayConfig::default()
        };
        books.started(&config);
        books
    }

    fn request(seq: u64, len: usize) -> Vec<Bytes> {
        let session = Some(Session { client: 7, seq, first_unacked: 0 });
        let extensions = Extensions { session, no_handshake: len > 1400, ..Extensions::default() };
        let rid = seq as u16;
        let head = MessageHead { kind: MessageType::Request, policy: Policy::Replicated, rid, extensions };
        let mut packets = Vec::new();
        write_packets(&head, &vec![1; len], 1472, &mut |packet| packets.push(packet)).unwrap();
        packets
    }

    fn pass(books: &mut Admission, now: Instant, packet: &Bytes) -> Result {
        books.judges(now, 2, CLIENT, false, packet, std::slice::from_ref(packet))
    }

    fn refuse(books: &mut Admission, now: Instant, packet: &Bytes) -> Result {
        books.judges(now, 2, CLIENT, false, packet, &[write_drop(1)])
    }

    #[test]
    fn one_more_than_may_be_is_noticed() {
        let mut books = books();
        let packets: Vec<Bytes> = (0..4).map(|seq| request(seq, 5).remove(0)).collect();
        assert_eq!(pass(&mut books, at(0), &packets[0]), Ok(()));
        assert_eq!(pass(&mut books, at(0), &packets[1]), Ok(()));
        assert_eq!(pass(&mut books, at(1), &packets[0]), Ok(()), "again");
        assert!(matches!(pass(&mut books, at(1), &packets[2]), Err(Violation::AdmittedTooMany { .. })));
        let feedback = write_feedback(&Feedback { rid: 0, client: CLIENT });
        assert_eq!(books.judges(at(2), 2, CLIENT, false, &feedback, &[]), Ok(()), "says nobody");
        assert_eq!(books.in_flight(at(2)), 2);
        assert_eq!(books.judges(at(2), 2, NODE, true, &feedback, &[]), Ok(()));
        assert_eq!(pass(&mut books, at(2), &packets[2]), Ok(()));
        assert_eq!(books.in_flight(at(100)), 1, "the deadline");
        assert_eq!(pass(&mut books, at(101), &packets[3]), Ok(()));
    }

    #[test]
    fn what_has_passed_may_not_be_refused() {
        let mut books = books();
        let packet = request(0, 5).remove(0);
        assert_eq!(refuse(&mut books, at(0), &packet), Ok(()));
        assert_eq!(pass(&mut books, at(0), &packet), Ok(()));
        assert!(matches!(refuse(&mut books, at(999), &packet), Err(Violation::KnownRefused { .. })));
        assert_eq!(refuse(&mut books, at(1000), &packet), Ok(()), "it may have been forgotten");
    }

    #[test]
    fn a_message_in_two_is_noticed() {
        let mut books = books();
        let packets = request(0, 2000);
        assert_eq!(refuse(&mut books, at(0), &packets[0]), Ok(()));
        assert!(matches!(pass(&mut books, at(1), &packets[1]), Err(Violation::MessageTorn { .. })));
        assert_eq!(pass(&mut books, at(20), &packets[0]), Ok(()), "a retransmission");
        assert!(matches!(refuse(&mut books, at(21), &packets[1]), Err(Violation::KnownRefused { .. })));
    }
}
