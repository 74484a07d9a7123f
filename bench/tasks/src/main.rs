//! What tasks, wait sets and shared senders cost, each beside what the same takes without them.

mod idle;
mod set;
mod share;
mod wake;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::Table;
use librpc::{Domain, Node};

/// Measures tasks, wait sets and shared senders, and prints a table
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// How often each contender has its turn
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long to look at tasks that wait
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Measure {
    Wake,
    Idle,
    Set,
    Share,
}

#[derive(Subcommand)]
enum Part {
    /// Answers each message: a process of `wake`
    #[command(hide = true)]
    Answer { contender: wake::Contender, domain: PathBuf, descriptors: Vec<i32> },
    /// Sends messages with a sender of its own, or a shared one: `run` counts the instructions
    #[command(hide = true)]
    Send { domain: PathBuf, way: share::Way, messages: u32 },
}

fn main() -> anyhow::Result<()> {
    let Options { rounds, seconds, only, part } = Options::parse();
    match part {
        Some(Part::Answer { contender, domain, descriptors }) => return wake::answer(contender, domain, &descriptors),
        Some(Part::Send { domain, way, messages }) => return share::send(domain, way, messages),
        None => {}
    }
    let is_wanted = |measure| only.is_empty() || only.contains(&measure);
    let mut table = Table::new();
    table.set_header(["measure", "figure", "beside"]);
    if is_wanted(Measure::Wake) {
        table.add_rows(wake::run(rounds)?);
    }
    if is_wanted(Measure::Idle) {
        table.add_rows(idle::run(Duration::from_secs(seconds))?);
    }
    if is_wanted(Measure::Set) {
        table.add_rows(set::run(rounds)?);
    }
    if is_wanted(Measure::Share) {
        table.add_rows(share::run(rounds)?);
    }
    println!("{table}");
    Ok(())
}

type Row = [String; 3];

fn domain(name: &str) -> PathBuf {
    format!("/dev/shm/librpc_tasks_{}_{name}", std::process::id()).into()
}

fn open(domain: &std::path::Path, id: &str) -> anyhow::Result<Node> {
    Ok(Node::builder(id).domain(Domain::at(domain)).open()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn readable(ns: f64) -> String {
    if ns < 10_000.0 { format!("{ns:.0} ns") } else { format!("{:.1} µs", ns / 1000.0) }
}
