//! `cargo bench -p measure --bench instructions`: how many instructions the hot pieces execute, which no other program can
//! disturb, against what they executed when `bench/instructions.toml` was written. More than 5 % above is a failure.
//!
//! `-- --write` writes the file anew. Every piece runs twice under callgrind, with different numbers of repetitions; the
//! difference is what a repetition takes, without getting ready. Without valgrind it says so and does nothing.

#![allow(missing_docs, reason = "a program")]

mod shared;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use shared::PIECES;

/// Repetitions: the second run makes so many more than the first.
const FIRST: u64 = 20;
const MORE: u64 = 100;
/// By which part a piece may execute more than is written down.
const TOLERANCE: f64 = 0.05;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--piece") {
        let (Some(name), Some(count)) = (arguments.get(at + 1), arguments.get(at + 2)) else {
            return Err("--piece NAME COUNT".into());
        };
        return repeat(name, count.parse()?);
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: valgrind is not installed (apt-get install valgrind)");
        return Ok(ExitCode::SUCCESS);
    }
    let known: BTreeMap<String, u64> = match std::fs::read_to_string(FILE) {
        Ok(text) => toml::from_str(&text)?,
        Err(_) => BTreeMap::new(),
    };
    let mut found = BTreeMap::new();
    let mut worse = Vec::new();
    println!("{:<26} {:>12} {:>12} {:>8}", "instructions", "now", "written", "change");
    for piece in PIECES {
        let now = (count(piece.name, FIRST + MORE)? - count(piece.name, FIRST)?) / MORE;
        let then = known.get(piece.name).copied();
        let change = then.map_or(0.0, |then| now as f64 / then.max(1) as f64 - 1.0);
        println!("{:<26} {now:>12} {:>12} {:>+7.1} %", piece.name, then.unwrap_or(0), change * 100.0);
        if change > TOLERANCE {
            worse.push(piece.name);
        }
        found.insert(piece.name.to_owned(), now);
    }
    if arguments.iter().any(|argument| argument == "--write") {
        let note =
            "# Instructions per repetition; `cargo bench -p measure --bench instructions -- --write` writes this.\n";
        std::fs::write(FILE, format!("{note}{}", toml::to_string(&found)?))?;
        println!("written to {}", Path::new(FILE).display());
    } else if !worse.is_empty() {
        println!("more than {:.0} % above what is written: {}", TOLERANCE * 100.0, worse.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Does a piece again and again: what runs under callgrind.
fn repeat(name: &str, count: u64) -> Result<ExitCode, Box<dyn Error>> {
    let piece = PIECES.iter().find(|piece| piece.name == name).ok_or("no such piece")?;
    let mut operation = (piece.make)();
    for _ in 0..count {
        operation();
    }
    Ok(ExitCode::SUCCESS)
}

/// Instructions of a whole run.
fn count(name: &str, repetitions: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--piece", name, &repetitions.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind says nothing about {name}:\n{said}").into())
}
