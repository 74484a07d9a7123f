//! `librpc bench scale`: what many idle channels and many nodes cost those who have work to do.

use std::time::{Duration, Instant};

use librpc::{Domain, Node, Sender};
use serde::Serialize;

use super::process::{Activity, directory_bytes, memfd_bytes};
use super::{Bench, Part, median, print, ratio};
use crate::latency::readable;

const MESSAGES: u64 = 10_000;
const MESSAGE_BYTES: usize = 64;
const ROUNDS: usize = 101;
/// How long what was just started or connected may take to be idle.
const SETTLE: Duration = Duration::from_millis(200);
const JOINS: usize = 201;

/// What many idle channels cost a sender, many nodes a join, and how much memory each takes
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  librpc bench scale\n  librpc bench scale --channels 10000 --nodes 100 --json")]
pub(crate) struct Args {
    /// How many idle channels
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    nodes: u32,
    /// Three objects: of what (send, join, memory), and the figures
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Send {
    bench: &'static str,
    of: &'static str,
    channels: u32,
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
}

#[derive(Serialize)]
struct Join {
    bench: &'static str,
    of: &'static str,
    nodes: u32,
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
    /// Context switches of the process with all the nodes, while others joined and left.
    context_switches: u64,
}

#[derive(Serialize)]
struct Memory {
    bench: &'static str,
    of: &'static str,
    domain_bytes: u64,
    node_bytes: u64,
    channel_bytes: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (send, channel_bytes) = sends(bench, args.channels)?;
    print(args.json, &send, || {
        let [one, many] = [send.one_ns, send.many_ns].map(readable);
        let Send { channels, ratio, .. } = send;
        format!("a message to a receiver with one channel: {one}; with {channels} idle ones beside: {many} ({ratio} ×)")
    })?;
    let (join, domain_bytes, node_bytes) = joins(bench, args.nodes)?;
    print(args.json, &join, || {
        let [one, many] = [join.one_ns, join.many_ns].map(readable);
        let Join { nodes, ratio, context_switches, .. } = join;
        format!(
            "joining and leaving a domain of one node: {one}; of {nodes}: {many} ({ratio} ×), with {context_switches} \
             context switches of theirs"
        )
    })?;
    let memory = Memory { bench: "scale", of: "memory", domain_bytes, node_bytes, channel_bytes };
    print(args.json, &memory, || {
        let [domain, node, channel] = [domain_bytes, node_bytes, channel_bytes].map(|bytes| bytes as f64 / 1024.0);
        format!(
            "memory: a domain with one node {domain} KiB, each further node {node} KiB, an idle channel {channel} KiB"
        )
    })
}

/// Sends to two nodes of one process by turns, of which one has many idle channels.
fn sends(bench: &Bench, channels: u32) -> anyhow::Result<(Send, u64)> {
    let domain = bench.domain("channels");
    let receivers = bench.start(&domain, &[Part::Receive { nodes: vec!["few".into(), "many".into()] }])?;
    let before = memfd_bytes(&receivers.pids())?;
    let idle = bench.start(&domain, &[Part::Connected { to: "many".into(), count: channels as usize }])?;
    bench.interrupt.wait_for(SETTLE)?;
    let pids = [receivers.pids(), idle.pids()].concat();
    let channel_bytes = memfd_bytes(&pids)?.saturating_sub(before) / u64::from(channels);

    let node = Node::builder("sender").domain(domain).open()?;
    let mut senders = [node.sender("few")?, node.sender("many")?];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        bench.check()?;
        for (sender, times) in senders.iter_mut().zip(&mut times) {
            let ns = send_many(sender)?;
            if round > 0 {
                times.push(ns);
            }
        }
    }
    drop(senders);
    drop(node);
    let [one_ns, many_ns] = times.map(|mut times| median(&mut times));
    let of_one = |ns: u64| ns / MESSAGES;
    let ratio = ratio(many_ns, one_ns);
    let (one_ns, many_ns) = (of_one(one_ns), of_one(many_ns));
    Ok((Send { bench: "scale", of: "send", channels, one_ns, many_ns, ratio }, channel_bytes))
}

/// The time until so many messages are processed.
fn send_many(sender: &mut Sender) -> anyhow::Result<u64> {
    let begun = Instant::now();
    for _ in 0..MESSAGES {
        sender.send(&[7; MESSAGE_BYTES])?;
    }
    sender.flush(Duration::from_secs(10))?;
    Ok(begun.elapsed().as_nanos() as u64)
}

/// Joins two domains by turns, of which one has many nodes.
fn joins(bench: &Bench, nodes: u32) -> anyhow::Result<(Join, u64, u64)> {
    let (few, many) = (bench.domain("one"), bench.domain("many"));
    let _one = bench.start(&few, &[Part::Nodes { count: 1 }])?;
    let crowd = bench.start(&many, &[Part::Nodes { count: nodes as usize }])?;
    let crowd_pid = crowd.pids()[0];
    let (domain_bytes, all) = (directory_bytes(few.path())?, directory_bytes(many.path())?);
    let node_bytes = all.saturating_sub(domain_bytes) / u64::from(nodes - 1);

    bench.interrupt.wait_for(SETTLE)?;
    let before = Activity::of(crowd_pid)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..JOINS {
        bench.check()?;
        for (domain, times) in [&few, &many].into_iter().zip(&mut times) {
            times.push(join(domain)?);
        }
    }
    let context_switches = Activity::of(crowd_pid)?.since(before).context_switches;
    let [one_ns, many_ns] = times.map(|mut times| median(&mut times));
    let ratio = ratio(many_ns, one_ns);
    let join = Join { bench: "scale", of: "join", nodes, one_ns, many_ns, ratio, context_switches };
    Ok((join, domain_bytes, node_bytes))
}

fn join(domain: &Domain) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let node = Node::builder("visitor").domain(domain.clone()).open()?;
    drop(node);
    Ok(begun.elapsed().as_nanos() as u64)
}
