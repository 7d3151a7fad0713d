//! Bodies that multicast lost: asked for, given, taken (protocol.md §7.1).

use bytes::Bytes;
use r2p2::{Digest, Instant};

use super::Node;
use crate::entry::{RequestHead, identity};
use crate::id::MemberId;
use crate::message::{Bodies, Body, Fetch, FetchItem, Message};

impl Node {
    pub(super) fn ask_for_bodies(&mut self, now: Instant) {
        for (peer, fetch) in self.fetcher.ask(now, &self.holders) {
            self.counters.fetches_sent += 1;
            self.send(peer.node(), self.consensus.term(), &Message::Fetch(fetch));
        }
    }

    /// Answers with what is here, a datagram at a time, and with what is not.
    pub(super) fn give_bodies(&mut self, to: MemberId, fetch: &Fetch) {
        let budget = self.config.limits.packet_max.saturating_sub(128);
        let mut answer = Bodies { found: Vec::new(), missing: Vec::new() };
        let mut len = 0;
        for item in &fetch.items {
            let Some(body) = self.find_body(item) else {
                self.counters.bodies_not_here += 1;
                answer.missing.push(item.identity);
                len += 16;
                continue;
            };
            self.counters.bodies_given += 1;
            if len > 0 && len + body.encoded_len() > budget {
                let full = std::mem::replace(&mut answer, Bodies { found: Vec::new(), missing: Vec::new() });
                self.send(to.node(), self.consensus.term(), &Message::Bodies(full));
                len = 0;
            }
            len += body.encoded_len();
            answer.found.push(body);
        }
        if len > 0 {
            self.send(to.node(), self.consensus.term(), &Message::Bodies(answer));
        }
    }

    pub(super) fn take_bodies(&mut self, now: Instant, bodies: Bodies) {
        for missing in &bodies.missing {
            self.fetcher.not_there(now, missing);
        }
        let mut new = false;
        for Body { mut head, body } in bodies.found {
            // The identity does not cover it, so a damaged one would not show, and would fence off what its client still
            // wants. Left out, the client's next request says it again.
            if let Some(session) = &mut head.session {
                session.first_unacked = 0;
            }
            let proper = mutated!(FetchedBodyUnchecked)
                || head.body_len as usize == body.len() && self.identity_of(&head, &body) == head.identity;
            if !proper || !self.fetcher.done(&head.identity) {
                self.counters.bodies_unwanted += 1;
                continue;
            }
            self.counters.bodies_fetched += 1;
            new = true;
            self.take_fetched(now, head, body);
        }
        if new {
            self.retry_held(now);
        }
        self.ask_for_bodies(now);
    }

    /// Notes that a body is missing.
    pub(super) fn want_body(&mut self, now: Instant, identity: Digest, index: u64, ask_first: Option<MemberId>) {
        if !self.fetcher.wants(&identity) {
            self.counters.bodies_missing += 1;
        }
        if !self.fetcher.want(now, identity, index, ask_first) {
            self.counters.fetches_refused_full += 1;
        }
    }

    /// Whether the body of this request is here.
    pub(super) fn has_body(&self, identity: &Digest) -> bool {
        self.unordered.contains(identity) || self.consensus.log().find(identity).is_some()
    }

    /// How long the body of this request is, if it is here. An entry that says otherwise is not about this request.
    pub(super) fn body_len(&self, identity: &Digest) -> Option<usize> {
        let waiting = self.unordered.get(identity).map(|waiting| waiting.body.len());
        waiting.or_else(|| self.body_in_log(identity).map(|body| body.len()))
    }

    pub(super) fn identity_of(&self, head: &RequestHead, body: &[u8]) -> Digest {
        identity(&self.config.digest_key, head.client, head.rid, head.session.as_ref(), body)
    }

    fn find_body(&self, item: &FetchItem) -> Option<Body> {
        let log = self.consensus.log();
        let in_log = |index| log.get(index).filter(|record| record.entry.request.identity == item.identity);
        if let Some(record) = in_log(item.index).or_else(|| in_log(log.find(&item.identity)?)) {
            return Some(Body { head: record.entry.request, body: record.body.clone() });
        }
        let waiting = self.unordered.get(&item.identity)?;
        Some(Body { head: waiting.head, body: Bytes::clone(&waiting.body) })
    }
}
