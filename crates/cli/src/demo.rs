//! `librpc demo`: two processes exchange messages for a few seconds, and leave nothing behind.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use librpc::Domain;
use serde::{Deserialize, Serialize};

use crate::children::{Children, ParentArgs, Report};
use crate::domain::{DomainArgs, clear_leftovers};
use crate::duplex::SideReport;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, grouped, readable};
use crate::options::seconds;
use crate::outcome::{CommandResult, Outcome};
use crate::payload::Kind;
use crate::side::{Live, Phase, Side};

const NAMES: [&str; 2] = ["earth", "moon"];
const SIZE: usize = 256;
const PACED_RATE: u64 = 10_000;

/// Shows two processes that exchange messages in both directions
///
/// It runs in a domain of its own: a third of the time with 10,000 messages per second each way, for the latency, the rest
/// as fast as possible. Every message is checked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc demo
  librpc demo --seconds 10")]
pub(crate) struct Args {
    /// How long to send
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,
}

/// One of the two processes.
#[derive(clap::Args)]
pub(crate) struct SideArgs {
    node: String,
    peer: String,
    #[arg(long, value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    parent: ParentArgs,
}

/// A line from one of the two processes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum News {
    Running { received: u64, missing: u64, latency: [Latency; 2] },
    Ended { report: SideReport, latency: [Latency; 2] },
}

pub(crate) fn side(domain: &DomainArgs, args: SideArgs) -> CommandResult {
    let interrupt = Interrupt::install()?;
    args.parent.follow()?;
    let time = args.seconds;
    let phases = vec![
        Phase { time: time / 3, rate: PACED_RATE, kind: Kind::Stamped },
        Phase { time: time * 2 / 3, rate: 0, kind: Kind::StampedUnderLoad },
    ];
    let side = Side { node: args.node, peer: args.peer, size: SIZE, wait: Duration::from_secs(10), phases };
    let mut reported = Instant::now();
    let look = |live: &Live| {
        if reported.elapsed() >= Duration::from_millis(100) {
            reported = Instant::now();
            let latency = *live.latency.lock().expect("no panic under this lock");
            let (received, missing) = (live.received.load(Ordering::Relaxed), live.missing.load(Ordering::Relaxed));
            let _ = report_news(&News::Running { received, missing, latency }); // if this fails the parent is gone, and a signal is coming
        }
    };
    match side.run(domain, &interrupt, look)? {
        Err(outcome) => Ok(outcome),
        Ok(exchanged) => {
            let report = SideReport::new(&side, args.seconds, &exchanged);
            report_news(&News::Ended { report, latency: exchanged.latency })?;
            Ok(Outcome::Done)
        }
    }
}

fn report_news(news: &News) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(news)?)?;
    Ok(())
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    clear_leftovers("demo");
    let domain = domain.domain_or(&format!("demo-{}", std::process::id()))?;
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "Two processes, {} and {}, send each other messages of {SIZE} bytes through {} for {} s.",
        NAMES[0],
        NAMES[1],
        domain.path().display(),
        args.seconds.as_secs_f64()
    )?;
    let ended = exchange(&domain, args.seconds, &interrupt);
    // This removes the files of children that were killed.
    let cleaned = domain.clean();
    let Some(ended) = ended? else {
        return Ok(Outcome::Interrupted(interrupt.signal().unwrap_or(signal_hook::consts::SIGINT)));
    };
    cleaned?;
    writeln!(stdout, "\n{}\n", table(&ended))?;
    writeln!(
        stdout,
        "At {} messages/s, the latency is that of a message and of waking its receiver.",
        grouped(PACED_RATE)
    )?;
    writeln!(stdout, "As fast as possible, it is that of a full queue, from which nothing is dropped.")?;
    let left = left(&domain)?;
    let nothing = if left.is_empty() { "nothing".to_owned() } else { left.join(" ") };
    writeln!(stdout, "Left under {}: {nothing}", domain.path().parent().unwrap_or(Path::new("/dev/shm")).display())?;
    if !left.is_empty() {
        bail!("something was left behind");
    }
    Ok(if ended.iter().all(|(report, _)| report.lost == 0) { Outcome::Done } else { Outcome::Loss })
}

type Ended = [(SideReport, [Latency; 2]); 2];

/// Runs the two processes. `None`: interrupted.
fn exchange(domain: &Domain, time: Duration, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
    let side = |node: &str, peer: &str| {
        ["demo-side", node, peer, "--seconds", &time.as_secs_f64().to_string()].map(str::to_owned).to_vec()
    };
    let commands = [side(NAMES[0], NAMES[1]), side(NAMES[1], NAMES[0])];
    let mut progress = Progress::new(time);
    let mut children = Children::start(domain, &commands, interrupt)?;
    let mut ended = [None, None];
    let mut failed = None;
    while children.are_running() {
        match children.next(Duration::from_secs(60)) {
            Some((child, Report::Line(line))) => {
                match serde_json::from_str(&line).context("a process's report is not valid")? {
                    News::Running { received, missing, latency } => progress.show(child, received, missing, latency),
                    News::Ended { report, latency } => ended[child] = Some((report, latency)),
                }
            }
            Some((child, Report::Ended(status))) if !status.success() && failed.is_none() => {
                failed = Some(format!("{} has failed: {status}", NAMES[child]));
                children.end();
            }
            _ => {}
        }
    }
    progress.end();
    match (interrupt.signal(), failed, ended) {
        (Some(_), ..) => Ok(None),
        (None, Some(failed), _) => bail!(failed),
        (None, None, [Some(first), Some(second)]) => Ok(Some([first, second])),
        _ => bail!("a process has ended without a report"),
    }
}

/// A line on stderr, if that is a terminal.
struct Progress {
    bar: ProgressBar,
    time: Duration,
    begun: Instant,
    sides: [Shown; 2],
}

#[derive(Clone, Copy, Default)]
struct Shown {
    received: u64,
    missing: u64,
    rate: f64,
    at: Option<Instant>,
}

impl Progress {
    fn new(time: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(Some(time.as_millis() as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, time, begun: Instant::now(), sides: Default::default() }
    }

    fn show(&mut self, child: usize, received: u64, missing: u64, latency: [Latency; 2]) {
        let now = Instant::now();
        let side = &mut self.sides[child];
        if let Some(at) = side.at {
            side.rate = (received.saturating_sub(side.received)) as f64 / (now - at).as_secs_f64();
        }
        *side = Shown { received, missing, at: Some(now), rate: side.rate };
        let [first, second] = &self.sides;
        let lost = grouped(first.missing + second.missing);
        let is_paced = latency[1].count == 0;
        let Latency { p50_ns, p99_ns, .. } = latency[usize::from(!is_paced)];
        let text = format!(
            "{}/s to {}, {}/s to {}, p50 {}, p99 {}{}, lost {lost}",
            grouped(second.rate as u64),
            NAMES[1],
            grouped(first.rate as u64),
            NAMES[0],
            readable(p50_ns),
            readable(p99_ns),
            if is_paced { "" } else { " (queue)" },
        );
        self.bar.set_position(self.begun.elapsed().min(self.time).as_millis() as u64);
        self.bar.set_message(text);
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}

fn table(ended: &Ended) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(vec![
        String::new(),
        format!("{} → {}", NAMES[0], NAMES[1]),
        format!("{} → {}", NAMES[1], NAMES[0]),
    ]);
    let [first, second] = ended;
    // Each receives what the other one sends, and measures its latency.
    let directions = [(&first.0, second), (&second.0, first)];
    let mut row = |what: &str, value: &dyn Fn(&SideReport, &SideReport, &[Latency; 2]) -> String| {
        let values = directions.map(|(sender, (receiver, latency))| value(sender, receiver, latency));
        table.add_row([what.to_owned()].into_iter().chain(values));
    };
    row("sent", &|sender, _, _| grouped(sender.sent));
    row("received", &|_, receiver, _| grouped(receiver.received));
    row("lost", &|_, receiver, _| grouped(receiver.lost));
    row("messages/s, overall", &|_, receiver, _| grouped(receiver.receive_rate as u64));
    for (index, when) in [(0, "paced"), (1, "as fast as possible")] {
        row(&format!("latency p50, {when}"), &|_, _, latency| readable(latency[index].p50_ns));
        row("p99", &|_, _, latency| readable(latency[index].p99_ns));
        row("p99.9", &|_, _, latency| readable(latency[index].p999_ns));
        row("max", &|_, _, latency| readable(latency[index].max_ns));
    }
    for column in 1..3 {
        table.column_mut(column).expect("there are three").set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The paths of what is left of the two nodes: their files, or a domain without nodes.
fn left(domain: &Domain) -> anyhow::Result<Vec<String>> {
    let nodes = domain.nodes()?;
    let (path, is_ours) = (domain.path(), |id: &str| NAMES.contains(&id));
    let mut left: Vec<String> = nodes.iter().filter(|node| is_ours(&node.id)).map(|node| node.id.clone()).collect();
    if path.exists() && nodes.iter().all(|node| is_ours(&node.id)) {
        left.push(path.display().to_string());
    }
    Ok(left)
}
