//! Sending to a receiver with many idle channels.

use std::time::{Duration, Instant};

use librpc::{Node, Sender};
use serde::Serialize;

use super::super::child::{on_cpu, pin, raise_descriptor_limit, ready};
use super::super::process::memfd_bytes;
use super::super::{Bench, Part, median, median_ratio};
use super::{MESSAGE_BYTES, SETTLE};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::readable;

const MESSAGES: u64 = 10_000;

#[derive(Serialize)]
pub(super) struct Send {
    of: &'static str,
    channels: u32,
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
}

impl Send {
    pub(super) fn line(&self) -> String {
        let [one, many] = [self.one_ns, self.many_ns].map(readable);
        let Self { channels, ratio, .. } = self;
        format!(
            "a message to a receiver with one channel: {one}; with {channels} idle ones besides: {many} ({ratio} ×)"
        )
    }
}

/// Sends in turn to two nodes of one process, one of which has many idle channels. Also returns the memory of a channel.
pub(super) fn measure(
    bench: &Bench,
    cpus: (Option<usize>, Option<usize>),
    channels: u32,
    rounds: usize,
) -> anyhow::Result<(Send, u64)> {
    let domain = bench.domain("channels");
    let receivers = bench.start(&domain, &[Part::Receive { nodes: vec!["few".into(), "many".into()], cpu: cpus.1 }])?;
    let before = memfd_bytes(&receivers.pids())?;
    let idle = bench.start(&domain, &[Part::Connected { to: "many".into(), count: channels }])?;
    bench.interrupt.wait_for(SETTLE)?;
    let pids = [receivers.pids(), idle.pids()].concat();
    let channel_bytes = memfd_bytes(&pids)?.saturating_sub(before) / u64::from(channels);

    let node = Node::builder("sender").domain(domain).open()?;
    let mut senders = [node.sender("few")?, node.sender("many")?];
    let times = on_cpu(cpus.0, || {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            bench.check()?;
            for (sender, times) in senders.iter_mut().zip(&mut times) {
                let ns = send_many(sender)?;
                if round > 0 {
                    times.push(ns);
                }
            }
        }
        Ok(times)
    })?;
    let pairs: Vec<_> = times[1].iter().copied().zip(times[0].iter().copied()).collect();
    let [one_ns, many_ns] = times.map(|mut times| median(&mut times) / MESSAGES);
    Ok((Send { of: "send", channels, one_ns, many_ns, ratio: median_ratio(&pairs) }, channel_bytes))
}

/// The time until many messages are processed.
fn send_many(sender: &mut Sender) -> anyhow::Result<u64> {
    let begun = Instant::now();
    for _ in 0..MESSAGES {
        sender.send(&[7; MESSAGE_BYTES])?;
    }
    sender.flush(Duration::from_secs(10))?;
    Ok(begun.elapsed().as_nanos() as u64)
}

/// The process of the receivers.
pub(in super::super) fn receive(
    domain: &DomainArgs,
    names: &[String],
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let nodes = names.iter().map(|name| domain.open(name)).collect::<anyhow::Result<Vec<_>>>()?;
    pin(cpu)?; // and with it the threads that are started now
    std::thread::scope(|scope| {
        let threads = nodes.iter().map(|node| {
            let mut inbox = node.inbox()?;
            let stop = inbox.stop_handle();
            interrupt.then(move || stop.stop());
            Ok(scope.spawn(move || -> anyhow::Result<()> {
                while inbox.recv()?.is_some() {}
                Ok(())
            }))
        });
        let threads = threads.collect::<anyhow::Result<Vec<_>>>()?;
        ready()?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

/// The process of the idle channels.
pub(in super::super) fn connected(
    domain: &DomainArgs,
    to: &str,
    count: u32,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let node = domain.open("connected")?;
    let connect = |_| {
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        Ok(node.sender_within(to, Duration::from_secs(10))?)
    };
    let senders = (0..count).map(connect).collect::<anyhow::Result<Vec<_>>>()?;
    ready()?;
    interrupt.wait()?;
    drop(senders);
    Ok(())
}
