//! Measures the same work with librpc and with its peers, on one machine, beside the best that the machine could do.
//!
//! The modules, in the order in which a run passes through them:
mod contender; //  what a contender must be able to do
mod contenders; // the contenders, a file each
mod machine; //    the machine of a run
mod measure; //    what the two sides do, the same for every contender
mod payload; //    the content of a message, and how it is checked
mod picture; //    figures as SVG
mod place; //      where files are, and their removal
mod process; //    the processes of the two sides
mod report; //     all results on one page
mod rounds; //     contenders take turns; medians, ratios
mod table; //      figures as text

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Parser;

use contender::{Measure, Name};
use rounds::{Plan, Summary};

/// Measures librpc and its peers side by side
///
/// Two processes, pinned to a core each; every message is written and read in full, and checked. The contenders take turns in
/// each round, and so do the limits: compare within one run only.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  peers run
  peers run --rounds 9 --seconds 1 --report peers.html --pictures .
  peers run --only librpc,aeron --measures latency --sizes 64 --json
  peers run --sizes 65536,262144,1048576,8388608,52428800 --seconds 1

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but with loss, or without a contender that failed,
130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[arg(long, hide = true, global = true)]
    parent: Option<i32>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Runs all rounds, and shows the medians
    Run(Run),
    #[command(hide = true)]
    Side(measure::Task),
    #[command(hide = true)]
    Helper {
        #[arg(long)]
        name: Name,
        #[arg(long)]
        measure: Measure,
        #[arg(long)]
        place: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Bytes of a message, multiples of 8. From 65536 on, only librpc and iceoryx2 take part, with loans
    #[arg(long, value_name = "B,..", value_delimiter = ',', default_value = "64,256,1024", value_parser = parse_bytes)]
    sizes: Vec<usize>,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement of a round takes
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = parse_seconds)]
    seconds: f64,
    /// The CPUs of the two processes: by default the first two; `none` leaves it to the kernel
    #[arg(long, value_name = "A,B", default_value = "0,1", value_parser = parse_pair)]
    pin: Pin,
    /// Only these contenders (limits are contenders, too)
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', hide_possible_values = false)]
    only: Vec<Name>,
    /// Only these measures
    #[arg(long, value_name = "MEASURE,..", value_delimiter = ',')]
    measures: Vec<Measure>,
    /// One object a line: each sample as it comes, then the medians
    #[arg(long)]
    json: bool,
    /// Writes a page with everything
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Writes the pictures (latency.svg, ..., one for each measure) and the table (peers.md) into this directory
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Pin(Option<(usize, usize)>);

fn parse_pair(text: &str) -> Result<Pin, String> {
    if text == "none" {
        return Ok(Pin(None));
    }
    let pair = text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    pair.map(|pair| Pin(Some(pair))).ok_or_else(|| "two CPU numbers are expected, as in 0,1, or none".to_owned())
}

const MAX_BYTES: usize = 256 << 20;

fn parse_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes % 8 == 0 && (payload::MIN_BYTES..=MAX_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a multiple of 8, from 8 to {MAX_BYTES}, is expected")),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.02..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.02 to 600 are expected".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = process::follow(cli.parent).and_then(|()| match &cli.command {
        Command::Run(run) => all(run),
        Command::Side(task) => measure::run(task).map(|()| ExitCode::SUCCESS),
        Command::Helper { name, measure, place } => measure::helper(*name, *measure, place).map(|()| ExitCode::SUCCESS),
    });
    result.unwrap_or_else(|error| {
        eprintln!("peers: {error:#}");
        ExitCode::FAILURE
    })
}

fn all(run: &Run) -> anyhow::Result<ExitCode> {
    let interrupt = process::Interrupt::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupt.clone())?;
    }
    let plan = Plan {
        names: if run.only.is_empty() { Name::ALL.to_vec() } else { run.only.clone() },
        sizes: run.sizes.clone(),
        measures: if run.measures.is_empty() { Measure::ALL.to_vec() } else { run.measures.clone() },
        rounds: run.rounds as usize,
        seconds: run.seconds,
        cpus: run.pin.0,
    };
    let machine = machine::Machine::look();
    let mut failed = Vec::new();
    let samples = rounds::run(&plan, &interrupt, |of, sample| match sample {
        Ok(sample) if run.json => print(&serde_json::to_string(sample).expect("a sample is JSON")),
        Ok(sample) => eprintln!("{}", table::line(sample)),
        Err(error) => {
            eprintln!("{}, {:?}, {} bytes: {error:#}", of.name.title(), of.measure, of.bytes);
            failed.push(of);
        }
    });
    let samples = match samples {
        Err(_) if interrupt.load(Ordering::Relaxed) => return Ok(ExitCode::from(130)),
        samples => samples?,
    };
    let summaries = rounds::summaries(&samples);
    if run.json {
        summaries.iter().for_each(|summary| print(&serde_json::to_string(summary).expect("a summary is JSON")));
    } else {
        print(&table::plain(&summaries));
    }
    let run_of = report::Run { plan: &plan, machine: &machine.and_now(), summaries: &summaries, failed: &failed };
    if let Some(path) = &run.report {
        write(path, &report::page(&run_of))?;
    }
    if let Some(directory) = &run.pictures {
        std::fs::create_dir_all(directory)?;
        for (name, text) in report::pieces(&run_of) {
            write(&directory.join(name), &text)?;
        }
    }
    let whole = failed.is_empty() && summaries.iter().all(|Summary { faults, .. }| faults.none());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}"); // a closed stdout must not stop the files from being written
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}
