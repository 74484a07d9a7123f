//! `librpc duplex`: two processes send to each other at the same time, and count what is lost.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::children::{Children, ParentArgs, Report};
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::grouped;
use crate::options::{self, MAX_MESSAGE};
use crate::outcome::{CommandResult, Outcome, Usage};
use crate::payload::{Kind, MIN_BYTES};
use crate::side::{Exchanged, Phase, Side};

/// Sends and receives at the same time, and counts what is lost
///
/// With names: one side, which waits for its peer. Without: both sides, as two processes. Every message is numbered and
/// checked. Nothing is dropped: a side that is too fast waits. Both sides drain before they report.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc duplex                                     # both sides, 1,000,000 messages/s each way
  librpc duplex a b --seconds 60 --rate 0           # in one terminal, as fast as possible
  librpc duplex b a --seconds 60 --rate 0           # in another")]
pub(crate) struct Args {
    /// The id of this side's node
    #[arg(requires = "peer")]
    node: Option<String>,
    /// The id of the other side's node
    peer: Option<String>,
    /// How long to send
    #[arg(long, value_name = "S", default_value = "10", value_parser = options::seconds)]
    seconds: Duration,
    /// Bytes per message, at least 16
    #[arg(long, value_name = "B", default_value = "256", value_parser = size)]
    size: usize,
    /// Messages per second; 0: as fast as possible
    #[arg(long, value_name = "R", default_value_t = 1_000_000)]
    rate: u64,
    /// How long to wait for the peer to appear
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Write one object per side: node, peer, size, seconds, sent, received, lost, send_rate, receive_rate
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parent: ParentArgs,
}

/// What a side reports.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SideReport {
    pub(crate) node: String,
    pub(crate) peer: String,
    pub(crate) size: usize,
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) send_rate: f64,
    pub(crate) receive_rate: f64,
}

impl SideReport {
    pub(crate) fn new(side: &Side, time: Duration, exchanged: &Exchanged) -> Self {
        let round = |rate: f64| (rate * 10.0).round() / 10.0;
        Self {
            node: side.node.clone(),
            peer: side.peer.clone(),
            size: side.size,
            seconds: time.as_secs_f64(),
            sent: exchanged.sent.count,
            received: exchanged.received.count,
            lost: exchanged.lost(),
            send_rate: round(exchanged.sent.rate()),
            receive_rate: round(exchanged.received.rate()),
        }
    }

    fn line(&self, json: bool) -> anyhow::Result<String> {
        if json {
            return Ok(serde_json::to_string(self)?);
        }
        let Self { node, peer, size, seconds, .. } = self;
        let [sent, received, lost] = [self.sent, self.received, self.lost].map(grouped);
        let [send_rate, receive_rate] = [self.send_rate, self.receive_rate].map(|rate| grouped(rate as u64));
        Ok(format!(
            "{node}: {size} bytes for {seconds} s: sent {sent} to {peer} ({send_rate}/s), received {received} \
             ({receive_rate}/s), lost {lost}"
        ))
    }
}

fn size(text: &str) -> Result<usize, String> {
    options::size(text, MIN_BYTES, MAX_MESSAGE)
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    args.parent.follow()?;
    match (&args.node, &args.peer) {
        (Some(node), Some(peer)) if node == peer => {
            Err(Usage(format!("node {node:?} cannot be its own peer: name two nodes")).into())
        }
        (Some(node), Some(peer)) => {
            let phases = vec![Phase { time: args.seconds, rate: args.rate, kind: Kind::Data }];
            let (node, peer, size, wait) = (node.clone(), peer.clone(), args.size, args.wait);
            one(domain, &Side { node, peer, size, wait, phases }, &args, &interrupt)
        }
        _ => both(domain, &args, &interrupt),
    }
}

fn one(domain: &DomainArgs, side: &Side, args: &Args, interrupt: &Interrupt) -> CommandResult {
    match side.run(domain, interrupt, |_| {})? {
        Err(outcome) => Ok(outcome),
        Ok(exchanged) => {
            let report = SideReport::new(side, args.seconds, &exchanged);
            writeln!(std::io::stdout(), "{}", report.line(args.json)?)?;
            Ok(if report.lost == 0 { Outcome::Done } else { Outcome::Loss })
        }
    }
}

fn both(domain: &DomainArgs, args: &Args, interrupt: &Interrupt) -> CommandResult {
    let names = [unique_id("duplex")?, unique_id("duplex")?];
    let side = |node: &str, peer: &str| -> Vec<String> {
        let Args { size, rate, .. } = args;
        let (seconds, wait) = (args.seconds.as_secs_f64(), humantime::format_duration(args.wait));
        let options = format!("--seconds={seconds} --size={size} --rate={rate} --json");
        let options = options.split(' ').map(str::to_owned).chain([format!("--wait={wait}")]);
        ["duplex", node, peer].map(str::to_owned).into_iter().chain(options).collect()
    };
    let commands = [side(&names[0], &names[1]), side(&names[1], &names[0])];
    let mut children = Children::start(&domain.domain()?, &commands, interrupt)?;
    let mut reports: [Option<SideReport>; 2] = [None, None];
    let mut failed = false;
    while children.are_running() {
        match children.next(Duration::from_secs(60)) {
            Some((child, Report::Line(line))) => {
                reports[child] = Some(serde_json::from_str(&line).context("a side's report is not valid")?);
            }
            Some((_, Report::Ended(status))) if !matches!(status.code(), Some(0 | 3)) && !failed => {
                failed = true;
                children.end();
            }
            _ => {}
        }
    }
    if let Some(signal) = interrupt.signal() {
        return Ok(Outcome::Interrupted(signal));
    }
    let [Some(first), Some(second)] = reports else { bail!("a side has failed") };
    for report in [&first, &second] {
        writeln!(std::io::stdout(), "{}", report.line(args.json)?)?;
    }
    Ok(if first.lost + second.lost == 0 { Outcome::Done } else { Outcome::Loss })
}
