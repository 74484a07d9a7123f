//! A message on its way to one inbox, and how far it has come.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Head, Kind};

use crate::send::channel::WaitsFor;
use crate::send::error::SendError;
use crate::send::topic_name::TopicName;
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'m> {
    /// Number and name of its topic; `None`: it goes to a node's own inbox.
    pub(crate) topic: Option<(u64, &'m Arc<TopicName>)>,
    /// What it is, if it belongs to a call.
    pub(crate) call: Option<Call<'m>>,
    pub(crate) payload: &'m [u8],
    /// Where its payload is or will be, if it does not go into rings; `None`: it is to be tried only with those.
    pub(crate) slot: Option<&'m OnceCell<Slot>>,
    /// It was published before the subscription, and kept for it.
    pub(crate) past: bool,
}

/// A record that belongs to a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'m> {
    pub(crate) kind: Kind,
    /// The number that the caller has given the call.
    pub(crate) number: u64,
    /// Until when a request is of use, in ns of `CLOCK_MONOTONIC`.
    pub(crate) deadline: Option<u64>,
    /// What a caller declares before its first record.
    pub(crate) caller: Option<&'m [u8]>,
}

impl<'m> Message<'m> {
    /// The slot that has its payload.
    pub(crate) fn lent(&self) -> Option<&'m Slot> {
        self.slot?.get()
    }

    /// The length of its payload, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.lent().map_or(self.payload.len(), |slot| slot.bytes() as usize)
    }

    pub(crate) fn head(&self) -> Head {
        match self.call {
            Some(Call { kind, number, deadline, .. }) => Head { correlation: Some(number), deadline, ..Head::of(kind) },
            None => Head { topic: self.topic.map(|(number, _)| number), past: self.past, ..Head::MESSAGE },
        }
    }
}

/// The outcome of one attempt to deliver a message.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Something has changed. Try again at once.
    Retry,
    /// It may succeed after this.
    Wait(WaitsFor),
    /// The payload does not fit into the ring, and there is no slot for it just now.
    NeedsSlot,
    /// It is over.
    Over(Delivery),
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// It is in the inbox's ring, or is kept for the receiver's return.
    Delivered,
    /// It is in a ring that only this process has. The receiver gets it if this process lives until the receiver
    /// answers.
    Pending,
    /// Its receiver is gone, and messages sent earlier are lost. This one may be tried again.
    Lost(SendError),
    /// It is not delivered.
    Failed(SendError),
    /// The subscription has ended.
    Ended,
    /// The subscription may not read the topic.
    Denied,
}

/// How long a message may wait, for all inboxes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) timeout: Duration,
    /// `None`: for ever.
    pub(crate) deadline: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now().checked_add(timeout) }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// When a task looks again in any case; `None`: never, or its time is up. A timer for a time that has passed wakes it at once.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.is_over())
    }
}
