//! Publishes 30 frames a second, and keeps its rate whatever its viewers do: it never waits for them.

use std::path::Path;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
use librpc::{Node, SendError};

use crate::frame;
use crate::messages::{FRAMES, Head};
use crate::process::{Beat, head, now_ns};
use crate::record::Record;

pub(crate) const HERTZ: u32 = 30;

/// What it notes after each frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
pub(crate) struct Published {
    pub(crate) head: Head,
    pub(crate) at_ns: u64,
    /// How many subscriptions had no room for it.
    pub(crate) full: u32,
    /// How many did not get it for another reason.
    pub(crate) undelivered: u32,
}

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let mut beat = Beat::new(HERTZ)?;
    let mut record = Record::open(files.join("camera"))?;
    let node = Node::open("camera")?;
    let mut publisher = node.publisher_builder(FRAMES).never_waits().open()?;
    for number in 1.. {
        if !beat.next() {
            break;
        }
        let head = head(number);
        let mut frame = publisher.loan_uninit(frame::BYTES)?;
        frame::take(head, &mut frame);
        let receipt = publisher.publish_loan(frame)?;
        let full = receipt.undelivered().iter().filter(|error| matches!(error, SendError::Full { .. })).count() as u32;
        let undelivered = receipt.undelivered().len() as u32 - full;
        record.add(Published { head, at_ns: now_ns(), full, undelivered })?;
    }
    Ok(())
}
