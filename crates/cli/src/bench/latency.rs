//! `librpc bench latency`: there and back between two processes that poll, halved.
//!
//! The limit is one cache line there and back between two threads on the same CPUs, halved: what the hardware takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use librpc::Node;
use serde::Serialize;

use super::part::{pin, ready, spinning};
use super::{Bench, Part, print};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, readable};
use crate::outcome::Usage;

const WARM_UP: u64 = 10_000;
const LIMIT_ROUNDS: u64 = 200_000;

/// One-way latency between two processes that poll
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  librpc bench latency --size 64 --count 1000000 --pin 0,1 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How many round trips, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    count: Option<u64>,
}

/// What measurements of messages have in common.
#[derive(clap::Args)]
pub(super) struct Common {
    /// Bytes of a message
    #[arg(long, value_name = "B", default_value_t = 64)]
    pub(super) size: usize,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// The CPUs of the two processes
    #[arg(long, value_name = "A,B", value_parser = parse_pair)]
    pub(super) pin: Option<(usize, usize)>,
    /// One object, on one line
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_pair(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    pair.ok_or_else(|| "two CPU numbers are expected, as in 0,1".to_owned())
}

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    size: usize,
    #[serde(flatten)]
    latency: Latency,
    limit_ns: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let Common { size, seconds, pin: cpus, json } = args.common;
    let time = crate::duplex::seconds(seconds)?;
    let domain = bench.domain("latency");
    let before = limit(cpus)?;
    let node = Node::builder("ping").domain(domain.clone()).open()?;
    let mut inbox = spinning(&node, &bench.interrupt)?;
    let echo = Part::Echo { node: "pong".into(), to: "ping".into(), cpu: cpus.map(|cpus| cpus.1) };
    let echo = bench.start(&domain, &[echo])?;
    let mut sender = node.sender("pong")?;
    pin(cpus.map(|cpus| cpus.0))?; // after the library's own thread was started
    let message = vec![7; size];
    let mut histogram = Histogram::<u64>::new(3)?;
    let begun = Instant::now();
    let mut rounds = 0;
    loop {
        let sent = Instant::now();
        match args.count {
            Some(count) if rounds >= count + WARM_UP => break,
            None if rounds > WARM_UP && sent - begun >= time => break,
            _ => {}
        }
        match sender.send(&message) {
            Ok(()) => {}
            Err(error @ librpc::SendError::TooLarge { .. }) => return Err(Usage(error.to_string()).into()),
            Err(error) => return Err(error.into()),
        }
        if inbox.recv()?.is_none() {
            bail!("interrupted");
        }
        if rounds >= WARM_UP {
            histogram.saturating_record(sent.elapsed().as_nanos() as u64 / 2);
        }
        rounds += 1;
    }
    drop((sender, inbox, echo));
    drop(node);
    let measured =
        Measured { bench: "latency", size, latency: Latency::of(&histogram), limit_ns: before.min(limit(cpus)?) };
    print(json, &measured, || {
        let Latency { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = measured.latency;
        let [p50, p90, p99, p999, max] = [p50_ns, p90_ns, p99_ns, p999_ns, max_ns].map(readable);
        let limit = readable(measured.limit_ns);
        format!(
            "one way, {size} bytes: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}; a cache line takes {limit}"
        )
    })
}

/// The process at the other end.
pub(super) fn echo(
    domain: &DomainArgs,
    node: &str,
    to: &str,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let node = domain.open(node)?;
    let mut inbox = spinning(&node, interrupt)?;
    let mut sender = node.sender_within(to, Duration::from_secs(10))?;
    pin(cpu)?;
    ready()?;
    while let Some(message) = inbox.recv()? {
        sender.send(message.payload())?;
    }
    Ok(())
}

#[repr(align(128))]
struct Line(AtomicU64);

/// The median time in ns that a cache line takes from one CPU to the other.
fn limit(cpus: Option<(usize, usize)>) -> anyhow::Result<u64> {
    let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let over = AtomicBool::new(false);
    let answer = || -> anyhow::Result<()> {
        pin(cpus.map(|cpus| cpus.1)).inspect_err(|_| over.store(true, Ordering::Relaxed))?;
        let mut seen = 0;
        while !over.load(Ordering::Relaxed) {
            let now = there.0.load(Ordering::Acquire); // pairs with the Release in `ask`
            if now != seen {
                seen = now;
                back.0.store(now, Ordering::Release); // pairs with the Acquire in `ask`
            }
            std::hint::spin_loop();
        }
        Ok(())
    };
    let ask = || -> anyhow::Result<u64> {
        let pinned = pin(cpus.map(|cpus| cpus.0)).inspect_err(|_| over.store(true, Ordering::Relaxed));
        let mut histogram = Histogram::<u64>::new(3)?;
        for round in 1..=LIMIT_ROUNDS {
            let begun = Instant::now();
            there.0.store(round, Ordering::Release); // pairs with the Acquire in `answer`
            while back.0.load(Ordering::Acquire) != round && !over.load(Ordering::Relaxed) {
                std::hint::spin_loop(); // the Acquire pairs with the Release in `answer`
            }
            histogram.saturating_record(begun.elapsed().as_nanos() as u64 / 2);
        }
        over.store(true, Ordering::Relaxed);
        pinned.map(|()| histogram.value_at_quantile(0.5))
    };
    std::thread::scope(|scope| {
        let (answering, asking) = (scope.spawn(answer), scope.spawn(ask));
        answering.join().expect("no panic")?;
        asking.join().expect("no panic")
    })
}
