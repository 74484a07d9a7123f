//! Joins, leaves, sweeps.

use std::time::Duration;

use anyhow::Context;
use librpc::Node;

use super::{DomainAt, open, say};

pub(super) fn live(domain: &DomainAt, id: &str) -> anyhow::Result<()> {
    let node = open(domain, id)?;
    drop(node.inbox()?);
    node.close(Duration::from_secs(10))?;
    say("lived")
}

pub(super) fn probe(domain: &DomainAt, id: &str) -> anyhow::Result<()> {
    let node = open(domain, id)?;
    let mut inbox = node.inbox()?;
    let mut sender = node.sender(id)?;
    sender.send(b"probe")?;
    let message = inbox.recv_timeout(Duration::from_secs(10))?.context("its own message does not arrive")?;
    anyhow::ensure!(message.payload() == b"probe", "another message arrives: {message:?}");
    inbox.ack();
    drop((sender, inbox));
    node.close(Duration::from_secs(10))?;
    say("probed")
}

pub(super) fn clean(domain: &DomainAt) -> anyhow::Result<()> {
    let cleaned = domain.domain().clean()?;
    say(&format!("cleaned {}", cleaned.len()))
}

pub(super) fn corpses(domain: &DomainAt, prefix: &str, count: u32) -> anyhow::Result<()> {
    let open = |n: u32| open(domain, &format!("{prefix}{n}"));
    let nodes: Vec<Node> = (0..count).map(open).collect::<anyhow::Result<_>>()?;
    let _inboxes: Vec<_> = nodes.iter().map(Node::inbox).collect::<Result<_, _>>()?;
    say("ready")?;
    std::thread::park(); // until it is killed
    Ok(())
}
