//! The rate at which messages are written into loans, published, and read by every subscriber, byte by byte.
//!
//! The limit is one thread that copies from one buffer of a message's size to another. It takes turns with the messages.

use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{Domain, Node, Publisher};
use serde::Serialize;

use super::{Args, VIEWERS, Viewers};
use crate::bench::child::{self, on_cpu, pin, ready};
use crate::bench::content::{self, Tally};
use crate::bench::end;
use crate::bench::options::Share;
use crate::bench::rates::Rates;
use crate::bench::{Bench, Part, limit};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::grouped;

/// Warming up: the memory is made, and handed over.
const WARM_UP: Share = Share::Count(8);
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Measured {
    how: &'static str,
    size: usize,
    subscribers: u32,
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

pub(super) fn measure(bench: &Bench, args: &Args, domain: &Domain, size: usize) -> anyhow::Result<()> {
    let (common, subscribers) = (&args.common, args.subscribers);
    let what = format!("large, {size} bytes in full");
    let rounds = args.rounds.each(common, what, |share| round(bench, args, domain, size, share))?;
    let measured = Measured {
        how: "in-full",
        size,
        subscribers,
        rounds: rounds.len(),
        count: rounds.iter().map(|round| round.count).sum(),
        rates: Rates::of(size, rounds.iter().map(|round| (round.msgs_per_s, round.limit_msgs_per_s))),
        lost: rounds.iter().map(|round| round.lost).sum(),
    };
    bench.count_lost(measured.lost);
    bench.print(common.json, "large", common.pin(), &measured, || {
        let Rates { msgs_per_s, bytes_per_s, limit_bytes_per_s, ratio } = measured.rates;
        let [bytes, limit] = [bytes_per_s, limit_bytes_per_s].map(|rate| grouped((rate / 1e6) as u64));
        format!(
            "in full, {} bytes to {subscribers}: {msgs_per_s} messages/s, {bytes} MB/s; one thread copies {limit} MB/s \
             ({ratio} ×)",
            grouped(size as u64)
        )
    })
}

fn round(bench: &Bench, args: &Args, domain: &Domain, size: usize, share: Share) -> anyhow::Result<Round> {
    let (ours, theirs) = args.common.cpus();
    let limit_msgs_per_s = on_cpu(ours, || Ok(limit::large_copies_per_second(size)))?;
    let node = Node::builder("writing").domain(domain.clone()).open()?;
    let mut viewers = bench.start(domain, &[Part::ViewInFull { subscribers: args.subscribers, cpu: theirs }])?;
    let publisher = end::publisher(&node, VIEWERS, &bench.interrupt)?;
    let mut writing = Writing { publisher, size, subscribers: args.subscribers as usize, number: 0 };
    let (count, time) = on_cpu(ours, || {
        writing.write(bench, WARM_UP)?;
        writing.write(bench, share)
    })?;
    let there: Vec<Tally> = bench.report(&mut viewers)?;
    let lost = there.iter().map(|tally| tally.spoilt + tally.received.abs_diff(writing.number)).sum();
    Ok(Round { count, msgs_per_s: count as f64 / time.as_secs_f64(), limit_msgs_per_s, lost })
}

/// The side that publishes.
struct Writing {
    publisher: Publisher,
    size: usize,
    subscribers: usize,
    /// Of the next message.
    number: u64,
}

impl Writing {
    /// How many messages were processed, and in which time.
    fn write(&mut self, bench: &Bench, share: Share) -> anyhow::Result<(u64, Duration)> {
        let (begun, mut count) = (Instant::now(), 0);
        while count == 0 || !share.is_used_up(begun.elapsed(), count) {
            let mut loan = self.publisher.loan_uninit(self.size)?;
            content::write(&mut loan, self.number);
            let receipt = self.publisher.publish_loan(loan)?;
            anyhow::ensure!(receipt.inboxes() == self.subscribers, "a subscriber is gone: {:?}", receipt.undelivered());
            self.number += 1;
            count += 1;
            bench.check()?;
        }
        self.publisher.flush(LIMIT).context("not everything was processed")?;
        Ok((count, begun.elapsed()))
    }
}

/// The process of the subscribers.
pub(in crate::bench) fn view(
    domain: &DomainArgs,
    subscribers: u32,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let mut viewers = Viewers::open(domain, subscribers, interrupt)?;
    pin(cpu)?;
    ready()?;
    let mut tallies = vec![Tally::default(); subscribers as usize];
    'over: loop {
        for (inbox, tally) in (0..).zip(&mut tallies) {
            let Some(sample) = viewers.inboxes[inbox].recv_sample()? else { break 'over };
            tally.spoilt += u64::from(!viewers.is(&sample, 0, tally.received));
            tally.received += 1;
            drop(sample);
            viewers.inboxes[inbox].ack(); // it waits at another inbox
        }
    }
    child::report(&tallies)
}
