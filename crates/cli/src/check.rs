//! `librpc check`: one line and an exit code, for monitoring probes.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::about;
use crate::doctor;
use crate::domain::DomainArgs;
use crate::latency::{counted, readable};
use crate::options::{AboutArgs, OverArgs};
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{Looker, Snapshot, State};

/// Checks nodes and channels against limits, for monitoring probes
///
/// Exit code 0: all is well. 1: a limit is exceeded, a node is missing or does not answer, a node refused a sender while it looked, two nodes
/// that are there mean a topic or a service as different types, the domain was removed, is full, or has files of another version. 3: all is well, but messages were lost while it looked.
///
/// With WHAT, only what is connected to it is checked, and it is a failure if there is nothing of it. Messages count as lost on those
/// of its channels that are there at the end. If there is no domain, all is well unless WHAT or --node is given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc check                                # no stalled node, no inbox over 75 %, no losses
  librpc check --node display                 # and this node must be there
  librpc check 'sensor/**' --max-p99 5ms      # only these topics
  librpc check --over 10s --max-depth 50 --max-lost 100")]
pub(crate) struct Args {
    #[command(flatten)]
    about: AboutArgs,
    /// A node that must be there and answer. May be repeated
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// How full an inbox may be, in percent. Inboxes that are overwritten do not count
    #[arg(long, value_name = "PERCENT", default_value_t = 75.0, value_parser = percent)]
    max_depth: f64,
    /// The time within which 99 % of a channel's messages must be processed: of those processed while it looks, or of all
    /// if there are none
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// How many nodes may be alive without answering
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_stalled: usize,
    /// How many dead nodes may wait to be swept [default: any number]
    #[arg(long, value_name = "N")]
    max_dead: Option<usize>,
    /// How many messages may not arrive while it looks: dropped, overwritten, too large, or without room or memory
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_lost: u64,
    #[command(flatten)]
    over: OverArgs,
    /// Write one object: ok, failures, lost, nodes, channels
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
    let directory = domain.domain()?;
    let mut looker = Looker::new(directory.clone());
    let earlier = looker.look()?;
    let OverArgs { over } = args.over;
    std::thread::sleep(over);
    let mut later = looker.look()?;
    later.compare_with(&earlier);
    let part = about::select(&later, args.about.what.as_deref());
    let (lost, mut failures) = match &args.about.what {
        None => (later.lost_since(&earlier), Vec::new()),
        Some(what) if part.is_empty() => (0, vec![about::nothing_matches(what)]),
        Some(_) => (part.lost_on_channels_since(&earlier), Vec::new()),
    };
    failures.extend(doctor::of_directory(&directory));
    failures.extend(self::failures(args, &later, &part));
    let (nodes, channels) = (part.nodes.len(), part.channels.len());
    let is_lossy = lost > args.max_lost;
    let result = Result { ok: failures.is_empty() && !is_lossy, failures, lost, nodes, channels };
    let text = if args.json {
        serde_json::to_string(&result)?
    } else if !result.failures.is_empty() {
        format!("FAILED: {}", result.failures.join("; "))
    } else {
        let how = if is_lossy { "LOSS" } else { "OK" };
        let what = if is_lossy { losses(&part.what_was_lost_since(&earlier)) } else { String::new() };
        let (nodes, channels) = (counted(nodes as u64, "node"), counted(channels as u64, "channel"));
        format!("{how}: {nodes}, {channels}, {} lost in {over:?}{what}", counted(lost, "message"))
    };
    std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    match (&result.failures[..], is_lossy) {
        ([], false) => Ok(Outcome::Done),
        ([], true) => Ok(Outcome::Loss),
        (failures, _) => anyhow::bail!("{} failed", counted(failures.len() as u64, "check")),
    }
}

/// The first channels with losses, as they are added to a line.
fn losses(channels: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = channels[..channels.len().min(SHOWN)].iter().map(|channel| format!("; {channel}"));
    let more = channels.len().saturating_sub(SHOWN);
    shown.collect::<String>() + &if more > 0 { format!("; and {more} more") } else { String::new() }
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "it must be from 0 to 100".into())
}

/// What is wrong in this part. The nodes that must be there need not be connected to it.
fn failures(args: &Args, all: &Snapshot, snapshot: &Snapshot) -> Vec<String> {
    let mut failures = Vec::new();
    for wanted in &args.node {
        match all.nodes.iter().find(|node| node.id == *wanted) {
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
    // What could not be looked at is not well.
    for node in snapshot.nodes.iter().filter(|node| matches!(node.state, State::Refused | State::Broken)) {
        let why = node.why.as_deref().unwrap_or_default();
        failures.push(format!("node {} cannot be checked ({}): {why}", node.id, node.state.name()));
    }
    if args.max_dead.is_some_and(|most| dead.len() > most) {
        failures.push(format!("dead: {}", dead.join(", ")));
    }
    for node in &snapshot.nodes {
        failures.extend(node.mismatched(true).map(|text| format!("mismatch at node {}: {text}", node.id)));
        let now = node.refused.iter().filter(|refused| refused.last <= args.over.over);
        failures.extend(now.map(|refused| format!("node {}: {refused}", node.id)));
    }
    for row in &snapshot.channels {
        let (percent, ends) = (row.fill() * 100.0, row.ends());
        if percent > args.max_depth && row.stats.policy != librpc::Policy::DropOldest {
            failures.push(format!("{ends}: {percent:.0} % full, {} wait", counted(row.stats.queued, "message")));
        }
        let p99 = row.latency().quantile(0.99).unwrap_or(0);
        if args.max_p99.is_some_and(|most| u128::from(p99) > most.as_nanos()) {
            failures.push(format!("{ends}: p99 {}", readable(p99)));
        }
    }
    failures
}
