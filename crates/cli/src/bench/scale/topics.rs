//! Publishing on many topics, and while there are many subscriptions to other topics.

use std::time::{Duration, Instant};

use librpc::{Inbox, Node, Outbox, Topic};
use serde::Serialize;

use super::super::child::{on_cpu, pin, raise_descriptor_limit, ready};
use super::super::{Bench, Part, median, median_ratio};
use super::MESSAGE_BYTES;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::readable;

const MESSAGES: usize = 10_000;
const LIMIT: Duration = Duration::from_secs(10);
const INBOXES_PER_NODE: u32 = 1000;

/// The CPUs of the publisher and of the subscriptions.
type Pair = (Option<usize>, Option<usize>);

#[derive(Serialize)]
pub(super) struct Publish {
    of: &'static str,
    /// How many topics, or how many subscriptions.
    count: u32,
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
}

impl Publish {
    fn new(of: &'static str, count: u32, times: [Vec<u64>; 2]) -> Self {
        let pairs: Vec<_> = times[1].iter().copied().zip(times[0].iter().copied()).collect();
        let [one_ns, many_ns] = times.map(|mut times| median(&mut times) / MESSAGES as u64);
        Self { of, count, one_ns, many_ns, ratio: median_ratio(&pairs) }
    }

    pub(super) fn line(&self) -> String {
        let [one, many] = [self.one_ns, self.many_ns].map(readable);
        let Self { of, count, ratio, .. } = self;
        match *of {
            "topics" => format!("a publish on one topic: {one}; on {count} in turn: {many} ({ratio} ×)"),
            _ => format!("a publish in a domain with one subscription: {one}; with {count} more: {many} ({ratio} ×)"),
        }
    }
}

/// Publishes on one topic and on many, in turn, to the same inbox.
pub(super) fn measure_topics(bench: &Bench, cpus: Pair, count: u32, rounds: usize) -> anyhow::Result<Publish> {
    let domain = bench.domain("topics");
    let _subscriber = bench.start(&domain, &[Part::Patterns { count: 0, cpu: cpus.1 }])?;
    let node = Node::builder("publisher").domain(domain).open()?;
    let open = |topics: u32| -> anyhow::Result<_> {
        let mut outbox = node.outbox();
        let topics = (0..topics).map(|number| outbox.topic(&format!("bench/{number}")));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(outbox.wait_for_subscriber(topics[0], LIMIT)?, "no subscriber has come");
        Ok((outbox, topics))
    };
    let mut outboxes = [open(1)?, open(count)?];
    let times = on_cpu(cpus.0, || {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            bench.check()?;
            for ((outbox, topics), times) in outboxes.iter_mut().zip(&mut times) {
                let ns = publish_many(outbox, topics)?;
                if round > 0 {
                    times.push(ns);
                }
            }
        }
        Ok(times)
    })?;
    Ok(Publish::new("topics", count, times))
}

/// Publishes in two domains in turn, one of which has many subscriptions to other topics.
pub(super) fn measure_patterns(bench: &Bench, cpus: Pair, count: u32, rounds: usize) -> anyhow::Result<Publish> {
    let mut places = Vec::new();
    for (name, patterns) in [("one-pattern", 0), ("patterns", count)] {
        let domain = bench.domain(name);
        let subscriber = bench.start(&domain, &[Part::Patterns { count: patterns, cpu: cpus.1 }])?;
        let node = Node::builder("publisher").domain(domain).open()?;
        let mut outbox = node.outbox();
        let topic = outbox.topic("bench/0")?;
        anyhow::ensure!(outbox.wait_for_subscriber(topic, LIMIT)?, "no subscriber has come");
        places.push((outbox, [topic], node, subscriber));
    }
    let times = on_cpu(cpus.0, || {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            bench.check()?;
            for ((outbox, topics, ..), times) in places.iter_mut().zip(&mut times) {
                let ns = publish_many(outbox, topics)?;
                if round > 0 {
                    times.push(ns);
                }
            }
        }
        Ok(times)
    })?;
    Ok(Publish::new("patterns", count, times))
}

/// The time until many messages are processed, on these topics in turn.
fn publish_many(outbox: &mut Outbox, topics: &[Topic]) -> anyhow::Result<u64> {
    let begun = Instant::now();
    for &topic in topics.iter().cycle().take(MESSAGES) {
        let inboxes = outbox.publish_timeout(topic, &[7; MESSAGE_BYTES], LIMIT)?.inboxes();
        anyhow::ensure!(inboxes == 1, "a publish has reached {inboxes} inboxes");
    }
    outbox.flush(LIMIT)?;
    Ok(begun.elapsed().as_nanos() as u64)
}

/// Subscriptions to other topics, spread over nodes: the list of a node's inboxes has a limit.
struct Others {
    _inboxes: Vec<Inbox>,
    _nodes: Vec<Node>,
}

impl Others {
    fn open(domain: &DomainArgs, count: u32, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let (mut nodes, mut inboxes) = (Vec::new(), Vec::new());
        for number in 0..count {
            anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
            if number % INBOXES_PER_NODE == 0 {
                nodes.push(domain.open(&format!("other-{number}"))?);
            }
            let node = nodes.last().expect("the first subscription has opened one");
            inboxes.push(node.subscribe(&format!("other/{number}/**"))?);
        }
        Ok(Self { _inboxes: inboxes, _nodes: nodes })
    }
}

/// The process of the subscriptions.
pub(in super::super) fn patterns(
    domain: &DomainArgs,
    count: u32,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let node = domain.open("subscriber")?;
    let mut inbox = node.subscribe("bench/*")?;
    let _others = Others::open(domain, count, interrupt)?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());
    pin(cpu)?;
    ready()?;
    while inbox.recv()?.is_some() {}
    Ok(())
}
