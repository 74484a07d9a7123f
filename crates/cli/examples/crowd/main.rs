//! Many nodes with many channels at a set rate, and what it costs to look at them with `librpc top`:
//!
//! ```sh
//! cargo build --release -p librpc-cli && cargo run --release -p librpc-cli --example crowd
//! cargo run --release -p librpc-cli --example crowd -- --only-load --domain crowd   # a load to look at by hand
//! ```
//!
//! The nodes are spread over several processes; each sends to the next ones in the circle, all in turn. Rounds without and
//! with `top`, which runs in a terminal of its own (tmux), take turns.

mod measure; // rounds with and without top
mod part; //    a process of the crowd
mod usage; //   what processes and threads have used of the CPU

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use librpc::Domain;

#[derive(Parser, Clone, Debug)]
struct Args {
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Channels, the same number from each node
    #[arg(long, default_value_t = 500)]
    channels: usize,
    #[arg(long, default_value_t = 5)]
    processes: usize,
    /// Messages per second, all in all; 0: as many as go
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Rounds without and rounds with top
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The terminals that top runs in
    #[arg(long, value_delimiter = ',', default_value = "120x40,200x60")]
    terminals: Vec<String>,
    /// The command [default: the one beside this program]
    #[arg(long)]
    librpc: Option<PathBuf>,
    /// Where the nodes are [default: a domain of their own]
    #[arg(long)]
    domain: Option<String>,
    /// Only the load, until stdin ends
    #[arg(long)]
    only_load: bool,
    #[arg(long, hide = true)]
    part: Option<usize>,
}

impl Args {
    fn domain(&self) -> Domain {
        let own = || format!("crowd-{}", std::process::id());
        Domain::parse(self.domain.clone().unwrap_or_else(own))
    }

    fn command(&self) -> anyhow::Result<PathBuf> {
        let beside = std::env::current_exe()?.ancestors().nth(2).context("a directory")?.join("librpc");
        let found = self.librpc.clone().unwrap_or(beside);
        ensure!(found.exists(), "{} is not there: cargo build --release -p librpc-cli", found.display());
        Ok(found)
    }
}

/// The processes of the crowd, which end when their stdin does.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start(args: &Args, domain: &Domain) -> anyhow::Result<Self> {
        let mut crowd = Self(Vec::new());
        for part in 0..args.processes {
            let child = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .arg(format!("--part={part}"))
                .arg(format!("--domain={}", domain.path().display()))
                .stdin(Stdio::piped())
                .spawn()?;
            crowd.0.push(child);
        }
        Ok(crowd)
    }

    fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        for child in &mut self.0 {
            match child.wait() {
                Ok(status) if status.success() => {}
                ended => eprintln!("a part of the crowd: {ended:?}"),
            }
        }
    }
}

/// Waits until every channel is open.
fn await_channels(args: &Args, domain: &Domain) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let channels = measure::channels(domain)?.len();
        if channels >= args.channels {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "only {channels} channels are there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let domain = args.domain();
    if let Some(part) = args.part {
        return part::run(&args, &domain, part);
    }
    if args.nodes < 2 || args.channels % args.nodes != 0 || args.channels / args.nodes >= args.nodes {
        bail!("each node sends to the same number of others: --channels is a multiple of --nodes");
    }
    let command = args.command()?;
    let crowd = Crowd::start(&args, &domain)?;
    await_channels(&args, &domain)?;
    eprintln!("{} nodes, {} channels: librpc top --domain {}", args.nodes, args.channels, domain.path().display());
    if args.only_load {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        return Ok(());
    }
    measure::rounds(&args, &domain, &crowd.pids(), &command)
}
