//! Notes every message of every topic. It delays nobody: what it is too slow for is overwritten, and it learns how much that is.

use std::path::Path;

use anyhow::Context;
use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
use librpc::{Node, Policy};

use crate::messages::{DETECTIONS, FRAMES, Head, SAMPLES};
use crate::process::Termination;
use crate::record::Record;

pub(crate) const TOPICS: [&str; 3] = [FRAMES, SAMPLES, DETECTIONS];

/// What it notes of each message.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
pub(crate) struct Logged {
    pub(crate) head: Head,
    /// How many messages of its sender it has missed before this one.
    pub(crate) missed: u64,
    /// The place in [`TOPICS`].
    pub(crate) topic: u32,
    /// The logger's process.
    pub(crate) by: u32,
}

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let end = Termination::new()?;
    let mut record = Record::open(files.join("logger"))?;
    let node = Node::open("logger")?;
    let mut messages = node.subscriber_builder(["**"]).policy(Policy::DropOldest).open()?;
    end.stops(messages.stop_handle());
    while let Some(message) = messages.recv_sample()? {
        let topic = TOPICS.iter().position(|&topic| message.topic() == Some(topic)).context("an unknown topic")?;
        let head = message.view().read(0).context("a message without a head")?;
        record.add(Logged { head, missed: message.missed(), topic: topic as u32, by: std::process::id() })?;
    }
    Ok(())
}
