//! `librpc check`: one line and an exit code, for monitoring probes.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::domain::DomainArgs;
use crate::latency::readable;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{Looker, Recent, Snapshot, State, since};

/// Checks nodes and channels against limits, for monitoring probes
///
/// Exit code 0: all is well. 1: a limit is passed, or a node is not there or does not answer. 3: all is well, but messages
/// were lost while it looked. Where there is no domain and no node is asked for, all is well.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc check                                # no stalled node, no inbox over 75 %, no losses
  librpc check --node display --max-p99 5ms
  librpc check --over 10s --max-depth 50 --max-lost 100")]
pub(crate) struct Args {
    /// This node must be there and answer; may be given several times
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// No inbox may be fuller than this, in percent (inboxes that overwrite are passed over)
    #[arg(long, value_name = "PERCENT", default_value_t = 75.0, value_parser = percent)]
    max_depth: f64,
    /// 99 % of the messages of every channel must be processed within this time: of those processed while it looks, or of all
    /// where there are none
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// So many nodes may live without answering
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_stalled: usize,
    /// So many dead nodes may wait to be swept [default: any number]
    #[arg(long, value_name = "N")]
    max_dead: Option<usize>,
    /// So many messages may be dropped or overwritten while it looks
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_lost: u64,
    /// How long it looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    over: Duration,
    /// One object: ok, failures, lost, nodes, channels
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result {
    ok: bool,
    failures: Vec<String>,
    lost: u64,
    nodes: usize,
    channels: usize,
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    let earlier = looker.look()?;
    std::thread::sleep(args.over);
    let later = looker.look()?;
    let recent = since(&earlier, &later);
    let lost: f64 = recent.iter().flatten().map(|recent| recent.rates.lost).sum();
    let lost = (lost * (later.at - earlier.at).as_secs_f64()).round() as u64;
    let failures = failures(args, &later, &recent);
    let (nodes, channels) = (later.nodes.len(), later.channels.len());
    let is_lossy = lost > args.max_lost;
    let result = Result { ok: failures.is_empty() && !is_lossy, failures, lost, nodes, channels };
    let text = if args.json {
        serde_json::to_string(&result)?
    } else if !result.failures.is_empty() {
        format!("FAILED: {}", result.failures.join("; "))
    } else {
        let how = if is_lossy { "LOSS" } else { "OK" };
        format!("{how}: {nodes} nodes, {channels} channels, {lost} messages lost in {:?}", args.over)
    };
    std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    match (&result.failures[..], is_lossy) {
        ([], false) => Ok(Outcome::Done),
        ([], true) => Ok(Outcome::Loss),
        (failures, _) => anyhow::bail!("{} checks failed", failures.len()),
    }
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 100".into())
}

fn failures(args: &Args, snapshot: &Snapshot, recent: &[Option<Recent>]) -> Vec<String> {
    let mut failures = Vec::new();
    for wanted in &args.node {
        match snapshot.nodes.iter().find(|node| node.id == *wanted) {
            None => failures.push(format!("node {wanted} is not there")),
            Some(node) if node.state != State::Alive => {
                failures.push(format!("node {wanted} is {}", node.state.name()))
            }
            Some(_) => {}
        }
    }
    let of = |state: State| {
        let nodes = snapshot.nodes.iter().filter(|node| node.state == state);
        nodes.map(|node| node.id.as_str()).collect::<Vec<_>>()
    };
    let (stalled, dead) = (of(State::Stalled), of(State::Dead));
    if stalled.len() > args.max_stalled {
        failures.push(format!("stalled: {}", stalled.join(", ")));
    }
    if args.max_dead.is_some_and(|most| dead.len() > most) {
        failures.push(format!("dead: {}", dead.join(", ")));
    }
    for (at, row) in snapshot.channels.iter().enumerate() {
        let (percent, to) = (row.fill() * 100.0, row.address());
        if percent > args.max_depth && row.stats.policy != librpc::Policy::Latest {
            failures.push(format!("{} → {to}: {percent:.0} % full", row.from));
        }
        let p99 = row.latency(recent.get(at).and_then(Option::as_ref)).quantile(0.99).unwrap_or(0);
        if args.max_p99.is_some_and(|most| u128::from(p99) > most.as_nanos()) {
            failures.push(format!("{} → {to}: p99 {}", row.from, readable(p99)));
        }
    }
    failures
}
