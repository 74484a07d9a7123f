//! `librpc bench idle`: a receiver with many connected senders, or a server with many clients, while nobody sends.

use std::time::Duration;

use serde::Serialize;

use super::process::Activity;
use super::scale::MOST;
use super::{Bench, Part};
use crate::latency::readable;
use crate::options::seconds;

/// What a receiver with many connected, idle senders does: nothing
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  librpc bench idle --channels 1000 --seconds 10 --json\n  librpc bench idle --clients"
)]
pub(crate) struct Args {
    /// How many senders
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=MOST))]
    channels: u32,
    /// Clients of a service, each of which has made a call, instead of senders
    #[arg(long)]
    clients: bool,
    /// How long to look
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Write one object: bench, channels, seconds, context_switches, cpu_ns, and both for the senders' process
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Idle {
    channels: u32,
    seconds: f64,
    context_switches: u64,
    cpu_ns: u64,
    sender_context_switches: u64,
    sender_cpu_ns: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("idle");
    let [receive, send] = match args.clients {
        true => [Part::Serve { spins: false, cpu: None }, Part::Clients { count: args.channels }],
        false => [
            Part::Receive { nodes: vec!["idle".into()], cpu: None },
            Part::Connected { to: "idle".into(), count: args.channels },
        ],
    };
    let (receiver, senders) = (bench.start(&domain, &[receive])?, bench.start(&domain, &[send])?);
    let pids = [receiver.pids()[0], senders.pids()[0]];
    // New connections are polled for a moment before they count as idle.
    bench.interrupt.wait_for(Duration::from_millis(500))?;
    let before = [Activity::of(pids[0])?, Activity::of(pids[1])?];
    bench.interrupt.wait_for(args.seconds)?;
    bench.check()?;
    let [receiver, sender] = [Activity::of(pids[0])?.since(before[0]), Activity::of(pids[1])?.since(before[1])];
    let idle = Idle {
        channels: args.channels,
        seconds: args.seconds.as_secs_f64(),
        context_switches: receiver.context_switches,
        cpu_ns: receiver.cpu_ns,
        sender_context_switches: sender.context_switches,
        sender_cpu_ns: sender.cpu_ns,
    };
    bench.print(args.json, "idle", None, &idle, || {
        format!(
            "{} idle {} for {} s: the other side had {} context switches and used {} of CPU; their own process {} and {}",
            idle.channels,
            if args.clients { "clients" } else { "senders" },
            idle.seconds,
            idle.context_switches,
            readable(idle.cpu_ns),
            idle.sender_context_switches,
            readable(idle.sender_cpu_ns),
        )
    })
}
