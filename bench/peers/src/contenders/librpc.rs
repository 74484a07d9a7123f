//! librpc: two nodes, each of which publishes on a topic that the other one subscribes to.
//!
//! A polling subscription never sleeps (`Wait::Spin`); a sleeping one sleeps at once (`Wait::Block`). All other options
//! have their defaults: rings hold 256 KiB, a message counts as processed when the next one is requested, and a full
//! ring makes the publisher wait. Large messages are loans and samples. The receiver trusts its publisher, and so reads
//! them where they are, as iceoryx2 always does.

use std::time::Duration;

use anyhow::{Context, bail};
use librpc::{Domain, Loan, Node, Publisher, Receipt, Sample, Subscriber, Wait};

use crate::contender::{Contender, Job};
use crate::payload;

/// How long the other side may take to appear, or to make room.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Librpc {
    to: Publisher,
    inbox: Subscriber,
    message: Vec<u8>,
    is_large: bool,
    prepared: Option<Loan>,
    taken: Option<Sample>,
    _node: Node,
}

fn reached(receipt: &Receipt<'_>) -> anyhow::Result<()> {
    match receipt.inboxes() {
        1 => Ok(()),
        inboxes => bail!("a publish has reached {inboxes} inboxes: {:?}", receipt.undelivered()),
    }
}

impl Contender for Librpc {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let (theirs, ours) = job.directions("b", "a");
        let node = Node::builder(ours).domain(Domain::at(job.place.join("domain"))).open()?;
        let wait = if job.sleeps() { Wait::Block } else { Wait::Spin };
        let inbox = node.subscriber_builder([ours]).wait(wait);
        // SAFETY: the other side is this program, which writes a loan only before it publishes it.
        let inbox = unsafe { inbox.trust_publishers() }.open()?;
        let mut to = node.publisher(theirs)?;
        to.set_timeout(LIMIT);
        anyhow::ensure!(to.wait_for_subscriber(LIMIT)?, "the other side does not come");
        let message = vec![0; job.bytes];
        Ok(Self { to, inbox, message, is_large: job.is_large(), prepared: None, taken: None, _node: node })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        if self.is_large {
            self.prepare(number)?;
            return self.hand_over();
        }
        payload::write(number, &mut self.message);
        reached(&self.to.publish(&self.message).context("librpc cannot publish")?)
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        if self.is_large {
            return if self.take()? { self.read(take) } else { Ok(()) };
        }
        if let Some(message) = self.inbox.recv()? {
            take(message.payload());
        }
        Ok(())
    }

    fn prepare(&mut self, number: u64) -> anyhow::Result<()> {
        let mut loan = self.to.loan_uninit(self.message.len())?;
        payload::write(number, &mut loan);
        self.prepared = Some(loan);
        Ok(())
    }

    fn hand_over(&mut self) -> anyhow::Result<()> {
        let loan = self.prepared.take().context("no message is prepared")?;
        reached(&self.to.publish_loan(loan).context("librpc cannot publish")?)
    }

    fn take(&mut self) -> anyhow::Result<bool> {
        self.taken = self.inbox.recv_sample()?;
        Ok(self.taken.is_some())
    }

    fn read(&mut self, read: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        let sample = self.taken.take().context("no message was taken")?;
        read(sample.payload().context("its publisher is trusted")?);
        Ok(())
    }

    fn stop(&self) -> Box<dyn FnOnce() + Send> {
        let stop = self.inbox.stop_handle();
        Box::new(move || stop.stop())
    }
}
