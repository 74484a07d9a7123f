//! Joins, leaves, sweeps.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use librpc::{Domain, Node};

use super::{open, say};

pub(super) fn live(domain: PathBuf, id: &str, shared: bool) -> anyhow::Result<()> {
    let domain = Domain::at(domain);
    let domain = if shared { domain.shared_with_group(rustix::process::getegid().as_raw()) } else { domain };
    let node = Node::builder(id).domain(domain).open()?;
    drop(node.inbox()?);
    node.close(Duration::from_secs(10))?;
    say("lived")
}

pub(super) fn probe(domain: PathBuf, id: &str) -> anyhow::Result<()> {
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

pub(super) fn clean(domain: PathBuf) -> anyhow::Result<()> {
    let cleaned = Domain::at(domain).clean()?;
    say(&format!("cleaned {}", cleaned.len()))
}

pub(super) fn corpses(domain: PathBuf, prefix: &str, count: u32) -> anyhow::Result<()> {
    let open = |n: u32| open(domain.clone(), &format!("{prefix}{n}"));
    let nodes: Vec<Node> = (0..count).map(open).collect::<anyhow::Result<_>>()?;
    let _inboxes: Vec<_> = nodes.iter().map(Node::inbox).collect::<Result<_, _>>()?;
    say("ready")?;
    std::thread::park(); // until it is killed
    Ok(())
}
