//! librpc: two nodes, each of which publishes on a topic that the other one subscribes to.
//!
//! A polling subscription never sleeps (`Wait::Spin`); a sleeping one sleeps at once (`Wait::Block`). All other options
//! have their defaults: rings hold 256 KiB, a message counts as processed when the next one is requested, and a full
//! ring makes the publisher wait.

use std::time::Duration;

use anyhow::{Context, bail};
use librpc::{Domain, Node, Publisher, Subscriber, Wait};

use crate::contender::{Contender, Job};
use crate::payload;

/// How long the other side may take to appear, or to make room.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Librpc {
    to: Publisher,
    inbox: Subscriber,
    message: Vec<u8>,
    _node: Node,
}

impl Contender for Librpc {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let (theirs, ours) = job.directions("b", "a");
        let node = Node::builder(ours).domain(Domain::at(job.place.join("domain"))).open()?;
        let wait = if job.sleeps() { Wait::Block } else { Wait::Spin };
        let inbox = node.subscriber_builder([ours]).wait(wait).open()?;
        let mut to = node.publisher(theirs)?;
        to.set_timeout(LIMIT);
        anyhow::ensure!(to.wait_for_subscriber(LIMIT)?, "the other side does not come");
        Ok(Self { to, inbox, message: vec![0; job.bytes], _node: node })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.message);
        let receipt = self.to.publish(&self.message).context("librpc cannot publish")?;
        match receipt.inboxes() {
            1 => Ok(()),
            inboxes => bail!("a publish has reached {inboxes} inboxes: {:?}", receipt.undelivered()),
        }
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        if let Some(message) = self.inbox.recv()? {
            take(message.payload());
        }
        Ok(())
    }

    fn stop(&self) -> Box<dyn FnOnce() + Send> {
        let stop = self.inbox.stop_handle();
        Box::new(move || stop.stop())
    }
}
