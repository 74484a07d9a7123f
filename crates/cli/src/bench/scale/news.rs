//! What a publisher pays once when a node joins or leaves, or subscribes or unsubscribes, elsewhere in a domain.
//!
//! A third process does this on demand, by a message to its node. The message is processed when it is done.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::{Domain, Node, Publisher, Sender, Wait};
use serde::Serialize;

use super::super::child::ready;
use super::super::end::{self, Via};
use super::super::{Bench, Part, median, median_ratio};
use super::MESSAGE_BYTES;
use crate::children::Children;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::readable;

const NEWS: [&str; 4] = ["join", "subscribe", "unsubscribe", "leave"];
const LIMIT: Duration = Duration::from_secs(10);
const VISITOR: &str = "visitor";

#[derive(Serialize)]
pub(super) struct News {
    of: &'static str,
    /// What happened elsewhere.
    what: &'static str,
    nodes: u32,
    /// Medians of the first publish after it, in a domain of few nodes and of many.
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
    /// The longest in the domain of many.
    max_ns: u64,
    /// The publish after that one, in the domain of many.
    next_ns: u64,
}

impl News {
    pub(super) fn line(&self) -> String {
        let [one, many, max, next] = [self.one_ns, self.many_ns, self.max_ns, self.next_ns].map(readable);
        let Self { what, nodes, ratio, .. } = self;
        format!(
            "a publish after a {what} elsewhere: {one} among few nodes; among {nodes}: {many} ({ratio} ×), at most \
             {max}; the one after it {next}"
        )
    }
}

/// A domain with a publisher whose only subscriber is the visitor.
struct Place {
    publisher: Publisher,
    orders: Sender,
    _node: Node,
    _processes: [Children; 2],
}

impl Place {
    fn new(bench: &Bench, domain: &Domain, nodes: u32) -> anyhow::Result<Self> {
        let crowd = bench.start(domain, &[Part::Nodes { count: nodes }])?;
        let visitor = bench.start(domain, &[Part::Visitor])?;
        let node = Node::builder("publisher").domain(domain.clone()).open()?;
        let mut publisher = node.publisher(&end::topic(VISITOR))?;
        anyhow::ensure!(publisher.wait_for_subscriber(LIMIT)?, "no subscriber has come");
        let orders = node.connect_timeout(VISITOR, LIMIT)?;
        Ok(Self { publisher, orders, _node: node, _processes: [crowd, visitor] })
    }

    /// The first publish after the visitor has done this, and the next one.
    fn after(&mut self, what: &str) -> anyhow::Result<[u64; 2]> {
        self.publish()?;
        self.orders.send(what.as_bytes())?;
        self.orders.flush(LIMIT).context("the visitor does not follow its orders")?;
        Ok([self.publish()?, self.publish()?])
    }

    fn publish(&mut self) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let inboxes = self.publisher.publish(&[7; MESSAGE_BYTES])?.inboxes();
        let took = begun.elapsed().as_nanos() as u64;
        anyhow::ensure!(inboxes == 1, "a publish has reached {inboxes} inboxes");
        Ok(took)
    }
}

pub(super) fn measure(bench: &Bench, nodes: u32, rounds: usize) -> anyhow::Result<Vec<News>> {
    let mut places =
        [Place::new(bench, &bench.domain("few-learn"), 1)?, Place::new(bench, &bench.domain("many-learn"), nodes)?];
    let mut times = NEWS.map(|_| [const { Vec::new() }; 2]);
    let mut next = NEWS.map(|_| Vec::new());
    for round in 0..=rounds {
        for ((what, times), next) in NEWS.into_iter().zip(&mut times).zip(&mut next) {
            for (place, times) in places.iter_mut().zip(times) {
                let [first, second] = place.after(what)?;
                if round > 0 {
                    times.push(first);
                    next.push(second); // of few, then of many
                }
            }
            bench.check()?;
        }
    }
    let all = NEWS.into_iter().zip(times).zip(next);
    let news = all.map(|((what, times), next)| {
        let pairs: Vec<_> = times[1].iter().copied().zip(times[0].iter().copied()).collect();
        let mut of_many: Vec<u64> = next.into_iter().skip(1).step_by(2).collect();
        let [one_ns, many_ns] = times.map(|mut times| median(&mut times));
        let max_ns = pairs.iter().map(|pair| pair.0).max().unwrap_or(0);
        let ratio = median_ratio(&pairs);
        News { of: "news", what, nodes, one_ns, many_ns, ratio, max_ns, next_ns: median(&mut of_many) }
    });
    Ok(news.collect())
}

/// The process of the visitor.
pub(in super::super) fn visitor(domain: &DomainArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let node = domain.open(VISITOR)?;
    let mut orders = end::inbox(&node, Via::Send, Wait::Block, librpc::DEFAULT_CAPACITY, interrupt)?;
    let subscriber = end::inbox(&node, Via::Topic, Wait::Block, librpc::DEFAULT_CAPACITY, interrupt)?;
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| take(subscriber));
        ready()?;
        let (mut guest, mut subscription) = (None, None);
        while let Some(what) = end::next(&mut orders, |word| String::from_utf8_lossy(word).into_owned())? {
            match &*what {
                "join" => guest = Some(domain.open("guest")?),
                "leave" => guest = None,
                "subscribe" => subscription = Some(node.subscribe("other/*/topic")?),
                "unsubscribe" => subscription = None,
                other => bail!("a visitor cannot {other}"),
            }
        }
        drop((guest, subscription));
        taking.join().expect("no panic")
    })
}

fn take(mut subscriber: librpc::Inbox) -> anyhow::Result<()> {
    while subscriber.recv()?.is_some() {}
    Ok(())
}
