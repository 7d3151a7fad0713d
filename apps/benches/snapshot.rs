//! `cargo bench -p hovercraft-apps --bench snapshot`: how long operations take while every node of a durable cluster writes
//! a snapshot of 1 GB of the key-value store, against before. `-- 200` for 200 MB.
//!
//! Three nodes in this process, so they share its processors and its disk. What counts is the ratio, and that nobody
//! stands for election meanwhile.

use std::env;
use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use hovercraft::admin::AdminCommand;
use hovercraft::client::{Kind, Operator, Outcome, PipelinedClient};
use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts};
use hovercraft::node::StatusReport;
use hovercraft::{NodeId, runtime};
use hovercraft_apps::kv::{Kv, Request};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Bytes of each value.
const VALUE: usize = 1000;
/// In flight while the store is filled.
const FILLING: usize = 256;
/// Operations a second while latencies are measured; half of them writes.
const RATE: u32 = 1000;
/// What a client may have in flight; what is due beyond that waits, and is counted from when it was due.
const OUTSTANDING_MAX: usize = 1000;
/// How long it is measured before.
const BEFORE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let megabytes = env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1000_u64);
    for durability in [Durability::Os, Durability::Sync] {
        let directory = env::temp_dir().join(format!("hovercraft-bench-{}", std::process::id()));
        let mut config = ClusterConfig::local(3, &LocalPorts::free(3)?);
        config.fan_out = if config.fan_out_works().is_ok() { config.fan_out } else { FanOut::Unicast };
        config.durability = durability;
        config.data_dir = Some(directory.clone());
        // Only when asked for.
        config.limits.snapshot_bytes = 1 << 40;
        config.limits.snapshot_entries = 1 << 40;
        let result = run(&config, megabytes);
        fs::remove_dir_all(&directory)?;
        result?;
    }
    Ok(())
}

fn run(config: &ClusterConfig, megabytes: u64) -> Result<(), Box<dyn Error>> {
    let nodes =
        (1..=3).map(|id| runtime::start(config, NodeId(id), "kv", Kv::default())).collect::<Result<Vec<_>, _>>()?;
    let mut client = PipelinedClient::connect(&config.client_options())?;
    let mut operator = Operator::connect(&config.client_options())?;
    let pairs = megabytes * 1_000_000 / VALUE as u64;
    println!("{} durability, {pairs} pairs of {VALUE} B", config.durability.name());
    fill(&mut client, pairs)?;
    let mut rng = SmallRng::seed_from_u64(1);
    // What filling has left behind.
    measure(&mut client, &mut rng, pairs, |elapsed| elapsed >= BEFORE / 2)?;
    let before = measure(&mut client, &mut rng, pairs, |elapsed| elapsed >= BEFORE)?;
    let status = statuses(&mut operator, config)?;
    for entry in &config.nodes {
        operator.command_to(entry.requests, &AdminCommand::Snapshot, PATIENCE)?;
    }
    let all_taken = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (all_taken, config) = (Arc::clone(&all_taken), config.clone());
        let mut operator = Operator::connect(&config.client_options())?;
        thread::spawn(move || {
            while !statuses(&mut operator, &config).is_ok_and(|all| all.iter().all(|status| taken(status) > 0)) {
                thread::park_timeout(Duration::from_millis(200));
            }
            all_taken.store(true, Ordering::Relaxed);
        })
    };
    let began = client.now();
    let during = measure(&mut client, &mut rng, pairs, |_| all_taken.load(Ordering::Relaxed))?;
    let took = client.now().since(began);
    watcher.join().expect("it does not panic");
    let after = statuses(&mut operator, config)?;
    println!("  three snapshots took {:.1} s", took.as_secs_f64());
    let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let (before, during) = (ms(&before, quantile), ms(&during, quantile));
        println!("  {name:>6}: {before:.2} ms before, {during:.2} ms during, {:.2} times", during / before);
    }
    let longest = |histogram: &Histogram<u64>| histogram.max() as f64 / 1e6;
    println!("  longest: {:.1} ms before, {:.1} ms during", longest(&before), longest(&during));
    let term = |all: &[StatusReport]| all.iter().map(|status| status.term).max().unwrap_or(0);
    println!("  elections during: {}", term(&after) - term(&status));
    drop(nodes);
    Ok(())
}

fn fill(client: &mut PipelinedClient, pairs: u64) -> Result<(), Box<dyn Error>> {
    let mut next = 0;
    while next < pairs || client.outstanding() > 0 {
        while next < pairs && client.outstanding() < FILLING {
            client.submit(Kind::Write, set(next))?;
            next += 1;
        }
        for completion in client.wait(PATIENCE)? {
            if !matches!(completion.outcome, Outcome::Ok(_)) {
                return Err(format!("while filling: {:?}", completion.outcome).into());
            }
        }
    }
    Ok(())
}

/// Latencies in nanoseconds, from when each operation was due.
fn measure(
    client: &mut PipelinedClient,
    rng: &mut SmallRng,
    pairs: u64,
    done: impl Fn(Duration) -> bool,
) -> Result<Histogram<u64>, Box<dyn Error>> {
    let mut latencies = Histogram::new(3)?;
    let mut due = std::collections::BTreeMap::new();
    let began = client.now();
    let mut next = began;
    while !done(client.now().since(began)) || client.outstanding() > 0 {
        let is_done = done(client.now().since(began));
        while !is_done && next <= client.now() && client.outstanding() < OUTSTANDING_MAX {
            let key = rng.random_range(0..pairs);
            let (kind, body) = match rng.random_bool(0.5) {
                true => (Kind::Write, set(key)),
                false => (Kind::Read, Request::Get { key: key_of(key) }.encode()),
            };
            due.insert(client.submit(kind, body)?, next);
            next += Duration::from_secs(1) / RATE;
        }
        let is_full = client.outstanding() >= OUTSTANDING_MAX;
        let patience = if is_done || is_full { PATIENCE } else { next.since(client.now()) };
        for completion in client.wait(patience)? {
            if let Some(due) = due.remove(&completion.ticket) {
                latencies.record(client.now().since(due).as_nanos() as u64)?;
            }
        }
    }
    Ok(latencies)
}

fn set(number: u64) -> Bytes {
    Request::Set { key: key_of(number), value: vec![number as u8; VALUE].into() }.encode()
}

fn key_of(number: u64) -> Bytes {
    format!("key-{number:010}").into()
}

fn statuses(operator: &mut Operator, config: &ClusterConfig) -> Result<Vec<StatusReport>, Box<dyn Error>> {
    Ok(config.nodes.iter().map(|entry| operator.status(entry.requests, PATIENCE)).collect::<Result<_, _>>()?)
}

fn taken(status: &StatusReport) -> u64 {
    let taken = status.counters.iter().find(|counter| counter.name == "archive.snapshots_taken");
    taken.map_or(0, |counter| counter.value)
}
