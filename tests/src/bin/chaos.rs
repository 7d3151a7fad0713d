//! Chaos on real processes, for a time and a seed: see `system_tests::chaos`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use hovercraft::Mode;
use hovercraft::cluster::{Durability, FanOut};
use signal_hook::consts::{SIGINT, SIGTERM};
use system_tests::chaos::run::{self, Plan};
use system_tests::chaos::schedule::Kind;
use system_tests::chaos::setup::{Setup, Told};
use system_tests::chaos::{SKIPPED, lab};
use system_tests::{program, signal};

/// Runs a cluster of real processes, each in a network namespace of its own, and does everything to it that machines and
/// networks do: kill -9, SIGSTOP, lost data, loss, partitions in one or both directions, of multicast and unicast
/// separately, delays, busy processors; and what operators do: restarts, transfers, replacements, snapshots. Clients work
/// all the time, and what they saw is checked.
///
/// Needs iproute2, nftables, util-linux, and root or namespaces of unprivileged users. Ctrl-C ends the faults; what happened
/// until then is judged. A second one ends everything at once.
#[derive(Parser, Debug)]
#[command(
    args_override_self = true,
    after_help = "Exit codes: 0 all is well, 1 something does not hold (the directory with logs and histories is kept and named), \
    2 wrong use, 77 namespaces or tools are missing."
)]
struct Args {
    /// Everything that is not told is drawn from it, and so is what happens when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long to go on beginning rounds, in minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// How long faults happen in a round, in seconds; then everything is healed and checked.
    #[arg(long, default_value_t = 12.0)]
    round: f64,
    /// Members at first: 3 to 7.
    #[arg(long, value_parser = clap::value_parser!(u16).range(3..=7))]
    nodes: Option<u16>,
    /// hovercraft or raft.
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// multicast or unicast.
    #[arg(long, value_parser = fan_out)]
    fan_out: Option<FanOut>,
    /// memory, os or sync.
    #[arg(long, value_parser = durability)]
    durability: Option<Durability>,
    /// Clients.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: Option<u64>,
    /// Operations in flight of each client.
    #[arg(long)]
    in_flight: Option<usize>,
    /// Only these kinds of faults, in every round: kill, pause, ...
    #[arg(long, value_delimiter = ',', value_parser = Kind::parse)]
    only: Vec<Kind>,
    /// All but these.
    #[arg(long, value_delimiter = ',', value_parser = Kind::parse, conflicts_with = "only")]
    without: Vec<Kind>,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
    /// Say nothing of what is going on.
    #[arg(long)]
    quiet: bool,
    /// Keep the directory whatever comes of it.
    #[arg(long)]
    keep: bool,
    /// Where logs, histories and the nodes' data are written [default: among the temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The `hovercraft` program [default: built from the present sources].
    #[arg(long)]
    program: Option<PathBuf>,
    /// Set by this program for itself.
    #[arg(long, hide = true)]
    enclosed: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    let all = [Mode::Hovercraft, Mode::Raft];
    all.into_iter().find(|mode| mode.name() == text).ok_or_else(|| "hovercraft or raft".to_owned())
}

fn fan_out(text: &str) -> Result<FanOut, String> {
    match text {
        "multicast" => Ok(FanOut::Multicast),
        "unicast" => Ok(FanOut::Unicast),
        _ => Err("multicast or unicast".to_owned()),
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    let all = [Durability::Memory, Durability::Os, Durability::Sync];
    all.into_iter().find(|durability| durability.name() == text).ok_or_else(|| "memory, os or sync".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.enclosed { inside(args) } else { outside(&args) };
    done.unwrap_or_else(|error| {
        eprintln!("chaos: {error}");
        ExitCode::FAILURE
    })
}

/// Puts itself into an enclosure, and waits for it.
fn outside(args: &Args) -> io::Result<ExitCode> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let path = std::env::join_paths(folders).map_err(io::Error::other)?;
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("PATH", path) };
    let words = match lab::enclosure() {
        Ok(words) => words,
        Err(why) => {
            eprintln!("chaos skipped: {why}");
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        signal_hook::flag::register(number, Arc::clone(&stop))?;
    }
    let program = args.program.clone().unwrap_or_else(|| program().to_owned());
    let is_fresh = args.dir.as_ref().is_none_or(|wanted| !wanted.exists());
    let directory = run::make_directory(args.dir.as_deref())?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    command.arg("--enclosed").args([
        "--dir".into(),
        OsString::from(&directory),
        "--program".into(),
        fs::canonicalize(program)?.into(),
    ]);
    // SAFETY: one system call that allocates nothing. If we are killed, so is whoever holds the enclosure, and with it
    // everything in there.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    // Ctrl-C is passed on by us, once for each.
    let mut child = command.process_group(0).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop.swap(false, Ordering::Relaxed) {
            for pid in children(child.id()) {
                signal(pid, SIGINT);
            }
        }
        wait_a_moment();
    };
    let passed = status.success();
    if passed && !args.keep {
        if is_fresh {
            fs::remove_dir_all(&directory)?;
        }
    } else {
        eprintln!("chaos: logs, histories and data are in {}", directory.display());
    }
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)))
}

fn wait_a_moment() {
    let (_keep, nothing) = std::sync::mpsc::channel::<()>();
    _ = nothing.recv_timeout(Duration::from_millis(20));
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The run itself; the first process of a PID namespace.
fn inside(args: Args) -> io::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        // The second one ends this process, and with it all others in here.
        signal_hook::flag::register_conditional_shutdown(number, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(number, Arc::clone(&stop))?;
    }
    let Args { seed, nodes, mode, fan_out, durability, clients, in_flight, .. } = args;
    let setup = Setup::draw(seed, Told { nodes, mode, fan_out, durability, clients, in_flight });
    let always = !args.only.is_empty();
    let kinds = match always {
        true => args.only,
        false => Kind::ALL.into_iter().filter(|kind| !args.without.contains(kind)).collect(),
    };
    let of = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(io::Error::other);
    let plan = Plan {
        setup,
        length: of(args.minutes * 60.0)?,
        round: of(args.round)?,
        kinds,
        always,
        program: args.program.unwrap_or_default(),
        directory: args.dir.unwrap_or_default(),
        tell: !args.quiet,
    };
    let report = run::run(plan, &stop)?;
    match args.json {
        true => println!("{}", report.to_json()),
        false => println!("{report}"),
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
