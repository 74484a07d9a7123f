//! The time from publishing a message until every subscriber has it, by the clock that both processes share.
//!
//! ```text
//! bytes 0..8  when it was published
//! the rest    the content of the message of its number
//! ```
//!
//! Before each message, a loan of the large size is written; after it, the last large message is read. So the caches are in the
//! same state for the short messages that take turns with the large ones.

use std::time::Instant;

use anyhow::Context;
use librpc::{Domain, Inbox, Node, Publisher, Sample, Wait};
use serde::Serialize;

use super::{Args, VIEWERS, Viewers};
use crate::bench::child::{self, on_cpu, pin, ready};
use crate::bench::content::{self, NUMBER_BYTES, Tally};
use crate::bench::end::{self, Via};
use crate::bench::options::Share;
use crate::bench::times::Times;
use crate::bench::{Bench, Part, limit, median, median_ratio};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, grouped, readable};
use crate::payload::now_ns;

const SHORT: usize = 64;
/// Warming up: the memory is made, and handed over.
const WARM_UP: Share = Share::Count(8);
const ASKING: &str = "asking";

#[derive(Serialize)]
struct Measured {
    how: &'static str,
    size: usize,
    subscribers: u32,
    rounds: usize,
    #[serde(flatten)]
    latency: Latency,
    /// How long the publisher takes, the median.
    publish_ns: u64,
    /// Medians for a message of 64 bytes.
    short_ns: u64,
    short_publish_ns: u64,
    /// The median over the rounds of p50 / p50 of the short one.
    ratio: f64,
    /// A cache line from core to core, the median over the rounds.
    limit_ns: u64,
    lost: u64,
}

/// What was measured of messages of one length.
struct Measurements {
    taken: Times,
    published: Times,
}

impl Measurements {
    fn new() -> Self {
        Self { taken: Times::new(), published: Times::new() }
    }

    fn add(&mut self, other: &Self) {
        self.taken.add(&other.taken);
        self.published.add(&other.published);
    }
}

pub(super) fn measure(bench: &Bench, args: &Args, domain: &Domain, size: usize) -> anyhow::Result<()> {
    let (common, subscribers) = (&args.common, args.subscribers);
    let (mut large, mut short, mut lost) = (Measurements::new(), Measurements::new(), 0);
    let (mut ratios, mut limits) = (Vec::new(), Vec::new());
    args.rounds.each(common, format!("large, {size} bytes in place"), |share| {
        limits.push(limit::cache_line(common.cpus())?);
        let ([of_large, of_short], lost_in_round) = round(bench, args, domain, size, share)?;
        ratios.push((of_large.taken.median(), of_short.taken.median()));
        large.add(&of_large);
        short.add(&of_short);
        lost += lost_in_round;
        Ok(())
    })?;
    bench.count_lost(lost);
    let measured = Measured {
        how: "in-place",
        size,
        subscribers,
        rounds: ratios.len(),
        latency: large.taken.latency(),
        publish_ns: large.published.median(),
        short_ns: short.taken.median(),
        short_publish_ns: short.published.median(),
        ratio: median_ratio(&ratios),
        limit_ns: median(&mut limits),
        lost,
    };
    bench.print(common.json, "large", common.pin(), &measured, || {
        let Latency { p50_ns, p99_ns, p999_ns, .. } = measured.latency;
        let [p50, p99, p999, publish] = [p50_ns, p99_ns, p999_ns, measured.publish_ns].map(readable);
        let [short, short_publish, limit] =
            [measured.short_ns, measured.short_publish_ns, measured.limit_ns].map(readable);
        format!(
            "in place, {} bytes to {subscribers}: p50 {p50}, p99 {p99}, p99.9 {p999}, a publish {publish}; 64 bytes {short}, \
             a publish {short_publish} ({} ×); a cache line takes {limit}",
            grouped(size as u64),
            measured.ratio
        )
    })
}

/// The times of large and of short messages, and how many were lost or spoilt.
fn round(
    bench: &Bench,
    args: &Args,
    domain: &Domain,
    size: usize,
    share: Share,
) -> anyhow::Result<([Measurements; 2], u64)> {
    let node = Node::builder(ASKING).domain(domain.clone()).open()?;
    let inbox = end::inbox(&node, Via::Topic, Wait::Spin, librpc::DEFAULT_CAPACITY, &bench.interrupt)?;
    let (ours, theirs) = args.common.cpus();
    let mut viewers = bench.start(domain, &[Part::ViewInPlace { subscribers: args.subscribers, size, cpu: theirs }])?;
    let publisher = end::publisher(&node, VIEWERS, &bench.interrupt)?;
    let mut asking = Asking { inbox, publisher, size, subscribers: args.subscribers as usize, number: 0 };
    let measurements = on_cpu(ours, || {
        asking.turns(bench, WARM_UP)?;
        asking.turns(bench, share)
    })?;
    let there: Tally = bench.report(&mut viewers)?;
    Ok((measurements, there.spoilt + there.received.abs_diff(asking.number * u64::from(args.subscribers))))
}

/// The side that publishes.
struct Asking {
    inbox: Inbox,
    publisher: Publisher,
    size: usize,
    subscribers: usize,
    /// Of the next message.
    number: u64,
}

impl Asking {
    fn turns(&mut self, bench: &Bench, share: Share) -> anyhow::Result<[Measurements; 2]> {
        let mut all = [Measurements::new(), Measurements::new()];
        let begun = Instant::now();
        while all[0].taken.count() == 0 || !share.is_used_up(begun.elapsed(), all[0].taken.count()) {
            for (of, is_large) in all.iter_mut().zip([true, false]) {
                let (taken, published) = self.turn(is_large)?;
                of.taken.record(taken);
                of.published.record(published);
            }
            bench.check()?;
        }
        Ok(all)
    }

    /// How long a message took, and how long publishing it, in ns.
    fn turn(&mut self, is_large: bool) -> anyhow::Result<(u64, u64)> {
        let mut loan = self.publisher.loan_uninit(self.size)?;
        content::write(&mut loan[NUMBER_BYTES..], self.number);
        let mut short = [0; SHORT];
        content::write(&mut short[NUMBER_BYTES..], self.number);
        self.number += 1;
        let begun = now_ns();
        let receipt = if is_large {
            loan[..NUMBER_BYTES].copy_from_slice(&begun.to_le_bytes());
            self.publisher.publish_loan(loan).map_err(|unsent| unsent.error)
        } else {
            short[..NUMBER_BYTES].copy_from_slice(&begun.to_le_bytes());
            self.publisher.publish(&short)
        };
        let published = now_ns() - begun;
        anyhow::ensure!(receipt?.inboxes() == self.subscribers, "a subscriber is gone");
        let taken = end::next(&mut self.inbox, content::number)?.context("the other process has left")?;
        Ok((taken.context("an answer came that is not what was sent")?, published))
    }
}

/// The process of the subscribers.
pub(in crate::bench) fn view(
    domain: &DomainArgs,
    subscribers: u32,
    size: usize,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let mut viewers = Viewers::open(domain, subscribers, interrupt)?;
    ready()?;
    let mut answers = end::publisher(&viewers.node, ASKING, interrupt)?;
    pin(cpu)?;
    let (mut tally, mut large): (Tally, Option<Sample>) = (Tally::default(), None);
    for number in 0.. {
        let Some(samples) = take(&mut viewers.inboxes)? else { break };
        let now = now_ns();
        let stamp = samples[0].view().array(0).map_or(0, u64::from_le_bytes);
        for sample in samples {
            tally.received += 1;
            if sample.len() == size {
                tally.spoilt += u64::from(!viewers.is(&sample, NUMBER_BYTES, number));
                large = Some(sample);
            } else {
                let is_right = sample.len() == SHORT && viewers.is(&sample, NUMBER_BYTES, number);
                tally.spoilt += u64::from(!is_right);
                // Leaves the caches as a large message does.
                if let Some(large) = &large {
                    viewers.is(large, NUMBER_BYTES, number);
                }
            }
        }
        let mut answer = [0; NUMBER_BYTES];
        content::write(&mut answer, now.saturating_sub(stamp).max(1));
        let _ = answers.publish(&answer)?; // the other side notices
    }
    child::report(&tally)
}

/// The next message of every inbox. `None`: an inbox was stopped.
fn take(inboxes: &mut [Inbox]) -> anyhow::Result<Option<Vec<Sample>>> {
    let mut samples = Vec::with_capacity(inboxes.len());
    for inbox in inboxes {
        let Some(sample) = inbox.recv_sample()? else { return Ok(None) };
        samples.push(sample);
    }
    Ok(Some(samples))
}
