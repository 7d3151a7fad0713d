//! The router ([`r2p2::router`]) as a [`Role`].

use std::net::SocketAddrV4;

use r2p2::Instant;
use r2p2::router::Router;

use crate::role::{Output, Role, To};

impl Role for Router {
    const NAME: &'static str = "router";

    fn handle_packet(&mut self, now: Instant, from: SocketAddrV4, packet: &[u8]) {
        Self::handle_packet(self, now, from, packet);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn poll_output(&mut self, _: Instant) -> Output {
        match self.poll_transmit() {
            Some((to, packet)) => Output::Send { to: To::One(to), packet },
            None => Output::Timeout(self.next_timeout().unwrap_or(Instant::FAR_FUTURE)),
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let all = Self::counters(self).iter().chain(self.credits_counters().iter());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn gauges(&self) -> Vec<(String, u64)> {
        let own = [("in_flight", self.in_flight()), ("waiting", self.waiting()), ("workers", self.workers().count())];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value as u64));
        own.chain(self.workers().map(|(at, unanswered)| (format!("unanswered.{at}"), unanswered as u64))).collect()
    }
}
