//! Many nodes that come and go.

use std::io::BufRead;

use librpc::Node;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{DomainAt, open, say};

/// How many operations there are between two reports to the supervisor.
const REPORTED: u64 = 100;

pub(super) fn churn(domain: &DomainAt, prefix: &str, most: usize, operations: u64, seed: u64) -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut nodes: Vec<(u64, Node)> = Vec::new();
    let mut ids = 0;
    for operation in 0..operations {
        // The number grows to its maximum, and then stays near it.
        if nodes.is_empty() || nodes.len() < most && rng.u32(0..4) > 0 {
            nodes.push((ids, open(domain, &format!("{prefix}{ids}"))?));
            ids += 1;
        } else {
            nodes.swap_remove(rng.usize(0..nodes.len()));
        }
        if operation % REPORTED == REPORTED - 1 {
            say(&format!("{}", operation + 1))?;
        }
    }
    say(&format!("held {}", nodes.len()))?;
    drop(nodes);
    say("done")
}

pub(super) fn in_and_out(domain: &DomainAt, id: &str) -> anyhow::Result<()> {
    let mut node = None;
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "in" => {
                node = Some(open(domain, id)?);
                say("in")?;
            }
            "count" => {
                let nodes = domain.domain().nodes()?;
                say(&format!("{}", nodes.iter().filter(|node| node.alive).count()))?;
            }
            "out" => {
                node = None;
                say("out")?;
            }
            // Out and in again: the last node that leaves races the first one that joins.
            "turn" => {
                node = None;
                node.replace(open(domain, id)?);
                say("turned")?;
            }
            other => anyhow::bail!("an unknown line {other:?}"),
        }
    }
    drop(node);
    Ok(())
}
