//! What this node tells gateways and routers (protocol.md §9): that it is a worker, and which requests it has refused, or
//! answered without executing them. What is executed, the applier tells.

use std::time::Duration;

use r2p2::Instant;
use r2p2::wire::Feedback;

use super::{Node, Output};
use crate::entry::RequestHead;

/// How often a worker says that it is one: four times within the time after which a router takes it for dead.
const REGISTER_EVERY: Duration = Duration::from_millis(250);

impl Node {
    /// A request does not burden the group any more.
    pub(super) fn finished(&mut self, request: &RequestHead) {
        if !self.config.forwarders.is_empty() {
            self.feedback.answered(Feedback { rid: request.rid, client: request.client });
        }
    }

    pub(super) fn flush_feedback(&mut self) {
        if !self.feedback.is_fresh() {
            return;
        }
        let Self { feedback, config, outputs, .. } = self;
        feedback.flush(&mut |packet| {
            outputs.extend(config.forwarders.iter().map(|to| Output::Client { to: *to, packet: packet.clone() }));
        });
    }

    /// Says that this is a worker, if it is one and has not said so for a while.
    pub(super) fn register(&mut self, now: Instant) {
        if self.config.registers && now >= self.next_registration {
            self.next_registration = now + REGISTER_EVERY;
            self.tell_registration(false);
        }
    }

    /// Says that this is no worker any more, if it was one.
    pub(super) fn leave_routers(&mut self) {
        if self.config.registers {
            self.tell_registration(true);
        }
    }

    fn tell_registration(&mut self, leaves: bool) {
        let packet = self.feedback.registration(leaves);
        let forwarders = self.config.forwarders.iter();
        self.outputs.extend(forwarders.map(|to| Output::Client { to: *to, packet: packet.clone() }));
    }
}
