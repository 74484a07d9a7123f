//! `librpc bench call`: a call from one process to another, and back.
//!
//! Where both sides poll, the limit is a one-way publish of the same size, of which a call needs two. Where both sleep, it is a round
//! trip of eventfds in epoll. Each takes turns with the calls, with new processes in each round.

pub(super) mod cancel; // until a handler sees that its call was cancelled
pub(super) mod unread; // calls beside a reply that nobody reads

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use librpc::{Domain, Node, Request, Wait};
use serde::Serialize;

use super::child::{on_cpu, pin, raise_descriptor_limit, ready};
use super::end::Via;
use super::eventfd::Line;
use super::options::{Common, Percentiles, Rounds, SIZES, Share};
use super::times::Times;
use super::{Bench, Part, latency, median, median_ratio};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, readable};

/// Warming up ends when the first of both is reached.
const WARM_UP: u64 = 10_000;
const WARM_UP_TIME: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(10);

/// Round trips of calls: where both sides poll, compared with a one-way publish; where both sleep, with eventfds
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench call --pin 0,1
  librpc bench call --sizes 64,1024 --json
  librpc bench call --what cancel          # until its handler sees that a call was cancelled
  librpc bench call --what unread-stream   # calls beside a reply in parts that nobody reads")]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value_t = What::RoundTrip)]
    what: What,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    percentiles: Percentiles,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A call and its reply
    RoundTrip,
    /// From dropping a call to the moment when its handler sees that
    Cancel,
    /// Calls without, and beside, a reply in parts that nobody reads
    UnreadStream,
}

#[derive(Serialize)]
struct Cancelled {
    what: &'static str,
    rounds: usize,
    #[serde(flatten)]
    latency: Latency,
}

#[derive(Serialize)]
struct Unread {
    what: &'static str,
    rounds: usize,
    /// Beside the stream.
    #[serde(flatten)]
    latency: Latency,
    /// Without it.
    limit_ns: u64,
    /// The median over the rounds of p99 / limit.
    ratio: f64,
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    /// How both sides wait.
    wait: &'static str,
    rounds: usize,
    #[serde(flatten)]
    latency: Latency,
    /// The median over the rounds: a one-way publish (spin), or a round trip of eventfds (block).
    limit_ns: u64,
    /// The median over the rounds of p50 / limit.
    ratio: f64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    match args.what {
        What::RoundTrip => round_trips(bench, args),
        What::Cancel => cancelling(bench, args),
        What::UnreadStream => beside_a_stream(bench, args),
    }
}

fn cancelling(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (domain, mut times) = (bench.domain("call"), Times::new());
    let each = |share| {
        let of_round = cancel::round(bench, &args.common, &domain, share)?;
        times.add(&of_round);
        Ok(of_round.median())
    };
    let rounds = args.rounds.each(&args.common, "cancelled calls".to_owned(), each)?.len();
    args.percentiles.write(&times, None)?;
    let measured = Cancelled { what: "cancel", rounds, latency: times.latency() };
    bench.print(args.common.json, "call", args.common.pin(), &measured, || {
        let Latency { p50_ns, p99_ns, max_ns, .. } = measured.latency;
        let [p50, p99, max] = [p50_ns, p99_ns, max_ns].map(readable);
        format!("call, cancelled: its handler sees it after p50 {p50}, p99 {p99}, max {max}")
    })
}

fn beside_a_stream(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (domain, mut times) = (bench.domain("call"), Times::new());
    let each = |share| {
        let half = match share {
            Share::Time(time) => Share::Time(time / 2),
            count => count,
        };
        let [without, with] = unread::round(bench, &args.common, &domain, half)?;
        times.add(&with);
        Ok((with.latency().p99_ns, without.latency().p99_ns))
    };
    let ratios = args.rounds.each(&args.common, "calls beside a stream".to_owned(), each)?;
    let mut limits: Vec<u64> = ratios.iter().map(|(_, without)| *without).collect();
    let (limit_ns, ratio) = (median(&mut limits), median_ratio(&ratios));
    args.percentiles.write(&times, None)?;
    let measured = Unread { what: "unread-stream", rounds: ratios.len(), latency: times.latency(), limit_ns, ratio };
    bench.print(args.common.json, "call", args.common.pin(), &measured, || {
        let (p99, without) = (readable(measured.latency.p99_ns), readable(limit_ns));
        format!("call, beside a reply in parts that nobody reads: p99 {p99}; without one {without} ({ratio} ×)")
    })
}

fn round_trips(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("call");
    for size in args.common.sizes(SIZES)? {
        for (wait, name) in [(Wait::Spin, "spin"), (Wait::Block, "block")] {
            let mut times = Times::new();
            let each = |share| {
                let half = match share {
                    Share::Time(time) => Share::Time(time / 4), // two ways to wait, each with its limit
                    count => count,
                };
                let limit_ns = match wait {
                    Wait::Spin => latency::round(bench, &args.common, &domain, Via::Topic, size, half)?.0.median(),
                    _ => eventfds(bench, &args.common, &domain, half)?.median(),
                };
                let of_round = round(bench, &args.common, &domain, (wait, name), size, half)?;
                times.add(&of_round);
                Ok((of_round.median(), limit_ns))
            };
            let ratios = args.rounds.each(&args.common, format!("call, {size} bytes, {name}"), each)?;
            let mut limits: Vec<u64> = ratios.iter().map(|(_, limit_ns)| *limit_ns).collect();
            let (limit_ns, ratio) = (median(&mut limits), median_ratio(&ratios));
            let measured =
                Measured { size, wait: name, rounds: ratios.len(), latency: times.latency(), limit_ns, ratio };
            args.percentiles.write(&times, Some(&format_args!("{size}.{name}")))?;
            bench.print(args.common.json, "call", args.common.pin(), &measured, || {
                let Latency { p50_ns, p90_ns, p99_ns, max_ns, .. } = measured.latency;
                let [p50, p90, p99, max] = [p50_ns, p90_ns, p99_ns, max_ns].map(readable);
                let limit = readable(limit_ns);
                let what = if name == "spin" { "one way, a publish takes" } else { "eventfds take, there and back," };
                format!(
                    "call, {size} bytes, {name}: p50 {p50}, p90 {p90}, p99 {p99}, max {max}; {what} {limit} ({ratio} ×)"
                )
            })?;
        }
    }
    Ok(())
}

/// Repeats something until a share is used up, and returns how long each took.
fn repeat(share: Share, mut what: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Times> {
    let (mut times, mut begun, mut warmed) = (Times::new(), Instant::now(), 0);
    let mut is_warm = false;
    loop {
        let sent = Instant::now();
        let time = sent - begun;
        if !is_warm && (warmed >= WARM_UP || time >= WARM_UP_TIME) {
            (is_warm, begun) = (true, sent);
        } else if is_warm && share.is_used_up(time, times.count()) {
            return Ok(times);
        }
        what()?;
        match is_warm {
            true => times.record(sent.elapsed().as_nanos() as u64),
            false => warmed += 1,
        }
    }
}

fn round(
    bench: &Bench,
    common: &Common,
    domain: &Domain,
    (wait, name): (Wait, &str),
    size: usize,
    share: Share,
) -> anyhow::Result<Times> {
    let node = Node::builder("caller").domain(domain.clone()).open()?;
    let client = node.client_builder("echo").wait(wait).open()?;
    let (ours, theirs) = common.cpus();
    let _server = bench.start(domain, &[Part::Serve { spins: name == "spin", cpu: theirs }])?;
    on_cpu(ours, || {
        let (mut request, mut number) = (vec![0; size], 0u64);
        repeat(share, || {
            bench.check()?;
            number += 1;
            let bytes = size.min(8);
            request[..bytes].copy_from_slice(&number.to_le_bytes()[..bytes]);
            let reply = client.call(&request, LIMIT)?;
            ensure!(*reply == *request, "a reply is not its request");
            Ok(())
        })
    })
}

/// The process at the other end.
pub(super) fn serve(domain: &DomainArgs, spins: bool, cpu: Option<usize>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let wait = if spins { Wait::Spin } else { Wait::Block };
    serve_each(domain, ("echo", wait, cpu), interrupt, |request| {
        let reply = request.to_vec();
        Ok(request.reply(&reply)?)
    })
}

fn serve_each(
    domain: &DomainArgs,
    (service, wait, cpu): (&str, Wait, Option<usize>),
    interrupt: &Interrupt,
    mut answer: impl FnMut(Request) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let node = domain.open("echo")?;
    let server = node.server_builder(service).wait(wait).open()?;
    let stop = server.stop_handle();
    interrupt.then(move || stop.stop());
    pin(cpu)?;
    ready()?;
    while let Some(request) = server.recv()? {
        answer(request)?;
    }
    Ok(())
}

/// The process of many clients: each has made a call, and makes no more.
pub(super) fn clients(domain: &DomainArgs, count: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let node = domain.open("clients")?;
    let client = |_| {
        let client = node.client("echo")?;
        client.call(b"", LIMIT)?;
        Ok(client)
    };
    let clients = (0..count).map(client).collect::<anyhow::Result<Vec<_>>>()?;
    ready()?;
    interrupt.wait()?;
    drop(clients);
    Ok(())
}

/// Round trips of eventfds.
fn eventfds(bench: &Bench, common: &Common, domain: &Domain, share: Share) -> anyhow::Result<Times> {
    let (ours, theirs) = common.cpus();
    let (line, _answering) = bench.start_with_line(domain, |socket| Part::AnswerEventfd { socket, cpu: theirs })?;
    on_cpu(ours, || {
        repeat(share, || {
            line.send(1)?;
            line.wait()?.context("interrupted")?;
            Ok(())
        })
    })
}

/// Answers each number with the same one.
pub(super) fn answer_eventfd(socket: &str, cpu: Option<usize>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let line = Line::connect(socket, interrupt)?;
    pin(cpu)?;
    ready()?;
    while let Some(number) = line.wait()? {
        line.send(number)?;
    }
    Ok(())
}
