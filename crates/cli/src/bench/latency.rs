//! `librpc bench latency`: half of a round trip between two processes that poll.
//!
//! The limit is half of the round trip of a cache line between two threads on the same CPUs: what the hardware takes. It
//! takes turns with the messages, which get new processes in each round.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::{Domain, Node, Wait};
use serde::Serialize;

use super::child::{self, on_cpu, pin, ready};
use super::content::{self, Tally};
use super::end::{self, To, Via};
use super::options::{Common, Percentiles, Rounds, SIZES, Share, Way};
use super::times::Times;
use super::{Bench, Part, limit, median, median_ratio};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, readable};

/// Warming up ends when the first of both is reached.
const WARM_UP: u64 = 10_000;
const WARM_UP_TIME: Duration = Duration::from_millis(50);

/// One-way latency between two processes that poll, from publishing a message to receiving it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench latency --size 64 --count 1000000 --pin 0,1 --json
  librpc bench latency --sizes 8,64,256,1024,4096,16384,65472 --pin 0,1
  librpc bench latency --via send --hgrm latency.hgrm")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    percentiles: Percentiles,
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    via: Via,
    rounds: usize,
    #[serde(flatten)]
    latency: Latency,
    /// The median over the rounds.
    limit_ns: u64,
    /// The median over the rounds of p50 / limit.
    ratio: f64,
    p999_to_p50: f64,
    lost: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("latency");
    let sizes = args.common.sizes(SIZES)?;
    for &size in &sizes {
        let (measured, times) = one(bench, args, &domain, size)?;
        args.percentiles.write(&times, (sizes.len() > 1).then_some(&size))?;
        bench.print(args.common.json, "latency", args.common.pin(), &measured, || {
            let Latency { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = measured.latency;
            let [p50, p90, p99, p999, max] = [p50_ns, p90_ns, p99_ns, p999_ns, max_ns].map(readable);
            let (limit, ratio) = (readable(measured.limit_ns), measured.ratio);
            format!(
                "one way, {size} bytes: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}; a cache line takes \
                 {limit} ({ratio} ×)"
            )
        })?;
    }
    Ok(())
}

fn one(bench: &Bench, args: &Args, domain: &Domain, size: usize) -> anyhow::Result<(Measured, Times)> {
    let (common, via) = (&args.common, args.way.via);
    let (mut times, mut lost) = (Times::new(), 0);
    let ratios = args.rounds.each(common, format!("latency, {size} bytes"), |share| {
        let limit_ns = limit::cache_line(common.cpus())?;
        let (of_round, lost_in_round) = round(bench, common, domain, via, size, share)?;
        times.add(&of_round);
        lost += lost_in_round;
        Ok((of_round.median(), limit_ns))
    })?;
    bench.count_lost(lost);
    let (rounds, latency) = (ratios.len(), times.latency());
    let p999_to_p50 = super::ratio(latency.p999_ns, latency.p50_ns);
    let mut limits: Vec<u64> = ratios.iter().map(|(_, limit_ns)| *limit_ns).collect();
    let (limit_ns, ratio) = (median(&mut limits), median_ratio(&ratios));
    Ok((Measured { size, via, rounds, latency, limit_ns, ratio, p999_to_p50, lost }, times))
}

/// Half of each round trip, and how many messages were lost or spoilt.
pub(super) fn round(
    bench: &Bench,
    common: &Common,
    domain: &Domain,
    via: Via,
    size: usize,
    share: Share,
) -> anyhow::Result<(Times, u64)> {
    let node = Node::builder("ping").domain(domain.clone()).open()?;
    let mut inbox = end::inbox(&node, via, Wait::Spin, librpc::DEFAULT_CAPACITY, &bench.interrupt)?;
    let (ours, theirs) = common.cpus();
    let mut pong = bench.start(domain, &[Part::Echo { node: "pong".into(), to: "ping".into(), via, cpu: theirs }])?;
    let mut to = To::open(&node, "pong", via, &bench.interrupt)?;
    let (times, came) = on_cpu(ours, || {
        let (mut times, mut came) = (Times::new(), Tally::default());
        let mut message = vec![0; size];
        let mut begun = Instant::now();
        let mut warm = false;
        loop {
            let sent = Instant::now();
            let (time, count) = (sent - begun, times.count());
            if !warm && (came.received >= WARM_UP || time >= WARM_UP_TIME) {
                (warm, begun) = (true, sent);
            } else if warm && share.is_used_up(time, count) {
                return Ok((times, came));
            }
            content::write(&mut message, came.received);
            to.send(&message)?;
            if end::next(&mut inbox, |payload| came.take(payload))?.is_none() {
                bail!("the other process has left");
            }
            if warm {
                times.record(sent.elapsed().as_nanos() as u64 / 2);
            }
        }
    })?;
    let there: Tally = bench.report(&mut pong)?;
    Ok((times, came.spoilt + there.spoilt + came.received.abs_diff(there.received)))
}

/// The process at the other end.
pub(super) fn echo(
    domain: &DomainArgs,
    (node, to, via): (&str, &str, Via),
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let node = domain.open(node)?;
    let mut inbox = end::inbox(&node, via, Wait::Spin, librpc::DEFAULT_CAPACITY, interrupt)?;
    let mut to = To::open(&node, to, via, interrupt)?;
    pin(cpu)?;
    ready()?;
    let (mut tally, mut message) = (Tally::default(), Vec::new());
    let mut take = |payload: &[u8]| {
        message.resize(payload.len(), 0);
        content::write(&mut message, tally.received);
        tally.take(payload);
        to.send(&message)
    };
    while let Some(sent) = end::next(&mut inbox, &mut take)? {
        sent.context("cannot answer")?;
    }
    child::report(&tally)
}
