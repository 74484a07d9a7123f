//! `librpc bench fanout`: what publishing to k inboxes costs the publisher while none of them is full and nobody receives.
//!
//! A second process has the inboxes, with rings that hold a whole burst. Between two bursts it gets the order to take
//! and check what has come. The limits take turns: sending to one node under the same conditions, and copying k messages.

use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{FlushError, Node, Outbox, Sender, Topic, Wait};
use serde::Serialize;

use super::child::{self, on_cpu, pin, ready};
use super::content::{self, Tally};
use super::end::{self, Via};
use super::options::{Common, Rounds, SIZES, Share};
use super::{Bench, Part, limit, median_of, round_to};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;

const INBOXES: [usize; 5] = [1, 2, 4, 8, 16];
const MOST_INBOXES: usize = 16;
/// Messages in a burst.
const BURST: u64 = 256;
/// The most that a message takes in a ring besides its payload.
const HEAD_BYTES: u64 = 128;
const LIMIT: Duration = Duration::from_secs(10);
const CROWD: &str = "crowd";

/// What publishing to 1, 2, 4, 8 and 16 inboxes costs the publisher
#[derive(clap::Args)]
#[command(after_help = "\
Writes one object for each number of inboxes. --count is the number of bursts of 256 messages.

Examples:
  librpc bench fanout --pin 0,1
  librpc bench fanout --size 256 --count 200 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    inboxes: usize,
    bursts: usize,
    /// Medians over the bursts of a publish to all of them, and per inbox.
    publish_ns: f64,
    inbox_ns: f64,
    /// Of a send to one node.
    send_ns: f64,
    /// The median over the bursts of what an inbox costs to what a send costs.
    ratio: f64,
    /// Of copying the message once per inbox, within the processor's cache.
    limit_ns: f64,
    lost: u64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let common = &args.common;
    let domain = bench.domain("fanout");
    for size in common.sizes(SIZES)? {
        let node = Node::builder("source").domain(domain.clone()).open()?;
        let mut crowd = bench.start(&domain, &[Part::Crowd { size, cpu: common.cpus().1 }])?;
        let mut source = Source::open(&node, size)?;
        let (bursts, limit_ns) = on_cpu(common.cpus().0, || {
            let limit_ns = 1e9 / limit::copies_per_second(size);
            Ok((source.bursts(bench, args)?, limit_ns))
        })?;
        let tallies: Vec<Tally> = bench.report(&mut crowd)?;
        let lost = source.lost(&tallies);
        drop((source, crowd));
        drop(node);
        bench.count_lost(lost);
        for (index, inboxes) in INBOXES.into_iter().enumerate() {
            let of = |each: &dyn Fn(&Burst) -> f64| median_of(bursts.iter().map(each));
            let publish_ns = of(&|burst| burst.publish_ns[index]);
            let measured = Measured {
                size,
                inboxes,
                bursts: bursts.len(),
                publish_ns: round_to(publish_ns, 1),
                inbox_ns: round_to(publish_ns / inboxes as f64, 1),
                send_ns: round_to(of(&|burst| burst.send_ns), 1),
                ratio: round_to(of(&|burst| burst.publish_ns[index] / inboxes as f64 / burst.send_ns), 3),
                limit_ns: round_to(limit_ns * inboxes as f64, 1),
                lost,
            };
            bench.print(common.json, "fanout", common.pin(), &measured, || {
                let Measured { publish_ns, inbox_ns, send_ns, ratio, limit_ns, .. } = measured;
                format!(
                    "{size} bytes to {inboxes} inboxes: {publish_ns} ns a publish, {inbox_ns} ns an inbox; a send \
                     {send_ns} ns ({ratio} ×), copying {limit_ns} ns"
                )
            })?;
        }
    }
    Ok(())
}

/// A burst of each kind: the time per message in ns.
struct Burst {
    send_ns: f64,
    publish_ns: [f64; INBOXES.len()],
}

/// The side that publishes.
struct Source {
    sender: Sender,
    outbox: Outbox,
    topics: [Topic; INBOXES.len()],
    messages: Vec<Vec<u8>>,
    bursts: u64,
}

impl Source {
    fn open(node: &Node, size: usize) -> anyhow::Result<Self> {
        let mut outbox = node.outbox();
        let mut topics = Vec::new();
        for inboxes in INBOXES {
            let topic = outbox.topic(&burst_topic(inboxes))?;
            anyhow::ensure!(outbox.subscribers(topic)? == inboxes, "some inboxes are missing");
            topics.push(topic);
        }
        let topics = topics.try_into().expect("one for each number of inboxes");
        let messages = vec![vec![0; size]; BURST as usize];
        Ok(Self { sender: node.connect_timeout(CROWD, LIMIT)?, outbox, topics, messages, bursts: 0 })
    }

    fn bursts(&mut self, bench: &Bench, args: &Args) -> anyhow::Result<Vec<Burst>> {
        self.burst()?; // connects, and touches the memory
        let what = format!("fanout, {} bytes", self.messages[0].len());
        let bursts = args.rounds.each(&args.common, what, |share| self.bursts_of_a_round(bench, share))?;
        Ok(bursts.into_iter().flatten().collect())
    }

    fn bursts_of_a_round(&mut self, bench: &Bench, share: Share) -> anyhow::Result<Vec<Burst>> {
        let (begun, mut bursts) = (Instant::now(), Vec::new());
        while bursts.is_empty() || !share.is_used_up(begun.elapsed(), bursts.len() as u64) {
            bursts.push(self.burst()?);
            bench.check()?;
        }
        Ok(bursts)
    }

    /// A burst of each kind, each time with another one first: the crowd may still be busy with the last one of the round
    /// before.
    fn burst(&mut self) -> anyhow::Result<Burst> {
        let mut burst = Burst { send_ns: 0.0, publish_ns: [0.0; INBOXES.len()] };
        for kind in 0..=INBOXES.len() {
            let kind = (kind + self.bursts as usize) % (INBOXES.len() + 1);
            self.write();
            // The first message wakes the receiver. It is not measured.
            let (first, others) = self.messages.split_first().expect("a burst has messages");
            match INBOXES.get(kind) {
                // Each inbox numbers what comes on each of its topics.
                Some(&inboxes) => {
                    let (outbox, topic) = (&mut self.outbox, self.topics[kind]);
                    publish(outbox, topic, first, inboxes)?;
                    burst.publish_ns[kind] = each_ns(others, |message| publish(outbox, topic, message, inboxes))?;
                }
                None => {
                    let sender = &mut self.sender;
                    sender.send(first)?;
                    burst.send_ns = each_ns(others, |message| Ok(sender.send(message)?))?;
                }
            }
            self.drain()?;
        }
        self.bursts += 1;
        Ok(burst)
    }

    fn write(&mut self) {
        for (message, number) in self.messages.iter_mut().zip(self.bursts * BURST..) {
            content::write(message, number);
        }
    }

    /// Has the crowd take everything that was published: once it has processed this message, it has taken what it found. (It
    /// may not have found a new channel yet.)
    fn drain(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.sender.send(DRAIN)?;
            self.sender.flush(LIMIT).context("the crowd does not process its messages")?;
            match self.outbox.flush(Duration::from_millis(1)) {
                Ok(()) => return Ok(()),
                Err(FlushError::TimedOut { .. }) if begun.elapsed() < LIMIT => {}
                Err(error) => return Err(error).context("not everything was processed"),
            }
        }
    }

    fn lost(&self, tallies: &[Tally]) -> u64 {
        let sent = self.bursts * BURST;
        tallies.iter().map(|tally| tally.spoilt + sent.abs_diff(tally.received)).sum()
    }
}

/// The time per message in ns.
fn each_ns(messages: &[Vec<u8>], mut each: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    messages.iter().try_for_each(|message| each(message))?;
    Ok(begun.elapsed().as_nanos() as f64 / messages.len() as f64)
}

const DRAIN: &[u8] = b"drain!!!!";

fn publish(outbox: &mut Outbox, topic: Topic, message: &[u8], inboxes: usize) -> anyhow::Result<()> {
    let receipt = outbox.publish_timeout(topic, message, Duration::ZERO)?;
    anyhow::ensure!(receipt.inboxes() == inboxes, "a publish has not reached every inbox: {:?}", receipt.undelivered());
    Ok(())
}

fn burst_topic(inboxes: usize) -> String {
    end::topic(&format!("to-{inboxes}"))
}

/// The process with the inboxes.
pub(super) fn crowd(domain: &DomainArgs, size: usize, cpu: Option<usize>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let capacity = ((size as u64 + HEAD_BYTES) * (BURST + 1)).max(4 * (size as u64 + HEAD_BYTES)).next_power_of_two();
    let node = domain.open(CROWD)?;
    let mut orders = end::inbox(&node, Via::Send, Wait::Block, capacity, interrupt)?;
    let mut inboxes = Vec::new();
    for number in 0..MOST_INBOXES {
        let topics = INBOXES.into_iter().filter(|&inboxes| number < inboxes).map(burst_topic);
        inboxes.push(node.subscriber_builder(topics).wait(Wait::Block).capacity(capacity).open()?);
    }
    pin(cpu)?;
    ready()?;
    // One tally of what is sent to the node, and one for each topic of each inbox.
    let mut sent = Tally::default();
    let mut tallies: Vec<Vec<(String, Tally)>> = vec![Vec::new(); MOST_INBOXES];
    loop {
        let is_drain = |payload: &[u8]| {
            let is_drain = payload == DRAIN;
            if !is_drain {
                sent.take(payload);
            }
            is_drain
        };
        match end::next(&mut orders, is_drain)? {
            None => break,
            Some(false) => {}
            Some(true) => {
                for (inbox, tallies) in inboxes.iter_mut().zip(&mut tallies) {
                    take_all(inbox, tallies)?;
                }
            }
        }
    }
    let published = tallies.into_iter().flatten().map(|(_, tally)| tally);
    child::report(&published.chain([sent]).collect::<Vec<_>>())
}

fn take_all(inbox: &mut librpc::Inbox, tallies: &mut Vec<(String, Tally)>) -> anyhow::Result<()> {
    while let Some(message) = inbox.recv_timeout(Duration::ZERO)? {
        let known = tallies.iter().position(|(topic, _)| topic == message.topic().unwrap_or_default());
        let index = known.unwrap_or_else(|| {
            tallies.push((message.topic().unwrap_or_default().to_owned(), Tally::default()));
            tallies.len() - 1
        });
        tallies[index].1.take(message.payload());
    }
    Ok(())
}
