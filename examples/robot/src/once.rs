//! What a sender and a receiver must record so that each message takes effect once, even if either of them is killed.
//!
//! A sender that was killed does not know what of its last messages has arrived, so its next run sends all those again, with the same
//! numbers, that were not processed for certain: it is the sender that doubles. A receiver that was killed between its effect and its
//! acknowledgement gets that message again, flagged: it skips both kinds by their number, because its effect is its record.
//!
//! All that was not processed is sent again, and in order. So the numbers that a receiver sees for the first time go up by one, and the
//! last one is all that it must know. Nothing is lost even if sender and receiver die together.

use std::path::PathBuf;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::messages::Head;
use crate::process::head;
use crate::record::{Record, read};

/// What a sender notes after each message.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    /// Up to which number all were processed.
    pub(crate) processed: u64,
}

/// The numbers of a sender's messages.
pub(crate) struct Numbers {
    record: Record<Sent>,
    /// The last one of all earlier runs, and what was processed of them for certain.
    before: Sent,
    last: u64,
}

impl Numbers {
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let sent: Vec<Sent> = read(&path)?;
        let number = sent.iter().map(|sent| sent.number).max().unwrap_or(0);
        let processed = sent.last().map_or(0, |sent| sent.processed);
        Ok(Self { record: Record::open(path)?, before: Sent { number, processed }, last: processed })
    }

    /// Whether there are messages of earlier runs that must be sent again.
    pub(crate) fn are_behind(&self) -> bool {
        self.last < self.before.number
    }

    /// The head of the next message.
    pub(crate) fn next(&self) -> Head {
        head(self.last + 1)
    }

    /// The message was sent; of all messages of this run, so many were processed.
    pub(crate) fn sent(&mut self, processed: u64) -> std::io::Result<()> {
        self.last += 1;
        self.record.add(Sent { number: self.last, processed: self.before.processed + processed })
    }
}

/// What a receiver has done.
pub(crate) struct Done(Record<Head>);

impl Done {
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        Ok(Self(Record::open(path)?))
    }

    /// Does what the message asks for, which is to put it on record, unless that was done before.
    pub(crate) fn process(&mut self, message: Head, is_redelivered: bool) -> std::io::Result<()> {
        let is_repeated = |last: Head| message.number <= last.number && (is_redelivered || message.run != last.run);
        if self.0.last().is_some_and(is_repeated) { Ok(()) } else { self.0.add(message) }
    }

    /// The number of the last one.
    pub(crate) fn last(&self) -> u64 {
        self.0.last().map_or(0, |last| last.number)
    }
}
