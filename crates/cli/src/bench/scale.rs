//! `librpc bench scale`: what many idle channels, nodes, topics and patterns cost those that have work to do.
//!
//! Each figure is shown beside that of a small domain, measured in turn.

pub(super) mod channels; //  idle channels at a receiver
pub(super) mod joins; //     nodes, while others join and leave
pub(super) mod news; //      nodes, while others join, leave and subscribe, for a publisher
pub(super) mod topics; //    topics of a publisher, patterns of a domain

use std::time::Duration;

use librpc::MAX_TOPICS;
use serde::Serialize;

use super::Bench;
use super::options::Cpus;

/// How long new processes and connections may take to become idle.
const SETTLE: Duration = Duration::from_millis(200);
const MESSAGE_BYTES: usize = 64;
/// The most channels, nodes, topics or subscriptions of a measurement.
pub(super) const MOST: i64 = 100_000;

/// What many idle channels, nodes, topics and patterns cost, and how much memory they take
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench scale
  librpc bench scale --channels 10000 --nodes 100 --json
  librpc bench scale --of news --of join --nodes 1000")]
pub(crate) struct Args {
    /// How many idle channels
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    channels: u32,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=MOST))]
    nodes: u32,
    /// How many topics of one publisher, and how many other subscriptions
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=MAX_TOPICS as i64))]
    topics: u32,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 101, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    #[command(flatten)]
    cpus: Cpus,
    /// Measure only this. May be repeated
    #[arg(long, value_name = "WHAT", value_enum)]
    of: Vec<Of>,
    /// Write one object per line: of what, and the figures
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    /// Sending to a receiver with many idle channels
    Send,
    /// Joining and leaving a domain of many nodes
    Join,
    /// What a join, leave or subscription elsewhere costs a publisher in a domain of many nodes
    News,
    /// Publishing on many topics
    Topics,
    /// Publishing while there are many other subscriptions
    Patterns,
    /// Shared memory of a domain, a node and a channel
    Memory,
}

#[derive(Serialize)]
struct Memory {
    of: &'static str,
    domain_bytes: u64,
    node_bytes: u64,
    channel_bytes: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let wants = |of| args.of.is_empty() || args.of.contains(&of);
    let (cpus, pin) = (args.cpus.each(), args.cpus.pin());
    let (memory, rounds) = (wants(Of::Memory), args.count as usize);
    let mut bytes = Memory { of: "memory", domain_bytes: 0, node_bytes: 0, channel_bytes: 0 };
    if wants(Of::Send) || memory {
        let (send, channel_bytes) = channels::measure(bench, cpus, args.channels, rounds)?;
        bytes.channel_bytes = channel_bytes;
        if wants(Of::Send) {
            bench.print(args.json, "scale", pin, &send, || send.line())?;
        }
    }
    if wants(Of::Join) || memory {
        let (join, domain_bytes, node_bytes) = joins::measure(bench, args.nodes, rounds)?;
        (bytes.domain_bytes, bytes.node_bytes) = (domain_bytes, node_bytes);
        if wants(Of::Join) {
            bench.print(args.json, "scale", None, &join, || join.line())?;
        }
    }
    if wants(Of::News) {
        for news in news::measure(bench, args.nodes, rounds)? {
            bench.print(args.json, "scale", None, &news, || news.line())?;
        }
    }
    if wants(Of::Topics) {
        let topics = topics::measure_topics(bench, cpus, args.topics, rounds)?;
        bench.print(args.json, "scale", pin, &topics, || topics.line())?;
    }
    if wants(Of::Patterns) {
        let patterns = topics::measure_patterns(bench, cpus, args.topics, rounds)?;
        bench.print(args.json, "scale", pin, &patterns, || patterns.line())?;
    }
    if memory {
        bench.print(args.json, "scale", None, &bytes, || {
            let kibibytes = |bytes: u64| bytes as f64 / 1024.0;
            let [domain, node, channel] =
                [bytes.domain_bytes, bytes.node_bytes, bytes.channel_bytes].map(kibibytes);
            format!(
                "memory: a domain with one node {domain} KiB, each further node {node} KiB, an idle channel {channel} KiB"
            )
        })?;
    }
    Ok(())
}
