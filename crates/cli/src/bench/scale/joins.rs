//! Joining and leaving a domain of many nodes.

use std::time::Instant;

use librpc::{Domain, Node};
use serde::Serialize;

use super::super::child::{raise_descriptor_limit, ready};
use super::super::process::{Activity, directory_bytes};
use super::super::{Bench, Part, median, median_ratio};
use super::SETTLE;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::readable;

#[derive(Serialize)]
pub(super) struct Join {
    of: &'static str,
    nodes: u32,
    one_ns: u64,
    many_ns: u64,
    ratio: f64,
    /// Context switches of the process with all the nodes while others joined and left.
    context_switches: u64,
}

impl Join {
    pub(super) fn line(&self) -> String {
        let [one, many] = [self.one_ns, self.many_ns].map(readable);
        let Self { nodes, ratio, context_switches, .. } = self;
        format!(
            "joining and leaving a domain of one node: {one}; of {nodes}: {many} ({ratio} ×), with {context_switches} \
             context switches of theirs"
        )
    }
}

/// Joins two domains in turn, one of which has many nodes. Also returns the memory of a domain and of a node.
pub(super) fn measure(bench: &Bench, nodes: u32, rounds: usize) -> anyhow::Result<(Join, u64, u64)> {
    let (few, many) = (bench.domain("one"), bench.domain("many"));
    let _one = bench.start(&few, &[Part::Nodes { count: 1 }])?;
    let crowd = bench.start(&many, &[Part::Nodes { count: nodes }])?;
    let crowd_pid = crowd.pids()[0];
    let (domain_bytes, all) = (directory_bytes(few.path())?, directory_bytes(many.path())?);
    let node_bytes = all.saturating_sub(domain_bytes) / u64::from(nodes - 1);

    bench.interrupt.wait_for(SETTLE)?;
    let before = Activity::of(crowd_pid)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        bench.check()?;
        for (domain, times) in [&few, &many].into_iter().zip(&mut times) {
            times.push(join(domain)?);
        }
    }
    let context_switches = Activity::of(crowd_pid)?.since(before).context_switches;
    let pairs: Vec<_> = times[1].iter().copied().zip(times[0].iter().copied()).collect();
    let [one_ns, many_ns] = times.map(|mut times| median(&mut times));
    let join = Join { of: "join", nodes, one_ns, many_ns, ratio: median_ratio(&pairs), context_switches };
    Ok((join, domain_bytes, node_bytes))
}

fn join(domain: &Domain) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let node = Node::builder("visitor").domain(domain.clone()).open()?;
    drop(node);
    Ok(begun.elapsed().as_nanos() as u64)
}

/// The process of the nodes.
pub(in super::super) fn nodes(domain: &DomainArgs, count: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let open = |number| {
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        domain.open(&format!("node-{number}"))
    };
    let nodes = (0..count).map(open).collect::<anyhow::Result<Vec<Node>>>()?;
    ready()?;
    interrupt.wait()?;
    drop(nodes);
    Ok(())
}
