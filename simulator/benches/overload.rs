//! Overload with and without the gateway: what clients get done, and how long what was admitted took.
//!
//! ```text
//! cargo bench -p simulator --bench overload
//! ```
//!
//! In virtual time, with the real cores: three nodes that need 5 µs for every datagram they read, so that the leader is
//! what limits the group, and 200 clients. Requests come at random moments (Poisson), whether others have been answered or
//! not, and whoever is not answered within 50 ms has no use for the answer any more. First the peak is found without a
//! gateway; then three times as much is asked for. The gateway and the clients cost nothing here.
//!
//! *goodput* counts operations answered in time. *admitted* is how long the group has an operation: from when the first copy
//! leaves the gateway (without: the client) to when its answer leaves a node, operations given up included.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use multicast::gateway::GatewayConfig;
use r2p2::client::{Kind, Outcome, Route};
use r2p2::wire::{Header, Packet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::registers::Request;
use simulator::{Flight, Party, Registers, World, WorldConfig};

const CLIENTS: usize = 200;
const PROCESSING: Duration = Duration::from_micros(5);
const PATIENCE: Duration = Duration::from_millis(50);
const WARM: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_millis(200);

fn main() {
    println!("3 nodes, {PROCESSING:?} per datagram; answers are of use for {PATIENCE:?}");
    println!(
        "{:<34} {:>10} {:>10} {:>12} {:>14} {:>14}",
        "", "offered/s", "goodput/s", "given up/s", "admitted p50", "admitted p99"
    );
    let mut peak = (0.0, 0.0);
    for offered in [20e3, 40e3, 45e3, 50e3, 55e3, 60e3] {
        let run = run(offered, None);
        print("without gateway", offered, &run);
        if run.goodput > peak.1 {
            peak = (offered, run.goodput);
        }
    }
    let offered = peak.1 * 3.0;
    println!("\npeak {:.0}/s; three times that:", peak.1);
    let count = |in_flight_max| GatewayConfig { in_flight_max, ..GatewayConfig::default() };
    let delay = |micros| GatewayConfig {
        in_flight_max: 65_536,
        delay_target: Some(Duration::from_micros(micros)),
        ..GatewayConfig::default()
    };
    for (name, gateway) in [
        ("without gateway", None),
        ("gateway, 32 in flight", Some(count(32))),
        ("gateway, 256 in flight", Some(count(256))),
        ("gateway, delay target 2 ms", Some(delay(2_000))),
    ] {
        let run = run(offered, gateway);
        print(name, offered, &run);
        println!("{:<34} {:>9.1} % of the peak", "", run.goodput / peak.1 * 100.0);
    }
}

fn print(name: &str, offered: f64, run: &Run) {
    println!(
        "{name:<34} {offered:>10.0} {:>10.0} {:>12.0} {:>11.0} µs {:>11.0} µs",
        run.goodput,
        run.given_up,
        run.quantile(0.5),
        run.quantile(0.99)
    );
}

struct Run {
    goodput: f64,
    given_up: f64,
    /// Sorted, in nanoseconds.
    admitted: Vec<u64>,
}

impl Run {
    fn quantile(&self, share: f64) -> f64 {
        let at = ((self.admitted.len() as f64 * share) as usize).min(self.admitted.len().saturating_sub(1));
        self.admitted.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    }
}

/// When the group got an operation, by session and seq, and how long it had it.
#[derive(Default)]
struct Seen {
    began: BTreeMap<(u64, u64), u64>,
    took: Vec<u64>,
    measuring: bool,
}

impl Seen {
    fn look(&mut self, flight: &Flight<'_>, has_gateway: bool) {
        let entrance = if has_gateway { Party::Gateway } else { flight.from };
        let is_request = flight.what == "request" && flight.from == entrance && matches!(flight.to, Party::Node(1));
        let is_answer = flight.what == "response" && matches!(flight.to, Party::Client(_));
        if !is_request && !is_answer {
            return;
        }
        let header = Packet::new_checked(&flight.packet[..]).and_then(|packet| Header::parse(&packet));
        let Some(session) = header.ok().and_then(|header| header.extensions.session) else { return };
        let name = (session.client, session.seq);
        if is_request {
            self.began.entry(name).or_insert(flight.at.as_nanos());
        } else if let Some(began) = self.began.insert(name, u64::MAX).filter(|began| *began != u64::MAX)
            && self.measuring
        {
            self.took.push(flight.at.as_nanos() - began);
        }
    }
}

fn run(offered: f64, gateway: Option<GatewayConfig>) -> Run {
    let mut config = WorldConfig::new(1, 3);
    config.clients = CLIENTS;
    config.network.processing = PROCESSING;
    config.client.give_up = PATIENCE;
    config.client.outstanding_max = 4096;
    config.client.held_max = 4096;
    let has_gateway = gateway.is_some();
    if has_gateway {
        config.client.fan_out = Route::Group;
        config.client.unicast_after = 6;
        config.client.packet_max -= r2p2::FORWARDED_LEN;
    }
    config.gateway = gateway;
    let mut world = World::new(config, Registers::default);
    world.elect();
    // Sessions first: without one nobody is refused or late.
    for client in 0..CLIENTS {
        world.submit(client, Kind::Read, Request::Get(0).encode());
        world.run_for(Duration::from_millis(2));
        world.completions(client);
    }
    let seen = Rc::new(RefCell::new(Seen::default()));
    let shared = Rc::clone(&seen);
    world.lose_when(move |flight| {
        shared.borrow_mut().look(flight, has_gateway);
        false
    });
    let mut rng = SmallRng::seed_from_u64(5);
    let begin = world.now();
    let mut next = begin;
    let (mut answered, mut given_up) = (0_u64, 0_u64);
    while world.now().since(begin) < WARM + MEASURED {
        let measuring = world.now().since(begin) >= WARM;
        seen.borrow_mut().measuring = measuring;
        while next <= world.now() {
            let client = rng.random_range(0..CLIENTS);
            // Who has too much to do already does without: that is one that was not answered.
            let request = Request::Add(rng.random_range(0..64), 1);
            given_up += u64::from(world.try_submit(client, Kind::Write, request.encode()).is_err() && measuring);
            next += Duration::from_nanos((-1e9 / offered * (1.0 - rng.random::<f64>()).ln()) as u64);
        }
        let wait = next.since(world.now());
        world.run_for(wait);
        for client in 0..CLIENTS {
            for (_, completion) in world.completions(client) {
                if measuring {
                    answered += u64::from(matches!(completion.outcome, Outcome::Ok(_)));
                    given_up += u64::from(!matches!(completion.outcome, Outcome::Ok(_)));
                }
            }
        }
    }
    let mut admitted = std::mem::take(&mut seen.borrow_mut().took);
    admitted.sort_unstable();
    let seconds = MEASURED.as_secs_f64();
    Run { goodput: answered as f64 / seconds, given_up: given_up as f64 / seconds, admitted }
}
