//! librpc: two nodes with an inbox each.
//!
//! An inbox that polls does so without end (`Wait::Spin`); one that sleeps does so at once (`Wait::Block`). Everything else is
//! at its default: rings of 256 KiB, a message counts as processed when the next one is asked for, a full ring makes the
//! sender wait.

use anyhow::Context;
use librpc::{Domain, Inbox, Node, Sender, Wait};

use crate::contender::{Contender, Job};
use crate::payload;

pub(crate) struct Librpc {
    to: Sender,
    inbox: Inbox,
    message: Vec<u8>,
    _node: Node,
}

impl Contender for Librpc {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let (theirs, ours) = job.directions("b", "a");
        let node = Node::builder(ours).domain(Domain::at(job.place.join("domain"))).open()?;
        // For topics, two lines change and one below: `node.subscribe(ours)` in place of the inbox, `node.publisher(theirs)` in
        // place of the sender, `publish` in place of `send`.
        let inbox = node.inbox_builder().wait(if job.sleeps() { Wait::Block } else { Wait::Spin }).open()?;
        let to = node.sender(theirs)?;
        Ok(Self { to, inbox, message: vec![0; job.bytes], _node: node })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.message);
        self.to.send(&self.message).context("librpc cannot send")
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
