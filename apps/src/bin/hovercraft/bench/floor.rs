//! `hovercraft bench floor`: what machine and datapath cost by themselves.

use std::process::ExitCode;
use std::time::Duration;

use hovercraft::cluster::{ClusterConfig, FanOut};
use measure::floor::{self, Floor, FloorError, Setting};
use measure::machine::Machine;
use multicast::Group;
use serde_json::json;

use super::progress;
use super::system::PlaceArgs;
use crate::local;
use crate::output::{Failure, Table, grouped, say};

/// Receivers of a datagram to all, unless told.
const RECEIVERS: [u16; 3] = [1, 3, 7];
/// Datagrams on their way to receivers: a fraction of what a socket's buffer holds.
const WINDOW: usize = 1024;

/// What machine and datapath cost by themselves: an echo, one datagram to several receivers, a forwarder.
///
/// No protocol, no service; the same batches of system calls as nodes make. Processor times are per datagram sent.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
        hovercraft bench floor\n  \
        hovercraft bench floor --pin 0 --receivers 3,5")]
pub(crate) struct Args {
    /// Bytes of every datagram.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u64).range(8..=1472))]
    size: u64,
    /// How long each is measured, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::parse_seconds, default_value = "1")]
    duration: Duration,
    /// Numbers of receivers.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = RECEIVERS, value_parser = clap::value_parser!(u16).range(1..=9))]
    receivers: Vec<u16>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let machine = Machine::this();
    let floors = measure_all(&args.place, args.size as usize, args.duration, &args.receivers)?;
    if args.json {
        say(super::document(&machine, json!({ "place": args.place.describe(), "floors": floors })));
    } else {
        say(format_args!("{machine}"));
        say(format_args!("{}", args.place.describe()));
        say(table(&floors));
    }
    Ok(ExitCode::SUCCESS)
}

/// All floors, one after the other.
pub(crate) fn measure_all(
    place: &PlaceArgs,
    size: usize,
    duration: Duration,
    receivers: &[u16],
) -> Result<Vec<Floor>, Failure> {
    let setting =
        |window| Setting { size, window, duration, nodes: place.nodes(), load: place.load(), spin: place.spin() };
    let bar = progress::bar("floor");
    let steps = 3 + 2 * receivers.len() as u64;
    bar.set_length(steps);
    let mut floors = Vec::new();
    let mut keep = |floor: Result<Floor, FloorError>| {
        floors.push(floor.map_err(|error| Failure::new(format!("no floor: {error}")))?);
        bar.inc(1);
        Ok::<(), Failure>(())
    };
    keep(floor::echo(&setting(1)))?;
    keep(floor::echo(&setting(64)))?;
    for &count in receivers {
        for fan_out in [FanOut::Multicast, FanOut::Unicast] {
            let (config, _ports, note) = local::new_config(usize::from(count), None)?;
            if fan_out == FanOut::Multicast && note.is_some() {
                // Said once, by whoever starts clusters.
                continue;
            }
            let (group, own) = group_of(&ClusterConfig { fan_out, ..config });
            let name = match fan_out {
                FanOut::Multicast => format!("multicast to {count}"),
                FanOut::Unicast => format!("unicast to {count}"),
            };
            keep(floor::one_way(&setting(WINDOW), &name, &group, &own, 1))?;
        }
    }
    keep(floor::forwarder(&setting(WINDOW)))?;
    bar.finish_and_clear();
    Ok(floors)
}

/// The group of clients' requests, and where each node listens to it.
fn group_of(config: &ClusterConfig) -> (Group, Vec<std::net::SocketAddrV4>) {
    let own = config.nodes.iter().filter_map(|node| node.group_requests).collect();
    (config.client_options().group, own)
}

/// For people.
pub(crate) fn table(floors: &[Floor]) -> Table {
    let mut table = Table::new(&["floor", "per second", "sender µs", "receiver µs", "p50 µs", "p99 µs", "lost"]);
    let us = |us: Option<f64>| us.map_or_else(String::new, |us| format!("{us:.1}"));
    for floor in floors {
        table.row([
            floor.name.clone(),
            grouped(floor.rate as u64),
            format!("{:.2}", floor.sender_us),
            format!("{:.2}", floor.receiver_us),
            us(floor.p50_us),
            us(floor.p99_us),
            floor.lost.to_string(),
        ]);
    }
    table
}
