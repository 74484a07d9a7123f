//! `librpc bench throughput`: messages in one direction, as fast as possible, until all are processed.
//!
//! The limit is what one thread copies, in pieces of the same size. It takes turns with the messages.

use std::time::{Duration, Instant};

use librpc::{Domain, Node, Wait};
use serde::Serialize;

use super::child::{self, on_cpu, pin, ready};
use super::content::{self, Tally};
use super::end::{self, To, Via};
use super::options::{Common, Rounds, SIZES, Share, Way};
use super::rates::Rates;
use super::{Bench, Part, limit};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::grouped;

const BETWEEN_LOOKS: u64 = 64;
/// Warming up ends when the first of both is reached.
const WARM_UP: Share = Share::Time(Duration::from_millis(50));
const WARM_UP_COUNT: u64 = 100_000;

/// Messages and bytes per second in one direction, between two processes
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench throughput --size 256 --seconds 5 --pin 0,1 --json
  librpc bench throughput --sizes 8,64,256,1024,4096,16384,65472 --pin 0,1")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    way: Way,
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    via: Via,
    rounds: usize,
    /// Of all rounds together.
    count: u64,
    #[serde(flatten)]
    rates: Rates,
    lost: u64,
}

struct Round {
    count: u64,
    msgs_per_s: f64,
    limit_msgs_per_s: f64,
    lost: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (common, via) = (&args.common, args.way.via);
    let domain = bench.domain("throughput");
    for size in common.sizes(SIZES)? {
        let rounds = args.rounds.each(common, format!("throughput, {size} bytes"), |share| {
            round(bench, common, &domain, via, size, share)
        })?;
        let measured = Measured {
            size,
            via,
            rounds: rounds.len(),
            count: rounds.iter().map(|round| round.count).sum(),
            rates: Rates::of(size, rounds.iter().map(|round| (round.msgs_per_s, round.limit_msgs_per_s))),
            lost: rounds.iter().map(|round| round.lost).sum(),
        };
        bench.count_lost(measured.lost);
        bench.print(common.json, "throughput", common.pin(), &measured, || {
            let Rates { msgs_per_s, bytes_per_s, limit_bytes_per_s, ratio } = measured.rates;
            let [messages, bytes, limit] =
                [msgs_per_s, bytes_per_s, limit_bytes_per_s].map(|rate| grouped(rate as u64));
            format!(
                "{size} bytes: {messages} messages/s, {bytes} bytes/s; one thread copies {limit} bytes/s ({ratio} ×)"
            )
        })?;
    }
    Ok(())
}

fn round(
    bench: &Bench,
    common: &Common,
    domain: &Domain,
    via: Via,
    size: usize,
    share: Share,
) -> anyhow::Result<Round> {
    let (ours, theirs) = common.cpus();
    let limit_msgs_per_s = on_cpu(ours, || Ok(limit::copies_per_second(size)))?;
    let mut sink = bench.start(domain, &[Part::Sink { node: "sink".into(), via, cpu: theirs }])?;
    let node = Node::builder("source").domain(domain.clone()).open()?;
    let mut to = To::open(&node, "sink", via, &bench.interrupt)?;
    let (count, time, sent) = on_cpu(ours, || {
        let (mut message, mut sent) = (vec![0; size], 0);
        let mut send = |share: Share, most: u64| -> anyhow::Result<(u64, Duration, u64)> {
            let (begun, before) = (Instant::now(), sent);
            while sent - before < most && !share.is_used_up(begun.elapsed(), sent - before) {
                let left = match share {
                    Share::Count(count) => count - (sent - before),
                    Share::Time(_) => BETWEEN_LOOKS,
                };
                for _ in 0..left.min(BETWEEN_LOOKS) {
                    content::write(&mut message, sent);
                    to.send(&message)?;
                    sent += 1;
                }
                bench.check()?;
            }
            to.flush()?;
            Ok((sent - before, begun.elapsed(), sent))
        };
        send(WARM_UP, WARM_UP_COUNT)?;
        send(share, u64::MAX)
    })?;
    let there: Tally = bench.report(&mut sink)?;
    let lost = there.spoilt + sent.abs_diff(there.received);
    Ok(Round { count, msgs_per_s: count as f64 / time.as_secs_f64(), limit_msgs_per_s, lost })
}

/// The process that takes the messages as they come.
pub(super) fn sink(
    domain: &DomainArgs,
    node: &str,
    via: Via,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let node = domain.open(node)?;
    let mut inbox = end::inbox(&node, via, Wait::Spin, librpc::DEFAULT_CAPACITY, interrupt)?;
    pin(cpu)?;
    ready()?;
    let mut tally = Tally::default();
    while end::next(&mut inbox, |payload| tally.take(payload))?.is_some() {}
    child::report(&tally)
}
