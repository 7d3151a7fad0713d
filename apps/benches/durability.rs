//! `cargo bench -p hovercraft-apps --bench durability`: what keeping data costs, in processor time per operation.
//!
//! Three nodes and a client in this process. The policies take turns, several times; what counts is the ratio to `memory`.
//! `-- only os` measures one of them, for a profiler.
//! `-- curve 60` instead loads a durable cluster for so many seconds and prints what it takes of memory and disk: it takes
//! snapshots all the time, and both stay where they are.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hovercraft::NodeId;
use hovercraft::client::{Kind, Outcome, PipelinedClient};
use hovercraft::cluster::{ClusterConfig, Durability, FanOut, LocalPorts};
use hovercraft::runtime::{self, RunningNode};
use hovercraft_apps::kv::{Kv, Request};

/// Bytes of each value.
const VALUE: usize = 100;
/// Keys there are.
const KEYS: u64 = 10_000;
const IN_FLIGHT: usize = 256;
const ROUNDS: usize = 5;
const OPERATIONS: u64 = 40_000;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().position(|argument| argument == "curve") {
        Some(at) => curve(arguments.get(at + 1).and_then(|seconds| seconds.parse().ok()).unwrap_or(60)),
        None => {
            let only = arguments.iter().position(|argument| argument == "only").and_then(|at| arguments.get(at + 1));
            let policies = [Durability::Memory, Durability::Os, Durability::Sync].into_iter();
            costs(&policies.filter(|policy| only.is_none_or(|only| policy.name() == only)).collect::<Vec<_>>())
        }
    }
}

fn costs(policies: &[Durability]) -> Result<(), Box<dyn Error>> {
    let mut clusters = policies.iter().copied().map(Cluster::start).collect::<Result<Vec<_>, _>>()?;
    let mut costs = vec![Vec::new(); clusters.len()];
    // The first round warms up.
    for round in 0..=ROUNDS {
        for (cluster, costs) in clusters.iter_mut().zip(&mut costs) {
            let before = processor_time();
            cluster.write(OPERATIONS)?;
            if round > 0 {
                costs.push((processor_time() - before).as_secs_f64() * 1e6 / OPERATIONS as f64);
            }
        }
    }
    println!("processor time per write of {VALUE} B, three nodes and the client, median of {ROUNDS} x {OPERATIONS}:");
    let median = |costs: &[f64]| {
        let mut costs = costs.to_vec();
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    };
    let first = median(&costs[0]);
    for (policy, costs) in policies.iter().zip(&costs) {
        let cost = median(costs);
        println!("  {:>6}: {cost:6.1} µs, {:.2} times {}", policy.name(), cost / first, policies[0].name());
    }
    Ok(())
}

fn curve(seconds: u64) -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::start(Durability::Os)?;
    println!("{:>9} {:>12} {:>12} {:>12}", "seconds", "writes", "memory MiB", "disk MiB");
    let began = cluster.client.now();
    let (mut writes, mut next) = (0, 0);
    loop {
        let elapsed = cluster.client.now().since(began).as_secs();
        if elapsed >= next {
            let mib = |bytes: u64| bytes >> 20;
            println!("{elapsed:>9} {writes:>12} {:>12} {:>12}", mib(resident()), mib(size(&cluster.directory)));
            next = elapsed + (seconds / 20).max(1);
        }
        if elapsed >= seconds {
            return Ok(());
        }
        cluster.write(5000)?;
        writes += 5000;
    }
}

struct Cluster {
    nodes: Vec<RunningNode>,
    client: PipelinedClient,
    directory: PathBuf,
    next: u64,
}

impl Cluster {
    fn start(durability: Durability) -> Result<Self, Box<dyn Error>> {
        let directory = env::temp_dir().join(format!("hovercraft-bench-{}-{}", std::process::id(), durability.name()));
        let mut config = ClusterConfig::local(3, &LocalPorts::free(3)?);
        config.fan_out = if config.fan_out_works().is_ok() { config.fan_out } else { FanOut::Unicast };
        config.durability = durability;
        config.runtime_dir = Some(directory.clone());
        config.data_dir = (durability != Durability::Memory).then(|| directory.clone());
        // Small, so that there are many snapshots.
        config.limits.snapshot_bytes = 32 << 20;
        config.limits.log_bytes_max = 32 << 20;
        let start = |id| runtime::start(&config, NodeId(id), "kv", Kv::default());
        let nodes = (1..=3).map(start).collect::<Result<Vec<_>, _>>()?;
        let client = PipelinedClient::connect(&config.client_options())?;
        Ok(Self { nodes, client, directory, next: 0 })
    }

    fn write(&mut self, operations: u64) -> Result<(), Box<dyn Error>> {
        let end = self.next + operations;
        while self.next < end || self.client.outstanding() > 0 {
            while self.next < end && self.client.outstanding() < IN_FLIGHT {
                let key = Bytes::from(format!("key-{}", self.next % KEYS));
                let value = Bytes::from(vec![self.next as u8; VALUE]);
                self.client.submit(Kind::Write, Request::Set { key, value }.encode())?;
                self.next += 1;
            }
            for completion in self.client.wait(PATIENCE)? {
                if !matches!(completion.outcome, Outcome::Ok(_)) {
                    return Err(format!("{:?}", completion.outcome).into());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// Of this process, so far.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // Linux counts these in hundredths of a second, whatever the kernel does inside.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Of all files below, in bytes.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(one).sum()
}
